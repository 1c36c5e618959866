"""The tables of `dynpose benchmark loading`."""

from __future__ import annotations

from typing import Any

from dynpose.benchmark.report import figure, join, source, table


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the disagreements.
    """
    environment, settings, readers = report["environment"], report["settings"], report["annotation"]
    title = (
        f"Annotation of {settings['images']:,} images and {settings['people']:,} people, "
        f"{figure(settings['annotation_mb'])} MB"
    )
    checks = [_check(row) for row in report["image_files"]]
    return join(
        f"{source(environment)}, detectron2 {environment['detectron2']}, Python {environment['python']}, "
        f"{environment['device']}, {environment['cores']} cores, median of {settings['rounds']}.",
        table(title, [_reading(row, readers[0]) for row in readers], style),
        table(f"Check of {settings['image_files']:,} image files", checks, style),
        *report["disagreements"],
    )


def _reading(row, baseline):
    ratios = {"wall_s": "wall", "cpu_s": "CPU", "mib": "memory"}
    return {
        "reader": row["reader"],
        "wall, s": figure(row["wall_s"]),
        "CPU, s": figure(row["cpu_s"]),
        "of which filters, s": figure(row["filters_cpu_s"]),
        "memory, MiB": figure(row["mib"]),
        **{f"{name} / {baseline['reader']}": figure(row[f"{key}_ratio"]) for key, name in ratios.items()},
    }


def _check(row):
    return {
        "reader": row["reader"],
        "wall, s": figure(row["wall_s"]),
        "CPU, s": figure(row["cpu_s"]),
        "memory, MiB": figure(row["mib"]),
    }
