"""One run of `dynpose benchmark cold-start`."""

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

import cv2
import numpy as np
import torch

from dynpose.benchmark.settings import environment
from dynpose.checkpoint import CheckpointError
from dynpose.data.synthetic import SyntheticPose

# Largest differences between the two: of the median keypoint, pixels, and of scores
PIXELS, SCORE = 0.1, 1e-4

_REPORT = """
import json, re
status = open("/proc/self/status").read()
highest = re.search(r"VmHWM:\\s*(\\d+) kB", status)
print(json.dumps({"scores": people.scores.tolist(), "keypoints": people.pred_keypoints.tolist(),
                  "memory": int(highest[1]) * 1024}))
"""
_PROGRAMS = {
    "exported": "import sys\nfrom dynpose.runtime import Pose\npeople = Pose(sys.argv[1])(sys.argv[2])\n" + _REPORT,
    "checkpoint": (
        "import sys\nfrom dynpose import PosePredictor\n"
        "predictor = PosePredictor.from_files(*sys.argv[3:], device='cpu', precision='float32')\n"
        "people = predictor(sys.argv[2])\n" + _REPORT
    ),
}


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurement that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``rows`` (one for each of the two) and ``disagreements``.

    Raises:
        CheckpointError: a process fails, with its last line.
    """
    times: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = str(args.image or _synthetic(Path(folder)))
        words = [args.exported, image, args.config_file, args.weights]
        for _ in range(args.rounds):
            for name, program in _PROGRAMS.items():
                seconds, results[name] = _run(program, words, args.threads)
                times[name].append(seconds)
    rows = [
        {
            "name": name,
            "file": args.exported if name == "exported" else args.weights,
            "seconds": statistics.median(times[name]),
            "memory_bytes": results[name]["memory"],
            "people": len(results[name]["scores"]),
        }
        for name in _PROGRAMS
    ]
    return {
        "environment": {**environment(torch.device("cpu")), "cpu_threads": args.threads},
        "settings": {"rounds": args.rounds, "image": "synthetic" if args.image is None else str(args.image)},
        "rows": rows,
        "disagreements": _disagreements(results["exported"], results["checkpoint"]),
    }


def _synthetic(folder):
    """The file of an image of 480 x 640 pixels with synthetic people."""
    image, _ = SyntheticPose(image_size=(480, 640)).render(0, "val")
    cv2.imwrite(str(folder / "image.png"), image[:, :, ::-1])
    return folder / "image.png"


def _run(program, words, threads):
    """Run a program in a fresh process: seconds, and the object that it prints."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=variables)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise CheckpointError((done.stderr.strip().splitlines() or ["a process failed"])[-1])
    return seconds, json.loads(done.stdout.splitlines()[-1])


def _disagreements(exported, checkpoint):
    numbers = len(exported["scores"]), len(checkpoint["scores"])
    if numbers[0] != numbers[1]:
        return [f"the exported file finds {numbers[0]} people, the checkpoint {numbers[1]}"]
    if not numbers[0]:
        return []
    score = float(np.abs(np.subtract(exported["scores"], checkpoint["scores"])).max())
    points = np.subtract(exported["keypoints"], checkpoint["keypoints"])[..., :2]
    pixels = float(np.median(np.abs(points)))
    if score <= SCORE and pixels <= PIXELS:
        return []
    return [f"scores differ by up to {score:.1e}, keypoints by {pixels:.1e} pixels (median)"]
