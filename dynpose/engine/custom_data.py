"""Completing a config for a data file (``dynpose train --data``): data sets, classes, image size and schedule."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from dynpose.config import ConfigError
from dynpose.data import register_datasets_from_cfg
from dynpose.data.data_file import DataFile, read_data_file
from dynpose.data.loader import training_dicts
from dynpose.methods import get_method

from .auto_schedule import ChosenValues, choose_schedule

__all__ = ["complete_for_data", "prepare_data"]

logger = logging.getLogger(__name__)

_FOLDER = "data"
# Keys that the data file sets
_OF_DATA_FILE = ("DATASETS.POSE", "DATASETS.TRAIN", "DATASETS.TEST", "MODEL.CLASS_NAMES", "MODEL.KEYPOINT_SCHEMA")


def prepare_data(path: str, cfg: CfgNode) -> DataFile:
    """Read a data file, and complete it: without ``val``, a part of the images is held out in ``OUTPUT_DIR/data``.

    Args:
        path (str): the data file.
        cfg (CfgNode): OUTPUT_DIR and, for the random choice, SEED are read.

    Returns:
        DataFile: with images for training and for validation.

    Raises:
        ConfigError, DatasetError: see :func:`~dynpose.data.data_file.read_data_file`, and
            :meth:`~dynpose.data.data_file.DataFile.check_image_folders` and
            :meth:`~dynpose.data.data_file.DataFile.hold_out`.
    """
    data = read_data_file(path).completed()
    data.check_image_folders()
    # absolute, so that the run's config can be used from any folder
    folder = os.path.abspath(os.path.join(cfg.OUTPUT_DIR, _FOLDER))
    return data if data.val else data.hold_out(folder, seed=max(cfg.SEED, 0))


def complete_for_data(cfg: CfgNode, data: DataFile, *, given: Collection[str], fine_tunes: bool) -> None:
    """Set the data sets, classes, image sizes and schedule of a config for a data file, in place.

    Args:
        cfg (CfgNode): not frozen. It may be of another data set: its data sets, keypoints and classes are replaced.
        data (DataFile): from :func:`prepare_data`.
        given (Collection[str]): keys that the user has set, which are kept.
        fine_tunes (bool): whether the model starts from trained weights.

    Raises:
        DatasetError: the annotations can't be used.
        ConfigError: the model has one class, the data several; or a given key is one that the data file sets.
    """
    clashes = [key for key in given if key.startswith(_OF_DATA_FILE)]
    if clashes:
        raise ConfigError(f"{clashes[0]} is set by {data.path}: leave it out, or train without --data")
    values = ChosenValues(cfg, given)
    _set_data_sets(cfg, data)
    values.choose("TEST.KEYPOINT_OKS_SIGMAS", [], "")
    _set_classes(cfg, data, values)
    if cfg.INPUT.RANDOM_FLIP == "none" and not values.is_given("INPUT.RANDOM_FLIP"):
        logger.info(
            "INPUT.RANDOM_FLIP is none in the config: training images are not mirrored; for few images, mirroring may "
            "help: INPUT.RANDOM_FLIP horizontal (at the end of the command)"
        )
    dicts = training_dicts(cfg)
    _fit_image_size(cfg, values, dicts)
    choose_schedule(cfg, values, num_images=len(dicts), fine_tunes=fine_tunes, num_processes=comm.get_world_size())


def _set_data_sets(cfg, data):
    entries = data.entries()
    cfg.DATASETS.POSE = [*entries["train"], *entries["val"]]
    cfg.DATASETS.TRAIN = tuple(entry["name"] for entry in entries["train"])
    cfg.DATASETS.TEST = tuple(entry["name"] for entry in entries["val"])
    cfg.MODEL.CLASS_NAMES = []
    for key in ("NAMES", "FLIP_PAIRS", "SKELETON", "SIGMAS"):
        cfg.MODEL.KEYPOINT_SCHEMA[key] = []
    register_datasets_from_cfg(cfg)


def _set_classes(cfg, data, values):
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    method = get_method(cfg.MODEL.META_ARCHITECTURE)
    if method is None:
        return
    if method.num_classes_key:
        values.choose(method.num_classes_key, len(classes), f"the classes of the data: {', '.join(classes)[:200]}")
    elif len(classes) > 1:
        raise ConfigError(
            f"{data.path}: it has {len(classes)} classes ({', '.join(classes[:3])}, ...), {method.name} has one; add "
            "category: all as one (or the name of one category), or give a config of another method with --config-file"
        )


def _fit_image_size(cfg, values, dicts):
    """Do not enlarge images that are smaller than the config expects."""
    sizes = ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
    node = cfg.INPUT
    # they have other sizes in pixels, which belong together
    if node.AFFINE.ENABLED or node.CROP_AFTER_RESIZE or any(map(values.is_given, sizes)):
        return
    shorter = [min(record["width"], record["height"]) for record in dicts if {"width", "height"} <= record.keys()]
    if not shorter or not node.MIN_SIZE_TEST or np.median(shorter) >= node.MIN_SIZE_TEST:
        return
    scale = np.median(shorter) / node.MIN_SIZE_TEST
    reason = f"the shorter side of the images is {np.median(shorter):.0f} pixels (median), which are not enlarged"
    for key in sizes:
        value = node[key.rpartition(".")[2]]
        scaled = [max(1, round(side * scale)) for side in (value if isinstance(value, (list, tuple)) else [value])]
        values.choose(key, tuple(scaled) if isinstance(value, (list, tuple)) else scaled[0], reason)
