"""Reading COCO-format keypoint annotation into detectron2's dataset dicts, with every fault named.

detectron2's ``load_coco_json`` trusts the file; people's own files are rarely that clean. This loader gives the same
dicts (with the same half-pixel shift) and checks each item first, so that a fault is one message with the file, the
item and the mend instead of a shape error in the middle of an epoch.
"""

import json
import logging
import math
import os
from collections import defaultdict

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .ignored_regions import has_labelled_keypoints, read_segmentation
from .schema import DatasetError

__all__ = ["load_pose_json", "read_coco_json", "select_categories"]

logger = logging.getLogger(__name__)


def load_pose_json(json_file, image_root, *, category=None, annotated=True):
    """Read a COCO-format keypoint file.

    Args:
        json_file (str | Path): the annotation.
        image_root (str | Path): the folder that its file names start from.
        category (str): name of the one category to read; None = all that have keypoints, which must then be the same
            ones. Annotations of other categories are left out.
        annotated (bool): False for a list of images without people (a test set): only ``"images"`` is read.

    Returns:
        list[dict]: one of detectron2's dataset dicts per image, in the order of the image ids, those without people
        included (detectron2's ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` and ``MIN_KEYPOINTS_PER_IMAGE`` keep them out of
        training). Each of its ``annotations`` has ``bbox`` (``BoxMode.XYWH_ABS``), ``category_id`` (0-based),
        ``keypoints`` (3K numbers; x and y in continuous pixels, which is COCO's index + 0.5, as in ``load_coco_json``;
        visibility 0 throughout where the file has none), ``iscrowd`` and ``area`` (square pixels; the box's where the
        file has none). Crowds and people without labelled keypoints also have the ``segmentation`` of the file, as in
        ``load_coco_json``, for ``INPUT.IGNORE_MASKS``; to keep the others' would only take memory.

    Raises:
        DatasetError: the file or an image is missing, or an item is not what the format says; the message names the
            file, the item and what to do.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    data = read_coco_json(json_file, required=("images", "annotations", "categories") if annotated else ("images",))
    records = {}
    for image in data["images"]:
        record = _read_image(image, json_file, image_root)
        if record["image_id"] in records:
            raise _fault(
                json_file, f"image id {record['image_id']!r} occurs more than once", "give each image its own id"
            )
        records[record["image_id"]] = record
    _check_images_exist(list(records.values()), json_file, image_root)
    if annotated:
        _add_annotations(records, data, select_categories(data, json_file, category), json_file)
    # Sorted as in load_coco_json, so that the order does not depend on how the file was written
    return [records[image_id] for image_id in sorted(records, key=lambda i: (isinstance(i, str), i))]


def read_coco_json(json_file, required=("images", "annotations", "categories")):
    """Parse a COCO-format file.

    Args:
        json_file (str): its path.
        required (Sequence[str]): keys that must be there, each with a list of dicts.

    Returns:
        dict: its content.

    Raises:
        DatasetError: the file is missing, no JSON, or not in COCO's format.
    """
    try:
        with PathManager.open(json_file, "r", encoding="utf-8") as f:
            data = json.load(f)
    except FileNotFoundError:
        raise _fault(json_file, "the file does not exist", "check json_file, or download the annotation") from None
    except OSError as error:
        raise _fault(json_file, f"the file cannot be read ({error})", "check its permissions and the disk") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise _fault(json_file, f"the file is no valid JSON ({error})", "it may be cut off: copy it again") from error
    for key in required:
        content = data.get(key) if isinstance(data, dict) else None
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise _fault(
                json_file,
                f"the file is not in COCO's format: it has no list {key!r} of objects",
                "see https://cocodataset.org/#format-data",
            )
    return data


def select_categories(data, json_file, category=None):
    """The categories of a file that pose is learned on.

    Args:
        data (dict): content of the file.
        json_file (str): the file, for messages.
        category (str): name of one category; None = all with keypoints.

    Returns:
        list[dict]: in the order of their ids; class ``i`` is the ``i``-th. All have the same keypoints.

    Raises:
        DatasetError: there is no such category, it has no keypoints, or the categories have different ones.
    """
    by_id = {}
    for item in data["categories"]:
        if not isinstance(item.get("id"), int) or not isinstance(item.get("name"), str):
            raise _fault(json_file, f"category {item.get('name', item.get('id'))!r} lacks 'id' or 'name'", "add it")
        if item["id"] in by_id:
            raise _fault(json_file, f"category id {item['id']} occurs more than once", "give each category its own id")
        by_id[item["id"]] = item
    known = ", ".join(repr(item["name"]) for item in by_id.values()) or "none"
    if category is None:
        selected = [item for item in by_id.values() if item.get("keypoints")]
        if not selected:
            raise _fault(
                json_file,
                f"none of its categories has keypoints (it has: {known})",
                "give the category a list 'keypoints' of names",
            )
    else:
        selected = [item for item in by_id.values() if item["name"] == category]
        if not selected:
            raise _fault(json_file, f"it has no category {category!r} (it has: {known})", "correct category")
        if not selected[0].get("keypoints"):
            raise _fault(
                json_file,
                f"category {category!r} has no keypoints",
                "give it a list 'keypoints' of names, or choose another",
            )
    selected.sort(key=lambda item: item["id"])
    for item in selected[1:]:
        if item["keypoints"] != selected[0]["keypoints"]:
            raise _fault(
                json_file,
                f"categories {selected[0]['name']!r} and {item['name']!r} have different keypoints "
                f"({len(selected[0]['keypoints'])} and {len(item['keypoints'])})",
                "choose one of them with category=",
            )
    return selected


def _read_image(image, json_file, image_root):
    """An entry of ``"images"`` as a dataset dict without people."""
    image_id, file_name = image.get("id"), image.get("file_name")
    if not isinstance(image_id, (int, str)):
        raise _fault(json_file, f"image {file_name!r} has no 'id'", "give it a number of its own")
    if not isinstance(file_name, str) or not file_name:
        raise _fault(json_file, f"image {image_id!r} has no 'file_name'", "add it, relative to image_root")
    for key in ("height", "width"):
        value = image.get(key)
        if not isinstance(value, int) or value <= 0:
            raise _fault(json_file, f"image {image_id!r}: {key} is {value!r}", "write the image's size in whole pixels")
    return {
        "file_name": os.path.join(image_root, file_name),
        "height": image["height"],
        "width": image["width"],
        "image_id": image_id,
        "annotations": [],
    }


def _check_images_exist(records, json_file, image_root):
    """One listing per folder: 100,000 single look-ups take minutes on a network disk."""
    if "://" in image_root:
        return  # not a disk: only reading an image tells
    names_by_folder = defaultdict(list)
    for record in records:
        folder, name = os.path.split(record["file_name"])
        names_by_folder[folder].append(name)
    missing = []
    for folder, names in names_by_folder.items():
        present = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        missing += [os.path.join(folder, name) for name in names if name not in present]
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise _fault(
            json_file,
            f"{len(missing)} of its {len(records)} images are missing: {first}",
            f"check image_root ({image_root}), or take them out of the file",
        )


def _add_annotations(records, data, categories, json_file):
    """Check the entries of ``"annotations"`` and add them to the records of their images, in place."""
    num_keypoints = len(categories[0]["keypoints"])
    class_of_category = {item["id"]: i for i, item in enumerate(categories)}
    known_categories = {item["id"] for item in data["categories"]}
    seen, left_out = set(), 0
    for annotation in data["annotations"]:
        annotation_id, category_id = annotation.get("id"), annotation.get("category_id")
        item = f"annotation {annotation_id!r}"
        if annotation_id is None or annotation_id in seen:
            raise _fault(json_file, f"{item}: its id is missing or not the only one", "give each annotation its own id")
        seen.add(annotation_id)
        if annotation.get("image_id") not in records:
            raise _fault(
                json_file,
                f"{item} is of image {annotation.get('image_id')!r}, which is not in 'images'",
                "add the image or take the annotation out",
            )
        if category_id not in known_categories:
            raise _fault(
                json_file,
                f"{item} is of category {category_id!r}, which is not in 'categories'",
                "add the category or correct category_id",
            )
        if category_id not in class_of_category:
            left_out += 1
            continue
        bbox = _read_bbox(annotation, item, json_file)
        area = annotation.get("area")
        if not isinstance(area, (int, float)) or not math.isfinite(area):
            area = bbox[2] * bbox[3]
        record = records[annotation["image_id"]]
        person = {
            "iscrowd": int(bool(annotation.get("iscrowd"))),
            "bbox": bbox,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": class_of_category[category_id],
            "keypoints": _read_keypoints(annotation, num_keypoints, item, json_file),
            "area": area,
        }
        if person["iscrowd"] or not has_labelled_keypoints(person):
            segmentation = _read_segmentation(annotation, record, item, json_file)
            if segmentation is not None:
                person["segmentation"] = segmentation
        record["annotations"].append(person)
    logger.info(
        "%s: %d images, %d annotations with keypoints in %d of %d categories, %d of the others left out",
        json_file,
        len(records),
        len(seen) - left_out,
        len(categories),
        len(known_categories),
        left_out,
    )


def _read_bbox(annotation, item, json_file):
    bbox = _finite_numbers(annotation.get("bbox"))
    if bbox is None or len(bbox) != 4 or min(bbox[2:]) < 0:
        raise _fault(
            json_file,
            f"{item}: bbox is {annotation.get('bbox')!r}",
            "write [x, y, width, height] in pixels, or take the annotation out",
        )
    return bbox.tolist()


def _read_keypoints(annotation, num_keypoints, item, json_file):
    keypoints = annotation.get("keypoints")
    if not keypoints:
        keypoints = [0] * (3 * num_keypoints)
    if not isinstance(keypoints, list) or len(keypoints) != 3 * num_keypoints:
        raise _fault(
            json_file,
            f"{item}: keypoints has {len(keypoints)} numbers where its category's {num_keypoints} keypoints make "
            f"{3 * num_keypoints}",
            "write x, y, visibility for each, three zeros where a keypoint is not labelled",
        )
    keypoints = _finite_numbers(keypoints)
    if keypoints is None or not set(keypoints[2::3].tolist()) <= {0, 1, 2}:
        raise _fault(
            json_file,
            f"{item}: keypoints are not all numbers with a visibility of 0, 1 or 2",
            "write x, y, visibility for each, three zeros where a keypoint is not labelled",
        )
    # The shift of load_coco_json: from the index of a pixel to its centre
    keypoints[0::3] += 0.5
    keypoints[1::3] += 0.5
    return keypoints.tolist()


def _read_segmentation(annotation, record, item, json_file):
    try:
        return read_segmentation(annotation.get("segmentation"), record["height"], record["width"])
    except ValueError as error:
        raise _fault(
            json_file,
            f"{item}: segmentation {error}",
            "write polygons [[x, y, x, y, ...], ...] or an RLE of the image's size, or take it out",
        ) from None


def _finite_numbers(values):
    """float64 array of a flat list of finite numbers, or None if it is something else."""
    if not isinstance(values, list):
        return None
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal length inside
        return None
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        return None
    return array.astype(np.float64)


def _fault(json_file, problem, mend):
    return DatasetError(f"{json_file}: {problem}; {mend}")
