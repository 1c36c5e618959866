"""One run of `dynpose benchmark train`."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from typing import Any

from dynpose.benchmark.configs import without_folders
from dynpose.benchmark.measure import measure as measure_case
from dynpose.benchmark.measure import progress
from dynpose.benchmark.settings import Settings, environment
from dynpose.profiling.flops import count_parameters

from .case import TrainingCase, load_training_configs, time_parts


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``configs`` (a row each, with all figures; the first is the baseline)
        and ``notes``.

    Raises:
        ConfigError: a config is invalid, or mixed precision is requested on a CPU.
    """
    configs = load_training_configs(args.config_file or (), args.variant or (), args.opts, peer=args.peer, amp=args.amp)
    settings = Settings.from_args(args)
    case = TrainingCase(
        {each.name: each for each in configs}, args.batch, tuple(args.size), args.people, settings.device
    )
    with settings.applied():
        rows = _rows(case, settings, args.parts)
        return {
            "environment": environment(settings.device),
            "settings": {
                **settings.report(),
                "batch": args.batch,
                "image_size": list(args.size),
                "people": args.people,
                "opts": without_folders(args.opts),
            },
            "configs": rows,
            "notes": _notes(rows),
        }


def _rows(case, settings, with_parts):
    device, rounds, clock = case.device, settings.rounds, settings.make_clock()
    rows = []
    for name, measurement in measure_case(case, list(case.configs), device, clock, rounds).items():
        figures, parts = _figures(case, name, measurement), {}
        if with_parts and measurement.median:
            parts = time_parts(case[name], case.make_inputs(device, 0), clock, rounds)
        rows.append(
            {
                "config": name,
                **_setup(case.configs[name]),
                **figures,
                "parts_ms": {part: 1000 * seconds for part, seconds in parts.items()},
            }
        )
        print(progress(name, figures), file=sys.stderr, flush=True)
    return rows


def _setup(config):
    """The columns that describe a config, also if it ran out of memory."""
    return {
        "meta_architecture": config.cfg.MODEL.META_ARCHITECTURE,
        "variant": config.variant,
        "optimizer": config.cfg.SOLVER.OPTIMIZER,
        "precision": f"mixed {config.cfg.SOLVER.AMP.DTYPE}" if config.cfg.SOLVER.AMP.ENABLED else "float32",
    }


def _figures(case, name, measurement):
    figures = measurement.figures()
    others = ("iterations_per_second", "images_per_second", "trainable", "loss")
    if not measurement.median:
        return {**figures, **dict.fromkeys(others), "mib": None, "constant_mib": {}}
    training, per_second = case[name], 1 / measurement.median
    constant = {what: value / 2**20 for what, value in training.constant_bytes().items()}
    batch = sum(tensor.nbytes for tensor in case.make_inputs(case.device, 0)) / 2**20
    loss = case.losses[name].item()
    trainable = sum(trainable for _, trainable in count_parameters(training.model).values())
    return {
        **figures,
        **dict(
            zip(others, (per_second, case.batch_size * per_second, trainable, loss if math.isfinite(loss) else None))
        ),
        "mib": None if figures["mib"] is None else figures["mib"] + sum(constant.values()) + batch,
        "constant_mib": constant,
    }


def _notes(rows):
    """Name the configs whose work may differ from real training."""
    return [
        f"{row['config']}: the loss is not finite, so its times are not representative of training"
        for row in rows
        if row["ms"] and row["loss"] is None
    ]
