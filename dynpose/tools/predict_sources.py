"""``dynpose predict`` on images, videos and other sources, one after another."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .predict_output import Counts, info, only_run_in, picture_style, refuse_to_overwrite


def predict_sources(args: argparse.Namespace) -> int:
    """Predict; see :mod:`.predict` for the exit code."""
    from dynpose.data.sources import find_sources

    _check_format_arguments(args)
    output = Path(os.path.abspath(args.output))
    with tempfile.TemporaryDirectory(prefix="dynpose-") as spool:
        # a second run must not use the first one's pictures as inputs
        sources, skipped = find_sources(args.input, Path(spool), skip=output)
        found, sources = len(sources), sources[: args.limit]
        if not args.no_pictures:
            refuse_to_overwrite(sources, output)
        return _predict(args, output, sources, skipped, found - len(sources))


def _predict(args, output, sources, skipped, beyond_limit):
    from dynpose.engine.file_prediction import FilePredictor, PictureFolder
    from dynpose.engine.prediction_record import PredictionRecord, run_fingerprint
    from dynpose.engine.show import Window
    from dynpose.results import check_formats, write_formats

    window = Window() if args.show else None
    predictor = FilePredictor.from_files(args.config_file, args.weights, args.opts, device=args.device)

    output.mkdir(parents=True, exist_ok=True)
    header, made_with = info(args, predictor, beyond_limit), run_fingerprint(predictor.cfg)
    pictures = None
    if args.show or not args.no_pictures:
        style = picture_style(args, header["category_names"])
        pictures = PictureFolder(None if args.no_pictures else output, predictor.schema, **style)
    formatted = _formatted(args, predictor.schema, header, lambda: record.entries(results.all_keys()), sources)
    # before the record, which replaces that of an earlier run
    check_formats(args.format, formatted, output)
    with only_run_in(output), PredictionRecord(output, header, made_with, resume=args.resume) as record:
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
        counts = Counts(args.score_threshold)
        record.finish(results.all_keys(), complete=True, on_entry=counts.add, videos=results.videos())
        code = _summarise(counts, record.skipped, results.videos(), args)
        for line in write_formats(args.format, formatted, output):
            print(line)
        return code


def _check_format_arguments(args):
    from dynpose.config import ConfigError

    if args.annotations and "coco" not in args.format:
        raise ConfigError("--annotations gives ids for --format coco; give both or neither")


def _formatted(args, schema, header, entries, sources):
    """The predictions for the writers of formats."""
    from dynpose.results.results import Results

    return Results(
        keypoint_names=schema.names,
        skeleton=schema.skeleton,
        flip_pairs=schema.flip_pairs,
        category_names=tuple(header["category_names"]),
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


def _refuse_to_resume_live(record, sources):
    from dynpose.config import ConfigError

    for source in sources:
        if source.kind in ("camera", "stream") and record.frames(source.name, source.location):
            raise ConfigError(f"--resume: {source.name} is live and can't be continued; give another --output")


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
    counts = Counts(args.score_threshold)
    try:
        record.finish(results.all_keys(), complete=False, on_entry=counts.add, videos=results.videos())
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
    else:
        images = sum(source.kind == "image" for source in results.sources)
        held = [f"{counts.images} of {images} images"] if images else []
        held += [f"{counts.frames} frames"] if len(results.sources) > images else []
        print(f"stopped: {args.output} holds {' and '.join(held)}; --resume continues with the others", file=sys.stderr)


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
