"""Ground truth for COCO's evaluation code.

pycocotools and faster-coco-eval do not check an annotation file: a missing ``area``, ``iscrowd`` or ``num_keypoints``
is a KeyError in the middle of an evaluation, an annotation with id 0 counts as missed even if it is detected, and a
string as image id makes one of the two fail. This module reads the file as training does (dynpose/data/people.py), and
provides every field.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from dynpose.data import DatasetError
from dynpose.data.coco_json import log_remarks, read_pose_file
from dynpose.data.dataset_dicts import pose_file_of_dicts
from dynpose.data.datasets import annotation_files, check_dataset_files, read_crowd_indices

from .crowdpose import AREA_OF_BOX, group_by_crowding

__all__ = ["GroundTruth", "read_ground_truth"]


@dataclass(frozen=True)
class GroundTruth:
    """The images and annotations of a data set.

    Args:
        source (str): its origin, for messages.
        image_ids (list): the data set's ids, sorted. Image ``i`` of the list has id ``i + 1`` in ``annotations``.
        category_ids (list): the data set's id of each evaluated class, in the order of the classes.
        annotations (list[dict] | None): COCO's keypoint annotations, each with ``id`` (counted from 1), ``image_id``
            (see above), ``category_id`` (the data set's), ``iscrowd``, ``bbox`` (XYWH), ``area``, ``keypoints`` (3K
            numbers, COCO's pixel indices) and ``num_keypoints``. None if the data set has no annotation.
        protocol (str): of the evaluation, "coco" or "crowdpose".
        image_groups (dict[str, list]): for "crowdpose", the data set's ids of its easy, medium and hard images.
        image_files (dict): the data set's image id -> file name, width and height as in the file; None, NaN = missing.
    """

    source: str
    image_ids: list[int | str]
    category_ids: list[int]
    annotations: list[dict[str, Any]] | None
    protocol: str = "coco"
    image_groups: dict[str, list[int | str]] = field(default_factory=dict)
    image_files: dict[int | str, tuple[str, int, int]] = field(default_factory=dict)

    @cached_property
    def image_numbers(self) -> dict[int | str, int]:
        """dict: the data set's image id -> its ``image_id`` in ``annotations``."""
        return {image_id: i for i, image_id in enumerate(self.image_ids, start=1)}


def read_ground_truth(dataset_name: str, num_keypoints: int) -> GroundTruth:
    """Read the ground truth of a registered data set, by the rules of :mod:`dynpose.data.rules`.

    With CrowdPose's protocol (``keypoint_protocol`` of the metadata is "crowdpose") the area is 0.53 times that of the
    box, regardless of the annotation.

    Args:
        dataset_name (str): registered; read from its file or files or, if it has none, from its dicts in detectron2's
            standard format.
        num_keypoints (int): K.

    Returns:
        GroundTruth

    Raises:
        DatasetError: the file cannot be read, an item is invalid, or CrowdPose's protocol lacks crowd indices.
    """
    metadata = MetadataCatalog.get(dataset_name)
    protocol = metadata.get("keypoint_protocol", "coco")
    check_dataset_files(dataset_name, images=False)
    pose_files = _read(dataset_name, metadata, num_keypoints)
    image_ids = _image_ids(pose_files)
    category_ids = _category_ids(metadata, pose_files)
    annotations, image_groups = None, {}
    if any(pose_file.people is not None for pose_file in pose_files):
        annotations = _annotations(pose_files, image_ids, category_ids, crowdpose=protocol == "crowdpose")
        if protocol == "crowdpose":
            crowd_indices: dict[int | str, float] = {}
            for pose_file in pose_files:
                crowd_indices.update(read_crowd_indices(pose_file))
            image_groups = group_by_crowding(crowd_indices)
    return GroundTruth(
        source=" and ".join(pose_file.json_file for pose_file in pose_files),
        image_ids=image_ids,
        category_ids=category_ids,
        annotations=annotations,
        protocol=protocol,
        image_groups=image_groups,
        image_files={
            image_id: (file_name, *size)
            for pose_file in pose_files
            for image_id, file_name, size in zip(pose_file.image_ids, pose_file.file_names, pose_file.sizes.tolist())
        },
    )


def _read(dataset_name, metadata, num_keypoints):
    """The files of a data set; some test sets mark missing annotations by an empty list."""
    loader = DatasetCatalog[dataset_name] if dataset_name in DatasetCatalog else None  # noqa: SIM401  get() loads it
    json_files = annotation_files(dataset_name)
    if hasattr(loader, "read_files"):
        pose_files = loader.read_files(annotated=None)
    elif json_files:
        class_of = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        pose_files = [
            read_pose_file(json_file, annotated=None, class_of=class_of, num_keypoints=num_keypoints)
            for json_file in json_files
        ]
    else:
        dicts = DatasetCatalog.get(dataset_name)
        pose_files = [pose_file_of_dicts(dicts, num_keypoints, f"data set {dataset_name!r}")]
    for pose_file in pose_files:
        if metadata.get("keypoint_protocol") == "crowdpose":
            pose_file.remarks.drop("missing area")
        log_remarks(pose_file.json_file, pose_file.remarks)
        if pose_file.people is not None and not len(pose_file.people):
            _refuse_if_all_skipped(pose_file)
            pose_file.people = None
    return pose_files


def _refuse_if_all_skipped(pose_file):
    """Refuse a file whose annotations were all skipped; an empty list in the file means that it has none."""
    skipped = pose_file.remarks.of("skipped")
    if skipped:
        raise DatasetError(
            f"{pose_file.json_file}: no annotation is left to evaluate: {'; '.join(skipped)}; choose its categories "
            "(category, classes), or another data set"
        )


def _image_ids(pose_files):
    """Image ids sorted as in COCO's code, since the order breaks ties between detections of equal score."""
    image_ids = {}
    for pose_file in pose_files:
        for image_id in pose_file.image_ids:
            if image_id in image_ids:
                raise DatasetError(
                    f"{pose_file.json_file}: image {image_id!r} is in {image_ids[image_id]} too; keep it in one of them"
                )
            image_ids[image_id] = pose_file.json_file
    return sorted(image_ids, key=lambda image_id: (isinstance(image_id, str), image_id))


def _category_ids(metadata, pose_files):
    """The data set's category id of each class, in detectron2's numbering; the first if a class has several."""
    class_of = metadata.get("thing_dataset_id_to_contiguous_id")
    if class_of is None:
        names = metadata.get("thing_classes") or ()
        class_of = pose_files[0].class_of or {i: i for i in range(len(names))}
    num_classes = max(class_of.values(), default=-1) + 1
    first = dict(zip(reversed(class_of.values()), reversed(class_of)))
    # a class missing from the file gets an unused id
    unused = max(class_of, default=0) + 1
    return [first.get(i, unused + i) for i in range(max(num_classes, len(metadata.get("thing_classes") or ())))]


def _annotations(pose_files, image_ids, category_ids, *, crowdpose):
    image_numbers = {image_id: i for i, image_id in enumerate(image_ids, start=1)}
    annotations = []
    for pose_file in pose_files:
        people = pose_file.people
        if people is None:
            continue
        numbers = [image_numbers[image_id] for image_id in pose_file.image_ids]
        areas = people.boxes[:, 2] * people.boxes[:, 3] * AREA_OF_BOX if crowdpose else people.areas
        keypoints = people.keypoints.reshape(-1, 3 * people.keypoints.shape[1])
        num_labelled = np.count_nonzero(people.keypoints[..., 2] > 0, axis=1)
        columns = (people.images, people.classes, people.iscrowd, people.boxes, areas, keypoints, num_labelled)
        for image, category, iscrowd, bbox, area, points, number in zip(*(column.tolist() for column in columns)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[image],
                    "category_id": category_ids[category],
                    "iscrowd": int(iscrowd),
                    "bbox": bbox,
                    "area": area,
                    "keypoints": points,
                    "num_keypoints": number,
                }
            )
    return annotations
