"""The data file of ``dynpose train --data``: annotations, images and keypoints of a custom data set in one YAML file.

.. code-block:: yaml

    train: {annotations: train.json, images: images}
    val: {annotations: val.json, images: images}  # without it, a part of train is held out
    sigmas: [0.079, 0.079, 0.072, 0.072, 0.062, 0.062]

``train`` and ``val`` may also be lists of such mappings. Paths are relative to the folder of the file; ``images``
is the folder of the annotation file unless given. docs/custom_training.md describes all keys.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

from dynpose.config import read_yaml
from dynpose.utils.atomic import atomic_open

from .categories import Selection
from .coco_json import PoseFile, expand_path, read_coco_json, read_pose_file
from .datasets import read_schema
from .known_schemas import known_schema
from .people import whole_number
from .schema import COCO_PERSON, DatasetError, match_keypoints
from .splitting import Split, split_images

__all__ = ["DataFile", "ImageSource", "proposed_sigmas", "read_data_file"]

logger = logging.getLogger(__name__)

_PARTS = ("train", "val")
_SOURCE_KEYS = ("annotations", "images")
# key of the file -> argument of register_pose_dataset
_OPTIONS = {
    "names": "keypoints",
    "pairs": "flip_pairs",
    "skeleton": "skeleton",
    "sigmas": "sigmas",
    "schema": "schema",
    "classes": "classes",
    "category": "category",
}
# keys of other programs' files -> what the file is
_OTHER_FILES = {
    "kpt_shape": "a data file of Ultralytics; convert its labels with dynpose convert-data, and write a data file",
    "nc": "a data file of YOLO; convert its labels with dynpose convert-data, and write a data file",
    "MODEL": "a config; give it with --config-file",
    "DATASETS": "a config; give it with --config-file",
    "_BASE_": "a config; give it with --config-file",
}


@dataclass(frozen=True)
class ImageSource:
    """Images and their annotation.

    Attributes:
        annotations: a file in COCO's keypoint format.
        images: the folder that its file names are relative to.
    """

    annotations: str
    images: str


@dataclass(frozen=True)
class DataFile:
    """The content of a data file; see the module.

    Attributes:
        path: the file.
        train, val: the images for training and validation; ``val`` may be empty.
        options: arguments of :func:`~dynpose.data.register_pose_dataset` for all of them.
    """

    path: str
    train: tuple[ImageSource, ...]
    val: tuple[ImageSource, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.path).stem

    def read(self, source: ImageSource) -> PoseFile:
        """Read the annotation of a source.

        Raises:
            DatasetError: a fault in the annotation, or a key of this file that does not fit it.
        """
        return read_pose_file(source.annotations, self._selection())

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """The data sets of "train" and "val", as entries of DATASETS.POSE."""
        return {part: list(self._entries(part, getattr(self, part))) for part in _PARTS}

    def completed(self) -> DataFile:
        """Check that the keys fit the annotations, and add :func:`proposed_sigmas` if there are no others.

        Raises:
            DatasetError: an annotation can't be read, or does not fit the keys.
        """
        schema, *_ = [self._read_schema(source) for source in (*self.train, *self.val)]
        sigmas = proposed_sigmas(schema.names) if schema.sigmas_are_default else None
        if sigmas is None:
            return self
        logger.info(f"{self.path} has no sigmas: all keypoints have names of COCO's, whose sigmas are used")
        return replace(self, options={**self.options, "sigmas": sigmas})

    def check_image_folders(self) -> None:
        """Check that each folder holds an image of its annotation, before files are written that name it too.

        Raises:
            DatasetError: it holds none.
        """
        for source in (*self.train, *self.val):
            names = [str(name).replace("\\", "/") for name in self.read(source).file_names]
            if names and not any(os.path.isfile(os.path.join(source.images, name)) for name in names):
                raise DatasetError(
                    f"{self.path}: none of the {len(names)} images of {source.annotations} is in {source.images} (such "
                    f"as {names[0]}); correct images, the folder that the file names start from"
                )

    def hold_out(self, folder: str | os.PathLike[str], seed: int = 0) -> DataFile:
        """Move a part of the training images to validation; see :func:`~dynpose.data.splitting.split_images`.

        Args:
            folder (str | PathLike): receives an annotation file for each part of each source: ``train.json`` and
                ``val.json``, with several sources ``train_0.json``, ``val_0.json``, ... The images stay where they are.
            seed (int): of the random choice.

        Returns:
            DataFile: with the two parts, in those files.

        Raises:
            DatasetError: a fault in the annotation, or one of the parts would have no people.
        """
        parts: dict[str, list[ImageSource]] = {part: [] for part in _PARTS}
        num_people = dict.fromkeys(_PARTS, 0)
        os.makedirs(folder, exist_ok=True)
        for i, source in enumerate(self.train):
            pose_file = self.read(source)
            split = split_images([str(name) for name in pose_file.file_names], _strata(pose_file), seed=seed)
            suffix = f"_{i}" if len(self.train) > 1 else ""
            for part in _PARTS:
                indices = getattr(split, part)
                path = os.path.join(folder, f"{part}{suffix}.json")
                if indices:
                    _write_part(source.annotations, path, {pose_file.image_ids[index] for index in indices})
                    parts[part].append(ImageSource(path, source.images))
                num_people[part] += _count_people(pose_file, set(indices))
            _log_split(source, split, seed, folder)
        if not all(num_people.values()):
            raise DatasetError(
                f"{self.path}: train has too few images with labelled people to hold some out for validation; label "
                "more images, or add val"
            )
        return replace(self, train=tuple(parts["train"]), val=tuple(parts["val"]))

    def _read_schema(self, source):
        names = self.options.get("keypoints")
        categories = read_coco_json(source.annotations)["categories"]
        counts = {len(item["keypoints"]) for item in categories if isinstance(item.get("keypoints"), list)}
        if names and counts - {0} and len(names) not in counts:
            raise DatasetError(
                f"{self.path}: names has {len(names)} names, the categories of {source.annotations} have "
                f"{', '.join(map(str, sorted(counts)))} keypoints; give one name for each, in the order of that file"
            )
        arguments = {key: value for key, value in self.options.items() if key != "classes"}
        try:
            return read_schema(source.annotations, **arguments)
        except DatasetError as error:
            raise DatasetError(f"{self.path}: {error}") from None

    def _entries(self, part, sources):
        for i, source in enumerate(sources):
            name = f"{self.name}_{part}" + (f"_{i}" if len(sources) > 1 else "")
            yield {"name": name, "json_file": source.annotations, "image_root": source.images, **self.options}

    def _selection(self):
        names = self.options.get("keypoints")
        if "schema" in self.options:
            names = known_schema(self.options["schema"]).names
        category, classes = self.options.get("category"), self.options.get("classes")
        return Selection(*map(_as_tuple, (category, classes, names)))


def read_data_file(path: str | os.PathLike[str]) -> DataFile:
    """Read a data file, and check its keys and that the files it names exist.

    Args:
        path (str | PathLike): a YAML file; see the module.

    Returns:
        DataFile

    Raises:
        ConfigError: the file is missing, empty or not a mapping in YAML.
        DatasetError: a key is unknown, missing or invalid, or a file or folder does not exist; the message names the
            file, the key and the remedy.

    Example::

        >>> data = read_data_file("hands.yaml")
        >>> data.train
        (ImageSource(annotations='/data/hands/train.json', images='/data/hands/images'),)
    """
    path = os.fspath(path)
    content = read_yaml(os.path.expanduser(path), remedy="write train: {annotations: FILE, images: FOLDER}")
    _refuse_other_files(path, content)
    _check_keys(path, "", content, (*_PARTS, *_OPTIONS))
    if "train" not in content:
        raise DatasetError(f"{path}: it has no key train; add train: {{annotations: FILE, images: FOLDER}}")
    folder = os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    train, val = (tuple(_read_sources(path, part, content.get(part), folder)) for part in _PARTS)
    options = {}
    for key, argument in _OPTIONS.items():
        if content.get(key) is not None:
            _CHECKS[key](path, key, content[key])
            options[argument] = content[key]
    if "schema" in options and "keypoints" in options:
        raise DatasetError(f"{path}: schema defines the keypoints; give names or schema, not both")
    return DataFile(path, train, val, options)


def proposed_sigmas(names: Sequence[str]) -> list[float] | None:
    """COCO's OKS sigmas, if every keypoint has the name of one of COCO's.

    Args:
        names (Sequence[str]): K keypoint names, matched by :func:`~dynpose.data.schema.match_keypoints`.

    Returns:
        list[float] | None: K; None = a keypoint has another name, and no published value applies.

    Example::

        >>> proposed_sigmas(["LEye", "REye", "nose"])
        [0.025, 0.025, 0.026]
    """
    indices = match_keypoints(names, COCO_PERSON.names)
    if any(index is None for index in indices):
        return None
    return [COCO_PERSON.sigmas[index] for index in indices if index is not None]


def _read_sources(path, part, value, folder):
    """The sources of ``train`` or ``val``."""
    if value is None:
        return
    for i, item in enumerate(value if isinstance(value, list) else [value]):
        where = f"{part}[{i}]" if isinstance(value, list) else part
        if isinstance(item, str):
            item = {"annotations": item}
        if not isinstance(item, dict):
            raise DatasetError(f"{path}: {where} is {item!r}; write {{annotations: FILE, images: FOLDER}}")
        _check_keys(path, f"{where}.", item, _SOURCE_KEYS)
        for key in _SOURCE_KEYS:
            if key in item and (not isinstance(item[key], str) or not item[key]):
                raise DatasetError(f"{path}: {where}.{key} is {item[key]!r}; write a path")
        if "annotations" not in item:
            raise DatasetError(f"{path}: {where} has no annotations; add the path of a file in COCO's keypoint format")
        annotations = _absolute(item["annotations"], folder)
        images = _absolute(item["images"], folder) if "images" in item else os.path.dirname(annotations)
        yield _existing(path, where, ImageSource(annotations, images))
    if isinstance(value, list) and not value:
        raise DatasetError(
            f"{path}: {part} is an empty list; add {{annotations: FILE, images: FOLDER}}, or omit {part}"
        )


def _absolute(name, folder):
    return os.path.normpath(os.path.join(folder, expand_path(name)))


def _existing(path, where, source):
    relative = "relative paths start from the folder of this file; correct it"
    if os.path.isdir(source.annotations):
        raise DatasetError(
            f"{path}: {where}.annotations {source.annotations} is a folder; give a file in COCO's keypoint format "
            "(dynpose convert-data makes one from other formats)"
        )
    if not os.path.isfile(source.annotations):
        raise DatasetError(f"{path}: {where}.annotations {source.annotations} does not exist; {relative}")
    if not os.path.isdir(source.images):
        raise DatasetError(f"{path}: {where}.images {source.images} is no folder; {relative}")
    return source


def _refuse_other_files(path, content):
    for key, kind in _OTHER_FILES.items():
        if key in content:
            raise DatasetError(f"{path}: its key {key} is that of {kind}")
    if {"images", "annotations"} <= content.keys():
        raise DatasetError(f"{path}: it is an annotation file; write a data file with train: {{annotations: {path}}}")


def _check_keys(path, prefix, content, known):
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key).lower(), known, n=1)
            guess = f"did you mean {close[0]}? " if close else ""
            raise DatasetError(f"{path}: unknown key {prefix}{key}; {guess}Known are {', '.join(known)}")


def _check_names(path, key, value):
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise DatasetError(f"{path}: {key} is {str(value)[:80]}; write a list of names")
    twice = [name for name, count in Counter(value).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: {key} has {', '.join(twice)} more than once; write each name once")


def _check_pairs(path, key, value):
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise DatasetError(f"{path}: {key} has {str(pair)[:80]}; write a list of [left name, right name]")


def _check_limbs(path, key, value):
    for limb in value if isinstance(value, list) else [value]:
        if not isinstance(limb, list) or len(limb) != 2:
            raise DatasetError(f"{path}: {key} has {str(limb)[:80]}; write a list of [name, name]")


def _check_sigmas(path, key, value):
    numbers = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not all(
        isinstance(sigma, Real) and not isinstance(sigma, bool) and sigma > 0 for sigma in numbers
    ):
        raise DatasetError(f"{path}: {key} is {str(value)[:80]}; write a list with a positive number for each keypoint")


def _check_schema(path, key, value):
    try:
        known_schema(value)
    except (DatasetError, AttributeError, TypeError) as error:
        raise DatasetError(f"{path}: {key} is {value!r}: {error}") from None


def _check_category(path, key, value):
    if not isinstance(value, str):
        _check_names(path, key, value)


_CHECKS: dict[str, Callable[[str, str, Any], None]] = {
    "names": _check_names,
    "pairs": _check_pairs,
    "skeleton": _check_limbs,
    "sigmas": _check_sigmas,
    "schema": _check_schema,
    "classes": _check_names,
    "category": _check_category,
}


def _as_tuple(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _strata(pose_file):
    """(I,) the rarest class among the labelled people of each image; None for an image without any."""
    by_image = defaultdict(set)
    for image, label in _labelled_people(pose_file):
        by_image[image].add(label)
    counts = Counter(label for labels in by_image.values() for label in labels)
    rarest = {image: min(labels, key=lambda label: (counts[label], label)) for image, labels in by_image.items()}
    return [rarest.get(i) for i in range(len(pose_file.image_ids))]


def _labelled_people(pose_file: PoseFile) -> Iterable[tuple[int, int]]:
    """(image, class) of all people with a labelled keypoint, except crowds."""
    people = pose_file.people
    if people is None:
        return []
    used = (people.keypoints[:, :, 2] > 0).any(axis=1) & ~people.iscrowd
    return zip(people.images[used].tolist(), people.classes[used].tolist())


def _count_people(pose_file, images):
    return sum(image in images for image, _ in _labelled_people(pose_file))


def _write_part(source, path, image_ids):
    """Write the images with these ids, their annotations, and everything else of the file."""
    content = read_coco_json(source)
    content["images"] = [image for image in content["images"] if _id(image.get("id")) in image_ids]
    content["annotations"] = [item for item in content["annotations"] if _id(item.get("image_id")) in image_ids]
    with atomic_open(path) as f:
        json.dump(content, f)


def _id(value):
    """An id as the reader has it: 7.0 is 7."""
    number = whole_number(value)
    return value if number is None else number


def _log_split(source, split: Split, seed, folder):
    number, total = len(split.val), len(split.train) + len(split.val)
    kept_together = {
        "folder": f", in whole folders ({split.num_units})",
        "sequence": f", in whole sequences ({split.num_units}; their names differ in the number at their end only)",
        "source image": f", with all augmented copies of an image on one side ({split.num_units} source images)",
        "image": "",
    }[split.unit]
    logger.info(
        f"{source.annotations}: there is no val, so {number} of {total} images are held out for validation, at random "
        f"with seed {seed}{kept_together}: the parts are in {folder}"
    )
