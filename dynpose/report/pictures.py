"""Pictures of images with the annotated and the predicted people side by side.

N people, K keypoints.
"""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from dynpose.data import KeypointSchema
from dynpose.data.image_reading import read_image
from dynpose.evaluation.coco_metrics import box_of
from dynpose.utils import draw_poses

__all__ = ["Picture", "draw_pair"]

_SIDE = 440
_QUALITY = 72
_MARGIN = 0.12
_MIN_CONFIDENCE = 0.02


class Picture(NamedTuple):
    """Two pictures of the same part of an image, as data URLs, and their size in pixels."""

    truth: str
    prediction: str
    width: int
    height: int


def draw_pair(record: dict, annotations: list[dict], detections: list[dict], schema: KeypointSchema) -> Picture:
    """Draw the annotated and the predicted people on the part of an image that holds them.

    Args:
        record: the image as dataset dict.
        annotations: its people, in COCO's format.
        detections: its predictions to draw, in COCO's results format.
        schema: K keypoints.

    Raises:
        DatasetError: the image cannot be read, or differs in size from the annotation.
    """
    image = read_image(record, "RGB")
    truth = _instances(annotations, [1.0] * len(annotations), schema, visible=True)
    predicted = _instances(detections, [each["score"] for each in detections], schema)
    low, high = _crop(image.shape, torch.cat([truth.pred_boxes.tensor, predicted.pred_boxes.tensor]).numpy())
    part = image[low[1] : high[1], low[0] : high[0]]
    scale = min(1.0, 2 * _SIDE / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    drawn = []
    # some tools write 0 for every confidence
    unknown = not (predicted.pred_keypoints[..., 2] >= _MIN_CONFIDENCE).any()
    for people, show_scores in ((truth, False), (predicted, True)):
        moved = _moved(people, low, scale)
        threshold = 0.0 if people is predicted and unknown else _MIN_CONFIDENCE
        canvas = draw_poses(
            part, moved, schema, score_threshold=-np.inf, keypoint_threshold=threshold, show_scores=show_scores
        )
        shrink = min(1.0, _SIDE / max(canvas.shape[:2]))
        drawn.append(cv2.resize(canvas, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA))
    height, width = drawn[0].shape[:2]
    return Picture(_data_url(drawn[0]), _data_url(drawn[1]), width, height)


def _instances(items: list[dict], scores: list[float], schema: KeypointSchema, *, visible: bool = False) -> Instances:
    """Instances in continuous pixels; with ``visible``, keypoints that are not labelled have confidence 0."""
    keypoints = torch.tensor([each["keypoints"] for each in items], dtype=torch.float32)
    keypoints = keypoints.reshape(-1, schema.num_keypoints, 3)
    keypoints[..., :2] += 0.5
    if visible:
        keypoints[..., 2] = (keypoints[..., 2] > 0).float()
    boxes = torch.tensor([box_of(each) for each in items], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        (1, 1), pred_boxes=Boxes(boxes), scores=torch.tensor(scores, dtype=torch.float32), pred_keypoints=keypoints
    )


def _crop(shape: tuple[int, ...], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (x, y) of the part of an image (H, W, 3) around the boxes (N, 4) XYXY; the image without any."""
    size = np.array(shape[1::-1])
    if not len(boxes):
        return np.zeros(2, dtype=int), size
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = _MARGIN * (high - low).max() + 8
    low = np.clip(np.floor(low - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(high + margin), low + 1, size).astype(int)
    return low, high


def _moved(people: Instances, low: np.ndarray, scale: float) -> Instances:
    """People in the coordinates of the part."""
    moved = Instances((1, 1), scores=people.scores)
    boxes = (people.pred_boxes.tensor - torch.tensor([*low, *low], dtype=torch.float32)) * scale
    moved.pred_boxes = Boxes(boxes)
    keypoints = people.pred_keypoints.clone()
    keypoints[..., :2] = (keypoints[..., :2] - torch.tensor(low, dtype=torch.float32)) * scale
    moved.pred_keypoints = keypoints
    return moved


def _data_url(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
