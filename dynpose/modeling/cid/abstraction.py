"""Instance Information Abstraction: the people's positions and feature vectors (section 3.2).

Axes: B images, N people, K keypoints, C channels of the feature map, H x W cells.
Coordinates are cells of the map: (u, v) is column u of row v.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        scores = None if self.scores is None else self.scores[chosen]
        return replace(
            self,
            image_index=self.image_index[chosen],
            cells=self.cells[chosen],
            features=self.features[chosen],
            scores=scores,
        )


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

    def find_people(self, features: Tensor, sizes: list[tuple[int, int]]) -> People:
        """Find the people of a batch.

        Args:
            features (Tensor): (B, C, H, W).
            sizes (list[tuple[int, int]]): B, height and width of each image in cells; the rest is padding.

        Returns:
            People: by image, then by descending score.
        """
        return People.at(features, *self.peaks(self.centers(features), sizes))

    def peaks(self, centers: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Find the peaks of centre maps, averaged with their mean over a window of ``smoothing`` cells a side.

        Args:
            centers (Tensor): (B, H, W).
            sizes (list[tuple[int, int]]): B, height and width of each image in cells.

        Returns:
            tuple: image_index (N,) int64, cells (N, 2) int64 (u, v) and scores (N,), by image, then descending score.
            NaN cells of an image are included and come first: evaluation counts and reports such predictions.
        """
        own = own_cells(sizes, centers)
        smoothed = smooth(centers * own, self.smoothing) * own
        highest = torch.empty_like(smoothed)
        windows = torch.tensor([self.window(size) for size in sizes])
        for window in windows.unique().tolist():
            images = (windows == window).nonzero()[:, 0].to(centers.device)
            highest[images] = F.max_pool2d(smoothed[images], window, stride=1, padding=window // 2)
        is_candidate = (smoothed == highest) | (smoothed.isnan() & own)
        candidates = torch.where(is_candidate, smoothed, 0).flatten(1)
        scores, index = candidates.topk(min(self.max_proposals, candidates.shape[1]), dim=1)
        # unlike >, not <= passes NaN
        image, rank = (~(scores <= self.score_thresh)).nonzero(as_tuple=True)
        index = index[image, rank]
        width = centers.shape[-1]
        cells = torch.stack([index % width, torch.div(index, width, rounding_mode="floor")], dim=1)
        return image, cells, scores[image, rank]

    def window(self, size: tuple[int, int]) -> int:
        """Side of the window whose maximum is a peak, in an image of ``size`` (height, width) cells."""
        return 3 + 2 * sum(sum(size) / 2 > threshold for threshold in self.window_thresholds)


def init_heatmaps(conv: nn.Conv2d, prior_prob: float) -> None:
    """Initialise in place a convolution whose sigmoid is a heatmap, near ``prior_prob`` everywhere."""
    assert conv.bias is not None
    nn.init.normal_(conv.weight, std=0.001)
    nn.init.constant_(conv.bias, -math.log((1 - prior_prob) / prior_prob))


def to_probability(logits: Tensor) -> Tensor:
    """Sigmoid in float32, at least 1e-4 away from 0 and 1."""
    return logits.float().sigmoid().clamp(_MARGIN, 1 - _MARGIN)


def smooth(maps: Tensor, window: int = 3) -> Tensor:
    """Average maps (..., H, W) with their means over ``window`` cells a side, zero-padded; same shape."""
    return (maps + F.avg_pool2d(maps, kernel_size=window, stride=1, padding=window // 2)) / 2


def own_cells(sizes: list[tuple[int, int]], maps: Tensor) -> Tensor:
    """Mark the cells of a batch's maps that are not padding.

    Args:
        sizes (list[tuple[int, int]]): B, height and width of each image in cells.
        maps (Tensor): (..., H, W); gives shape and device.

    Returns:
        Tensor: (B, H, W) bool.
    """
    heights, widths = torch.tensor(sizes, device=maps.device).reshape(-1, 2, 1, 1).unbind(dim=1)
    rows = torch.arange(maps.shape[-2], device=maps.device)[:, None]
    columns = torch.arange(maps.shape[-1], device=maps.device)
    return (rows < heights) & (columns < widths)
