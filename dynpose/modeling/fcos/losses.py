"""FCOS losses: focal classification and, with boxes, GIoU and centre-ness (FCOS section 3.2).

Counts are averaged over the processes, so that the gradient averaged by DistributedDataParallel equals that of one
process with the whole batch.
"""

import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from dynpose.layers.process_mean import mean_over_processes, normalizer

from .head import FCOSPredictions
from .locations import flatten_levels
from .targets import FCOSTargets


def fcos_losses(
    predictions: FCOSPredictions,
    targets: FCOSTargets,
    *,
    num_classes: int,
    focal_loss_alpha: float = 0.25,
    focal_loss_gamma: float = 2.0,
    giou_smooth: float = 0.0,
) -> dict[str, Tensor]:
    """Compute the losses of the head's predictions.

    Args:
        predictions: of the whole batch.
        targets: of the same locations.
        num_classes: classes without background.
        focal_loss_alpha, focal_loss_gamma: of the focal loss.
        giou_smooth: see :func:`distance_giou_loss`.

    Returns:
        Scalars, finite without positive locations: ``loss_fcos_cls``; with boxes ``loss_fcos_box``, a mean over the
        positives; with centre-ness also ``loss_fcos_centerness``, and the mean is weighted by the ground-truth
        centre-ness.
    """
    logits = flatten_levels(predictions.logits).float()
    positives = targets.positives
    one_hot = F.one_hot(targets.labels, num_classes + 1)[:, :num_classes].to(logits.dtype)
    num_positives = normalizer(len(positives), logits.device)
    loss_cls = sigmoid_focal_loss(logits, one_hot, alpha=focal_loss_alpha, gamma=focal_loss_gamma, reduction="sum")

    losses = {"loss_fcos_cls": loss_cls / num_positives}
    if not predictions.distances:
        return losses

    distances = flatten_levels(predictions.distances).float()[positives]
    loss_box = distance_giou_loss(distances, targets.distances[positives], smooth=giou_smooth)
    if not predictions.centerness:
        return {**losses, "loss_fcos_box": loss_box.sum() / num_positives}

    centerness_logits = flatten_levels(predictions.centerness).float()[positives].squeeze(1)
    centerness = targets.centerness
    total_centerness = mean_over_processes(centerness.sum()).clamp(min=1e-6)
    loss_centerness = F.binary_cross_entropy_with_logits(centerness_logits, centerness, reduction="sum")
    return {
        **losses,
        "loss_fcos_box": (loss_box * centerness).sum() / total_centerness,
        "loss_fcos_centerness": loss_centerness / num_positives,
    }


def distance_giou_loss(pred: Tensor, target: Tensor, *, smooth: float = 0.0) -> Tensor:
    """1 - GIoU (Rezatofighi et al., CVPR 2019) of boxes given by their distances from a common location.

    Args:
        pred, target: (P, 4) distances to the left, top, right, bottom side, non-negative.
        smooth: added to the intersection and to the union; AdelaiDet adds 1 (square stride).

    Returns:
        (P,) losses.
    """
    common = torch.minimum(pred, target)
    enclosing = torch.maximum(pred, target)
    intersection = _area(common)
    union = _area(pred) + _area(target) - intersection
    hull = _area(enclosing)
    tiny = torch.finfo(pred.dtype).eps
    iou = (intersection + smooth) / (union + smooth).clamp(min=tiny)
    return 1 - iou + (hull - union) / hull.clamp(min=tiny)


def _area(distances):
    left, top, right, bottom = distances.unbind(dim=1)
    return (left + right) * (top + bottom)
