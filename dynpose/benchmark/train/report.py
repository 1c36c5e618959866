"""The tables of `dynpose benchmark train`."""

from __future__ import annotations

from typing import Any

from dynpose.benchmark.report import cell, figure, header, join, overrides, ratio, table

# memory that persists across iterations
_CONSTANT = ("weights and buffers", "gradients", "optimizer state")


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    settings, rows = report["settings"], report["configs"]
    height, width = settings["image_size"]
    return join(
        f"{header(report)} {settings['batch']} images of {height} x {width} pixels, {settings['people']} people in "
        f"each.{overrides(report)}",
        table("Configs", [_setup(row) for row in rows], style),
        table("Time of one iteration", [_times(row, rows[0]) for row in rows], style),
        table("Memory of one iteration at its peak, MiB", [_memory(row, rows[0]) for row in rows], style),
        table("Parts of one iteration, ms", [_parts(row) for row in rows if row["parts_ms"]], style),
        *report["notes"],
    )


def _setup(row):
    return {
        "config": row["config"],
        "meta-architecture": row["meta_architecture"],
        "variant": row["variant"],
        "optimizer": row["optimizer"],
        "precision": row["precision"],
        "trainable parameters": "" if row["trainable"] is None else f"{row['trainable']:,}",
    }


def _times(row, baseline):
    return {
        "config": row["config"],
        "iterations/s": figure(row["iterations_per_second"]),
        "images/s": figure(row["images_per_second"]),
        "ms": cell(row, "ms"),
        f"{baseline['config']} / this": figure(ratio(baseline, row, "ms")),
    }


def _memory(row, baseline):
    return {
        "config": row["config"],
        **{what: figure(row["constant_mib"].get(what)) for what in _CONSTANT},
        "peak": cell(row, "mib"),
        f"{baseline['config']} / this": figure(ratio(baseline, row, "mib")),
    }


def _parts(row):
    return {"config": row["config"], **{part: figure(value) for part, value in row["parts_ms"].items()}}
