"""Runs that are killed at random, over all methods, must leave the files of a run that was left alone. By hand:

    PYTHONPATH=tests:tests/engine python tests/engine/kill_sweep.py --ends 120 --seed 0

Each run is of one method, with some of EMA, precise BN, TTA, the best weights and early stopping, evaluations and
checkpoints at a separate period. It is killed again and again, each time at a place drawn at random: in a backward
pass, before a file takes its name, in the middle of a checkpoint, in an evaluation, or with a full disk in the place of
a kill. Then it may end, and all its files are compared with those of the same run left alone, bit for bit.
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from comparing_runs import find_difference
from test_restart import KILLED, MORE, TTA, evaluated_options
from tiny_methods import METHODS

# The highest number of each that is drawn: low enough for most starts to come to it
_PLACES = {"backward": 3, "rename": 8, "write": 3, "evaluate": 5, "full": 3}

_MOST_ENDS = 8


def _draw_run(generator, method):
    """Options of a run."""
    period, evaluation = generator.randint(1, 5), generator.randint(1, 3)
    opts = ["SOLVER.CHECKPOINT_PERIOD", period, "TEST.EVAL_PERIOD", evaluation, "SOLVER.CHECKPOINTS_KEPT", 2]
    opts += ["SEED", generator.randint(0, 99)]
    if generator.random() < 0.5:
        opts = [*MORE, *TTA, *opts]
    else:
        opts += ["SOLVER.BEST_METRIC", "keypoints/AP"]
    if generator.random() < 0.5:
        opts += ["SOLVER.EARLY_STOPPING_PATIENCE", 1]
    return [str(opt) for opt in opts], f"{method}, {' '.join(map(str, opts))}"


def _draw_kill(generator):
    place = generator.choice(list(_PLACES))
    return {place: generator.randint(1, _PLACES[place])}


class _Runner:
    """The process that forks for each run."""

    def __init__(self, log):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("restarting_runs.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __call__(self, run):
        self._process.stdin.write(json.dumps([run]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())[0]

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def _try(runner, generator, method, folder, counts):
    """Kill one run until it ends before it reaches the drawn place; return the fault, or None."""
    opts, name = _draw_run(generator, method)
    run = {"resume": True, "scored": True, "seconds": 1000}
    for output in ("alone", "killed"):
        config, words = evaluated_options(
            method, folder.parent / "images", folder / output, *opts, "DATALOADER.NUM_WORKERS", 0
        )
        if output == "alone":
            code = runner({**run, "config": config, "opts": words})
            if code:
                return f"{name}: left alone, it ends with {code}"
    places, code = [], None
    while code != 0 and len(places) < _MOST_ENDS:
        kill = _draw_kill(generator)
        code = runner({**run, "config": config, "opts": words, **kill})
        (place,) = kill
        if code not in (0, 1 if place == "full" else KILLED):
            return f"{name}: {kill} after {places} ends with {code}"
        if code:
            counts[place] += 1
            places.append(kill)
    code = runner({**run, "config": config, "opts": words})
    failed = any("full" in kill for kill in places)
    difference = f"it ends with {code}" if code else find_difference(folder / "killed", folder / "alone", failed=failed)
    return None if difference is None else f"{name}: after {places}: {difference}"


def main():
    """Sweep, print a summary, and return 1 if the results of a run differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ends", type=int, default=120, help="how often runs are killed, or have a full disk")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator, counts, faults, runs = random.Random(args.seed), collections.Counter(), [], 0
    with tempfile.TemporaryDirectory() as root, open(Path(root, "log.txt"), "w") as log:
        runner = _Runner(log)
        while counts.total() < args.ends or runs % len(METHODS):
            folder = Path(root, f"run_{runs}")
            fault = _try(runner, generator, list(METHODS)[runs % len(METHODS)], folder, counts)
            if fault:
                faults.append(fault)
                print(fault, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            runs += 1
            print(f"{runs} runs, {counts.total()} ends: {dict(counts)}, {len(faults)} faults", flush=True)
        runner.close()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
