"""InsPose's targets and losses, as free functions (sections 3.1 to 3.4).

Counts are averaged over the processes, so that the gradient averaged by DistributedDataParallel equals that of one
process with the whole batch.
Axes: B images, G persons, N positive locations, K keypoints, H x W cells of stride s.
Coordinates are continuous input pixels (x, y), as in detectron2, unless stated to be in cells.
"""

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from dynpose.layers.process_mean import normalizer
from dynpose.modeling.keypoint_maps import enclosing_boxes, offset_targets


def with_pseudo_boxes(gt_instances: list[Instances]) -> list[Instances]:
    """Replace the annotated box of each person by the pseudo-box around the labelled keypoints.

    People without a labelled keypoint are excluded and become background, as in the paper: its figure 2 notes that such
    people "might be missing when testing".

    Args:
        gt_instances: B, with gt_boxes, gt_classes and (where there are people) gt_keypoints.

    Returns:
        B new ones.
    """
    results = []
    for instances in gt_instances:
        if not instances.has("gt_keypoints"):
            results.append(instances[torch.zeros_like(instances.gt_classes, dtype=torch.bool)])
            continue
        labelled = instances.gt_keypoints.tensor[..., 2] > 0
        has_any = labelled.any(dim=1)
        kept = instances[has_any]
        kept.gt_boxes = Boxes(enclosing_boxes(kept.gt_keypoints.tensor[..., :2].float(), labelled[has_any]))
        results.append(kept)
    return results


def mean_over_positives(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean over all positive locations of the mean over the location's keypoints (Eq. 4).

    The paper does not specify how L_ce reduces the keypoints of a location. The mean has the magnitude of a single
    softmax cross-entropy for any number of labelled keypoints. A location whose person has none counts with zero loss.

    Args:
        losses: (N, K), zero for keypoints that do not count.
        counted: (N, K) bool.

    Returns:
        A scalar.
    """
    num_positives = normalizer(len(losses), losses.device)
    return (losses.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).sum() / num_positives


def disk_offset_targets(
    keypoints: Tensor, image_index: Tensor, *, num_images: int, size: tuple[int, int], stride: int, radius: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells inside the disks D_R around the labelled keypoints, and their offset targets for Eq. 3 (section 3.3).

    Where the disks of several people overlap, the nearest keypoint is the target.

    Args:
        keypoints: (G, K, 3).
        image_index: (G,) int64.
        num_images: B.
        size: (H, W).
        stride: s, pixels.
        radius: R, in cells, from the keypoint to a cell's centre. The keypoint's cell is always inside.

    Returns:
        Image (S,), kind (S,) and flat cell index (S,), all int64; and target (S, 2) = x / s - u, y / s - v: cells from
        the corner of cell (u, v), as Eq. 3 adds them to the cell's index.
    """
    image, kind, cell, from_center = offset_targets(
        keypoints,
        image_index,
        num_images=num_images,
        size=size,
        stride=stride,
        radius=radius,
        disk_around="keypoint",
    )
    return image, kind, cell, (from_center + stride // 2) / stride


def disk_offset_loss(offsets: Tensor, targets: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Mean L1 distance, per coordinate and in cells, of the predicted offsets inside the disks (L_do of Eq. 5).

    Args:
        offsets: (B, 2 K, H, W), cells.
        targets: from :func:`disk_offset_targets`.

    Returns:
        A scalar.
    """
    image, kind, cell, target = targets
    predicted = offsets.unflatten(1, (-1, 2)).flatten(3)[image, kind, :, cell]
    count = normalizer(predicted.numel(), predicted.device)
    return (predicted - target).abs().sum() / count
