"""`dynpose benchmark loading`: what it takes to read a data set's annotation and to check its image files.

Contestants are detectron2's ``load_coco_json``, which trusts the file, and :func:`~dynpose.data.load_pose_json`, which
checks every item, at a first start and at a second one, when it remembers what it has read.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from functools import partial
from pathlib import Path

import detectron2
import numpy as np
import torch
from detectron2.data.build import filter_images_with_few_keypoints, filter_images_with_only_crowd_annotations
from detectron2.data.datasets import load_coco_json

# load_coco_json imports it when it is called, which is not to be part of its time
from pycocotools import coco  # noqa: F401

from dynpose.data import load_pose_json
from dynpose.data.image_check import check_images

from .annotation_files import write_annotation, write_images
from .environment import describe
from .measuring import _highest_resident_memory, in_fresh_process
from .report import figure, titled_table

DETECTRON2, FIRST, SECOND = "detectron2", "dynpose, first start", "dynpose, second start"
_CACHE = "DYNPOSE_CACHE"
_FIGURES = ("wall_s", "cpu_s", "filters_cpu_s", "mib")


def measure_loading(args) -> dict:
    """Measure what the arguments ask for.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``annotation`` and ``image_files`` (a row for each contestant, with
        the medians of all figures; the first is the baseline of the ratios), and ``disagreements``.

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
            **describe(torch.device("cpu")),
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


def read_annotation(name: str, json_file: str, image_root: str) -> dict:
    """Read an annotation once and filter it for training; to be called in a fresh process.

    Args:
        name: of the contestant.
        json_file: the annotation.
        image_root: the folder of its images.

    Returns:
        Seconds of the wall clock (``wall_s``) and of the CPU (``cpu_s``), the latter's part that the filters take
        (``filters_cpu_s``), memory at the peak beyond that before (``mib``, MiB; None where the system does not tell),
        and of what training would get the number of ``images`` and ``people`` and a ``checksum``.
    """
    filters_cpu_s = 0.0

    def start():
        nonlocal filters_cpu_s
        if name == DETECTRON2:
            records = load_coco_json(json_file, image_root, "loading_benchmark")
        else:
            records = load_pose_json(json_file, image_root)
        loaded = time.process_time()
        records = filter_images_with_few_keypoints(filter_images_with_only_crowd_annotations(records), 1)
        filters_cpu_s = time.process_time() - loaded
        return records

    records, figures = _metered(start)
    return {**figures, "filters_cpu_s": filters_cpu_s, **summarise(records)}


def check_image_files(dataset_dicts: list[dict]) -> dict:
    """Check image files once; to be called in a fresh process.

    Args:
        dataset_dicts: in detectron2's format.

    Returns:
        ``wall_s``, ``cpu_s`` and ``mib``, as those of :func:`read_annotation`.

    Raises:
        DatasetError: a file is faulty.
    """
    return _metered(partial(check_images, dataset_dicts))[1]


def summarise(dataset_dicts: list[dict]) -> dict:
    """Give the number of images and people, and a checksum of all their ids, classes, boxes and keypoints."""
    checksum = 0
    for record in dataset_dicts:
        people = [
            [person["category_id"], person["iscrowd"], *person["bbox"], *person["keypoints"]]
            for person in record["annotations"]
        ]
        checksum = zlib.crc32(np.array([record["image_id"]], np.float64).tobytes(), checksum)
        checksum = zlib.crc32(np.array(people, np.float64).tobytes(), checksum)
    people = sum(len(record["annotations"]) for record in dataset_dicts)
    return {"images": len(dataset_dicts), "people": people, "checksum": checksum}


def loading_tables(report: dict, style: str) -> str:
    """Write a report as text.

    Args:
        report: of :func:`measure_loading`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the disagreements.
    """
    settings = report["settings"]
    title = (
        f"Annotation of {settings['images']:,} images and {settings['people']:,} people, "
        f"{figure(settings['annotation_mb'])} MB"
    )
    parts = [
        _header(report),
        *titled_table(title, [_reading(report["annotation"][0], row) for row in report["annotation"]], style),
        *titled_table(
            f"Check of {settings['image_files']:,} image files",
            [_checking(row) for row in report["image_files"]],
            style,
        ),
        *report["disagreements"],
    ]
    return "\n\n".join(parts)


def _in_turns(rounds, folder, calls):
    """The results of each call, name -> list: all in every round, each in a process of its own, sharing a cache."""
    found = defaultdict(list)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            for name, call in calls.items():
                result = in_fresh_process(call, environment={_CACHE: cache})
                print(f"{name}: {result['wall_s']:.2f} s", file=sys.stderr, flush=True)
                found[name].append(result)
    return dict(found)


def _metered(call):
    """The result of a call and its figures."""
    before = _restart_peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    figures["mib"] = None if before is None else (_highest_resident_memory() - before) / 2**20
    return result, figures


def _restart_peak_memory():
    """Bytes that are resident now, from which the highest resident memory starts again; None where it can't."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    except OSError:
        return None
    return _highest_resident_memory()


def _rows(measurements):
    """Medians of each contestant, and those of its ratios to the first one, round by round."""
    rows, baseline = [], next(iter(measurements.values()), [])
    for name, results in measurements.items():
        row = {"contestant": name}
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
    """Who gives training something else than detectron2."""
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


def _header(report):
    environment = report["environment"]
    source = f" ({environment['commit']})" if environment["commit"] else ""
    return (
        f"dynpose {environment['dynpose']}{source}, detectron2 {environment['detectron2']}, Python "
        f"{environment['python']}, {environment['device']}, {environment['cores']} cores, median of "
        f"{report['settings']['rounds']}."
    )


def _reading(baseline, row):
    ratios = {"wall_s": "wall", "cpu_s": "CPU", "mib": "memory"}
    return {
        "contestant": row["contestant"],
        "wall, s": figure(row["wall_s"]),
        "CPU, s": figure(row["cpu_s"]),
        "of which filters, s": figure(row["filters_cpu_s"]),
        "memory, MiB": figure(row["mib"]),
        **{
            f"{what} / {baseline['contestant']}": figure(row[f"{key}_ratio"])
            for key, what in ratios.items()
        },
    }  # fmt: skip


def _checking(row):
    return {
        "contestant": row["contestant"],
        "wall, s": figure(row["wall_s"]),
        "CPU, s": figure(row["cpu_s"]),
        "memory, MiB": figure(row["mib"]),
    }
