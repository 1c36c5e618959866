"""The `dynpose` command.

Each subcommand is a module of this package with NAME, HELP (one line), ``add_arguments(parser)`` and ``run(args)``,
which returns the exit code or None; IS_RUN = True marks one that runs in several processes. They import torch and
detectron2 in ``run``, not at the top, to keep ``dynpose --help`` fast.
"""

import argparse
import importlib
import importlib.metadata
import math
from collections.abc import Sequence

from dynpose.version import __version__

from .ending import exit_code

# In the order of the help
_MODULES = (
    "train",
    "evaluate",
    "predict",
    "visualize",
    "merge_predictions",
    "export",
    "report",
    "convert_data",
    "check_data",
    "benchmark",
    "convert_weights",
    "model_info",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (list[str] | None): arguments; None = those of the process.

    Returns:
        int: exit code. 0 = done, 1 = the command's own negative result, see its help, 2 = invalid input, which is
        reported in one line, 130 = interrupted, and for predict and export 143 = terminated.
    """
    args = _parser().parse_args(argv)
    return exit_code("dynpose", lambda: args.run(args), is_run=args.is_run)


def positive_int(text: str) -> int:
    """Parse an argument that must be an integer of at least 1, for the ``type`` of ``add_argument``."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def finite_number(text: str) -> float:
    """Parse an argument that must be a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def positive_number(text: str) -> float:
    """Parse an argument that must be a finite number above 0."""
    value = finite_number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _parser():
    parser = argparse.ArgumentParser(prog="dynpose", description="Single-stage multi-person pose estimation.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of dynpose, PyTorch and detectron2"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _MODULES:
        module = importlib.import_module(f"dynpose.tools.{name}")
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.__doc__)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
        command.set_defaults(run=module.run, is_run=getattr(module, "IS_RUN", False))
    return parser


class _Version(argparse.Action):
    """Prints the installed versions from package metadata; importing PyTorch and detectron2 would take seconds."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"dynpose {__version__}")
        for package in ("torch", "detectron2"):
            print(f"{package} {_installed_version(package)}")
        parser.exit()


def _installed_version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"
