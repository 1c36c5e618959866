"""Reading predictions of dynpose and of other tools into COCO's results format.

Known are the results files of detectron2, mmpose and COCO's own tools (a list of predictions with the data set's image
and category ids), Ultralytics' predictions.json (the same, with the file's stem as image id where that is no number,
and x, y alone for keypoints without visibility), and the predictions.json of ``dynpose predict``.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dynpose.data import DatasetError
from dynpose.data.faults import short
from dynpose.data.match_names import match_keypoints
from dynpose.evaluation.ground_truth import GroundTruth

__all__ = ["Results", "read_results"]


class Results:
    """Predictions of a file that fit a data set.

    Attributes:
        detections (list[dict]): in COCO's results format, with the data set's ids and K keypoints; all numbers finite.
        missing_keypoints (list[int]): keypoints of the data set that the predictions lack by name; they are 0, 0, 0.
        remarks (list[str]): what was skipped or adapted, one sentence each.
    """

    def __init__(self) -> None:
        self.detections: list[dict] = []
        self.missing_keypoints: list[int] = []
        self.remarks: list[str] = []


def read_results(
    path: str | os.PathLike,
    ground_truth: GroundTruth,
    names: Sequence[str],
    *,
    class_names: Sequence[str],
    class_of: dict[int, int],
) -> Results:
    """Read a file of predictions.

    Args:
        path: a results file in COCO's format, or predictions.json of ``dynpose predict``.
        ground_truth: of the data set that was predicted.
        names: its K keypoint names.
        class_names: of its classes.
        class_of: the data set's category id -> class.

    Raises:
        DatasetError: the file is missing or in another format, a prediction lacks something or has another number of
            keypoints, or no prediction is of an image, or of a category, of the data set.
    """
    data = _read_json(path)
    images = _ImageNames(ground_truth, path)
    results = Results()
    if isinstance(data, list):
        records = _of_coco_results(data, path, images, len(names))
        category_of: _CategoryIds | _CategoryNames = _CategoryIds(ground_truth.category_ids, class_of)
    elif isinstance(data, dict) and isinstance(data.get("images"), list) and isinstance(data.get("info"), dict):
        matched = _matched_keypoints(data["info"], names, path, results)
        records = _of_predict(data["images"], path, images, matched, results)
        category_of = _CategoryNames(ground_truth.category_ids, class_names)
    else:
        raise DatasetError(
            f"{path}: it holds no predictions: give a list in COCO's results format (image_id, category_id, keypoints, "
            f"score), or the predictions.json of dynpose predict"
        )
    _collect(records, category_of, results)
    _check_unknown(images, category_of, results, path)
    return results


def _read_json(path: str | os.PathLike) -> object:
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{path}: the file does not exist; give the file of predictions") from None
    except OSError as error:
        raise DatasetError(f"{path}: the file cannot be read ({error.strerror or error}); check it") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: the file is no valid JSON ({error}); it may be cut off: copy it again") from None


class _ImageNames:
    """The data set's image ids by what other tools write: the id, its digits, the file's name or stem."""

    def __init__(self, ground_truth: GroundTruth, path: str | os.PathLike):
        self._path = path
        self._ids = ground_truth.image_numbers.keys()
        self.unknown: Counter = Counter()
        self._by_name: dict[str, set] = defaultdict(set)
        for image_id in ground_truth.image_ids:
            self._by_name[str(image_id)].add(image_id)
            file_name = ground_truth.image_files.get(image_id, (None,))[0]
            if isinstance(file_name, str):
                for name in _names_of(file_name):
                    self._by_name[name].add(image_id)

    def find(self, image_id: object, where: str) -> int | str | None:
        """The data set's id; None = the data set has no such image, which is counted."""
        if isinstance(image_id, float) and image_id.is_integer():
            image_id = int(image_id)
        # True equals 1
        if isinstance(image_id, (int, str)) and not isinstance(image_id, bool) and image_id in self._ids:
            return image_id
        for name in _names_of(str(image_id)):
            found = self._by_name.get(name, set())
            if len(found) > 1:
                raise DatasetError(
                    f"{self._path}: {where}: image {short(image_id)} may be any of {len(found)} images of the "
                    f"annotation ({', '.join(map(short, sorted(found, key=str)[:3]))}); write their ids"
                )
            if found:
                return next(iter(found))
        self.unknown[short(image_id)] += 1
        return None


def _names_of(file_name: str) -> list[str]:
    """The path, the name, the stem and the number of a file, the most specific first."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    # a stem such as "a.b" has no suffix of an image
    stem = path.stem if path.suffix.lower().lstrip(".").isalpha() else path.name
    number = [stem.lstrip("0") or "0"] if stem.isascii() and stem.isdigit() else []
    return list(dict.fromkeys([str(path), path.name, stem, *number]))


class _CategoryIds:
    """The data set's category ids; predictions of a single class may have none."""

    def __init__(self, category_ids: Sequence[int], class_of: dict[int, int]):
        self._ids = list(category_ids)
        self._class_of = class_of or {category_id: i for i, category_id in enumerate(category_ids)}
        self.unknown: Counter = Counter()

    def find(self, record: dict) -> int | None:
        category_id = record["category"]
        if category_id is None and len(self._ids) == 1:
            return self._ids[0]
        if isinstance(category_id, str) and category_id.isascii() and category_id.isdecimal():
            category_id = int(category_id) if len(category_id) < 20 else category_id
        is_id = isinstance(category_id, (int, float)) and not isinstance(category_id, bool)
        index = self._class_of.get(category_id) if is_id else None
        if index is None:
            self.unknown[short(category_id)] += 1
            return None
        return self._ids[index]

    @property
    def known(self) -> str:
        return ", ".join(map(str, self._class_of))


class _CategoryNames:
    """The data set's category ids by the class names of ``dynpose predict``."""

    def __init__(self, category_ids: Sequence[int], class_names: Sequence[str]):
        self._ids, self._names = list(category_ids), list(class_names)
        self.unknown: Counter = Counter()

    def find(self, record: dict) -> int | None:
        index, name = record["category"]
        if len(self._ids) == 1 and index == 0:
            return self._ids[0]
        if name in self._names:
            return self._ids[self._names.index(name)]
        if name is None and index < len(self._ids):
            return self._ids[index]
        self.unknown[short(index if name is None else name)] += 1
        return None

    @property
    def known(self) -> str:
        return ", ".join(self._names)


def _of_coco_results(data: list, path: str | os.PathLike, images: _ImageNames, num_keypoints: int) -> Iterable[dict]:
    """Yield ``image_id`` (None = unknown), ``category``, ``keypoints`` (3K), ``score`` and ``bbox`` or None."""
    for i, item in enumerate(data):
        where = f"predictions[{i}]"
        if not isinstance(item, dict):
            raise DatasetError(f"{path}: {where} is {short(item)}; write an object with image_id, keypoints and score")
        for key in ("image_id", "keypoints", "score"):
            if item.get(key) is None:
                raise DatasetError(
                    f"{path}: {where} has no {key!r}; write results of keypoints, not of boxes, in COCO's format"
                )
        yield {
            "image_id": images.find(item["image_id"], where),
            "category": item.get("category_id"),
            "keypoints": _keypoints(item["keypoints"], num_keypoints, f"{path}: {where}"),
            "score": _number(item["score"], f"{path}: {where}: score"),
            "bbox": _box(item.get("bbox"), f"{path}: {where}"),
        }


def _of_predict(
    entries: list, path: str | os.PathLike, images: _ImageNames, matched: Sequence[int | None], results: Results
) -> Iterable[dict]:
    """Yield the predictions of ``dynpose predict`` as :func:`_of_coco_results` does."""
    num_predicted = 1 + max((index for index in matched if index is not None), default=-1)
    for i, entry in enumerate(entries):
        name = _get(entry, "file_name", str, f"{path}: images[{i}]")
        where = f"{path}: image {short(name)}"
        image_id = images.find(name, f"image {short(name)}")
        for person in _get(entry, "instances", list, where):
            points = _get(person, "keypoints", list, f"{where}: a person")
            if len(points) < num_predicted:
                raise DatasetError(
                    f"{where}: a person has {len(points)} keypoints, and info.keypoint_names has {num_predicted} or "
                    f"more; predict again"
                )
            if not all(isinstance(point, list) and len(point) == 3 for point in points):
                raise DatasetError(
                    f"{where}: keypoints is {short(points)}; write x, y and confidence of each: predict again"
                )
            flat = [v for i in matched for v in (points[i] if i is not None else (0, 0, 0))]
            yield {
                "image_id": image_id,
                "category": _class(person, where),
                "keypoints": _keypoints(flat, len(matched), where),
                "score": _number(person.get("score"), f"{where}: score"),
                "bbox": _box(person.get("bbox"), where),
            }


def _get(item: object, key: str, kind: type, where: str) -> Any:
    """A value of predictions.json.

    Raises:
        DatasetError: the item is no object, or its value is missing or of another type.
    """
    if not isinstance(item, dict):
        raise DatasetError(
            f"{where} is {short(item)}, not an object; the file is not of dynpose predict: predict again"
        )
    if not isinstance(item.get(key), kind):
        problem = f"{key} is {short(item[key])}" if key in item else f"there is no {key!r}"
        raise DatasetError(f"{where}: {problem}; the file is not of dynpose predict: predict again")
    return item[key]


def _class(person: dict, where: str) -> tuple[int, str | None]:
    """Index and name of a person's class; None = the file has no name."""
    index, name = _get(person, "category", int, where), person.get("category_name")
    if index < 0 or not isinstance(name, (str, type(None))):
        raise DatasetError(
            f"{where}: category {short(index)}, category_name {short(name)}; write the number of a class from 0 on and "
            f"its name: predict again"
        )
    return index, name


def _matched_keypoints(
    info: dict, names: Sequence[str], path: str | os.PathLike, results: Results
) -> Sequence[int | None]:
    """For each keypoint of the data set the predicted one of the same name."""
    predicted = info.get("keypoint_names")
    if not isinstance(predicted, list) or not predicted or not all(isinstance(name, str) for name in predicted):
        problem = f"keypoint_names is {short(predicted)}" if predicted else "there are no keypoint_names"
        raise DatasetError(f"{path}: info: {problem}; the file is not of dynpose predict: predict again")
    if tuple(predicted) == tuple(names):
        return range(len(names))
    matched = match_keypoints(tuple(names), tuple(predicted))
    results.missing_keypoints = [i for i, index in enumerate(matched) if index is None]
    if len(results.missing_keypoints) == len(names):
        raise DatasetError(
            f"{path}: its keypoints ({', '.join(predicted)}) and those of the annotation ({', '.join(names)}) have no "
            f"name in common; give the annotation of the images that were predicted"
        )
    lacking = ", ".join(names[i] for i in results.missing_keypoints)
    results.remarks.append(
        "The keypoints are matched by name"
        + (f"; the predictions lack {lacking}, which count as not labelled." if lacking else ".")
    )
    return matched


def _collect(records: Iterable[dict], category_of: _CategoryIds | _CategoryNames, results: Results) -> None:
    not_finite = 0
    for record in records:
        category_id = category_of.find(record)
        if record["image_id"] is None or category_id is None:
            continue
        numbers = [*record["keypoints"], record["score"], *(record["bbox"] or ())]
        if not all(map(math.isfinite, numbers)):
            not_finite += 1
            continue
        detection = {
            "image_id": record["image_id"],
            "category_id": category_id,
            "keypoints": record["keypoints"],
            "score": record["score"],
        }
        if record["bbox"] is not None:
            detection["bbox"] = record["bbox"]
        results.detections.append(detection)
    if not_finite:
        results.remarks.append(
            f"{not_finite} predictions with a NaN or infinite number are skipped: the model may have diverged."
        )


def _check_unknown(
    images: _ImageNames, category_of: _CategoryIds | _CategoryNames, results: Results, path: str | os.PathLike
) -> None:
    for unknown, what, known in (
        (images.unknown, "image", "by id, file name or stem"),
        (category_of.unknown, "category", f"it has {category_of.known}"),
    ):
        if not unknown:
            continue
        first = ", ".join(list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        if not results.detections:
            raise DatasetError(
                f"{path}: no prediction is of {'an image' if what == 'image' else 'a category'} of the annotation "
                f"({known}): {first}; give the annotation of the images that were predicted"
            )
        results.remarks.append(
            f"{sum(unknown.values())} predictions are skipped: the annotation has no {what} {first}."
        )


def _keypoints(values: object, num_keypoints: int, where: str) -> list[float]:
    """3K numbers; of 2K, x and y alone, the confidence is 1."""
    if isinstance(values, (list, tuple)) and values and all(isinstance(point, (list, tuple)) for point in values):
        values = [number for point in values for number in point]
    if not isinstance(values, (list, tuple)):
        raise DatasetError(f"{where}: keypoints is {short(values)}; write 3 numbers for each keypoint")
    if len(values) == 2 * num_keypoints:
        _check_pairs(values, where)
        values = [number for x, y in zip(values[0::2], values[1::2]) for number in (x, y, 1.0)]
    if len(values) != 3 * num_keypoints:
        raise DatasetError(
            f"{where}: keypoints has {len(values)} numbers, but the annotation's {num_keypoints} keypoints make "
            f"{3 * num_keypoints}; give the annotation of the data set that was predicted, or name its keypoints with "
            f"--schema or --keypoints"
        )
    return [_number(value, f"{where}: keypoints") for value in values]


def _check_pairs(values: Sequence, where: str) -> None:
    """Refuse 2K numbers that are rather x, y and confidence of another number of keypoints, such as 42 for K = 21."""
    thirds = values[2::3] if len(values) % 3 == 0 else ()
    numbers = [value for value in thirds if isinstance(value, (int, float))]
    if numbers and len(numbers) == len(thirds) and all(0 <= value <= 2 for value in numbers) and any(numbers):
        raise DatasetError(
            f"{where}: keypoints has {len(values)} numbers, x, y and confidence of {len(thirds)} keypoints, but the "
            f"annotation has {len(values) // 2}; give the annotation of the data set that was predicted"
        )


def _box(values: object, where: str) -> list[float] | None:
    if values is None:
        return None
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        raise DatasetError(f"{where}: bbox is {short(values)}; write [x, y, width, height], or no bbox")
    return [_number(value, f"{where}: bbox") for value in values]


def _number(value: object, where: str) -> float:
    """A number; null, as strict JSON has for NaN, is NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DatasetError(f"{where} has {short(value)} where a number belongs; correct it")
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of floating-point numbers
        return math.inf
