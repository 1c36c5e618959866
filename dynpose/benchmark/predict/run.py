"""One run of `dynpose benchmark predict`."""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from dynpose.benchmark.settings import Settings, choose_device, environment
from dynpose.config import ConfigError
from dynpose.engine.predictor import PosePredictor

from .case import ALONE, BATCHED, PIXELS, SCORE, difference, images_of_shapes, predict
from .shards import measure_shards


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each) and ``disagreements``; with ``--processes``
        that of :func:`~.shards.measure_shards`.

    Raises:
        ConfigError: the number of weights is not that of the configs, or there are fewer images than shapes.
        CheckpointError: the weights do not fit the model.
    """
    if len(args.config_file) != len(args.weights):
        raise ConfigError(f"{len(args.config_file)} --config-file and {len(args.weights)} --weights: give one for each")
    if args.images < args.shapes:
        raise ConfigError(f"--images {args.images} is less than --shapes {args.shapes}: every shape needs an image")
    if args.processes is not None:
        return measure_shards(args)
    device = choose_device(args.device)
    with Settings(device, threads=args.threads).applied():
        rows = [_measure(args, *files, device) for files in zip(args.config_file, args.weights)]
        return {
            "environment": environment(device),
            "settings": {"images": args.images, "shapes": args.shapes, "batch": args.batch, "rounds": args.repeats},
            "models": rows,
            "disagreements": [_disagreement(row) for row in rows if row["unmatched"] or row["moved"]],
        }


def _measure(args, config_file, weights, device):
    """The figures of one model."""
    predictor = PosePredictor.from_files(config_file, weights, args.opts, device=device.type)
    images = images_of_shapes(args.images, args.shapes, predictor.cfg.INPUT.MIN_SIZE_TEST)
    predictor.predict_batch(images[: args.batch])  # warm-up
    people, wall, cpu = {}, {ALONE: [], BATCHED: []}, {ALONE: [], BATCHED: []}
    for _ in range(args.repeats):
        for way in (ALONE, BATCHED):
            people[way], wall_seconds, cpu_seconds = predict(predictor, way, images, args.batch)
            wall[way].append(wall_seconds)
            cpu[way].append(cpu_seconds)
            print(f"{config_file}, {way}: {wall_seconds:.1f} s", file=sys.stderr, flush=True)
    row = {
        "model": _name(Path(config_file)),
        "meta_architecture": predictor.cfg.MODEL.META_ARCHITECTURE,
        "people": sum(map(len, people[ALONE])),
    }
    for key, seconds in (("wall", wall), ("cpu", cpu)):
        for way in (ALONE, BATCHED):
            row[f"{way}_{key}_ms"] = statistics.median(seconds[way]) * 1e3 / len(images)
        row[f"{key}_ratio"] = statistics.median(a / b for a, b in zip(seconds[ALONE], seconds[BATCHED]))
    differences = [difference(*pair) for pair in zip(people[ALONE], people[BATCHED])]
    for key, combine in (("unmatched", sum), ("moved", sum), ("pixels", max), ("score", max)):
        row[key] = combine(each[key] for each in differences)
    return row


def _name(config_file):
    """Name a model by its config, or by the folder of its run."""
    return config_file.absolute().parent.name if config_file.stem == "config" else config_file.stem


def _disagreement(row):
    return (
        f"{row['model']}: of {row['people']:,} people, {row['unmatched']} are detected in only one of the two ways "
        f"and {row['moved']} differ by more than {PIXELS:g} pixel or {SCORE:g} in score"
    )
