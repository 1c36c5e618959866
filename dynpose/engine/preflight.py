"""Checks before a run's first step, shared by train_net.py and ``dynpose check-data``."""

import contextlib
import logging
import os
import tempfile

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from dynpose.checkpoint.published import needs_download
from dynpose.config import ConfigError, check_at_least_one, check_not_negative, read_key
from dynpose.data import (
    DatasetError,
    build_pose_augmentation,
    check_dataset_files,
    check_images,
    register_datasets_from_cfg,
    schema_from_cfg,
    schema_to_cfg,
)
from dynpose.data.dataset_dicts import load_dataset_dicts
from dynpose.data.flip_names import flip_pairs_concern
from dynpose.data.loader import training_dicts
from dynpose.data.rules import is_learnable_person
from dynpose.evaluation import check_evaluation
from dynpose.methods import get_method
from dynpose.modeling.build import check_affine_resize, check_meta_architecture

from .schedule import check_steps, resolve_epochs, resolve_reference_batch
from .trainer import PoseTrainer
from .writers import find_event_writers

__all__ = ["check_and_complete", "check_first_step", "check_machine"]

logger = logging.getLogger(__name__)


def check_and_complete(cfg: CfgNode, *, eval_only: bool = False) -> None:
    """Check for faults that would otherwise stop a run later, and complete the config from its data.

    The keypoint schema and the class names are filled in; for training also the iterations of a schedule in epochs and
    the learning rate for the batch size.

    Args:
        cfg (CfgNode): not frozen; completed in place.
        eval_only (bool): ignore DATASETS.TRAIN and SOLVER.

    Raises:
        ConfigError, DatasetError: the first fault, with the key or the file, the item and the remedy.
    """
    check_meta_architecture(cfg)
    check_affine_resize(cfg)
    check_machine(cfg)
    register_datasets_from_cfg(cfg)
    names = _data_sets(cfg, eval_only)
    for name in names:
        check_dataset_files(name)
    cfg.MODEL.CLASS_NAMES = _check_classes(cfg, names, eval_only)
    schema = schema_from_cfg(cfg)
    schema_to_cfg(cfg, schema)
    build_pose_augmentation(cfg, is_train=False)
    if not eval_only:
        find_event_writers(cfg)
        build_pose_augmentation(cfg, is_train=True)
        concern = flip_pairs_concern(schema) if cfg.INPUT.RANDOM_FLIP != "none" else None
        if concern:
            logger.warning("%s", concern)
    if comm.is_main_process():
        for name in names:
            dicts = load_dataset_dicts(name)
            if isinstance(dicts, list):
                _check_class_indices(name, dicts)
                if cfg.DATASETS.CHECK_IMAGES:
                    check_images(dicts)
        for name in cfg.DATASETS.TEST:
            check_evaluation(cfg, name, eval_only=eval_only)
    if not eval_only:
        check_at_least_one(cfg, "SOLVER.IMS_PER_BATCH")
        num_images = len(_check_learnable(training_dicts(cfg), cfg))
        resolve_epochs(cfg, num_images)
        check_steps(cfg)
        resolve_reference_batch(cfg)
        if num_images < cfg.SOLVER.IMS_PER_BATCH:
            logger.warning(
                "DATASETS.TRAIN has %d images, fewer than SOLVER.IMS_PER_BATCH %d: a batch holds images of several "
                "epochs, some of them twice",
                num_images,
                cfg.SOLVER.IMS_PER_BATCH,
            )


def check_first_step(cfg: CfgNode) -> None:
    """Run training up to its first step: build the model and the trainer, and load the first batch.

    Args:
        cfg (CfgNode): from :func:`check_and_complete`. The model is built on the CPU, and OUTPUT_DIR is unchanged.
            Weights that would have to be downloaded are not loaded.

    Raises:
        ConfigError, DatasetError, CheckpointError: those of the training. Any other error of it is raised, too.
    """
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = max(cfg.SEED, 0)
    cfg.DATASETS.SYNTHETIC.ROOT = cfg.DATASETS.SYNTHETIC.ROOT or os.path.join(cfg.OUTPUT_DIR, "synthetic")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _without_set_up_of_logs():
        cfg.OUTPUT_DIR = folder
        trainer = PoseTrainer(cfg)
        if not needs_download(cfg.MODEL.WEIGHTS):
            trainer.resume_or_load(resume=False)
        next(iter(trainer.data_loader))


@contextlib.contextmanager
def _without_set_up_of_logs():
    """Stop the trainer from setting up detectron2's log at level INFO, which it does if no setup exists."""
    detectron2_logger = logging.getLogger("detectron2")
    level = detectron2_logger.level
    detectron2_logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        detectron2_logger.setLevel(level)


def check_machine(cfg: CfgNode) -> None:
    """Check the keys for the device, the processes and the output; not whether this machine has the device.

    Raises:
        ConfigError: MODEL.DEVICE, DATALOADER.NUM_WORKERS, a key of DISTRIBUTED or OUTPUT_DIR is invalid.
    """
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ConfigError(
            f"MODEL.DEVICE {cfg.MODEL.DEVICE!r}: PyTorch knows no such device; give cpu or cuda"
        ) from error
    check_not_negative(cfg, "DATALOADER.NUM_WORKERS", "DISTRIBUTED.REPORT_SECONDS")
    check_at_least_one(cfg, "DISTRIBUTED.TIMEOUT_MINUTES")
    if not cfg.OUTPUT_DIR:
        raise ConfigError("OUTPUT_DIR is empty: name the folder that the run writes to")
    if "://" in cfg.OUTPUT_DIR:
        return
    folder = os.path.abspath(cfg.OUTPUT_DIR)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        fault = "can't be written to" if os.path.isdir(folder) else "is no folder"
        raise ConfigError(f"OUTPUT_DIR {cfg.OUTPUT_DIR}: {folder} {fault}; name another folder")


def _data_sets(cfg, eval_only):
    """The data sets of a run, which must be registered."""
    keys = ("TEST",) if eval_only else ("TRAIN", "TEST")
    for key in keys:
        if key == keys[0] and not len(cfg.DATASETS[key]):
            raise ConfigError(f"DATASETS.{key} is empty: name a data set to {'evaluate' if eval_only else 'train'} on")
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                own = ", ".join(entry["name"] for entry in cfg.DATASETS.POSE) or "none"
                raise DatasetError(
                    f"DATASETS.{key}: data set {name!r} is not registered; known are those of DATASETS.POSE ({own}), "
                    f"and {', '.join(sorted(known for known in DatasetCatalog if _has_keypoints(known)))}"
                )
    return list(dict.fromkeys(name for key in keys for name in cfg.DATASETS[key]))


def _has_keypoints(name):
    return MetadataCatalog.get(name).get("keypoint_names") is not None


# detectron2's meta-architectures with keypoints, which no method registers, and their number-of-classes keys
_DETECTRON2_NUM_CLASSES_KEYS = {"GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES"}


def _check_classes(cfg, names, eval_only):
    """The class names of the model; every data set must have the same, in this order.

    If model and test set have one class each, a differing name is accepted with a warning.
    """
    expected = list(cfg.MODEL.CLASS_NAMES) or list(MetadataCatalog.get(names[0]).get("thing_classes") or [])
    _check_number(cfg, names[0], expected)
    for name in names:
        classes = list(MetadataCatalog.get(name).get("thing_classes") or [])
        is_train = name in cfg.DATASETS.TRAIN and not eval_only
        if classes == expected:
            continue
        if len(classes) == len(expected) == 1 and not is_train:
            logger.warning(
                "data set %r calls its one class %r, the model %r: they are treated as the same",
                name, *classes, *expected,
            )  # fmt: skip
            continue
        _check_number(cfg, name, classes)
        raise ConfigError(f"data set {name!r} has {_difference(classes, expected)}")
    return expected


def _difference(classes, expected):
    """The difference between a data set's classes and the model's, and the remedy."""
    more, less = ([item for item in a if item not in b] for a, b in ((classes, expected), (expected, classes)))
    if not more and not less:
        return (
            f"the model's classes in another order ({', '.join(classes[:5])}, ... for {', '.join(expected[:5])}, ...): "
            "register it with the model's order (key classes in DATASETS.POSE)"
        )
    differences = [
        f"{', '.join(map(repr, some[:5]))} {where}" for some, where in ((more, "more"), (less, "less")) if some
    ]
    return (
        f"other classes than the model: {' and '.join(differences)}. Give the categories the same names, or name one "
        "class with class_name, or choose categories with classes, which excludes the others (keys in DATASETS.POSE)"
    )


def _check_number(cfg, name, classes):
    architecture = cfg.MODEL.META_ARCHITECTURE
    method = get_method(architecture)
    key = method.num_classes_key if method else _DETECTRON2_NUM_CLASSES_KEYS.get(architecture)
    if key is None:
        return  # an unregistered meta-architecture
    num_classes, remedy = (read_key(cfg, key), f"set {key} to {len(classes)}, or ") if key else (1, "")
    if len(classes) != num_classes:
        raise ConfigError(
            f"data set {name!r} has {len(classes)} classes ({', '.join(classes[:3])}, ...), {architecture} has "
            f"{num_classes}: {remedy}choose one category of the data set, or learn several as one (key category in "
            "DATASETS.POSE)"
        )


def _check_class_indices(name, dicts):
    """Check the class indices of a custom dataset function, which a loss would use unchecked."""
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is None:
        return
    for record in dicts:
        for person in record.get("annotations", ()):
            if not 0 <= person["category_id"] < len(classes):
                raise DatasetError(
                    f"data set {name!r}: {record.get('file_name', 'an image')}: an annotation has category_id "
                    f"{person['category_id']}, but the data set has {len(classes)} classes ({', '.join(classes[:3])}): "
                    "write the index of a class, from 0 on, or name all classes in thing_classes"
                )


def _check_learnable(dicts, cfg):
    """The dicts, after checking that at least one has an instance to train on.

    Such an instance is not a crowd, and has a labelled keypoint and at least a pixel of its box in the image.
    """
    if "annotations" in dicts[0] and not any(
        is_learnable_person(person, record) for record in dicts for person in record["annotations"]
    ):
        raise DatasetError(
            f"DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)}: there is no person to train on: none of {len(dicts)} images "
            "has a person who is not a crowd, with a labelled keypoint (visibility 1 or 2) and a pixel of the box in "
            "the image; dynpose check-data lists the skipped annotations"
        )
    return dicts
