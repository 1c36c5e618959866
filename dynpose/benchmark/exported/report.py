"""The tables of `dynpose benchmark exported`."""

from __future__ import annotations

from typing import Any

from dynpose.benchmark.report import cell, figure, header, join, overrides, ratio, table


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    height, width = report["settings"]["image_size"]
    return join(
        f"{header(report)} One image of {height} x {width} pixels.{overrides(report)}",
        table("Time of one image, ms", [_times(row) for row in report["cases"]], style),
        table("Memory of one image beyond weights and image, MiB", [_memory(row) for row in report["cases"]], style),
        *report["notes"],
    )


def _times(row):
    """All side by side, and the time of the model as trained over the others'."""
    figures = row["figures"]
    return {
        **_case(row),
        **{name: cell(each, "ms") for name, each in figures.items()},
        **{
            f"as trained / {name}": figure(ratio(figures["as trained"], each, "ms"))
            for name, each in figures.items()
            if name != "as trained"
        },
    }


def _memory(row):
    return {**_case(row), **{name: cell(each, "mib") for name, each in row["figures"].items()}}


def _case(row):
    return {"model": row["model"], "people": str(row["people"])}
