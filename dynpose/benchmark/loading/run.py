"""One run of `dynpose benchmark loading`."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import detectron2
import torch

from dynpose.benchmark.memory import in_fresh_process
from dynpose.benchmark.settings import environment

from .annotation_files import write_annotation, write_images
from .case import DETECTRON2, FIRST, SECOND, check_image_files, read_annotation

_CACHE = "DYNPOSE_CACHE"
_FIGURES = ("wall_s", "cpu_s", "filters_cpu_s", "mib")


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``annotation`` and ``image_files`` (a row for each reader, with the
        medians of all figures; the first is the baseline of the ratios), and ``disagreements``.

    Raises:
        OSError: the folder for temporary files is full or can't be written.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        json_file, image_root, small_images = folder / "people.json", folder / "images", folder / "small_images"
        for each in (image_root, small_images):
            each.mkdir()
        for file_name in write_annotation(json_file, args.images, args.people):
            (image_root / file_name).touch()
        read = partial(read_annotation, json_file=str(json_file), image_root=str(image_root))
        reading = _in_turns(args.rounds, folder, {each: partial(read, each) for each in (DETECTRON2, FIRST, SECOND)})
        checking = {}
        if args.image_files:
            check = partial(check_image_files, write_images(small_images, args.image_files))
            checking = _in_turns(args.rounds, folder, dict.fromkeys((FIRST, SECOND), check))
        num_bytes = json_file.stat().st_size
    return {
        "environment": {
            **environment(torch.device("cpu")),
            "detectron2": detectron2.__version__,
            "cores": os.cpu_count(),
        },
        "settings": {
            "rounds": args.rounds,
            "images": args.images,
            "people": args.people,
            "annotation_mb": num_bytes / 1e6,
            "image_files": args.image_files,
        },
        "annotation": _rows(reading),
        "image_files": _rows(checking),
        "disagreements": _disagreements(reading),
    }


def _in_turns(rounds, folder, calls):
    """The results by name of call: in every round, each call runs once, in fresh processes that share a cache."""
    found = defaultdict(list)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            for name, call in calls.items():
                result = in_fresh_process(call, environment={_CACHE: cache})
                print(f"{name}: {result['wall_s']:.2f} s", file=sys.stderr, flush=True)
                found[name].append(result)
    return dict(found)


def _rows(measurements):
    """Medians of each reader, and of its per-round ratios to the first reader."""
    rows, baseline = [], next(iter(measurements.values()), [])
    for name, results in measurements.items():
        row = {"reader": name}
        for key in _FIGURES:
            values = [result.get(key) for result in results]
            ratios = [_ratio(value, first.get(key)) for value, first in zip(values, baseline)]
            row[key], row[f"{key}_ratio"] = _median(values), _median(ratios)
        rows.append(row)
    return rows


def _ratio(value, baseline):
    return None if value is None or not baseline else value / baseline


def _median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _disagreements(measurements):
    """The readers whose training data differ from detectron2's."""
    expected = measurements[DETECTRON2][0]
    found = []
    for name, results in measurements.items():
        for result in results:
            differing = [key for key in ("images", "people", "checksum") if result[key] != expected[key]]
            if differing:
                values = ", ".join(f"{key} {result[key]} instead of {expected[key]}" for key in differing)
                found.append(f"{name}: disagrees with {DETECTRON2}: {values}")
                break
    return found
