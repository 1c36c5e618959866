"""Label Studio's JSON export: tasks with regions in percent of the image's size, joined by ``parentID`` or relations.

A person is a rectangle with the keypoints inside it in the tool's outliner, or keypoints that relations join. A
keypoint is occluded if a choice for its region says so. Label Studio's own COCO export merges the people of an image.
"""

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..faults import Fault, short
from ..image_files import image_endings
from ..people import MAX_COORDINATE
from .grouping import BoxMark, MarkedImage, PointMark, group_people
from .images import ImageFinder, read_sizes
from .json_files import load_json
from .project import CORNER, Notes, PoseImage, PoseProject, ReadOptions

__all__ = ["matches", "read"]

_HIDDEN = frozenset(("occluded", "hidden", "invisible", "not visible"))
_ABSENT = frozenset(("absent", "missing", "not labelled", "not labeled", "outside"))
_VISIBLE = frozenset(("visible",))
_REMEDY = "drag the keypoints of each person into its rectangle in the outliner, or join them by relations"
# Label Studio puts eight characters before the name of an uploaded file
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def matches(path: Path) -> bool:
    """Whether a file is Label Studio's JSON or JSON-MIN export."""
    tasks = _load(path)
    return tasks is not None and (_is_full(tasks) or _is_minimal(tasks))


def _load(path: Path) -> list[dict[str, Any]] | None:
    data = load_json(path)
    # a single task is exported as an object
    tasks = [data] if isinstance(data, dict) else data
    is_list = isinstance(tasks, list) and tasks and all(isinstance(task, dict) for task in tasks)
    return tasks if is_list else None


def _is_full(tasks: list[dict[str, Any]]) -> bool:
    return all(
        isinstance(task.get("data"), dict)
        and (isinstance(task.get("annotations"), list) or isinstance(task.get("completions"), list))
        for task in tasks
    )


def _is_minimal(tasks: list[dict[str, Any]]) -> bool:
    return all("annotation_id" in task and "data" not in task for task in tasks)


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read an export.

    Args:
        paths: its files.
        options: ``keypoints`` gives the order of the keypoints, which the file does not have.

    Returns:
        PoseProject: with the corner's origin. Of several annotations of a task, the ground truth is read, else the
        first that was not cancelled.

    Raises:
        DatasetError: points belong to no person, or a region is invalid, or images are missing.
    """
    notes = Notes()
    found: list[tuple[MarkedImage, list[dict[str, Any]]]] = []
    for path in paths:
        tasks = _load(path) or []
        if _is_minimal(tasks):
            problem = "it is a JSON-MIN export, which does not say which points belong together"
            raise Fault(str(path), "files", problem, "export the project as JSON").error()
        read_tasks = (_read_task(path, index, task, options, notes) for index, task in enumerate(tasks))
        found += [task for task in read_tasks if task is not None]
    notes.raise_faults()
    marked = [item for item, _ in found]
    read_sizes([item.image for item in marked], notes)
    notes.raise_faults()
    for item, results in found:
        _add_regions(item, results, notes)
    categories = group_people(marked, options, notes, remedy=_REMEDY)
    notes.raise_faults()
    return PoseProject(categories, [item.image for item in marked], CORNER, notes)


def _read_task(
    path: Path, index: int, task: dict[str, Any], options: ReadOptions, notes: Notes
) -> tuple[MarkedImage, list[dict[str, Any]]] | None:
    """The image of a task and the results of its annotation; None if it has no annotation or no image."""
    where = f"task {task.get('id', index)}"
    name = _image_name(task)
    if name is None:
        notes.fault(path, "images", f"{where}: data names no image", "export tasks with an image")
        return None
    annotations = _objects(task.get("annotations") or task.get("completions"))
    valid = [item for item in annotations if not item.get("was_cancelled")]
    valid.sort(key=lambda item: not item.get("ground_truth"))
    notes.lose("predictions", f"{path}: {where}", len(_objects(task.get("predictions"))))
    if not valid:
        notes.lose("tasks without an annotation", f"{path}: {where}")
        return None
    notes.lose("further annotations of a task", f"{path}: {where}", len(valid) - 1)
    results = _objects(valid[0].get("result"))
    file = _find_image(path, name, options, notes)
    return (MarkedImage(PoseImage(Path(name).name, file, source=path), str(path)), results)


def _objects(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _image_name(task: dict[str, Any]) -> str | None:
    """The path of a task's image, without the server."""
    names = [value for value in task["data"].values() if isinstance(value, str)]
    for value in names:
        try:
            parts = urlsplit(value)
        except ValueError:  # text such as "http://[a"
            continue
        local = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/image.png
        name = local[0] if local else unquote(parts.path)
        if Path(name).suffix.lower() in image_endings():
            return name
    return str(task["file_upload"]) if task.get("file_upload") else None


def _find_image(path: Path, name: str, options: ReadOptions, notes: Notes) -> Path | None:
    finder = ImageFinder([*options.image_dirs, path.parent, path.parent / "images"])
    original = _UPLOADED.sub("", Path(name).name)
    return finder.find(name) or finder.find(original) or finder.locate(path, name, notes)


def _add_regions(item: MarkedImage, results: list[dict[str, Any]], notes: Notes) -> None:
    """Add the points and boxes of an annotation. Several results may describe one region: its shape, label, choices."""
    regions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index, result in enumerate(results):
        if result.get("type") != "relation":
            regions[str(result.get("id", index))].append(result)
    groups = _join(regions, results)
    for region_id, parts in regions.items():
        try:
            _add_region(item, parts, groups[region_id], notes)
        except ValueError as error:
            problem = f"image {item.image.name!r}: region {region_id!r}: {error}"
            notes.fault(item.source, "regions", problem, "correct the region in Label Studio and export again")


def _join(regions: dict[str, list[dict[str, Any]]], results: list[dict[str, Any]]) -> dict[str, str | None]:
    """Region -> its group; None for a region without parent, children and relations."""
    links = [
        (region_id, str(part["parentID"]))
        for region_id, parts in regions.items()
        for part in parts
        if part.get("parentID") is not None and str(part["parentID"]) in regions
    ]
    links += [
        (str(result.get("from_id")), str(result.get("to_id")))
        for result in results
        if result.get("type") == "relation" and {str(result.get("from_id")), str(result.get("to_id"))} <= regions.keys()
    ]
    group = {region_id: region_id for region_id in regions}
    for a, b in links:
        old, new = group[a], group[b]
        group = {region_id: new if name == old else name for region_id, name in group.items()}
    linked = {region_id for link in links for region_id in link}
    return {region_id: name if region_id in linked else None for region_id, name in group.items()}


def _add_region(item: MarkedImage, parts: list[dict[str, Any]], group: str | None, notes: Notes) -> None:
    """Add a region.

    Raises:
        ValueError: it is invalid.
    """
    for part in parts:
        if not isinstance(part.get("value"), dict):
            raise ValueError("it has no value" if "value" not in part else f"value is {short(part['value'])}")
    value = {key: content for part in parts for key, content in part["value"].items()}
    kinds = {str(part.get("type")) for part in parts}
    is_box = {"rectanglelabels", "rectangle"} & kinds
    is_point = {"keypointlabels", "keypoint"} & kinds
    if not is_box and not is_point:
        notes.lose(f"regions of the type {min(kinds)!r}", item.image.name)
        return
    _check_image(item.image, parts)
    label = _label(value)
    width, height = item.image.size or (1, 1)
    x, y = _percent(value, "x", width), _percent(value, "y", height)
    if is_point:
        item.points.append(PointMark(label, x, y, _visibility(value, item, notes), group))
        return
    box = (x, y, _percent(value, "width", width), _percent(value, "height", height))
    if value.get("rotation"):
        box = _around_rotated(box, _number(value, "rotation"))
        notes.change("rotated rectangles, replaced by the upright box around them", item.image.name)
    item.boxes.append(BoxMark(label, box, group))


def _percent(value: dict[str, Any], key: str, side: int) -> float:
    """A coordinate or a size in pixels."""
    return _number(value, key) * side / 100


def _number(value: dict[str, Any], key: str) -> float:
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= MAX_COORDINATE:
        raise ValueError(f"{key} is {short(number)}, where a number is needed")
    return float(number)


def _check_image(image: PoseImage, parts: list[dict[str, Any]]) -> None:
    """Check the image that a region belongs to.

    Raises:
        ValueError: the percentages refer to another image, or to a rotated view of it.
    """
    for part in parts:
        if part.get("item_index"):
            raise ValueError(f"it belongs to image {short(part['item_index'])} of a task with several images")
        if part.get("image_rotation"):
            degrees = short(part["image_rotation"])
            raise ValueError(f"the image was rotated by {degrees} degrees in Label Studio; rotate it back there")
        size = part.get("original_width"), part.get("original_height")
        if None not in size and image.size is not None and size != image.size:
            raise ValueError(
                f"the image was {short(size[0])} x {short(size[1])} pixels in Label Studio, and the file has "
                f"{image.size[0]} x {image.size[1]}"
            )


def _label(value: dict[str, Any]) -> str:
    for key in ("keypointlabels", "rectanglelabels", "labels"):
        labels = value.get(key)
        if labels:
            if not isinstance(labels, list) or len(labels) != 1:
                raise ValueError(f"{key} is {short(labels)}, where a list of one label is needed")
            return str(labels[0])
    raise ValueError("it has no label")


def _visibility(value: dict[str, Any], item: MarkedImage, notes: Notes) -> int:
    chosen = value.get("choices") or []
    choices = {str(choice).lower() for choice in (chosen if isinstance(chosen, list) else [chosen])}
    for choice in sorted(choices - _HIDDEN - _ABSENT - _VISIBLE):
        notes.lose(f"choices {choice!r} of a keypoint", item.image.name)
    return 0 if choices & _ABSENT else 1 if choices & _HIDDEN else 2


def _around_rotated(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """The upright box around a rectangle that is rotated clockwise around its first corner."""
    x, y, width, height = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(u * cos - v * sin, u * sin + v * cos) for u in (0, width) for v in (0, height)]
    xs, ys = zip(*corners)
    return x + min(xs), y + min(ys), max(xs) - min(xs), max(ys) - min(ys)
