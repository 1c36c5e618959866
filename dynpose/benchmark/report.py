"""Helpers for the tables of all reports."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from .measure import NOT_RUN

# Columns of words
_TEXT = {
    "case", "implementation", "floor is", "model", "config", "reader", "meta-architecture", "weights", "variant",
    "optimizer", "precision", "part", "name", "status", "reason", "files", "kernel", "test", "message",
}  # fmt: skip
_SETTINGS = {
    "cudnn_benchmark": "cuDNN benchmark mode",
    "deterministic": "deterministic",
    "cpu_time": "CPU time of all threads",
}


def figure(value: float | None) -> str:
    """Format a number with three significant digits, keeping all integer digits; "" for None."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def cell(figures: dict[str, Any], key: str) -> str:
    """Format a figure, or the reason why it is missing; reasons for NOT_RUN are listed once, below the tables."""
    return figure(figures[key]) or ("" if figures["status"] == NOT_RUN else figures["status"])


def ratio(above: dict[str, Any], below: dict[str, Any], key: str) -> float | None:
    """Divide a figure by another; None if one is missing."""
    numbers = above.get(key), below.get(key)
    return numbers[0] / numbers[1] if None not in numbers and numbers[1] else None


def source(environment: dict[str, Any]) -> str:
    """Name the version of dynpose and its commit."""
    commit = f" ({environment['commit']})" if environment["commit"] else ""
    return f"dynpose {environment['dynpose']}{commit}"


def subtitle(report: dict[str, Any]) -> str:
    """Name the device and the precision."""
    settings = report["settings"]
    precision = settings["dtype"]
    if settings["device"] == "cuda" and precision == "float32":
        precision += " with TF32" if settings["tf32"] else " without TF32"
    others = [name for key, name in _SETTINGS.items() if settings.get(key)]
    return ", ".join([report["environment"]["device"], precision, *others])


def header(report: dict[str, Any]) -> str:
    """Format the conditions of the measurement: versions, commit, device, precision, threads, rounds, overrides."""
    environment, settings = report["environment"], report["settings"]
    triton = f", triton {environment['triton']}" if environment["triton"] else ""
    return (
        f"{source(environment)}, torch {environment['torch']}{triton}, {subtitle(report)}, "
        f"{environment['cpu_threads']} CPU threads, median of {settings['rounds']}."
    )


def overrides(report: dict[str, Any]) -> str:
    """Write the overrides of all configs, for the end of a header."""
    words = report["settings"]["opts"]
    return f" Overrides: {' '.join(words)}." if words else ""


def table(title: str, rows: list[dict[str, Any]], style: str) -> str:
    """Write a title and a table as one block; "" without rows.

    Args:
        title: above the table.
        rows: column -> text each.
        style: of tabulate, "github" or "simple".
    """
    if not rows:
        return ""
    columns = list(rows[0])
    aligned = ["left" if isinstance(rows[0][column], str) and column in _TEXT else "right" for column in columns]
    body = [[row[column] for column in columns] for row in rows]
    return f"{title}\n\n" + tabulate(body, columns, tablefmt=style, colalign=aligned, disable_numparse=True)


def join(*blocks: str) -> str:
    """Join the non-empty blocks of text."""
    return "\n\n".join(filter(None, blocks))
