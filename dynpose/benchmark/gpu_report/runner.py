"""Running the parts of a report one after the other, each within its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .plan import Part

DONE, FAILED, OUT_OF_TIME, INTERRUPTED = "done", "failed", "out of time", "interrupted"
RUNNING, NOT_STARTED = "running", "not started"

# A process that is told to stop gets this time to end, which is part of its budget.
_GRACE_SECONDS = 2.0
# Starting Python and importing PyTorch takes longer.
_FEWEST_SECONDS = 5.0

# (module and its arguments, file of the standard output, file of the standard error, seconds) -> exit code; None =
# stopped
Start = Callable[[Sequence[str], Path, Path, float], "int | None"]


def run_parts(
    parts: Sequence[Part],
    output: Path,
    work: Path,
    report: Callable[[list[dict[str, Any]]], None],
    *,
    scale: float = 1.0,
    start: Start,
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Run all parts in their order.

    The deadline of a part is the sum of the budgets up to its own, counted from the start: it gets what earlier parts
    leave over, and can't take from later ones.

    Args:
        parts: in their order.
        output: folder of the report; a part gets ``NAME.md`` and ``NAME.log`` for its two outputs.
        work: temporary folder that all parts share.
        report: called with all rows before and after every part.
        scale: factor of the budgets.
        start: starts a process and waits for it, such as :func:`run_process`.
        clock: seconds from any origin.

    Returns:
        A row for each part: ``name``, ``title``, ``status``, ``seconds``, ``budget`` and ``limit`` in seconds,
        ``reason`` (of a failure, the last line of its log) and ``files``.
    """
    begin, deadline = clock(), 0.0
    rows = [_row(part, scale) for part in parts]
    for part, row in zip(parts, rows):
        deadline += row["budget"]
        now = clock() - begin
        limit = deadline - now
        if part.max_seconds is not None:
            limit = min(limit, part.max_seconds)
        if limit < min(_FEWEST_SECONDS, row["budget"] / 2):
            row["reason"] = f"only {max(limit, 0):.0f} s were left"
            _announce(row)
            continue
        row.update(status=RUNNING, limit=round(limit, 1))
        report(rows)
        tables, log = output / f"{part.name}.md", output / f"{part.name}.log"
        try:
            code = start(part.command(output, work, limit - _GRACE_SECONDS), tables, log, limit)
        except BaseException:  # Ctrl-C, or no process can be started
            row.update(status=INTERRUPTED, files=_files(output, part.name))
            report(rows)
            raise
        row["seconds"] = round(clock() - begin - now, 1)
        row["status"] = OUT_OF_TIME if code is None else FAILED if code else DONE
        row["reason"] = f"exit code {code}: {_last_line(log)}" if code else ""
        row["files"] = _files(output, part.name)
        _announce(row)
        report(rows)
    report(rows)
    return rows


def _row(part, scale):
    return {
        "name": part.name,
        "title": part.title,
        "status": NOT_STARTED,
        "budget": round(part.seconds * scale, 1),
        "limit": None,
        "seconds": None,
        "reason": "",
        "files": [],
    }


def _announce(row):
    seconds = "" if row["seconds"] is None else f" after {row['seconds']:.0f} s"
    reason = row["reason"] and f" ({row['reason']})"
    print(f"{row['name']}: {row['status']}{seconds}{reason}", file=sys.stderr, flush=True)


def _files(output, name):
    """The files of a part, without empty ones."""
    files = sorted(output.glob(f"{name}.*"))
    for file in files:
        if not file.stat().st_size:
            file.unlink()
    return [file.name for file in files if file.exists()]


def _last_line(log):
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no log")


def run_process(
    words: Sequence[str], tables: Path, log: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> int | None:
    """Run ``python -m`` with these words, and stop it with all its child processes when the time is over.

    Args:
        words: the module and its arguments.
        tables: file for the standard output.
        log: file for the standard error.
        seconds: the time; the process is asked to stop shortly before its end.
        environment: the variables of the process; None = those of this one.

    Returns:
        The exit code, negative after a signal; None if the time was over.
    """
    with tables.open("w") as out, log.open("w") as err:
        # In a session of its own, so that its child processes can be stopped with it
        process = subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds - min(_GRACE_SECONDS, seconds / 2))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _stop(process)


def _stop(process):
    """End the session of a process: politely, then by force. Child processes may outlive their parent."""
    for number, patience in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _GRACE_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
