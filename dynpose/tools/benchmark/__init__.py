"""Measure dynpose on this machine: its operators, models, their training and prediction, and the loading of data sets.

    dynpose benchmark kp-net [--device cuda] [--dtype bfloat16] [--markdown] [--plot kp-net.png] [--json kp-net.json]
    dynpose benchmark model --config-file configs/FCPose/R_50_3x.yaml [--people 1 10 100] [--plot models.png]
    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml [--batch 2] [--people 5] [--json training.json]
    dynpose benchmark predict --config-file output/run/config.yaml --weights output/run/model_final.pth [--batch 8]
    dynpose benchmark loading [--images 64000] [--people 150000] [--image-files 5000] [--json loading.json]

docs/benchmarks.md says how all are measured.
"""

import argparse
from pathlib import Path

from ..cli import positive_int

NAME = "benchmark"
HELP = "time an operator, models over the number of people, training, prediction in batches, or the loading of data"

_EXTRAS = ("first-call", "released-loss", "all-positives")
_PLOT_FORMATS = (".png", ".svg", ".pdf")

_KP_NET = """The KP-Net operator against the usual way to compute it.

kp-net runs the KP-Nets of FCPose and InsPose, forward for the peaks (the value, the index and the softmax confidence of
each heatmap's highest cell), and forward and backward for the cross-entropy of the heatmaps, in up to three ways:

    grouped    a convolution with one group for each person (F.conv2d(..., groups=N)) on the feature map repeated N
               times, with the coordinates appended: the usual way to run a generated network
    reference  the operator in plain PyTorch (backend "torch")
    fused      the operator's Triton kernels (backend "triton"); CUDA only

Before anything is timed, they must give the same numbers. Time: the median of many rounds, in each of which every
contestant runs once, by the device's events on a GPU; every call reads other inputs than the one before. Memory: what
is held at the peak of one call beyond its inputs. The floor is the time that the work takes at the least, at the matrix
rate and the memory bandwidth measured in the same run. docs/benchmarks.md says it all precisely.

On a GPU it also measures the first call of the fused kernels, the loss of the released FCPose, and training with all
positive locations (--extras chooses).
"""

_MODEL = """Models over the number of people in the image.

For every config, and for detectron2's own Keypoint R-CNN (R-50-FPN) as their peer: parameters, GFLOPs, and the time
and the memory of one image with 1, 2, 5, 10, 20, 50 and 100 people. No weights and no data are needed: detections
are injected into the predictions, so that the whole network runs and exactly so many people come out.

Time: the median of many rounds, in each of which every model runs once, from the image on the device until its poses
are there. Memory: what is held at the peak beyond weights and image. docs/benchmarks.md says it all precisely.
"""

_TRAIN = """Training iterations of any config.

For every config: iterations and images in a second, the time of an iteration (--parts: of its forward pass, backward
pass and optimizer step apart), and its memory at the peak. No data and no weights are needed: images are noise, with
synthetic people spread over them. Any meta-architecture of detectron2's registry is trained, with the config's own
optimizer. With --variant one config becomes several contestants; the first of all is the baseline of the ratios:

    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml --variant "" \\
        --variant "MODEL.FCPOSE.MAX_SAMPLES 500"

Time: the median of many rounds, in each of which every contestant runs once, from the batch on the device until the
step is done. Memory: all that is held at the peak, weights, gradients and the optimizer's state included.
docs/benchmarks.md says it all precisely.
"""

_PREDICT = """Images of many shapes one by one, and in batches.

Synthetic people on images of some shapes, in mixed order, go through PosePredictor one by one and by its predict_all,
which reads ahead for images that can share a batch; resizing is part of the time, reading files is not. Both must find
the same: people whose keypoints differ by more than 1e-3 pixel, or scores by more than 1e-4, make the exit code 1.

Time: medians of the rounds, in each of which both ways run once. CPU seconds are those of all threads, and depend less
on what else the machine does. docs/benchmarks.md says it all precisely.
"""

_LOADING = """Loading the annotation of a data set, and checking its image files.

An annotation of COCO's make-up, with people at random, and empty image files are written to a temporary folder. These
are timed, each with detectron2's filters for training behind it:

    detectron2             load_coco_json, which trusts the file
    dynpose, first start   load_pose_json, which checks every item, with nothing remembered (DYNPOSE_CACHE is empty)
    dynpose, second start  the same again: the file is as it was, and what it holds is remembered

So is the check of small JPEG files, at a first and at a second start. Contestants must give training the same people;
one that does not makes the exit code 1.

Time: medians of the rounds, in each of which every contestant runs once, in a process of its own. CPU seconds are those
of all threads, and depend less on what else the machine does. Memory: what is held at the peak beyond what the process
held before. docs/benchmarks.md says it all precisely.
"""


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    targets = parser.add_subparsers(dest="target", metavar="TARGET", required=True, help="what to measure")
    for name, text, adders in (
        ("kp-net", _KP_NET, (_add_kp_net, _add_device, _add_output)),
        ("model", _MODEL, (_add_model, _add_device, _add_output)),
        ("train", _TRAIN, (_add_train, _add_device, _add_output)),
        ("predict", _PREDICT, (_add_predict, _add_output)),
        ("loading", _LOADING, (_add_loading, _add_output)),
    ):
        target = targets.add_parser(name, help=_first_line(text), description=text)
        target.formatter_class = argparse.RawDescriptionHelpFormatter
        for add in adders:
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
        help='overrides that make a contestant of each config; may be given several times, "" = none',
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
        help="JPEG files that are checked, possibly 0; default %(default)s; below 100 nothing is remembered of them",
    )
    parser.add_argument("--rounds", type=positive_int, metavar="N", default=5, help="default %(default)s")


def _add_configs(parser, *, peer):
    """Declare what all comparisons of whole models have: whose, and for what images."""
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
        help="whether all contestants may round float32 factors to TF32 on a GPU; default: they may",
    )
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="let cuDNN search for the fastest convolution, for all"
    )
    parser.add_argument("--threads", type=positive_int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--repeats", type=positive_int, help="rounds that are timed; default: 50, on a CPU 7")


def _add_output(parser):
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--json", type=_output_file, metavar="FILE", help="write all figures and the environment")


def run(args):
    """Measure, print the tables, and write what was asked for.

    Returns:
        int: 1 where contestants disagree, else 0.
    """
    import json

    modules = {
        "kp-net": _measure_kp_net,
        "model": _measure_models,
        "train": _measure_training,
        "predict": _measure_prediction,
        "loading": _measure_loading,
    }
    measure, tables = modules[args.target]()
    report = measure(args)
    print(tables(report, "github" if args.markdown else "simple"))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if getattr(args, "plot", None):
        from . import model_plot, plot

        draw = model_plot.draw_models if args.target == "model" else plot.draw
        draw(report).savefig(args.plot)
    return int(bool(report.get("disagreements")))


def _measure_kp_net():
    from .report import tables
    from .running import measure_all

    return measure_all, tables


def _measure_models():
    from .model_report import model_tables
    from .model_running import measure_models

    return measure_models, model_tables


def _measure_training():
    from .training_report import training_tables
    from .training_running import measure_training

    return measure_training, training_tables


def _measure_prediction():
    from .predicting import measure_prediction, prediction_tables

    return measure_prediction, prediction_tables


def _measure_loading():
    from .loading import loading_tables, measure_loading

    return measure_loading, loading_tables


def _natural_int(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _first_line(text):
    return text.partition("\n")[0].rstrip(".")


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
