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

from PIL import Image

from dynpose.benchmark.settings import choose_device, environment
from dynpose.config import ConfigError, load_config
from dynpose.engine.shard_merging import merge_shards

from .case import images_of_shapes

_RESULTS = ("file_name", "width", "height", "instances")


def measure_shards(args: Namespace) -> dict[str, Any]:
    """Time ``dynpose predict`` with and without shards.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each) and ``disagreements``.

    Raises:
        ConfigError: a process fails.
    """
    settings = {
        "images": args.images,
        "shapes": args.shapes,
        "processes": args.processes,
        "threads": args.threads or 1,
        "rounds": args.repeats,
    }
    rows = [_measure(args, settings, *files) for files in zip(args.config_file, args.weights)]
    return {
        "environment": environment(choose_device(args.device)),
        "settings": settings,
        "models": rows,
        "disagreements": [f"{row['model']}: the merged results differ" for row in rows if not row["agree"]],
    }


def _measure(args, settings, config_file, weights):
    side = load_config(config_file, args.opts).INPUT.MIN_SIZE_TEST
    with tempfile.TemporaryDirectory(prefix="dynpose-shards-") as folder:
        images = Path(folder, "images")
        images.mkdir()
        for index, image in enumerate(images_of_shapes(args.images, args.shapes, side)):
            Image.fromarray(image[:, :, ::-1]).save(images / f"{index:06d}.jpg", quality=92)
        times: dict[str, list[tuple[float, float]]] = {"one": [], "shards": []}
        results = {}
        for number in range(args.repeats):
            for name, shards in (("one", 1), ("shards", args.processes)):
                output = Path(folder, f"{name}{number}")
                times[name].append(_predict(args, settings, config_file, weights, images, output, shards))
                results[name] = _results(output)
                print(f"{config_file}, {shards} processes: {times[name][-1][0]:.1f} s", file=sys.stderr, flush=True)
        people = sum(len(entry["instances"]) for entry in results["one"].values())
        size = (output / "predictions.jsonl").stat().st_size
    row: dict[str, Any] = {
        "model": Path(config_file).stem,
        "people": people,
        "agree": results["one"] == results["shards"],
    }
    for key, index in (("seconds", 0), ("images_seconds", 1)):
        for name in times:
            row[f"{name}_{key}"] = statistics.median(pair[index] for pair in times[name])
    row["ratio"] = statistics.median(one[0] / shards[0] for one, shards in zip(times["one"], times["shards"]))
    row["images_ratio"] = statistics.median(one[1] / shards[1] for one, shards in zip(times["one"], times["shards"]))
    row["bytes_per_person"] = size / max(1, people)
    return row


def _predict(args, settings, config_file, weights, images, output, shards):
    """Seconds from the start of the processes to the end of the last, and without the start of the slowest."""
    command = [
        *(sys.executable, "-c", "import sys; from dynpose.tools.cli import main; sys.exit(main())"),
        *("predict", "--config-file", config_file, "--weights", weights, "--input", str(images)),
        *("--output", str(output), "--no-pictures", "--batch-size", str(args.batch)),
        *(("--device", args.device) if args.device else ()),
    ]
    threads = str(settings["threads"])
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    start = time.time()
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
    errors = [process.communicate()[1] for process in processes]
    end = time.time()
    failed = next((error for process, error in zip(processes, errors) if process.returncode), None)
    if failed is not None:
        raise ConfigError(f"dynpose predict failed: {failed.strip().splitlines()[-1]}")
    # a shard locks its results when the model is loaded
    loaded = max(path.stat().st_mtime for path in output.glob("*.lock"))
    return end - start, end - loaded


def _results(output):
    """The results of the merged shards by image."""
    merge_shards(output)
    with (output / "predictions.jsonl").open() as file:
        lines = map(json.loads, file)
        return {line["file_name"]: {key: line[key] for key in _RESULTS} for line in lines if "instances" in line}
