"""One run of `dynpose benchmark gpu-report`."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dynpose.benchmark.kp_net.plot import draw
from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open
from dynpose.utils.environment import commit_of, git_state
from dynpose.utils.terminating import sigterm_raises
from dynpose.version import __version__

from .figures import COMBINED, FORMAT, INDEX, combined_kp_net, read_json
from .plan import Part, read_plan
from .report import index
from .runner import DONE, Start, run_parts, run_process

# Budgets of plan.yaml fit into this time, with half a minute to spare for the start and the end.
PLANNED_MINUTES = 10.0


def measure(args: Namespace, start: Start | None = None, **options: Any) -> dict[str, Any]:
    """Run all parts; every file of the report is written as soon as its part has ended.

    Args:
        args: of the command.
        start: see :func:`~.runner.run_parts`.
        **options: of :func:`~.runner.run_parts`.

    Returns:
        The content of report.json: ``format``, ``dynpose`` (its version), ``commit``, ``date``, ``device``,
        ``rehearsal``, ``parts`` (their rows) and ``failures`` (names of the parts that were not done).

    Raises:
        ConfigError: there is no GPU and this is no rehearsal, or the folder holds something else.
    """
    if not args.rehearse and not torch.cuda.is_available():
        raise ConfigError(
            "gpu-report: PyTorch finds no CUDA GPU here; run it on a machine with one (--rehearse tries the plan on a "
            "CPU, with tiny shapes)"
        )
    parts = read_plan(args.rehearse)
    output = _prepare_folder(args.output, parts)
    heading = {
        "format": FORMAT,
        "dynpose": __version__,
        "commit": args.commit or commit_of(git_state()),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "rehearsal": args.rehearse,
    }
    content: dict[str, Any] = {}

    def report(rows):
        content.update(_content(heading, rows, output))
        _write(output, content)

    start = start or partial(run_process, environment=_environment(args.rehearse))
    options.setdefault("scale", args.minutes / PLANNED_MINUTES)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work, sigterm_raises(KeyboardInterrupt):
            run_parts(parts, output, Path(work), report, start=start, **options)
    finally:
        # an interrupted report has the plot too
        if content:
            _combine(output)
            _write(output, content)
    return {**content, "output": str(args.output)}


def _environment(rehearse):
    """The variables of the parts."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TRITON_PRINT_AUTOTUNING": "1"}
    if rehearse:
        environment["TRITON_INTERPRET"] = "1"
    return environment


def _prepare_folder(output: Path, parts: list[Part]) -> Path:
    """Create the folder, or remove the earlier report in it; return its absolute path."""
    if output.is_dir() and any(output.iterdir()) and not (output / INDEX).exists():
        raise ConfigError(f"--output {output}: the folder is not empty and holds no {INDEX}; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    written = {part.name for part in parts} | {Path(INDEX).stem, COMBINED}
    for file in output.iterdir():
        if file.is_file() and file.name.split(".")[0] in written:
            file.unlink()
    return output.resolve()


def _content(heading, rows, output):
    # Every part with figures names the device; that of the name comes first.
    found = (read_json(output, name) or {} for name in ("device", *(row["name"] for row in rows)))
    environment = next((report["environment"] for report in found if "environment" in report), {})
    keys = ("device", "torch", "triton", "cuda")
    return {
        **heading,
        **{key: environment.get(key) for key in keys},
        "parts": rows,
        "failures": [row["name"] for row in rows if row["status"] != DONE],
    }


def _combine(output):
    """Draw the operator's plot over all numbers of instances, which two parts have measured."""
    combined = combined_kp_net(output)
    if combined:
        draw(combined).savefig(output / f"{COMBINED}.png")


def _write(output, content):
    with atomic_open(output / INDEX) as file:
        file.write(json.dumps(content, indent=2) + "\n")
    with atomic_open(output / "report.md") as file:
        file.write(index(content, output) + "\n")
