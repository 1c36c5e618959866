"""Bipartite matching of every stage's queries with the annotated people (section 3.4).

Axes: S stages, B images, N queries per image, G people of an image, P matched pairs of a stage in the whole batch.
Boxes are pixels of the network's input, (x0, y0, x1, y1).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor
from torchvision.ops import generalized_box_iou

# Replaces non-finite costs, so that a diverged run ends because of its NaN losses rather than in the matching
_LARGE_COST = 1e9


class Matches(NamedTuple):
    """The pairs of one stage.

    Attributes:
        queries (Tensor): (P,) int64, ascending; query n of image b is b N + n.
        people (Tensor): (P,) int64, indices into the concatenated people of all images.
    """

    queries: Tensor
    people: Tensor


def class_costs(logits: Tensor, gt_classes: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Change of a query's focal loss when it is matched with a person.

    Args:
        logits (Tensor): (..., num_classes).
        gt_classes (Tensor): (G,) int64.
        alpha, gamma (float): of the focal loss.

    Returns:
        Tensor: (..., G).
    """
    logits = logits[..., gt_classes].float()
    probability = logits.sigmoid()
    positive = -alpha * (1 - probability) ** gamma * F.logsigmoid(logits)
    negative = -(1 - alpha) * probability**gamma * F.logsigmoid(-logits)
    return positive - negative


def matching_costs(
    logits: Tensor,
    boxes: Tensor,
    gt_classes: Tensor,
    gt_boxes: Tensor,
    image_size: tuple[int, int],
    *,
    weights: dict[str, float],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Cost of every pair of a query and a person of one image: class, L1 and GIoU, for S stages.

    Keypoints do not contribute.

    Args:
        logits (Tensor): (S, N, num_classes).
        boxes (Tensor): (S, N, 4).
        gt_classes (Tensor): (G,) int64.
        gt_boxes (Tensor): (G, 4).
        image_size (tuple[int, int]): height and width, pixels; the L1 distance compares boxes divided by it.
        weights (dict[str, float]): of ``class``, ``l1`` and ``giou``.
        alpha, gamma (float): of the focal loss.

    Returns:
        Tensor: (S, N, G) float32.
    """
    height, width = image_size
    boxes, gt_boxes = boxes.float(), gt_boxes.float()
    distances = (boxes[:, :, None] - gt_boxes).abs()
    distances = distances[..., 0::2].sum(dim=-1) / width + distances[..., 1::2].sum(dim=-1) / height
    overlaps = generalized_box_iou(boxes.flatten(0, 1), gt_boxes).view_as(distances)
    costs = weights["class"] * class_costs(logits, gt_classes, alpha=alpha, gamma=gamma)
    return costs + weights["l1"] * distances - weights["giou"] * overlaps


@torch.no_grad()
def match_stages(
    logits: Tensor,
    boxes: Tensor,
    gt_instances: list[Instances],
    *,
    weights: dict[str, float],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> list[Matches]:
    """Match the queries of every stage with the people at the minimum total cost.

    The costs of all stages and images are copied to the CPU together, with a single synchronisation.

    Args:
        logits (Tensor): (S, B, N, num_classes).
        boxes (Tensor): (S, B, N, 4).
        gt_instances (list[Instances]): B, with gt_classes and gt_boxes; their ``image_size`` is the size without
            padding.
        weights, alpha, gamma: see :func:`matching_costs`.

    Returns:
        list[Matches]: S, on the CPU. In an image with more people than queries, N people are matched.
    """
    # training alone needs it, and importing it takes half a second
    from scipy.optimize import linear_sum_assignment

    num_stages, _, num_queries = logits.shape[:3]
    costs = [
        matching_costs(
            logits[:, image],
            boxes[:, image],
            instances.gt_classes,
            instances.gt_boxes.tensor,
            instances.image_size,
            weights=weights,
            alpha=alpha,
            gamma=gamma,
        )
        for image, instances in enumerate(gt_instances)
    ]
    sizes = [image_costs.numel() for image_costs in costs]
    on_cpu = torch.cat([image_costs.flatten() for image_costs in costs]).cpu()
    on_cpu = on_cpu.nan_to_num(nan=_LARGE_COST, posinf=_LARGE_COST, neginf=-_LARGE_COST).split(sizes)

    matches: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_stages)]
    first_person = 0
    for image, instances in enumerate(gt_instances):
        image_costs = on_cpu[image].view(num_stages, num_queries, len(instances)).numpy()
        for stage in range(num_stages):
            queries, people = linear_sum_assignment(image_costs[stage])
            matches[stage].append((queries + image * num_queries, people + first_person))
        first_person += len(instances)
    return [Matches(*(torch.from_numpy(np.concatenate(part)) for part in zip(*pairs))) for pairs in matches]
