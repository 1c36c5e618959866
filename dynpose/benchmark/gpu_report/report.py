"""The index of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynpose.benchmark.report import join, table

from .figures import COMBINED, INDEX, counted_tests, growth, largest_errors


def tables(report: dict[str, Any], style: str) -> str:
    """Write the result of the command: the outcome of each part.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".
    """
    rows = [{**_outcome(row), "reason": row["reason"]} for row in report["parts"]]
    return join(table(_heading(report), rows, style), f"The report is {Path(report['output'], 'report.md')}.")


def index(report: dict[str, Any], folder: Path) -> str:
    """Write report.md.

    Args:
        report: the content of report.json.
        folder: of the report.
    """
    parts = [{**_outcome(row), "files": _links(row["files"])} for row in report["parts"]]
    plot = f"![Time over the number of instances]({COMBINED}.png)" if (folder / f"{COMBINED}.png").exists() else ""
    return join(
        f"# Report of a GPU{' (a rehearsal on a CPU)' if report['rehearsal'] else ''}",
        _heading(report),
        table("## Parts, in the order in which they ran", parts, "github"),
        *(f"- **{row['name']}**: {row['reason']}" for row in report["parts"] if row["reason"]),
        table("## Kernels: largest errors against float64", largest_errors(folder), "github"),
        table("## Time over the number of people", growth(folder), "github"),
        table("## Tests marked gpu", counted_tests(folder), "github"),
        plot,
        f"`dynpose benchmark import` reads {INDEX} and the other JSON files of this folder.",
    )


def _heading(report):
    software = ", ".join(f"{key} {report[key]}" for key in ("torch", "triton", "cuda") if report[key])
    return (
        f"{report['device'] or 'unknown device'}, {report['date']}, dynpose {report['dynpose']} "
        f"({report['commit'] or 'unknown commit'}){software and ', ' + software}."
    )


def _outcome(row):
    return {
        "part": row["title"],
        "name": row["name"],
        "status": row["status"],
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        "limit": "" if row["limit"] is None else f"{row['limit']:.0f}",
    }


def _links(files):
    return " ".join(f"[{name}]({name})" for name in files)
