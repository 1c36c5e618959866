"""CVAT's XML, "CVAT for images 1.1": skeletons, and points that are joined by a group.

Coordinates are pixels from the image's corner. ``outside`` means not labelled and ``occluded`` visibility 1
(https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat).
"""

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..faults import Fault, short
from .grouping import BoxMark, MarkedImage, PointMark, group_people
from .images import ImageFinder
from .project import CORNER, Notes, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions

__all__ = ["matches", "read"]

_REMEDY = "annotate with skeletons, or give the points of each person one group in CVAT"
# Elements of a skeleton's drawing in the meta data
_DRAWN = re.compile(r"<(?:circle|line)\b[^>]*>")
_SIZE = re.compile(r"[0-9]{1,9}")
_ATTRIBUTE = re.compile(r'([\w-]+)\s*=\s*"([^"]*)"')


def matches(path: Path) -> bool:
    """Whether a file is CVAT's XML, for images or for video."""
    if path.suffix != ".xml":
        return False
    try:
        _, root = next(ElementTree.iterparse(path, events=("start",)))
    except (ElementTree.ParseError, OSError, LookupError, ValueError, StopIteration):
        return False
    return root.tag == "annotations"


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read exports.

    Args:
        paths: the XML files.
        options: ``keypoints`` gives the names of shapes of several points, or the order of single points.

    Returns:
        PoseProject: with the corner's origin; ``subset`` is the split.

    Raises:
        DatasetError: a file is not "CVAT for images", a shape is invalid, points belong to no person, or images are
            missing.
    """
    notes = Notes()
    marked: list[MarkedImage] = []
    skeletons: dict[str, PoseCategory] = {}
    for path in paths:
        root = _parse(path)
        found = _skeleton_categories(root, notes, path)
        for name, category in found.items():
            if skeletons.setdefault(name, category) != category:
                problem = f"the skeleton {name!r} has other points than in the files before"
                notes.fault(path, "skeletons", problem, "convert the files one by one")
        counts = _point_counts(root)
        for element in root.iter("image"):
            marked.append(_read_image(element, path, skeletons, counts, options, notes))
    if not marked:
        notes.fault(paths[0], "files", "it has no images", "export the task as 'CVAT for images 1.1'")
    people = [list(item.image.people) for item in marked]
    grouped = group_people(marked, options, notes, remedy=_REMEDY)
    lists = _categories_of_lists(people, skeletons, options, notes)
    notes.raise_faults()
    used = {person.category for item in marked for person in item.image.people}
    categories = [item for item in (*skeletons.values(), *lists, *grouped) if item.name in used]
    _refuse_repeated(categories, paths[0])
    return PoseProject(categories or list(skeletons.values()), [item.image for item in marked], CORNER, notes)


def _parse(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:  # an encoding may be unknown
        raise Fault(str(path), "files", f"it can't be read ({error})", "export it again").error() from error
    if root.find("track") is not None:
        problem = "it is a 'CVAT for video' export, whose frames have no images"
        raise Fault(str(path), "files", problem, "export the task as 'CVAT for images 1.1'").error()
    return root


def _skeleton_categories(root: ElementTree.Element, notes: Notes, path: Path) -> dict[str, PoseCategory]:
    """The skeletons of the meta data: points are labels with the skeleton as their parent, in the order of the file."""
    points: dict[str, list[str]] = {}
    drawings = {}
    for label in root.iterfind("meta//label"):
        name, parent = label.findtext("name") or "", label.findtext("parent")
        if label.findtext("type") == "skeleton":
            points.setdefault(name, [])
            drawings[name] = label.findtext("svg") or ""
        elif parent:
            points.setdefault(parent, []).append(name)
    categories = {}
    for name, keypoints in points.items():
        limbs = _limbs(drawings.get(name, ""), keypoints)
        categories[name] = PoseCategory(name, tuple(keypoints), limbs)
    return categories


def _limbs(drawing: str, keypoints: list[str]) -> tuple[tuple[int, int], ...]:
    """The lines of a skeleton's drawing, which join numbered nodes."""
    names, edges = {}, []
    for element in _DRAWN.findall(drawing):
        attributes = dict(_ATTRIBUTE.findall(element))
        if "data-label-name" in attributes:
            names[attributes.get("data-node-id")] = attributes["data-label-name"]
        elif "data-node-from" in attributes:
            edges.append((attributes["data-node-from"], attributes.get("data-node-to")))
    limbs = [(names.get(a), names.get(b)) for a, b in edges]
    return tuple((keypoints.index(a), keypoints.index(b)) for a, b in limbs if a in keypoints and b in keypoints)


def _point_counts(root: ElementTree.Element) -> dict[str, set[int]]:
    """Label -> numbers of points of its shapes outside skeletons."""
    counts = defaultdict(set)
    for image in root.iter("image"):
        for shape in image.iterfind("points"):
            counts[shape.get("label", "")].add(len(shape.get("points", "").split(";")))
    return counts


def _read_image(
    element: ElementTree.Element,
    path: Path,
    skeletons: dict[str, PoseCategory],
    counts: dict[str, set[int]],
    options: ReadOptions,
    notes: Notes,
) -> MarkedImage:
    name, subset = element.get("name", ""), element.get("subset")
    folders = [path.parent / "images", path.parent]
    # the export of a project has a folder for each subset
    finder = ImageFinder([*options.image_dirs, *(folder / (subset or "") for folder in folders), *folders])
    image = PoseImage(name, finder.locate(path, name, notes), split=_split(subset), source=path)
    size = element.get("width", ""), element.get("height", "")
    if all(_SIZE.fullmatch(side) for side in size):
        image.stated_size = int(size[0]), int(size[1])
    item = MarkedImage(image, str(path))
    for index, shape in enumerate(element):
        try:
            _add_shape(item, shape, skeletons, counts, notes)
        except ValueError as error:
            problem = f"image {name!r}: shape {index} ({shape.tag} {shape.get('label')!r}): {error}"
            notes.fault(path, "shapes", problem, "correct the shape in CVAT and export again")
    _attach_boxes(item)
    return item


def _split(subset: str | None) -> str | None:
    if not subset or subset == "default":
        return None
    known = {"train": "train", "validation": "val", "val": "val", "test": "test"}
    return known.get(subset.lower(), subset)


@dataclass
class _GroupedPerson(PosePerson):
    """A person from a skeleton or a list of points, whose box is the one of the same group."""

    group: str | None = field(default=None)


def _add_shape(
    item: MarkedImage,
    shape: ElementTree.Element,
    skeletons: dict[str, PoseCategory],
    counts: dict[str, set[int]],
    notes: Notes,
) -> None:
    """Add a shape.

    Raises:
        ValueError: it is invalid.
    """
    label, group = shape.get("label", ""), shape.get("group_id") or None
    group = None if group == "0" else group
    if shape.tag == "skeleton":
        if label not in skeletons:
            raise ValueError("meta has no skeleton of this label")
        item.image.people.append(_GroupedPerson(label, _skeleton_points(shape, skeletons[label]), group=group))
    elif shape.tag == "points" and counts[label] == {1}:
        x, y = _single_point(shape)
        item.points.append(PointMark(label, x, y, _visibility(shape), group))
    elif shape.tag == "points":
        if label in skeletons:
            raise ValueError("its label is that of a skeleton")
        if len(counts[label]) > 1:
            raise ValueError(f"shapes of this label have {' and '.join(map(str, sorted(counts[label])))} points")
        points = np.array(_coordinates(shape))
        visibility = np.full((len(points), 1), float(_visibility(shape)))
        item.image.people.append(_GroupedPerson(label, np.hstack([points, visibility]), group=group))
    elif shape.tag == "box":
        x1, y1, x2, y2 = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        rotation = _number(shape, "rotation") if "rotation" in shape.attrib else 0.0
        if rotation:
            x1, y1, x2, y2 = _around_rotated(x1, y1, x2, y2, rotation)
            notes.change("rotated boxes, replaced by the upright box around them", item.image.name)
        item.boxes.append(BoxMark(label, (x1, y1, x2 - x1, y2 - y1), group))
    else:
        notes.lose(f"shapes of the type {shape.tag!r}", item.image.name)


def _skeleton_points(shape: ElementTree.Element, category: PoseCategory) -> np.ndarray:
    keypoints = np.zeros((len(category.keypoints), 3))
    seen = set()
    for point in shape.iterfind("points"):
        name = point.get("label", "")
        if name not in category.keypoints:
            raise ValueError(f"its point {name!r} is none of the skeleton")
        if name in seen:
            raise ValueError(f"it has two points {name!r}")
        seen.add(name)
        x, y = _single_point(point)
        keypoints[category.keypoints.index(name)] = x, y, _visibility(point)
    return keypoints


def _coordinates(shape: ElementTree.Element) -> list[tuple[float, float]]:
    text = shape.get("points", "")
    try:
        points = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
    except ValueError:
        points = [()]
    if not all(len(point) == 2 and np.isfinite(point).all() for point in points):
        raise ValueError(f"its points are {short(text)}, not x,y;x,y;...")
    return points  # type: ignore[return-value]


def _single_point(shape: ElementTree.Element) -> tuple[float, float]:
    points = _coordinates(shape)
    if len(points) != 1:
        raise ValueError(f"its points are {short(shape.get('points'))}, where one is needed")
    return points[0]


def _number(shape: ElementTree.Element, key: str) -> float:
    try:
        return float(shape.get(key, ""))
    except ValueError:
        raise ValueError(f"its {key} is {short(shape.get(key))}, where a number is needed") from None


def _visibility(shape: ElementTree.Element) -> int:
    return 0 if shape.get("outside") == "1" else 1 if shape.get("occluded") == "1" else 2


def _around_rotated(x1: float, y1: float, x2: float, y2: float, degrees: float) -> tuple[float, float, float, float]:
    """The upright box around a box that is rotated around its centre."""
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    width, height = (x2 - x1) * cos + (y2 - y1) * sin, (x2 - x1) * sin + (y2 - y1) * cos
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _attach_boxes(item: MarkedImage) -> None:
    """Give people the box of their group; it is then no mark any more."""
    for person in item.image.people:
        box = next((box for box in item.boxes if box.group is not None and box.group == _group(person)), None)
        if box is not None:
            person.box = box.box
            item.boxes.remove(box)


def _group(person: PosePerson) -> str | None:
    return person.group if isinstance(person, _GroupedPerson) else None


def _categories_of_lists(
    people: list[list[PosePerson]], skeletons: dict[str, PoseCategory], options: ReadOptions, notes: Notes
) -> list[PoseCategory]:
    """The categories of shapes of several points, which have numbers instead of names."""
    counts = {person.category: len(person.keypoints) for rows in people for person in rows}
    categories = []
    for name, count in counts.items():
        if name in skeletons:
            continue
        keypoints = options.keypoints or tuple(f"{name}_{i}" for i in range(1, count + 1))
        if len(keypoints) != count:
            problem = f"{len(keypoints)} names for the {count} points of {name!r}"
            notes.fault("--keypoints", "keypoints", problem, "give one name for each")
        elif options.keypoints is None:
            notes.change("shapes of several points, whose points get numbers (--keypoints names them)", name)
        categories.append(PoseCategory(name, keypoints))
    return categories


def _refuse_repeated(categories: list[PoseCategory], path: Path) -> None:
    names = [category.name for category in categories]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        problem = f"label {min(repeated)!r} is of a skeleton and of other points"
        raise Fault(str(path), "categories", problem, "rename one of them").error()
