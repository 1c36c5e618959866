"""Targets and losses of InsPose as released in opera, as free functions.

Counts are averaged over the processes, so that the gradient averaged by DistributedDataParallel equals that of one
process with the whole batch. Without labels, all losses are zero or finite and still depend on the predictions.

Axes: B images, G people of the batch, K keypoints, P positive locations, T locations, H x W cells of stride s.
Coordinates are input pixels (x, y).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dynpose.layers.process_mean import mean_over_processes, normalizer
from dynpose.modeling.keypoint_maps import corner_radii
from dynpose.utils.arguments import check_one_of

# Rules of keypoint_qualities and of tag_losses
QUALITIES = ("released", "oks")
TAG_CELLS = ("released", "cell")

# Release: keeps the area of an empty mask above zero, square pixels
_AREA_EPS = 1e-4
# Release: keeps the mean finite without disk offsets
_COUNT_EPS = 1e-4


def keypoint_qualities(
    cells: Tensor,
    keypoints: Tensor,
    areas: Tensor,
    sigmas: Sequence[float],
    *,
    stride: int,
    width: int,
    rule: str = "released",
    unlabelled: float = 0.1,
) -> Tensor:
    """Quality of the heatmaps' peaks: the classification targets of the positive locations.

    Args:
        cells: (P, K) int64, the peaks' flat index v * width + u.
        keypoints: (P, K, 3) of the matched person.
        areas: (P,) area of the matched person, square pixels.
        sigmas: (K,) OKS sigmas.
        stride: s, pixels.
        width: W.
        rule: "released": distances in whole cells, floor(x / s), but areas in pixels, which greatly overestimates
            the quality; or "oks": distances of the cells' centres in pixels.
        unlabelled: quality of people without labelled keypoints.

    Returns:
        (P,) in [0, 1].

    Raises:
        ValueError: for an unknown rule.
    """
    check_one_of("rule", rule, QUALITIES)
    labelled = keypoints[..., 2] > 0
    points = torch.where(labelled[..., None], keypoints[..., :2], 0.0)
    peaks = torch.stack([cells % width, torch.div(cells, width, rounding_mode="floor")], dim=-1).to(points.dtype)
    if rule == "released":
        distance = (peaks - torch.floor(points / stride)).square().sum(dim=-1)
    else:
        distance = (peaks * stride + stride // 2 - points).square().sum(dim=-1)
    variances = (2 * torch.as_tensor(sigmas, dtype=points.dtype, device=points.device)).square()
    similarity = torch.exp(-distance / (2 * variances * (areas[:, None] + _AREA_EPS)))
    count = labelled.sum(dim=1)
    oks = (similarity * labelled).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, oks, unlabelled)


def varifocal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Varifocal loss (Zhang et al., CVPR 2021, Eq. 2), summed.

    Args:
        logits: (T, classes).
        targets: (T, classes), the quality of a positive location's class, 0 elsewhere.
        alpha, gamma: weight and exponent of the background.

    Returns:
        A scalar.
    """
    weight = torch.where(targets > 0, targets, alpha * logits.sigmoid() ** gamma)
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight).sum()


def keypoint_regression_loss(offsets: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """L1 loss of the directly regressed keypoints: the mean over the coordinates of all labelled keypoints.

    Args:
        offsets, targets: (P, K, 2) from the location to the keypoint, strides.
        labelled: (P, K) bool.

    Returns:
        A scalar.
    """
    error = (offsets - torch.where(labelled[..., None], targets, 0.0)).abs()
    return (error * labelled[..., None]).sum() / normalizer(2 * labelled.sum())


def mean_over_labelled(losses: Tensor, labelled: Tensor) -> Tensor:
    """Mean of losses (P, K), zero where unlabelled, over the labelled keypoints (P, K) bool of all processes."""
    return losses.sum() / normalizer(labelled.sum())


def gaussian_radii(boxes: Tensor, *, stride: int, min_overlap: float = 0.9, max_radius: int = 3) -> Tensor:
    """CornerNet's radius: the distance that a box's corners may move before its IoU falls below ``min_overlap``.

    As in CenterNet's code, and so in the release, only the case of
    :func:`~dynpose.modeling.keypoint_maps.corner_radii` is considered.

    Args:
        boxes: (G, 4) XYXY, pixels.
        stride: s of the map, pixels.
        min_overlap: o, the minimum IoU.
        max_radius: upper limit.

    Returns:
        (G,) int64 radius in whole cells, from 0 to ``max_radius``.
    """
    size = ((boxes[:, 2:] - boxes[:, :2]) / stride).clamp(min=0)
    return corner_radii(size, min_overlap).clamp(max=max_radius)


def square_cells(
    keypoints: Tensor, radii: Tensor, *, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """List the cells within a square around the cell of every labelled keypoint on the map.

    Args:
        keypoints: (G, K, 3).
        radii: (G,) int64, radius of a person's squares, cells.
        size: (H, W).
        stride: s, pixels.

    Returns:
        The person, kind, column u and row v of the cells of all squares, (S,) int64, and the position (x, y) of the
        keypoint in cells, (S, 2): the corner of cell (u, v) is at (u, v).
    """
    height, width = size
    limit = keypoints.new_tensor([width, height])
    position = keypoints[..., :2] / stride
    on_map = ((position >= 0) & (position < limit)).all(dim=-1) & (keypoints[..., 2] > 0)
    person, kind = on_map.nonzero(as_tuple=True)
    position = position[person, kind]
    largest = int(radii.max()) if len(radii) else 0
    around = torch.arange(-largest, largest + 1, device=keypoints.device)
    square = torch.cartesian_prod(around, around)
    cells = position.long()[:, None] + square
    inside = ((cells >= 0) & (cells < limit)).all(dim=-1)
    inside &= square.abs().amax(dim=1) <= radii[person, None]
    row, column = inside.nonzero(as_tuple=True)
    u, v = cells[row, column].unbind(dim=1)
    return person[row], kind[row], u, v, position[row]


def gaussian_targets(
    keypoints: Tensor, image_index: Tensor, radii: Tensor, *, num_images: int, size: tuple[int, int], stride: int
) -> Tensor:
    """Heatmaps of all people: Gaussians with sigma (2 r + 1) / 6, cropped to squares of radius r, merged by maximum.

    Args:
        keypoints: (G, K, 3).
        image_index: (G,) int64.
        radii: (G,) int64, r of each person, cells.
        num_images: B.
        size: (H, W).
        stride: s, pixels.

    Returns:
        (B, K, H, W) in [0, 1]; exactly 1 at the keypoints' cells.
    """
    height, width = size
    person, kind, u, v, position = square_cells(keypoints, radii, size=size, stride=stride)
    distance = (torch.stack([u, v], dim=1) - position.long()).square().sum(dim=1)
    sigma = (2 * radii[person] + 1) / 6
    gaussian = torch.exp(-distance / (2 * sigma.square())).to(keypoints.dtype)
    maps = keypoints.new_zeros(num_images * keypoints.shape[1] * height * width)
    slot = _slots(image_index[person], kind, u, v, keypoints.shape[1], size)
    return maps.scatter_reduce_(0, slot, gaussian, "amax").view(num_images, -1, height, width)


def disk_offset_loss(offsets: Tensor, keypoints: Tensor, image_index: Tensor, radii: Tensor, *, stride: int) -> Tensor:
    """L1 loss of the offsets from cell corners to the nearest keypoint, over the cells in the keypoints' squares.

    Args:
        offsets: (B, K, 2, H, W), x and y, cells.
        keypoints: (G, K, 3).
        image_index: (G,) int64.
        radii: (G,) int64, radius of each person's squares, cells.
        stride: s, pixels.

    Returns:
        A scalar, the mean over the coordinates of the cells.
    """
    height, width = offsets.shape[-2:]
    size = (height, width)
    person, kind, u, v, position = square_cells(keypoints, radii, size=size, stride=stride)
    target = position - torch.stack([u, v], dim=1)
    image = image_index[person]
    slot = _slots(image, kind, u, v, keypoints.shape[1], size)
    distance = target.square().sum(dim=1)
    nearest = distance.new_full((offsets[:, :, 0].numel(),), float("inf")).scatter_reduce_(0, slot, distance, "amin")
    kept = distance == nearest[slot]
    error = offsets[image[kept], kind[kept], :, v[kept], u[kept]].float() - target[kept]
    count = mean_over_processes(error.new_tensor(float(error.numel())))
    return error.abs().sum() / (count + _COUNT_EPS)


def tag_losses(
    tags: Tensor, keypoints: Tensor, image_index: Tensor, *, stride: int, rule: str = "released"
) -> tuple[Tensor, Tensor]:
    """Associative embedding (Newell et al., NIPS 2017): one tag per person, different from other people's tags.

    Per image, pull is the mean over people of the variance of their keypoints' tags, and push is half the mean over
    pairs of people of exp(-d^2) with the difference d of their mean tags. Both are averaged over the images.

    Args:
        tags: (B, K, H, W).
        keypoints: (G, K, 3).
        image_index: (G,) int64.
        stride: s, pixels.
        rule: the cell that a keypoint's tag is read from: "released", one cell left of and above the keypoint's
            cell, wrapping around at the border; or "cell", the keypoint's cell.

    Returns:
        Pull and push, scalars.

    Raises:
        ValueError: for an unknown rule.
    """
    check_one_of("rule", rule, TAG_CELLS)
    num_images, num_keypoints, height, width = tags.shape
    limit = keypoints.new_tensor([width, height])
    position = keypoints[..., :2] / stride
    labelled = ((position >= 0) & (position < limit)).all(dim=-1) & (keypoints[..., 2] > 0)
    cell = torch.where(labelled[..., None], position, 0.0).long()
    if rule == "released":
        cell = (cell - 1) % torch.tensor([width, height], device=cell.device)
    kind = torch.arange(num_keypoints, device=cell.device)
    read = tags[image_index[:, None], kind, cell[..., 1], cell[..., 0]].float()

    count = labelled.sum(dim=1)
    # people without a labelled keypoint have no tag
    counted, count, labelled, read = count > 0, count[count > 0], labelled[count > 0], read[count > 0]
    image_index = image_index[counted]
    people = torch.bincount(image_index, minlength=num_images)[image_index]
    mean = (read * labelled).sum(dim=1) / count
    variance = ((read - mean[:, None]).square() * labelled).sum(dim=1) / count
    pull = (variance / people).sum()

    pairs = image_index[:, None] == image_index
    pairs.fill_diagonal_(False)
    similarity = torch.exp(-(mean[:, None] - mean).square()) * pairs
    push = 0.5 * (similarity.sum(dim=1) / (people * (people - 1)).clamp(min=1)).sum()
    images = mean_over_processes(pull.new_tensor(float(num_images)))
    return pull / images, push / images


def _slots(image, kind, u, v, num_keypoints, size):
    """Flat index in (B, K, H, W)."""
    height, width = size
    return ((image * num_keypoints + kind) * height + v) * width + u
