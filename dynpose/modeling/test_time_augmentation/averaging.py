"""Averaging of the maps of several views before decoding."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import detectron2.data.transforms as T
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynpose.data.affine import composed_matrix

from .views import ViewsOfSize


@dataclass
class ViewMaps:
    """Maps of one kind, of V views.

    Attributes:
        values (Tensor): (V, C, H, W). The centre of cell (u, v) is at ((u + 0.5) * stride, (v + 0.5) * stride), pixels
            of the view; the top left corners of view and map coincide.
        stride (int): pixels.
        combine (str): how the maps of all views are combined after mirroring back: "keypoints" (K channels; left and
            right are swapped in mirrored views, then the mean), "mean" (the mean, for any channels) or "stack" (no
            mean, for features, whose mean is not meaningful).
    """

    values: Tensor
    stride: int
    combine: str


@runtime_checkable
class SupportsMapTTA(Protocol):
    """The interface of models whose maps can be averaged over views (``TEST.AUG.MERGE`` "maps")."""

    def tta_maps(self, batched_inputs: list[dict[str, Any]]) -> dict[str, ViewMaps]:
        """Run the network up to the maps that can be averaged.

        Args:
            batched_inputs (list[dict]): V views of one image and of one size, in detectron2's format. The second of
                two is the mirror image of the first.

        Returns:
            dict[str, ViewMaps]: by name, with V maps each; names, strides and ``combine`` are the same for every call.
        """

    def tta_decode(
        self, maps: dict[str, ViewMaps], batched_inputs: list[dict[str, Any]], mirrored: list[bool]
    ) -> list[dict[str, Any]]:
        """Decode the people from the averaged maps.

        Args:
            maps (dict[str, ViewMaps]): one map per name, (1, C, H, W), or for "stack" those of all views, (V, C, H, W),
                on the grid of the largest view. All are mirrored back, except the channels of stacked maps.
            batched_inputs (list[dict]): only the input of the largest view.
            mirrored (list[bool]): V, whether each stacked map is from a mirrored view.

        Returns:
            list[dict]: one, with ``instances`` in pixels of the input's ``height`` x ``width``.
        """


def average_maps(model: SupportsMapTTA, views: Iterable[ViewsOfSize], flip_indices: Tensor) -> dict[str, Any]:
    """Average the maps of several views and decode the result.

    Args:
        model (SupportsMapTTA): the model.
        views (Iterable[ViewsOfSize]): of one image, the largest first; the averaged maps have its grid.
        flip_indices (Tensor): (K,) int64, ``KeypointSchema.flip_indices``.

    Returns:
        dict: with ``instances``.

    Raises:
        ValueError: if a map's ``combine`` is unknown, or is "keypoints" without K channels.
    """
    remaining = iter(views)
    largest = next(remaining)
    average = _MapAverage(flip_indices, largest, model.tta_maps(largest.inputs))
    for of_size in remaining:
        average.add(of_size, model.tta_maps(of_size.inputs))
    return model.tta_decode(average.result(), [largest.inputs[0]], average.mirrored)[0]


class _MapAverage:
    """Sums or stacks the maps of views on the grid of the first."""

    def __init__(self, flip_indices: Tensor, largest: ViewsOfSize, maps: dict[str, ViewMaps]) -> None:
        self.flip_indices = flip_indices
        self.largest = largest
        # V flags, whether each view is mirrored
        self.mirrored: list[bool] = []
        self._targets = maps
        self._sums: dict[str, Tensor] = {}
        self._stacks: dict[str, list[Tensor]] = {}
        self.add(largest, maps)

    def add(self, views: ViewsOfSize, maps: dict[str, ViewMaps]) -> None:
        """Add the maps of views of one size: dict[str, ViewMaps]."""
        for index in range(len(views.inputs)):
            self.mirrored.append(index > 0)
            for name, of_views in maps.items():
                values = self._align(name, of_views, index, views)
                if of_views.combine == "stack":
                    self._stacks.setdefault(name, []).append(values)
                else:
                    self._sums[name] = self._sums[name] + values if name in self._sums else values

    def result(self) -> dict[str, ViewMaps]:
        """The averaged and the stacked maps: dict[str, ViewMaps]."""
        values = {name: total / len(self.mirrored) for name, total in self._sums.items()}
        values |= {name: torch.cat(stacked) for name, stacked in self._stacks.items()}
        return {name: replace(self._targets[name], values=value) for name, value in values.items()}

    def _align(self, name: str, maps: ViewMaps, index: int, views: ViewsOfSize) -> Tensor:
        """(1, C, H, W) values of view ``index`` (1 is mirrored), mirrored back and on the grid of the largest view."""
        if maps.combine not in ("keypoints", "mean", "stack"):
            raise ValueError(f"map {name!r}: combine must be 'keypoints', 'mean' or 'stack', got {maps.combine!r}")
        if maps.combine == "keypoints" and maps.values.shape[1] != len(self.flip_indices):
            raise ValueError(
                f"map {name!r} has {maps.values.shape[1]} channels, but swapping left and right needs one for "
                f"each of the {len(self.flip_indices)} keypoints"
            )
        target = self._targets[name]
        height, width = target.values.shape[-2:]
        is_mirrored = index > 0
        between = T.TransformList([self.largest.resize.inverse(), views.resize])
        values = resample_map(
            maps.values[index : index + 1],
            stride=maps.stride,
            size=views.size,
            mirrored=is_mirrored,
            target_shape=(height, width),
            target_stride=target.stride,
            target_size=self.largest.size,
            from_target=None if views.size == self.largest.size else composed_matrix(between),
        )
        if is_mirrored and maps.combine == "keypoints":
            return values[:, self.flip_indices.to(values.device)]
        return values


def resample_map(
    values: Tensor,
    *,
    stride: int,
    size: tuple[int, int],
    mirrored: bool,
    target_shape: tuple[int, int],
    target_stride: int,
    target_size: tuple[int, int],
    from_target: np.ndarray | None = None,
) -> Tensor:
    """Resample the map of one view at the cells of another view's map, by bilinear interpolation.

    Cells in the padding, outside of the view, get the values at its border.

    Args:
        values (Tensor): (B, C, H, W).
        stride (int): stride of the map, pixels of the view.
        size (tuple[int, int]): (height, width) of the view without padding.
        mirrored (bool): whether the view is mirrored; the result is not.
        target_shape (tuple[int, int]): (H', W') of the other map.
        target_stride (int): stride of the other map, pixels of the other view.
        target_size (tuple[int, int]): (height, width) of the other view.
        from_target (ndarray | None): (2, 3) matrix without rotation, from pixels of the other view to those of this
            one before mirroring. None = scale by the ratio of the sizes.

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
        """Positions of the target's cells on the map, 0 to 1 from edge to edge."""
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
