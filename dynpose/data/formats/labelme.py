"""labelme and X-AnyLabeling: one JSON file beside each image, with shapes that a ``group_id`` joins.

Coordinates are those of Qt: pixels from the image's corner. A point is occluded if X-AnyLabeling marks it as difficult,
as its YOLO-pose export has it, or if a flag or an attribute of the shape says so.
"""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from ..faults import short
from .grouping import BoxMark, MarkedImage, PointMark, group_people
from .images import ImageFinder
from .json_files import load_json
from .project import CORNER, Notes, PoseImage, PoseProject, ReadOptions

__all__ = ["matches", "matches_x_anylabeling", "read"]

_HIDDEN = frozenset(("occluded", "hidden", "invisible", "not visible"))
# Keys of a shape that X-AnyLabeling writes and labelme does not
_X_ANYLABELING = frozenset(("difficult", "kie_linking", "attributes"))
_REMEDY = "select the shapes of each person and group them (group_id)"


def matches(path: Path) -> bool:
    """Whether a file is labelme's annotation of an image."""
    data = _load(path)
    return data is not None and not _is_x_anylabeling(data)


def matches_x_anylabeling(path: Path) -> bool:
    """Whether a file is X-AnyLabeling's annotation of an image."""
    data = _load(path)
    return data is not None and _is_x_anylabeling(data)


def _load(path: Path) -> dict[str, Any] | None:
    """The content of a file; None if it is not of this format."""
    data = load_json(path)
    is_one = isinstance(data, dict) and isinstance(data.get("shapes"), list) and "imagePath" in data
    return data if is_one else None


def _is_x_anylabeling(data: dict[str, Any]) -> bool:
    shapes = [shape for shape in data["shapes"] if isinstance(shape, dict)]
    return "checked" in data or any(_X_ANYLABELING & shape.keys() for shape in shapes)


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read the files of a project.

    Args:
        paths: the JSON files.
        options: ``keypoints`` gives the order of the keypoints, which the files do not have.

    Returns:
        PoseProject: with the corner's origin.

    Raises:
        DatasetError: points belong to no person, or a file is invalid, or images are missing.
    """
    notes, marked = Notes(), []
    for path in paths:
        data = _load(path)
        if data is None:
            notes.fault(path, "files", "it has no shapes and imagePath", "give files of labelme or X-AnyLabeling")
            continue
        marked.append(_read_file(path, data, options, notes))
    categories = group_people(marked, options, notes, remedy=_REMEDY)
    notes.raise_faults()
    return PoseProject(categories, [item.image for item in marked], CORNER, notes)


def _read_file(path: Path, data: dict[str, Any], options: ReadOptions, notes: Notes) -> MarkedImage:
    image = _image(path, data, options, notes)
    item = MarkedImage(image, str(path))
    for index, shape in enumerate(data["shapes"]):
        try:
            _add_shape(item, shape, notes)
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
            problem = f"shapes[{index}] is {short(shape)}, without a label, points of two numbers or a valid group_id"
            notes.fault(path, "shapes", problem, "correct or delete the shape")
    return item


def _image(path: Path, data: dict[str, Any], options: ReadOptions, notes: Notes) -> PoseImage:
    name = str(data["imagePath"])
    image = PoseImage(Path(name.replace("\\", "/")).name, source=path)
    size = data.get("imageWidth"), data.get("imageHeight")
    if all(type(value) is int for value in size):
        image.stated_size = size  # type: ignore[assignment]
    finder = ImageFinder([*options.image_dirs, path.parent])
    image.path = finder.find(name)
    if image.path is None and isinstance(data.get("imageData"), str):
        content = data["imageData"]
        image.content = lambda: Image.open(io.BytesIO(base64.b64decode(content)))
        notes.change("images extracted from imageData, since their files are missing", str(path))
    elif image.path is None:
        finder.locate(path, name, notes)
    return image


def _add_shape(item: MarkedImage, shape: dict[str, Any], notes: Notes) -> None:
    """Add a point or a box.

    Raises:
        TypeError, ValueError, AttributeError, KeyError, OverflowError: the shape is invalid.
    """
    label, group, kind = str(shape["label"]), shape.get("group_id"), shape.get("shape_type", "polygon")
    if not isinstance(group, (int, str, type(None))):
        raise TypeError
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "point":
        ((x, y),) = points
        item.points.append(PointMark(label, x, y, 1 if _is_hidden(shape) else 2, group))
    elif kind == "rectangle" and len(points) >= 2:
        # two opposite corners or, in newer files of X-AnyLabeling, all four
        xs, ys = zip(*points)
        item.boxes.append(BoxMark(label, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)), group))
    else:
        notes.lose(f"shapes of the type {kind!r}", item.source)


def _is_hidden(shape: dict[str, Any]) -> bool:
    marks = {**(shape.get("flags") or {}), **(shape.get("attributes") or {})}
    return bool(shape.get("difficult")) or any(
        (str(key).lower() in _HIDDEN and value in (True, "true", "yes", 1)) or str(value).lower() in _HIDDEN
        for key, value in marks.items()
    )
