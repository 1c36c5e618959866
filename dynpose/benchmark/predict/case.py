"""Images of many shapes, their prediction one by one or in batches, and the comparison of the results.

Letters of the shapes: N and M people, K keypoints.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment

from dynpose.data.synthetic import SyntheticPose
from dynpose.engine.predictor import PosePredictor

ALONE, BATCHED = "alone", "batched"
# Differences expected from float32 rounding, pixels and probability
PIXELS, SCORE = 1e-3, 1e-4


def images_of_shapes(count: int, num_shapes: int, side: int) -> list[np.ndarray]:
    """Paint synthetic people on images of several shapes, in mixed order.

    Args:
        count: number of images.
        num_shapes: number of shapes; their aspect ratios are from 1:2 to 2:1, evenly spaced in logarithm.
        side: the shorter side, pixels.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    images: list[list[np.ndarray]] = []
    for ratio in np.geomspace(0.5, 2, num_shapes):
        size = (round(side * max(1, 1 / ratio)), round(side * max(1, ratio)))
        people = SyntheticPose(image_size=size, people=(1, 2), crowding=0.0, scale=(0.5, 0.9), truncation=0.0)
        number = len(range(len(images), count, num_shapes))
        images.append([people.render(index, "val")[0][:, :, ::-1].copy() for index in range(number)])
    mixed = [image for of_shape in images for image in of_shape]
    return [mixed[index] for index in np.random.default_rng(0).permutation(len(mixed))]


def predict(
    predictor: PosePredictor, way: str, images: list[np.ndarray], batch_size: int
) -> tuple[list[Instances], float, float]:
    """Predict images one by one or in batches.

    Args:
        predictor: of the model.
        way: ALONE or BATCHED.
        images: (H, W, 3) uint8, BGR.
        batch_size: of BATCHED.

    Returns:
        The Instances of each image on the CPU, wall-clock seconds, and CPU seconds (all threads).
    """
    wall, cpu = time.perf_counter(), time.process_time()
    found = map(predictor, images) if way == ALONE else predictor.predict_all(images, batch_size)
    people = [instances.to("cpu") for instances in found]
    return people, time.perf_counter() - wall, time.process_time() - cpu


def difference(first: Instances, second: Instances) -> dict[str, Any]:
    """Compare two predictions of one image.

    Args:
        first, second: N and M people.

    Returns:
        ``unmatched``, the difference in the number of people; ``moved``, the number of people with a keypoint more than
        1e-3 pixel or a score more than 1e-4 away from those of their counterpart, which is the nearest one; and the
        largest of these differences, ``pixels`` and ``score``.
    """
    result = {"unmatched": abs(len(first) - len(second)), "moved": 0, "pixels": 0.0, "score": 0.0}
    if not len(first) or not len(second):
        return result
    pixels = (first.pred_keypoints[:, None, :, :2] - second.pred_keypoints[None, :, :, :2]).abs().amax(dim=(2, 3))
    scores = (first.scores[:, None] - second.scores[None]).abs()
    rows, columns = linear_sum_assignment((pixels / PIXELS + scores / SCORE).clamp(max=1e9).cpu().numpy())
    pixels, scores = pixels[rows, columns], scores[rows, columns]
    moved = ((pixels > PIXELS) | (scores > SCORE)).sum().item()
    return {**result, "moved": moved, "pixels": pixels.max().item(), "score": scores.max().item()}
