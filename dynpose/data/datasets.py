"""Registering pose data sets with detectron2: people's own, those of a config, and COCO's keypoints.

Importing this module adds to detectron2's registry what it lacks of COCO: the test-dev images, and the OKS sigmas in
the metadata of ``keypoints_coco_*``. It opens no file.
"""

import functools
import os
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco_json import load_pose_json, read_coco_json, select_categories
from .schema import COCO_PERSON, DatasetError, KeypointSchema

__all__ = ["check_dataset_files", "register_datasets_from_cfg", "register_pose_dataset"]

_COCO_TEST_DEV = "keypoints_coco_2017_test-dev"
_SYNTHETIC = ("synthetic_pose_train", "synthetic_pose_val")


def register_pose_dataset(name, json_file, image_root, *, category=None, flip_pairs=None, sigmas=None):
    """Register a COCO-format keypoint file with detectron2's DatasetCatalog and MetadataCatalog.

    The categories of the file are read now, for the metadata; images and annotation when the data set is first used.

    Args:
        name (str): what it is called in ``cfg.DATASETS.TRAIN`` and ``TEST``.
        json_file (str | Path): the annotation.
        image_root (str | Path): the folder that its file names start from.
        category (str): name of the one category to use; None = all that have keypoints, each a class of its own.
        flip_pairs, sigmas: see :meth:`KeypointSchema.from_category`.

    Returns:
        KeypointSchema: of the data set.

    Raises:
        DatasetError: the file has no usable category, or the name is taken by something else. To register the same data
            set again is no error and does nothing.

    Example::

        >>> register_pose_dataset("hands_train", "hands/train.json", "hands/images")
        >>> cfg.DATASETS.TRAIN = ("hands_train",)
    """
    dataset = _PoseDataset(
        json_file=os.fspath(json_file),
        image_root=os.fspath(image_root),
        category=category,
        flip_pairs=None if flip_pairs is None else tuple(tuple(pair) for pair in flip_pairs),
        sigmas=None if sigmas is None else tuple(sigmas),
    )
    if name in DatasetCatalog:
        if DatasetCatalog[name] != dataset:
            raise DatasetError(
                f"a data set {name!r} is already registered, as {DatasetCatalog[name]}, which is not {dataset}; choose "
                f"another name, or remove the first from DatasetCatalog and MetadataCatalog"
            )
        return KeypointSchema.from_metadata(MetadataCatalog.get(name))

    # Parsed again when it is loaded: to keep a file of COCO's size until then would cost every process gigabytes.
    data = read_coco_json(dataset.json_file, required=("categories",))
    categories = select_categories(data, dataset.json_file, category)
    schema = KeypointSchema.from_category(categories[0], flip_pairs=flip_pairs, sigmas=sigmas, source=dataset.json_file)
    metadata = MetadataCatalog.get(name)
    schema.to_metadata(metadata)
    metadata.set(
        json_file=dataset.json_file,
        image_root=dataset.image_root,
        evaluator_type="pose",
        thing_classes=[item["name"] for item in categories],
        thing_dataset_id_to_contiguous_id={item["id"]: i for i, item in enumerate(categories)},
    )
    DatasetCatalog.register(name, dataset)
    return schema


@dataclass(frozen=True)
class _PoseDataset:
    """What DatasetCatalog calls for the dicts of a data set; equal to another registered with the same arguments."""

    json_file: str
    image_root: str
    category: str | None = None
    flip_pairs: tuple | None = None
    sigmas: tuple | None = None

    def __call__(self):
        return load_pose_json(self.json_file, self.image_root, category=self.category)


def register_datasets_from_cfg(cfg):
    """Register ``cfg.DATASETS.POSE``, and the synthetic people where ``DATASETS.TRAIN`` or ``TEST`` names them.

    It can be called any number of times.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.

    Raises:
        DatasetError: an entry has unknown or missing keys, or see :func:`register_pose_dataset`.
    """
    for i, entry in enumerate(cfg.DATASETS.POSE):
        _check_entry(entry, f"DATASETS.POSE[{i}]")
        register_pose_dataset(**entry)
    if set(_SYNTHETIC) & {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}:
        from .synthetic import register_synthetic_pose_from_cfg

        register_synthetic_pose_from_cfg(cfg)


def check_dataset_files(name):
    """Check that the files of a registered data set are there, before a long run is set up around them.

    Meant for detectron2's own ``keypoints_coco_*``, whose loader says only that a file is missing; data sets of
    :func:`register_pose_dataset` are checked thoroughly when they are loaded.

    Args:
        name (str): a registered data set.

    Raises:
        DatasetError: its annotation file or its image folder is missing.
    """
    metadata = MetadataCatalog.get(name)
    mend = "check the paths it was registered with"
    if name.startswith("keypoints_coco_"):
        mend = (
            "download COCO (https://cocodataset.org) and set the environment variable DETECTRON2_DATASETS to the "
            "folder that holds coco/"
        )
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path is not None and not PathManager.exists(path):
            raise DatasetError(f"data set {name!r}: {path} does not exist; {mend}")


_REQUIRED = ("name", "json_file", "image_root")
_OPTIONAL = ("category", "flip_pairs", "sigmas")


def _check_entry(entry, where):
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} is {entry!r}: write a mapping with the keys {', '.join(_REQUIRED)}")
    unknown = [key for key in entry if key not in _REQUIRED + _OPTIONAL]
    if unknown:
        raise DatasetError(
            f"{where} has unknown keys {', '.join(map(repr, unknown))}; allowed are {', '.join(_REQUIRED + _OPTIONAL)}"
        )
    missing = [key for key in _REQUIRED if key not in entry]
    if missing:
        raise DatasetError(f"{where} ({entry.get('name', 'without a name')}) lacks {', '.join(missing)}; add it")


def _complete_coco():
    """Add the sigmas to detectron2's metadata of COCO keypoints, and register test-dev beside them."""
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
