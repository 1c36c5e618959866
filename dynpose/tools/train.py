"""Train a model: from a config, or on your own data from one small file.

    dynpose train --config-file FCPose/R_50_1x.yaml --num-gpus 8
    dynpose train --data hands.yaml --weights output/demo/model_final.pth

With --config-file it is train_net.py. --data adds what your data need: it holds out images for validation if the file
names none, chooses a schedule from the number of images, keeps the best weights, stops when they no longer improve, and
ends with a report. docs/custom_training.md describes the data file:

    train: {annotations: train.json, images: images}    # in COCO's keypoint format

The config is then that of the weights (config.yaml beside them, or the one that published weights belong to), or a
small model for this machine; --config-file gives another one. KEY VALUE overrides take precedence over all that is
chosen.
"""

import argparse
import os
from typing import Any

from .config_of_weights import CONFIG_OF_RUN, config_of_weights
from .job_arguments import add_job_arguments, job_arguments

NAME = "train"
HELP = "train a model, from a config or on your own data"
IS_RUN = True

_DEFAULT_CONFIGS = {"cuda": "custom/gpu.yaml", "cpu": "custom/cpu.yaml"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--data", help="a data file: annotations, images and keypoints of your data")
    parser.add_argument("--config-file", help="a config by path or name; may be omitted with --data")
    parser.add_argument("--weights", help="to start from; default: MODEL.WEIGHTS of the config")
    parser.add_argument("--output", help="folder of the run; default: OUTPUT_DIR, with --data output/NAME")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the output folder")
    add_job_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train; the results are in the output folder."""
    from dynpose.config import ConfigError
    from dynpose.engine import launch, main

    if args.data is None and args.config_file is None:
        raise ConfigError("give a config with --config-file, or your data with --data")
    opts = [] if args.weights is None else ["MODEL.WEIGHTS", args.weights]
    if args.data is None:
        opts += [] if args.output is None else ["OUTPUT_DIR", args.output]
        launch(main, job_arguments(args, args.config_file, opts))
    else:
        launch(train_on_data, _data_arguments(args, opts))


def _data_arguments(args, opts):
    from dynpose.config import load_config

    config_file, reason = _config(args)
    name = os.path.splitext(os.path.basename(args.data))[0]
    opts = [*opts, "OUTPUT_DIR", args.output or os.path.join("output", name)]
    if args.config_file is None and load_config(config_file).MODEL.DEVICE.startswith("cuda") and _device() == "cpu":
        opts += ["MODEL.DEVICE", "cpu"]
        reason += "; MODEL.DEVICE is cpu, since PyTorch finds no GPU"
    fine_tunes = args.weights is not None
    return job_arguments(args, config_file, opts, data=args.data, fine_tunes=fine_tunes, config_reason=reason)


def _config(args):
    """The config, and why it is that one."""
    if args.config_file:
        return args.config_file, "given by --config-file"
    of_weights = config_of_weights(args.weights) if args.weights else None
    if of_weights:
        return of_weights, "that of the weights"
    return _DEFAULT_CONFIGS[_device()], "the default " + ("with a GPU" if _device() == "cuda" else "without a GPU")


def _device():
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def train_on_data(args: argparse.Namespace) -> dict[str, Any]:
    """Train on a data file, evaluate the best weights and write the report; called in every process of the job.

    Args:
        args (argparse.Namespace): see :func:`dynpose.engine.setup`.

    Returns:
        dict: the results of the best weights.

    Raises:
        ConfigError: the output folder holds another run, and ``args`` do not resume it.
    """
    from dynpose.config import ConfigError, load_config
    from dynpose.engine import main
    from dynpose.engine.finishing import evaluate_best, write_run_report

    folder = load_config(args.config_file, args.opts).OUTPUT_DIR
    saved = os.path.join(folder, CONFIG_OF_RUN)
    if os.path.exists(os.path.join(folder, "last_checkpoint")):
        if not args.resume:
            raise ConfigError(f"--output {folder}: it holds a run; continue it with --resume, or name another folder")
        # with the images and the schedule that it has begun with
        args = argparse.Namespace(**{**vars(args), "config_file": saved, "data": None})
    last_results = main(args)
    cfg = load_config(saved, ["OUTPUT_DIR", folder])
    results = evaluate_best(cfg, last_results)
    write_run_report(cfg)
    return results
