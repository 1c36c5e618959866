"""Predict the people in images and videos: pictures with their poses, and one file with all numbers.

    dynpose predict --weights output/run/model_final.pth \\
        --input street.jpg holiday/ 'frames/*.png' match.mp4 --track --output predictions

The config is, without --config-file, config.yaml in the folder of the weights, or that of published weights, whose
names "dynpose model-info --weights-list" prints.

An input is an image, a video or an animated image; a folder or a glob of these; the http(s) URL of an image or a
video; a camera (its number, or camera:0); a stream (rtsp://...); or - for standard input: an image, a video, or file
names, one in a line.

The output folder gets a picture for every image and a video for every video, under its path relative to the common
folder of all inputs, and predictions.json. That file holds all predicted people, whatever the score; the pictures show
those above --score-threshold. All other input files are listed there as skipped, with the reason. --format writes files
for other tools; with --resume, those of a finished run without predicting again.

Under torchrun, srun or in a SLURM array, each process predicts its share of the inputs, as with --shard 3/16, and
writes predictions-00003-of-00016.jsonl; "dynpose merge-predictions" joins these files. --input also takes a list of
images (.txt) and tar archives (docs/clusters.md).

The numbers of each image and frame are written to predictions.jsonl as soon as they are computed. However a run ends,
the same command with --resume continues with the remaining ones. A camera is stopped by Ctrl-C, or by q with --show.

Exit codes: 0 = done; 1 = partly done: an image, a frame or a folder could not be read, a picture could not be written,
or a prediction held a NaN or infinite number, as from a diverged model; 2 = invalid input, or results that can't be
written; 130 and 143 = ended by SIGINT (Ctrl-C) or SIGTERM. docs/prediction.md has the details.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from dynpose.results import FORMATS

from .cli import finite_number, positive_int, positive_number

NAME = "predict"
HELP = "find the people in images and videos: pictures and one JSON file"

_COORDINATES = (
    "keypoints: [x, y, confidence in 0..1] in COCO's pixel convention, where (0, 0) is the centre of the upper left "
    "pixel. bbox: [x, y, width, height] of the box's edges, where (0, 0) is the upper left corner of the image. Pixels "
    "of the image after its EXIF orientation is applied."
)
_TERMINATED = 143


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", help="a config by path or name; default: that of the weights")
    parser.add_argument("--weights", required=True, help="a file, or a name of `dynpose model-info --weights-list`")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        help="images, videos, folders, quoted globs, URLs, cameras, or -; lists (.txt) or tar archives of images",
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


def run(args: argparse.Namespace) -> int:
    """Predict; see the module for the exit code."""
    try:
        with _sigterm_raises():
            return _run(args)
    except _Terminated:
        print("dynpose: terminated", file=sys.stderr)
        return _TERMINATED


def _run(args):
    from .config_of_weights import required_config

    args.config_file = required_config(args.config_file, args.weights)
    from .predict_collection import is_collection, predict_collection

    if is_collection(args):
        return predict_collection(args)
    from dynpose.data.sources import find_sources

    _check_format_arguments(args)
    output = Path(os.path.abspath(args.output))
    with tempfile.TemporaryDirectory(prefix="dynpose-") as spool:
        # a second run must not use the first one's pictures as inputs
        sources, skipped = find_sources(args.input, Path(spool), skip=output)
        found, sources = len(sources), sources[: args.limit]
        if not args.no_pictures:
            _refuse_to_overwrite(sources, output)
        return _predict(args, output, sources, skipped, found - len(sources))


def _predict(args, output, sources, skipped, beyond_limit):
    from dynpose.engine.file_prediction import FilePredictor, PictureFolder
    from dynpose.engine.prediction_record import PredictionRecord, run_fingerprint
    from dynpose.engine.show import Window
    from dynpose.results import check_formats, write_formats

    window = Window() if args.show else None
    predictor = FilePredictor.from_files(args.config_file, args.weights, args.opts, device=args.device)

    output.mkdir(parents=True, exist_ok=True)
    info, made_with = _info(args, predictor, beyond_limit), run_fingerprint(predictor.cfg)
    pictures = None
    if args.show or not args.no_pictures:
        style = _picture_style(args, info["category_names"])
        pictures = PictureFolder(None if args.no_pictures else output, predictor.schema, **style)
    formatted = _formatted(args, predictor.schema, info, lambda: record.entries(results.all_keys()), sources)
    # before the record, which replaces that of an earlier run
    check_formats(args.format, formatted, output)
    with _only_run_in(output), PredictionRecord(output, info, made_with, resume=args.resume) as record:
        results = _Results(args, record, sources)
        _refuse_to_resume_live(record, sources)
        _report_earlier(record, results)
        try:
            for file in skipped:
                record.add_skipped(*file)
            _predict_sources(args, predictor, record, sources, pictures, window)
        except BaseException:
            _stop(record, results, args)
            raise
        counts = _Counts(args.score_threshold)
        record.finish(results.all_keys(), complete=True, on_entry=counts.add, videos=results.videos())
        code = _summarise(counts, record.skipped, results.videos(), args)
        for line in write_formats(args.format, formatted, output):
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


def _formatted(args, schema, info, entries, sources):
    """The predictions for the writers of formats."""
    from dynpose.results.results import Results

    return Results(
        keypoint_names=schema.names,
        skeleton=schema.skeleton,
        flip_pairs=schema.flip_pairs,
        category_names=tuple(info["category_names"]),
        entries=entries,
        find_image={source.name: source.location for source in sources if source.kind == "image"}.get,
        score_threshold=args.score_threshold,
        keypoint_threshold=args.keypoint_threshold,
        annotations=args.annotations,
    )


def _predict_sources(args, predictor, record, sources, pictures, window):
    """Predict the images, and then the videos, one after another."""
    images = [(source.name, source.location) for source in sources if source.kind == "image"]
    if images:
        predictor.predict_files(images, record, batch_size=args.batch_size, pictures=pictures, window=window)
    videos = [source for source in sources if source.kind != "image"]
    if videos:
        from dynpose.engine.video_prediction import predict_video

        for video in videos:
            predict_video(predictor, video, record, _video_options(args), pictures=pictures, window=window)


def _video_options(args):
    from dynpose.engine.video_prediction import VideoOptions

    return VideoOptions(args.stride, args.max_frames, args.track, args.batch_size)


class _Results:
    """The results of the sources in a record, in the order of the sources."""

    def __init__(self, args, record, sources):
        self.args = args
        self.record = record
        self.sources = sources

    def all_keys(self):
        """The keys of the images and the recorded frames."""
        for source in self.sources:
            if source.kind == "image":
                yield source.name
            else:
                from dynpose.engine.video_prediction import video_keys

                yield from video_keys(self.record, source, _video_options(self.args))

    def videos(self):
        """What the record holds of the finished videos."""
        videos = [self.record.video(source.name, source.location) for source in self.sources if source.kind != "image"]
        return [video for video in videos if video is not None]


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


def _refuse_to_overwrite(sources, output):
    from dynpose.config import ConfigError

    files = {source.location.resolve() for source in sources if isinstance(source.location, Path)}
    results = set()
    for source in sources:
        name = source.name
        if source.kind != "image":
            from dynpose.engine.video_prediction import result_name

            name = result_name(name)
        if (output / name).resolve() in files:
            raise ConfigError(f"--output {output}: the picture {name} would overwrite an image; give another folder")
        if name in results:
            raise ConfigError(f"--input: the results of two inputs are called {name}; predict them one after another")
        results.add(name)


def _refuse_to_resume_live(record, sources):
    from dynpose.config import ConfigError

    for source in sources:
        if source.kind in ("camera", "stream") and record.frames(source.name, source.location):
            raise ConfigError(f"--resume: {source.name} is live and can't be continued; give another --output")


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


def _report_earlier(record, results):
    if record.damaged:
        print(f"{record.path}: {record.damaged} damaged lines are skipped", file=sys.stderr)
    images = [source for source in results.sources if source.kind == "image"]
    there = sum(record.has(source.name, source.location) for source in images)
    if there:
        print(f"{there} of {len(images)} images are in {record.path} already", file=sys.stderr)
    frames = sum(isinstance(key, tuple) for key in results.all_keys())
    if frames:
        print(f"{frames} frames are in {record.path} already", file=sys.stderr)


def _stop(record, results, args):
    """Write predictions.json with the results so far when the run ends early."""
    counts = _Counts(args.score_threshold)
    try:
        record.finish(results.all_keys(), complete=False, on_entry=counts.add, videos=results.videos())
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
    else:
        images = sum(source.kind == "image" for source in results.sources)
        held = [f"{counts.images} of {images} images"] if images else []
        held += [f"{counts.frames} frames"] if len(results.sources) > images else []
        print(f"stopped: {args.output} holds {' and '.join(held)}; --resume continues with the others", file=sys.stderr)


class _Counts:
    """Counts of the entries of predictions.json."""

    def __init__(self, score_threshold):
        self.score_threshold = score_threshold
        self.images = self.frames = self.people = self.shown = self.notes = self.without_picture = 0
        self.not_finite = self.images_not_finite = 0

    def add(self, entry):
        scores = [person["score"] for person in entry["instances"]]
        self.images += "frame" not in entry
        self.frames += "frame" in entry
        self.people += len(scores)
        self.shown += sum(score >= self.score_threshold for score in scores)
        self.notes += "note" in entry
        self.without_picture += "picture_error" in entry
        self.not_finite += entry["not_finite"]
        self.images_not_finite += entry["not_finite"] > 0


def _summarise(counts, skipped, videos, args):
    done = [f"{counts.images} images"] if counts.images or not videos else []
    done += [f"{counts.frames} frames of {len(videos)} videos"] if videos else []
    print(
        f"{', '.join(done)}, {counts.shown} people with a score of at least {args.score_threshold} "
        f"({counts.people} in all): {args.output}"
    )
    broken = sum("frame" in file for file in skipped)
    failures = sum(file["is_failure"] for file in skipped) - broken
    others = len(skipped) - failures - broken
    cut_off = sum("cut_off" in video for video in videos)
    without_picture = counts.without_picture + sum("picture_error" in video for video in videos)
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
        (broken, f"{broken} frames can't be decoded (skipped in predictions.json has the reasons)"),
        (cut_off, f"{cut_off} videos are cut off (cut_off in predictions.json): their frames so far are predicted"),
        (without_picture, f"{without_picture} pictures not written (picture_error in predictions.json)"),
        (counts.not_finite, diverged),
    ):
        if number:
            print(line, file=sys.stderr)
    return 1 if failures or broken or cut_off or without_picture or counts.not_finite else 0
