"""COCO keypoint files: read by dynpose's reader, to write them in another format, and written."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dynpose.utils.atomic import atomic_open

from ..categories import Selection
from ..coco_json import load_pose_json, read_coco_json, read_pose_file
from ..datasets import read_schema
from ..people import HALF_A_PIXEL
from ..rules import RULES, Remarks, boxes_from_keypoints
from .json_files import load_json
from .project import INDEX, Notes, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions

__all__ = ["matches", "read", "to_coco", "write"]


def matches(path: Path) -> bool:
    """Whether a file is in COCO's format."""
    data = load_json(path)
    return isinstance(data, dict) and isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list)


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read a file as training does, with its rules (docs/datasets.md).

    Args:
        paths: the file.
        options: the first of ``image_dirs``, else the folder of the file, holds the images; ``keypoints`` names those
            of a file without names.

    Returns:
        PoseProject: with the index origin; ``split`` of an image and ``flip_pairs`` of a category are those of
        :func:`write`.

    Raises:
        DatasetError: see :func:`dynpose.data.load_pose_json`.
    """
    (path,) = paths
    notes, remarks = Notes(), Remarks()
    listed = read_coco_json(str(path))
    classes = _chosen(listed["categories"], options.categories)
    selection = Selection(classes=classes, keypoints=options.keypoints)
    root = options.image_dirs[0] if options.image_dirs else path.parent
    records = load_pose_json(path, root, classes=classes, keypoints=options.keypoints, on_remarks=remarks.merge)
    categories = [_category(path, item.category, options) for item in read_pose_file(str(path), selection).classes]
    entries = {item["id"]: item for item in listed["images"]}
    images = []
    for record in records:
        size = (record["width"], record["height"]) if "width" in record and "height" in record else None
        file = Path(record["file_name"]).absolute()
        image = PoseImage(file.name, file, source=path, stated_size=size)
        split = entries[record["image_id"]].get("split")
        image.split = split if isinstance(split, str) else None
        for person in record["annotations"]:
            if person.get("iscrowd"):
                notes.lose("crowds (iscrowd)", image.name)
                continue
            keypoints = np.reshape(person["keypoints"], (-1, 3)) - HALF_A_PIXEL
            image.people.append(PosePerson(categories[person["category_id"]].name, keypoints, tuple(person["bbox"])))
        images.append(image)
    for rule, count in remarks.counts.items():
        note = {"corrected": notes.change, "skipped": notes.lose, "reported": notes.remark}[RULES[rule].decision]
        note(f"annotations or images that {RULES[rule].text.split(':')[0]}", remarks.examples[rule][0], count)
    return PoseProject(categories, images, INDEX, notes)


def _chosen(categories: list[dict[str, Any]], names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The chosen names that the file has; a name that it lacks is refused when the project is read."""
    known = [category.get("name") for category in categories]
    return None if names is None else tuple(name for name in names if name in known) or None


def _category(path: Path, category: dict[str, Any], options: ReadOptions) -> PoseCategory:
    schema = read_schema(path, category=category["name"], keypoints=options.keypoints)
    pairs = schema.flip_pairs if "flip_pairs" in category else None
    return PoseCategory(category["name"], schema.names, schema.skeleton, pairs)


def to_coco(project: PoseProject, image_root: Path) -> dict[str, Any]:
    """The content of a COCO keypoint file.

    Boxes that the project lacks are made from the keypoints (:func:`~dynpose.data.rules.boxes_from_keypoints`), and an
    area is that of the box. Keys that COCO does not have: ``split`` of an image; ``track_id`` of an annotation, an id
    of the list ``tracks``; ``flip_pairs`` of a category, which dynpose's reader uses.

    Args:
        project: keypoints with COCO's origin; all images have a file and a size.
        image_root: the folder that file names start from; it holds all images.

    Returns:
        dict
    """
    category_ids = {category.name: i for i, category in enumerate(project.categories, 1)}
    tracks: dict[tuple[str, str], int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(project.images, 1):
        assert image.path is not None
        assert image.size is not None
        file_name = image.path.relative_to(image_root).as_posix()
        entry: dict[str, Any] = {"id": image_id, "file_name": file_name}
        entry |= {"width": image.size[0], "height": image.size[1]}
        images.append(entry | ({"split": image.split} if image.split else {}))
        for person in image.people:
            annotation = _annotation(person, image.size, project.notes, image.name)
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_ids[person.category]}
            if person.track is not None:
                ids["track_id"] = tracks.setdefault((person.category, person.track), len(tracks) + 1)
            annotations.append(ids | annotation)
    categories = [_coco_category(category, category_ids[category.name]) for category in project.categories]
    data = {"images": images, "annotations": annotations, "categories": categories}
    if tracks:
        data["tracks"] = [
            {"id": track_id, "name": name, "category_id": category_ids[category]}
            for (category, name), track_id in tracks.items()
        ]
    return data


def write(data: dict[str, Any], output: Path) -> list[Path]:
    """Write a COCO keypoint file, and one file for each split beside it if there are several.

    Args:
        data: see :func:`to_coco`.
        output: the file; its folder exists.

    Returns:
        list[Path]: the written files, ``output`` first.
    """
    splits = list(dict.fromkeys(image["split"] for image in data["images"] if "split" in image))
    files = [output]
    _write(output, data)
    for split in splits if len(splits) > 1 else ():
        files.append(_split_file(output, split))
        _write(files[-1], _part(data, split))
    return files


def _split_file(output: Path, split: str) -> Path:
    """The file of a split, beside that of the whole data set: ``hands_train.json`` beside ``hands.json``."""
    return output.with_name(f"{output.stem}_{split.replace('/', '_')}{output.suffix}")


def _write(path: Path, data: dict[str, Any]) -> None:
    with atomic_open(path) as file:
        json.dump(data, file)


def _annotation(person: PosePerson, size: tuple[int, int], notes: Notes, image: str) -> dict[str, Any]:
    keypoints = person.keypoints
    labelled = keypoints[:, 2] > 0
    if person.box is None or min(person.box[2:]) <= 0:
        notes.change("boxes made from the keypoints, with a margin", image)
        box = boxes_from_keypoints((keypoints + HALF_A_PIXEL)[None], np.array([size], dtype=float))[0].tolist()
    else:
        box = list(person.box)
    return {
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "num_keypoints": int(labelled.sum()),
        "keypoints": [number for x, y, seen in keypoints.tolist() for number in (x, y, int(seen))],
    }


def _coco_category(category: PoseCategory, category_id: int) -> dict[str, Any]:
    return {
        "id": category_id,
        "name": category.name,
        "keypoints": list(category.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in category.skeleton],
        "flip_pairs": [list(pair) for pair in category.flip_pairs or ()],
    }


def _part(data: dict[str, Any], split: str) -> dict[str, Any]:
    images = [image for image in data["images"] if image.get("split") == split]
    ids = {image["id"] for image in images}
    return data | {"images": images, "annotations": [item for item in data["annotations"] if item["image_id"] in ids]}
