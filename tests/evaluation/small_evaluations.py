"""Hand-made annotations and predictions, and their evaluation."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from dynpose.evaluation import PoseEvaluator


def person(keypoints, **fields):
    """An annotation; a person of 100 x 100 pixels in image 1 unless told otherwise."""
    keypoints = [float(v) for point in keypoints for v in point]
    return {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [0, 0, 100, 100],
        "area": 10000,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "keypoints": keypoints,
        **fields,
    }


def coco(annotations, num_images=1, categories=1):
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(1, categories + 1)],
    }


def predict(keypoints, scores=None, boxes=None, classes=None):
    """Instances; ``keypoints`` (N, K, 2 or 3) in COCO's pixel indices, as in the annotation."""
    keypoints = torch.as_tensor(np.array(keypoints), dtype=torch.float32)
    num = len(keypoints)
    if keypoints.shape[2] == 2:
        keypoints = torch.cat([keypoints, torch.full((*keypoints.shape[:2], 1), 0.5)], dim=2)
    keypoints[..., :2] += 0.5
    instances = Instances((480, 640), pred_keypoints=keypoints)
    instances.scores = torch.linspace(0.9, 0.1, num) if scores is None else torch.tensor(scores)
    instances.pred_classes = torch.zeros(num, dtype=torch.int64) if classes is None else torch.tensor(classes)
    if boxes is not None:
        instances.pred_boxes = Boxes(torch.as_tensor(np.array(boxes), dtype=torch.float32))
    return instances


def evaluate(name, predictions, **kwargs):
    """Metrics of predictions, a mapping from image id to Instances."""
    evaluator = PoseEvaluator(name, **kwargs)
    evaluator.reset()
    for image_id, instances in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()
