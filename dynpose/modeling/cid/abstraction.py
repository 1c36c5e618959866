"""Instance Information Abstraction: the people's positions and feature vectors (section 3.2).

Axes: B images, N people, K keypoints, C channels of the feature map, H x W cells.
Coordinates are cells of the map: (u, v) is column u of row v.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynpose.layers.top_k import stable_top_k
from dynpose.utils.exporting import is_recording
from dynpose.utils.intermediate import provide

# Minimum distance of probabilities from 0 and 1, so that their logarithms are finite
_MARGIN = 1e-4


@dataclass
class People:
    """N people of a batch.

    Attributes:
        image_index (Tensor): (N,) int64.
        cells (Tensor): (N, 2) int64 (u, v), the cell of each person's feature (l of the paper).
        features (Tensor): (N, C), f of Eq. 7.
        scores (Tensor | None): (N,) values of the centre map; None in training.
    """

    image_index: Tensor
    cells: Tensor
    features: Tensor
    scores: Tensor | None = None

    @classmethod
    def at(cls, features: Tensor, image_index: Tensor, cells: Tensor, scores: Tensor | None = None) -> "People":
        """Read the people's features from a map (B, C, H, W) (Eq. 7)."""
        return cls(image_index, cells, features[image_index, :, cells[:, 1], cells[:, 0]], scores)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, chosen: slice | Tensor) -> "People":
        """Select people by slice, mask or index."""
        return self.map(lambda values: values[chosen])

    def map(self, function: Callable[[Tensor], Tensor]) -> "People":
        """Apply a function to each of the tensors."""
        scores = None if self.scores is None else function(self.scores)
        return People(function(self.image_index), function(self.cells), function(self.features), scores)


class InstanceAbstraction(nn.Module):
    """IIA: multi-person heatmaps of keypoints and people's centres, and the peaks of the centres.

    Args:
        in_channels (int): C.
        num_keypoints (int): K.
        max_proposals (int): maximum people per image.
        score_thresh (float): minimum centre score, exclusive.
        window_thresholds (Sequence[float]): peaks are the maxima of windows of 3 x 3 cells, two cells wider for each
            threshold that the mean of the image's height and width, in cells, exceeds.
        smoothing (int): the centre map is averaged with its mean over a window of this many cells a side, odd.
        prior_prob (float): initial probability of all maps.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        max_proposals: int = 30,
        score_thresh: float = 0.01,
        window_thresholds: Sequence[float] = (200, 300),
        smoothing: int = 3,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        # the K keypoints, then the centre
        self.heatmaps = nn.Conv2d(in_channels, num_keypoints + 1, kernel_size=1)
        self.max_proposals = max_proposals
        self.score_thresh = score_thresh
        self.window_thresholds = tuple(window_thresholds)
        self.smoothing = smoothing
        init_heatmaps(self.heatmaps, prior_prob)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the multi-person heatmaps, H and C of Eq. 6: (B, C, H, W) -> (B, K + 1, H, W) float32 in (0, 1)."""
        return to_probability(self.heatmaps(features))

    def centers(self, features: Tensor) -> Tensor:
        """Compute only the centre map, which suffices for inference: (B, C, H, W) -> (B, H, W) in (0, 1)."""
        conv = self.heatmaps
        assert conv.bias is not None
        return to_probability(F.conv2d(features, conv.weight[-1:], conv.bias[-1:]))[:, 0]

    def find_people(self, features: Tensor, sizes: Tensor) -> People:
        """Find the people of a batch.

        Args:
            features (Tensor): (B, C, H, W).
            sizes (Tensor): (B, 2) int64, height and width of each image in cells; the rest is padding.

        Returns:
            People: by image, then by descending score.
        """
        centers = self.centers(features)
        people = People.at(features, *self.peaks(centers, sizes))
        provide(lambda: {"centers": centers, "center_cells": people.cells})
        return people

    def peaks(self, centers: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the peaks of centre maps, averaged with their mean over a window of ``smoothing`` cells a side.

        Args:
            centers (Tensor): (B, H, W).
            sizes (Tensor): (B, 2) int64, height and width of each image in cells.

        Returns:
            tuple: image_index (N,) int64, cells (N, 2) int64 (u, v) and scores (N,), by image, then descending score;
            of equal scores, the cell that comes first in the rows of the map is first.
            NaN cells of an image are included and come first: evaluation counts and reports such predictions.
        """
        own = own_cells(sizes, centers)
        smoothed = smooth(centers * own, self.smoothing) * own
        is_candidate = (smoothed == self._highest_around(smoothed, sizes)) | (smoothed.isnan() & own)
        # the zeros at the end are no peaks; with them, a small map also has max_proposals cells
        candidates = F.pad(torch.where(is_candidate, smoothed, 0).flatten(1), (0, self.max_proposals))
        scores, index = stable_top_k(candidates, self.max_proposals)
        # unlike >, not <= passes NaN
        image, rank = (~(scores <= self.score_thresh)).nonzero(as_tuple=True)
        return image, torch.stack(columns_and_rows(index[image, rank], centers), dim=1), scores[image, rank]

    def windows(self, sizes: Tensor) -> Tensor:
        """Sides of the windows whose maxima are peaks (B,), of images of ``sizes`` (B, 2) height and width in cells."""
        means = sizes.sum(dim=1) / 2
        wider = torch.zeros_like(sizes[:, 0])
        for threshold in self.window_thresholds:
            wider = wider + (means > threshold)
        return 3 + 2 * wider

    def _highest_around(self, maps, sizes):
        """Maximum of the window around every cell (B, H, W), each image with its own window."""
        windows = self.windows(sizes).to(maps.device)[:, None, None]
        # the maximum of 3 x 3 windows of 3 x 3 cells is that of 5 x 5 cells
        highest = wide = F.max_pool2d(maps, 3, stride=1, padding=1)
        for wider in range(1, len(self.window_thresholds) + 1):
            wide = F.max_pool2d(wide, 3, stride=1, padding=1)
            highest = torch.where(windows >= 3 + 2 * wider, wide, highest)
        return highest


def init_heatmaps(conv: nn.Conv2d, prior_prob: float) -> None:
    """Initialise in place a convolution whose sigmoid is a heatmap, near ``prior_prob`` everywhere."""
    assert conv.bias is not None
    nn.init.normal_(conv.weight, std=0.001)
    nn.init.constant_(conv.bias, -math.log((1 - prior_prob) / prior_prob))


def to_probability(logits: Tensor) -> Tensor:
    """Sigmoid in float32, at least 1e-4 away from 0 and 1."""
    return logits.float().sigmoid().clamp(_MARGIN, 1 - _MARGIN)


def smooth(maps: Tensor, window: int = 3) -> Tensor:
    """Average maps (..., H, W) with their means over ``window`` cells a side, zero-padded; same shape.

    The sums over a window are sums over its rows of sums over its columns, in whole arrays: a CPU computes them in a
    fifth of the time of ``avg_pool2d``.
    """
    if is_recording():
        return _smooth_in_graph(maps, window)
    columns = maps.clone()
    for step in range(1, window // 2 + 1):
        columns[..., step:, :] += maps[..., :-step, :]
        columns[..., :-step, :] += maps[..., step:, :]
    sums = columns.clone()
    for step in range(1, window // 2 + 1):
        sums[..., step:] += columns[..., :-step]
        sums[..., :-step] += columns[..., step:]
    return sums.div_(window**2).add_(maps).div_(2)


def _smooth_in_graph(maps, window):
    """:func:`smooth` without writes to parts of arrays: the same sums in the same order, so that ties stay ties.

    onnxruntime takes ten times as long for average pooling.
    """
    reach = window // 2
    sums = maps
    for padding, axis in (((0, 0, reach, reach), -2), ((reach, reach), -1)):
        padded, length = F.pad(sums, padding), maps.shape[axis]
        for step in range(1, reach + 1):
            sums = sums + padded.narrow(axis, reach - step, length) + padded.narrow(axis, reach + step, length)
    return (sums / window**2 + maps) / 2


def columns_and_rows(index: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Columns u and rows v of cells, from their flat indices v W + u (int64, any shape) in maps (..., H, W)."""
    width = maps.shape[-1]
    rows = torch.div(index, width, rounding_mode="floor")
    # not %, which ONNX's exporter lacks for a width that varies
    return index - rows * width, rows


def own_cells(sizes: Tensor, maps: Tensor) -> Tensor:
    """Mark the cells of a batch's maps that are not padding.

    Args:
        sizes (Tensor): (B, 2) int64, height and width of each image in cells.
        maps (Tensor): (..., H, W); gives shape and device.

    Returns:
        Tensor: (B, H, W) bool.
    """
    heights, widths = sizes.to(maps.device)[..., None, None].unbind(dim=1)
    rows = torch.arange(maps.shape[-2], device=maps.device)[:, None]
    columns = torch.arange(maps.shape[-1], device=maps.device)
    return (rows < heights) & (columns < widths)
