"""Predict the people in images: pictures with their poses, and one file with all numbers.

    dynpose predict --config-file output/run/config.yaml --weights output/run/model_final.pth \\
        --input street.jpg holiday/ 'frames/*.png' --output predictions

The output folder gets a picture for every image, under the image's path relative to the common folder of all inputs,
and predictions.json. That file holds all predicted people, whatever the score; the pictures show those above
--score-threshold. All other input files are listed there as skipped, with the reason.

Each image's numbers are written to predictions.jsonl as soon as they are computed. However a run ends, the same command
with --resume continues with the remaining images. --format writes files for other tools from it; with --resume, those
of a finished run without predicting again.

Under torchrun, srun or in a SLURM array, each process predicts its share of the inputs, as with --shard 3/16, and
writes predictions-00003-of-00016.jsonl; "dynpose merge-predictions" joins these files. --input also takes a list of
images (.txt) and tar archives (docs/clusters.md).

Exit codes: 0 = done; 1 = partly done: an image or a folder could not be read, a picture could not be written, or a
prediction held a NaN or infinite number, as from a diverged model; 2 = invalid input, or results that can't be written;
130 and 143 = ended by SIGINT (Ctrl-C) or SIGTERM. docs/prediction.md has the details.
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from dynpose.results import FORMATS

from .cli import finite_number, positive_int, positive_number

NAME = "predict"
HELP = "find the people in images: pictures and one JSON file"

_COORDINATES = (
    "keypoints: [x, y, confidence in 0..1] in COCO's pixel convention, where (0, 0) is the centre of the upper left "
    "pixel. bbox: [x, y, width, height] of the box's edges, where (0, 0) is the upper left corner of the image. Pixels "
    "of the image after its EXIF orientation is applied."
)
_TERMINATED = 143


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", required=True, help="config.yaml of a run, or a config by path or name")
    parser.add_argument(
        "--weights", required=True, help="a file, or a name that `dynpose model-info --weights-list` prints"
    )
    parser.add_argument("--input", required=True, nargs="+", help="images, folders (with those inside) or quoted globs")
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
    parser.add_argument("--shard", metavar="I/N", help="predict share I, from 0, of N; default: by the launcher")
    parser.add_argument("--limit", type=positive_int, help="stop after so many images")
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


def run(args: argparse.Namespace) -> int:
    """Predict; see the module for the exit code."""
    try:
        with _sigterm_raises():
            return _run(args)
    except _Terminated:
        print("dynpose: terminated", file=sys.stderr)
        return _TERMINATED


def _run(args):
    from .predict_collection import is_collection, predict_collection

    if is_collection(args):
        return predict_collection(args)
    from dynpose.data.image_files import find_images
    from dynpose.engine.file_prediction import FilePredictor, PictureFolder
    from dynpose.engine.prediction_record import PredictionRecord, run_fingerprint
    from dynpose.results import check_formats, write_formats

    _check_format_arguments(args)
    output = Path(os.path.abspath(args.output))
    # a second run must not use the first one's pictures as inputs
    images, skipped = find_images(args.input, skip=output)
    found, images = len(images), images[: args.limit]
    if not args.no_pictures:
        _refuse_to_overwrite(images, output)
    predictor = FilePredictor.from_files(args.config_file, args.weights, args.opts, device=args.device)

    output.mkdir(parents=True, exist_ok=True)
    info, made_with = _info(args, predictor, found - len(images)), run_fingerprint(predictor.cfg)
    style = _picture_style(args, info["category_names"])
    pictures = None if args.no_pictures else PictureFolder(output, predictor.schema, **style)
    names = [name for name, _ in images]
    results = _results(args, predictor.schema, info, lambda: record.entries(names), dict(images))
    # before the record, which replaces that of an earlier run
    check_formats(args.format, results, output)
    with _only_run_in(output), PredictionRecord(output, info, made_with, resume=args.resume) as record:
        _report_earlier(record, images)
        try:
            for file in skipped:
                record.add_skipped(*file)
            predictor.predict_files(images, record, batch_size=args.batch_size, pictures=pictures)
        except BaseException:
            _stop(record, names, args)
            raise
        counts = _Counts(args.score_threshold)
        record.finish(names, complete=True, on_entry=counts.add)
        code = _summarise(counts, record.skipped, args)
        for line in write_formats(args.format, results, output):
            print(line)
        return code


def _check_format_arguments(args):
    from dynpose.config import ConfigError

    if args.annotations and "coco" not in args.format:
        raise ConfigError("--annotations gives ids for --format coco; give both or neither")


def _picture_style(args, class_names):
    """The arguments of draw_poses."""
    return {
        "score_threshold": args.score_threshold,
        "keypoint_threshold": args.keypoint_threshold,
        "show_boxes": args.show_boxes,
        "show_scores": args.show_conf,
        "show_labels": args.show_labels,
        "class_names": class_names,
        "line_width": args.line_width,
        "point_radius": args.point_radius,
    }


def _results(args, schema, info, entries, paths):
    """The predictions for the writers of formats."""
    from dynpose.results.results import Results

    return Results(
        keypoint_names=schema.names,
        skeleton=schema.skeleton,
        flip_pairs=schema.flip_pairs,
        category_names=tuple(info["category_names"]),
        entries=entries,
        find_image=paths.get,
        score_threshold=args.score_threshold,
        keypoint_threshold=args.keypoint_threshold,
        annotations=args.annotations,
    )


class _Terminated(BaseException):
    """Raised on SIGTERM: the command ends as on Ctrl-C."""


@contextmanager
def _sigterm_raises():
    # Python handles signals in the main thread only
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        # None: it was not installed from Python
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


@contextmanager
def _only_run_in(output, stem="predictions"):
    """Lock the results of that name in the output folder, since two runs would mix their results."""
    from dynpose.config import ConfigError
    from dynpose.utils.locking import LockedError, locked

    try:
        with locked(str(output / f"{stem}.json.lock")):
            yield
    except LockedError as error:
        raise ConfigError(
            f"--output {output}: in use by {error.owner}; wait for its end, or give another folder"
        ) from None


def _refuse_to_overwrite(images, output):
    from dynpose.config import ConfigError

    sources = {path.resolve() for _, path in images}
    for name, _ in images:
        if (output / name).resolve() in sources:
            raise ConfigError(f"--output {output}: the picture {name} would overwrite an image; give another folder")


def _info(args, predictor, beyond_limit):
    from dynpose.version import __version__

    return {
        "description": f"dynpose {__version__}: {args.weights} with {args.config_file}",
        "coordinates": _COORDINATES,
        "keypoint_names": list(predictor.schema.names),
        "skeleton": [list(edge) for edge in predictor.schema.skeleton],
        "skeleton_indices": "start at 0",
        "category_names": list(predictor.metadata.get("thing_classes") or []),
        "images_beyond_limit": beyond_limit,
    }


def _report_earlier(record, images):
    if record.damaged:
        print(f"{record.path}: {record.damaged} damaged lines are skipped", file=sys.stderr)
    there = sum(record.has(*image) for image in images)
    if there:
        print(f"{there} of {len(images)} images are in {record.path} already", file=sys.stderr)


def _stop(record, names, args):
    """Write predictions.json with the results so far when the run ends early."""
    counts = _Counts(args.score_threshold)
    try:
        record.finish(names, complete=False, on_entry=counts.add)
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
    else:
        print(
            f"stopped: {args.output} holds {counts.images} of {len(names)} images; --resume continues with the others",
            file=sys.stderr,
        )


class _Counts:
    """Counts of the entries of predictions.json."""

    def __init__(self, score_threshold):
        self.score_threshold = score_threshold
        self.images = self.people = self.shown = self.notes = self.without_picture = 0
        self.not_finite = self.images_not_finite = 0

    def add(self, entry):
        scores = [person["score"] for person in entry["instances"]]
        self.images += 1
        self.people += len(scores)
        self.shown += sum(score >= self.score_threshold for score in scores)
        self.notes += "note" in entry
        self.without_picture += "picture_error" in entry
        self.not_finite += entry["not_finite"]
        self.images_not_finite += entry["not_finite"] > 0


def _summarise(counts, skipped, args):
    print(
        f"{counts.images} images, {counts.shown} people with a score of at least {args.score_threshold} "
        f"({counts.people} in all): {args.output}"
    )
    failures = sum(file["is_failure"] for file in skipped)
    others = len(skipped) - failures
    diverged = (
        f"{counts.not_finite} predictions with a NaN or infinite number omitted, in {counts.images_not_finite} images "
        f"(not_finite in predictions.json): the training of {args.weights} may have diverged; give weights of an "
        "earlier iteration"
    )
    for number, line in (
        (
            counts.notes,
            f"{counts.notes} images with several frames or pages: the first is used (note in predictions.json)",
        ),
        (others, f"{others} other files skipped (listed in predictions.json)"),
        (failures, f"{failures} images or folders can't be read (skipped in predictions.json has the reasons)"),
        (counts.without_picture, f"{counts.without_picture} pictures not written (picture_error in predictions.json)"),
        (counts.not_finite, diverged),
    ):
        if number:
            print(line, file=sys.stderr)
    return 1 if failures or counts.without_picture or counts.not_finite else 0
