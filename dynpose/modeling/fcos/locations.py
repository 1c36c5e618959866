"""The locations of a feature pyramid as one flat list, and layers evaluated at selected locations.

Axes: B images, L levels, T locations of all levels and images together, N selected locations, C channels.
The flat order is (level, image, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def flatten_levels(maps: list[Tensor]) -> Tensor:
    """Flatten per-level maps into the order of :class:`Locations`.

    Args:
        maps: L maps of shape (B, C, H_l, W_l).

    Returns:
        (T, C).
    """
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])


@dataclass
class Locations:
    """Every location of a pyramid, in the flat order.

    Attributes:
        points: (T, 2) float, centre (x, y) of the cell in input pixels: (u * s + s // 2, v * s + s // 2).
        level, image, row, column: (T,) int64.
        strides: stride of each level, pixels.
        sizes: (H, W) of each level.
        num_images: B.
    """

    points: torch.Tensor
    level: torch.Tensor
    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    strides: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    num_images: int

    @classmethod
    def of(cls, maps: list[Tensor], strides: Sequence[int]) -> Locations:
        """List the locations of per-level maps.

        Args:
            maps: L maps of shape (B, C, H_l, W_l).
            strides: L strides, pixels.
        """
        device = maps[0].device
        num_images = maps[0].shape[0]
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in maps)
        grids = []
        for index, (height, width) in enumerate(sizes):
            image, row, column = (torch.arange(size, device=device) for size in (num_images, height, width))
            axes = (torch.full_like(image, index)[:, None, None], image[:, None, None], row[:, None], column)
            grids.append([axis.expand(num_images, height, width).flatten() for axis in axes])
        level, image, row, column = (torch.cat(of_levels) for of_levels in zip(*grids))
        points = [
            torch.stack([column, row], dim=1).float() * stride + stride // 2
            for (_, _, row, column), stride in zip(grids, strides)
        ]
        return cls(torch.cat(points), level, image, row, column, tuple(strides), sizes, num_images)

    def __len__(self) -> int:
        return len(self.level)

    def per_level(self, values: Sequence[float]) -> Tensor:
        """Expand one value per level to all locations.

        Args:
            values: L values.

        Returns:
            (T,) float32.
        """
        # filled, because a copy from the host would wait for a GPU
        pieces = [
            torch.full((self.num_images * height * width,), float(value), device=self.level.device)
            for value, (height, width) in zip(values, self.sizes)
        ]
        return torch.cat(pieces)

    def of_image(self, image: int) -> Tensor:
        """Positions of the locations of an image.

        Args:
            image: its index, 0..B - 1.

        Returns:
            (T / B,) int64, ascending.
        """
        pieces, start = [], 0
        for height, width in self.sizes:
            first = start + image * height * width
            pieces.append(torch.arange(first, first + height * width, device=self.level.device))
            start += self.num_images * height * width
        return torch.cat(pieces)


class LocationConv(nn.Module):
    """A convolution shared by all pyramid levels and evaluated only at selected locations.

    FCPose's controller has thousands of output channels and is needed at about fifty locations (section 3.1); dense
    evaluation would cost more than the rest of the network. The weight of a k x k convolution (out, C, k, k) is stored
    as that of a linear layer, (out, C * k * k).

    Args:
        in_channels: C.
        out_channels: values per location.
        kernel_size: k, odd; outside the map the features are zero, as in a padded convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1):
        super().__init__()
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
        self.kernel_size = kernel_size
        self.linear = nn.Linear(in_channels * kernel_size**2, out_channels)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: list[Tensor], locations: Locations, index: Tensor) -> Tensor:
        """Evaluate the convolution at N locations.

        Args:
            maps: L maps of shape (B, C, H_l, W_l).
            locations: of these maps.
            index: (N,) int64, positions in ``locations``.

        Returns:
            (N, out_channels).
        """
        return self.linear(gather_neighbourhoods(maps, locations, index, self.kernel_size))


def gather_neighbourhoods(maps: list[Tensor], locations: Locations, index: Tensor, kernel_size: int) -> Tensor:
    """Gather the k x k neighbourhoods of N locations, zero outside the map.

    Args:
        maps: L maps of shape (B, C, H_l, W_l).
        locations: of these maps.
        index: (N,) int64, positions in ``locations``.
        kernel_size: k, odd.

    Returns:
        (N, C * k * k) in the order channel, row, column, as in a convolution's weight.
    """
    reach = kernel_size // 2
    padded = [F.pad(level, (reach,) * 4) for level in maps]
    rows = flatten_levels(padded)
    level = locations.level[index]
    start, height, width = (_filled(values, index.device)[level] for values in zip(*_extents(padded)))
    corner = start + (locations.image[index] * height + locations.row[index]) * width + locations.column[index]
    offsets = torch.arange(kernel_size, device=index.device)
    cells = corner[:, None, None] + offsets[:, None] * width[:, None, None] + offsets
    return rows[cells.flatten(1)].transpose(1, 2).flatten(1)


def _extents(maps):
    """For each of the maps, its first position in the flat order, its height and its width."""
    start = 0
    for level in maps:
        batch, _, height, width = level.shape
        yield start, height, width
        start = start + batch * height * width  # a trace has tensors here, which += would change


def _filled(values, device):
    """Sizes as a tensor: filled, because a copy from the host would wait for a GPU, and a graph's sizes are symbols."""
    return torch.cat([torch.full((1,), value, device=device, dtype=torch.int64) for value in values])
