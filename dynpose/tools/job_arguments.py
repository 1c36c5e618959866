"""Arguments that several commands share: of detectron2's ``default_argument_parser`` for one or several processes, and
of the speed of a model.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from .cli import positive_int

__all__ = ["PRECISIONS", "add_job_arguments", "add_speed_arguments", "job_arguments"]

# of an optimized model, as in dynpose.engine.fast_inference, which takes long to import
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SHARED = ("num_gpus", "num_machines", "machine_rank", "dist_url")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for processes and machines, and the overrides."""
    parser.add_argument(
        "--num-gpus", type=positive_int, default=1, help="processes on this machine, on a CPU too; default %(default)s"
    )
    parser.add_argument("--num-machines", type=positive_int, default=1, help="of the job, default %(default)s")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of the first of several machines")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def add_speed_arguments(parser: argparse.ArgumentParser, precision: str | None) -> None:
    """Declare the arguments of :func:`dynpose.engine.optimize_for_inference`.

    Args:
        parser (argparse.ArgumentParser)
        precision (str | None): the default.
    """
    default = f"default {precision}" if precision else "default float32, or TEST.AMP's"
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help=f"of the network; auto: bfloat16 where the device multiplies in it natively; {default}",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the network at the first image (torch.compile, minutes)"
    )


def job_arguments(
    args: argparse.Namespace, config_file: str, opts: Sequence[Any], *, eval_only: bool = False, **more: Any
) -> argparse.Namespace:
    """The arguments for :func:`dynpose.engine.launch` and :func:`dynpose.engine.main`.

    Args:
        args (argparse.Namespace): with the arguments of :func:`add_job_arguments`.
        config_file (str): path or name of a config.
        opts (Sequence): KEY VALUE pairs that come before those of ``args``.
        eval_only (bool): evaluate instead of training.
        **more: further attributes.

    Returns:
        argparse.Namespace: it can be pickled, for other processes.
    """
    shared = {name: getattr(args, name) for name in _SHARED}
    shared["resume"] = not eval_only and args.resume
    return argparse.Namespace(config_file=config_file, opts=[*opts, *args.opts], eval_only=eval_only, **shared, **more)
