"""The evaluations of a run: each runs once, even if the run is interrupted, and its results are kept."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from dynpose.checkpoint.writing import explain_write_errors
from dynpose.utils.atomic import atomic_open

logger = logging.getLogger(__name__)

_FILE = "evaluations.json"


class Evaluations:
    """The results of a run's evaluations, in ``<folder>/evaluations.json``, the same in all processes.

    An evaluation has parts: the weights, their average, with test-time augmentation. A part in the file is not
    evaluated again, unless the config has changed.

    Args:
        folder (str): of the run.
        cfg (CfgNode): a digest of the keys that evaluation depends on is stored with the results.
    """

    def __init__(self, folder: str, cfg: CfgNode):
        self.path = os.path.join(folder, _FILE)
        self._config = _digest(cfg)
        self._entries: list[dict[str, Any]] = []

    def resume_from(self, start_iter: int) -> None:
        """Read the results of a run that resumes after ``start_iter`` iterations, and drop later ones.

        All processes must call it.
        """
        entries = self._read() if comm.is_main_process() else []
        self._entries = [entry for entry in comm.all_gather(entries)[0] if 0 < entry["iterations"] <= start_iter]
        # results of an earlier run, or of iterations that will be repeated, must not count after another restart
        if comm.is_main_process() and len(self._entries) < len(entries):
            self._write()

    def get(self, iterations: int, part: str) -> dict[str, Any] | None:
        """The results of a part after ``iterations`` iterations, or None."""
        for entry in self._entries:
            if (entry["iterations"], entry["part"], entry["config"]) == (iterations, part, self._config):
                return entry["results"]
        return None

    def add(self, iterations: int, part: str, results: dict[str, Any]) -> dict[str, Any]:
        """Store the main process's results; all processes must call it.

        Args:
            iterations (int): iterations that the weights have been trained for.
            part (str): its name.
            results (dict): nested, of numbers.

        Returns:
            dict: the results, in all processes.

        Raises:
            ValueError: ``results`` is not a nested dict of numbers.
            CheckpointError: the file can't be written.
        """
        results = _to_numbers(comm.all_gather(results)[0])
        others = [entry for entry in self._entries if (entry["iterations"], entry["part"]) != (iterations, part)]
        entry = {"iterations": iterations, "part": part, "config": self._config, "results": results}
        self._entries = [*others, entry]
        if comm.is_main_process():
            self._write()
        return results

    def values(self, metric: str) -> list[tuple[int, float]]:
        """The values of a metric in all evaluations, in order.

        Args:
            metric (str): its name in ``metrics.json``, such as "keypoints/AP".

        Returns:
            list[tuple[int, float]]: iterations and value; evaluations without the metric are omitted.
        """
        flat = [(entry["iterations"], flatten_results_dict(entry["results"])) for entry in self._entries]
        return sorted((iterations, results[metric]) for iterations, results in flat if metric in results)

    def _read(self):
        try:
            with open(self.path, encoding="utf-8") as f:
                entries = json.load(f)
            return [{**entry, "results": _from_json(entry["results"])} for entry in entries if _is_entry(entry)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            logger.warning(f"{self.path}: can't be read ({error}); it is written from scratch")
            return []

    def _write(self):
        if "://" in self.path:
            return
        with explain_write_errors(self.path):
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            with atomic_open(self.path) as f:
                lines = [json.dumps({**entry, "results": _to_json(entry["results"])}) for entry in self._entries]
                f.write("[\n" + ",\n".join(lines) + "\n]\n")


class EvaluationHook(hooks.EvalHook):
    """detectron2's EvalHook for evaluations of several parts; a resumed run catches up on missed ones.

    It evaluates every ``period`` iterations and after the last one, in all processes.

    Args:
        period (int): iterations; 0 = only after the last one.
        evaluations (Evaluations): stores the results.
        parts (dict[str, Callable[[], dict]]): evaluation functions by name; each returns nested results.
        last_parts (dict[str, Callable[[], dict]]): those called only after the last iteration.
        keep (Callable[[dict], None]): receives the merged results of all parts.
    """

    def __init__(
        self,
        period: int,
        evaluations: Evaluations,
        parts: Mapping[str, Callable[[], dict[str, Any]]],
        last_parts: Mapping[str, Callable[[], dict[str, Any]]],
        keep: Callable[[dict[str, Any]], None],
    ):
        super().__init__(period, None)
        self._evaluations = evaluations
        self._parts, self._last_parts = parts, last_parts
        self._keep = keep

    def before_train(self) -> None:
        """Catch up on a missed evaluation at the iteration where the run resumes."""
        start = self.trainer.start_iter
        self._evaluations.resume_from(start)
        if 0 < start < self.trainer.max_iter and self._is_due(start):
            storage = self.trainer.storage
            storage.iter = start - 1
            self._evaluate(start, self._parts)
            storage.iter = start

    def after_step(self) -> None:
        """Evaluate if due; the last evaluation is after training."""
        done = self.trainer.iter + 1
        if self._is_due(done) and done != self.trainer.max_iter:
            self._evaluate(done, self._parts)

    def after_train(self) -> None:
        """Evaluate if all iterations are done."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._evaluate(self.trainer.iter, {**self._parts, **self._last_parts})
        # they refer to the trainer, which refers to this hook
        del self._parts, self._last_parts, self._keep

    def _is_due(self, done):
        return self._period > 0 and done % self._period == 0

    def _evaluate(self, done, parts):
        results = {}
        for name, evaluate in parts.items():
            part = self._evaluations.get(done, name)
            if part is None:
                part = self._evaluations.add(done, name, evaluate() or {})
            else:
                logger.info(f"{self._evaluations.path} has the results of {name!r} after {done} iterations already")
            results.update(part)
        self._keep(results)
        self.trainer.storage.put_scalars(**flatten_results_dict(results), smoothing_hint=False)
        comm.synchronize()


def _digest(cfg):
    """A digest of the config keys that affect an evaluation's results, not where it runs."""
    model = cfg.MODEL.clone()
    model.defrost()
    model.DEVICE = model.WEIGHTS = ""
    parts = (str(model), str(cfg.INPUT), str(cfg.TEST), str(list(cfg.DATASETS.TEST)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _is_entry(entry):
    keys = {"iterations": int, "part": str, "config": str, "results": dict}
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in keys.items())


def _to_numbers(results):
    if isinstance(results, dict):
        return {name: _to_numbers(value) for name, value in results.items()}
    try:
        return float(results)
    except (TypeError, ValueError):
        raise ValueError(f"an evaluation must give nested dicts of numbers, not {results!r}") from None


def _to_json(results):
    """JSON has no NaN."""
    if isinstance(results, dict):
        return {name: _to_json(value) for name, value in results.items()}
    return results if math.isfinite(results) else None


def _from_json(results):
    if isinstance(results, dict):
        return {name: _from_json(value) for name, value in results.items()}
    return math.nan if results is None else results
