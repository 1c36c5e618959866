"""A folder of images, predicted by one process and by several processes with a shard each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dynpose.benchmark.settings import choose_device, environment
from dynpose.config import ConfigError, load_config
from dynpose.engine.shard_merging import merge_shards

from .case import SCORE, images_of_shapes

ONE, SHARDS = "one", "shards"


def measure_shards(args: Namespace) -> dict[str, Any]:
    """Time ``dynpose predict`` with and without shards.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each) and ``disagreements``.

    Raises:
        ConfigError: a process fails.
    """
    rows = [_measure(args, *files) for files in zip(args.config_file, args.weights)]
    return {
        "environment": environment(choose_device(args.device)),
        "settings": {
            "images": args.images,
            "shapes": args.shapes,
            "batch": args.batch,
            "processes": args.processes,
            "threads": args.threads or 1,
            "rounds": args.repeats,
        },
        "models": rows,
        "disagreements": [f"{row['model']}: the merged results differ" for row in rows if not row["agree"]],
    }


def _measure(args, config_file, weights):
    """The figures of one model."""
    side = load_config(config_file, args.opts).INPUT.MIN_SIZE_TEST
    times: dict[str, list[tuple[float, float]]] = {ONE: [], SHARDS: []}
    results = {}
    with tempfile.TemporaryDirectory(prefix="dynpose-shards-") as folder:
        images = Path(folder, "images")
        images.mkdir()
        for index, image in enumerate(images_of_shapes(args.images, args.shapes, side)):
            Image.fromarray(image[:, :, ::-1]).save(images / f"{index:06d}.jpg", quality=92)
        for number in range(args.repeats):
            for way, shards in ((ONE, 1), (SHARDS, args.processes)):
                output = Path(folder, f"{way}{number}")
                times[way].append(_predict(args, config_file, weights, images, output, shards))
                results[way] = _results(output)
                print(f"{config_file}, {shards} processes: {times[way][-1][0]:.1f} s", file=sys.stderr, flush=True)
        size = (output / "predictions.jsonl").stat().st_size
    people = sum(map(len, results[ONE].values()))
    row: dict[str, Any] = {"model": Path(config_file).stem, "people": people, "bytes_per_person": size / max(1, people)}
    for key, place in (("seconds", 0), ("images_seconds", 1)):
        for way in times:
            row[f"{way}_{key}"] = statistics.median(pair[place] for pair in times[way])
        row[f"{key}_ratio"] = statistics.median(a[place] / b[place] for a, b in zip(times[ONE], times[SHARDS]))
    return {**row, "agree": _agree(results[ONE], results[SHARDS])}


def _predict(args, config_file, weights, images, output, shards):
    """Seconds from the start of the processes to the end of the last, and from the end of the slowest start."""
    command = [
        *(sys.executable, "-c", "import sys; from dynpose.tools.cli import main; sys.exit(main())"),
        *("predict", "--config-file", config_file, "--weights", weights, "--input", str(images)),
        *("--output", str(output), "--no-pictures", "--batch-size", str(args.batch)),
        *(("--device", args.device) if args.device else ()),
    ]
    threads = str(args.threads or 1)
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    start = loaded = time.perf_counter()
    processes = [
        subprocess.Popen(
            [*command, "--shard", f"{index}/{shards}", *args.opts],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(shards)
    ]
    while any(process.poll() is None for process in processes):
        # a process creates its file when its model is loaded
        if loaded == start and len(list(output.glob("predictions-*.jsonl"))) == shards:
            loaded = time.perf_counter()
        time.sleep(0.01)
    end = time.perf_counter()
    errors = [process.communicate()[1] for process in processes]
    failed = next((error for process, error in zip(processes, errors) if process.returncode), None)
    if failed is not None:
        raise ConfigError(f"dynpose predict failed: {failed.strip().splitlines()[-1]}")
    return end - start, end - loaded


def _results(output):
    """The people of the merged shards by image."""
    merge_shards(output)
    with (output / "predictions.jsonl").open() as file:
        lines = map(json.loads, file)
        return {line["file_name"]: line["instances"] for line in lines if "instances" in line}


def _agree(first, second):
    """Whether two results have the same images with the same scores; batches change the last digits."""
    if first.keys() != second.keys():
        return False
    for name, people in first.items():
        scores = [sorted(person["score"] for person in some) for some in (people, second[name])]
        if len(scores[0]) != len(scores[1]) or not np.allclose(*scores, atol=SCORE):
            return False
    return True
