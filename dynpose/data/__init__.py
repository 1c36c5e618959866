"""Pose data sets for detectron2: keypoint schemas, registration, augmentation and the dataset mapper."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dynpose.utils.first_use import after_import, attributes_on_first_use

if TYPE_CHECKING:
    from .affine import AffineResize, AffineTransform, RandomAffine
    from .coco_json import load_pose_json
    from .crowd_datasets import register_crowd_datasets
    from .datasets import check_dataset_files, register_datasets_from_cfg, register_pose_dataset
    from .image_check import check_images
    from .known_schemas import KNOWN_SCHEMAS, keypoint_groups, known_schema
    from .loader import get_pose_dataset_dicts
    from .mapper import PoseDatasetMapper
    from .person_regions import HalfBody, PersonAffine, PersonCrop, PersonRegion, PoseAugInput
    from .photometric import RandomBlur, RandomColor, RandomJPEG, RandomNoise
    from .schema import COCO_PERSON, CROWDPOSE_PERSON, DEFAULT_SIGMA, DatasetError, KeypointSchema, match_keypoints
    from .schema_config import model_schema, register_datasets_for_schema, schema_from_cfg, schema_to_cfg
    from .transforms import RandomCropKeepingPeople, ResizeShortestEdge, build_pose_augmentation

__all__ = [
    "COCO_PERSON",
    "CROWDPOSE_PERSON",
    "DEFAULT_SIGMA",
    "KNOWN_SCHEMAS",
    "AffineResize",
    "AffineTransform",
    "DatasetError",
    "HalfBody",
    "KeypointSchema",
    "PersonAffine",
    "PersonCrop",
    "PersonRegion",
    "PoseAugInput",
    "PoseDatasetMapper",
    "RandomAffine",
    "RandomBlur",
    "RandomColor",
    "RandomCropKeepingPeople",
    "RandomJPEG",
    "RandomNoise",
    "ResizeShortestEdge",
    "build_pose_augmentation",
    "check_dataset_files",
    "check_images",
    "get_pose_dataset_dicts",
    "keypoint_groups",
    "known_schema",
    "load_pose_json",
    "match_keypoints",
    "model_schema",
    "register_crowd_datasets",
    "register_datasets_for_schema",
    "register_datasets_from_cfg",
    "register_pose_dataset",
    "schema_from_cfg",
    "schema_to_cfg",
]

# Imported on first use: the schema and the reading of images work without PyTorch and detectron2
_MODULES = {
    "COCO_PERSON": "schema",
    "CROWDPOSE_PERSON": "schema",
    "DEFAULT_SIGMA": "schema",
    "KNOWN_SCHEMAS": "known_schemas",
    "AffineResize": "affine",
    "AffineTransform": "affine",
    "DatasetError": "schema",
    "HalfBody": "person_regions",
    "KeypointSchema": "schema",
    "PersonAffine": "person_regions",
    "PersonCrop": "person_regions",
    "PersonRegion": "person_regions",
    "PoseAugInput": "person_regions",
    "PoseDatasetMapper": "mapper",
    "RandomAffine": "affine",
    "RandomBlur": "photometric",
    "RandomColor": "photometric",
    "RandomCropKeepingPeople": "transforms",
    "RandomJPEG": "photometric",
    "RandomNoise": "photometric",
    "ResizeShortestEdge": "transforms",
    "build_pose_augmentation": "transforms",
    "check_dataset_files": "datasets",
    "check_images": "image_check",
    "get_pose_dataset_dicts": "loader",
    "keypoint_groups": "known_schemas",
    "known_schema": "known_schemas",
    "load_pose_json": "coco_json",
    "match_keypoints": "schema",
    "model_schema": "schema_config",
    "register_crowd_datasets": "crowd_datasets",
    "register_datasets_for_schema": "schema_config",
    "register_datasets_from_cfg": "datasets",
    "register_pose_dataset": "datasets",
    "schema_from_cfg": "schema_config",
    "schema_to_cfg": "schema_config",
}

__getattr__ = attributes_on_first_use(__name__, _MODULES)


def __dir__():
    return sorted({*globals(), *__all__})


# CrowdPose and OCHuman are in detectron2's catalogs as soon as there are catalogs
after_import("detectron2.data", lambda: importlib.import_module("dynpose.data.crowd_datasets"))
