"""Images of many shapes, the two ways to predict them, and the comparison of what they find.

Letters of the shapes: N and M people, K keypoints.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.optimize import linear_sum_assignment

from dynpose.data.synthetic import SyntheticPose
from dynpose.engine.predictor import PosePredictor

ALONE, BATCHED = "alone", "batched"
# Differences that float32 may make, pixels and probability
PIXELS, SCORE = 1e-3, 1e-4


def images_of_shapes(count: int, num_shapes: int, side: int) -> list[np.ndarray]:
    """Paint synthetic people on images of several shapes, in mixed order.

    Args:
        count: of the images.
        num_shapes: whose width is from half to twice the height, in even steps of its logarithm.
        side: the shorter one, pixels.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    images = []
    for ratio in np.geomspace(0.5, 2, num_shapes):
        size = (round(side * max(1, 1 / ratio)), round(side * max(1, ratio)))
        people = SyntheticPose(image_size=size, people=(1, 2), crowding=0.0, scale=(0.5, 0.9), truncation=0.0)
        number = len(range(len(images), count, num_shapes))
        images.append([people.render(index, "val")[0][:, :, ::-1].copy() for index in range(number)])
    mixed = [image for of_shape in images for image in of_shape]
    return [mixed[index] for index in np.random.default_rng(0).permutation(len(mixed))]


def predict(predictor: PosePredictor, way: str, images: list[np.ndarray], batch_size: int) -> tuple[list, float, float]:
    """Predict images one by one or in batches.

    Args:
        predictor: of the model.
        way: ALONE or BATCHED.
        images: (H, W, 3) uint8, BGR.
        batch_size: of the batches.

    Returns:
        The Instances of each image on the CPU, and the seconds of the wall clock and of the CPU (all threads).
    """
    wall, cpu = time.perf_counter(), time.process_time()
    found = map(predictor, images) if way == ALONE else predictor.predict_all(images, batch_size)
    people = [instances.to("cpu") for instances in found]
    return people, time.perf_counter() - wall, time.process_time() - cpu


def difference(first, second) -> dict:
    """Compare what is found in one image in two ways.

    Args:
        first, second (Instances): N and M people.

    Returns:
        ``unmatched``, people that one has more than the other; ``moved``, people who have a keypoint more than 1e-3
        pixel or a score more than 1e-4 away from those of their counterpart, which is chosen for the smallest
        distance; and the largest of these differences, ``pixels`` and ``score``.
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
