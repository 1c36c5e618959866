"""Injecting detections into the predictions of an FCOS head, for benchmarks.

Letters of the shapes: N instances, L pyramid levels, H_l x W_l cells of a level.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dynpose.config import ConfigError
from dynpose.modeling.injection import corner_keypoints, substitute

from .locations import flatten_levels

# logits of a location that detects nothing, of one that detects an instance, and of the central one
_BACKGROUND, _DETECTED, _CENTRAL = -20.0, 3.0, 6.0


@contextlib.contextmanager
def inject_fcos_detections(model: nn.Module, boxes: Tensor) -> Iterator[InjectedPredictions]:
    """Replace the predictions of ``model.head`` so that the model's decoding detects one instance per box.

    Args:
        model: in eval mode, with ``head``, ``detector`` (an FCOSDetector) and ``schema``.
        boxes: (N, 4) disjoint, XYXY, pixels of the network's input.
    """
    injected = InjectedPredictions(model, boxes)
    handle = model.get_submodule("head").register_forward_hook(injected)
    try:
        yield injected
    finally:
        handle.remove()


class LevelPredictions(Protocol):
    """The outputs of an FCOS-like head: a named tuple whose fields are lists over the levels.

    Attributes:
        logits: (B, classes, H_l, W_l).
    """

    _fields: tuple[str, ...]

    @property
    def logits(self) -> list[Tensor]: ...  # noqa: D102

    def _replace(self, **fields: list[Tensor]) -> Any: ...


class InjectedPredictions:
    """Forward hook of an FCOS head that injects boxes.

    Args:
        model, boxes: see :func:`inject_fcos_detections`.
    """

    def __init__(self, model: nn.Module, boxes: Tensor):
        self._model, self._boxes = model, boxes
        self._injected: dict[tuple[int, tuple[tuple[int, ...], ...]], dict[str, list[Tensor]]] = {}
        self._box_maps: list[Tensor] = []

    # hooks of a compiled head are compiled with it, and these values are not the network's
    @torch.compiler.disable
    def __call__(self, head: nn.Module, inputs: tuple[list[Tensor]], predictions: LevelPredictions) -> LevelPredictions:
        """Replace the maps of the head's predictions that exist."""
        num_images = len(predictions.logits[0])
        sizes = tuple(tuple(int(side) for side in level.shape[-2:]) for level in predictions.logits)
        if (num_images, sizes) not in self._injected:
            self._injected[num_images, sizes] = self._make(head, predictions, num_images, sizes)
        injected = self._injected[num_images, sizes]
        self._box_maps = injected["boxes"]
        return predictions._replace(
            **{
                name: [substitute(*pair) for pair in zip(getattr(predictions, name), injected[name])]
                for name in predictions._fields
                if name in injected
            }
        )

    def _make(self, head, predictions, num_images, sizes):
        """The maps of :func:`fcos_predictions`, with the same instances in all images."""
        model = self._model
        injected = fcos_predictions(
            self._boxes, sizes, model.detector.strides, model.detector.sizes_of_interest, num_classes=head.num_classes
        )
        if hasattr(predictions, "offsets"):
            injected["offsets"] = [corner_offsets(level, model.schema.num_keypoints) for level in injected["distances"]]
        return {name: [level.expand(num_images, -1, -1, -1) for level in levels] for name, levels in injected.items()}

    def boxes_at(self, index: Tensor) -> Tensor:
        """Boxes (M, 4) that the locations ``index`` (M,) of the last call predict."""
        return flatten_levels(self._box_maps)[index]


def fcos_predictions(
    boxes: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sizes_of_interest: Sequence[float],
    num_classes: int = 1,
) -> dict[str, list[Tensor]]:
    """Make predictions of an FCOS head that decode to given boxes.

    As in a trained head, the 3 x 3 central locations of an instance predict its box (FCOS's centre sampling), on the
    level for the box's size. The central one has the highest score; NMS must remove the others. All are class 0.

    Args:
        boxes: (N, 4) disjoint, x0, y0, x1, y1 in pixels.
        sizes: H_l and W_l of each level.
        strides: stride of each level, pixels.
        sizes_of_interest: L - 1 maximum distances from a location to a side of its box, pixels.
        num_classes: classes of the classifier.

    Returns:
        For one image: ``logits`` (1, num_classes, H_l, W_l), ``distances`` (1, 4, H_l, W_l) in strides, ``centerness``
        logits (1, 1, H_l, W_l), and the decoded ``boxes`` (1, 4, H_l, W_l), zero in the background.

    Raises:
        ConfigError: if two instances are so small that they share a central location.
    """
    logits = [torch.full((num_classes, *size), _BACKGROUND) for size in sizes]
    distances, box_maps = ([torch.zeros(4, *size) for size in sizes] for _ in range(2))
    centerness = [torch.full((1, *size), _BACKGROUND) for size in sizes]
    central, neighbours = _positive_locations(boxes.tolist(), sizes, strides, sizes_of_interest)
    if len(central) < len(boxes):
        raise ConfigError(
            f"{len(boxes)} people do not fit into an image of about {sizes[0][0] * strides[0]} x "
            f"{sizes[0][1] * strides[0]} pixels, as each needs a separate location: use fewer --people or a larger "
            "image"
        )
    # Central ones last: the central location of one instance may be a neighbour of another's.
    for logit, chosen in ((_DETECTED, neighbours), (_CENTRAL, central)):
        for (level, v, u), (sides, box) in chosen.items():
            logits[level][0, v, u] = centerness[level][0, v, u] = logit
            distances[level][:, v, u] = torch.tensor(sides)
            box_maps[level][:, v, u] = torch.tensor(box)
    injected = {"logits": logits, "distances": distances, "centerness": centerness, "boxes": box_maps}
    return {name: [level[None].to(boxes.device) for level in levels] for name, levels in injected.items()}


def _positive_locations(boxes, sizes, strides, sizes_of_interest):
    """The central location of each box, and its neighbours within the box.

    Returns:
        Two dicts: (level, row, column) -> the distances to the box's sides, strides, and the box.
    """
    central, neighbours = {}, {}
    for box in boxes:
        x0, y0, x1, y1 = box
        level = bisect.bisect_left(sizes_of_interest, max(x1 - x0, y1 - y0) / 2)
        (height, width), stride = sizes[level], strides[level]
        column, row = int((x0 + x1) / 2 // stride), int((y0 + y1) / 2 // stride)
        for v in range(max(row - 1, 0), min(row + 2, height)):
            for u in range(max(column - 1, 0), min(column + 2, width)):
                x, y = (cell * stride + stride // 2 for cell in (u, v))
                sides = [x - x0, y - y0, x1 - x, y1 - y]
                if min(sides) > 0:
                    chosen = central if (u, v) == (column, row) else neighbours
                    chosen[level, v, u] = [side / stride for side in sides], box
    return central, neighbours


def corner_offsets(distances: Tensor, num_keypoints: int) -> Tensor:
    """Make regressed keypoints whose tightest box is a given one.

    Args:
        distances: (B, 4, H, W) from a location to the left, top, right and bottom side of its box, in strides.
        num_keypoints: K.

    Returns:
        (B, 2K, H, W), x and y in strides from the location: alternately the top left and bottom right corner.
    """
    corners = torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)
    return corner_keypoints(corners.movedim(1, -1), num_keypoints).flatten(-2).movedim(-1, 1)
