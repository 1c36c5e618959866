"""The keypoint schema of a model in its config: a run writes it; it is read from the config or from its data sets."""

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .config_metadata import fill_metadata
from .datasets import register_datasets_from_cfg
from .schema import DatasetError, KeypointSchema, infer_flip_pairs

__all__ = ["model_schema", "register_datasets_for_schema", "schema_from_cfg", "schema_to_cfg"]

logger = logging.getLogger(__name__)


def schema_to_cfg(cfg: CfgNode, schema: KeypointSchema) -> None:
    """Write a schema to a config, in place, so that a model can be used without its data set.

    Args:
        cfg (CfgNode): not frozen; ``cfg.MODEL.KEYPOINT_SCHEMA`` is overwritten.
        schema (KeypointSchema): default sigmas are written as an empty list, which marks them as default.
    """
    node = cfg.MODEL.KEYPOINT_SCHEMA
    node.NAMES = list(schema.names)
    node.FLIP_PAIRS = [list(pair) for pair in schema.flip_pairs]
    node.SKELETON = [list(edge) for edge in schema.skeleton]
    node.SIGMAS = [] if schema.sigmas_are_default else list(schema.sigmas)


def register_datasets_for_schema(cfg: CfgNode) -> None:
    """Register the config's data sets if its ``MODEL.KEYPOINT_SCHEMA`` is empty, so that they define the schema.

    Building a model registers no data set: call this first for a config that :func:`dynpose.engine.setup` has not
    completed.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.

    Raises:
        DatasetError: see :func:`~dynpose.data.register_datasets_from_cfg`.
    """
    if not cfg.MODEL.KEYPOINT_SCHEMA.NAMES and _data_sets(cfg):
        register_datasets_from_cfg(cfg)


def schema_from_cfg(cfg: CfgNode) -> KeypointSchema:
    """Read the schema of the model that a config describes, and register the data sets that it depends on.

    It is :func:`register_datasets_for_schema`, then :func:`model_schema`.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.

    Returns:
        KeypointSchema

    Raises:
        DatasetError: the config names neither keypoints nor a data set, its data sets have different keypoints, or one
            of them can't be registered.
    """
    register_datasets_for_schema(cfg)
    return model_schema(cfg)


def model_schema(cfg: CfgNode) -> KeypointSchema:
    """Read the schema of the model that a config describes, without opening a data set.

    It is ``cfg.MODEL.KEYPOINT_SCHEMA`` if that names keypoints, as after :func:`dynpose.engine.setup`; otherwise the
    schema of the first of ``cfg.DATASETS.TRAIN`` and ``TEST``, from detectron2's MetadataCatalog. The registered data
    sets of the config must agree with it; with ``cfg.TEST.MAP_KEYPOINTS``, those of ``TEST`` alone may differ. The
    others get it as their metadata, so that detectron2's DefaultPredictor and Visualizer have the limbs.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.

    Returns:
        KeypointSchema

    Raises:
        DatasetError: the config names neither keypoints nor a data set, the data set is not registered, or data sets
            have different keypoints.
    """
    names = _data_sets(cfg)
    if cfg.MODEL.KEYPOINT_SCHEMA.NAMES:
        schema, owner = _read_cfg_node(cfg.MODEL.KEYPOINT_SCHEMA), "MODEL.KEYPOINT_SCHEMA of the config"
        names = [name for name in names if name in DatasetCatalog]
    elif names:
        _check_registered(cfg, names)
        schema, owner = KeypointSchema.from_metadata(MetadataCatalog.get(names[0])), f"data set {names[0]!r}"
    else:
        raise DatasetError(
            "the config names no keypoints: set DATASETS.TRAIN or DATASETS.TEST to a pose data set, or fill in "
            "MODEL.KEYPOINT_SCHEMA"
        )
    for name in names:
        if cfg.TEST.MAP_KEYPOINTS and name not in cfg.DATASETS.TRAIN:
            continue
        other = KeypointSchema.from_metadata(MetadataCatalog.get(name))
        if not schema.has_same_keypoints(other):
            raise DatasetError(
                f"{owner} has {schema.num_keypoints} keypoints, data set {name!r} has {other.num_keypoints}"
                f"{_first_difference(schema, other)}: one model needs the same keypoints in the same order with the "
                f"same flip pairs; change DATASETS.TRAIN and DATASETS.TEST, or the annotation, or set "
                f"TEST.MAP_KEYPOINTS True to evaluate what both have, matched by name"
            )
    fill_metadata(cfg, schema)
    return schema


def _read_cfg_node(node):
    try:
        schema = KeypointSchema(
            names=node.NAMES, flip_pairs=node.FLIP_PAIRS, skeleton=node.SKELETON, sigmas=node.SIGMAS
        )
    except DatasetError as error:
        raise DatasetError(f"MODEL.KEYPOINT_SCHEMA of the config: {error}") from None
    if not schema.flip_pairs and infer_flip_pairs(schema.names):
        logger.warning(
            "MODEL.KEYPOINT_SCHEMA has no FLIP_PAIRS, although some of its NAMES look like left and right: they keep "
            "their places in a mirrored image"
        )
    return schema


def _data_sets(cfg):
    return list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))


def _check_registered(cfg, names):
    for name in names:
        if name not in DatasetCatalog:
            known = ", ".join(sorted(entry["name"] for entry in cfg.DATASETS.POSE)) or "none"
            raise DatasetError(
                f"data set {name!r} is not registered (DATASETS.POSE has: {known}): add it to DATASETS.POSE and call "
                "dynpose.data.register_datasets_from_cfg, or call dynpose.data.register_pose_dataset, first"
            )


def _first_difference(a, b):
    for i, (name_a, name_b) in enumerate(zip(a.names, b.names)):
        if name_a != name_b:
            return f" (the first difference: keypoint {i} is {name_a!r} in one and {name_b!r} in the other)"
    if a.num_keypoints != b.num_keypoints:
        return ""
    return f" (their flip pairs differ: {a.flip_pairs} and {b.flip_pairs})"
