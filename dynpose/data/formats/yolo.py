"""YOLO-pose data sets: data.yaml, and a text file of one row per person beside each image.

Rows are ``class x_center y_center width height`` and ``x y`` or ``x y visibility`` per keypoint, as fractions of the
image's width and height from its corner (https://docs.ultralytics.com/datasets/pose). The labels of
``.../images/.../a.png`` are in ``.../labels/.../a.txt``: the last folder ``images`` of the path is replaced.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dynpose.utils.atomic import atomic_open

from ..faults import Fault, short
from ..flip_names import read_sides
from ..image_files import image_endings
from ..keypoint_words import LEFT, RIGHT
from ..rules import boxes_from_keypoints
from ..schema import COCO_PERSON, KeypointSchema
from .images import ImageFinder, common_folder, read_sizes
from .json_files import load_yaml
from .project import CORNER, Notes, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions

__all__ = ["check_output", "matches", "read", "write"]

_SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"valid": "val", "validation": "val"}
# Digits after the point of a fraction: 1e-9 of 3840 pixels is 4e-6 pixels
_DIGITS = 9
# Larger numbers are a fault, which would fill the memory
_MAX_CLASSES, _MAX_KEYPOINTS = 100_000, 10_000


def matches(path: Path) -> bool:
    """Whether a file is the data.yaml of a YOLO-pose data set."""
    data = load_yaml(path)
    return isinstance(data, dict) and "kpt_shape" in data


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read a data set.

    Args:
        paths: its data.yaml.
        options: ``keypoints`` names those of a file without ``kpt_names``; ``zero_points`` is needed if rows have no
            visibility and points at (0, 0).

    Returns:
        PoseProject: with the corner's origin. A visibility other than 0, 1 and 2 is read as 2, as Ultralytics does.

    Raises:
        DatasetError: a key of data.yaml or a row is invalid, or files are missing.
    """
    (path,) = paths
    data, notes = load_yaml(path), Notes()
    num_keypoints, dims = _keypoint_shape(data, path)
    classes = _class_names(data, path)
    categories = _categories(data, classes, num_keypoints, options, notes, path)
    images = _find_images(data, path, options, notes)
    notes.raise_faults()
    read_sizes(images, notes)
    notes.raise_faults()
    for image in images:
        _read_rows(image, classes, (num_keypoints, dims), notes)
    _resolve_zero_points(images, dims, options, notes, path)
    _count_labels_without_image(images, notes)
    notes.raise_faults()
    return PoseProject(categories, images, CORNER, notes)


def _keypoint_shape(data: dict, path: Path) -> tuple[int, int]:
    shape = data["kpt_shape"]
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)):
        shape = [0, 0]
    if not 1 <= shape[0] <= _MAX_KEYPOINTS or shape[1] not in (2, 3):
        remedy = "write [number of keypoints, 2] or [number of keypoints, 3]"
        raise Fault(str(path), "keys", f"kpt_shape is {short(data['kpt_shape'])}", remedy).error()
    return shape[0], shape[1]


def _class_names(data: dict, path: Path) -> list[str]:
    names = data.get("names")
    if names is None and type(data.get("nc")) is int and data["nc"] <= _MAX_CLASSES:
        names = [f"class_{i}" for i in range(data["nc"])]
    if isinstance(names, dict) and names.keys() == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise Fault(str(path), "keys", f"names is {short(names)}", "write a list of class names, each once").error()
    return [str(name) for name in names]


def _categories(
    data: dict, classes: list[str], num_keypoints: int, options: ReadOptions, notes: Notes, path: Path
) -> list[PoseCategory]:
    flip_indices = _flip_indices(data, num_keypoints, path)
    categories = []
    for index, name in enumerate(classes):
        keypoints = _keypoint_names(data, index, num_keypoints, flip_indices, options, path)
        if keypoints is None:
            keypoints = tuple(f"keypoint_{i}" for i in range(num_keypoints))
            notes.change("classes without kpt_names, whose keypoints get numbers (--keypoints names them)", name)
        limbs = _limbs(data.get("skeleton"), name, keypoints, path)
        if index == 0:
            notes.lose("limbs of other than its keypoints", name, len(data.get("skeleton") or ()) - len(limbs))
        pairs = None if flip_indices is None else _named_pairs(flip_indices, keypoints)
        categories.append(PoseCategory(name, keypoints, limbs, pairs, pairs_from="flip_idx"))
    return categories


def _limbs(skeleton: Any, name: str, keypoints: tuple[str, ...], path: Path) -> tuple[tuple[int, int], ...]:
    """The limbs of data.yaml, which Ultralytics ignores: pairs of names, or of numbers as in COCO's files."""
    category = {"name": name, "keypoints": keypoints, "skeleton": skeleton}
    return KeypointSchema.from_category(category, flip_pairs=(), source=str(path)).skeleton


def _flip_indices(data: dict, num_keypoints: int, path: Path) -> list[int] | None:
    indices = data.get("flip_idx")
    if not indices:
        return None
    if not isinstance(indices, list) or sorted(map(str, indices)) != sorted(map(str, range(num_keypoints))):
        remedy = "write the index of the opposite keypoint for each keypoint, its own for one without"
        problem = f"flip_idx is {short(indices)}, no order of 0 to {num_keypoints - 1}"
        raise Fault(str(path), "keys", problem, remedy).error()
    indices = [int(index) for index in indices]
    wrong = [i for i, index in enumerate(indices) if indices[index] != i]
    if wrong:
        i = wrong[0]
        problem = f"flip_idx moves keypoint {i} to {indices[i]}, and {indices[i]} to {indices[indices[i]]}"
        raise Fault(str(path), "keys", problem, "two keypoints must change places with each other").error()
    return indices


def _keypoint_names(
    data: dict, index: int, num_keypoints: int, flip_indices: list[int] | None, options: ReadOptions, path: Path
) -> tuple[str, ...] | None:
    """The names given, or of the file; COCO's if the pairs are COCO's; None if there are none."""
    names = data.get("kpt_names")
    if isinstance(names, dict):
        names = names.get(index, names.get(str(index)))
    where = str(path)
    if options.keypoints is not None:
        names, where = list(options.keypoints), "--keypoints"
    if names is None:
        is_coco = flip_indices == COCO_PERSON.flip_indices.tolist()
        return COCO_PERSON.names if is_coco else None
    if not isinstance(names, list) or len(names) != num_keypoints:
        problem = f"kpt_names of class {index} is {short(names)}, kpt_shape says {num_keypoints} keypoints"
        raise Fault(where, "keys", problem, "write one name for each keypoint").error()
    return tuple(str(name) for name in names)


def _named_pairs(flip_indices: list[int], keypoints: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The pairs of flip_idx, the left one first where the names say which it is."""
    sides = read_sides(keypoints)
    pairs = []
    for i, j in enumerate(flip_indices):
        if i < j:
            a, b = keypoints[i], keypoints[j]
            is_reversed = RIGHT in sides[a] and LEFT in sides[b] and LEFT not in sides[a]
            pairs.append((b, a) if is_reversed else (a, b))
    return tuple(pairs)


def _find_images(data: dict, path: Path, options: ReadOptions, notes: Notes) -> list[PoseImage]:
    roots = _roots(data, path, options)
    found: dict[Path, PoseImage] = {}
    for key in (*_SPLITS, *_OTHER_NAMES):
        entries = data.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _resolve(str(entry), roots)
            if place is None:
                where = ", ".join(map(str, roots))
                problem = f"{key}: {entry} is not in {where}"
                notes.fault(path, "missing images", problem, "correct path, or give the folder by --image-dir")
                continue
            for file in _listed_images(place, notes):
                split = _OTHER_NAMES.get(key, key)
                if file in found and found[file].split != split:
                    notes.remark("images of several splits, kept in the first", file.name)
                found.setdefault(file, PoseImage(file.name, file, split=split, source=path))
    if not found and not notes.faults:
        notes.fault(path, "missing images", "it names no images", "give train and val: folders or lists of images")
    return list(found.values())


def _roots(data: dict, path: Path, options: ReadOptions) -> list[Path]:
    """The folders that the entries of data.yaml may start from. Projects are moved, and ``path`` may be outdated."""
    root = data.get("path")
    stated = [path.parent / str(root)] if root else []
    return list(dict.fromkeys((*options.image_dirs, *stated, path.parent)))


def _resolve(entry: str, roots: Iterable[Path]) -> Path | None:
    for root in roots:
        # an export of Roboflow says ../train/images for a folder beside data.yaml
        for name in (entry, entry.removeprefix("../")):
            place = Path(os.path.abspath(root / name))
            if place.exists():
                return place
    return None


def _listed_images(place: Path, notes: Notes) -> list[Path]:
    """The images of a folder, or of a text file that lists them."""
    if place.is_dir():
        return sorted(file for file in place.rglob("*") if file.suffix.lower() in image_endings())
    if place.suffix.lower() != ".txt":
        return [place]
    try:
        lines = place.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        notes.fault(place, "missing images", f"it is no list of images in UTF-8 ({error})", "save it as text")
        return []
    finder, files = ImageFinder([place.parent]), []
    for line in filter(None, map(str.strip, lines)):
        file = finder.locate(place, line, notes)
        files += [] if file is None else [file]
    return files


def _label_file(image: Path) -> Path:
    """As Ultralytics: the last folder ``images`` becomes ``labels``; without one, the labels are beside the image."""
    parts = list(image.parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_rows(image: PoseImage, classes: list[str], shape: tuple[int, int], notes: Notes) -> None:
    assert image.path is not None
    label_file = _label_file(image.path)
    if not label_file.is_file():
        notes.remark("images without a file of labels, taken to show no people", str(label_file))
        return
    try:
        lines = label_file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        notes.fault(label_file, "rows", f"it is not UTF-8 text ({error})", "save it as text")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            image.people.append(_read_row(line, classes, shape, image, notes))
        except ValueError as error:
            remedy = "correct the row; Ultralytics drops an image with such a row"
            notes.fault(label_file, "rows", f"line {number}: {error}", remedy)


def _read_row(line: str, classes: list[str], shape: tuple[int, int], image: PoseImage, notes: Notes) -> PosePerson:
    """Read a person.

    Raises:
        ValueError: the row is invalid; the message says why.
    """
    words, (num_keypoints, dims) = line.split(), shape
    if len(words) != 5 + num_keypoints * dims:
        expected = f"5 + {num_keypoints} x {dims} = {5 + num_keypoints * dims}"
        raise ValueError(f"it has {len(words)} numbers where kpt_shape makes {expected}")
    row = np.array([_number(word) for word in words])
    if not np.isfinite(row).all():
        raise ValueError("not all its numbers are finite")
    if row[0] not in range(len(classes)):
        raise ValueError(f"class {words[0]}, where names has 0 to {len(classes) - 1}")
    points = row[5:].reshape(num_keypoints, dims)
    if row[3:5].min() < 0 or max(np.abs(row[1:5]).max(), np.abs(points[:, :2]).max()) > 2:
        raise ValueError("its coordinates are no fractions of the image's size")
    width, height = image.size or (1, 1)
    center, size = row[1:3] * (width, height), row[3:5] * (width, height)
    keypoints = np.column_stack([points[:, :2] * (width, height), _visibilities(points, image, notes)])
    x, y = (center - size / 2).tolist()
    return PosePerson(classes[int(row[0])], keypoints, (x, y, *size.tolist()))


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{short(word)} is no number") from None


def _visibilities(points: np.ndarray, image: PoseImage, notes: Notes) -> np.ndarray:
    """(K,) 0, 1 or 2; NaN for a point at (0, 0) of a row without visibilities."""
    if points.shape[1] == 2:
        at_zero, negative = (points == 0).all(axis=1), (points < 0).any(axis=1)
        return np.where(at_zero, np.nan, np.where(negative, 0.0, 2.0))
    visibility = points[:, 2]
    fractions = ~np.isin(visibility, (0, 1, 2))
    notes.change("visibilities other than 0, 1 and 2, read as visible", image.name, int(fractions.sum()))
    return np.where(fractions, 2.0, visibility)


def _resolve_zero_points(images: list[PoseImage], dims: int, options: ReadOptions, notes: Notes, path: Path) -> None:
    """Apply the user's answer to what (0, 0) means where rows have no visibility."""
    if dims == 3:
        return
    undecided = [(image, person) for image in images for person in image.people if np.isnan(person.keypoints).any()]
    if undecided and options.zero_points is None:
        count = sum(int(np.isnan(person.keypoints[:, 2]).sum()) for _, person in undecided)
        problem = (
            f"its keypoints have no visibility, and {count} of them are at (0, 0), the first in {undecided[0][0].path}:"
            " visible ones to Ultralytics, missing ones to the tools that write them"
        )
        remedy = "give --visibility-of-0-0 missing or --visibility-of-0-0 visible"
        raise Fault(str(path), "keypoints", problem, remedy).error()
    for image, person in undecided:
        at_zero = np.isnan(person.keypoints[:, 2])
        person.keypoints[at_zero, 2] = 2.0 if options.zero_points == "visible" else 0.0
        notes.change(f"points at (0, 0) without a visibility, read as {options.zero_points}", image.name, at_zero.sum())


def _count_labels_without_image(images: list[PoseImage], notes: Notes) -> None:
    expected = {_label_file(image.path) for image in images if image.path is not None}
    for folder in sorted({file.parent for file in expected if "labels" in file.parts}):
        for file in sorted(folder.glob("*.txt")):
            if file not in expected and file.name != "classes.txt":
                notes.lose("files of labels without an image", str(file))


def write(project: PoseProject, output: Path, *, visibility: bool = True, copy_images: bool = False) -> list[str]:
    """Write a data set that Ultralytics reads.

    Images are links to the originals in ``images/<split>``, or copies; labels have nine decimals, which is less than
    1e-5 pixels. Images without a split are in "train".

    Args:
        project: keypoints with COCO's origin; all images have a file and a size.
        output: a folder, new or empty.
        visibility: write x, y and visibility of each keypoint; False = x and y alone.
        copy_images: copy image files instead of linking to them.

    Returns:
        list[str]: the splits, in the order of data.yaml.

    Raises:
        DatasetError: the categories have different keypoints, the folder has files, or links can't be made.
    """
    schema = _common_schema(project)
    check_output(output)
    classes = [category.name for category in project.categories]
    root = common_folder([image.path for image in project.images if image.path is not None])
    taken: dict[tuple[str, str], int] = {}
    for image in project.images:
        assert image.path is not None
        target = _target(image, root, taken, project.notes)
        _place(image.path, output / "images" / target, copy_images)
        rows = [_row(person, image, classes, visibility, project.notes) for person in image.people]
        label_file = (output / "labels" / target).with_suffix(".txt")
        label_file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(label_file) as file:
            file.writelines(row + "\n" for row in rows if row is not None)
    splits = list(dict.fromkeys(image.split or "train" for image in project.images))
    splits.sort(key=lambda split: (_SPLITS.index(split) if split in _SPLITS else len(_SPLITS), split))
    _write_yaml(output / "data.yaml", classes, schema, splits, visibility, project.notes)
    return splits


def check_output(output: Path) -> None:
    """Refuse an output that has files already.

    Raises:
        DatasetError: it is not a new or empty folder.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise Fault(str(output), "output", "it exists and is not empty", "give a new folder by --output").error()


def _common_schema(project: PoseProject) -> KeypointSchema:
    schemas = [category.schema() for category in project.categories]
    for category, schema in zip(project.categories, schemas):
        if not schema.has_same_keypoints(schemas[0]):
            problem = (
                f"categories {project.categories[0].name!r} and {category.name!r} have different keypoints or pairs"
            )
            remedy = "YOLO-pose has one kpt_shape for all classes; choose categories by --category"
            raise Fault("", "categories", problem, remedy).error()
    return schemas[0]


def _target(image: PoseImage, root: Path, taken: dict[tuple[str, str], int], notes: Notes) -> Path:
    """Path of an image below ``images``; images that differ in the suffix alone would share a file of labels."""
    assert image.path is not None
    # Ultralytics would replace a folder named images in the path by labels
    parts = ["images_" if part == "images" else part for part in image.path.relative_to(root).parts]
    target = Path(image.split or "train", *parts)
    key = (str(target.parent), target.stem)
    taken[key] = number = taken.get(key, -1) + 1
    if number:
        notes.change("images renamed, since labels are found by the name without its suffix", image.name)
        target = target.with_stem(f"{target.stem}_{target.suffix[1:]}{number}")
    return target


def _place(source: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        with atomic_open(target, "wb") as file:
            file.write(source.read_bytes())
        return
    try:
        os.symlink(source, target)
    except OSError as error:
        problem = f"no link to {source} can be made ({error})"
        raise Fault(str(target), "output", problem, "give --copy-images").error() from error


def _row(person: PosePerson, image: PoseImage, classes: list[str], visibility: bool, notes: Notes) -> str | None:
    """The row of a person; None if its box is outside the image."""
    width, height = image.size or (1, 1)
    keypoints = person.keypoints.copy()
    labelled = keypoints[:, 2] > 0
    keypoints[labelled, :2] += 0.5
    box = _clipped(_box(person, keypoints, (width, height)), (width, height), image, notes)
    if box is None:
        return None
    outside = labelled & ((keypoints[:, :2] < 0) | (keypoints[:, :2] > (width, height))).any(axis=1)
    notes.lose("labelled points outside the image, written as not labelled", image.name, int(outside.sum()))
    keypoints[outside | ~labelled] = 0
    if not visibility:
        missing = int((keypoints[:, 2] == 0).sum())
        notes.lose("points that are not labelled, visible at (0, 0) to Ultralytics", image.name, missing)
        hidden = int((keypoints[:, 2] == 1).sum())
        notes.lose("visibilities of 1 (occluded)", image.name, hidden)
    x, y, w, h = box
    numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    words = [str(classes.index(person.category)), *(f"{number:.{_DIGITS}f}" for number in numbers)]
    for u, v, seen in keypoints.tolist():
        words += [f"{u / width:.{_DIGITS}f}", f"{v / height:.{_DIGITS}f}"] + ([f"{seen:.0f}"] if visibility else [])
    return " ".join(words)


def _box(person: PosePerson, keypoints: np.ndarray, size: tuple[int, int]) -> tuple[float, ...]:
    if person.box is not None:
        return person.box
    return tuple(boxes_from_keypoints(keypoints[None], np.array([size], dtype=float))[0].tolist())


def _clipped(
    box: tuple[float, ...], size: tuple[int, int], image: PoseImage, notes: Notes
) -> tuple[float, float, float, float] | None:
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[0] + box[2], float(size[0])), min(box[1] + box[3], float(size[1]))
    if x2 <= x1 or y2 <= y1:
        notes.lose("people whose box is outside the image", image.name)
        return None
    cut = (x1 - box[0], y1 - box[1], box[0] + box[2] - x2, box[1] + box[3] - y2)
    if max(cut) > 1e-4:  # less is rounding
        notes.change("boxes clipped to the image", image.name)
    return x1, y1, x2 - x1, y2 - y1


def _write_yaml(
    path: Path, classes: list[str], schema: KeypointSchema, splits: list[str], visibility: bool, notes: Notes
) -> None:
    keys: dict[str, Any] = {split: f"images/{split}" for split in splits}
    for split in ("train", "val"):
        if split not in keys:
            keys[split] = f"images/{splits[0]}"
            notes.remark("splits that Ultralytics requires, set to the images of another", f"{split}: {keys[split]}")
    names = list(schema.names)
    keys |= {
        "kpt_shape": [len(names), 3 if visibility else 2],
        "flip_idx": schema.flip_indices.tolist(),
        "names": dict(enumerate(classes)),
        "kpt_names": dict.fromkeys(range(len(classes)), names),
        "skeleton": [[names[a], names[b]] for a, b in schema.skeleton],
    }
    with atomic_open(path) as file:
        # the names of several classes are written out for each, without YAML's references
        dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
        yaml.dump(keys, file, dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
