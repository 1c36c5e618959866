"""Checking an evaluation's config and annotation before training starts."""

import math
from numbers import Real

from detectron2.config import CfgNode
from detectron2.utils import comm

from dynpose.config import ConfigError

from .pose_evaluator import PoseEvaluator

__all__ = ["check_evaluation"]


def check_evaluation(cfg: CfgNode, dataset_name: str, *, eval_only: bool = False) -> None:
    """Check the keys and the annotation that a run otherwise reads at the first evaluation, or after the last.

    The data set's annotation is read as for an evaluation, in the first process only.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys.
        dataset_name (str): of ``cfg.DATASETS.TEST``, registered.
        eval_only (bool): whether weights are evaluated without training, so that there are no averaged weights.

    Raises:
        ConfigError: ``TEST.KEYPOINT_OKS_SIGMAS``, ``TASKS``, ``MAX_DETS`` or ``MAP_KEYPOINTS`` has an invalid value;
            detectron2's ``verify_results`` cannot compare ``TEST.EXPECTED_RESULTS``, or these name a task or metric
            that the evaluation does not report.
        DatasetError: the annotation cannot be used.
    """
    evaluator = PoseEvaluator.from_config(cfg, dataset_name)
    if not len(cfg.TEST.EXPECTED_RESULTS):
        return
    if len(cfg.DATASETS.TEST) > 1:
        # detectron2 nests the results of several data sets under their names, which its verify_results can't read
        raise ConfigError(
            f"TEST.EXPECTED_RESULTS is compared with the results of one data set, but DATASETS.TEST names "
            f"{len(cfg.DATASETS.TEST)}: keep one of them, or set TEST.EXPECTED_RESULTS to []"
        )
    if comm.is_main_process() and not evaluator.has_annotation:
        raise ConfigError(
            f"TEST.EXPECTED_RESULTS has nothing to be compared with: data set {dataset_name!r} has no annotation; set "
            f"it to []"
        )
    known = _with_suffixes(
        evaluator.metric_names(), ema=cfg.SOLVER.EMA.ENABLED and not eval_only, tta=cfg.TEST.AUG.ENABLED
    )
    for i, entry in enumerate(cfg.TEST.EXPECTED_RESULTS):
        _check_entry(entry, f"TEST.EXPECTED_RESULTS[{i}]", known)


def _with_suffixes(metric_names, *, ema, tta):
    """The tasks, including those added by averaged weights and test-time augmentation (PoseTrainer)."""
    suffixes = ["", "_EMA"] if ema else [""]
    suffixes += [f"_TTA{suffix}" for suffix in suffixes] if tta else []
    return {f"{task}{suffix}": names for suffix in suffixes for task, names in metric_names.items()}


def _check_entry(entry, where, known):
    if not isinstance(entry, (list, tuple)) or len(entry) != 4:
        raise ConfigError(f"{where} is {entry!r}: write [task, metric, expected value, tolerance]")
    task, metric, expected, tolerance = entry
    if task not in known:
        raise ConfigError(f"{where}: there is no task {task!r}; this evaluation gives {', '.join(known)}")
    if metric not in known[task]:
        raise ConfigError(
            f"{where}: task {task!r} has no metric {metric!r}; it has {', '.join(known[task][:20])}"
            f"{', ...' if known[task][20:] else ''}"
        )
    for name, value in (("expected value", expected), ("tolerance", tolerance)):
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigError(f"{where}: the {name} must be a number, got {value!r}")
    if tolerance < 0:
        raise ConfigError(f"{where}: the tolerance must be at least 0, got {tolerance}")
