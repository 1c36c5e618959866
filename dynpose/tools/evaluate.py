"""Evaluate a model: AP by OKS on an annotation file, or on the data sets of its config.

    dynpose evaluate --weights output/hands/model_best.pth
    dynpose evaluate --weights output/hands/model_best.pth --annotations val.json --image-root images
    dynpose evaluate --config-file my_config.yaml --weights my_weights.pth --dataset keypoints_coco_2017_val
    dynpose evaluate --weights pose.onnx --annotations val.json --image-root images

It is train_net.py --eval-only. A file of "dynpose export" (.onnx, or .xml of OpenVINO) is evaluated through
dynpose.runtime; its config is that of its model, where dynpose has one of that name. docs/evaluation.md describes the
metrics. The folder of the results gets the predictions in COCO's results format
(inference/coco_instances_results.json) and the metrics (results.json).
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
    parser.add_argument(
        "--weights",
        required=True,
        help="a checkpoint, a file of `dynpose export`, or a name of `dynpose model-info --weights-list`",
    )
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
    from dynpose.runtime.sessions import is_exported

    if args.image_root and not args.annotations:
        raise ConfigError("--image-root goes with --annotations, the annotation file of its images")
    if is_exported(args.weights):
        config_file, opts = _of_exported(args)
    else:
        config_file, opts = required_config(args.config_file, args.weights), []
    cfg = load_config(config_file, [*opts, *args.opts])
    if is_exported(args.weights) and cfg.TEST.AUG.ENABLED:
        raise ConfigError(
            f"--weights {args.weights}: TEST.AUG.ENABLED is True, and an exported file has no test-time augmentation; "
            "set it to False at the end of the command"
        )
    output = args.output or os.path.join(cfg.OUTPUT_DIR, "evaluation")
    opts += ["MODEL.WEIGHTS", args.weights, "OUTPUT_DIR", output]
    if args.annotations:
        entry = _entry(cfg, args.annotations, args.image_root)
        opts += ["DATASETS.POSE", [entry], "DATASETS.TEST", (entry["name"],)]
    if args.dataset:
        opts += ["DATASETS.TEST", tuple(args.dataset)]
    speed = {"precision": args.precision, "compile": args.compile}
    launch(evaluate, job_arguments(args, config_file, opts, eval_only=True, **speed))


def _of_exported(args) -> tuple[str, list[Any]]:
    """The config of an exported file, "" = the default one, and the overrides by what the file says of its model."""
    from dynpose.config import ConfigError, config_names
    from dynpose.methods import get_method
    from dynpose.runtime import Pose

    refused = [f"--{name}" for name in ("precision", "compile") if getattr(args, name)]
    if refused:
        raise ConfigError(
            f"--weights {args.weights}: an exported file has its precision in it; leave out {', '.join(refused)}"
        )
    metadata = Pose(args.weights).metadata
    config_file = args.config_file or (metadata.config if metadata.config in config_names() else "")
    if not (config_file or args.annotations or args.dataset):
        raise ConfigError(
            f"--weights {args.weights}: the file does not say on what to evaluate it; give --annotations, --dataset or "
            "--config-file"
        )
    schema = metadata.schema
    opts: list[Any] = [
        *("MODEL.CLASS_NAMES", list(metadata.class_names), "MODEL.KEYPOINT_SCHEMA.NAMES", list(schema.names)),
        *("MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS", [list(pair) for pair in schema.flip_pairs]),
        *("MODEL.KEYPOINT_SCHEMA.SKELETON", [list(edge) for edge in schema.skeleton]),
        *("MODEL.KEYPOINT_SCHEMA.SIGMAS", list(schema.sigmas)),
        # of the runtime, unless the command says another; the key's default needs a GPU
        *("MODEL.DEVICE", "cpu"),
    ]
    method = get_method(metadata.method)
    if method is not None:
        opts += ["MODEL.META_ARCHITECTURE", metadata.method]
    # detectron2's default architecture stands for one that is not registered here
    key = method.num_classes_key if method is not None else "MODEL.ROI_HEADS.NUM_CLASSES"
    if key and metadata.class_names:
        opts += [key, len(metadata.class_names)]
    return config_file, opts


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
