"""COCO's results file for keypoints (https://cocodataset.org/#format-results).

pycocotools and COCO's evaluation server identify an image by its id in the annotation. The ids come from that file if
it is given, else from names like COCO's (000000000139.jpg), else they are running numbers. In the latter two cases
``coco_images.json`` lists the images and categories, so that ``COCO("coco_images.json").loadRes("coco_results.json")``
works.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dynpose.data.categories import categories_by_id
from dynpose.data.coco_json import read_coco_json
from dynpose.data.faults import Fault

from .results import Results, Tally, frame_name, json_text, text_file, write_json_list

__all__ = ["check", "write"]

RESULTS_FILE, IMAGES_FILE = "coco_results.json", "coco_images.json"
# 000000000139.jpg of 2017, COCO_val2014_000000000139.jpg of 2014
_COCO_NAME = re.compile(r"(?:.*/)?(?:COCO_\w+_)?(\d{12})\.\w+")


def check(results: Results, folder: Path) -> None:
    """Check that the annotation, if given, can be read and has the model's classes.

    Raises:
        DatasetError: it does not.
    """
    if results.annotations is not None:
        _category_ids(results, _read(results.annotations))


def write(results: Results, folder: Path) -> list[str]:
    """Write ``coco_results.json``: all predicted people, with their boxes.

    The third number of a keypoint is its confidence, as from detectron2. ``track_id`` is added where it is known.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: lines for the user: where the ids come from, and the images that were left out.

    Raises:
        DatasetError: the annotation has none of the images, or several of one name.
    """
    path = folder / RESULTS_FILE
    ids = _Annotation(results) if results.annotations is not None else _Numbering(results)
    with text_file(path) as file:
        number = write_json_list(file, _detections(results, ids.image_id, ids.category_id))
    lines = [f"{path}: {number} people; {ids.describe()}"]
    if isinstance(ids, _Numbering):
        ids.write_images(folder / IMAGES_FILE)
    return lines


def _detections(
    results: Results, image_id: Callable[[dict[str, Any]], Any], category_id: Callable[[int], int]
) -> Iterator[dict[str, Any]]:
    for entry in results.entries():
        image = image_id(entry)
        if image is None:
            continue
        for person in entry["instances"]:
            yield {
                "image_id": image,
                "category_id": category_id(person["category"]),
                "keypoints": [value for point in person["keypoints"] for value in point],
                "score": person["score"],
                "bbox": person["bbox"],
                **({"track_id": person["track_id"]} if "track_id" in person else {}),
            }


class _Numbering:
    """Ids from COCO's file names if all images have one, else running numbers; category ids start at 1."""

    def __init__(self, results: Results):
        self.results = results
        self.from_names = _have_coco_names(results)
        self._number = 0

    def image_id(self, entry: dict[str, Any]) -> int | None:
        self._number += 1
        return _id_in_name(entry) if self.from_names else self._number

    def category_id(self, index: int) -> int:
        return index + 1

    def describe(self) -> str:
        source = "COCO's file names" if self.from_names else "running numbers"
        return f"image ids are {source}, listed in {IMAGES_FILE} (--annotations takes them from an annotation)"

    def write_images(self, path: Path) -> None:
        """Write the images and categories in the format of an annotation."""
        self._number = 0
        with text_file(path) as file:
            file.write('{"images": ')
            write_json_list(file, map(self._image, self.results.entries()))
            file.write(f', "annotations": [], "categories": {json_text(self._categories())}}}\n')

    def _image(self, entry: dict[str, Any]) -> dict[str, Any]:
        of_video: dict[str, Any] = {key: entry[key] for key in ("frame", "time") if key in entry}
        size = {"width": entry["width"], "height": entry["height"]}
        return {"id": self.image_id(entry), "file_name": entry["file_name"], **size, **of_video}

    def _categories(self) -> list[dict[str, Any]]:
        skeleton = [[a + 1, b + 1] for a, b in self.results.skeleton]
        names = list(self.results.keypoint_names)
        return [
            {"id": self.category_id(index), "name": name, "keypoints": names, "skeleton": skeleton}
            for index, name in enumerate(self.results.class_names())
        ]


def _have_coco_names(results: Results) -> bool:
    """Whether all images have COCO's names, with different ids."""
    seen = set()
    for entry in results.entries():
        image = None if "frame" in entry else _id_in_name(entry)
        if image is None or image in seen:
            return False
        seen.add(image)
    return bool(seen)


def _id_in_name(entry: dict[str, Any]) -> int | None:
    match = _COCO_NAME.fullmatch(entry["file_name"])
    return None if match is None else int(match[1])


class _Annotation:
    """Ids of an annotation, by file names and category names."""

    def __init__(self, results: Results):
        assert results.annotations is not None
        self.file = results.annotations
        data = _read(self.file)
        self._category_ids = _category_ids(results, data)
        self._images = _images_by_name(data["images"])
        self._missing = Tally("images that it lacks are omitted")
        self._other_size = Tally("images have another size there, so that their coordinates may not fit")
        self._number = 0
        if not any(self._find(entry) for entry in results.entries()):
            first = next((frame_name(entry) for entry in results.entries()), "no image")
            problem = f"it has none of the predicted images (the first is {first})"
            raise Fault(self.file, "images", problem, "give the annotation of these images, or omit it").error()

    def image_id(self, entry: dict[str, Any]) -> Any:
        """The id of an image; None if the annotation lacks it, since pycocotools refuses results of other images."""
        image = self._find(entry)
        if image is None:
            self._missing.add(frame_name(entry))
            return None
        self._number += 1
        size = image.get("width"), image.get("height")
        if None not in size and size != (entry["width"], entry["height"]):
            self._other_size.add(entry["file_name"])
        return image["id"]

    def category_id(self, index: int) -> int:
        if index >= len(self._category_ids):
            problem = f"class {index} of the predictions has no name to find its category by"
            raise Fault(self.file, "categories", problem, "set MODEL.CLASS_NAMES in the config of the model").error()
        return self._category_ids[index]

    def describe(self) -> str:
        source = f"image and category ids are those of {self.file}, which has {self._number} of the images"
        return "; ".join([source, *self._missing.lines(), *self._other_size.lines()])

    def _find(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """The image whose path agrees with the entry's in the most folders from its end."""
        if "frame" in entry:
            return None
        parts = _parts(entry["file_name"])
        candidates = self._images.get(parts[-1], [])
        if len(candidates) < 2:
            return candidates[0][1] if candidates else None
        agreement = [_common_end(parts, other) for other, _ in candidates]
        best = [image for count, (_, image) in zip(agreement, candidates) if count == max(agreement)]
        if len(best) > 1:
            names = " and ".join(str(image["file_name"]) for image in best[:2])
            problem = f"the image {entry['file_name']} may be {names}"
            remedy = "give --input a folder above, so that the names of its images include their folders"
            raise Fault(self.file, "images", problem, remedy).error()
        return best[0]


def _images_by_name(images: list[dict[str, Any]]) -> dict[str, list[tuple[list[str], dict[str, Any]]]]:
    """Images by the last part of their paths; those without a name or an id are skipped."""
    found = defaultdict(list)
    for image in images:
        if isinstance(image.get("file_name"), str) and "id" in image:
            parts = _parts(image["file_name"])
            found[parts[-1]].append((parts, image))
    return dict(found)


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _common_end(a: list[str], b: list[str]) -> int:
    number = 0
    for x, y in zip(reversed(a), reversed(b)):
        if x != y:
            break
        number += 1
    return number


def _read(file: str) -> dict[str, Any]:
    return read_coco_json(file, required=("images", "categories"))


def _category_ids(results: Results, data: dict[str, Any]) -> list[int]:
    """The category id of each class, by name; a single class is the only category whatever its name."""
    assert results.annotations is not None
    categories = categories_by_id(data, results.annotations)
    with_keypoints = [key for key, item in categories.items() if item.get("keypoints")] or list(categories)
    ids: dict[str, int] = {}
    for key, item in categories.items():
        ids.setdefault(item["name"], key)
    names = results.category_names or (results.class_name(0),)
    if len(names) == len(with_keypoints) == 1 and names[0] not in ids:
        return with_keypoints
    missing = [name for name in names if name not in ids]
    if missing:
        problem = f"it has no category {missing[0]!r} (it has: {', '.join(map(repr, list(ids)[:10])) or 'none'})"
        remedy = "set MODEL.CLASS_NAMES to the names of its categories, or give another annotation"
        raise Fault(results.annotations, "categories", problem, remedy).error()
    return [ids[name] for name in names]
