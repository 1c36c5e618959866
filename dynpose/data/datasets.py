"""Registering pose data sets with detectron2: custom ones, those of a config, and COCO keypoints.

Importing this module adds the parts of COCO that detectron2's registry lacks: the test-dev images, and the OKS sigmas
in the metadata of ``keypoints_coco_*``. It opens no file.
"""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .categories import Selection
from .coco_json import PoseFile, expand_path, load_pose_json, log_remarks, read_pose_file
from .faults import short
from .known_schemas import known_schema
from .rules import Remarks
from .schema import COCO_PERSON, CROWDPOSE_PERSON, DatasetError, KeypointSchema

__all__ = [
    "annotation_files",
    "check_dataset_files",
    "read_crowd_indices",
    "register_datasets_from_cfg",
    "register_pose_dataset",
]

logger = logging.getLogger(__name__)

_BEYOND_FLOAT = 1e308
_COCO_TEST_DEV = "keypoints_coco_2017_test-dev"
_PROTOCOLS = ("coco", "crowdpose")
_SYNTHETIC = ("synthetic_pose_train", "synthetic_pose_val")


def register_pose_dataset(
    name: str,
    json_file: Path | str,
    image_root: Path | str,
    *,
    category: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    class_name: str | None = None,
    schema: str | None = None,
    keypoints: Sequence[str] | None = None,
    skeleton: Sequence[Sequence[int | str]] | None = None,
    flip_pairs: Sequence[Sequence[str]] | None = None,
    sigmas: Sequence[float] | None = None,
    protocol: str = "coco",
) -> KeypointSchema:
    """Register a COCO-format keypoint file with detectron2's DatasetCatalog and MetadataCatalog.

    The file is read immediately, for the metadata, and cached for the first use of the data set.

    Args:
        name (str): name of the data set in ``cfg.DATASETS.TRAIN`` and ``TEST``.
        json_file (str | Path): the annotation file; ``~`` is the user's home.
        image_root (str | Path): the folder that the file names are relative to.
        category (str | Sequence[str]): name of the one category to use, names of categories that are learned as one
            class, or "all as one"; None = all categories with keypoints, each a separate class.
        classes (Sequence[str]): names of the classes in the order of their indices. Categories of other names are
            skipped. None = all, in the order of the category ids.
        class_name (str): name of a single class; None = the name of its category or, for several categories as one,
            their common supercategory.
        schema (str): a known schema, such as "coco" or "coco_wholebody" (docs/schemas.md): its names, limbs, pairs and
            sigmas replace those of the file.
        keypoints (Sequence[str]): K keypoint names that replace those of the file, which may have none.
        skeleton, flip_pairs, sigmas: replacements for those of the file or of ``schema``; see
            :meth:`KeypointSchema.from_category`.
        protocol (str): evaluation protocol: "coco", or "crowdpose" (see docs/evaluation.md), which needs a
            ``crowdIndex`` for each image. With the latter and CrowdPose's 14 keypoints, the limbs and, unless they are
            given, the sigmas are those of :data:`CROWDPOSE_PERSON`, regardless of the file.

    Returns:
        KeypointSchema: the schema of the data set.

    Raises:
        DatasetError: the file has no usable category or lacks data that the protocol needs, or the name is already
            taken by another data set. Registering the same data set again is no error and does nothing.

    Example::

        >>> register_pose_dataset("hands_train", "hands/train.json", "hands/images")
        >>> cfg.DATASETS.TRAIN = ("hands_train",)
    """
    dataset = _PoseDataset(
        json_file=expand_path(json_file),
        image_root=expand_path(image_root),
        category=_as_tuples(category),
        classes=_as_tuples(classes),
        class_name=class_name,
        schema=schema,
        keypoints=_as_tuples(keypoints),
        skeleton=_as_tuples(skeleton),
        flip_pairs=_as_tuples(flip_pairs),
        sigmas=_as_tuples(sigmas),
        protocol=protocol,
    )
    _check_arguments(name, dataset)
    if name in DatasetCatalog:
        if DatasetCatalog[name] != dataset:
            raise DatasetError(
                f"a data set {name!r} is already registered, as {DatasetCatalog[name]}, which is not {dataset}; choose "
                f"another name, or remove the first from DatasetCatalog and MetadataCatalog"
            )
        return KeypointSchema.from_metadata(MetadataCatalog.get(name))

    # The loader reports faulty annotations when the data set is used.
    (pose_file,) = dataset.read_files(on_fault=lambda fault: None)
    keypoint_schema = _read_schema(pose_file.classes[0].category, dataset)
    if protocol == "crowdpose":
        # Checked now, as a missing index would otherwise be reported at the first evaluation, hours into a run
        read_crowd_indices(pose_file)
    lacking = [item.name for item in pose_file.classes if not item.category_ids]
    if lacking:
        logger.warning("%s: it has no instances of the classes %s", dataset.json_file, ", ".join(lacking))
    metadata = MetadataCatalog.get(name)
    keypoint_schema.to_metadata(metadata)
    metadata.set(
        json_file=dataset.json_file,
        image_root=dataset.image_root,
        evaluator_type="pose",
        keypoint_protocol=protocol,
        thing_classes=[item.name for item in pose_file.classes],
        thing_dataset_id_to_contiguous_id={
            category_id: i for i, item in enumerate(pose_file.classes) for category_id in item.category_ids
        },
    )
    DatasetCatalog.register(name, dataset)
    return keypoint_schema


@dataclass(frozen=True)
class _PoseDataset:
    """The function in DatasetCatalog that returns the dicts; data sets with the same arguments compare equal."""

    json_file: str
    image_root: str
    category: str | tuple | None = None
    classes: tuple | None = None
    class_name: str | None = None
    schema: str | None = None
    keypoints: tuple | None = None
    skeleton: tuple | None = None
    flip_pairs: tuple | None = None
    sigmas: tuple | None = None
    protocol: str = "coco"

    def __call__(self, *, on_remarks=None, **options):
        """Load the dicts; options are those of :func:`load_pose_json`."""
        selection = self._selection()
        options["on_remarks"] = remarks_of_protocol(self.protocol, self.json_file, on_remarks)
        return load_pose_json(
            self.json_file,
            self.image_root,
            category=selection.category,
            classes=selection.classes,
            keypoints=selection.keypoints,
            class_name=selection.class_name,
            **options,
        )

    def read_files(self, **options):
        """Read images and annotations, without the image folder; options are those of :func:`read_pose_file`.

        Returns:
            list[PoseFile]
        """
        return [read_pose_file(self.json_file, self._selection(), **options)]

    def _selection(self):
        keypoints = self.keypoints if self.schema is None else known_schema(self.schema).names
        return Selection(self.category, self.classes, keypoints, self.class_name)


def remarks_of_protocol(
    protocol: str, source: str, on_remarks: Callable[[Remarks], None] | None = None
) -> Callable[[Remarks], None] | None:
    """A callback for the remarks of a data set that drops those its protocol makes pointless.

    CrowdPose's annotation has no areas, and its evaluation uses none.

    Args:
        protocol (str): see :func:`register_pose_dataset`.
        source (str): the file, for the log.
        on_remarks (Callable[[Remarks], None]): see :func:`load_pose_json`.

    Returns:
        Callable[[Remarks], None] | None: None = the default of ``load_pose_json``.
    """
    if protocol != "crowdpose":
        return on_remarks

    def take(remarks):
        remarks.drop("missing area")
        (on_remarks or functools.partial(log_remarks, source))(remarks)

    return take


def _check_arguments(name, dataset):
    if dataset.protocol not in _PROTOCOLS:
        raise DatasetError(
            f"data set {name!r}: unknown protocol {dataset.protocol!r}; known are {', '.join(_PROTOCOLS)}"
        )
    if dataset.schema is not None and dataset.keypoints is not None:
        raise DatasetError(
            f"data set {name!r}: schema {dataset.schema!r} defines the keypoints; give keypoints or schema, not both"
        )
    for key in ("category", "classes", "keypoints"):
        value = getattr(dataset, key)
        is_text = key == "category" and isinstance(value, str)
        is_names = isinstance(value, tuple) and value and all(isinstance(item, str) for item in value)
        if value is not None and not is_text and not is_names:
            raise DatasetError(f"data set {name!r}: {key} is {value!r}; write a list of names")
        if is_names and len(set(value)) < len(value):
            raise DatasetError(f"data set {name!r}: {key} names one twice: {', '.join(value)}; write each once")
    if dataset.class_name is not None and (not isinstance(dataset.class_name, str) or not dataset.class_name):
        raise DatasetError(f"data set {name!r}: class_name is {dataset.class_name!r}; write a name")


def _as_tuples(value):
    """Convert lists from YAML to tuples, so that data sets can be compared."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def read_schema(
    json_file: Path | str,
    *,
    category: str | Sequence[str] | None = None,
    keypoints: Sequence[str] | None = None,
    schema: str | None = None,
    skeleton: Sequence[Sequence[int | str]] | None = None,
    flip_pairs: Sequence[Sequence[str]] | None = None,
    sigmas: Sequence[float] | None = None,
) -> KeypointSchema:
    """Read the keypoint schema of a COCO-format file.

    Args:
        json_file, category, keypoints, schema, skeleton, flip_pairs, sigmas: see :func:`register_pose_dataset`.

    Returns:
        KeypointSchema

    Raises:
        DatasetError: the file cannot be read or has no usable category.
    """
    dataset = _PoseDataset(
        expand_path(json_file),
        "",
        category=_as_tuples(category),
        keypoints=_as_tuples(keypoints),
        schema=schema,
        skeleton=_as_tuples(skeleton),
        flip_pairs=_as_tuples(flip_pairs),
        sigmas=_as_tuples(sigmas),
    )
    _check_arguments(json_file, dataset)
    (pose_file,) = dataset.read_files(on_fault=lambda fault: None)
    return _read_schema(pose_file.classes[0].category, dataset)


def _read_schema(category, dataset):
    given = {"flip_pairs": dataset.flip_pairs, "sigmas": dataset.sigmas}
    if dataset.schema is not None or (
        dataset.protocol == "crowdpose" and tuple(category["keypoints"]) == CROWDPOSE_PERSON.names
    ):
        known = CROWDPOSE_PERSON if dataset.schema is None else known_schema(dataset.schema)
        category = {
            "name": category["name"],
            "keypoints": list(known.names),
            "skeleton": [[a + 1, b + 1] for a, b in known.skeleton],
        }
        defaults = {
            "flip_pairs": known.flip_pairs,
            "sigmas": None if known.sigmas_are_default else known.sigmas,
        }
        given = {key: defaults[key] if value is None else value for key, value in given.items()}
    return KeypointSchema.from_category(category, skeleton=dataset.skeleton, source=dataset.json_file, **given)


def read_crowd_indices(pose_file: PoseFile) -> dict[int | str, float]:
    """Read CrowdPose's crowd index of each image: 0 if no box holds keypoints of other people; unbounded above.

    Args:
        pose_file (PoseFile): a COCO-format file with a ``crowdIndex`` for each image.

    Returns:
        dict[int | str, float]: image id -> crowd index.

    Raises:
        DatasetError: the index of an image is missing or not a finite number of at least 0.
    """
    indices = {}
    for image_id, value in zip(pose_file.image_ids, pose_file.crowd_indices):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _BEYOND_FLOAT:
            raise DatasetError(
                f"{pose_file.json_file}: image {image_id!r}: crowdIndex is {short(value)}, but CrowdPose's protocol "
                "groups the images by it; write a number of at least 0, or evaluate with protocol: coco"
            )
        indices[image_id] = float(value)
    return indices


def register_datasets_from_cfg(cfg: CfgNode) -> None:
    """Register ``cfg.DATASETS.POSE``, and the synthetic people if ``DATASETS.TRAIN`` or ``TEST`` names them.

    Data sets that the config uses get the classes of the model: those of ``cfg.MODEL.CLASS_NAMES``, else of the first
    of ``DATASETS.TRAIN`` (or ``TEST``). A file that has the same names in another order, or some of them, is read in
    the model's order; a file with other names is registered unchanged, and the check of classes reports it.

    It can be called repeatedly.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.

    Raises:
        DatasetError: an entry has unknown or missing keys, or see :func:`register_pose_dataset`.
    """
    entries: dict[str, dict[str, Any]] = {}
    for i, entry in enumerate(cfg.DATASETS.POSE):
        _check_entry(entry, f"DATASETS.POSE[{i}]")
        if entries.setdefault(entry["name"], entry) != entry:
            raise DatasetError(f"DATASETS.POSE names two data sets {entry['name']!r}; give each its own name")
    used = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    model_classes = list(cfg.MODEL.CLASS_NAMES)
    for name in used:
        if name in entries:
            # if two training sets of one class each name it differently, the user has to reconcile them
            may_rename = name not in cfg.DATASETS.TRAIN or bool(cfg.MODEL.CLASS_NAMES)
            _register_for_classes(entries[name], model_classes, may_rename)
        if not model_classes and name in DatasetCatalog:
            model_classes = list(MetadataCatalog.get(name).get("thing_classes") or [])
    for name, entry in entries.items():
        if name not in used:
            register_pose_dataset(**entry)
    if set(_SYNTHETIC) & set(used):
        from .synthetic import register_synthetic_pose_from_cfg

        register_synthetic_pose_from_cfg(cfg)


def _register_for_classes(entry, model_classes, may_rename):
    """Register a data set with its classes in the model's order; a single class takes the model's name."""
    name = entry["name"]
    earlier = DatasetCatalog[name] if name in DatasetCatalog else None  # noqa: SIM401  get() would load it
    if isinstance(earlier, _PoseDataset) and (earlier.classes, earlier.class_name) != (None, None):
        # registered for an earlier config of this process
        _forget(name)
    register_pose_dataset(**entry)
    found = list(MetadataCatalog.get(name).thing_classes)
    if "classes" in entry or "class_name" in entry or not model_classes or found == model_classes:
        return
    if len(found) == len(model_classes) == 1:
        if not may_rename:
            return
        logger.warning(
            "data set %r calls its one class %r, the model %r: they are treated as the same class",
            name,
            *found,
            *model_classes,
        )
        changed = {"class_name": model_classes[0]}
    elif set(found) <= set(model_classes):
        logger.info("data set %r has the classes %s: read in the model's order", name, ", ".join(found))
        changed = {"classes": model_classes}
    else:
        return
    _forget(name)
    register_pose_dataset(**entry, **changed)


def _forget(name):
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def annotation_files(name: str) -> list[str]:
    """List the annotation files of a registered data set.

    Args:
        name (str): a registered data set.

    Returns:
        list[str]: ``json_file`` of its metadata. If that file is missing and the metadata name ``parts``, the data sets
        that make it up, their files. Empty for a data set without a file.
    """
    metadata = MetadataCatalog.get(name)
    json_file, parts = metadata.get("json_file"), metadata.get("parts", ())
    if parts and not PathManager.exists(json_file):
        return [MetadataCatalog.get(part).json_file for part in parts]
    return [] if json_file is None else [json_file]


def check_dataset_files(name: str, *, images: bool = True) -> None:
    """Check that the files of a registered data set exist, before a long run is set up.

    Meant for the built-in data sets, ``keypoints_coco_*`` and those of :mod:`dynpose.data.crowd_datasets`; data sets of
    :func:`register_pose_dataset` are checked thoroughly when they are loaded.

    Args:
        name (str): a registered data set.
        images (bool): check the image folder too.

    Raises:
        DatasetError: its annotation file or its image folder is missing; the message gives the path and how to get the
            data set.
    """
    metadata = MetadataCatalog.get(name)
    remedy = metadata.get("how_to_get", "check the paths it was registered with")
    if name.startswith("keypoints_coco_"):
        remedy = (
            "download COCO (https://cocodataset.org) and set the environment variable DETECTRON2_DATASETS to the "
            "folder that holds coco/"
        )
    paths = annotation_files(name)
    for path in [*paths, metadata.get("image_root")] if images else paths:
        if path is None or PathManager.exists(path):
            continue
        instead = ""
        if path in paths and path != metadata.json_file:
            instead = f", nor does {_absolute(metadata.json_file)}, which combines {' and '.join(metadata.parts)}"
        raise DatasetError(f"data set {name!r}: {_absolute(path)} does not exist{instead}; {remedy}")


def _absolute(path):
    """Make a path absolute: a relative one means little without the job's working directory."""
    return path if "://" in path else os.path.abspath(path)


_REQUIRED = ("name", "json_file", "image_root")
_OPTIONAL = ("category", "classes", "class_name", "schema", "keypoints", "skeleton", "flip_pairs", "sigmas", "protocol")


def _check_entry(entry, where):
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} is {entry!r}: write a mapping with the keys {', '.join(_REQUIRED)}")
    unknown = [key for key in entry if key not in _REQUIRED + _OPTIONAL]
    if unknown:
        raise DatasetError(
            f"{where} has unknown keys {', '.join(map(repr, unknown))}; allowed are {', '.join(_REQUIRED + _OPTIONAL)}"
        )
    for key in _REQUIRED:
        if key in entry and (not isinstance(entry[key], str) or not entry[key]):
            raise DatasetError(f"{where}: {key} is {entry[key]!r}; write a string")
    missing = [key for key in _REQUIRED if key not in entry]
    if missing:
        raise DatasetError(f"{where} ({entry.get('name', 'without a name')}) lacks {', '.join(missing)}; add it")


def _complete_coco():
    """Add the sigmas to detectron2's metadata of COCO keypoints, and register test-dev."""
    for name in DatasetCatalog:
        if name.startswith("keypoints_coco_") and name != _COCO_TEST_DEV:
            MetadataCatalog.get(name).set(keypoint_sigmas=COCO_PERSON.sigmas, keypoint_sigmas_are_default=False)
    if _COCO_TEST_DEV in DatasetCatalog:
        return
    val = MetadataCatalog.get("keypoints_coco_2017_val")
    json_file = os.path.join(os.path.dirname(val.json_file), "image_info_test-dev2017.json")
    image_root = os.path.join(os.path.dirname(val.image_root), "test2017")
    DatasetCatalog.register(_COCO_TEST_DEV, functools.partial(load_pose_json, json_file, image_root, annotated=False))
    MetadataCatalog.get(_COCO_TEST_DEV).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="pose",
        thing_classes=val.thing_classes,
        thing_dataset_id_to_contiguous_id={1: 0},
        keypoint_names=val.keypoint_names,
        keypoint_flip_map=val.keypoint_flip_map,
        keypoint_connection_rules=val.keypoint_connection_rules,
        keypoint_sigmas=val.keypoint_sigmas,
        keypoint_sigmas_are_default=val.keypoint_sigmas_are_default,
    )


_complete_coco()
