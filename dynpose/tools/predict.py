"""Predict the people in images and videos: pictures with their poses, and one file with all numbers.

    dynpose predict --weights output/run/model_final.pth \\
        --input street.jpg holiday/ 'frames/*.png' match.mp4 --track --output predictions

The config is, without --config-file, config.yaml in the folder of the weights, or that of published weights, whose
names "dynpose model-info --weights-list" prints. A file of "dynpose export" (.onnx, or .xml of OpenVINO) needs none:

    dynpose predict --weights pose.onnx --input street.jpg --output predictions

An input is an image, a video or an animated image; a folder or a glob of these; a list of them (.txt, a path per
line); a tar archive of images; the http(s) URL of an image or a video; a camera (its number, or camera:0); a stream
(rtsp://...); or - for standard input: an image, a video, or file names, one in a line.

The output folder gets a picture for every image and a video for every video, under its path relative to the common
folder of all inputs, and predictions.json. That file holds all predicted people, whatever the score; the pictures show
those above --score-threshold. All other input files are listed there as skipped, with the reason. --format writes files
for other tools; with --resume, those of a finished run without predicting again.

Under torchrun, srun or in a SLURM array, each process predicts its share of the inputs, as with --shard 3/16, and
writes predictions-00003-of-00016.jsonl; "dynpose merge-predictions" joins these files (docs/clusters.md).

The numbers of each image and frame are written to predictions.jsonl as soon as they are computed. However a run ends,
the same command with --resume continues with the remaining ones. A camera is stopped by Ctrl-C, or by q with --show.

Exit codes: 0 = done; 1 = partly done: an image, a frame or a folder could not be read, a picture could not be written,
or a prediction held a NaN or infinite number, as from a diverged model; 2 = invalid input, or results that can't be
written; 130 and 143 = ended by SIGINT (Ctrl-C) or SIGTERM. docs/prediction.md has the details.
"""

import argparse
import gc
import importlib
import sys

from dynpose.results import FORMATS

from .cli import finite_number, positive_int, positive_number
from .ending import clean_on_sigterm
from .job_arguments import add_speed_arguments

NAME = "predict"
HELP = "find the people in images and videos: pictures and one JSON file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", help="a config by path or name; default: that of the weights")
    parser.add_argument(
        "--weights",
        required=True,
        help="a checkpoint, a file of `dynpose export`, or a name of `dynpose model-info --weights-list`",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        help="images, videos, folders, quoted globs, lists (.txt), tar archives, URLs, cameras, or -",
    )
    parser.add_argument("--output", required=True, help="folder for the pictures and predictions.json")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the results in --output, of the same weights and config, and continue",
    )
    parser.add_argument(
        "--score-threshold",
        type=finite_number,
        default=0.3,
        help="of people in the pictures and in yolo-pose, cvat and label-studio; default %(default)s",
    )
    parser.add_argument(
        "--keypoint-threshold",
        type=finite_number,
        default=0.02,
        help="of the confidence of keypoints there, default %(default)s",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images in a forward pass, default %(default)s"
    )
    parser.add_argument("--device", help="cpu or cuda; default: MODEL.DEVICE, or cpu where there is no GPU")
    add_speed_arguments(parser, "auto")
    parser.add_argument("--shard", metavar="I/N", help="predict share I, from 0, of N; default: by the launcher")
    parser.add_argument("--limit", type=positive_int, help="stop after so many images and videos")
    parser.add_argument("--stride", type=positive_int, default=1, metavar="N", help="of a video, every N-th frame")
    parser.add_argument("--max-frames", type=positive_int, metavar="N", help="of a video, at most N frames")
    parser.add_argument("--track", action="store_true", help="give the people of a video identities (track_id)")
    parser.add_argument("--show", action="store_true", help="show the pictures in a window; q stops")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    _add_format_arguments(parser)
    _add_picture_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def _add_format_arguments(parser):
    group = parser.add_argument_group("files for other tools")
    group.add_argument(
        "--format",
        nargs="+",
        type=_format_name,
        default=[],
        metavar="NAME",
        help="; ".join(f"{name}: {item.description}" for name, item in FORMATS.items()),
    )
    group.add_argument("--annotations", help="for coco: the COCO-format file with the ids of the images and categories")


def _format_name(text):
    if text not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"unknown format {text}; known are {', '.join(FORMATS)} (overrides of the config follow another option)"
        )
    return text


def _add_picture_arguments(parser):
    group, switch = parser.add_argument_group("what the pictures show"), argparse.BooleanOptionalAction
    group.add_argument("--show-boxes", action=switch, default=True, help="boxes, default yes")
    group.add_argument("--show-conf", action=switch, default=True, help="scores, default yes")
    group.add_argument("--show-labels", action=switch, help="class names, default: if there are several classes")
    group.add_argument("--line-width", type=positive_number, help="of limbs, pixels; default: grows with the person")
    group.add_argument("--point-radius", type=positive_number, help="of keypoints, pixels; default: 1.1 x the width")


def run(args: argparse.Namespace) -> int | None:
    """Predict; see the module for the exit code."""
    return clean_on_sigterm(lambda: _run(args))


def _run(args):
    _import_without_collecting("dynpose.engine.file_prediction")
    from dynpose.runtime.sessions import is_exported

    from .config_of_weights import required_config
    from .predict_sources import predict_sources

    if is_exported(args.weights):
        _check_exported_arguments(args)
    else:
        args.config_file = required_config(args.config_file, args.weights)
    return predict_sources(args)


def _check_exported_arguments(args):
    from dynpose.config import ConfigError

    given = {
        "--config-file": args.config_file,
        "--precision": args.precision != "auto",
        "--compile": args.compile,
        f"the overrides {' '.join(args.opts)}": args.opts,
    }
    refused = [name for name, value in given.items() if value]
    if refused:
        raise ConfigError(
            f"--weights {args.weights}: an exported file has its config and its precision in it; leave out "
            f"{', '.join(refused)}, or give them to dynpose export"
        )


def _import_without_collecting(module):
    """Import a module without the garbage collector, which would go through the objects of all modules several times.

    They live as long as the process. Nothing is done if PyTorch is imported already: its process has other objects.
    """
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        importlib.import_module(module)
        gc.freeze()
    finally:
        gc.enable()
