"""Pose data sets for detectron2: keypoint schemas, registration, augmentation and the dataset mapper."""

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
