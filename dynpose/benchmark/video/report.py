"""The table of `dynpose benchmark video`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynpose.benchmark.report import figure, join, source, table

from .run import SETTLED


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, and the table.
    """
    environment, settings = report["environment"], report["settings"]
    height, width = settings["size"]
    return join(
        f"{source(environment)}, torch {environment['torch']}, {environment['device']}, "
        f"{environment['cpu_threads']} threads, float32, {settings['frames']} frames of {width} x {height} with "
        f"{settings['people']} people.",
        table("A video from end to end", [_row(report["video"], settings)], style),
    )


def _row(video, settings):
    frames = settings["frames"]
    return {
        "model": Path(settings["config"]).stem,
        "model alone, ms/frame": figure(video["model_wall_s"] * 1e3 / frames),
        "end to end, ms/frame": figure(video["video_wall_s"] * 1e3 / frames),
        "ratio": f"{video['wall_ratio']:.3f}",
        "model alone, CPU ms": figure(video["model_cpu_s"] * 1e3 / frames),
        "end to end, CPU ms": figure(video["video_cpu_s"] * 1e3 / frames),
        "CPU ratio": f"{video['cpu_ratio']:.3f}",
        f"peak memory after frame {min(SETTLED, frames)}, MiB": figure(video["peak_settled"] / 2**20),
        f"after frame {frames}": figure(video["peak_end"] / 2**20),
    }
