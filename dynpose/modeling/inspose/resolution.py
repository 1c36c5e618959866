"""Keypoint maps and offsets at a resolution other than P3's (InsPose Table 3).

As in the paper, both predictions are resampled bilinearly. Cell centres keep their position in the image. A network is
not linear, so its map must be stored before it can be resampled; at P3's stride it is never stored.
Axes: N generated networks, K keypoints, H x W cells of P3, H' x W' of the resampled map.
"""

import torch.nn.functional as F
from torch import Tensor

from dynpose.layers import KPNets, upsampled_cross_entropy
from dynpose.layers.map_peaks import map_peaks
from dynpose.modeling.keypoint_maps import keypoint_cells


def check_map_stride(map_stride: int, stride: int) -> None:
    """Check that P3 can be resampled to the stride of the map.

    Args:
        map_stride: stride of the map, pixels.
        stride: stride of P3, pixels.

    Raises:
        ValueError: if ``map_stride`` is odd, or neither stride divides the other.
    """
    if map_stride < 2 or map_stride % 2 or (map_stride % stride and stride % map_stride):
        raise ValueError(
            f"map_stride: expected an even divisor or multiple of the finest level's stride {stride}, got {map_stride}"
        )


def resample(maps: Tensor, stride: int, map_stride: int) -> Tensor:
    """Resample maps bilinearly.

    Half the resolution is the mean of four cells, which equals bilinear interpolation at their common corner.

    Args:
        maps: (B, C, H, W) of stride ``stride``.
        stride: pixels.
        map_stride: stride of the result, pixels.

    Returns:
        (B, C, H', W'); W' = ceil(W * stride / map_stride).
    """
    if map_stride == stride:
        return maps
    if map_stride > stride:
        return F.avg_pool2d(maps, map_stride // stride, ceil_mode=True)
    return F.interpolate(maps, scale_factor=stride // map_stride, mode="bilinear", align_corners=False)


def resampled_size(size: tuple[int, int], stride: int, map_stride: int) -> tuple[int, int]:
    """(H, W) -> (H', W') of :func:`resample`."""
    # rounded up without a negative number: torch.onnx writes a floor division as one that truncates
    height, width = ((length * stride + map_stride - 1) // map_stride for length in size)
    return height, width


def keypoint_cross_entropy(nets: KPNets, keypoints: Tensor, map_stride: int) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of every keypoint map with its one-hot target (L_ce of Eq. 4).

    Args:
        nets: N networks.
        keypoints: (N, K, 3), their ground truth; input pixels.
        map_stride: pixels.

    Returns:
        Losses (N, K), zero for keypoints that are unlabelled or not on the map; and the target cells (N, K),
        floor(x / stride) as flat index, negative for the same keypoints.
    """
    targets = keypoint_cells(keypoints, map_stride, resampled_size(nets.size, nets.stride, map_stride))
    if map_stride == nets.stride:
        return nets.cross_entropy(targets), targets

    def on_maps(nets, targets):
        logits, factor = nets.heatmaps(), nets.stride // map_stride
        if factor == 0:
            logits, factor = resample(logits, nets.stride, map_stride), 1
        return (upsampled_cross_entropy(logits, targets, factor, backend=nets.backend),)

    (losses,) = nets.map_in_chunks(on_maps, targets)
    return losses, targets


def keypoint_peaks(nets: KPNets, map_stride: int) -> tuple[Tensor, Tensor]:
    """Highest cell of every keypoint map (Eq. 2).

    Args:
        nets: N networks.
        map_stride: pixels.

    Returns:
        Cells (N, K) int64 flat index in H' x W', and their softmax probability (N, K).
    """
    if map_stride == nets.stride:
        peaks = nets.peaks()
        return peaks.indices, peaks.confidence

    def on_maps(nets):
        _, cells, confidence = map_peaks(resample(nets.heatmaps(), nets.stride, map_stride))
        return cells, confidence

    cells, confidence = nets.map_in_chunks(on_maps, values_per_cell=max(1, nets.stride // map_stride) ** 2)
    return cells, confidence
