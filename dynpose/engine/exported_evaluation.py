"""Evaluation of an exported file: the runtime reads the images and finds the people, PoseEvaluator measures them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm

from dynpose.runtime import Pose

from .exported_prediction import people_to_instances
from .trainer import PoseTrainer

__all__ = ["evaluate_exported"]


def evaluate_exported(cfg: CfgNode) -> Mapping[str, Any]:
    """Evaluate an exported file on the data sets of a config; called in every process of the job.

    Args:
        cfg (CfgNode): completed by :func:`dynpose.engine.setup`. MODEL.WEIGHTS is the file, MODEL.DEVICE its device.
            INPUT is not used: the file says how images are resized.

    Returns:
        Mapping: of one data set its results, else those of each by its name.

    Raises:
        CheckpointError: the file can't be used, see :class:`~dynpose.runtime.Pose`.
    """
    pose = Pose(cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE)

    def prepare(record):
        return {**record, **pose.prepare(record["file_name"])}

    def predict(inputs):
        return [{"instances": people_to_instances(people)} for people in pose.infer(inputs)]

    results: OrderedDict[str, Any] = OrderedDict()
    for name in cfg.DATASETS.TEST:
        evaluator = PoseTrainer.build_evaluator(cfg, name)
        # in this process: a runtime's session does not survive a fork
        loader = build_detection_test_loader(cfg, name, mapper=prepare, num_workers=0)
        results[name] = inference_on_dataset(predict, loader, evaluator)
        if comm.is_main_process():
            print_csv_format(results[name])
    return results if len(results) > 1 else next(iter(results.values()))
