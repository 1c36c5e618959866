"""``dynpose predict`` on images, archives, videos and other sources, one after another; all of them or a share."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .predict_output import Counts, info, only_run_in, picture_style, refuse_to_overwrite


def predict_sources(args: argparse.Namespace) -> int:
    """Predict; see :mod:`.predict` for the exit code."""
    from dynpose.data.sources import find_sources
    from dynpose.engine.sharding import parse_shard, shard_of_process, use_own_gpu

    shard = shard_of_process(os.environ) if args.shard is None else parse_shard(args.shard)
    if args.shard is None:
        use_own_gpu(os.environ)
    _check_format_arguments(args, shard)
    output = Path(os.path.abspath(args.output))
    with tempfile.TemporaryDirectory(prefix="dynpose-") as spool:
        # a second run must not use the first one's pictures as inputs
        share = _Share(find_sources(args.input, Path(spool), skip=output), args.limit, shard)
        if not args.no_pictures:
            refuse_to_overwrite(share.sources, output)
        return _predict(args, output, share)


class _Share:
    """The inputs that this process predicts.

    Attributes:
        shard (Shard | None): None = all inputs.
        sources (list[Source])
        skipped (list[SkippedFile]): other files.
        beyond_limit (int): number of sources that the limit excludes.
        images_left (int | None): number of images of archives before the limit is reached.
        of_all (dict | None): fingerprint of the inputs of all shards.
    """

    def __init__(self, found, limit, shard):
        from dynpose.data.sources import tell_animations
        from dynpose.engine.sharding import fingerprint_of_names

        sources = _within(found.sources, limit)
        self.shard = shard
        self.beyond_limit = len(found.sources) - len(sources)
        single = sum(source.kind != "archive" for source in sources)
        self.images_left = None if limit is None else limit - single
        self.of_all = None if shard is None else fingerprint_of_names(source.name for source in sources)
        self.sources = tell_animations(sources if shard is None else shard.of(sources))
        self.skipped = found.skipped if shard is None else shard.of(found.skipped)
        if shard is not None and len(sources) < shard.count:
            print(f"{len(sources)} inputs for {shard.count} shards: some have nothing to do", file=sys.stderr)

    def record(self, output, header, made_with, resume):
        """The record that takes the results."""
        from dynpose.engine.prediction_record import PredictionRecord
        from dynpose.engine.sharding import ShardRecord

        if self.shard is None:
            return PredictionRecord(output, header, made_with, resume=resume)
        return ShardRecord(output, header, made_with, self.shard, self.of_all, resume=resume)

    def of_kinds(self, *kinds):
        return [source for source in self.sources if source.kind in kinds]

    @property
    def videos(self):
        """list[Source]: the moving sources."""
        return [source for source in self.sources if source.kind not in ("image", "archive")]


def _within(sources, limit):
    """The sources before a limit, and all archives, whose images are counted when they are read."""
    if limit is None:
        return sources
    single = [source for source in sources if source.kind != "archive"]
    excluded = {source.name for source in single[limit:]}
    return [source for source in sources if source.name not in excluded]


def _predict(args, output, share):
    from dynpose.engine.archive_images import ArchiveImages
    from dynpose.engine.file_prediction import PictureFolder
    from dynpose.engine.show import Window
    from dynpose.results import check_formats, write_formats

    window = Window() if args.show else None
    predictor = _predictor(args)

    output.mkdir(parents=True, exist_ok=True)
    header, made_with = info(args, predictor, share.beyond_limit), predictor.fingerprint()
    pictures = None
    if args.show or not args.no_pictures:
        style = picture_style(args, header["category_names"])
        pictures = PictureFolder(None if args.no_pictures else output, predictor.schema, **style)
    formatted = _formatted(args, predictor.schema, header, lambda: record.entries(results.all_keys()), share)
    # before the record, which replaces that of an earlier run
    check_formats(args.format, formatted, output)
    stem = "predictions" if share.shard is None else share.shard.stem
    with only_run_in(output, stem), share.record(output, header, made_with, args.resume) as record:
        images = {source.name for source in share.of_kinds("image")}
        archives = ArchiveImages(share.of_kinds("archive"), record, images, share.images_left)
        results = _Results(args, record, share, archives)
        _refuse_to_resume_live(record, share)
        _report_earlier(record, results)
        try:
            for file in share.skipped:
                record.add_skipped(*file)
            _predict_share(args, predictor, record, share, archives, pictures, window)
        except BaseException:
            _stop(record, results, args)
            raise
        counts = Counts(args.score_threshold)
        record.finish(results.all_keys(), complete=True, on_entry=counts.add, videos=results.videos())
        code = _summarise(counts, record, results.videos(), args)
        for line in write_formats(args.format, formatted, output):
            print(line)
        return code


def _predictor(args):
    from dynpose.checkpoint import CheckpointError
    from dynpose.config import ConfigError
    from dynpose.runtime.sessions import is_exported

    if not is_exported(args.weights):
        from dynpose.engine.file_prediction import FilePredictor
        from dynpose.utils.freed_memory import keep_freed_memory

        model = args.config_file, args.weights, args.opts, args.device
        predictor = FilePredictor.from_files(*model, precision=args.precision, compile=args.compile)
        if args.precision == "auto" and predictor.precision != "float32":
            print(
                f"the network runs in {predictor.precision}, in which this device is faster; --precision float32 is "
                "the same on every machine, up to rounding",
                file=sys.stderr,
            )
        if predictor.cfg.MODEL.DEVICE == "cpu":
            keep_freed_memory()
        return predictor
    from dynpose.engine.exported_prediction import ExportedFilePredictor
    from dynpose.runtime import Pose

    try:
        return ExportedFilePredictor(Pose(args.weights, args.device or "cpu"))
    except CheckpointError:
        raise
    except ValueError as error:
        raise ConfigError(f"--device: {error}") from None


def _check_format_arguments(args, shard):
    from dynpose.config import ConfigError

    if args.annotations and "coco" not in args.format:
        raise ConfigError("--annotations gives ids for --format coco; give both or neither")
    if args.format and shard is not None:
        raise ConfigError(
            f"--format {' '.join(args.format)}: the files are of all results, and this is shard {shard.index} of "
            f"{shard.count}; join the shards by dynpose merge-predictions, then give --format with --resume and "
            "without shards"
        )


def _formatted(args, schema, header, entries, share):
    """The predictions for the writers of formats."""
    from dynpose.results.results import Results

    return Results(
        keypoint_names=schema.names,
        skeleton=schema.skeleton,
        flip_pairs=schema.flip_pairs,
        category_names=tuple(header["category_names"]),
        entries=entries,
        find_image={source.name: source.location for source in share.of_kinds("image")}.get,
        score_threshold=args.score_threshold,
        keypoint_threshold=args.keypoint_threshold,
        annotations=args.annotations,
    )


def _predict_share(args, predictor, record, share, archives, pictures, window):
    """Predict the images, those of archives, and then the videos, one after another."""
    from dynpose.engine.file_prediction import ImageInput

    images = [ImageInput(source.name, source.location) for source in share.of_kinds("image")]
    options = {"batch_size": args.batch_size, "pictures": pictures, "window": window}
    if images:
        predictor.predict_images(images, record, total=len(images), **options)
    if archives.names:
        predictor.predict_images(archives, record, **options)
    for video in share.videos:
        from dynpose.engine.video_prediction import predict_video

        predict_video(predictor, video, record, _video_options(args), pictures=pictures, window=window)


def _video_options(args):
    from dynpose.engine.video_prediction import VideoOptions

    return VideoOptions(args.stride, args.max_frames, args.track, args.batch_size)


class _Results:
    """The results of a share in a record, in the order of its sources."""

    def __init__(self, args, record, share, archives):
        self.args = args
        self.record = record
        self.share = share
        self.archives = archives

    def all_keys(self):
        """The keys of the images and the recorded frames."""
        for source in self.share.sources:
            if source.kind == "image":
                yield source.name
            elif source.kind == "archive":
                yield from self.archives.names[source.name]
            else:
                # PyAV is imported for videos only
                from dynpose.engine.video_prediction import video_keys

                yield from video_keys(self.record, source, _video_options(self.args))

    def videos(self):
        """What the record holds of the finished videos."""
        videos = [self.record.video(source.name, source.location) for source in self.share.videos]
        return [video for video in videos if video is not None]


def _refuse_to_resume_live(record, share):
    from dynpose.config import ConfigError

    for source in share.of_kinds("camera", "stream"):
        if record.frames(source.name, source.location):
            raise ConfigError(f"--resume: {source.name} is live and can't be continued; give another --output")


def _report_earlier(record, results):
    if record.damaged:
        print(f"{record.path}: {record.damaged} damaged lines are skipped", file=sys.stderr)
    images = results.share.of_kinds("image")
    there = sum(record.has(source.name, source.location) for source in images)
    if there:
        print(f"{there} of {len(images)} images are in {record.path} already", file=sys.stderr)
    frames = sum(isinstance(key, tuple) for key in results.all_keys())
    if frames:
        print(f"{frames} frames are in {record.path} already", file=sys.stderr)


def _stop(record, results, args):
    """Write the results so far when the run ends early."""
    counts = Counts(args.score_threshold)
    try:
        record.finish(results.all_keys(), complete=False, on_entry=counts.add, videos=results.videos())
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return
    share = results.share
    images, archives = len(share.of_kinds("image")), share.of_kinds("archive")
    held = [f"{counts.images} images" if archives else f"{counts.images} of {images} images"]
    held = held if images or archives else []
    held += [f"{counts.frames} frames"] if share.videos else []
    where = record.path if share.shard else args.output
    print(f"stopped: {where} holds {' and '.join(held)}; --resume continues with the others", file=sys.stderr)


def _summarise(counts, record, videos, args):
    from dynpose.utils.printing import counted

    path = record.result_path
    done = [counted(counts.images, "image")] if counts.images or not videos else []
    done += [f"{counted(counts.frames, 'frame')} of {counted(len(videos), 'video')}"] if videos else []
    print(
        f"{', '.join(done)}, {counts.shown} people with a score of at least {args.score_threshold} "
        f"({counts.people} in all): {args.output if path == record.all_path else path}"
    )
    broken = sum("frame" in file for file in record.skipped)
    failures = sum(file["is_failure"] for file in record.skipped) - broken
    others = len(record.skipped) - failures - broken
    cut_off = sum("cut_off" in video for video in videos)
    without_picture = counts.without_picture + sum("picture_error" in video for video in videos)
    listed = f"listed under skipped in {path.name}"
    for number, noun, line in (
        (counts.notes, "image", f"with several frames or pages: the first is used (note in {path.name})"),
        (others, "other file", f"skipped ({listed})"),
        (failures, "input", f"can't be read ({listed}, with the reason)"),
        (broken, "frame", f"can't be decoded ({listed}, with the reason)"),
        (cut_off, "video", f"cut off (cut_off in {path.name}): the frames before are predicted"),
        (without_picture, "picture", f"not written (picture_error in {path.name})"),
        (
            counts.not_finite,
            "prediction",
            f"with a NaN or infinite number omitted, in {counted(counts.images_not_finite, 'image')} (not_finite in "
            f"{path.name}): the training of {args.weights} may have diverged; give weights of an earlier iteration",
        ),
    ):
        if number:
            print(f"{counted(number, noun)} {line}", file=sys.stderr)
    return 1 if failures or broken or cut_off or without_picture or counts.not_finite else 0
