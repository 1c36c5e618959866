"""Annotations and predictions in COCO's format, made for the analysis."""

import numpy as np

from dynpose.data import KeypointSchema
from dynpose.evaluation.analysis.arrays import pose_arrays
from dynpose.evaluation.analysis.matching import PoseMatcher
from dynpose.evaluation.ground_truth import GroundTruth

SCHEMA = KeypointSchema(
    names=("nose", "left_hand", "right_hand", "left_foot", "right_foot", "tail"),
    flip_pairs=(("left_hand", "right_hand"), ("left_foot", "right_foot")),
    skeleton=((0, 1), (0, 2), (5, 3), (5, 4)),
    sigmas=(0.05,) * 6,
)
# An asymmetric figure in a box of 100 x 100
FIGURE = np.array([(50, 5), (10, 40), (85, 35), (30, 95), (75, 90), (52, 60)], dtype=float)


def annotation(image_id, points, *, area=10000.0, visibility=2, bbox=None, category_id=1, iscrowd=0):
    """A person with keypoints (K, 2) in COCO's pixel indices; visibility for all, or of each."""
    points = np.asarray(points, dtype=float)
    keypoints = np.column_stack([points, np.broadcast_to(visibility, len(points))])
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "bbox": list(map(float, (*low, *(high - low)))) if bbox is None else bbox,
        "area": area,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
    }


def prediction(image_id, points, score, *, category_id=1, **fields):
    keypoints = np.column_stack([np.asarray(points, dtype=float), np.full(len(points), 0.9)])
    return {
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": keypoints.ravel().tolist(),
        "score": float(score),
        **fields,
    }


def ground_truth(annotations, num_images, num_classes=1):
    numbered = [{**person, "id": i} for i, person in enumerate(annotations, start=1)]
    return GroundTruth("people.json", list(range(1, num_images + 1)), list(range(1, num_classes + 1)), numbered)


def matcher(annotations, predictions, sigmas, num_images, max_dets=20):
    return PoseMatcher(pose_arrays(ground_truth(annotations, num_images), predictions, sigmas, max_dets=max_dets))


def people_and_predictions(num_images=30, noise=2.0, seed=0):
    """Two figures of different sizes in each image, all predicted with noise in pixels and with scores by quality."""
    random = np.random.default_rng(seed)
    people, predictions = [], []
    for image_id in range(1, num_images + 1):
        for place, scale in (((20, 30), random.uniform(0.6, 1.2)), ((300, 200), random.uniform(0.8, 2))):
            points = FIGURE * scale + place + random.uniform(-15, 15, 2)
            people.append(annotation(image_id, points, area=6000 * scale**2))
            quality = random.uniform(0.3, 2)
            predicted = points + random.normal(size=points.shape) * noise * scale * quality
            predictions.append(prediction(image_id, predicted, 1 - quality / 3 + random.uniform(-0.05, 0.05)))
    return people, predictions


def changed(predictions, change):
    """Predictions with changed points (K, 2)."""
    return [
        {**each, **prediction(each["image_id"], change(np.reshape(each["keypoints"], (-1, 3))[:, :2]), each["score"])}
        for each in predictions
    ]
