"""The tables of `dynpose benchmark predict`."""

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
    environment, settings = report["environment"], report["settings"]
    if "processes" in settings:
        return _shards(report, style)
    return join(
        f"{source(environment)}, torch {environment['torch']}, {environment['device']}, "
        f"{environment['cpu_threads']} threads, float32, {settings['images']} images of {settings['shapes']} shapes in "
        f"batches of {settings['batch']}, median of {settings['rounds']}.",
        table("Time of an image", [_times(row) for row in report["models"]], style),
        table("Batches against one by one", [_differences(row) for row in report["models"]], style),
        *report["disagreements"],
    )


def _shards(report, style):
    environment, settings = report["environment"], report["settings"]
    return join(
        f"{source(environment)}, torch {environment['torch']}, {environment['device']}, "
        f"{settings['threads']} threads a process, float32, dynpose predict on {settings['images']} images in batches "
        f"of {settings['batch']}, median of {settings['rounds']}.",
        table("A folder in shards", [_shares(row, settings["processes"]) for row in report["models"]], style),
        *report["disagreements"],
    )


def _shares(row, processes):
    return {
        "model": row["model"],
        "people": f"{row['people']:,}",
        "1 process, s": figure(row["one_seconds"]),
        f"{processes} processes, s": figure(row["shards_seconds"]),
        "ratio": figure(row["seconds_ratio"]),
        "1 process without start, s": figure(row["one_images_seconds"]),
        f"{processes} processes without start, s": figure(row["shards_images_seconds"]),
        "ratio without start": figure(row["images_seconds_ratio"]),
        "bytes a person": figure(row["bytes_per_person"]),
    }


def _times(row):
    return {
        "model": row["model"],
        "meta-architecture": row["meta_architecture"],
        "one by one, ms": figure(row["alone_wall_ms"]),
        "batches, ms": figure(row["batched_wall_ms"]),
        "one by one / batches": figure(row["wall_ratio"]),
        "one by one, CPU ms": figure(row["alone_cpu_ms"]),
        "batches, CPU ms": figure(row["batched_cpu_ms"]),
        "CPU ratio": figure(row["cpu_ratio"]),
    }


def _differences(row):
    return {
        "model": row["model"],
        "people": f"{row['people']:,}",
        "in only one": str(row["unmatched"]),
        "moved": str(row["moved"]),
        "largest, pixels": f"{row['pixels']:.1e}",
        "largest, score": f"{row['score']:.1e}",
    }
