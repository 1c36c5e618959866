"""``dynpose predict`` on a share of its inputs, and on lists of images and tar archives."""

import argparse
import os
import sys
from pathlib import Path

from .predict_output import Counts, info, only_run_in, picture_style, refuse_to_overwrite


def is_collection(args: argparse.Namespace) -> bool:
    """Whether the inputs are lists or archives, or shared with other processes."""
    from dynpose.data.archives import is_archive
    from dynpose.engine.sharding import shard_of_process

    if args.shard is not None or any(_is_list(item) or is_archive(item) for item in args.input):
        return True
    return shard_of_process(os.environ) is not None


def predict_collection(args: argparse.Namespace) -> int:
    """Predict; see :mod:`.predict` for the exit code."""
    from dynpose.data.archives import is_archive
    from dynpose.engine.sharding import parse_shard, shard_of_process, use_own_gpu

    shard = shard_of_process(os.environ) if args.shard is None else parse_shard(args.shard)
    if args.shard is None:
        use_own_gpu(os.environ)
    output = Path(os.path.abspath(args.output))
    is_archives = [is_archive(item) for item in args.input]
    if all(is_archives):
        share, others = _archives(args, shard), 0
    elif any(is_archives):
        from dynpose.config import ConfigError

        raise ConfigError("--input: tar archives and other inputs can't be predicted in one run; give one kind")
    else:
        share, others = _files(args, shard, output)
    return _predict(args, shard, share, others, output)


class _Share:
    """The inputs of this process.

    Attributes:
        inputs (dict): fingerprint of the inputs of all processes.
        names (list[str]): of the images; those of archives are appended as they are read.
        skipped (list[SkippedFile]): other files.
    """

    def __init__(self, inputs, names, skipped, predict):
        self.inputs, self.names, self.skipped, self.predict = inputs, names, skipped, predict


def _files(args, shard, output):
    """The share of images in files, and the number of images that --limit excludes."""
    from dynpose.data.image_files import find_images
    from dynpose.data.sources import Source
    from dynpose.engine.sharding import fingerprint_of_names

    found = _read_lists(args.input) if any(map(_is_list, args.input)) else find_images(args.input, skip=output)
    images = found.images[: args.limit]
    inputs = fingerprint_of_names(name for name, _ in images)
    mine, skipped = (images, found.skipped) if shard is None else (shard.of(images), shard.of(found.skipped))
    if not args.no_pictures:
        refuse_to_overwrite([Source(name, path, "image") for name, path in mine], output)

    def predict(predictor, record, pictures):
        there = sum(record.has(*image) for image in mine)
        if there:
            print(f"{there} of {len(mine)} images are in {record.path} already", file=sys.stderr)
        predictor.predict_files(mine, record, batch_size=args.batch_size, pictures=pictures)

    share = _Share(inputs, [name for name, _ in mine], skipped, predict)
    return share, len(found.images) - len(images)


def _read_lists(inputs):
    from dynpose.config import ConfigError
    from dynpose.data.image_lists import read_image_list

    if len(inputs) > 1:
        raise ConfigError(f"--input: give one list of images alone, got {' '.join(inputs)}; join them into one list")
    return read_image_list(inputs[0])


def _archives(args, shard):
    from dynpose.data.archives import archive_name, find_archives
    from dynpose.engine.sharding import fingerprint_of_names

    archives = find_archives(args.input)
    mine = archives if shard is None else shard.of(archives)
    if shard is not None and len(archives) < shard.count:
        print(f"{len(archives)} archives for {shard.count} shards: some have nothing to do", file=sys.stderr)
    names: list[str] = []

    def predict(predictor, record, pictures):
        predictor.predict_archives(mine, record, names, batch_size=args.batch_size, pictures=pictures, limit=args.limit)

    return _Share(fingerprint_of_names(map(archive_name, archives)), names, [], predict)


def _predict(args, shard, share, beyond_limit, output):
    from dynpose.engine.archive_prediction import ArchivePredictor
    from dynpose.engine.file_prediction import PictureFolder
    from dynpose.engine.prediction_record import PredictionRecord, run_fingerprint
    from dynpose.engine.sharding import ShardRecord

    predictor = ArchivePredictor.from_files(args.config_file, args.weights, args.opts, device=args.device)
    output.mkdir(parents=True, exist_ok=True)
    header, made_with = info(args, predictor, beyond_limit), run_fingerprint(predictor.cfg)
    style = picture_style(args, header["category_names"])
    pictures = None if args.no_pictures else PictureFolder(output, predictor.schema, **style)
    stem = "predictions" if shard is None else shard.stem
    with only_run_in(output, stem):
        if shard is None:
            record = PredictionRecord(output, header, made_with, resume=args.resume)
        else:
            record = ShardRecord(output, header, made_with, shard, share.inputs, resume=args.resume)
        with record:
            counts = Counts(args.score_threshold)
            try:
                for file in share.skipped:
                    record.add_skipped(*file)
                share.predict(predictor, record, pictures)
            except BaseException:
                record.finish(share.names, complete=False, on_entry=counts.add)
                print(f"stopped: {record.path} holds {counts.images} images; continue with --resume", file=sys.stderr)
                raise
            record.finish(share.names, complete=True, on_entry=counts.add)
            return _summarise(counts, record, args)


def _summarise(counts, record, args):
    print(
        f"{counts.images} images, {counts.shown} people with a score of at least {args.score_threshold} "
        f"({counts.people} in all): {record.path}"
    )
    failures = sum(file["is_failure"] for file in record.skipped)
    others = len(record.skipped) - failures
    diverged = (
        f"{counts.not_finite} predictions with a NaN or infinite number omitted (not_finite): the training of "
        f"{args.weights} may have diverged; give weights of an earlier iteration"
    )
    for number, line in (
        (others, f"{others} other files skipped (lines with skipped give the reasons)"),
        (failures, f"{failures} images, folders or archives can't be read (lines with skipped give the reasons)"),
        (counts.without_picture, f"{counts.without_picture} pictures not written (picture_error gives the reasons)"),
        (counts.not_finite, diverged),
    ):
        if number:
            print(line, file=sys.stderr)
    return 1 if failures or counts.without_picture or counts.not_finite else 0


def _is_list(item):
    from dynpose.data.image_lists import LIST_ENDING

    return item.lower().endswith(LIST_ENDING) and not os.path.isdir(item)
