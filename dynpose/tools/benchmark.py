"""Measure dynpose on this machine: operators, models, training, prediction and the loading of data sets.

    dynpose benchmark kp-net [--device cuda] [--dtype bfloat16] [--markdown] [--plot kp-net.png] [--json kp-net.json]
    dynpose benchmark model --config-file configs/FCPose/R_50_3x.yaml [--people 1 10 100] [--plot models.png]
    dynpose benchmark model --from models.json --plot models.png    of an earlier --json
    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml [--batch 2] [--people 5] [--json training.json]
    dynpose benchmark predict --config-file output/run/config.yaml --weights output/run/model_final.pth [--batch 8]
    dynpose benchmark video --config-file configs/FCPose/DLA_34_4x.yaml [--frames 300] [--size 480 640] [--people 5]
    dynpose benchmark cold-start --exported pose.onnx --config-file config.yaml --weights model_final.pth
    dynpose benchmark exported --config-file configs/FCPose/R_50_3x.yaml [--people 1 10 100] [--size 800 1088]
    dynpose benchmark loading [--images 64000] [--people 150000] [--image-files 5000] [--json loading.json]
    dynpose benchmark gpu-report --output gpu_report [--minutes 10]    all that needs a GPU
    dynpose benchmark import gpu_report/                               its figures into docs/benchmarks.md

docs/benchmarks.md describes the measurements.
"""

import argparse
import importlib
from pathlib import Path

from .cli import positive_int, positive_number
from .job_arguments import PRECISIONS

NAME = "benchmark"
HELP = "time an operator, models over the number of people, training, prediction, the loading of data, or all of a GPU"

_EXTRAS = ("first-call", "released-loss", "all-positives")
# of targets whose names can't be those of modules
_PACKAGES = {"import": "import_report"}
_PLOT_FORMATS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    targets = parser.add_subparsers(dest="target", metavar="TARGET", required=True, help="what to measure")
    arguments = {
        "kp-net": (_add_kp_net, _add_device, _add_output),
        "model": (_add_model, _add_device, _add_output),
        "train": (_add_train, _add_device, _add_output),
        "predict": (_add_predict, _add_output),
        "video": (_add_video, _add_output),
        "cold-start": (_add_cold_start, _add_output),
        "exported": (_add_exported, _add_output),
        "loading": (_add_loading, _add_output),
        "gpu-report": (_add_gpu_report,),
        "import": (_add_import,),
    }
    for name, adders in arguments.items():
        text = _module(name).__doc__
        target = targets.add_parser(name, help=text.partition("\n")[0].rstrip("."), description=text)
        target.formatter_class = argparse.RawDescriptionHelpFormatter
        for add in adders:
            add(target.add_argument)


def _add_kp_net(add):
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the tensors")
    add("--deterministic", action="store_true", help="under torch.use_deterministic_algorithms(True, warn_only=True)")
    inference = "instances in inference; default: 1 10 50 100 500, on a CPU without what takes gigabytes"
    add("--instances", type=positive_int, nargs="+", metavar="N", help=inference)
    training = "instances in training, possibly none; default: 10 50 100 500, on a CPU 10 50"
    add("--training-instances", type=positive_int, nargs="*", metavar="N", help=training)
    size = "cells of the feature map; default 100 167, stride 8 of an image of 800 x 1333 pixels"
    add("--map-size", type=positive_int, nargs=2, metavar=("H", "W"), default=(100, 167), help=size)
    extras = f"what to measure beside the grid: {', '.join(_EXTRAS)}; default: all on a GPU, none on a CPU"
    add("--extras", nargs="*", choices=_EXTRAS, help=extras)
    add("--plot", type=_plot_file, metavar="FILE.png", help="draw the times over the instances")


def _add_model(add):
    _add_configs(add, peer=True)
    flops = "whether to count FLOPs, which takes seconds for each number of people; default: yes"
    add("--flops", action=argparse.BooleanOptionalAction, default=True, help=flops)
    weights = "of the models, in the order of the configs; default: random, which is as fast"
    add("--weights", action="append", metavar="FILE", help=weights)
    numbers = (1, 2, 5, 10, 20, 50, 100)
    people = f"people in the image; default {' '.join(map(str, numbers))}"
    add("--people", type=positive_int, nargs="+", metavar="N", default=numbers, help=people)
    add("--parts", action="store_true", help="also time the parts of each model: backbone, heads, what a person costs")
    alternatives = "also time a part of each model beside alternatives to it, for the methods that name some"
    add("--alternatives", action="store_true", help=alternatives)
    precision = "also measure each model optimized for inference (dynpose predict --precision), in these precisions"
    add("--precision", nargs="+", choices=PRECISIONS, default=[], help=precision)
    add("--compile", action="store_true", help="compile the optimized models")
    plot = "draw the times over the people, and those of the parts if they are timed"
    add("--plot", type=_plot_file, metavar="FILE.png", help=plot)
    earlier = "do not measure: print and --plot the figures of an earlier --json"
    add("--from", dest="earlier", type=Path, metavar="FILE.json", help=earlier)


def _add_train(add):
    _add_configs(add, peer=False)
    variant = 'overrides of each config, to compare it with others; may be given several times, "" = none'
    add("--variant", action="append", metavar='"KEY VALUE ..."', help=variant)
    _add_number(add, "--batch", "B", 2, "images,")
    _add_number(add, "--people", "N", 5, "in every image, possibly 0;", _natural_int)
    add("--amp", action="store_true", help="mixed precision for all; default: as SOLVER.AMP.ENABLED of each config")
    add("--parts", action="store_true", help="also time the forward pass, the backward pass and the optimizer's step")


def _add_predict(add):
    config = "of a model; may be given several times"
    add("--config-file", action="append", required=True, metavar="FILE", help=config)
    add("--weights", action="append", required=True, metavar="FILE", help="of the models, in the order of the configs")
    _add_number(add, "--images", "N", 500, "number of images;")
    _add_number(add, "--shapes", "N", 20, "of the images;")
    _add_number(add, "--batch", "B", 8, "images,")
    processes = "instead, time dynpose predict on a folder in one process and in N, with --threads (default 1) each"
    add("--processes", type=positive_int, metavar="N", help=processes)
    _add_machine(add)
    _add_number(add, "--repeats", "N", 1, "rounds,")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of all configs, after another option")


def _add_video(add):
    add("--config-file", required=True, metavar="FILE", help="of a model")
    add("--weights", default="", metavar="FILE", help="of the model; default: random, which is as fast")
    _add_number(add, "--frames", "N", 300, "number of frames;")
    size, shape = "of the frames, pixels; default 480 640", ("HEIGHT", "WIDTH")
    add("--size", type=positive_int, nargs=2, metavar=shape, default=(480, 640), help=size)
    _add_number(add, "--people", "N", 5, "in every frame;")
    _add_machine(add)
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def _add_cold_start(add):
    add("--exported", required=True, metavar="FILE", help="of dynpose export: .onnx, or .xml of OpenVINO")
    add("--config-file", required=True, metavar="FILE", help="of the model that was exported")
    add("--weights", required=True, metavar="FILE", help="of that model")
    add("--image", type=Path, metavar="FILE", help="to predict; default: one with synthetic people")
    _add_number(add, "--threads", "N", 1, "of the CPU,")
    _add_number(add, "--rounds", "N", 3, "")


def _add_exported(add):
    add("--config-file", action="append", required=True, metavar="FILE", help="of a model; may be given several times")
    numbers = (1, 10, 100)
    people = f"people in the image; default {' '.join(map(str, numbers))}"
    add("--people", type=positive_int, nargs="+", metavar="N", default=numbers, help=people)
    size, shape = "of the images that the model gets, pixels; default 800 1088", ("HEIGHT", "WIDTH")
    add("--size", type=positive_int, nargs=2, metavar=shape, default=(800, 1088), help=size)
    runtimes = ("onnxruntime", "openvino")
    add("--runtimes", nargs="+", choices=runtimes, default=runtimes, help="that run the file; default: both")
    _add_number(add, "--repeats", "N", 7, "rounds that are timed,")
    add("--threads", type=positive_int, help="CPU threads; default: torch's own choice")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of all configs, after another option")


def _add_loading(add):
    _add_number(add, "--images", "N", 64000, "of the annotation,")
    _add_number(add, "--people", "N", 150000, "over all images,")
    files = "JPEG files that are checked, possibly 0; below 100 nothing is cached;"
    _add_number(add, "--image-files", "N", 5000, files, _natural_int)
    _add_number(add, "--rounds", "N", 5, "")


def _add_gpu_report(add):
    add("--output", type=Path, default=Path("gpu_report"), metavar="FOLDER", help="of the report; default %(default)s")
    add("--minutes", type=positive_number, default=10.0, help="for all parts together; default %(default)s")
    add("--commit", help="of the code; default: that of the checkout")
    add("--rehearse", action="store_true", help="try the plan on a CPU, with tiny shapes")


def _add_import(add):
    add("folder", type=Path, help="of dynpose benchmark gpu-report")
    docs = "the page that is filled in; default %(default)s"
    add("--docs", type=Path, default=Path("docs", "benchmarks.md"), metavar="FILE.md", help=docs)
    add("--commit", help="that was measured, if the report does not name it")


def _add_configs(add, *, peer):
    """Declare the arguments shared by all comparisons of models: configs and image size."""
    add("--config-file", action="append", metavar="FILE", help="of a model; may be given several times, for one each")
    peers = f"whether to measure detectron2's Keypoint R-CNN R-50-FPN too; default: {'yes' if peer else 'no'}"
    add("--peer", action=argparse.BooleanOptionalAction, default=peer, help=peers)
    size, shape = "of the images that the model gets, pixels; default 800 1333", ("HEIGHT", "WIDTH")
    add("--size", type=positive_int, nargs=2, metavar=shape, default=(800, 1333), help=size)
    cpu_time = "times are CPU time of all threads, for a CPU that other processes use too; default: wall-clock time"
    add("--cpu-time", action="store_true", help=cpu_time)
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of all configs but the peer's, after another option")


def _add_device(add):
    _add_machine(add)
    tf32 = "whether float32 factors may be rounded to TF32 on a GPU; default: they may"
    add("--tf32", action=argparse.BooleanOptionalAction, default=True, help=tf32)
    add("--cudnn-benchmark", action="store_true", help="let cuDNN search for the fastest convolution")
    add("--repeats", type=positive_int, help="rounds that are timed; default: 50, on a CPU 7")


def _add_machine(add):
    add("--device", help="cpu or cuda; default: cuda where there is a GPU")
    add("--threads", type=positive_int, help="CPU threads; default: torch's own choice")


def _add_output(add):
    add("--markdown", action="store_true", help="print the tables as markdown")
    add("--json", type=_output_file, metavar="FILE", help="write all figures and the environment")


def _add_number(add, name, metavar, default, text, kind=positive_int):
    add(name, type=kind, metavar=metavar, default=default, help=f"{text} default %(default)s".strip())


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, and write the requested files.

    Returns:
        int: 1 if results that must be the same differ, or a part of a report was not done, else 0.
    """
    import json

    earlier = getattr(args, "earlier", None)
    report = _module(args.target, "run").measure(args) if earlier is None else _read_report(earlier)
    print(_module(args.target, "report").tables(report, "github" if getattr(args, "markdown", False) else "simple"))
    if getattr(args, "json", None):
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if getattr(args, "plot", None):
        _module(args.target, "plot").draw(report).savefig(args.plot)
    return int(bool(report.get("disagreements") or report.get("failures")))


def _read_report(path):
    """The figures that "benchmark model --json" wrote."""
    import json

    from dynpose.config import ConfigError

    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--from {path}: can't be read as JSON ({error})") from None
    keys = ("environment", "settings", "models", "cases", "peer", "optimized", "notes")
    missing = [key for key in keys if not isinstance(report, dict) or key not in report]
    if missing:
        raise ConfigError(
            f"--from {path}: is no file of `dynpose benchmark model --json`, it lacks {', '.join(missing)}"
        )
    return report


def _module(target, *name):
    """A module of the benchmark, or its package, which imports nothing and documents it."""
    package = _PACKAGES.get(target, target.replace("-", "_"))
    return importlib.import_module(".".join(("dynpose.benchmark", package, *name)))


def _natural_int(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _output_file(text):
    # Check the folder before minutes of measuring, not after.
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder of the file must exist")
    return path


def _plot_file(text):
    if Path(text).suffix not in _PLOT_FORMATS:
        raise argparse.ArgumentTypeError(f"{text}: must end in one of {', '.join(_PLOT_FORMATS)}")
    return _output_file(text)
