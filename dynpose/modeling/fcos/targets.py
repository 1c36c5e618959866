"""Target assignment (FCOS section 3.1-3.2) and sampling of positives that get a KP-Net (FCPose section 3.3).

Axes: T locations, G ground-truth instances of all images together, P positive locations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torch import Tensor

from dynpose.layers.ranking import rank_in_group

from .locations import Locations

# Boxes that are compared with all locations of an image at once
_BOXES_AT_ONCE = 16


@dataclass
class FCOSTargets:
    """Targets of every location.

    Attributes:
        labels: (T,) int64 class; ``num_classes`` = background.
        distances: (T, 4) to the left, top, right, bottom side of the matched box, in strides, positive inside
            it; undefined for background.
        matched: (T,) int64, index of the matched instance among the batch's G; -1 = background.
        positives: (P,) int64, positions of the positive locations.
    """

    labels: torch.Tensor
    distances: torch.Tensor
    matched: torch.Tensor
    positives: torch.Tensor

    @property
    def centerness(self) -> Tensor:
        """(P,) centre-ness of the positive locations (FCOS Eq. 3)."""
        return centerness_of(self.distances[self.positives])


def centerness_of(distances: Tensor) -> Tensor:
    """Centre-ness (FCOS Eq. 3): sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)).

    Args:
        distances: (P, 4) to the left, top, right, bottom side, positive.

    Returns:
        (P,) in (0, 1].
    """
    horizontal, vertical = distances[:, [0, 2]], distances[:, [1, 3]]
    ratios = (horizontal.amin(1) / horizontal.amax(1)) * (vertical.amin(1) / vertical.amax(1))
    return ratios.sqrt()


@torch.no_grad()
def assign_targets(
    locations: Locations,
    gt_instances: list[Instances],
    *,
    sizes_of_interest: Sequence[float],
    num_classes: int,
    center_sampling_radius: float = 1.5,
    inside_box: bool = True,
) -> FCOSTargets:
    """Match locations with ground-truth boxes.

    A location is positive for a box if it lies inside it, within ``center_sampling_radius`` strides of its centre, and
    the largest of its four distances is within the level's range (both ends included). If several boxes match, the
    smallest is used.

    With ``inside_box=False``, as for InsPose (its section 3.1), the box does not clip the centre region. Without box
    regression, a box around a few keypoints may be narrow or degenerate.

    Args:
        locations: T locations.
        gt_instances: one per image, with gt_boxes and gt_classes, in input pixels.
        sizes_of_interest: upper end of the range of every level but the last, pixels.
        num_classes: label of the background.
        center_sampling_radius: in strides; 0 = anywhere in the box.
        inside_box: whether a positive location must lie inside the box; always the case for a radius of 0.
    """
    bounds = [-1.0, *sizes_of_interest, float("inf")]
    low, high = locations.per_level(bounds[:-1]), locations.per_level(bounds[1:])
    strides = locations.per_level(locations.strides)

    labels = torch.full_like(locations.level, num_classes)
    matched = torch.full_like(locations.level, -1)
    distances = locations.points.new_zeros(len(locations), 4)
    first = 0
    for image, instances in enumerate(gt_instances):
        if len(instances):
            here = locations.of_image(image)
            chosen, to_sides = _match(
                locations.points[here],
                instances.gt_boxes.tensor,
                radius=strides[here] * center_sampling_radius if center_sampling_radius else None,
                low=low[here],
                high=high[here],
                inside_box=inside_box,
            )
            # no selection of the positive ones, whose number a GPU would have to send to the host
            positive = chosen >= 0
            labels[here] = torch.where(positive, instances.gt_classes[chosen.clamp(min=0)], num_classes)
            matched[here] = torch.where(positive, chosen + first, -1)
            distances[here] = torch.where(positive[:, None], to_sides / strides[here, None], 0.0)
        first += len(instances)
    return FCOSTargets(labels, distances, matched, (matched >= 0).nonzero().squeeze(1))


def _match(points, boxes, *, radius, low, high, inside_box):
    """Match the locations of an image with (G, 4) boxes: (T,) box index or -1, and (T, 4) distances to its sides.

    A few boxes at a time, so that memory does not grow with G. Of boxes of the same area, the first is chosen.
    """
    smallest = points.new_full((len(points),), float("inf"))
    chosen = torch.full_like(smallest, -1, dtype=torch.int64)
    for start in range(0, len(boxes), _BOXES_AT_ONCE):
        some = boxes[start : start + _BOXES_AT_ONCE]
        to_sides = _distances_to_sides(points, some)
        inside = to_sides.amin(dim=2) > 0
        if radius is not None:
            centers = (some[:, :2] + some[:, 2:]) / 2
            reach = radius[:, None, None]
            begin, end = centers - reach, centers + reach
            if inside_box:
                begin, end = torch.maximum(begin, some[:, :2]), torch.minimum(end, some[:, 2:])
            inside = _distances_to_sides(points, torch.cat([begin, end], dim=2)).amin(dim=2) > 0
        largest = to_sides.amax(dim=2)
        in_range = (largest >= low[:, None]) & (largest <= high[:, None])

        areas = (some[:, 2:] - some[:, :2]).prod(dim=1)
        area, index = torch.where(inside & in_range, areas, float("inf")).min(dim=1)
        chosen = torch.where(area < smallest, index + start, chosen)
        smallest = torch.minimum(area, smallest)
    of_chosen = boxes[chosen.clamp(min=0)]
    return chosen, torch.cat([points - of_chosen[:, :2], of_chosen[:, 2:] - points], dim=1)


def _distances_to_sides(points, boxes):
    """Signed distances (T, G, 4) from (T, 2) points to the sides of (G, 4) or (T, G, 4) boxes, positive inside."""
    points = points[:, None]
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=2)


@torch.no_grad()
def sample_positives(matched: Tensor, scores: Tensor, max_samples: int) -> Tensor:
    """Select the positive locations that get a KP-Net: the best of each person, in equal shares (FCPose section 3.3).

    Each person gets up to max(1, max_samples // persons) locations, where persons counts the people with a positive
    location in the batch. If there are more people than samples, the best ``max_samples`` of them get one each.

    Args:
        matched: (P,) int64, the person of each positive location.
        scores: (P,) confidence.
        max_samples: M; 0 = no limit.

    Returns:
        (S,) int64 positions in ``matched``, ascending, S <= max_samples.
    """
    if not max_samples or not len(matched):
        return torch.arange(len(matched), device=matched.device)
    # Counts stay on the device: reading one would wait for a GPU. Whoever exceeds the share is not chosen.
    rank = rank_in_group(scores, matched)
    num_persons = (rank == 0).sum()
    share = torch.div(max_samples, num_persons, rounding_mode="floor").clamp(min=1)
    chosen = (rank < share).nonzero().squeeze(1)
    if len(chosen) > max_samples:
        chosen = chosen[scores[chosen].topk(max_samples).indices]
    return chosen.sort().values
