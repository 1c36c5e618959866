"""Registering pose data sets with detectron2: people's own, those of a config, and COCO's keypoints.

Importing this module adds to detectron2's registry what it lacks of COCO: the test-dev images, and the OKS sigmas in
the metadata of ``keypoints_coco_*``. It opens no file.
"""

import functools
import os
from dataclasses import dataclass, replace

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco_json import load_pose_json, read_coco_json, select_categories
from .schema import COCO_PERSON, CROWDPOSE_PERSON, DatasetError, KeypointSchema

__all__ = [
    "annotation_files",
    "check_dataset_files",
    "read_crowd_indices",
    "register_datasets_from_cfg",
    "register_pose_dataset",
]

_COCO_TEST_DEV = "keypoints_coco_2017_test-dev"
_PROTOCOLS = ("coco", "crowdpose")
_SYNTHETIC = ("synthetic_pose_train", "synthetic_pose_val")


def register_pose_dataset(name, json_file, image_root, *, category=None, flip_pairs=None, sigmas=None, protocol="coco"):
    """Register a COCO-format keypoint file with detectron2's DatasetCatalog and MetadataCatalog.

    The categories of the file are read now, for the metadata; images and annotation when the data set is first used.

    Args:
        name (str): what it is called in ``cfg.DATASETS.TRAIN`` and ``TEST``.
        json_file (str | Path): the annotation.
        image_root (str | Path): the folder that its file names start from.
        category (str): name of the one category to use; None = all that have keypoints, each a class of its own.
        flip_pairs, sigmas: see :meth:`KeypointSchema.from_category`.
        protocol (str): how it is evaluated: "coco", or "crowdpose" (see docs/evaluation.md), which needs a
            ``crowdIndex`` of each image. With the latter and CrowdPose's 14 keypoints, the limbs and, unless they are
            given, the sigmas are :data:`CROWDPOSE_PERSON`'s, whatever the file says.

    Returns:
        KeypointSchema: of the data set.

    Raises:
        DatasetError: the file has no usable category or lacks what the protocol needs, or the name is taken by
            something else. To register the same data set again is no error and does nothing.

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
        protocol=protocol,
    )
    if protocol not in _PROTOCOLS:
        raise DatasetError(f"data set {name!r}: unknown protocol {protocol!r}; known are {', '.join(_PROTOCOLS)}")
    if name in DatasetCatalog:
        if DatasetCatalog[name] != dataset:
            raise DatasetError(
                f"a data set {name!r} is already registered, as {DatasetCatalog[name]}, which is not {dataset}; choose "
                f"another name, or remove the first from DatasetCatalog and MetadataCatalog"
            )
        return KeypointSchema.from_metadata(MetadataCatalog.get(name))

    # Parsed again when it is loaded: to keep a file of COCO's size until then would cost every process gigabytes.
    required = ("categories", "images") if protocol == "crowdpose" else ("categories",)
    data = read_coco_json(dataset.json_file, required=required)
    categories = select_categories(data, dataset.json_file, category)
    schema = _read_schema(categories[0], dataset)
    if protocol == "crowdpose":
        # Now, since its lack would otherwise be noticed at the first evaluation, hours into a run
        read_crowd_indices(data["images"], dataset.json_file)
    metadata = MetadataCatalog.get(name)
    schema.to_metadata(metadata)
    metadata.set(
        json_file=dataset.json_file,
        image_root=dataset.image_root,
        evaluator_type="pose",
        keypoint_protocol=protocol,
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
    protocol: str = "coco"

    def __call__(self):
        return load_pose_json(self.json_file, self.image_root, category=self.category)


def _read_schema(category, dataset):
    if dataset.protocol == "crowdpose" and tuple(category["keypoints"]) == CROWDPOSE_PERSON.names:
        given = {"flip_pairs": dataset.flip_pairs, "sigmas": dataset.sigmas}
        return replace(CROWDPOSE_PERSON, **{k: v for k, v in given.items() if v is not None})
    return KeypointSchema.from_category(
        category, flip_pairs=dataset.flip_pairs, sigmas=dataset.sigmas, source=dataset.json_file
    )


def read_crowd_indices(images, source):
    """CrowdPose's measure of how crowded images are, from 0 (nobody's box holds keypoints of others) to 1.

    Args:
        images (Sequence[dict]): the ``"images"`` of a COCO-format file, each with ``id`` and ``crowdIndex``.
        source (str): the file, for messages.

    Returns:
        dict[int | str, float]: image id -> crowd index.

    Raises:
        DatasetError: an image has none.
    """
    indices = {}
    for image in images:
        if not isinstance(image.get("id"), (int, str)):
            raise DatasetError(f"{source}: image {image.get('file_name')!r} has no 'id'; give it a number of its own")
        value = image.get("crowdIndex")
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise DatasetError(
                f"{source}: image {image['id']!r}: crowdIndex is {value!r}, but CrowdPose's protocol tells easy "
                f"from hard images by it; write a number from 0 to 1, or evaluate with protocol: coco"
            )
        indices[image["id"]] = float(value)
    return indices


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


def annotation_files(name):
    """The files that hold the annotation of a registered data set.

    Args:
        name (str): a registered data set.

    Returns:
        list[str]: ``json_file`` of its metadata. Where that file is missing and the metadata name ``parts``, other data
        sets that make it up, it is theirs. Empty for a data set without a file.
    """
    metadata = MetadataCatalog.get(name)
    json_file, parts = metadata.get("json_file"), metadata.get("parts", ())
    if parts and not PathManager.exists(json_file):
        return [MetadataCatalog.get(part).json_file for part in parts]
    return [] if json_file is None else [json_file]


def check_dataset_files(name, *, images=True):
    """Check that the files of a registered data set are there, before a long run is set up around them.

    Meant for the built-in data sets, ``keypoints_coco_*`` and those of :mod:`dynpose.data.crowd_datasets`; data sets of
    :func:`register_pose_dataset` are checked thoroughly when they are loaded.

    Args:
        name (str): a registered data set.
        images (bool): look for the image folder too.

    Raises:
        DatasetError: its annotation file or its image folder is missing; says where it was looked for and how to get
            it.
    """
    metadata = MetadataCatalog.get(name)
    mend = metadata.get("how_to_get", "check the paths it was registered with")
    if name.startswith("keypoints_coco_"):
        mend = (
            "download COCO (https://cocodataset.org) and set the environment variable DETECTRON2_DATASETS to the "
            "folder that holds coco/"
        )
    paths = annotation_files(name)
    for path in [*paths, metadata.get("image_root")] if images else paths:
        if path is None or PathManager.exists(path):
            continue
        instead = ""
        if path in paths and path != metadata.json_file:
            instead = f", nor does {_absolute(metadata.json_file)}, which is {' and '.join(metadata.parts)} in one"
        raise DatasetError(f"data set {name!r}: {_absolute(path)} does not exist{instead}; {mend}")


def _absolute(path):
    """A relative path is of little use to somebody who does not know where a job was started."""
    return path if "://" in path else os.path.abspath(path)


_REQUIRED = ("name", "json_file", "image_root")
_OPTIONAL = ("category", "flip_pairs", "sigmas", "protocol")


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
