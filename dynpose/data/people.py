"""The shared annotation reader of training, evaluation and ``dynpose check-data``.

Axes: M annotations, K keypoints, I images. Keypoints are (M, K, 3) x, y, visibility in COCO's pixel indices, boxes
(M, 4) x, y, width, height in continuous pixels, as in the file.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from .faults import short
from .ignored_regions import read_segmentation, segmentation_area
from .rules import (
    MIN_EXTENT,
    Remarks,
    boxes_from_keypoints,
    implausible_areas,
    leaves_image,
    less_than_a_pixel,
    outside_image,
)

__all__ = ["People", "read_people", "whole_number"]

# Maximum absolute coordinate of boxes and keypoints, pixels; float32 still resolves single pixels there.
MAX_COORDINATE = 2.0**24
# From COCO's index of a pixel to its centre, as in load_coco_json
HALF_A_PIXEL = np.array([0.5, 0.5, 0.0])
_CHUNK = 4096
# Minimum number of labelled keypoints and of boxes for a fault of the whole file
_MIN_POINTS, _MIN_BOXES = 3, 2
# COCO-WholeBody's 133 keypoints: the fields of an annotation in order, with the number of keypoints in each
_SPLIT_FIELDS = (
    ("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21),
)  # fmt: skip
_NUM_SPLIT = sum(number for _, number in _SPLIT_FIELDS)
_KEYPOINTS_REMEDY = "write x, y, visibility for each, three zeros where a keypoint is not labelled"


@dataclass
class People:
    """The annotations of a file, read and corrected.

    Attributes:
        names (list[str]): (M,) name of each annotation in messages.
        rows (ndarray): (M,) its index in the original list.
        images (ndarray): (M,) index of its image.
        classes (ndarray): (M,) index of its class.
        iscrowd (ndarray): (M,) bool.
        boxes (ndarray): (M, 4).
        areas (ndarray): (M,) square pixels.
        keypoints (ndarray): (M, K, 3).
        segmentations (dict[int, list | dict]): annotation -> segmentation, for crowds and people without labelled
            keypoints.
    """

    names: list[str]
    rows: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    iscrowd: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    keypoints: np.ndarray
    segmentations: dict[int, list[list[float]] | dict[str, Any]] = field(default_factory=dict)

    def __len__(self):
        return len(self.images)

    def select(self, chosen: np.ndarray) -> "People":
        """Select annotations by a (M,) bool mask."""
        if chosen.all():
            return self
        new_index = np.cumsum(chosen) - 1
        return People(
            names=[name for name, keep in zip(self.names, chosen) if keep],
            rows=self.rows[chosen],
            images=self.images[chosen],
            classes=self.classes[chosen],
            iscrowd=self.iscrowd[chosen],
            boxes=self.boxes[chosen],
            areas=self.areas[chosen],
            keypoints=self.keypoints[chosen],
            segmentations={int(new_index[i]): value for i, value in self.segmentations.items() if chosen[i]},
        )

    def continuous_keypoints(self) -> np.ndarray:
        """(M, K, 3) keypoints in continuous pixels: COCO's index of a pixel + 0.5 is its centre."""
        return self.keypoints + HALF_A_PIXEL


def read_people(
    annotations: list[dict[str, Any]],
    image_index: dict[int | str, int],
    sizes: np.ndarray,
    class_of: dict[int, int],
    categories: dict[int, str],
    num_keypoints: int,
    report: Callable[[str, str, str], None],
    remarks: Remarks,
    *,
    keypoint_offset: float = 0.0,
) -> People:
    """Read the ``"annotations"`` of a COCO-format file.

    Args:
        annotations (list[dict]): as in the file. The list is emptied to free memory: it is several times as large as
            the result.
        image_index (dict[int | str, int]): image id -> index of the image.
        sizes (ndarray): (I, 2) width and height of the images, pixels; NaN if unknown.
        class_of (dict[int, int]): category id -> class; annotations of other known categories are skipped.
        categories (dict[int, str]): id -> name of all categories of the file.
        num_keypoints (int): K.
        report (Callable[[str, str, str], None]): called with kind, problem and remedy of every faulty annotation, which
            is then skipped.
        remarks (Remarks): counts corrected, skipped and reported items.
        keypoint_offset (float): offset subtracted from x and y to get COCO's pixel indices.

    Returns:
        People
    """
    kept, people = _find_images_and_classes(annotations, image_index, class_of, categories, report, remarks)
    remarks.totals["annotations"] = remarks.totals.get("annotations", 0) + len(annotations)
    people.keypoints, has_keypoints = _read_keypoints(kept, num_keypoints, people.names, report, remarks)
    people.keypoints[..., :2] -= keypoint_offset
    people.boxes, has_sound_box = _read_boxes(kept, people.names, report)
    people.areas = np.array([_number(annotation.get("area")) for annotation in kept])
    sound = has_keypoints & has_sound_box
    if not sound.all():
        kept = [annotation for annotation, keep in zip(kept, sound) if keep]
        people = people.select(sound)
    _remark_num_keypoints(kept, people, remarks)
    segmentations = _needed_segmentations(kept, people)
    kept.clear()
    annotations.clear()
    _check_units(people, sizes, report)
    people, chosen = _correct(people, sizes, segmentations.__getitem__, remarks)
    segmentations = [segmentation for segmentation, keep in zip(segmentations, chosen) if keep]
    return _read_segmentations(segmentations, people, sizes, report)


def _needed_segmentations(kept, people):
    """Segmentations as in the file, but None for people whose box and area are valid.

    They are the largest part of a file, and are released before the rest is processed.
    """
    labelled = (people.keypoints[..., 2] > 0).any(axis=1)
    with np.errstate(invalid="ignore"):
        is_sound = (people.areas > 1) & (people.areas <= people.boxes[:, 2] * people.boxes[:, 3])
    needed = ~(labelled & ~people.iscrowd & is_sound)
    return [annotation.get("segmentation") if need else None for annotation, need in zip(kept, needed.tolist())]


def _correct(people, sizes, segmentation_of, remarks):
    """Apply the rules of :mod:`dynpose.data.rules` to boxes and areas, and count the remarks.

    Args:
        people (People): as in the file; a box or an area of NaN is missing.
        sizes (ndarray): (I, 2) width and height of the images.
        segmentation_of (Callable[[int], object]): the segmentation of annotation i, as in the file.
        remarks (Remarks): counts.

    Returns:
        tuple[People, ndarray]: the remaining people, with boxes and areas; and their (M,) bool mask.
    """
    sizes = sizes[people.images]
    labelled = (people.keypoints[..., 2] > 0).any(axis=1)
    missing = np.isnan(people.boxes).any(axis=1)
    with np.errstate(invalid="ignore"):
        is_flat = (people.boxes[:, 2:] < MIN_EXTENT).any(axis=1)
    is_replaced = labelled & (missing | is_flat)
    if is_replaced.any():
        keypoints = people.select(is_replaced).continuous_keypoints()
        people.boxes[is_replaced] = boxes_from_keypoints(keypoints, sizes[is_replaced])
    remarks.add("box", _names(people, is_replaced))
    for i in np.flatnonzero((missing | is_flat) & ~labelled):
        box = _segmentation_box(segmentation_of(i), sizes[i])
        if box is not None and (box[2:] >= MIN_EXTENT).all():
            people.boxes[i], missing[i] = box, False
            remarks.add("box from segmentation", [people.names[i]])
    chosen = ~missing | labelled
    remarks.add("nothing annotated", _names(people, ~chosen))
    people.areas = _correct_areas(people, ~is_replaced, sizes, segmentation_of, remarks)
    people = people.select(chosen)
    _remark(people, sizes[chosen], remarks)
    return people, chosen


def _correct_areas(people, has_own_box, sizes, segmentation_of, remarks):
    """(M,) areas: as in the file if plausible, else those of the segmentation or the box."""
    areas, boxes = people.areas.copy(), people.boxes
    missing = np.isnan(areas)
    implausible = implausible_areas(areas, boxes, has_own_box, sizes)
    for i in np.flatnonzero(missing | implausible):
        area = segmentation_area(segmentation_of(i), *sizes[i, ::-1])
        if implausible[i] and area is not None and areas[i] >= 0 and _agree(areas[i], area):
            implausible[i] = False
            continue
        areas[i] = boxes[i, 2] * boxes[i, 3] if area is None else area
    remarks.add("missing area", _names(people, missing))
    remarks.add("implausible area", _names(people, implausible))
    return areas


def _agree(area, other):
    """Whether two areas agree: rasterised and exact outlines of a small region differ by a pixel or by half."""
    return abs(area - other) <= 1 or other / 2 <= area <= other * 2


def _remark(people, sizes, remarks):
    """Count oddities, chunk by chunk: the intermediate arrays are several times as large as the keypoints."""
    found, seen = defaultdict(list), set()
    for start in range(0, len(people), _CHUNK):
        part = slice(start, start + _CHUNK)
        keypoints, labelled = people.keypoints[part], people.keypoints[part, :, 2] > 0
        oddities = _oddities(keypoints, labelled, people.boxes[part], people.iscrowd[part], sizes[part])
        oddities["annotated twice"] = _repeated(people, part, labelled, seen)
        for rule, mask in oddities.items():
            found[rule].append(mask)
    for rule, masks in found.items():
        remarks.add(rule, _names(people, np.concatenate(masks)))


def _oddities(keypoints, labelled, boxes, iscrowd, sizes):
    """Rule -> (M,) bool for keypoints in COCO's pixel indices, of which only those of ``labelled`` (M, K) count."""
    continuous = keypoints + HALF_A_PIXEL
    points, low, extent = continuous[..., :2], boxes[:, None, :2], boxes[:, None, 2:]
    far = ((points < low - extent) | (points > low + 2 * extent)).any(axis=2)
    first = np.where(labelled[..., None], points, np.inf).min(axis=1)
    from_origin = (boxes[:, :2] == 0).all(axis=1) & labelled.any(axis=1)
    return {
        "outside the image": (labelled & outside_image(continuous, sizes)).any(axis=1),
        "far from the box": (far & labelled).any(axis=1),
        "not labelled": ~labelled.any(axis=1) & ~iscrowd,
        "less than a pixel": less_than_a_pixel(boxes, sizes),
        "leaves the image": leaves_image(boxes, sizes),
        "box from (0, 0)": from_origin & (first > boxes[:, 2:] / 4).all(axis=1),
        "point at (0, 0)": ((keypoints[..., :2] == 0).all(axis=2) & labelled).any(axis=1),
    }


def _repeated(people, part, labelled, seen):
    """(M,) bool: annotations of a slice with the same labelled keypoints as an earlier one of the same image.

    ``seen`` holds the hashes of earlier annotations; those of the slice are added.
    """
    written = np.where(labelled[..., None], people.keypoints[part], 0)
    images, repeated = people.images[part].tolist(), np.zeros(len(labelled), dtype=bool)
    for i in np.flatnonzero(labelled.any(axis=1) & ~people.iscrowd[part]).tolist():
        key = hash((images[i], written[i].tobytes()))
        repeated[i] = key in seen
        seen.add(key)
    return repeated


def _names(people, mask):
    return [people.names[i] for i in np.flatnonzero(mask)]


def _find_images_and_classes(annotations, image_index, class_of, categories, report, remarks):
    """The annotations of known images and selected categories, and People with the columns read so far."""
    kept, names, rows, images, classes, iscrowd = [], [], [], [], [], []
    seen, renumbered, skipped, assumed = set(), [], [], []
    only_category = next(iter(class_of)) if len(class_of) == 1 and len(categories) <= 1 else None
    for row, annotation in enumerate(annotations):
        get = annotation.get
        annotation_id, image_id, category_id = get("id"), get("image_id"), get("category_id")
        name = f"annotation {annotation_id}" if type(annotation_id) is int else f"annotation {short(annotation_id)}"
        if (type(annotation_id) is not int and not _is_key(annotation_id)) or annotation_id in seen:
            renumbered.append(name)
        else:
            seen.add(annotation_id)
        if (type(image_id) is not int and not _is_key(image_id)) or image_id not in image_index:
            report("unknown images", f"{name} is of image {short(image_id)}, which is not in 'images'"
                   + _other_type(image_id, image_index), "add the image or take the annotation out")  # fmt: skip
            continue
        if category_id is None and only_category is not None:
            category_id = only_category
            assumed.append(name)
        known = type(category_id) is int or _is_key(category_id)
        if not known or (category_id not in class_of and category_id not in categories):
            _report_category(name, category_id, categories, report)
            continue
        if category_id not in class_of:
            skipped.append(categories[category_id])
            continue
        crowd = get("iscrowd")
        if crowd is not None and crowd != 0 and (crowd != 1 or not isinstance(crowd, (int, float))):
            report("crowds", f"{name}: iscrowd is {short(crowd)}", "write 0 or 1")
            continue
        kept.append(annotation)
        names.append(name)
        rows.append(row)
        images.append(image_index[image_id])
        classes.append(class_of[category_id])
        iscrowd.append(bool(crowd))
    remarks.add("annotation ids", renumbered)
    remarks.add("missing category", assumed)
    remarks.add("other categories", skipped)
    columns = [np.array(column, dtype=np.int64) for column in (rows, images, classes)]
    return kept, People(names, *columns, np.array(iscrowd, dtype=bool), boxes=None, areas=None, keypoints=None)


def _other_type(image_id, image_index):
    """The usual reason for an unknown image: one of the two ids is a number, the other a string."""
    try:
        other = int(image_id) if isinstance(image_id, str) else str(image_id)
    except ValueError:
        return ""
    return f" (but {other!r} is: write both as a number or both as text)" if other in image_index else ""


def _report_category(name, category_id, categories, report):
    known = ", ".join(f"{key} {value!r}" for key, value in list(categories.items())[:5])
    if category_id is None:
        return report(
            "unknown categories",
            f"{name} has no 'category_id', and the file has {len(categories)} categories ({known})",
            "add it",
        )
    return report(
        "unknown categories",
        f"{name} is of category {short(category_id)}, which is not in 'categories' ({known})",
        "add the category with its keypoints, or write the id of an existing one",
    )


def _read_keypoints(kept, num_keypoints, names, report, remarks):
    """(M, K, 3) keypoints, and the (M,) bool mask of those without a fault."""
    raw = _raw_keypoints(kept, num_keypoints, names, remarks)
    size = 3 * num_keypoints
    empty = [0] * size
    values, sound = np.zeros((len(raw), size)), np.ones(len(raw), dtype=bool)
    alone, holes = [], []
    for start in range(0, len(raw), _CHUNK):
        rows = [row or empty if type(row) is list or row is None else row for row in raw[start : start + _CHUNK]]
        chunk = _number_rows(rows, size)
        if chunk is not None and _are_keypoints(chunk).all():
            values[start : start + len(rows)] = chunk
            continue
        for i, row in enumerate(rows, start):
            try:
                values[i], how = _read_row(row, num_keypoints)
            except ValueError as error:
                sound[i] = False
                report("keypoints", f"{names[i]}: {error}", _KEYPOINTS_REMEDY)
                continue
            if how == "x and y alone":
                alone.append(names[i])
            elif how == "missing coordinates":
                holes.append(names[i])
    remarks.add("x and y alone", alone)
    remarks.add("missing coordinates", holes)
    return values.reshape(-1, num_keypoints, 3), sound


def _raw_keypoints(kept, num_keypoints, names, remarks):
    """Each annotation's keypoints as in the file; those of COCO-WholeBody from its five fields, if K is 133."""
    raw = [annotation.get("keypoints") for annotation in kept]
    split = [i for i, annotation in enumerate(kept) if any(key in annotation for key, _ in _SPLIT_FIELDS[1:])]
    if num_keypoints != _NUM_SPLIT:
        remarks.add("unread fields", [names[i] for i in split])
        return raw
    joined = [i for i in split if isinstance(raw[i], (list, type(None))) and len(raw[i] or ()) < 3 * _NUM_SPLIT]
    for i in joined:
        raw[i] = _join_fields(kept[i])
    remarks.add("split fields", [names[i] for i in joined])
    return raw


def _join_fields(annotation):
    joined = []
    for key, number in _SPLIT_FIELDS:
        value = annotation.get(key) or [0] * (3 * number)
        if not isinstance(value, list) or len(value) != 3 * number:
            return value  # the fault reports its length
        joined += value
    return joined


def _number_rows(rows, size):
    """(N, size) float64 of lists of plain numbers, or None if any list has other content."""
    if not all(type(row) is list and len(row) == size for row in rows):
        return None
    try:
        array = np.asarray(rows)
    except (ValueError, OverflowError):  # lists inside
        return None
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        return None
    return array.astype(np.float64)


def _are_keypoints(rows):
    """(N,) bool: finite, within MAX_COORDINATE, with visibilities of 0, 1 and 2."""
    visibility = rows[:, 2::3]
    with np.errstate(invalid="ignore"):
        is_near = (np.abs(rows) <= MAX_COORDINATE).all(axis=1)
    return is_near & ((visibility == 0) | (visibility == 1) | (visibility == 2)).all(axis=1)


def _read_row(row, num_keypoints):
    """Read one annotation's keypoints in a variant of COCO's format.

    Returns:
        tuple[ndarray, str]: (3K,) and the rule that was applied, "" for COCO's format.

    Raises:
        ValueError: the keypoints have no unique meaning; the message describes them.
    """
    if not isinstance(row, list):
        raise ValueError(f"keypoints is {short(row)}")
    flat, how = row, ""
    if all(isinstance(point, list) for point in row) and len(row) == num_keypoints:
        sides = {len(point) for point in row}
        if sides == {2}:
            flat, how = [v for x, y in row for v in (x, y, int(not (x == 0 and y == 0)) * 2)], "x and y alone"
        elif sides == {3}:
            flat = [v for point in row for v in point]
    elif len(row) == 2 * num_keypoints and not _could_be_triples(row):
        pairs = zip(row[0::2], row[1::2])
        flat, how = [v for x, y in pairs for v in (x, y, int(not (x == 0 and y == 0)) * 2)], "x and y alone"
    if len(flat) != 3 * num_keypoints:
        raise ValueError(
            f"keypoints has {len(row)} numbers where its category's {num_keypoints} keypoints make {3 * num_keypoints}"
        )
    if any(value is None or value != value for value in flat):
        points = list(zip(flat[0::3], flat[1::3], flat[2::3]))
        flat = [v for x, y, seen in points for v in ((0, 0, 0) if _is_hole(x, y, seen) else (x, y, seen))]
        how = "missing coordinates"
    values = _number_rows([flat], len(flat))
    if values is None or not np.isfinite(values).all() or not np.isin(values[0, 2::3], (0, 1, 2)).all():
        raise ValueError("keypoints are not all numbers with a visibility of 0, 1 or 2")
    if np.abs(values).max() > MAX_COORDINATE:
        raise ValueError(f"a keypoint is at {np.abs(values).max():g}, outside any image")
    return values[0], how


def _could_be_triples(row):
    """Whether a list of 2K numbers may be x, y, visibility (or a confidence) of fewer keypoints."""
    return len(row) % 3 == 0 and all(isinstance(value, (int, float)) and 0 <= value <= 2 for value in row[2::3])


def _is_hole(x, y, visibility):
    """Whether a keypoint that is not labelled was written as null or NaN."""
    absent = [value is None or value != value for value in (x, y, visibility)]
    return all(absent[:2]) and visibility == 0


def _read_boxes(kept, names, report):
    """(M, 4) boxes, NaN if missing, and the (M,) bool mask of those without a fault."""
    raw = [annotation.get("bbox") for annotation in kept]
    boxes, sound = np.full((len(raw), 4), np.nan), np.ones(len(raw), dtype=bool)
    for start in range(0, len(raw), _CHUNK):
        rows = raw[start : start + _CHUNK]
        chunk = _number_rows(rows, 4)
        if chunk is not None and _are_boxes(chunk).all():
            boxes[start : start + len(rows)] = chunk
            continue
        for i, row in enumerate(rows, start):
            if row is None or row == []:
                continue
            box = _number_rows([row], 4)
            if box is None or not _are_boxes(box).all():
                sound[i] = False
                report(
                    "boxes",
                    f"{names[i]}: bbox is {short(row)}",
                    "write [x, y, width, height] in pixels, or omit it for a box around the keypoints",
                )
                continue
            boxes[i] = box[0]
    return boxes, sound


def _are_boxes(rows):
    with np.errstate(invalid="ignore"):
        return (np.abs(rows) <= MAX_COORDINATE).all(axis=1) & (rows[:, 2:] >= 0).all(axis=1)


def _check_units(people, sizes, report):
    """Report faults of the whole file: coordinates as fractions of the image size, or corners instead of sizes.

    All values of the file must show the fault, and a minimum number is required: a single value may be correct.
    """
    labelled = people.keypoints[..., 2] > 0
    large = not (sizes[people.images] <= 4).any()  # NaN included
    if large and labelled.sum() >= _MIN_POINTS and _are_fractions(people.keypoints[..., :2], labelled[..., None]):
        report(
            "keypoints",
            f"all {labelled.sum()} labelled keypoints lie between 0 and 1: they are fractions of the image's size",
            "multiply x by the image's width and y by its height (and boxes likewise)",
        )
        return
    boxes = people.boxes[(people.boxes[:, 2:] > 0).all(axis=1)]
    if large and len(boxes) >= _MIN_BOXES and _are_fractions(boxes):
        report(
            "boxes",
            f"all {len(boxes)} boxes lie between 0 and 1: they are fractions of the image's size",
            "multiply x and width by the image's width, y and height by its height",
        )
        return
    leaving = _boxes_that_are_corners(people, sizes)
    if leaving:
        report(
            "boxes",
            f"{leaving} of {len(boxes)} boxes leave their image if they are [x, y, width, height], and all fit if they "
            "are the corners [x1, y1, x2, y2]",
            "subtract x1 and y1 from the last two",
        )


def _are_fractions(values, chosen=True):
    """Whether all chosen values lie between 0 and 1, not all of them whole numbers."""
    if values.max(where=chosen, initial=-np.inf) > 1 or values.min(where=chosen, initial=np.inf) < 0:
        return False
    return bool(((values != np.round(values)) & chosen).any())


def _boxes_that_are_corners(people, sizes):
    """Number of boxes that leave the image as written, if all of them are plausible as two corners; else 0.

    This requires that the second corner of every box lies beyond the first, within the image, that the corners enclose
    the labelled keypoints, and that half of the boxes exceed the image by more than a tenth of its side.
    """
    has_box = (people.boxes[:, 2:] > 0).all(axis=1)
    if has_box.sum() < _MIN_BOXES:
        return 0
    boxes, sizes = people.boxes[has_box], sizes[people.images[has_box]]
    first, second = boxes[:, :2], boxes[:, 2:]
    if not ((second > first) & (second <= sizes + 1)).all():
        return 0
    keypoints = people.keypoints[has_box]
    labelled = keypoints[..., 2] > 0
    around = (keypoints[..., :2] >= first[:, None] - 2) & (keypoints[..., :2] <= second[:, None] + 2)
    if not around.all(axis=2)[labelled].all():
        return 0
    leaving = (first + second > sizes * 1.1).any(axis=1).sum()
    return int(leaving) if 2 * leaving >= len(boxes) else 0


def _remark_num_keypoints(kept, people, remarks):
    """Compare ``num_keypoints`` with the labelled keypoints; COCO-WholeBody counts those of the body alone."""
    labelled = people.keypoints[..., 2] > 0
    body = _SPLIT_FIELDS[0][1]
    numbers, of_body = labelled.sum(axis=1).tolist(), labelled[:, :body].sum(axis=1).tolist()
    differing = [
        people.names[i]
        for i, annotation in enumerate(kept)
        if (written := annotation.get("num_keypoints")) is not None
        and written != (of_body[i] if "foot_kpts" in annotation else numbers[i])
    ]
    remarks.add("num_keypoints", differing)


def _read_segmentations(segmentations, people, sizes, report):
    """Read segmentations of crowds and of people without labelled keypoints; annotations with a fault are skipped."""
    ignored = people.iscrowd | ~(people.keypoints[..., 2] > 0).any(axis=1)
    sound = np.ones(len(people), dtype=bool)
    for i in np.flatnonzero(ignored).tolist():
        width, height = sizes[people.images[i]]
        if np.isnan(width):
            continue
        try:
            segmentation = read_segmentation(segmentations[i], int(height), int(width))
        except ValueError as error:
            sound[i] = False
            report(
                "segmentations",
                f"{people.names[i]}: segmentation {error}",
                "write polygons [[x, y, x, y, ...], ...] or an RLE of the image's size, or take it out",
            )
            continue
        if segmentation is not None:
            people.segmentations[i] = segmentation
    return people.select(sound)


def _segmentation_box(segmentation, size):
    """x, y, width, height of polygons or an RLE; None if they are invalid."""
    if np.isnan(size).any():
        return None
    try:
        segmentation = read_segmentation(segmentation, int(size[1]), int(size[0]))
    except ValueError:
        return None
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return np.asarray(mask_util.toBbox(segmentation), dtype=np.float64)
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low])


def whole_number(value: Any) -> int | None:
    """Convert an int, or a float such as 7.0, to int; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_key(value):
    """Whether a value can be looked up among ids; 7.0 matches 7."""
    return isinstance(value, str) or whole_number(value) is not None


def _number(value):
    """A finite float, or NaN for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 2**63:
        return np.nan
    return float(value)
