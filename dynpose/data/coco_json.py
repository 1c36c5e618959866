"""Reading COCO-format keypoint annotation into detectron2's dataset dicts, with every fault named.

detectron2's ``load_coco_json`` trusts the file; people's own files are rarely that clean. This loader gives the same
dicts (with the same half-pixel shift) and checks each item first, so that a fault is one message with the file, the
item and the mend instead of a shape error in the middle of an epoch. No file outside the image folder is opened,
whatever the annotation says.
"""

import json
import logging
import math
import os
import re
from collections import defaultdict

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .faults import Fault, raise_fault
from .ignored_regions import has_labelled_keypoints, read_segmentation

__all__ = ["load_pose_json", "read_coco_json", "select_categories"]

logger = logging.getLogger(__name__)

# Boxes and keypoints lie within this many pixels of the origin; float32 still tells pixels apart there.
_MAX_COORDINATE = 2.0**24
# Control characters, and halves of characters that no file system has
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# Most pixels of an image: what pycocotools can count
_MAX_PIXELS = 2**31


def load_pose_json(json_file, image_root, *, category=None, annotated=True, on_fault=raise_fault):
    """Read a COCO-format keypoint file.

    Args:
        json_file (str | Path): the annotation.
        image_root (str | Path): the folder that its file names start from.
        category (str): name of the one category to read; None = all that have keypoints, which must then be the same
            ones. Annotations of other categories are left out.
        annotated (bool): False for a list of images without people (a test set): only ``"images"`` is read.
        on_fault (Callable[[Fault], None]): called with every faulty item, which is then left out; the default raises at
            the first one.

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

    def report(kind, problem, mend):
        on_fault(Fault(json_file, kind, problem, mend))

    data = read_coco_json(json_file, required=("images", "annotations", "categories") if annotated else ("images",))
    records = {}
    for image in data["images"]:
        record = _read_image(image, image_root, report)
        if record is None:
            continue
        if record["image_id"] in records:
            report("image ids", f"image id {record['image_id']!r} occurs more than once", "give each image its own id")
            continue
        records[record["image_id"]] = record
    _check_image_files(records, image_root, report)
    if annotated:
        known_images = {image.get("id") for image in data["images"] if _is_id(image.get("id"))}
        _add_annotations(records, known_images, data, select_categories(data, json_file, category), json_file, report)
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
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; brackets nested thousandfold
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
        if not _is_whole(item.get("id")) or not isinstance(item.get("name"), str):
            raise _fault(json_file, f"category {item.get('name', item.get('id'))!r} lacks 'id' or 'name'", "add it")
        if item["id"] in by_id:
            raise _fault(json_file, f"category id {item['id']} occurs more than once", "give each category its own id")
        keypoints = item.get("keypoints")
        if keypoints and not (isinstance(keypoints, list) and all(isinstance(name, str) for name in keypoints)):
            raise _fault(
                json_file,
                f"category {item['name']!r}: keypoints is {_short(keypoints)}",
                "write a list of names, or take it out",
            )
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


def _read_image(image, image_root, report):
    """An entry of ``"images"`` as a dataset dict without people; None if it is faulty."""
    image_id, file_name = image.get("id"), image.get("file_name")
    if not _is_id(image_id):
        return report("image ids", f"image {_short(file_name)} has no 'id'", "give it a number of its own")
    item = f"image {_short(image_id)}"
    if not isinstance(file_name, str) or not file_name:
        return report("file names", f"{item} has no 'file_name'", "add it, relative to image_root")
    path = os.path.join(image_root, file_name)
    if _UNPRINTABLE.search(file_name) or "://" in file_name or not _is_inside(path, image_root):
        return report(
            "file names",
            f"{item}: file_name {_short(file_name)} is no path inside the image folder",
            f"write it relative to image_root ({image_root}), without '..', or give the folder that holds all images",
        )
    for key in ("height", "width"):
        value = image.get(key)
        if not _is_whole(value) or not 0 < value <= _MAX_COORDINATE:
            return report("image sizes", f"{item}: {key} is {_short(value)}", "write the image's size in whole pixels")
    if image["height"] * image["width"] > _MAX_PIXELS:
        return report(
            "image sizes",
            f"{item}: {image['width']} x {image['height']} pixels are more than an image can have",
            "correct width and height",
        )
    return {
        "file_name": path,
        "height": image["height"],
        "width": image["width"],
        "image_id": image_id,
        "annotations": [],
    }


def _is_inside(path, folder):
    """Whether a path lies inside a folder by the way it is written."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([path, folder]) == folder and path != folder


def _check_image_files(records, image_root, report):
    """Images must be there, be files, and lie inside the folder where links lead too; others leave ``records``.

    One listing per folder: 100,000 single look-ups take minutes on a network disk.
    """
    if "://" in image_root:
        return  # not a disk: only reading an image tells
    ids_by_folder = defaultdict(list)
    for image_id, record in records.items():
        ids_by_folder[os.path.dirname(record["file_name"])].append(image_id)
    real_root = os.path.realpath(image_root)
    missing = []
    for folder, image_ids in ids_by_folder.items():
        files = _list_files(folder or ".", real_root)
        for image_id in image_ids:
            name = records[image_id]["file_name"]
            is_inside = files.get(os.path.basename(name))
            if is_inside is None:
                missing.append(image_id)
            elif not is_inside:
                report(
                    "file names",
                    f"image {_short(image_id)}: {name} is a link that leads out of the image folder",
                    f"put the image itself into image_root ({image_root}), or let that be the folder that holds all",
                )
                del records[image_id]
    if missing:
        names = [records[image_id]["file_name"] for image_id in missing]
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        report(
            "missing images",
            f"{len(missing)} of its {len(records)} images are missing: {first}",
            f"check image_root ({image_root}), or take them out of the file",
        )
    for image_id in missing:
        del records[image_id]


def _list_files(folder, real_root):
    """Names of the files in a folder, each with whether it really lies inside of ``real_root``."""
    if not os.path.isdir(folder):
        return {}
    is_inside = _is_inside(os.path.join(os.path.realpath(folder), "any"), real_root)
    files = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # No folders, pipes or devices: to read one may take forever
            if not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
                continue
            if entry.is_symlink():
                files[entry.name] = _is_inside(os.path.realpath(entry.path), real_root)
            else:
                files[entry.name] = is_inside
    return files


def _add_annotations(records, known_images, data, categories, json_file, report):
    """Check the entries of ``"annotations"`` and add them to the records of their images, in place."""
    num_keypoints = len(categories[0]["keypoints"])
    class_of_category = {item["id"]: i for i, item in enumerate(categories)}
    known_categories = {item["id"] for item in data["categories"]}
    seen, left_out = set(), 0
    for annotation in data["annotations"]:
        annotation_id, image_id, category_id = (annotation.get(key) for key in ("id", "image_id", "category_id"))
        item = f"annotation {_short(annotation_id)}"
        if not _is_key(annotation_id) or annotation_id in seen:
            report("annotation ids", f"{item}: its id is missing or not the only one", "give each one its own id")
            continue
        seen.add(annotation_id)
        if not _is_key(image_id) or image_id not in known_images:
            report(
                "unknown images",
                f"{item} is of image {_short(image_id)}, which is not in 'images'",
                "add the image or take the annotation out",
            )
            continue
        if not _is_key(category_id) or category_id not in known_categories:
            report(
                "unknown categories",
                f"{item} is of category {_short(category_id)}, which is not in 'categories'",
                "add the category or correct category_id",
            )
            continue
        if category_id not in class_of_category:
            left_out += 1
            continue
        bbox = _read_bbox(annotation, item, report)
        keypoints = _read_keypoints(annotation, num_keypoints, item, report)
        iscrowd = _read_iscrowd(annotation, item, report)
        record = records.get(image_id)  # None: a fault of its own
        if bbox is None or keypoints is None or iscrowd is None or record is None:
            continue
        area = _finite_numbers([annotation.get("area")])
        person = {
            "iscrowd": iscrowd,
            "bbox": bbox,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": class_of_category[category_id],
            "keypoints": keypoints,
            "area": bbox[2] * bbox[3] if area is None or not 0 <= area[0] <= _MAX_PIXELS else annotation["area"],
        }
        if person["iscrowd"] or not has_labelled_keypoints(person):
            segmentation = _read_segmentation(annotation, record, item, report)
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


def _read_bbox(annotation, item, report):
    bbox = _finite_numbers(annotation.get("bbox"))
    if bbox is None or len(bbox) != 4 or min(bbox[2:]) < 0 or np.abs(bbox).max() > _MAX_COORDINATE:
        return report(
            "boxes",
            f"{item}: bbox is {_short(annotation.get('bbox'))}",
            "write [x, y, width, height] in pixels, or take the annotation out",
        )
    return bbox.tolist()


def _read_keypoints(annotation, num_keypoints, item, report):
    keypoints = annotation.get("keypoints")
    mend = "write x, y, visibility for each, three zeros where a keypoint is not labelled"
    if keypoints is None or keypoints == []:
        keypoints = [0] * (3 * num_keypoints)
    if not isinstance(keypoints, list):
        return report("keypoints", f"{item}: keypoints is {_short(keypoints)}", mend)
    if len(keypoints) != 3 * num_keypoints:
        return report(
            "keypoints",
            f"{item}: keypoints has {len(keypoints)} numbers where its category's {num_keypoints} keypoints make "
            f"{3 * num_keypoints}",
            mend,
        )
    keypoints = _finite_numbers(keypoints)
    if keypoints is None or not set(keypoints[2::3].tolist()) <= {0, 1, 2}:
        return report("keypoints", f"{item}: keypoints are not all numbers with a visibility of 0, 1 or 2", mend)
    if np.abs(keypoints).max() > _MAX_COORDINATE:
        return report("keypoints", f"{item}: a keypoint is at {np.abs(keypoints).max():g}, in no image", mend)
    # The shift of load_coco_json: from the index of a pixel to its centre
    keypoints[0::3] += 0.5
    keypoints[1::3] += 0.5
    return keypoints.tolist()


def _read_iscrowd(annotation, item, report):
    iscrowd = annotation.get("iscrowd")
    if not (iscrowd is None or (isinstance(iscrowd, int) and iscrowd in (0, 1))):
        return report("crowds", f"{item}: iscrowd is {_short(iscrowd)}", "write 0 or 1")
    return int(iscrowd or 0)


def _read_segmentation(annotation, record, item, report):
    try:
        return read_segmentation(annotation.get("segmentation"), record["height"], record["width"])
    except ValueError as error:
        return report(
            "segmentations",
            f"{item}: segmentation {error}",
            "write polygons [[x, y, x, y, ...], ...] or an RLE of the image's size, or take it out",
        )


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value):
    return _is_whole(value) or isinstance(value, str)


def _is_key(value):
    """Whether a value can be looked up among ids; some tools write 7.0 for 7."""
    return _is_id(value) or (isinstance(value, float) and math.isfinite(value))


def _short(value):
    """A value of a file in a message: on one line, and cut to a length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    return Fault(json_file, "file", problem, mend).error()
