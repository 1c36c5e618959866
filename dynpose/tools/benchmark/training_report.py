"""The tables of a report of training."""

from __future__ import annotations

from .report import cell, figure, header, titled_table

# what stays from iteration to iteration
_CONSTANT = ("weights and buffers", "gradients", "optimizer state")


def training_tables(report: dict, style: str) -> str:
    """Write a report as text.

    Args:
        report: of :func:`~.training_running.measure_training`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    settings = report["settings"]
    batch, people, overrides = (settings[key] for key in ("batch", "people", "opts"))
    height, width = settings["image_size"]
    rows = report["contestants"]
    parts = [
        f"{header(report)} {batch} images of {height} x {width} pixels, {people} people in each."
        + (f" Overrides: {' '.join(overrides)}." if overrides else ""),
        *titled_table("Contestants", [_contestant(row) for row in rows], style),
        *titled_table("Time of one iteration", _times(rows), style),
        *titled_table("Memory of one iteration at its peak, MiB", _memory(rows), style),
        *titled_table("Parts of one iteration, ms", [_parts(row) for row in rows if row["parts_ms"]], style),
        *report["notes"],
    ]
    return "\n\n".join(parts)


def _contestant(row):
    return {
        "contestant": row["contestant"],
        "meta-architecture": row["meta_architecture"],
        "variant": row["variant"],
        "optimizer": row["optimizer"],
        "precision": row["precision"],
        "trainable parameters": "" if row["trainable"] is None else f"{row['trainable']:,}",
    }


def _times(rows):
    baseline = rows[0]["contestant"]
    return [
        {
            "contestant": row["contestant"],
            "iterations/s": figure(row["iterations_per_second"]),
            "images/s": figure(row["images_per_second"]),
            "ms": cell(row, "ms"),
            f"{baseline} / this": _ratio(rows[0], row, "ms"),
        }
        for row in rows
    ]


def _memory(rows):
    baseline = rows[0]["contestant"]
    return [
        {
            "contestant": row["contestant"],
            **{what: figure(row["constant_mib"].get(what)) for what in _CONSTANT},
            "peak": cell(row, "mib"),
            f"{baseline} / this": _ratio(rows[0], row, "mib"),
        }
        for row in rows
    ]


def _ratio(baseline, row, key):
    """What the baseline takes over what this one takes."""
    return "" if None in (baseline[key], row[key]) else figure(baseline[key] / row[key])


def _parts(row):
    return {"contestant": row["contestant"], **{part: figure(value) for part, value in row["parts_ms"].items()}}
