"""`dynpose benchmark predict`: images of many shapes one by one against batches, in time and in what is found.

Letters of the shapes: N and M people, K keypoints.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from dynpose.config import ConfigError
from dynpose.data.synthetic import SyntheticPose
from dynpose.engine.predictor import PosePredictor

from .environment import describe
from .measuring import choose_device, torch_settings
from .report import figure, titled_table

# Differences that float32 may make, pixels and probability
PIXELS, SCORE = 1e-3, 1e-4


def measure_prediction(args) -> dict:
    """Measure what the arguments ask for.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each) and ``disagreements``.

    Raises:
        ConfigError: there are not as many weights as configs, or fewer images than shapes.
        CheckpointError: the weights are not those of the model.
    """
    if len(args.config_file) != len(args.weights):
        raise ConfigError(f"{len(args.config_file)} --config-file and {len(args.weights)} --weights: give one for each")
    if args.images < args.shapes:
        raise ConfigError(f"--images {args.images} is less than --shapes {args.shapes}: every shape needs an image")
    device = choose_device(args.device)
    with torch_settings(device, threads=args.threads, tf32=False, cudnn_benchmark=False):
        rows = [_measure(args, *files, device) for files in zip(args.config_file, args.weights)]
        environment = describe(device)
    return {
        "environment": environment,
        "settings": {"images": args.images, "shapes": args.shapes, "batch": args.batch, "rounds": args.repeats},
        "models": rows,
        "disagreements": [_disagreement(row) for row in rows if not _agrees(row)],
    }


def images_of_shapes(count: int, num_shapes: int, side: int) -> list[np.ndarray]:
    """Paint synthetic people on images of several shapes, in mixed order.

    Args:
        count: of the images.
        num_shapes: whose width is from half to twice the height, in even steps of its logarithm.
        side: the shorter one, pixels.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    images = []
    for ratio in np.geomspace(0.5, 2, num_shapes):
        size = (round(side * max(1, 1 / ratio)), round(side * max(1, ratio)))
        people = SyntheticPose(image_size=size, people=(1, 2), crowding=0.0, scale=(0.5, 0.9), truncation=0.0)
        number = len(range(len(images), count, num_shapes))
        images.append([people.render(index, "val")[0][:, :, ::-1].copy() for index in range(number)])
    mixed = [image for of_shape in images for image in of_shape]
    return [mixed[index] for index in np.random.default_rng(0).permutation(len(mixed))]


def difference(first, second) -> dict:
    """Compare what is found in one image in two ways.

    Args:
        first, second (Instances): N and M people.

    Returns:
        ``unmatched``, people that one has more than the other; ``moved``, people who have a keypoint more than 1e-3
        pixel or a score more than 1e-4 away from those of their counterpart, which is chosen for the smallest
        distance; and the largest of these differences, ``pixels`` and ``score``.
    """
    result = {"unmatched": abs(len(first) - len(second)), "moved": 0, "pixels": 0.0, "score": 0.0}
    if not len(first) or not len(second):
        return result
    pixels = (first.pred_keypoints[:, None, :, :2] - second.pred_keypoints[None, :, :, :2]).abs().amax(dim=(2, 3))
    scores = (first.scores[:, None] - second.scores[None]).abs()
    rows, columns = linear_sum_assignment((pixels / PIXELS + scores / SCORE).clamp(max=1e9).cpu().numpy())
    pixels, scores = pixels[rows, columns], scores[rows, columns]
    moved = ((pixels > PIXELS) | (scores > SCORE)).sum().item()
    return {**result, "moved": moved, "pixels": pixels.max().item(), "score": scores.max().item()}


def prediction_tables(report: dict, style: str) -> str:
    """Write a report as text.

    Args:
        report: of :func:`measure_prediction`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the disagreements.
    """
    environment, settings = report["environment"], report["settings"]
    source = f" ({environment['commit']})" if environment["commit"] else ""
    header = (
        f"dynpose {environment['dynpose']}{source}, torch {environment['torch']}, {environment['device']}, "
        f"{environment['cpu_threads']} threads, float32, {settings['images']} images of {settings['shapes']} shapes in "
        f"batches of {settings['batch']}, median of {settings['rounds']}."
    )
    parts = [
        header,
        *titled_table("Time of an image", [_times(row) for row in report["models"]], style),
        *titled_table("Batches against one by one", [_differences(row) for row in report["models"]], style),
        *report["disagreements"],
    ]
    return "\n\n".join(parts)


def _measure(args, config_file, weights, device):
    """The figures of one model."""
    predictor = PosePredictor.from_files(config_file, weights, args.opts, device=device.type)
    images = images_of_shapes(args.images, args.shapes, predictor.cfg.INPUT.MIN_SIZE_TEST)
    ways = {
        "alone": lambda: [predictor(image) for image in images],
        "batched": lambda: list(predictor.predict_all(images, args.batch)),
    }
    predictor.predict_batch(images[: args.batch])
    figures, people = {name: [] for name in ways}, {}
    for _ in range(args.repeats):
        for name, predict in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            people[name] = [instances.to("cpu") for instances in predict()]
            figures[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            print(f"{config_file}, {name}: {figures[name][-1][0]:.1f} s", file=sys.stderr, flush=True)
    differences = [difference(*pair) for pair in zip(people["alone"], people["batched"])]
    row = {"model": _name(Path(config_file)), "meta_architecture": predictor.cfg.MODEL.META_ARCHITECTURE}
    row["people"] = sum(map(len, people["alone"]))
    for index, key in enumerate(("wall", "cpu")):
        seconds = {name: [each[index] for each in figures[name]] for name in ways}
        for name in ways:
            row[f"{name}_{key}_ms"] = statistics.median(seconds[name]) * 1e3 / len(images)
        row[f"{key}_ratio"] = statistics.median(a / b for a, b in zip(seconds["alone"], seconds["batched"]))
    for key, combine in (("unmatched", sum), ("moved", sum), ("pixels", max), ("score", max)):
        row[key] = combine(each[key] for each in differences)
    return row


def _name(config_file):
    """Of a model: that of the config, or of the folder of a run."""
    return config_file.absolute().parent.name if config_file.stem == "config" else config_file.stem


def _times(row):
    return {
        "model": row["model"],
        "meta-architecture": row["meta_architecture"],
        "one by one, ms": figure(row["alone_wall_ms"]),
        "batches, ms": figure(row["batched_wall_ms"]),
        "one by one / batches": figure(row["wall_ratio"]),
        "one by one, CPU ms": figure(row["alone_cpu_ms"]),
        "batches, CPU ms": figure(row["batched_cpu_ms"]),
        "CPU ratio": figure(row["cpu_ratio"]),
    }


def _differences(row):
    return {
        "model": row["model"],
        "people": f"{row['people']:,}",
        "in one of both only": str(row["unmatched"]),
        "moved": str(row["moved"]),
        "largest, pixels": f"{row['pixels']:.1e}",
        "largest, score": f"{row['score']:.1e}",
    }


def _agrees(row):
    return not row["unmatched"] and not row["moved"]


def _disagreement(row):
    return (
        f"{row['model']}: of {row['people']:,} people, {row['unmatched']} are found in one way only and {row['moved']} "
        f"differ by more than {PIXELS:g} pixel or {SCORE:g} in score"
    )
