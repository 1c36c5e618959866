"""Converting a model's instances to records in COCO's results format.

N instances in an image, K keypoints.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import Instances

from dynpose.data import DatasetError

__all__ = ["ImagePredictions", "collect_predictions", "to_coco_results"]


class ImagePredictions(NamedTuple):
    """The predictions of an image as float32 arrays; cheap to gather, being a third of the size of COCO's records."""

    image_id: int | str
    scores: np.ndarray
    """(N,)"""
    classes: np.ndarray
    """(N,) 0-based"""
    keypoints: np.ndarray
    """(N, K, 3): x, y in continuous pixels of the original image, confidence"""
    boxes: np.ndarray | None
    """(N, 4) XYXY in continuous pixels, or None"""
    num_dropped: int
    """number of non-finite instances, which are not among the N"""


def collect_predictions(
    image_id: int | str,
    instances: Instances,
    num_keypoints: int,
    dataset_name: str,
    matched: Sequence[int | None] | None = None,
) -> ImagePredictions:
    """Extract the fields of a model's instances that evaluation needs.

    Args:
        image_id (int | str): of the data set.
        instances (Instances): with ``scores``, ``pred_classes``, ``pred_keypoints`` (N, K, 3) and optionally
            ``pred_boxes``; in continuous pixels of the original image. Without instances the fields may be missing.
        num_keypoints (int): of the predictions: the data set's K, or with ``matched`` the model's number.
        dataset_name (str): for messages.
        matched (Sequence[int | None] | None): for each keypoint of the data set the model's index, or None if the model
            lacks it; None = both have the same keypoints.

    Returns:
        ImagePredictions: with the data set's keypoints; those that the model lacks are at (0, 0) in COCO's pixel
        indices with confidence 0. Instances with a non-finite score, coordinate or confidence are skipped.

    Raises:
        DatasetError: the instances have no keypoints, or a wrong number of them.
    """
    boxes = _array(instances.pred_boxes.tensor) if instances.has("pred_boxes") else None
    if not instances.get_fields() or len(instances) == 0:  # len() fails without fields
        return ImagePredictions(
            image_id,
            np.zeros(0),
            np.zeros(0, np.int64),
            _of_dataset(np.zeros((0, num_keypoints, 3)), matched),
            boxes,
            0,
        )
    owner = f"data set {dataset_name!r}" if matched is None else "the evaluator's model_schema"
    if not instances.has("pred_keypoints"):
        raise DatasetError(
            f"{owner} has {num_keypoints} keypoints, but the predictions have none (no 'pred_keypoints'); evaluate a "
            f"pose model"
        )
    scores, keypoints = _array(instances.scores), _array(instances.pred_keypoints)
    if keypoints.shape[1:] != (num_keypoints, 3):
        raise DatasetError(
            f"{owner} has {num_keypoints} keypoints, but the predictions have {keypoints.shape[1]} (pred_keypoints: "
            f"{'x'.join(map(str, keypoints.shape))}); evaluate the model on a data set with the keypoints that it was "
            f"trained on, or specify the model's keypoints (model_schema; TEST.MAP_KEYPOINTS)"
        )
    finite = np.isfinite(scores) & np.isfinite(keypoints).all(axis=(1, 2))
    if boxes is not None:
        finite &= np.isfinite(boxes).all(axis=1)
    return ImagePredictions(
        image_id=image_id,
        scores=scores[finite],
        classes=instances.pred_classes.cpu().numpy()[finite],
        keypoints=_of_dataset(keypoints[finite], matched),
        boxes=None if boxes is None else boxes[finite],
        num_dropped=int((~finite).sum()),
    )


def to_coco_results(predictions: ImagePredictions, category_ids: list[int], dataset_name: str) -> list[dict[str, Any]]:
    """The predictions of an image in COCO's results format.

    Args:
        predictions (ImagePredictions): of the image.
        category_ids (list): the data set's category id of each class.
        dataset_name (str): for messages.

    Returns:
        list[dict]: per instance ``image_id``, ``category_id``, ``keypoints`` (3K numbers; x and y as COCO's pixel
        indices, continuous pixels - 0.5, to 3 decimals; confidence to 6), ``score`` (unrounded, since it determines the
        ranking) and, if there are boxes, ``bbox`` (XYWH, to 3 decimals). Plain numbers, ready for JSON.

    Raises:
        DatasetError: an instance is of a class that the data set does not have.
    """
    classes = predictions.classes
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(category_ids):
        raise DatasetError(
            f"image {predictions.image_id!r}: predicted classes are {classes.min()} to {classes.max()}, but data set "
            f"{dataset_name!r} has {len(category_ids)} (0 to {len(category_ids) - 1}); the model was made for other "
            f"classes"
        )
    keypoints = predictions.keypoints.astype(np.float64)
    keypoints[..., :2] = np.round(keypoints[..., :2] - 0.5, 3)
    keypoints[..., 2] = np.round(keypoints[..., 2], 6)
    points = keypoints.reshape(len(keypoints), 3 * keypoints.shape[1]).tolist()
    results = [
        {"image_id": predictions.image_id, "category_id": category_ids[c], "keypoints": k, "score": s}
        for c, k, s in zip(classes.tolist(), points, predictions.scores.tolist())
    ]
    if predictions.boxes is not None:
        boxes = predictions.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for result, bbox in zip(results, np.round(boxes, 3).tolist()):
            result["bbox"] = bbox
    return results


def _of_dataset(keypoints, matched):
    """The model's keypoints (N, K', 3) in the order of the data set's, (N, K, 3)."""
    if matched is None:
        return keypoints
    result = np.zeros((len(keypoints), len(matched), 3), dtype=keypoints.dtype)
    result[..., :2] = 0.5  # pixel index 0
    known = [i for i, index in enumerate(matched) if index is not None]
    result[:, known] = keypoints[:, [matched[i] for i in known]]
    return result


def _array(tensor):
    return tensor.detach().float().cpu().numpy()
