"""The dicts of registered data sets, including those of custom functions, read by the shared annotation reader."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from .coco_json import PoseFile, load_pose_json, log_remarks
from .faults import Fault, raise_fault, short
from .people import read_people, whole_number
from .rules import Remarks
from .schema import KeypointSchema

__all__ = ["correct_dataset_dicts", "load_dataset_dicts", "pose_file_of_dicts"]

_XYWH = BoxMode.XYWH_ABS


def load_dataset_dicts(
    name: str,
    *,
    as_registered: bool = False,
    on_fault: Callable[[Fault], None] = raise_fault,
    on_remarks: Callable[[Remarks], None] | None = None,
) -> Iterable[dict[str, Any]]:
    """Load a registered data set, for training or to check its images.

    Data sets that detectron2 reads by ``load_coco_json`` (its ``keypoints_coco_*`` and those of
    ``register_coco_instances``) are read from their file by :func:`load_pose_json` instead, as the dicts of the former
    have no areas. The dicts of a custom function are corrected by the same rules.

    Args:
        name (str): a registered data set.
        as_registered (bool): always use the dicts of the registered function, for a mapper that needs fields which
            :func:`load_pose_json` drops, such as the segmentations of all people.
        on_fault, on_remarks: see :func:`load_pose_json`.

    Returns:
        list[dict]: in detectron2's format. Any other result of a custom function, such as an iterable, is returned
        unchanged.

    Raises:
        DatasetError: see :func:`load_pose_json` and :func:`correct_dataset_dicts`.
    """
    loader, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    options: dict[str, Any] = {"on_fault": on_fault, "on_remarks": on_remarks}
    if hasattr(loader, "read_files"):
        return loader(**options)
    if not metadata.get("keypoint_names"):
        return DatasetCatalog.get(name)
    num_keypoints = KeypointSchema.from_metadata(metadata).num_keypoints
    if metadata.get("evaluator_type") == "coco" and metadata.get("json_file") and not as_registered:
        class_of = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        return load_pose_json(
            metadata.json_file, metadata.image_root, class_of=class_of, num_keypoints=num_keypoints, **options
        )
    dicts = DatasetCatalog.get(name)
    if not isinstance(dicts, list):
        return dicts
    return correct_dataset_dicts(dicts, num_keypoints, f"data set {name!r}", **options)


def correct_dataset_dicts(
    dicts: list[dict[str, Any]],
    num_keypoints: int,
    source: str,
    *,
    on_fault: Callable[[Fault], None] = raise_fault,
    on_remarks: Callable[[Remarks], None] | None = None,
) -> list[dict[str, Any]]:
    """Correct the dicts of a custom function by the rules of :mod:`dynpose.data.rules`.

    Args:
        dicts (list[dict]): in detectron2's format, with lists or arrays. They are not modified.
        num_keypoints (int): K.
        source (str): source of the dicts, for messages.
        on_fault (Callable[[Fault], None]): called with every faulty annotation, which is then skipped; the default
            raises at the first one.
        on_remarks (Callable[[Remarks], None]): see :func:`load_pose_json`.

    Returns:
        list[dict]: copies whose annotations have lists of plain numbers for ``bbox`` (XYWH_ABS) and ``keypoints``, and
        plain numbers for ``category_id``, ``iscrowd`` and ``area``; all other fields are unchanged.

    Raises:
        DatasetError: an annotation is faulty.
    """
    pose_file = pose_file_of_dicts(dicts, num_keypoints, source, on_fault)
    (on_remarks or functools.partial(log_remarks, source))(pose_file.remarks)
    people = pose_file.people
    assert people is not None  # dicts are always read as annotated
    originals = [annotation for record in dicts for annotation in record.get("annotations") or ()]
    has_annotations = any("annotations" in record for record in dicts)
    corrected = [{**record, "annotations": []} if has_annotations else record for record in dicts]
    keypoints = people.continuous_keypoints().reshape(-1, 3 * num_keypoints).tolist()
    columns = people.rows, people.images, people.classes, people.iscrowd.astype(int), people.boxes, people.areas
    for row, image, category, iscrowd, bbox, area, points in zip(*(column.tolist() for column in columns), keypoints):
        changes = {"category_id": category, "iscrowd": iscrowd, "area": area, "keypoints": points}
        changes |= {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS}
        corrected[image]["annotations"].append({**originals[row], **changes})
    return corrected


def pose_file_of_dicts(
    dicts: list[dict[str, Any]], num_keypoints: int, source: str, on_fault: Callable[[Fault], None] = raise_fault
) -> PoseFile:
    """Read dicts in detectron2's format as :func:`read_pose_file` reads a file.

    Args:
        dicts, num_keypoints, source, on_fault: see :func:`correct_dataset_dicts`.

    Returns:
        PoseFile: its classes are the contiguous ``category_id`` of the dicts.

    Raises:
        DatasetError: an annotation is faulty, an image has no id, or ``dicts`` is not a list of dicts.
    """
    if not isinstance(dicts, list) or not all(isinstance(record, dict) for record in dicts):
        problem = f"{type(dicts).__name__} is not a list of dicts"
        raise Fault(source, "file", problem, "register a function that returns one").error()

    def report(kind, problem, remedy):
        on_fault(Fault(source, kind, problem, remedy))

    annotations, remarks = [], Remarks()
    for i, record in enumerate(dicts):
        for j, annotation in enumerate(record.get("annotations") or ()):
            item = f"{j} of {record.get('file_name', i)}"
            try:
                annotations.append(_as_coco(annotation, i, item))
            except (AssertionError, AttributeError, TypeError, ValueError) as error:  # from BoxMode and NumPy
                problem = f"annotation {item!r} is not in detectron2's format ({' '.join(str(error).split())})"
                raise Fault(
                    source, "annotations", problem, "see detectron2's standard dataset dicts"
                ).error() from error
    category_ids = [annotation["category_id"] for annotation in annotations]
    class_of = {category_id: category_id for category_id in category_ids if whole_number(category_id) is not None}
    sizes = np.array([[_plain(record.get(key, np.nan)) for key in ("width", "height")] for record in dicts], float)
    people = read_people(
        annotations,
        {i: i for i in range(len(dicts))},
        sizes.reshape(-1, 2),
        class_of,
        {key: str(key) for key in class_of},
        num_keypoints,
        report,
        remarks,
        keypoint_offset=0.5,
    )
    return PoseFile(
        json_file=source,
        image_ids=[_image_id(record, source) for record in dicts],
        file_names=[record.get("file_name") for record in dicts],
        sizes=sizes.reshape(-1, 2),
        size_faults={},
        crowd_indices=[record.get("crowdIndex") for record in dicts],
        classes=[],
        class_of=class_of,
        people=people,
        remarks=remarks,
    )


def _as_coco(annotation, image_index, name):
    """Convert an annotation to the form of a COCO file, except that keypoints stay in continuous pixels."""
    bbox = _plain(annotation.get("bbox"))
    if isinstance(bbox, (list, tuple)) and len(bbox) == 4 and annotation.get("bbox_mode") not in (None, _XYWH):
        bbox = [float(value) for value in BoxMode.convert(list(bbox), annotation["bbox_mode"], _XYWH)]
    return {
        "id": name,
        "image_id": image_index,
        "category_id": _plain(annotation.get("category_id")),
        "iscrowd": _plain(annotation.get("iscrowd")),
        "bbox": list(bbox) if isinstance(bbox, tuple) else bbox,
        "area": _plain(annotation.get("area")),
        "keypoints": _plain(annotation.get("keypoints")),
        "num_keypoints": _plain(annotation.get("num_keypoints")),
        "segmentation": _plain_polygons(annotation.get("segmentation")),
    }


def _plain(value):
    """Convert arrays, tensors and NumPy numbers to lists and Python numbers."""
    return value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value


def _plain_polygons(segmentation):
    """Convert polygons to lists, and a mask (H, W) to an RLE."""
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        return mask_util.encode(np.asfortranarray(segmentation.astype(np.uint8)))
    return [_plain(polygon) for polygon in segmentation] if isinstance(segmentation, list) else segmentation


def _image_id(record, source):
    image_id = _plain(record.get("image_id"))
    if not isinstance(image_id, (int, str)):
        raise Fault(
            source, "image ids", f"image {short(record.get('file_name'))} has no 'image_id'", "give it a unique one"
        ).error()
    return image_id
