"""Choosing a schedule from the number of training images: batch, iterations, warm-up, evaluations, learning rate.

docs/custom_training.md has the trials that the learning rate is based on; the other numbers are common practice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Any

from detectron2.config import CfgNode, get_cfg

from dynpose.config import check_at_least_one, read_key
from dynpose.data.dataset_dicts import load_dataset_dicts

from .schedule import epochs_to_iterations, resolve_epochs

__all__ = ["ChosenValues", "choose_schedule", "training_epochs"]

logger = logging.getLogger(__name__)

# Passes over 40 images; with n images (40 / n) ** 0.25 times as many: n images take n ** 0.75 times the time of one
_EPOCHS_OF_40 = {True: 30, False: 90}
_FEWEST_EPOCHS = 10
# Images of a batch on a CPU: larger ones take as long per image and leave fewer steps
_CPU_BATCH = 8
_NUM_EVALUATIONS = 15
# About half of them: AP often rises late, when the learning rate falls
_PATIENCE = 8
_WARMUP_FRACTION = 0.1
# of the learning rate from scratch
_FINE_TUNING_FACTOR = 0.1


class ChosenValues:
    """Sets keys of a config that the user has not set, and logs each with its reason.

    Args:
        cfg (CfgNode): not frozen.
        given (Collection[str]): the keys that the user has set.

    Example::

        >>> ChosenValues(cfg, given=("SEED",)).choose("SOLVER.MAX_ITER", 300, "60 epochs of 40 images")
        300
    """

    def __init__(self, cfg: CfgNode, given: Collection[str]):
        self._cfg, self._given = cfg, given

    def is_given(self, key: str) -> bool:
        """Whether the user has set a key."""
        return key in self._given

    def choose(self, key: str, value: Any, reason: str) -> Any:
        """Set a key unless the user has.

        Args:
            key (str): its full name, such as "SOLVER.MAX_ITER".
            value: of the type that the key has.
            reason (str): for the log; "" = it is not logged.

        Returns:
            the value that applies.
        """
        if self.is_given(key):
            return read_key(self._cfg, key)
        *path, name = key.split(".")
        node = read_key(self._cfg, ".".join(path)) if path else self._cfg
        node[name] = value
        if reason:
            logger.info(f"{key} is {value}: {reason}")
        return value


def training_epochs(num_images: int, *, fine_tunes: bool) -> float:
    """The passes over the images of an automatic schedule.

    Args:
        num_images (int): images with people.
        fine_tunes (bool): whether the model starts from trained weights.

    Returns:
        float: 30 for 40 images, 13 for 1,000, never below 10; three times as many from scratch.
    """
    epochs = _EPOCHS_OF_40[fine_tunes] * (40 / num_images) ** 0.25
    return max(epochs, _FEWEST_EPOCHS)


def choose_schedule(
    cfg: CfgNode, values: ChosenValues, *, num_images: int, fine_tunes: bool, num_processes: int = 1
) -> None:
    """Choose batch, iterations, warm-up, steps, learning rate, evaluations and checkpoints, in place.

    The shape of the config's schedule is kept: its optimizer, its kind of decay, and the fractions of the iterations at
    which the learning rate drops. Keys that the user has set are kept, and the others follow from them.

    Args:
        cfg (CfgNode): not frozen.
        values (ChosenValues): of the config.
        num_images (int): images with people.
        fine_tunes (bool): whether the model starts from trained weights.
        num_processes (int): of the job.
    """
    solver = cfg.SOLVER
    fractions, config_batch = _step_fractions(solver), solver.REFERENCE_BATCH or solver.IMS_PER_BATCH
    on_cpu = cfg.MODEL.DEVICE.partition(":")[0] == "cpu"
    largest = min(solver.IMS_PER_BATCH, _CPU_BATCH) if on_cpu else solver.IMS_PER_BATCH
    batch = values.choose(
        "SOLVER.IMS_PER_BATCH",
        _batch_size(num_images, largest, num_processes),
        f"at most half of the {num_images} images, and {largest}" + (" on a CPU" if on_cpu else " as in the config"),
    )
    check_at_least_one(cfg, "SOLVER.IMS_PER_BATCH")
    max_iter = _choose_iterations(cfg, values, num_images, batch, fine_tunes)
    if not values.is_given("SOLVER.STEPS") and solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = tuple(sorted({step for step in (round(max_iter * each) for each in fractions) if 0 < step < max_iter}))
        values.choose("SOLVER.STEPS", steps, "at the same fractions of the iterations as in the config")
    warmup = max(1, min(solver.WARMUP_ITERS, round(max_iter * _WARMUP_FRACTION)))
    values.choose("SOLVER.WARMUP_ITERS", warmup, "a tenth of the iterations, at most the config's")
    _choose_learning_rate(cfg, values, batch, config_batch, fine_tunes)
    per_epoch = math.ceil(num_images / batch)
    period = min(max(per_epoch, round(max_iter / _NUM_EVALUATIONS), 1), max_iter)
    reason = f"about {_NUM_EVALUATIONS} evaluations, at most one per epoch ({per_epoch} iterations)"
    period = values.choose("TEST.EVAL_PERIOD", period, reason)
    values.choose("SOLVER.CHECKPOINT_PERIOD", period or max_iter, "with each evaluation")
    values.choose("SOLVER.CHECKPOINTS_KEPT", 2, "")
    metric = values.choose("SOLVER.BEST_METRIC", _metric(cfg), "the best weights are kept in model_best.pth")
    if metric and period:
        values.choose(
            "SOLVER.EARLY_STOPPING_PATIENCE", _PATIENCE, "training ends when so many evaluations bring no improvement"
        )


def _metric(cfg):
    """The keypoint AP; of several data sets, that of the one with the most images."""
    names = cfg.DATASETS.TEST
    if len(names) == 1:
        return "keypoints/AP"
    return f"{max(names, key=lambda name: len(load_dataset_dicts(name)))}/keypoints/AP"


def _choose_iterations(cfg, values, num_images, batch, fine_tunes):
    solver = cfg.SOLVER
    if values.is_given("SOLVER.MAX_EPOCHS") and solver.MAX_EPOCHS:
        # the config's iterations would contradict the user's epochs
        for key in ("MAX_ITER", "STEPS"):
            values.choose(f"SOLVER.{key}", get_cfg().SOLVER[key], "")
        resolve_epochs(cfg, num_images)
        return solver.MAX_ITER
    solver.MAX_EPOCHS, solver.STEPS_EPOCHS = 0, []
    epochs = training_epochs(num_images, fine_tunes=fine_tunes)
    start = "trained weights" if fine_tunes else "untrained layers"
    return values.choose(
        "SOLVER.MAX_ITER",
        epochs_to_iterations(epochs, num_images, batch),
        f"{epochs:.0f} epochs of {num_images} images in batches of {batch}, from {start}",
    )


def _choose_learning_rate(cfg, values, batch, config_batch, fine_tunes):
    factor = batch / config_batch * (_FINE_TUNING_FACTOR if fine_tunes else 1)
    values.choose(
        "SOLVER.BASE_LR",
        float(f"{cfg.SOLVER.BASE_LR * factor:.3g}"),
        f"the config's {cfg.SOLVER.BASE_LR:g}"
        + (f" for a batch of {config_batch}, scaled to {batch}" if batch != config_batch else "")
        + (f", times {_FINE_TUNING_FACTOR:g} for trained weights" if fine_tunes else ""),
    )
    if cfg.SOLVER.REFERENCE_BATCH:
        cfg.SOLVER.REFERENCE_BATCH = batch


def _batch_size(num_images, most, num_processes):
    """The largest power of two within the limits, at least one image per process."""
    limit = max(1, min(num_images // 2, most))
    batch = 2 ** int(math.log2(limit))
    return num_processes * max(1, batch // num_processes)


def _step_fractions(solver):
    if solver.MAX_EPOCHS:
        return [epoch / solver.MAX_EPOCHS for epoch in solver.STEPS_EPOCHS]
    return [step / solver.MAX_ITER for step in solver.STEPS]
