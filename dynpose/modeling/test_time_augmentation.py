"""Multi-scale and flip testing for any pose model, detectron2's Keypoint R-CNN included.

The model sees an image at several sizes, and each of these mirrored as well: these are the views. What it finds
is brought together as poses, which every model gives, or as maps, where a model offers them (:class:`AveragesMaps`).

Axes: V views, N poses, G people, K keypoints, C channels, H x W cells of a map.
Coordinates are continuous pixels (x, y), in which mirroring an image of width w takes x to w - x.
"""

import logging
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from dynpose.data import AffineResize, schema_from_cfg
from dynpose.data.affine import check_reads_to_original, composed_matrix, matrix_to_original
from dynpose.data.image_reading import read_image
from dynpose.data.schema import infer_flip_pairs
from dynpose.layers.oks_nms import group_by_oks, pose_areas
from dynpose.utils.distributed import unwrap_ddp
from dynpose.utils.finite import finite_instances

__all__ = ["AveragesMaps", "PoseTTA", "ViewMaps", "merge_poses", "mirror_poses", "resample_map"]

logger = logging.getLogger(__name__)


class PoseTTA(nn.Module):
    """A pose model with test-time augmentation; its input and output are those of the model.

    ``PoseTTA(cfg, model)`` takes the place of detectron2's ``GeneralizedRCNNWithTTA(cfg, model)``, which refuses
    keypoints. As there, the images given should be the original ones: one that has been resized is resized again.

    Args:
        model (nn.Module): takes and gives detectron2's formats, and gives ``scores``, ``pred_classes``,
            ``pred_keypoints`` (N, K, 3) and optionally ``pred_boxes`` in pixels of the ``height`` x ``width`` that it
            is told. Of a DistributedDataParallel, the module inside is used.
        schema (KeypointSchema): the keypoints; its flip pairs change places in the mirrored views, its sigmas measure
            how similar two poses are. A keypoint without a twin keeps its place.
        min_sizes (Sequence[int]): lengths of the views' shorter side, pixels. Views of one size are made once.
        max_size (int): upper end of their longer side, pixels.
        affine_resize (bool): make the views by :class:`~dynpose.data.AffineResize`, as ``INPUT.AFFINE_RESIZE_TEST``
            does without augmentation, for models that read ``to_original``.
        flip (bool): add the mirrored twin of every view.
        merge (str): "poses" (:func:`merge_poses`) or "maps" (:class:`AveragesMaps`).
        match_oks (float): for "poses", least OKS of predictions of two views that are the same person.
        max_detections (int): for "poses", people kept per image.
        confidence (str): for "poses", what the third value of a predicted keypoint is: "positive" (a probability, or
            another number >= 0 such as Keypoint R-CNN's score, which can exceed 1) or "logit" (any number; its sigmoid
            weights the keypoint).
        image_format (str): "BGR" or "RGB", for inputs that have a file name in place of an image.

    Raises:
        ValueError: an argument is out of its range, ``flip`` is asked for but keypoints whose names differ in
            left/right only are no pair of the schema, or the model does not offer maps or read ``to_original``.

    Example::

        >>> predictor = PoseTTA(model.eval(), schema=COCO_PERSON, min_sizes=(640, 800, 1000), max_size=1666)
        >>> predictor([{"file_name": "street.jpg"}])[0]["instances"].pred_keypoints.shape
        torch.Size([4, 17, 3])
    """

    @configurable
    def __init__(
        self,
        model,
        *,
        schema,
        min_sizes,
        max_size,
        affine_resize=False,
        flip=True,
        merge="poses",
        match_oks=0.7,
        max_detections=100,
        confidence="positive",
        image_format="BGR",
    ):
        super().__init__()
        model = unwrap_ddp(model)
        if not min_sizes or min(min_sizes) < 1 or max_size < 1:
            raise ValueError(
                f"TEST.AUG.MIN_SIZES must be one or more lengths in pixels and TEST.AUG.MAX_SIZE another, got "
                f"{min_sizes} and {max_size}"
            )
        if merge not in ("poses", "maps"):
            raise ValueError(f"TEST.AUG.MERGE must be 'poses' or 'maps', got {merge!r}")
        if merge == "maps" and not isinstance(model, AveragesMaps):
            raise ValueError(
                f"TEST.AUG.MERGE is 'maps', but {type(model).__name__} offers none (methods tta_maps and tta_decode): "
                "set it to 'poses'"
            )
        if affine_resize:
            check_reads_to_original(type(model))
        if not 0 < match_oks <= 1:
            raise ValueError(f"TEST.AUG.MATCH_OKS must be above 0 and at most 1, got {match_oks}")
        if confidence not in ("positive", "logit"):
            raise ValueError(f"confidence must be 'positive' or 'logit', got {confidence!r}")
        if flip:
            _check_pairs(schema)
        self.model = model
        self.schema = schema
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.affine_resizes = [AffineResize(size, max_size=max_size) for size in min_sizes] if affine_resize else None
        self.flip = flip
        self.merge = merge
        self.match_oks = match_oks
        self.max_detections = max_detections
        self.confidence = confidence
        self.image_format = image_format
        self.flip_indices = torch.as_tensor(schema.flip_indices)
        # A new module is in training mode, and inference_on_dataset would leave the model in it, too
        self.training = model.training

    @classmethod
    def from_config(cls, cfg, model):
        """Arguments from ``cfg.TEST.AUG``, ``cfg.TEST.DETECTIONS_PER_IMAGE`` and ``cfg.INPUT``."""
        aug = cfg.TEST.AUG
        if aug.FLIP and cfg.INPUT.RANDOM_FLIP != "horizontal":
            logger.warning(
                "TEST.AUG.FLIP is True, but INPUT.RANDOM_FLIP is %r: a model that was trained without mirrored images "
                "takes left for right in them. Set TEST.AUG.FLIP False.",
                cfg.INPUT.RANDOM_FLIP,
            )
        return {
            "model": model,
            "schema": schema_from_cfg(cfg),
            "min_sizes": aug.MIN_SIZES,
            "max_size": aug.MAX_SIZE,
            "affine_resize": cfg.INPUT.AFFINE_RESIZE_TEST,
            "flip": aug.FLIP,
            "merge": aug.MERGE,
            "match_oks": aug.MATCH_OKS,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "image_format": cfg.INPUT.FORMAT,
        }

    @torch.no_grad()
    def forward(self, batched_inputs):
        """Find the people in some images.

        Args:
            batched_inputs (list[dict]): B, in detectron2's format: ``image`` (3, H, W) or ``file_name``; ``height`` and
                ``width`` of the result, by default the image's own.

        Returns:
            list[dict]: B, with ``instances``: the fields named in the class (and no other), by descending score; from
            "maps", whatever the model decodes. From "poses", what the model predicts as NaN or infinite in any view is
            left out of the merging and comes last, as it is, for the evaluator to count.

        Raises:
            ValueError: an image is too narrow to be resized, an input has precomputed ``proposals`` or has been
                resized by an affine warp, or the model's keypoints are not those of the schema.
        """
        run = self._average_maps if self.merge == "maps" else self._merge_poses
        return [run(_complete(inputs, self.image_format)) for inputs in batched_inputs]

    def view_sizes(self, height, width):
        """Sizes of an image's views, without their twins.

        Args:
            height, width (int): of the image, pixels.

        Returns:
            list[tuple[int, int]]: (height, width), each once, in the order of ``min_sizes``.

        Raises:
            ValueError: a side would have no pixel.
        """
        return list(self._resizes(height, width))

    def _resizes(self, height, width):
        """What makes an image's views: Transforms by (height, width) of the result."""
        if self.affine_resizes is not None:
            image = np.broadcast_to(np.uint8(0), (height, width))
            warps = [resize.get_transform(image) for resize in self.affine_resizes]
            return {warp.output_size[::-1]: warp for warp in warps}
        shapes = [
            T.ResizeShortestEdge.get_output_shape(height, width, min_size, self.max_size) for min_size in self.min_sizes
        ]
        if min(map(min, shapes)) < 1:
            raise ValueError(f"an image of {width} x {height} pixels is too narrow to be resized to {min(shapes)}")
        return {shape: T.ResizeTransform(height, width, *shape) for shape in shapes}

    def _views(self, inputs, resizes):
        """For each resize, the inputs of a view and (where asked for) its twin: one batch, as they need no padding."""
        pixels = _to_array(inputs["image"])
        for size, resize in resizes.items():
            image = torch.as_tensor(np.ascontiguousarray(resize.apply_image(pixels).transpose(2, 0, 1)))
            views = [{**inputs, "image": image}]
            if self.flip:
                views.append({**inputs, "image": image.flip(-1)})
            to_original = matrix_to_original(T.TransformList([resize]))
            if to_original is not None:
                # the result may be asked for in another size than the image's
                height, width = pixels.shape[:2]
                to_original *= np.array([[inputs["width"] / width], [inputs["height"] / height]])
                matrices = [to_original, _mirror_matrix(to_original, size[1], inputs["width"])]
                views = [{**view, "to_original": matrix} for view, matrix in zip(views, matrices)]
            yield views

    def _merge_poses(self, inputs):
        predictions, not_finite = [], []
        for views in self._views(inputs, self._resizes(*inputs["image"].shape[-2:])):
            # Told the original size, the model itself takes its predictions back to it
            outputs = [output["instances"] for output in self.model(views)]
            self._check_predictions(outputs)
            for output in [outputs[0], *(mirror_poses(output, self.flip_indices) for output in outputs[1:])]:
                finite, others = _split_by_finiteness(output)
                predictions.append(finite)
                not_finite += others
        merged = merge_poses(
            predictions, self.schema.sigmas, match_oks=self.match_oks, weight_of=_WEIGHTS[self.confidence]
        )
        people = [merged[: self.max_detections]] if merged.get_fields() else []
        return {"instances": Instances.cat([*people, *not_finite]) if people or not_finite else merged}

    def _check_predictions(self, outputs):
        for instances in filter(_is_anybody, outputs):
            if not instances.has("pred_keypoints"):
                raise ValueError(
                    f"{type(self.model).__name__} gives no pred_keypoints: test-time augmentation of poses needs a "
                    "pose model (of detectron2's own, one with MODEL.KEYPOINT_ON True)"
                )
            shape = tuple(instances.pred_keypoints.shape[1:])
            if shape != (self.schema.num_keypoints, 3):
                raise ValueError(
                    f"the model gives {shape[0]} keypoints of {shape[1]} numbers, the schema has "
                    f"{self.schema.num_keypoints} (of x, y and confidence): give the schema that the model was trained "
                    "with"
                )
            if self.confidence == "positive" and (instances.pred_keypoints[..., 2] < 0).any():
                raise ValueError(
                    f"{type(self.model).__name__} gives negative keypoint confidences, which can't weight the mean of "
                    "several views: if they are logits, say so with PoseTTA(..., confidence='logit')"
                )

    def _average_maps(self, inputs):
        # The largest view first: its grid is the one that all maps are brought to
        resizes = self._resizes(*inputs["image"].shape[-2:])
        resizes = {size: resizes[size] for size in sorted(resizes, key=np.prod, reverse=True)}
        largest = next(iter(resizes))
        reference, own, sums, stacks, mirrored, num_views = None, None, {}, {}, [], 0
        for (size, resize), views in zip(resizes.items(), self._views(inputs, resizes)):
            maps = self.model.tta_maps(views)
            if reference is None:
                reference, own = views[0], maps
            between = T.TransformList([resizes[largest].inverse(), resize])
            from_target = None if size == largest else composed_matrix(between)
            for view in range(len(views)):
                mirrored.append(view > 0)
                num_views += 1
                for name, of_view in maps.items():
                    values = self._bring_back(of_view, view, size, own[name], largest, from_target, name)
                    if of_view.combine == "stack":
                        stacks.setdefault(name, []).append(values)
                    else:
                        sums[name] = sums[name] + values if name in sums else values
        means = {name: replace(own[name], values=total / num_views) for name, total in sums.items()}
        stacked = {name: replace(own[name], values=torch.cat(values)) for name, values in stacks.items()}
        return self.model.tta_decode({**means, **stacked}, [reference], mirrored)[0]

    def _bring_back(self, maps, view, size, target, target_size, from_target, name):
        """(1, C, H, W) values of one view, 1 being the mirrored one, on the grid of ``target``, not mirrored."""
        if maps.combine not in ("keypoints", "mean", "stack"):
            raise ValueError(f"map {name!r}: combine must be 'keypoints', 'mean' or 'stack', got {maps.combine!r}")
        if maps.combine == "keypoints" and maps.values.shape[1] != self.schema.num_keypoints:
            raise ValueError(
                f"map {name!r} has {maps.values.shape[1]} channels, one for each of the {self.schema.num_keypoints} "
                "keypoints is needed to exchange left and right"
            )
        values = resample_map(
            maps.values[view : view + 1],
            stride=maps.stride,
            size=size,
            mirrored=view > 0,
            target_shape=tuple(target.values.shape[-2:]),
            target_stride=target.stride,
            target_size=target_size,
            from_target=from_target,
        )
        if view > 0 and maps.combine == "keypoints":
            return values[:, self.flip_indices.to(values.device)]
        return values


@dataclass
class ViewMaps:
    """Maps of some views, of one kind.

    Attributes:
        values (Tensor): (V, C, H, W). The centre of cell (u, v) is at ((u + 0.5) * stride, (v + 0.5) * stride), pixels
            of the view, and the view's upper left corner is the map's.
        stride (int): pixels.
        combine (str): how the maps of all views become one, once the mirrored ones are mirrored back: "keypoints" (K
            channels; left and right exchanged in those of mirrored views, then the mean), "mean" (any channels, then
            the mean) or "stack" (for features, whose mean says nothing: kept apart).
    """

    values: torch.Tensor
    stride: int
    combine: str


@runtime_checkable
class AveragesMaps(Protocol):
    """What a model offers whose maps can be averaged over views (``TEST.AUG.MERGE`` "maps")."""

    def tta_maps(self, batched_inputs):
        """Run the network up to the maps that can be averaged.

        Args:
            batched_inputs (list[dict]): V views of one image and of one size, in detectron2's format. The second of
                two is the first one's mirror image.

        Returns:
            dict[str, ViewMaps]: by name, with V maps each. Every call gives the same names, strides and ``combine``.
        """

    def tta_decode(self, maps, batched_inputs, mirrored):
        """Find the people from what the views' maps have become.

        Args:
            maps (dict[str, ViewMaps]): one map of each name, (1, C, H, W), those to "stack" of all views, (V, C, H, W),
                on the grid of the largest view. Nothing is mirrored any more, but the channels of stacked ones.
            batched_inputs (list[dict]): the input of the largest view, alone.
            mirrored (list[bool]): V, whether the stacked maps are from a mirrored view.

        Returns:
            list[dict]: one, with ``instances`` in pixels of the input's ``height`` x ``width``.
        """


def merge_poses(predictions, sigmas, *, match_oks=0.7, weight_of=lambda confidence: confidence):
    """Bring the predictions of several views of an image together.

    Those that are the same person are found by :func:`~dynpose.layers.oks_nms.group_by_oks`. Of a person who was found
    in some of the V views with scores s_v, keypoints p_vk and their confidences c_vk:

    - the keypoint is the mean of the p_vk, weighted by s_v c_vk (by s_v where all c_vk are 0);
    - its confidence is the mean of the c_vk, weighted by s_v, and the box the mean of the boxes, weighted so;
    - the score is sum_v s_v / V: the mean, where a view that did not find the person counts as 0. It is s for whoever
      is found in all views with score s, and s / V for whoever is found in one.

    Args:
        predictions (list[Instances]): V, in the coordinates of one image, not mirrored, with ``scores``,
            ``pred_classes``, ``pred_keypoints`` (N, K, 3) and optionally ``pred_boxes``. Where nobody was found, the
            fields may be missing.
        sigmas (Sequence[float]): K, of OKS. The area of a pose is that of its box, or else of the rectangle around its
            keypoints.
        match_oks (float): least OKS of predictions that are the same person.
        weight_of (callable): gives the weights, >= 0, for third values that are no such themselves.

    Returns:
        Instances: the people of all views by descending score, with the same four fields.
    """
    views = [view for view, instances in enumerate(predictions) if _is_anybody(instances)]
    if not views:
        return _only_poses(predictions[0])
    people = Instances.cat([_only_poses(predictions[view]) for view in views])
    view = torch.cat([torch.full_like(predictions[view].pred_classes, view) for view in views])
    boxes = people.pred_boxes.tensor if people.has("pred_boxes") else None
    group, leaders = group_by_oks(
        people.pred_keypoints,
        people.scores,
        view,
        sigmas,
        match_oks,
        areas=pose_areas(people.pred_keypoints) if boxes is None else people.pred_boxes.area(),
        classes=people.pred_classes,
    )

    def of_views(values):
        """(N, ...) -> (G, V, ...), 0 where a view has not found a person."""
        table = values.new_zeros(len(leaders), len(predictions), *values.shape[1:])
        table[group, view] = values
        return table

    scores, keypoints = of_views(people.scores), of_views(people.pred_keypoints)
    # Views where nobody is have no say even if all scores are 0
    found = of_views(torch.ones_like(people.scores))
    by_score = torch.where(scores.sum(dim=1, keepdim=True) > 0, scores, found)
    weights = by_score[..., None] * of_views(weight_of(people.pred_keypoints[..., 2]))
    weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, by_score[..., None])

    of_leader = people[leaders]
    merged = Instances(people.image_size)
    if boxes is not None:
        merged.pred_boxes = Boxes(_weighted_mean(of_views(boxes), by_score[..., None], boxes[leaders]))
    merged.scores = scores.sum(dim=1) / len(predictions)
    merged.pred_classes = of_leader.pred_classes
    points, confidence = of_leader.pred_keypoints.split([2, 1], dim=2)
    merged.pred_keypoints = torch.cat(
        [
            _weighted_mean(keypoints[..., :2], weights[..., None], points),
            _weighted_mean(keypoints[..., 2:], by_score[..., None, None], confidence),
        ],
        dim=2,
    )
    return merged[merged.scores.argsort(descending=True, stable=True)]


def mirror_poses(instances, flip_indices):
    """Take predictions of a mirrored image to the image, or back.

    Args:
        instances (Instances): on a mirrored image of the width ``image_size`` says. Other fields than those that
            :func:`merge_poses` reads are left out.
        flip_indices (Tensor): (K,) int64, ``KeypointSchema.flip_indices``.

    Returns:
        Instances: new ones.
    """
    if not _is_anybody(instances):
        return instances
    width = instances.image_size[1]
    mirrored = _only_poses(instances)
    keypoints = mirrored.pred_keypoints[:, flip_indices.to(mirrored.pred_keypoints.device)]
    keypoints[..., 0] = width - keypoints[..., 0]
    mirrored.pred_keypoints = keypoints
    if mirrored.has("pred_boxes"):
        x0, y0, x1, y1 = mirrored.pred_boxes.tensor.unbind(dim=1)
        mirrored.pred_boxes = Boxes(torch.stack([width - x1, y0, width - x0, y1], dim=1))
    return mirrored


def resample_map(values, *, stride, size, mirrored, target_shape, target_stride, target_size, from_target=None):
    """Read the map of one view at the cells of another view's map, by bilinear interpolation.

    Cells outside of the view, which padding has added, get the values at its border.

    Args:
        values (Tensor): (B, C, H, W).
        stride (int): of its cells, pixels of the view.
        size (tuple[int, int]): of the view without padding, (height, width).
        mirrored (bool): the view is mirrored; the result is not.
        target_shape (tuple[int, int]): (H', W') of the other map.
        target_stride (int): of its cells, pixels of the other view.
        target_size (tuple[int, int]): of the other view.
        from_target (ndarray | None): (2, 3), from pixels of the other view to those of this one, before it is
            mirrored; it does not turn anything. None = their sizes are all.

    Returns:
        Tensor: (B, C, H', W').
    """
    if from_target is None:
        same = (tuple(values.shape[-2:]), stride, size) == (target_shape, target_stride, target_size)
        if same and not mirrored:
            return values
        if same and values.shape[-1] * stride == size[1]:
            return values.flip(-1)
        from_target = np.diag([size[1] / target_size[1], size[0] / target_size[0], 0])[:2]

    def positions(axis):
        """Of the target's cells on the map, 0 to 1 from edge to edge."""
        cells = torch.arange(target_shape[axis], device=values.device, dtype=torch.float32)
        scale, shift = from_target[1 - axis, 1 - axis].item(), from_target[1 - axis, 2].item()
        pixels = ((cells + 0.5) * target_stride * scale + shift).clamp(0, size[axis])
        if mirrored and axis == 1:
            pixels = size[axis] - pixels
        return pixels / (values.shape[2 + axis] * stride)

    y, x = torch.meshgrid(positions(0), positions(1), indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(values), -1, -1, -1) * 2 - 1
    sampled = F.grid_sample(values.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(values.dtype)


_WEIGHTS = {"positive": lambda confidence: confidence, "logit": torch.sigmoid}

_FIELDS = ("pred_boxes", "scores", "pred_classes", "pred_keypoints")


def _is_anybody(instances):
    # Instances without fields have no length
    return bool(instances.get_fields()) and len(instances) > 0


def _split_by_finiteness(instances):
    """Predictions that are finite, and a list of the others, if there are any."""
    finite = finite_instances(instances) if _is_anybody(instances) else None
    if finite is None or finite.all():
        return instances, []
    return instances[finite], [_only_poses(instances[~finite])]


def _only_poses(instances):
    return Instances(instances.image_size, **{name: instances.get(name) for name in _FIELDS if instances.has(name)})


def _weighted_mean(values, weights, leader):
    """Mean over the views, (G, V, ...) -> (G, ...), written as a step from the leader: exact where all agree."""
    return leader + (weights * (values - leader[:, None])).sum(dim=1) / weights.sum(dim=1)


def _check_pairs(schema):
    """Refuse to mirror keypoints that look like twins but are not said to be."""
    paired = {name for pair in schema.flip_pairs for name in pair}
    missing = [pair for pair in infer_flip_pairs(schema.names) if not paired & set(pair)]
    if missing:
        raise ValueError(
            f"flip testing would average {missing[0][0]!r} with {missing[0][1]!r}: {len(missing)} left/right pairs by "
            "name are no flip pairs of the schema; name them (flip_pairs of the data set, or "
            "MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS), or set TEST.AUG.FLIP False"
        )


def _mirror_matrix(matrix, width, result_width):
    """The (2, 3) matrix of the mirror images, of ``width`` and ``result_width`` pixels, of what ``matrix`` maps."""
    mirror, mirror_result = (np.array([[-1.0, 0, side], [0, 1, 0], [0, 0, 1]]) for side in (width, result_width))
    return (mirror_result @ np.vstack([matrix, [0, 0, 1]]) @ mirror)[:2]


def _complete(inputs, image_format):
    """A copy with ``image``, ``height`` and ``width``, and without what is only for training."""
    inputs = {name: value for name, value in inputs.items() if name != "instances"}
    if "proposals" in inputs:
        raise ValueError(
            "test-time augmentation can't use precomputed proposals, which are of one view: set MODEL.LOAD_PROPOSALS "
            "False"
        )
    if "to_original" in inputs:
        raise ValueError(
            "test-time augmentation resizes the original image, but an input has been resized by an affine warp "
            "(to_original): give the image as it was before"
        )
    if "image" not in inputs:
        image = read_image({"file_name": inputs["file_name"]}, image_format)
        inputs["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = inputs["image"].shape[-2:]
    inputs.setdefault("height", height)
    inputs.setdefault("width", width)
    return inputs


def _to_array(image):
    """(C, H, W) tensor -> (H, W, C) array; uint8 where that loses nothing, for Pillow to resize as in the mappers."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if pixels.dtype != np.uint8 and pixels.min() >= 0 and pixels.max() <= 255 and (pixels == np.rint(pixels)).all():
        return pixels.astype(np.uint8)
    return pixels
