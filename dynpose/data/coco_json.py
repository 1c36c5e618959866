"""Reading COCO-format keypoint annotation into detectron2's dataset dicts, with a message for every fault.

detectron2's ``load_coco_json`` trusts the file; custom files are rarely that clean. This loader returns the same dicts
(with the same half-pixel shift) and checks each item first, so that a fault is one message with the file, the item and
the remedy instead of a shape error in the middle of an epoch. No file outside the image folder is opened,
regardless of the annotation.

A file is read in two steps. :func:`read_pose_file` reads images and annotations, corrects them where possible
(dynpose/data/rules.py) and caches the result, so that the next start does not parse the file again;
:func:`load_pose_json` adds the image folder. The evaluator takes its ground truth from the first.
"""

import contextlib
import functools
import gc
import hashlib
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .cache import load_arrays, store_arrays
from .categories import WHOLE_FILE, PoseClass, Selection, categories_by_id, select_classes
from .faults import Fault, raise_fault, short
from .json_keys import repeated_item_key, repeated_key
from .people import HALF_A_PIXEL, MAX_COORDINATE, People, read_people, whole_number
from .rules import Remarks

__all__ = [
    "PoseFile",
    "expand_path",
    "file_stamp",
    "forget_logged",
    "load_pose_json",
    "read_coco_json",
    "read_pose_file",
]

logger = logging.getLogger(__name__)

# Control characters and lone surrogates, which no file system has
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# A name that can't lead out of a folder and needs no further check
_PLAIN = re.compile(r"[\w-][\w. -]*(?:/[\w-][\w. -]*)*", re.ASCII)
# Maximum number of pixels of an image: the limit of pycocotools
_MAX_PIXELS = 2**31
# People whose keypoints are converted to lists at once: arrays of all are large
_CHUNK = 4096
_CONVERT = "a file of an annotation tool is converted by dynpose convert-data"


@dataclass
class PoseFile:
    """The corrected content of a COCO-format file; see :func:`read_pose_file`.

    Attributes:
        json_file (str): the file.
        image_ids (list[int | str]): (I,) in the order of the file.
        file_names (list): (I,) as in the file; None if missing.
        sizes (ndarray): (I, 2) width and height, pixels; NaN if missing or invalid.
        size_faults (dict[int, str]): image index -> the invalid size in the file.
        crowd_indices (list): (I,) ``crowdIndex`` of each image as in the file; None if missing.
        classes (list[PoseClass]): the selected classes; [] if the caller gave ``class_of``.
        class_of (dict[int, int]): category id -> class.
        people (People | None): the annotations; None for a file without any.
        remarks (Remarks): corrected, skipped and reported items.
    """

    json_file: str
    image_ids: list[int | str]
    file_names: list
    sizes: np.ndarray
    size_faults: dict[int, str]
    crowd_indices: list
    classes: list[PoseClass]
    class_of: dict[int, int]
    people: People | None
    remarks: Remarks


def load_pose_json(
    json_file: Path | str,
    image_root: Path | str,
    *,
    category: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    keypoints: Sequence[str] | None = None,
    class_name: str | None = None,
    class_of: dict[int, int] | None = None,
    num_keypoints: int | None = None,
    annotated: bool = True,
    on_fault: Callable[[Fault], None] = raise_fault,
    on_remarks: Callable[[Remarks], None] | None = None,
) -> list[dict[str, Any]]:
    """Read a COCO-format keypoint file.

    Args:
        json_file (str | Path): the annotation file.
        image_root (str | Path): the folder that the file names are relative to.
        category, classes, keypoints, class_name: the part of the file to read; see
            :class:`~dynpose.data.categories.Selection`.
        class_of, num_keypoints: alternative to these four, see :func:`read_pose_file`.
        annotated (bool): False for a list of images without people (a test set): only ``"images"`` is read.
        on_fault (Callable[[Fault], None]): called with every faulty item, which is then skipped; the default raises at
            the first one.
        on_remarks (Callable[[Remarks], None]): called with the corrected, skipped and reported items; the default logs
            them.

    Returns:
        list[dict]: one of detectron2's dataset dicts per image, in the order of the image ids, including images without
        people (detectron2's ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` and ``MIN_KEYPOINTS_PER_IMAGE`` exclude them from
        training). Each of its ``annotations`` has ``bbox`` (``BoxMode.XYWH_ABS``), ``category_id`` (0-based),
        ``keypoints`` (3K numbers; x and y in continuous pixels, which is COCO's index + 0.5, as in ``load_coco_json``;
        visibility 0 throughout if the file has none), ``iscrowd`` and ``area`` (square pixels); boxes and areas are
        corrected by the rules of :mod:`dynpose.data.rules`. Crowds and people without labelled keypoints also have the
        ``segmentation`` of the file, as in ``load_coco_json``, for ``INPUT.IGNORE_MASKS``; all other segmentations are
        dropped to save memory.

    Raises:
        DatasetError: the file or an image is missing, or an item does not follow the format; the message names the
            file, the item and the remedy.
    """
    json_file, image_root = expand_path(json_file), expand_path(image_root)
    selection = Selection(_as_tuple(category), _as_tuple(classes), _as_tuple(keypoints), class_name)

    def report(kind, problem, remedy):
        on_fault(Fault(json_file, kind, problem, remedy))

    with _without_garbage_collection():
        pose_file = read_pose_file(
            json_file,
            selection,
            annotated=annotated,
            class_of=class_of,
            num_keypoints=num_keypoints,
            on_fault=on_fault,
        )
        remarks = pose_file.remarks
        with_slashes: list[str] = []
        records = [_read_image(pose_file, i, image_root, with_slashes, report) for i in range(len(pose_file.image_ids))]
        remarks.add("backslashes", with_slashes)
        _check_image_files(records, image_root, report)
        if pose_file.people is not None:
            _add_people(records, pose_file.people)
        records = [record for record in records if record is not None]
        # As in load_coco_json, so that the order does not depend on how the file was written
        records.sort(key=lambda record: (isinstance(record["image_id"], str), record["image_id"]))
    if on_remarks is None:
        _log_once(logging.INFO, json_file, _describe(pose_file, len(records)))
        log_remarks(json_file, remarks)
    else:
        on_remarks(remarks)
    return records


def read_pose_file(
    json_file: str,
    selection: Selection = WHOLE_FILE,
    *,
    annotated: bool | None = True,
    class_of: dict[int, int] | None = None,
    num_keypoints: int | None = None,
    on_fault: Callable[[Fault], None] = raise_fault,
) -> PoseFile:
    """Read the images and annotations of a COCO-format file, without the image folder.

    Args:
        json_file (str): path of the file.
        selection (Selection): the categories and keypoints to read.
        annotated (bool): False = only ``"images"`` is read. True = a file without annotations is a fault; None = such a
            file is read as a list of images.
        class_of (dict[int, int]): category id -> class; used with ``num_keypoints`` instead of ``selection``, for a
            data set whose metadata define its classes. The file then needs no categories. {} = those of the file, in
            the order of their ids.
        num_keypoints (int): K, with ``class_of``.
        on_fault (Callable[[Fault], None]): called with every faulty item, which is then skipped; the default raises at
            the first one.

    Returns:
        PoseFile: independent of ``on_fault`` if there is no fault. It is cached, and read again if the file changes.

    Raises:
        DatasetError: the file is missing or not in COCO's format, or lacks the selected categories.
    """
    arguments = repr((selection, annotated is False, class_of, num_keypoints))
    key = json.dumps([_reader_version(), os.path.abspath(json_file), arguments])
    stamp = file_stamp(json_file)
    pose_file = _cached(key, stamp, json_file)
    if pose_file is not None and (pose_file.people is not None or annotated is not True):
        return pose_file
    num_faults = 0

    def report(kind, problem, remedy):
        nonlocal num_faults
        num_faults += 1
        on_fault(Fault(json_file, kind, problem, remedy))

    with _without_garbage_collection():
        pose_file = _parse_pose_file(json_file, selection, annotated, class_of, num_keypoints, report)
    if stamp is not None and not num_faults:
        store_arrays("annotations", key, {"stamp": np.array(stamp), **_to_arrays(pose_file)})
    return pose_file


def _cached(key, stamp, json_file):
    """The cached content of the same file; None if there is no valid entry."""
    arrays = load_arrays("annotations", key) if stamp is not None else None
    if arrays is None:
        return None
    try:
        return _from_arrays(json_file, arrays) if arrays["stamp"].tolist() == stamp else None
    except Exception as error:  # a corrupt entry may raise any exception
        logger.info("%s: read again, since the cache entry is corrupt (%s)", json_file, type(error).__name__)
        return None


@functools.cache
def _reader_version():
    """Hash of the reader's code: an entry cached by another version is not used."""
    digest = hashlib.sha256()
    for name in ("coco_json", "people", "rules", "categories", "ignored_regions"):
        digest.update(resources.files(__package__).joinpath(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _parse_pose_file(json_file, selection, annotated, class_of, num_keypoints, report):
    required = ["images"]
    if annotated:
        required += ["annotations"] + ([] if class_of is not None else ["categories"])
    data = read_coco_json(json_file, required=required)
    remarks = Remarks()
    image_index, pose_file = _read_images(data["images"], json_file, remarks, report)
    has_annotations = annotated or (annotated is None and data.get("annotations"))
    if class_of is None:
        if not has_annotations:
            return pose_file
        classes = pose_file.classes = select_classes(data, json_file, selection)
        pose_file.class_of = {category_id: i for i, item in enumerate(classes) for category_id in item.category_ids}
        num_keypoints = len(classes[0].keypoints)
        categories = {key: item["name"] for key, item in categories_by_id(data, json_file).items()}
    else:
        categories = _lenient_categories(data)
        pose_file.class_of = class_of or {category_id: i for i, category_id in enumerate(sorted(categories))}
        if not has_annotations:
            return pose_file
        if not pose_file.class_of:
            raise Fault(
                json_file, "categories", "it has no categories",
                "add them, or set thing_dataset_id_to_contiguous_id in the metadata of the data set",
            ).error()  # fmt: skip
    pose_file.people = read_people(
        data["annotations"],
        image_index,
        pose_file.sizes,
        pose_file.class_of,
        categories,
        num_keypoints,
        report,
        remarks,
    )
    return pose_file


def _lenient_categories(data):
    """id -> name of the categories of a file, for a reader that needs their ids only."""
    found = {}
    for item in data.get("categories") or ():
        category_id = whole_number(item.get("id")) if isinstance(item, dict) else None
        if category_id is not None:
            found[category_id] = str(item.get("name", category_id))
    return found


def read_coco_json(json_file: str, required: Sequence[str] = ("images", "annotations", "categories")) -> dict[str, Any]:
    """Parse a COCO-format file, in UTF-8, with or without a byte-order mark, UTF-16 or UTF-32.

    Args:
        json_file (str): its path; ``~`` is the user's home.
        required (Sequence[str]): required keys, each with a list of dicts.

    Returns:
        dict: its content.

    Raises:
        DatasetError: the file is missing, not JSON, or not in COCO's format.
    """
    try:
        with PathManager.open(expand_path(json_file), "rb") as f:
            content = f.read()
    except FileNotFoundError:
        raise _fault(json_file, "the file does not exist", "correct its path, or download the annotation") from None
    except OSError as error:
        raise _fault(json_file, f"the file cannot be read ({error})", "check its permissions and the disk") from error
    data = _parse_json(content, json_file)
    _refuse_repeated_keys(content, json_file)
    for key in required:
        listed = data.get(key) if isinstance(data, dict) else None
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise _fault(
                json_file,
                f"the file is not in COCO's format: it has no list {key!r} of objects",
                f"see https://cocodataset.org/#format-data; {_CONVERT}",
            )
    _refuse_repeated_item_keys(content, {key: data[key] for key in required}, json_file)
    return data


def _parse_json(content, json_file):
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        pass  # not UTF-8, a NaN, or not JSON: the standard library reads more, and has better error messages
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; deeply nested brackets
        remedy = f"it may be cut off: copy it again; {_CONVERT}"
        raise _fault(json_file, f"the file is not valid JSON ({error})", remedy) from error


def _refuse_repeated_keys(content, json_file):
    key = repeated_key(content)
    if key is not None:
        raise _fault(
            json_file,
            f"the file has the key {short(key)} more than once, of which only the last would be read",
            "join their contents under one key",
        )


# The keys of images, annotations and categories that are read
_ITEM_KEYS = (
    *("id", "file_name", "width", "height", "crowdIndex", "image_id", "category_id", "bbox", "keypoints"),
    *("num_keypoints", "area", "iscrowd", "ignore", "segmentation", "name", "skeleton"),
)


def _refuse_repeated_item_keys(content, lists, json_file):
    found = repeated_item_key(content, lists, _ITEM_KEYS)
    if found is not None:
        name, index, key = found
        raise _fault(
            json_file,
            f"{name}[{index}] has the key {key!r} more than once, of which only the last would be read",
            "keep the intended one",
        )


def expand_path(path: Path | str) -> str:
    """Convert a path to a string and expand a leading ``~`` to the user's home."""
    path = os.fspath(path)
    return os.path.expanduser(path) if path.startswith("~") else path


def log_remarks(source: str, remarks: Remarks) -> None:
    """Log corrected and skipped items as warnings, and reported ones as information, once for each file and content."""
    for level, decisions in ((logging.WARNING, ("corrected", "skipped")), (logging.INFO, ("reported",))):
        for line in remarks.of(*decisions):
            _log_once(level, source, line)


def _describe(pose_file, num_images):
    people = pose_file.people
    if people is None:
        return f"{num_images} images"
    labelled = int((people.keypoints[..., 2] > 0).any(axis=1).sum())
    crowds = int(people.iscrowd.sum())
    classes = ", ".join(item.name for item in pose_file.classes[:5]) + (", ..." if pose_file.classes[5:] else "")
    counts = f"{len(people)} annotations of {classes}: {labelled} with labelled keypoints, {crowds} crowds"
    return f"{num_images} images, {counts}"


def _log_once(level, source, line):
    if (source, line) not in _logged:
        _logged.add((source, line))
        logger.log(level, "%s: %s", source, line)


def forget_logged() -> None:
    """Let this process repeat its messages about data sets, for a new run with a separate log."""
    _logged.clear()


# Messages already logged: a run reads a data set several times
_logged: set[tuple[str, str]] = set()


def _read_images(images, json_file, remarks, report):
    """Image id -> index for images with a unique id, and a PoseFile without people."""
    image_index, ids, file_names, sizes, size_faults, crowd_indices = {}, [], [], [], {}, []
    for image in images:
        image_id = image.get("id")
        if type(image_id) is not int and not isinstance(image_id, str):
            image_id = whole_number(image_id)
        if image_id is None:
            report("image ids", f"image {short(image.get('file_name'))} has no 'id'", "give it a unique number")
            continue
        if image_id in image_index:
            report("image ids", f"image id {image_id!r} occurs more than once", "give each image its own id")
            continue
        image_index[image_id] = len(ids)
        ids.append(image_id)
        file_names.append(image.get("file_name"))
        sizes.append([_size(image.get(key)) for key in ("width", "height")])
        if sizes[-1][0] != sizes[-1][0] or sizes[-1][1] != sizes[-1][1]:
            key = "height" if sizes[-1][1] != sizes[-1][1] else "width"
            size_faults[len(sizes) - 1] = f"{key} is {short(image.get(key))}"
        crowd_indices.append(image.get("crowdIndex"))
    names = [name for name in file_names if isinstance(name, str)]
    if len(set(names)) < len(names):
        seen = set()
        remarks.add("images twice", [name for name in names if name in seen or seen.add(name)])
    remarks.totals["images"] = len(images)
    sizes = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    return image_index, PoseFile(json_file, ids, file_names, sizes, size_faults, crowd_indices, [], {}, None, remarks)


def _size(value):
    """A side in pixels; NaN if it is invalid."""
    value = whole_number(value)
    return value if value is not None and 0 < value <= MAX_COORDINATE else np.nan


def _read_image(pose_file, index, image_root, with_slashes, report):
    """The dataset dict of an image, without people; None if it is faulty."""
    image_id, file_name = pose_file.image_ids[index], pose_file.file_names[index]
    if not isinstance(file_name, str) or not file_name:
        return report("file names", f"image {short(image_id)} has no 'file_name'", "add it, relative to image_root")
    path = os.path.join(image_root, file_name)
    if "\\" in file_name and os.sep == "/" and not os.path.exists(path):  # Windows wrote the file
        file_name = file_name.replace("\\", "/")
        path = os.path.join(image_root, file_name)
        with_slashes.append(file_name)
    if not _PLAIN.fullmatch(file_name) and (
        _UNPRINTABLE.search(file_name) or "://" in file_name or not _is_inside(path, image_root)
    ):
        return report(
            "file names",
            f"image {short(image_id)}: file_name {short(file_name)} is not a path inside the image folder",
            f"write it relative to image_root ({image_root}), without '..', or give the folder that holds all images",
        )
    if index in pose_file.size_faults:
        problem = f"image {short(image_id)}: {pose_file.size_faults[index]}"
        return report("image sizes", problem, "write the image's size in whole pixels")
    width, height = pose_file.sizes[index].tolist()
    if height * width > _MAX_PIXELS:
        return report(
            "image sizes",
            f"image {short(image_id)}: {width:.0f} x {height:.0f} pixels are more than an image can have",
            "correct width and height",
        )
    return {"file_name": path, "height": int(height), "width": int(width), "image_id": image_id, "annotations": []}


def _is_inside(path, folder):
    """Whether a path lies inside a folder, without resolving links."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([path, folder]) == folder and path != folder


def _check_image_files(records, image_root, report):
    """Check that images exist, are files, and lie inside the folder after resolving links; others become None.

    Each folder is listed once: 100,000 single look-ups take minutes on a network disk.
    """
    if "://" in image_root:
        return  # not a disk: only reading shows whether an image exists
    by_folder = defaultdict(list)
    for i, record in enumerate(records):
        if record is not None:
            folder, base = os.path.split(record["file_name"])
            by_folder[folder].append((i, base))
    real_root = os.path.realpath(image_root)
    missing = []
    for folder, indices in by_folder.items():
        files = _list_files(folder or ".", real_root)
        for i, base in indices:
            is_inside = files.get(base)
            if is_inside is None:
                missing.append(i)
            elif not is_inside:
                name = records[i]["file_name"]
                report(
                    "file names",
                    f"image {short(records[i]['image_id'])}: {name} is a link that leads out of the image folder",
                    f"put the image itself into image_root ({image_root}), or set that to a folder that contains all",
                )
                records[i] = None
    if missing:
        names = [records[i]["file_name"] for i in missing]
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        report(
            "missing images",
            f"{len(missing)} of its {len(records)} images are missing: {first}",
            f"correct the image folder, {image_root}{_better_root(names[0], image_root)}, or take them out of the file",
        )
    for i in missing:
        records[i] = None


def _better_root(name, image_root):
    """A hint if the first missing image is one folder up, or directly in the folder under its base name."""
    relative = os.path.relpath(name, image_root)
    parent = os.path.dirname(os.path.abspath(image_root))
    if os.path.isfile(os.path.join(parent, relative)):
        return f"; the images are in {parent}"
    if os.path.isfile(os.path.join(image_root, os.path.basename(relative))):
        return "; the images are in it, without the folders of their file_name"
    return ""


def _list_files(folder, real_root):
    """Names of the files in a folder -> whether the file, links resolved, lies inside ``real_root``."""
    if not os.path.isdir(folder):
        return {}
    is_inside = _is_inside(os.path.join(os.path.realpath(folder), "any"), real_root)
    files = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # No folders, pipes or devices: reading one may block forever
            if not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
                continue
            if entry.is_symlink():
                files[entry.name] = _is_inside(os.path.realpath(entry.path), real_root)
            else:
                files[entry.name] = is_inside
    return files


def _add_people(records, people):
    """Add annotations in detectron2's format to the records of their images, in place."""
    columns = people.images, people.classes, people.iscrowd.astype(np.int64), people.boxes, people.areas
    rows = zip(*(column.tolist() for column in columns), _continuous_lists(people.keypoints))
    for i, (image, category, iscrowd, bbox, area, keypoints) in enumerate(rows):
        if records[image] is None:
            continue
        person = {
            "iscrowd": iscrowd,
            "bbox": bbox,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": category,
            "keypoints": keypoints,
            "area": area,
        }
        if i in people.segmentations:
            person["segmentation"] = people.segmentations[i]
        records[image]["annotations"].append(person)


def _continuous_lists(keypoints):
    """A list of 3K numbers for each of (M, K, 3) keypoints: x and y in continuous pixels, visibility as an int."""
    size = 3 * keypoints.shape[1]
    nothing = [0.5, 0.5, 0] * keypoints.shape[1]
    for start in range(0, len(keypoints), _CHUNK):
        chunk = keypoints[start : start + _CHUNK]
        written = chunk.any(axis=(1, 2))
        continuous = iter((chunk[written] + HALF_A_PIXEL).reshape(-1, size).tolist())
        visibility = iter(chunk[written][..., 2].astype(np.int64).tolist())
        for has_keypoints in written.tolist():
            if not has_keypoints:
                yield nothing.copy()
                continue
            numbers = next(continuous)
            numbers[2::3] = next(visibility)
            yield numbers


def _to_arrays(pose_file):
    """The cached form of a file: numbers as arrays, everything else as JSON in bytes."""
    people, remarks = pose_file.people, pose_file.remarks
    others = {
        "image_ids": pose_file.image_ids,
        "file_names": pose_file.file_names,
        "size_faults": list(pose_file.size_faults.items()),
        "class_of": list(pose_file.class_of.items()),
        "remarks": [remarks.counts, remarks.examples, remarks.totals],
    }
    # unchanged from the file, including NaN, which msgspec would write as null
    as_written = {"crowd_indices": pose_file.crowd_indices, "classes": [asdict(item) for item in pose_file.classes]}
    arrays = {"sizes": pose_file.sizes, "as_written": np.frombuffer(json.dumps(as_written).encode(), np.uint8)}
    if people is not None:
        others |= {"names": people.names, "segmentations": [_as_text(item) for item in people.segmentations.items()]}
        for name in _COLUMNS:
            arrays[name] = getattr(people, name)
    return {**arrays, "others": np.frombuffer(_dump_json(others), np.uint8)}


_COLUMNS = ("rows", "images", "classes", "iscrowd", "boxes", "areas", "keypoints")


def _from_arrays(json_file, arrays):
    with _without_garbage_collection():
        others = _parse_json(arrays["others"].tobytes(), json_file)
    as_written = json.loads(arrays["as_written"].tobytes())
    remarks = Remarks()
    remarks.counts, remarks.examples, remarks.totals = others["remarks"]
    people = None
    if "names" in others:
        columns = {name: arrays[name] for name in _COLUMNS}
        people = People(others["names"], **columns, segmentations=dict(map(_from_text, others["segmentations"])))
    return PoseFile(
        json_file=json_file,
        image_ids=others["image_ids"],
        file_names=others["file_names"],
        sizes=arrays["sizes"],
        size_faults=dict(others["size_faults"]),
        crowd_indices=as_written["crowd_indices"],
        classes=[
            PoseClass(item["name"], tuple(item["category_ids"]), tuple(item["keypoints"]), item["category"])
            for item in as_written["classes"]
        ],
        class_of=dict(others["class_of"]),
        people=people,
        remarks=remarks,
    )


def _dump_json(value):
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):  # numbers and characters outside standard JSON
        return json.dumps(value).encode()


def _as_text(item):
    """The index and the segmentation of an annotation in JSON types, and whether an RLE's counts are bytes."""
    index, segmentation = item
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        return [index, {**segmentation, "counts": segmentation["counts"].decode("ascii")}, True]
    return [index, segmentation, False]


def _from_text(item):
    index, segmentation, is_bytes = item
    if is_bytes:
        segmentation["counts"] = segmentation["counts"].encode("ascii")
    return index, segmentation


def file_stamp(json_file: str) -> list[int] | None:
    """Values that change when a file is written or replaced; None if it is not on a disk.

    Args:
        json_file (str): a path.
    """
    try:
        status = os.stat(json_file)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


@contextlib.contextmanager
def _without_garbage_collection():
    """Pause garbage collection: repeated scans of millions of new objects would take most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            # Move all objects to the oldest generation: young ones would soon be scanned twice. Not if the program has
            # frozen objects, as this would unfreeze them.
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _fault(json_file, problem, remedy):
    return Fault(json_file, "file", problem, remedy).error()
