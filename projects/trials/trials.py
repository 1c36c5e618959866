#!/usr/bin/env python
"""Train the rows of a table with several seeds each, and print mean and range of their APs.

    python projects/trials/trials.py projects/trials/comparison.yaml --output output/comparison

Each training is a process, whose output is in output.txt of its folder. One that is done is not repeated, and one that
was interrupted continues from its last checkpoint.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from dynpose.evaluation.analysis import analyse_predictions
from dynpose.report.inputs import read_run

COLUMNS = ("AP", "AP50", "AP75", "AP easy", "AP medium", "AP hard")
ARGUMENTS, RESULT = "arguments.json", "trial.json"


def main() -> None:
    """Train what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", type=Path, help="a YAML file: common options, and rows with config and options")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, as ROW/seed_SEED")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--rows", nargs="+", help="names of rows, default: all")
    parser.add_argument("--only-table", action="store_true", help="train nothing; print what is done")
    args = parser.parse_args()
    trial = read_trial(args.trial)
    if unknown := set(args.rows or ()) - set(trial["rows"]):
        parser.error(f"--rows {', '.join(sorted(unknown))}: {args.trial} has {', '.join(trial['rows'])}")
    rows = {name: row for name, row in trial["rows"].items() if args.rows is None or name in args.rows}
    if not args.only_table:
        # all rows with one seed first, so that the table is of use before it is complete
        for seed in args.seeds:
            for name, row in rows.items():
                run_once(args.output / name / f"seed_{seed}", arguments(trial, row, seed), args.output / "images")
    print(table({name: results(args.output / name, args.seeds) for name in rows}))


def read_trial(path: Path) -> dict[str, Any]:
    """Rows, and common options: its own after those of the file that ``common_of`` names."""
    trial = yaml.safe_load(path.read_text())
    shared = read_trial(path.parent / trial["common_of"])["common"] if "common_of" in trial else {}
    return {"rows": trial["rows"], "common": {**shared, **trial.get("common", {})}}


def arguments(trial: Mapping[str, Any], row: Mapping[str, Any], seed: int) -> list[str]:
    """Arguments of train_net.py for a row, without its folders."""
    options = {**trial["common"], **row.get("options", {})}
    words = [str(word) for option in options.items() for word in option]
    return ["--config-file", row["config"], *words, "SEED", str(seed)]


def run_once(folder: Path, words: Sequence[str], images: Path) -> None:
    """Train and analyse, unless the folder has the result.

    Args:
        folder: of the run.
        words: of :func:`arguments`.
        images: folder in which the images are drawn once for all runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ARGUMENTS).is_file() and json.loads((folder / ARGUMENTS).read_text()) != words:
        sys.exit(f"{folder} has a training with other options: give another --output, or remove the folder")
    if (folder / RESULT).is_file():
        return
    (folder / ARGUMENTS).write_text(json.dumps(words))
    print(f"training {folder}", file=sys.stderr, flush=True)
    folders = ["DATASETS.SYNTHETIC.ROOT", str(images), "OUTPUT_DIR", str(folder)]
    train(["--resume", *words, *folders], folder / "output.txt")
    (folder / RESULT).write_text(json.dumps(analyse(folder)))


def train(words: Sequence[str], printed: Path) -> None:
    """Run train_net.py; a file receives what it prints."""
    script = Path(__file__).parents[2] / "train_net.py"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        with (
            open(printed, "a") as output,
            subprocess.Popen([sys.executable, script, *words], stdout=output, stderr=subprocess.STDOUT) as process,
        ):
            try:
                code = process.wait()
            except BaseException:
                # else it would go on alone; it saves a checkpoint
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        sys.exit(f"the training ended with exit code {code}: {printed} has its output; run this again to continue")


def analyse(folder: Path) -> dict[str, float]:
    """The APs of a run, by COLUMNS."""
    run = read_run(folder)
    analysis = analyse_predictions(run.ground_truth, run.detections, run.schema, max_dets=run.max_dets, num_worst=0)
    groups = {f"AP {row['group']}": row["ap"] for row in analysis["groups"]["crowd_index"]}
    return {name: {**analysis["metrics"], **groups}.get(name, math.nan) for name in COLUMNS}


def results(folder: Path, seeds: Sequence[int]) -> list[dict[str, float]]:
    """Those of the seeds that are done."""
    files = [folder / f"seed_{seed}" / RESULT for seed in seeds]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def table(done: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A Markdown table with a row for each name: mean and range of the seeds."""
    lines = [f"| | seeds | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 2)}"]
    for name, runs in done.items():
        cells = [spread([run[column] for run in runs]) for column in COLUMNS]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, and lowest and highest value."""
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else ""


if __name__ == "__main__":
    main()
