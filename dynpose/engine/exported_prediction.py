"""Prediction on files with an exported model, whose people become detectron2's Instances for records and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

from dynpose.data.any_image import ImageLike
from dynpose.runtime import People, Pose
from dynpose.runtime.predicting import ImagePredictor

from .file_prediction import RecordingPredictor
from .prediction_record import exported_fingerprint

__all__ = ["ExportedFilePredictor", "people_to_instances"]


class _ExportedPredictor(ImagePredictor[Instances]):
    """Predicts with an exported model; the people are Instances on the CPU."""

    def __init__(self, pose: Pose):
        self.pose = pose
        self._size_divisibility = pose.metadata.size_divisibility
        self._max_batch_size = pose.max_batch_size

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        return self.pose.prepare(image)

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        return list(map(people_to_instances, self.pose.infer(inputs)))


class ExportedFilePredictor(RecordingPredictor, _ExportedPredictor):
    """Predicts the people in image files with an exported model and records them.

    Args:
        pose (Pose): the model.

    Attributes:
        schema, metadata: see :class:`~dynpose.engine.file_prediction.RecordingPredictor`.
    """

    def __init__(self, pose: Pose):
        super().__init__(pose)
        self.schema = pose.schema
        self.metadata = Metadata()
        self.schema.to_metadata(self.metadata)
        if pose.class_names:
            self.metadata.set(thing_classes=list(pose.class_names))

    def fingerprint(self) -> dict[str, Any]:
        """What the predictions depend on, see :func:`~dynpose.engine.prediction_record.exported_fingerprint`."""
        return exported_fingerprint(list(_files(os.path.expanduser(self.pose.file))), self.pose.runtime)


def _files(file: str) -> Iterable[str]:
    """An exported file, and those beside it that hold its weights: OpenVINO's, and the external data of a large one."""
    yield file
    for other in (f"{os.path.splitext(file)[0]}.bin", f"{file}.data"):
        if os.path.isfile(other) and (file.lower().endswith(".xml") or not other.endswith(".bin")):
            yield other


def people_to_instances(people: People) -> Instances:
    """The people of an image as detectron2's Instances, on the CPU."""
    return Instances(
        people.image_size,
        pred_boxes=Boxes(torch.from_numpy(people.pred_boxes)),
        scores=torch.from_numpy(people.scores),
        pred_classes=torch.from_numpy(people.pred_classes),
        pred_keypoints=torch.from_numpy(people.pred_keypoints),
    )
