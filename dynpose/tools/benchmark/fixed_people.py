"""Stand-ins that fix how many people a model finds, so that time and memory can be measured over their number.

An untrained model finds nobody, and a trained one whom it likes. A stand-in plants N people in what the network
predicts, as early as it can: the whole network is run, and what is planted then goes through the model's own decoding,
its NMS and its keypoint branch. How to do that differs by meta-architecture, so each has a stand-in of its own:

    @stand_in_for("MyPose")
    @contextlib.contextmanager
    def my_people(model, boxes):
        handle = model.head.register_forward_hook(...)
        try:
            yield
        finally:
            handle.remove()

It gets the model in eval mode and ``boxes`` (N, 4) in pixels of the model's input, x0, y0, x1, y1, disjoint, on the
model's device; N may be 0. While it is entered, the model must find exactly one person for each box in every image.
What it plants is the same in every call, and should be made once; it goes through :func:`instead_of`.

Letters of the shapes: N people, L pyramid levels, H_l x W_l cells of a level.
"""

from __future__ import annotations

import bisect
import contextlib
import math

import torch
from detectron2.structures import Boxes, Instances

from dynpose.config import ConfigError
from dynpose.modeling.fcos import flatten_levels

_STAND_INS = {}

# People in photographs are taller than wide.
_HEIGHT_TO_WIDTH = 2.5
_PART_OF_CELL = 0.8

# logits of a location that shows nobody, of one that shows somebody, and of the middle one
_NOBODY, _SOMEBODY, _SUREST = -20.0, 3.0, 6.0


def stand_in_for(*meta_architectures: str):
    """Register a stand-in for meta-architectures, by the names of their classes; subclasses are served too."""

    def register(stand_in):
        _STAND_INS.update(dict.fromkeys(meta_architectures, stand_in))
        return stand_in

    return register


def has_stand_in(model_class: type) -> bool:
    """Tell whether :func:`find_stand_in` finds one."""
    return _stand_in(model_class) is not None


def find_stand_in(model_class: type):
    """Give the stand-in of a meta-architecture or of the nearest class that it inherits from.

    Raises:
        ConfigError: if there is none.
    """
    stand_in = _stand_in(model_class)
    if stand_in is not None:
        return stand_in
    raise ConfigError(
        f"MODEL.META_ARCHITECTURE {model_class.__name__}: nothing fixes how many people it finds, so that it can't be "
        "measured over their number. Register a context manager (model, boxes) with "
        f'@dynpose.tools.benchmark.fixed_people.stand_in_for("{model_class.__name__}"); '
        f"there are stand-ins for {', '.join(sorted(_STAND_INS))}"
    )


def _stand_in(model_class):
    return next((_STAND_INS[cls.__name__] for cls in model_class.__mro__ if cls.__name__ in _STAND_INS), None)


@contextlib.contextmanager
def fixed_people(model, num_people: int, image_size: tuple[int, int]):
    """Let a model find exactly N people in every image while the context is entered.

    Args:
        model: a detectron2 model in eval mode.
        num_people: N, possibly 0.
        image_size: height and width of the images, pixels.

    Raises:
        ConfigError: if the meta-architecture has no stand-in, or so many people do not fit in.

    Example::

        >>> with fixed_people(model, 5, (480, 640)):
        ...     len(model([{"image": torch.zeros(3, 480, 640)}])[0]["instances"])
        5
    """
    stand_in = find_stand_in(type(model))
    with stand_in(model, spread_boxes(num_people, image_size).to(model.device)):
        yield


def spread_boxes(num_people: int, image_size: tuple[int, int]) -> torch.Tensor:
    """Spread people evenly over an image.

    They stand in the middle of the cells of a grid, 2.5 times as tall as wide, as large as fits into 80 % of a cell.
    The last row may have empty cells.

    Args:
        num_people: N.
        image_size: height and width, pixels.

    Returns:
        Tensor: (N, 4) disjoint boxes, x0, y0, x1, y1 in pixels.
    """
    if num_people == 0:
        return torch.zeros(0, 4)
    height, width = image_size
    rows = math.ceil(math.sqrt(num_people * height / width / _HEIGHT_TO_WIDTH))
    columns = math.ceil(num_people / rows)
    cell_height, cell_width = height / rows, width / columns
    box_height = _PART_OF_CELL * min(cell_height, cell_width * _HEIGHT_TO_WIDTH)
    half = torch.tensor([box_height / _HEIGHT_TO_WIDTH, box_height]) / 2
    index = torch.arange(num_people)
    column, row = index % columns, index // columns
    centers = (torch.stack([column, row], dim=1) + 0.5) * torch.tensor([cell_width, cell_height])
    return torch.cat([centers - half, centers + half], dim=1)


def instead_of(predicted: torch.Tensor, planted: torch.Tensor) -> torch.Tensor:
    """Give what is planted.

    Where FLOPs are counted, which is on a trace, the result still depends on what was predicted: what nothing depends
    on is removed from a trace, and would not be counted.
    """
    return planted + torch.zeros_like(predicted).sum() if torch.jit.is_tracing() else planted


@stand_in_for("FCPose", "InsPoseReleased")
@contextlib.contextmanager
def _fcos_people(model, boxes):
    """Methods on FCOS: what ``model.head`` predicts is planted, and the model's decoding makes people of it."""
    planted = _PlantedInFCOS(model, boxes)
    handle = model.head.register_forward_hook(planted)
    try:
        yield planted
    finally:
        handle.remove()


@stand_in_for("InsPose")
@contextlib.contextmanager
def _inspose_people(model, boxes):
    """InsPose runs the KP-Nets of all candidates, nine for each person, and takes duplicates out afterwards.

    Without a box head, that looks at the rectangles around the keypoints, which are anywhere in an untrained model. So
    NMS is given the boxes of the planted people instead.
    """
    with _fcos_people(model, boxes) as planted:
        if model.has_boxes:
            yield
            return
        select = model.detector.decoder.select

        def select_people(candidates, rectangles, *args, **fields):
            return select(candidates, instead_of(rectangles, planted.boxes_at(candidates.index)), *args, **fields)

        model.detector.decoder.select = select_people
        try:
            yield
        finally:
            del model.detector.decoder.select


class _PlantedInFCOS:
    """Forward hook of an FCOS head that plants people; what the head does not predict is left out."""

    def __init__(self, model, boxes):
        self._model, self._boxes = model, boxes
        self._planted, self._box_maps = {}, None

    def __call__(self, head, inputs, predictions):
        num_images = len(predictions.logits[0])
        sizes = tuple(tuple(int(side) for side in level.shape[-2:]) for level in predictions.logits)
        if (num_images, sizes) not in self._planted:
            planted = fcos_predictions(
                self._boxes,
                sizes,
                self._model.detector.strides,
                self._model.detector.sizes_of_interest,
                num_classes=head.num_classes,
            )
            if hasattr(predictions, "offsets"):
                num_keypoints = self._model.schema.num_keypoints
                planted["offsets"] = [corner_offsets(level, num_keypoints) for level in planted["distances"]]
            # the same people in all images
            self._planted[num_images, sizes] = {
                name: [level.expand(num_images, -1, -1, -1) for level in levels] for name, levels in planted.items()
            }
        planted = self._planted[num_images, sizes]
        self._box_maps = planted["boxes"]
        return predictions._replace(
            **{
                name: [instead_of(*pair) for pair in zip(getattr(predictions, name), planted[name])]
                for name in predictions._fields
                if name in planted
            }
        )

    def boxes_at(self, index):
        """Boxes (M, 4) that the locations ``index`` (M,) of the last call predict."""
        return flatten_levels(self._box_maps)[index]


def fcos_predictions(boxes, sizes, strides, sizes_of_interest, num_classes=1):
    """Make the predictions of an FCOS head that decode to some boxes.

    As in a trained one, the 3 x 3 locations in the middle of a person predict its box (FCOS's centre sampling), on the
    level of the box's size. The middle one is surest, the others are what NMS has to remove. All are class 0.

    Args:
        boxes (Tensor): (N, 4) disjoint, x0, y0, x1, y1 in pixels.
        sizes (Sequence[tuple[int, int]]): H_l and W_l of each level.
        strides (Sequence[int]): of each level, pixels.
        sizes_of_interest (Sequence[float]): L - 1 largest distances from a location to a side of its box, pixels.
        num_classes (int): of the classifier.

    Returns:
        dict[str, list[Tensor]]: of one image: ``logits`` (1, num_classes, H_l, W_l), ``distances`` (1, 4, H_l, W_l) in
        strides, ``centerness`` logits (1, 1, H_l, W_l), and ``boxes`` (1, 4, H_l, W_l), what the distances decode to,
        zeros where nobody is.

    Raises:
        ConfigError: if people are so small that the middle of one is not a location of its own.
    """
    logits = [torch.full((num_classes, *size), _NOBODY) for size in sizes]
    distances, box_maps = ([torch.zeros(4, *size) for size in sizes] for _ in range(2))
    centerness = [torch.full((1, *size), _NOBODY) for size in sizes]
    middles, neighbours = {}, {}
    for box in boxes.tolist():
        x0, y0, x1, y1 = box
        level = bisect.bisect_left(sizes_of_interest, max(x1 - x0, y1 - y0) / 2)
        (height, width), stride = sizes[level], strides[level]
        column, row = int((x0 + x1) / 2 // stride), int((y0 + y1) / 2 // stride)
        for v in range(max(row - 1, 0), min(row + 2, height)):
            for u in range(max(column - 1, 0), min(column + 2, width)):
                x, y = (cell * stride + stride // 2 for cell in (u, v))
                sides = [x - x0, y - y0, x1 - x, y1 - y]
                if min(sides) > 0:
                    chosen = middles if (u, v) == (column, row) else neighbours
                    chosen[level, v, u] = [side / stride for side in sides], box
    if len(middles) < len(boxes):
        raise ConfigError(
            f"{len(boxes)} people do not fit into an image of about {sizes[0][0] * strides[0]} x "
            f"{sizes[0][1] * strides[0]} pixels, as each needs a location of its own: give fewer --people or a larger "
            "image"
        )
    # Middles last: the middle of somebody may be a neighbour of somebody else's.
    for sureness, chosen in ((_SOMEBODY, neighbours), (_SUREST, middles)):
        for (level, v, u), (sides, box) in chosen.items():
            logits[level][0, v, u] = centerness[level][0, v, u] = sureness
            distances[level][:, v, u] = torch.tensor(sides)
            box_maps[level][:, v, u] = torch.tensor(box)
    planted = {"logits": logits, "distances": distances, "centerness": centerness, "boxes": box_maps}
    return {name: [level[None].to(boxes.device) for level in levels] for name, levels in planted.items()}


def corner_offsets(distances, num_keypoints):
    """Make regressed keypoints that a box just encloses, as the released InsPose regresses them.

    Args:
        distances (Tensor): (B, 4, H, W) from a location to the left, top, right and bottom side of its box, in strides.
        num_keypoints (int): K.

    Returns:
        Tensor: (B, 2K, H, W), x and y in strides from the location: by turns the upper left and lower right corner.
    """
    corners = torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)
    return corners.repeat(1, math.ceil(num_keypoints / 2), 1, 1)[:, : 2 * num_keypoints]


@stand_in_for("CID")
@contextlib.contextmanager
def _cid_people(model, boxes):
    """CID: the centre map is planted, and where the people's keypoints are.

    The heatmaps of all people are computed and decoded. As those of random weights may show all people alike, what
    OKS-NMS then compares are the corners of their boxes.
    """
    centers, locate = model.iia.centers, model.locate
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    u, v = torch.div(middles, model.stride, rounding_mode="floor").long().unbind(dim=1)
    _check_distances(u, v, min_cells=3)

    def planted_centers(features):
        predicted = centers(features)
        planted = torch.zeros_like(predicted)
        planted[:, v, u] = 1
        return instead_of(predicted, planted)

    def planted_keypoints(features, people, sizes):
        predicted = locate(features, people, sizes)
        person = torch.zeros(features.shape[-2:], dtype=torch.int64, device=features.device)
        person[v, u] = torch.arange(len(boxes), device=features.device)
        num_keypoints = predicted.shape[1]
        corners = boxes.reshape(-1, 2, 2).repeat(1, math.ceil(num_keypoints / 2), 1)[:, :num_keypoints]
        points = corners[person[people.cells[:, 1], people.cells[:, 0]]]
        return torch.cat([instead_of(predicted[..., :2], points), predicted[..., 2:]], dim=2)

    model.iia.centers, model.locate = planted_centers, planted_keypoints
    try:
        yield
    finally:
        del model.iia.centers, model.locate


def _check_distances(u, v, min_cells):
    """Refuse people whose cells are so close that one would not be a peak of its own."""
    cells = torch.stack([u, v], dim=1)
    distances = (cells[:, None] - cells).abs().amax(dim=2)
    distances.fill_diagonal_(min_cells + 1)
    if len(cells) and distances.min() <= min_cells:
        raise ConfigError(
            f"{len(cells)} people are too close to each other for CID to tell their centres apart: give fewer --people "
            "or a larger image"
        )


@stand_in_for("QueryPose")
@contextlib.contextmanager
def _querypose_people(model, boxes):
    """QueryPose decodes all of its queries, whoever is there, and gives the best: here those of as many as people.

    What the last stage predicts for the other queries is left out, as if their scores were out of the question; the
    boxes of the first ones are the planted ones.
    """
    select, num_people = model.select, len(boxes)
    if num_people > model.num_queries:
        raise ConfigError(
            f"{num_people} people are more than the {model.num_queries} queries of QueryPose, each of which finds one "
            "at most: give fewer --people, or a larger MODEL.QUERYPOSE.NUM_QUERIES"
        )

    def select_people(logits, predicted, keypoints, sigmas, image_sizes):
        first = slice(num_people)
        planted = instead_of(predicted[:, first], boxes.expand(len(predicted), -1, -1))
        # of all classes the first, as everybody is once among the best
        return select(logits[:, first, :1], planted, keypoints[:, first], sigmas[:, first], image_sizes)

    model.select = select_people
    try:
        yield
    finally:
        del model.select


@stand_in_for("GeneralizedRCNN")
@contextlib.contextmanager
def _rcnn_people(model, boxes):
    """R-CNNs: the RPN's predictions are planted, and the boxes that the heads of a person are run for.

    An untrained RPN proposes next to nothing, a trained one as many as it may (1000 by default), and all go through the
    box head. Here the proposals are anchors with random objectness. What the box head makes of them is decoded, and
    then left for the people.
    """
    if not hasattr(model.proposal_generator, "rpn_head"):
        raise ConfigError(
            f"MODEL.PROPOSAL_GENERATOR.NAME {type(model.proposal_generator).__name__}: people can be planted in R-CNNs "
            "with an RPN only; register a stand-in for others, see dynpose.tools.benchmark.fixed_people"
        )
    roi_heads = model.roi_heads
    with_given_boxes = roi_heads.forward_with_given_boxes

    def with_people(features, instances):
        return with_given_boxes(features, [_rcnn_instances(boxes, each) for each in instances])

    handle = model.proposal_generator.rpn_head.register_forward_hook(_AnchorsAtRandom())
    roi_heads.forward_with_given_boxes = with_people
    try:
        yield
    finally:
        del roi_heads.forward_with_given_boxes
        handle.remove()


def _rcnn_instances(boxes, found):
    people = Instances(found.image_size)
    people.pred_boxes = Boxes(instead_of(found.pred_boxes.tensor, boxes.clone()))  # detectron2 scales them in place
    people.scores = boxes.new_ones(len(boxes))
    people.pred_classes = boxes.new_zeros(len(boxes), dtype=torch.int64)
    return people


class _AnchorsAtRandom:
    """Forward hook of an RPN head: objectness at random, and boxes that are the anchors."""

    def __init__(self):
        self._planted = {}

    def __call__(self, head, inputs, predictions):
        shapes = tuple(tuple(int(size) for size in level.shape) for part in predictions for level in part)
        if shapes not in self._planted:
            generator = torch.Generator().manual_seed(0)
            objectness, deltas = predictions
            self._planted[shapes] = (
                [torch.randn(level.shape, generator=generator).to(level) for level in objectness],
                [torch.zeros_like(level) for level in deltas],
            )
        parts = zip(predictions, self._planted[shapes])
        return tuple([instead_of(*pair) for pair in zip(*levels)] for levels in parts)
