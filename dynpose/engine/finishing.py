"""What follows a training or an evaluation: the evaluation of the best weights, the report, the results as a file."""

from __future__ import annotations

import json
import logging
import math
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from dynpose.checkpoint import PoseCheckpointer
from dynpose.checkpoint.reading import load_checkpoint
from dynpose.checkpoint.writing import explain_write_errors
from dynpose.data import register_datasets_from_cfg
from dynpose.modeling.build import build_model
from dynpose.utils.atomic import atomic_open

from .trainer import PoseTrainer

__all__ = ["evaluate_best", "write_results", "write_run_report"]

logger = logging.getLogger(__name__)


def evaluate_best(cfg: CfgNode, last_results: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the best weights of a finished run, so that ``OUTPUT_DIR/inference`` holds their predictions.

    All processes call it. If the last weights are the best, their evaluation is not repeated.

    Args:
        cfg (CfgNode): ``config.yaml`` of the run.
        last_results (dict): of the last evaluation.

    Returns:
        dict: the results of the best weights.
    """
    weights, final = (os.path.join(cfg.OUTPUT_DIR, f"model_{name}.pth") for name in ("best", "final"))
    if not os.path.exists(weights):
        weights = final
    iteration = load_checkpoint(weights)["iteration"]
    results = last_results
    if iteration != load_checkpoint(final)["iteration"]:
        logger.info(f"The weights after {iteration + 1} iterations are the best: they are evaluated for the report")
        register_datasets_from_cfg(cfg)
        # not the trainer's, which logs the model once more
        model = build_model(cfg)
        PoseCheckpointer(model, complete=True, class_names=cfg.MODEL.CLASS_NAMES).load(weights)
        results = PoseTrainer.test(cfg, model)
    logger.info(
        f"The best weights are {weights}; dynpose predict --weights {weights} --input IMAGES --output FOLDER predicts "
        "with them"
    )
    return results


def write_run_report(cfg: CfgNode) -> None:
    """Write the report of a finished run to its output folder, from the main process.

    A report that can't be made is a warning: the run is complete without it.

    Args:
        cfg (CfgNode): ``config.yaml`` of the run.
    """
    if not comm.is_main_process():
        return
    from dynpose.report import read_run, write_report

    names = cfg.DATASETS.TEST
    for name in names:
        folder = os.path.join(cfg.OUTPUT_DIR, "report", name) if len(names) > 1 else cfg.OUTPUT_DIR
        try:
            headline = write_report(read_run(cfg.OUTPUT_DIR, name), folder)["verdict"]["headline"]
        except Exception:
            logger.warning(f"The report of {name} can't be made; the run is complete without it", exc_info=True)
        else:
            logger.info(f"{os.path.join(folder, 'report.html')} says what the best weights get wrong: {headline}")


def write_results(results: dict[str, Any], folder: str) -> None:
    """Write metrics to ``results.json``.

    Args:
        results (dict): of an evaluation, nested.
        folder (str): existing.

    Raises:
        CheckpointError: the file can't be written.
    """
    path = os.path.join(folder, "results.json")
    flat = {name: float(value) for name, value in flatten_results_dict(results).items()}
    with explain_write_errors(path), atomic_open(path) as f:
        # JSON has no NaN
        json.dump({name: value if math.isfinite(value) else None for name, value in flat.items()}, f, indent=1)
    logger.info(f"{path} has the metrics")
