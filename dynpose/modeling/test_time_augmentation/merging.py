"""Merging of several views' predictions as poses."""

from collections.abc import Callable, Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from dynpose.layers.oks_nms import group_by_oks, pose_areas
from dynpose.utils.finite import finite_instances

_FIELDS = ("pred_boxes", "scores", "pred_classes", "pred_keypoints")


def merge_poses(
    predictions: list[Instances],
    sigmas: Sequence[float],
    *,
    match_oks: float = 0.7,
    weight_of: Callable[[Tensor], Tensor] = lambda confidence: confidence,
) -> Instances:
    """Merge the predictions of several views of an image.

    :func:`~dynpose.layers.oks_nms.group_by_oks` groups the predictions by person. For a person predicted in some of the
    V views with scores s_v, keypoints p_vk and their confidences c_vk:

    - the keypoint is the mean of the p_vk, weighted by s_v c_vk (by s_v where all c_vk are 0);
    - its confidence is the mean of the c_vk and the box the mean of the boxes, both weighted by s_v;
    - the score is sum_v s_v / V: the mean, where views without the person count as 0. It is s for a person predicted in
      all views with score s, and s / V for one predicted in a single view.

    Args:
        predictions (list[Instances]): V, in the coordinates of one image, not mirrored, with ``scores``,
            ``pred_classes``, ``pred_keypoints`` (N, K, 3) and optionally ``pred_boxes``. Without predictions, the
            fields may be missing.
        sigmas (Sequence[float]): K, of OKS. The area of a pose is that of its box, if it has one, or of the rectangle
            around its keypoints.
        match_oks (float): minimum OKS of predictions of the same person.
        weight_of (callable): maps the third values to weights >= 0.

    Returns:
        Instances: the people of all views by descending score, with the same four fields.
    """
    views = [view for view, instances in enumerate(predictions) if has_predictions(instances)]
    if not views:
        return _only_poses(predictions[0])
    people = Instances.cat([_only_poses(predictions[view]) for view in views])
    view = torch.cat([torch.full_like(predictions[view].pred_classes, view) for view in views])
    boxes = people.pred_boxes.tensor if people.has("pred_boxes") else None
    group, leaders = group_by_oks(
        people.pred_keypoints,
        people.scores,
        view,
        sigmas,
        match_oks,
        areas=pose_areas(people.pred_keypoints) if boxes is None else people.pred_boxes.area(),
        classes=people.pred_classes,
    )

    def of_views(values):
        """(N, ...) -> (G, V, ...), 0 where a view lacks a person."""
        table = values.new_zeros(len(leaders), len(predictions), *values.shape[1:])
        table[group, view] = values
        return table

    scores, keypoints = of_views(people.scores), of_views(people.pred_keypoints)
    # Views without the person do not count even if all scores are 0
    found = of_views(torch.ones_like(people.scores))
    by_score = torch.where(scores.sum(dim=1, keepdim=True) > 0, scores, found)
    weights = by_score[..., None] * of_views(weight_of(people.pred_keypoints[..., 2]))
    weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, by_score[..., None])

    of_leader = people[leaders]
    merged = Instances(people.image_size)
    if boxes is not None:
        merged.pred_boxes = Boxes(_weighted_mean(of_views(boxes), by_score[..., None], boxes[leaders]))
    merged.scores = scores.sum(dim=1) / len(predictions)
    merged.pred_classes = of_leader.pred_classes
    points, confidence = of_leader.pred_keypoints.split([2, 1], dim=2)
    merged.pred_keypoints = torch.cat(
        [
            _weighted_mean(keypoints[..., :2], weights[..., None], points),
            _weighted_mean(keypoints[..., 2:], by_score[..., None, None], confidence),
        ],
        dim=2,
    )
    return merged[merged.scores.argsort(descending=True, stable=True)]


def mirror_poses(instances: Instances, flip_indices: Tensor) -> Instances:
    """Mirror predictions from a mirrored image to the original, or vice versa.

    Args:
        instances (Instances): predictions on a mirrored image, whose width is in ``image_size``. Only the fields that
            :func:`merge_poses` reads are kept.
        flip_indices (Tensor): (K,) int64, ``KeypointSchema.flip_indices``.

    Returns:
        Instances: new ones.
    """
    if not has_predictions(instances):
        return instances
    width = instances.image_size[1]
    mirrored = _only_poses(instances)
    keypoints = mirrored.pred_keypoints[:, flip_indices.to(mirrored.pred_keypoints.device)]
    keypoints[..., 0] = width - keypoints[..., 0]
    mirrored.pred_keypoints = keypoints
    if mirrored.has("pred_boxes"):
        x0, y0, x1, y1 = mirrored.pred_boxes.tensor.unbind(dim=1)
        mirrored.pred_boxes = Boxes(torch.stack([width - x1, y0, width - x0, y1], dim=1))
    return mirrored


def split_by_finiteness(instances: Instances) -> tuple[Instances, list[Instances]]:
    """Split predictions into finite ones, which can be merged, and non-finite ones of a diverged model.

    Args:
        instances (Instances): of one view.

    Returns:
        tuple[Instances, list[Instances]]: the finite ones, and a list of the others if there are any.
    """
    finite = finite_instances(instances) if has_predictions(instances) else None
    if finite is None or finite.all():
        return instances, []
    return instances[finite], [_only_poses(instances[~finite])]


def has_predictions(instances: Instances) -> bool:
    """Whether there are predictions; Instances without fields have no length."""
    return bool(instances.get_fields()) and len(instances) > 0


def _only_poses(instances):
    return Instances(instances.image_size, **{name: instances.get(name) for name in _FIELDS if instances.has(name)})


def _weighted_mean(values, weights, leader):
    """Mean over the views, (G, V, ...) -> (G, ...), written as a step from the leader: exact where all agree."""
    return leader + (weights * (values - leader[:, None])).sum(dim=1) / weights.sum(dim=1)
