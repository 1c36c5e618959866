"""The tables of `dynpose benchmark kp-net`."""

from __future__ import annotations

from typing import Any

from dynpose.benchmark.measure import NOT_RUN
from dynpose.benchmark.report import cell, figure, header, join, ratio, table

from .case import GROUPED


def tables(report: dict[str, Any], style: str) -> str:
    """Write a report as text.

    Args:
        report: from :func:`~.run.measure`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    cases, rates = report["cases"], report["rates"]
    methods = dict.fromkeys(row["method"] for row in report["released_loss"])
    return join(
        f"{header(report)} Measured: {figure(rates['tflops'])} TFLOP/s in matrix products, "
        f"{figure(rates['gigabytes_per_second'])} GB/s in copies.",
        table("Time of one call, ms", [_compared(row, "ms", floor=True) for row in cases], style),
        table("Memory of one call beyond its inputs, MiB", [_compared(row, "mib") for row in cases], style),
        table("Rate, TFLOP/s, and the floor over the time", [_rates(row) for row in cases], style),
        table("Host's time to queue one call, ms", _host(cases), style),
        table("Training with all positive locations", _flat(report["all_positives"]), style),
        *(
            table(
                f"Losses of the {method}, forward and backward",
                _flat(row for row in report["released_loss"] if row["method"] == method),
                style,
            )
            for method in methods
        ),
        table("First calls of the fused kernels", [_first_call(row) for row in report["first_call"]], style),
        *report["notes"],
        *report["disagreements"],
    )


def speedup(row: dict[str, Any], key: str, name: str) -> float | None:
    """Divide a figure of the grouped convolution by another implementation's; None if one is missing."""
    figures = row["implementations"]
    return ratio(figures.get(GROUPED, {}), figures.get(name, {}), key)


def _start(row):
    return {"case": row["case"], "N": row["instances"]}


def _compared(row, key, floor=False):
    """A figure of all implementations side by side, and the ratios of the grouped convolution's to theirs."""
    figures = row["implementations"]
    return {
        **_start(row),
        **({"floor": figure(row["floor_ms"])} if floor else {}),
        **{name: cell(each, key) for name, each in figures.items()},
        **{f"{GROUPED} / {name}": figure(speedup(row, key, name)) for name in figures if name != GROUPED},
    }


def _rates(row):
    line = {
        **_start(row),
        "GFLOP": figure(row["flops"] / 1e9),
        "MB": figure(row["bytes"] / 1e6),
        "floor is": row["floor_is"],
    }
    for name, figures in row["implementations"].items():
        line[name] = cell(figures, "tflops")
        part = figures["part_of_floor"]
        line[f"floor / {name}"] = "" if part is None else f"{100 * part:.1f} %"
    return line


def _host(rows):
    """Host times; empty for a CPU, which has no queue."""
    if not any(figures["host_ms"] for row in rows for figures in row["implementations"].values()):
        return []
    return [
        {**_start(row), **{name: figure(each["host_ms"]) for name, each in row["implementations"].items()}}
        for row in rows
    ]


def _flat(rows):
    """One line for each measured implementation."""
    return [
        {
            **_start(row),
            "implementation": name,
            "time, ms": cell(figures, "ms"),
            "memory, MiB": cell(figures, "mib"),
        }
        for row in rows
        for name, figures in row["implementations"].items()
        if figures["status"] != NOT_RUN
    ]


def _first_call(row):
    return {
        **_start(row),
        "empty cache, s": figure(row["empty_cache_s"]),
        "filled cache, s": figure(row["filled_cache_s"]),
        "new map size, s": figure(row["new_size_s"]),
        "new map size, empty cache, s": figure(row["new_size_empty_cache_s"]),
        "later calls, ms": figure(1000 * row["later_s"]),
    }
