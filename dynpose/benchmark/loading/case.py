"""The annotation readers, the check of image files, and summaries of their results."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from detectron2.data.build import filter_images_with_few_keypoints, filter_images_with_only_crowd_annotations
from detectron2.data.datasets import load_coco_json

# load_coco_json imports it when called, which should not count in its time
from pycocotools import coco  # noqa: F401

from dynpose.benchmark.memory import with_peak_memory
from dynpose.data import load_pose_json
from dynpose.data.image_check import check_images

Result = TypeVar("Result")

DETECTRON2, FIRST, SECOND = "detectron2", "dynpose, first start", "dynpose, second start"


def read_annotation(name: str, json_file: str, image_root: str) -> dict[str, Any]:
    """Read an annotation once and filter it for training; to be called in a fresh process.

    Args:
        name: of the reader.
        json_file: the annotation.
        image_root: the folder of its images.

    Returns:
        Wall-clock seconds (``wall_s``), CPU seconds (``cpu_s``) and those of the filters among them
        (``filters_cpu_s``), the increase in peak memory (``mib``, MiB; None if the system does not report it), and the
        number of ``images`` and ``people`` and a ``checksum`` of the training data.
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

    records, figures = with_figures(start)
    return {**figures, "filters_cpu_s": filters_cpu_s, **summarise(records)}


def check_image_files(dataset_dicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Check image files once; to be called in a fresh process.

    Args:
        dataset_dicts: in detectron2's format.

    Returns:
        ``wall_s``, ``cpu_s`` and ``mib``, as in :func:`read_annotation`.

    Raises:
        DatasetError: a file is invalid.
    """
    return with_figures(partial(check_images, dataset_dicts))[1]


def summarise(dataset_dicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the number of images and people, and a checksum of all their ids, classes, boxes and keypoints."""
    checksum = 0
    for record in dataset_dicts:
        people = [
            [person["category_id"], person["iscrowd"], *person["bbox"], *person["keypoints"]]
            for person in record["annotations"]
        ]
        checksum = zlib.crc32(np.array([record["image_id"]], np.float64).tobytes(), checksum)
        checksum = zlib.crc32(np.array(people, np.float64).tobytes(), checksum)
    num_people = sum(len(record["annotations"]) for record in dataset_dicts)
    return {"images": len(dataset_dicts), "people": num_people, "checksum": checksum}


def with_figures(call: Callable[[], Result]) -> tuple[Result, dict[str, float | None]]:
    """Make a call, and measure ``wall_s``, ``cpu_s`` and ``mib``.

    Returns:
        The result and a dict of the figures.
    """

    def timed():
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}

    (result, figures), num_bytes = with_peak_memory(timed)
    return result, {**figures, "mib": None if num_bytes is None else num_bytes / 2**20}
