"""The best weights of a run by an evaluation metric, and early stopping when it no longer improves."""

import logging
import math
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from dynpose.config import ConfigError

from .evaluating import Evaluations

logger = logging.getLogger(__name__)

_EMA = "_EMA"
# Error metrics; for all others, larger is better
_LOWER_IS_BETTER = ("NME",)


def check_best_checkpoint(cfg: CfgNode, build_evaluator: Callable[[CfgNode, str], DatasetEvaluator]) -> None:
    """Check SOLVER.BEST_METRIC and SOLVER.EARLY_STOPPING_PATIENCE before training.

    Args:
        cfg (CfgNode)
        build_evaluator (Callable[[CfgNode, str], DatasetEvaluator]): for a data set. An evaluator without
            ``metric_names`` and ``has_annotation``, such as a custom one, is assumed to report any metric.

    Raises:
        ConfigError: the evaluation does not report the metric, or the patience is not a number of evaluations, or lacks
            a metric or a TEST.EVAL_PERIOD.
    """
    metric, patience = cfg.SOLVER.BEST_METRIC, cfg.SOLVER.EARLY_STOPPING_PATIENCE
    if patience < 0:
        raise ConfigError(f"SOLVER.EARLY_STOPPING_PATIENCE must be a number of evaluations, or 0, got {patience}")
    if patience and not metric:
        raise ConfigError('SOLVER.EARLY_STOPPING_PATIENCE needs a SOLVER.BEST_METRIC, such as "keypoints/AP"')
    if patience and not cfg.TEST.EVAL_PERIOD:
        raise ConfigError("SOLVER.EARLY_STOPPING_PATIENCE needs evaluations during training: set TEST.EVAL_PERIOD")
    if not metric:
        return
    known = _known_metrics(cfg, build_evaluator)
    if known is not None and metric not in known:
        raise ConfigError(
            f"SOLVER.BEST_METRIC {metric!r} is not a metric of this evaluation, which reports "
            f"{', '.join(known[:20]) or 'none, since DATASETS.TEST has no annotation'}{', ...' if known[20:] else ''}"
        )


def _known_metrics(cfg, build_evaluator):
    """The metric names of ``metrics.json``; None if an evaluator does not declare them."""
    names, suffixes = [], ("", _EMA) if cfg.SOLVER.EMA.ENABLED else ("",)
    for data_set in cfg.DATASETS.TEST:
        evaluator = build_evaluator(cfg, data_set)
        if not hasattr(evaluator, "metric_names"):
            return None
        if comm.is_main_process() and not evaluator.has_annotation:
            continue
        for suffix in suffixes:
            for task, metrics in evaluator.metric_names().items():
                # the suffix of EMA's results is on the outermost name
                prefix = f"{data_set}{suffix}/{task}" if len(cfg.DATASETS.TEST) > 1 else f"{task}{suffix}"
                names += [f"{prefix}/{metric}" for metric in metrics]
    return names


def is_of_average(metric: str) -> bool:
    """Whether a metric name of ``metrics.json`` belongs to the averaged weights (SOLVER.EMA)."""
    return metric.split("/")[0].endswith(_EMA)


class StoppedEarly(BaseException):
    """Ends training in all processes on early stopping; not a failure, hence not an Exception."""


class BestHook(HookBase):
    """Keeps the best weights by a metric, and ends training after ``patience`` evaluations without improvement.

    It must come after the hook that evaluates. The best value is derived from the results in ``evaluations``, so that a
    resumed run keeps it. NaN is never the best, and counts as an evaluation without improvement.

    Args:
        metric (str): its name in ``metrics.json``. Larger is better, except for the error NME.
        patience (int): consecutive evaluations without improvement after which training ends; 0 = never.
        evaluations (Evaluations)
        save_best (Callable[[int, float], None]): saves the weights; gets the number of iterations and the value.
        save (Callable[[], None]): saves a checkpoint. All processes call it.
    """

    def __init__(
        self,
        metric: str,
        patience: int,
        evaluations: Evaluations,
        save_best: Callable[[int, float], None],
        save: Callable[[], None],
    ):
        self._metric, self._patience = metric, patience
        self._evaluations = evaluations
        self._save_best, self._save = save_best, save
        self._stops = False

    def before_train(self) -> None:
        """Catch up if the run was killed after the last evaluation."""
        start = self.trainer.start_iter
        if 0 < start < self.trainer.max_iter:
            self._update(start)

    def before_step(self) -> None:
        """End training if the last evaluation exhausted the patience.

        Raises:
            StoppedEarly
        """
        if self._stops:
            self.trainer.max_iter = self.trainer.iter
            raise StoppedEarly

    def after_step(self) -> None:
        """Compare if there was an evaluation."""
        done = self.trainer.iter + 1
        if done < self.trainer.max_iter:
            self._update(done)
            if self._stops:
                self._save()

    def after_train(self) -> None:
        """Compare the last evaluation if all iterations are done."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._update(self.trainer.iter)
        del self._save_best, self._save

    def _update(self, done):
        values = self._evaluations.values(self._metric)
        if not values or values[-1][0] != done:
            return
        best = self._find_best(values)
        if best is not None and values[best][0] == done:
            logger.info(f"{self._metric} {values[best][1]:.4f} is the best so far: its weights are saved")
            self._save_best(*values[best])
        without_better = len(values) - (0 if best is None else best + 1)
        if self._patience and without_better >= self._patience and done < self.trainer.max_iter:
            logger.info(
                f"{self._metric} has not improved in {without_better} evaluations (SOLVER.EARLY_STOPPING_PATIENCE): "
                f"training ends after {done} iterations"
            )
            self._stops = True

    def _find_best(self, values):
        """The index of the first best value; None if all are NaN."""
        sign = -1 if self._metric.split("/")[-1].split("-")[0] in _LOWER_IS_BETTER else 1
        known = [i for i, (_, value) in enumerate(values) if not math.isnan(value)]
        return max(known, key=lambda i: (sign * values[i][1], -i), default=None)
