"""The evaluator's config keys, checked so that an error names the key."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from dynpose.config import ConfigError, check_at_least_one
from dynpose.data import DatasetError, KeypointSchema, schema_from_cfg

__all__ = ["evaluator_arguments", "with_sigmas"]


def evaluator_arguments(cfg: CfgNode, dataset_name: str, known_tasks: Sequence[str]) -> dict[str, Any]:
    """Arguments of :class:`PoseEvaluator`, from the keys of ``cfg.TEST``.

    Args:
        cfg (CfgNode): a detectron2 config; if it lacks dynpose's keys, the evaluator's defaults apply.
        dataset_name (str): a registered data set.
        known_tasks (Sequence[str]): the valid entries of ``TEST.TASKS``.

    Returns:
        dict[str, object]

    Raises:
        ConfigError: a value is invalid or does not fit the data set.
        DatasetError: the data set has no keypoints.
    """
    output_dir = os.path.join(cfg.OUTPUT_DIR, "inference")
    if len(cfg.DATASETS.TEST) > 1:
        output_dir = os.path.join(output_dir, dataset_name)
    arguments = {"output_dir": output_dir, "sigmas": _sigmas(cfg, dataset_name)}
    if "TASKS" in cfg.TEST:
        arguments["tasks"] = _tasks(cfg, known_tasks)
    if "MAX_DETS" in cfg.TEST:
        check_at_least_one(cfg, "TEST.MAX_DETS.KEYPOINTS", "TEST.MAX_DETS.BOXES")
        arguments["max_dets"] = cfg.TEST.MAX_DETS.KEYPOINTS
        arguments["max_dets_boxes"] = cfg.TEST.MAX_DETS.BOXES
    if cfg.TEST.get("MAP_KEYPOINTS", False):
        arguments["model_schema"] = _model_schema(cfg)
    return arguments


def with_sigmas(schema: KeypointSchema, sigmas: Sequence[float]) -> KeypointSchema:
    """A schema with other OKS sigmas.

    Args:
        schema (KeypointSchema): with K keypoints.
        sigmas (Sequence[float]): K, or () for the schema's own.

    Raises:
        DatasetError: they are not K positive numbers.
    """
    if len(sigmas) == 0:
        return schema
    try:
        values = tuple(map(float, sigmas))
    except (TypeError, ValueError):
        raise DatasetError(f"OKS sigmas are {list(sigmas)!r}; write a number for each keypoint") from None
    return dataclasses.replace(schema, sigmas=values, sigmas_are_default=False)


def _sigmas(cfg, dataset_name):
    schema = KeypointSchema.from_metadata(MetadataCatalog.get(dataset_name))
    try:
        with_sigmas(schema, cfg.TEST.KEYPOINT_OKS_SIGMAS)
    except DatasetError as error:
        raise ConfigError(
            f"TEST.KEYPOINT_OKS_SIGMAS does not fit data set {dataset_name!r}: {error}; [] = the data set's own"
        ) from None
    return cfg.TEST.KEYPOINT_OKS_SIGMAS


def _tasks(cfg, known):
    unknown = [task for task in cfg.TEST.TASKS if task not in known]
    if unknown:
        raise ConfigError(
            f"TEST.TASKS has unknown tasks {', '.join(map(repr, unknown))}: known are {', '.join(known)}; [] = "
            f"keypoints, and bbox where the predictions have boxes"
        )
    return tuple(cfg.TEST.TASKS) or None


def _model_schema(cfg):
    if not cfg.MODEL.KEYPOINT_SCHEMA.NAMES:
        raise ConfigError(
            "TEST.MAP_KEYPOINTS is True, but MODEL.KEYPOINT_SCHEMA names no keypoints of the model: evaluate with the "
            "config.yaml that its training saved, or fill in MODEL.KEYPOINT_SCHEMA.NAMES"
        )
    alone = cfg.clone()
    alone.defrost()
    # ignore the data sets, which may have other keypoints
    alone.DATASETS.TRAIN = alone.DATASETS.TEST = ()
    return schema_from_cfg(alone)
