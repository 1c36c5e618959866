"""One run of `dynpose benchmark train`, and the report that it ends in: a dict of plain values, without a path."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

from dynpose.profiling.flops import count_parameters

from .environment import describe
from .measuring import ROUNDS, choose_device, make_wall_clock, measure, quartiles, torch_settings
from .training import TrainingCase, load_training_configs, time_parts

_FIGURES = ("rounds", "ms", "ms_quartiles", "iterations_per_second", "images_per_second", "trainable", "mib", "loss")


def measure_training(args) -> dict:
    """Measure what the arguments ask for.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``contestants`` (a row each, with all figures; the first is the
        baseline) and ``notes``.

    Raises:
        ConfigError: if a config is wrong, or mixed precision is asked for on a CPU.
    """
    configs = load_training_configs(args.config_file or (), args.variant or (), args.opts, peer=args.peer, amp=args.amp)
    device = choose_device(args.device)
    rounds = args.repeats or ROUNDS["cuda" if device.type == "cuda" else "cpu"]
    tf32 = args.tf32 and device.type == "cuda"
    case = TrainingCase({each.name: each for each in configs}, args.batch, tuple(args.size), args.people, device)
    with torch_settings(device, threads=args.threads, tf32=tf32, cudnn_benchmark=args.cudnn_benchmark):
        rows = _rows(case, device, rounds, args.parts)
        return {
            "environment": describe(device),
            "settings": {
                "device": device.type,
                "dtype": "float32",
                "tf32": tf32,
                "cudnn_benchmark": args.cudnn_benchmark,
                "deterministic": False,
                "rounds": rounds,
                "batch": args.batch,
                "image_size": list(args.size),
                "people": args.people,
                "opts": [Path(word).name for word in args.opts],  # a value may be a path
            },
            "contestants": rows,
            "notes": _notes(rows),
        }


def _rows(case, device, rounds, with_parts):
    measurements = measure(case, list(case.configs), device, make_wall_clock(device), rounds)
    rows = []
    for name, measurement in measurements.items():
        row = {"contestant": name, **_sizes(case, name), "note": measurement.note, **_figures(case, name, measurement)}
        row["parts_ms"] = {}
        if with_parts and row["ms"]:
            seconds = time_parts(case[name], case.make_inputs(device, 0), device, rounds)
            row["parts_ms"] = {part: 1000 * value for part, value in seconds.items()}
        print(f"{name}: {row['note'] or '{:.1f} ms'.format(row['ms'])}", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def _sizes(case, name):
    """What a contestant is, also where it ran out of memory."""
    config = case.configs[name]
    return {
        "meta_architecture": config.cfg.MODEL.META_ARCHITECTURE,
        "variant": config.variant,
        "optimizer": config.cfg.SOLVER.OPTIMIZER,
        "precision": "mixed float16" if config.cfg.SOLVER.AMP.ENABLED else "float32",
    }


def _figures(case, name, measurement):
    if measurement.note or not measurement.seconds:
        return {**dict.fromkeys(_FIGURES), "constant_mib": {}}
    training, seconds = case[name], statistics.median(measurement.seconds)
    constant = training.constant_bytes()
    loss = case.losses[name].item()
    batch = sum(tensor.nbytes for tensor in case.make_inputs(case.device, 0))
    peak = None if measurement.num_bytes is None else measurement.num_bytes + sum(constant.values()) + batch
    return {
        "rounds": len(measurement.seconds),
        "ms": 1000 * seconds,
        "ms_quartiles": [1000 * value for value in quartiles(measurement.seconds)],
        "iterations_per_second": 1 / seconds,
        "images_per_second": case.batch_size / seconds,
        "trainable": sum(trainable for _, trainable in count_parameters(training.model).values()),
        "mib": None if peak is None else peak / 2**20,
        "constant_mib": {what: value / 2**20 for what, value in constant.items()},
        "loss": loss if math.isfinite(loss) else None,
    }


def _notes(rows):
    """Name those whose work may not be that of a real training."""
    return [
        f"{row['contestant']}: the loss is not a finite number: its times are not those of a training"
        for row in rows
        if row["ms"] and row["loss"] is None
    ]
