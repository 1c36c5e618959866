"""The table of `dynpose benchmark cold-start`."""

from __future__ import annotations

from typing import Any

from dynpose.benchmark.report import figure, join, source, table


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the table with its title, and the disagreements.
    """
    environment, rows = report["environment"], report["rows"]
    exported, checkpoint = rows
    ratios = {
        "name": "checkpoint / exported",
        "seconds": figure(checkpoint["seconds"] / exported["seconds"]),
        "memory, MiB": figure(checkpoint["memory_bytes"] / exported["memory_bytes"]),
        "people": "",
    }
    return join(
        f"{source(environment)}, torch {environment['torch']}, {environment['device']}, "
        f"{environment['cpu_threads']} threads, float32, median of {report['settings']['rounds']}.",
        table("From the start of Python to the first pose", [*map(_row, rows), ratios], style),
        *report["disagreements"],
    )


def _row(row):
    return {
        "name": row["name"],
        "seconds": figure(row["seconds"]),
        "memory, MiB": figure(row["memory_bytes"] / 2**20),
        "people": str(row["people"]),
    }
