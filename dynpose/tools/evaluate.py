"""Evaluate a model: AP by OKS on an annotation file, or on the data sets of its config.

    dynpose evaluate --weights output/hands/model_best.pth
    dynpose evaluate --weights output/hands/model_best.pth --annotations val.json --image-root images
    dynpose evaluate --config-file my_config.yaml --weights my_weights.pth --dataset keypoints_coco_2017_val

It is train_net.py --eval-only. docs/evaluation.md describes the metrics. The folder of the results gets the predictions
in COCO's results format (inference/coco_instances_results.json) and the metrics (results.json).
"""

import argparse
import os
from typing import Any

from .config_of_weights import required_config
from .job_arguments import add_job_arguments, add_speed_arguments, job_arguments

NAME = "evaluate"
HELP = "measure a model's AP on an annotated data set"
IS_RUN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", help="a config by path or name; default: that of the weights")
    parser.add_argument("--weights", required=True, help="a file, or a name of `dynpose model-info --weights-list`")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--annotations", help="a file in COCO's keypoint format; default: DATASETS.TEST of the config")
    data.add_argument("--dataset", nargs="+", help="registered data sets instead, such as keypoints_coco_2017_val")
    parser.add_argument("--image-root", help="with --annotations: folder of its images, default: that of the file")
    parser.add_argument("--output", help="folder of the results, default: evaluation/ in OUTPUT_DIR of the config")
    add_speed_arguments(parser, None)
    add_job_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate, print and write the results."""
    from dynpose.config import ConfigError, load_config
    from dynpose.engine import launch

    if args.image_root and not args.annotations:
        raise ConfigError("--image-root goes with --annotations, the annotation file of its images")
    config_file = required_config(args.config_file, args.weights)
    cfg = load_config(config_file, args.opts)
    output = args.output or os.path.join(cfg.OUTPUT_DIR, "evaluation")
    opts: list[Any] = ["MODEL.WEIGHTS", args.weights, "OUTPUT_DIR", output]
    if args.annotations:
        entry = _entry(cfg, args.annotations, args.image_root)
        opts += ["DATASETS.POSE", [entry], "DATASETS.TEST", (entry["name"],)]
    if args.dataset:
        opts += ["DATASETS.TEST", tuple(args.dataset)]
    speed = {"precision": args.precision, "compile": args.compile}
    launch(evaluate, job_arguments(args, config_file, opts, eval_only=True, **speed))


def _entry(cfg, annotations, image_root):
    """The data set of a file, with what the file may not say of its keypoints: the model's pairs and sigmas, if it has
    the same keypoints, else the sigmas of ``dynpose train --data``.
    """
    from dynpose.data import model_schema
    from dynpose.data.data_file import proposed_sigmas
    from dynpose.data.datasets import read_schema

    annotations = os.path.abspath(os.path.expanduser(annotations))
    root = os.path.expanduser(image_root) if image_root else os.path.dirname(annotations)
    entry = {"name": os.path.splitext(os.path.basename(annotations))[0], "json_file": annotations, "image_root": root}
    schema = read_schema(annotations)
    sigmas = proposed_sigmas(schema.names) if schema.sigmas_are_default else None
    if cfg.MODEL.KEYPOINT_SCHEMA.NAMES and model_schema(cfg).names == schema.names:
        model = model_schema(cfg)
        entry["flip_pairs"] = [list(pair) for pair in model.flip_pairs]
        sigmas = None if model.sigmas_are_default else list(model.sigmas)
    return entry if sigmas is None else {**entry, "sigmas": sigmas}


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, and write the metrics; called in every process of the job.

    Args:
        args (argparse.Namespace): see :func:`dynpose.engine.setup`.

    Returns:
        dict: the results.
    """
    from detectron2.utils import comm

    from dynpose.config import load_config
    from dynpose.engine import main
    from dynpose.engine.finishing import write_results

    results = main(args)
    if comm.is_main_process():
        write_results(results, load_config(args.config_file, args.opts).OUTPUT_DIR)
    return results
