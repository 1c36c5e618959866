"""A part of the report: a small model trained from scratch for the time that is left, and its AP.

A trial of a few iterations, with its evaluation, comes first: it says how many iterations fit into the time, and the
schedule of the learning rate ends with them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynpose.benchmark.report import figure, table
from dynpose.benchmark.settings import choose_device, environment

from .prepare import synthetic_root

# of the time that the iterations may take by the trial's measure
_USED = 0.85
_WORKERS = 8


def fitting_iterations(seconds: float, overhead: float, per_iteration: float, most: int) -> int:
    """Compute how many iterations fit.

    Args:
        seconds: that are left.
        overhead: of a run, without its iterations.
        per_iteration: seconds.
        most: the result is at most this.

    Returns:
        At least 1.
    """
    return max(1, min(most, int(_USED * (seconds - overhead) / per_iteration)))


def train(config_file: str, opts: Sequence[Any]) -> tuple[dict[str, Any], float]:
    """Train and evaluate; the log goes to the standard error.

    Returns:
        The results, and the seconds of an iteration (median of the last 20) with the loading of its data.
    """
    from detectron2.engine import default_argument_parser

    from dynpose.engine import main as run

    args = default_argument_parser().parse_args(["--config-file", config_file, *map(str, opts)])
    with contextlib.redirect_stdout(sys.stderr):
        results = run(args)
    folder = Path(opts[list(opts).index("OUTPUT_DIR") + 1])
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    times = [line["time"] for line in lines if "time" in line]
    return results, times[-1] if times else 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the part."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--work", required=True, help="temporary folder of all parts")
    parser.add_argument("--trial", type=int, default=60, help="iterations of the trial")
    parser.add_argument("--max-iterations", type=int, default=5000)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    args = parser.parse_args(argv)
    opts = [
        *("MODEL.DEVICE", args.device, "DATASETS.SYNTHETIC.ROOT", synthetic_root(args.work)),
        *("DATALOADER.NUM_WORKERS", min(_WORKERS, os.cpu_count() or 1), *args.opts),
    ]

    def run(name, iterations):
        folder = ("OUTPUT_DIR", str(Path(args.work, name)), "SOLVER.MAX_ITER", iterations)
        return train(args.config_file, [*opts, *folder])

    start = time.monotonic()
    _, per_iteration = run("trial", args.trial)
    trial_seconds = time.monotonic() - start
    per_iteration = per_iteration or trial_seconds / args.trial
    overhead = max(0.0, trial_seconds - args.trial * per_iteration)
    left = args.seconds - (time.monotonic() - begin)
    iterations = fitting_iterations(left, overhead, per_iteration, args.max_iterations)
    print(
        f"{per_iteration:.3f} s an iteration, {left:.0f} s left: {iterations} iterations", file=sys.stderr, flush=True
    )
    start = time.monotonic()
    results, per_iteration = run("training", iterations)
    report = {
        "environment": environment(choose_device(args.device)),
        "config": args.config_file,
        "iterations": iterations,
        "seconds": time.monotonic() - start,
        "seconds_per_iteration": per_iteration or None,
        "results": results,
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(_title(report), [_row(task, metrics) for task, metrics in results.items()], "github"))


def _title(report):
    speed = report["seconds_per_iteration"]
    each = f", {speed:.3f} s each" if speed else ""
    return f"{report['config']}: {report['iterations']} iterations{each}, {report['seconds']:.0f} s in all"


def _row(task, metrics):
    return {"": task, **{name: figure(metrics[name]) for name in ("AP", "AP50", "AP75") if name in metrics}}


if __name__ == "__main__":
    main()
