"""One run of `dynpose benchmark exported`."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from dynpose.benchmark.clocks import make_wall_clock
from dynpose.benchmark.configs import without_folders
from dynpose.benchmark.measure import measure as measure_case
from dynpose.benchmark.measure import progress
from dynpose.benchmark.model.case import BuiltModels, load_models
from dynpose.benchmark.settings import Settings, environment

from .case import ExportedCase, OpenedFile, write_with_people


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``cases`` (a row for each model and number of people, with the
        figures "as trained", "optimized" and of each runtime) and ``notes``.

    Raises:
        ConfigError: a config is invalid, a model can't be exported, or the people do not fit into the image.
        CheckpointError: a runtime is not installed.
    """
    models = load_models(args.config_file, (), args.opts, peer=False)
    settings = Settings(torch.device("cpu"), threads=args.threads, rounds=args.repeats)
    image_size = tuple(args.size)
    with settings.applied(), tempfile.TemporaryDirectory() as folder:
        cases = [
            _case_row(model, number, image_size, args.runtimes, settings, Path(folder))
            for model in models
            for number in sorted(set(args.people))
        ]
        return {
            "environment": environment(settings.device),
            "settings": {**settings.report(), "image_size": list(image_size), "opts": without_folders(args.opts)},
            "cases": cases,
            "notes": _notes(cases),
        }


def _case_row(model, num_people, image_size, runtimes, settings, folder):
    optimized = model.optimized("float32", False)
    built = BuiltModels([model, optimized], settings.device, image_size)
    file = folder / "pose.onnx"
    network = built.with_people(model.name, num_people)
    write_with_people(network, model, image_size, file)
    threads = environment(settings.device)["cpu_threads"]
    sessions = OpenedFile(file, runtimes, threads)
    divisibility = max(1, int(network.backbone.size_divisibility))
    case = ExportedCase(built, num_people, image_size, sessions=sessions, divisibility=divisibility)
    names = [model.name, optimized.name, *sessions]
    measured = measure_case(case, names, settings.device, make_wall_clock(settings.device), settings.rounds)
    columns = dict(zip(names, ("as trained", "optimized", *sessions)))
    figures = {
        columns[name]: {**measurement.figures(), "people_found": sorted(case.people_found[name])}
        for name, measurement in measured.items()
    }
    times = ", ".join(progress(*each) for each in figures.items())
    print(f"{model.name}, {num_people} people: {times}", file=sys.stderr, flush=True)
    return {"model": model.name, "people": num_people, "figures": figures}


def _notes(cases):
    """Name what found another number of people than were injected."""
    return [
        f"{row['model']}, {name}: of {row['people']} injected people, "
        f"{' or '.join(map(str, figures['people_found']))} were found"
        for row in cases
        for name, figures in row["figures"].items()
        if figures["people_found"] not in ([], [row["people"]])
    ]
