"""What a model finds in a batch of images, as tensors: the seam between the models and what runs them.

Axes: N people of the batch, K keypoints.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
