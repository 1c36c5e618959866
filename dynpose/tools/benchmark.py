"""Measure dynpose on this machine: its operators, models, their training and prediction, and the loading of data sets.

    dynpose benchmark kp-net [--device cuda] [--dtype bfloat16] [--markdown] [--plot kp-net.png] [--json kp-net.json]
    dynpose benchmark model --config-file configs/FCPose/R_50_3x.yaml [--people 1 10 100] [--plot models.png]
    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml [--batch 2] [--people 5] [--json training.json]
    dynpose benchmark predict --config-file output/run/config.yaml --weights output/run/model_final.pth [--batch 8]
    dynpose benchmark loading [--images 64000] [--people 150000] [--image-files 5000] [--json loading.json]

docs/benchmarks.md describes how everything is measured.
"""

import argparse
import importlib
from pathlib import Path

from .cli import positive_int

NAME = "benchmark"
HELP = "time an operator, models over the number of people, training, prediction in batches, or the loading of data"

_EXTRAS = ("first-call", "released-loss", "all-positives")
_PLOT_FORMATS = (".png", ".svg", ".pdf")


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    targets = parser.add_subparsers(dest="target", metavar="TARGET", required=True, help="what to measure")
    arguments = {
        "kp-net": (_add_kp_net, _add_device),
        "model": (_add_model, _add_device),
        "train": (_add_train, _add_device),
        "predict": (_add_predict,),
        "loading": (_add_loading,),
    }
    for name, adders in arguments.items():
        text = _package(name).__doc__
        target = targets.add_parser(name, help=text.partition("\n")[0].rstrip("."), description=text)
        target.formatter_class = argparse.RawDescriptionHelpFormatter
        for add in (*adders, _add_output):
            add(target)


def _add_kp_net(parser):
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the tensors")
    parser.add_argument(
        "--deterministic", action="store_true", help="under torch.use_deterministic_algorithms(True, warn_only=True)"
    )
    parser.add_argument(
        "--instances",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="instances in inference; default: 1 10 50 100 500, on a CPU without what takes gigabytes",
    )
    parser.add_argument(
        "--training-instances",
        type=positive_int,
        nargs="*",
        metavar="N",
        help="instances in training, possibly none; default: 10 50 100 500, on a CPU 10 50",
    )
    parser.add_argument(
        "--map-size",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        default=(100, 167),
        help="cells of the feature map; default 100 167, stride 8 of an image of 800 x 1333 pixels",
    )
    parser.add_argument(
        "--extras",
        nargs="*",
        choices=_EXTRAS,
        help=f"what to measure beside the grid: {', '.join(_EXTRAS)}; default: all on a GPU, none on a CPU",
    )
    parser.add_argument("--plot", type=_plot_file, metavar="FILE.png", help="draw the times over the instances")


def _add_model(parser):
    _add_configs(parser, peer=True)
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FILE",
        help="of the models, in the order of the configs; default: random, which is as fast",
    )
    parser.add_argument(
        "--people",
        type=positive_int,
        nargs="+",
        metavar="N",
        default=(1, 2, 5, 10, 20, 50, 100),
        help="people in the image; default 1 2 5 10 20 50 100",
    )
    parser.add_argument(
        "--parts", action="store_true", help="also time the parts of each model: backbone, heads, what a person costs"
    )
    parser.add_argument("--plot", type=_plot_file, metavar="FILE.png", help="draw the times over the people")


def _add_train(parser):
    _add_configs(parser, peer=False)
    parser.add_argument(
        "--variant",
        action="append",
        metavar='"KEY VALUE ..."',
        help='overrides of each config, to compare it with others; may be given several times, "" = none',
    )
    parser.add_argument("--batch", type=positive_int, metavar="B", default=2, help="images, default %(default)s")
    parser.add_argument(
        "--people", type=_natural_int, metavar="N", default=5, help="in every image, possibly 0; default %(default)s"
    )
    parser.add_argument(
        "--amp", action="store_true", help="mixed precision for all; default: as SOLVER.AMP.ENABLED of each config"
    )
    parser.add_argument(
        "--parts", action="store_true", help="also time the forward pass, the backward pass and the optimizer's step"
    )


def _add_predict(parser):
    parser.add_argument(
        "--config-file", action="append", required=True, metavar="FILE", help="of a model; may be given several times"
    )
    parser.add_argument(
        "--weights", action="append", required=True, metavar="FILE", help="of the models, in the order of the configs"
    )
    parser.add_argument("--images", type=positive_int, metavar="N", default=500, help="default %(default)s")
    parser.add_argument(
        "--shapes", type=positive_int, metavar="N", default=20, help="of the images; default %(default)s"
    )
    parser.add_argument("--batch", type=positive_int, metavar="B", default=8, help="images, default %(default)s")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is a GPU")
    parser.add_argument("--threads", type=positive_int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--repeats", type=positive_int, default=1, help="rounds, default %(default)s")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of all configs, after another option")


def _add_loading(parser):
    parser.add_argument(
        "--images", type=positive_int, metavar="N", default=64000, help="of the annotation, default %(default)s"
    )
    parser.add_argument(
        "--people", type=positive_int, metavar="N", default=150000, help="over all images, default %(default)s"
    )
    parser.add_argument(
        "--image-files",
        type=_natural_int,
        metavar="N",
        default=5000,
        help="JPEG files that are checked, possibly 0; default %(default)s; below 100 nothing is cached",
    )
    parser.add_argument("--rounds", type=positive_int, metavar="N", default=5, help="default %(default)s")


def _add_configs(parser, *, peer):
    """Declare what all comparisons of models share: the configs and the size of the images."""
    parser.add_argument(
        "--config-file", action="append", metavar="FILE", help="of a model; may be given several times, for one each"
    )
    parser.add_argument(
        "--peer",
        action=argparse.BooleanOptionalAction,
        default=peer,
        help=f"whether to measure detectron2's Keypoint R-CNN R-50-FPN too; default: {'yes' if peer else 'no'}",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(800, 1333),
        help="of the images that the model gets, pixels; default 800 1333",
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="overrides of all configs but the peer's, after another option"
    )


def _add_device(parser):
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is a GPU")
    parser.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether float32 factors may be rounded to TF32 on a GPU; default: they may",
    )
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN search for the fastest convolution")
    parser.add_argument("--threads", type=positive_int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--repeats", type=positive_int, help="rounds that are timed; default: 50, on a CPU 7")


def _add_output(parser):
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--json", type=_output_file, metavar="FILE", help="write all figures and the environment")


def run(args):
    """Measure, print the tables, and write what was asked for.

    Returns:
        int: 1 where results that must be the same are not, else 0.
    """
    import json

    report = _package(args.target, "run").measure(args)
    print(_package(args.target, "report").tables(report, "github" if args.markdown else "simple"))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if getattr(args, "plot", None):
        _package(args.target, "plot").draw(report).savefig(args.plot)
    return int(bool(report.get("disagreements")))


def _package(target, *module):
    """A module of the package of a target; the package itself imports nothing."""
    return importlib.import_module(".".join(("dynpose.benchmark", target.replace("-", "_"), *module)))


def _natural_int(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _output_file(text):
    # Known before minutes of measuring, not after.
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder of the file must exist")
    return path


def _plot_file(text):
    if Path(text).suffix not in _PLOT_FORMATS:
        raise argparse.ArgumentTypeError(f"{text}: must end in one of {', '.join(_PLOT_FORMATS)}")
    return _output_file(text)
