"""What a model finds in a batch of images, as tensors: the seam between the models and what runs them.

Axes: N people of the batch, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor

from .unchecked_boxes import UncheckedBoxes


class Detections(NamedTuple):
    """People of a batch, ordered by image and then by descending score.

    Attributes:
        image: (N,) int64, position of the image in the batch.
        boxes: (N, 4) XYXY, pixels of the network's input.
        scores: (N,).
        classes: (N,) int64.
        keypoints: (N, K, 3), x and y in pixels of the network's input, and a confidence.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    keypoints: Tensor


def split_detections(detections: Detections, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Split the people of a batch by image.

    Args:
        detections: of B images.
        image_sizes: B, height and width in pixels.

    Returns:
        One per image, with pred_boxes, scores, pred_classes and pred_keypoints.
    """
    results = []
    for image, size in enumerate(image_sizes):
        here = (detections.image == image).nonzero().squeeze(1)
        results.append(
            Instances(
                size,
                pred_boxes=UncheckedBoxes(detections.boxes[here]),
                scores=detections.scores[here],
                pred_classes=detections.classes[here],
                pred_keypoints=detections.keypoints[here],
            )
        )
    return results


def join_instances(results: Sequence[Instances]) -> Detections:
    """Collect the people of B images, with the fields of :func:`split_detections`."""
    return Detections(
        torch.cat([torch.full_like(people.pred_classes, image) for image, people in enumerate(results)]),
        torch.cat([people.pred_boxes.tensor for people in results]),
        torch.cat([people.scores for people in results]),
        torch.cat([people.pred_classes for people in results]),
        torch.cat([people.pred_keypoints for people in results]),
    )
