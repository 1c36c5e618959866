"""The figures of a report: its files, and what follows from several of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynpose.benchmark.measure import OUT_OF_MEMORY
from dynpose.benchmark.report import figure, ratio

# of report.json; another one can't be imported
FORMAT = 1
INDEX = "report.json"
# The operator's figures of two parts together
COMBINED = "kp_net_all"

_KP_NET = ("kp_net", "kp_net_others")
_MODELS = ("models_tf32", "models_bfloat16", "models_float32")


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Read the figures of a part; None if there are none, as of a part that was stopped."""
    try:
        return json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def combined_kp_net(folder: Path) -> dict[str, Any] | None:
    """Join the operator's rows of both parts, by case and number of instances; None without any."""
    reports = [report for name in _KP_NET if (report := read_json(folder, name))]
    if not reports:
        return None
    rows = [row for report in reports for row in report["cases"]]
    order = list(dict.fromkeys(row["case"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["case"]), row["instances"]))
    together = {key: [item for each in reports for item in each[key]] for key in ("notes", "disagreements")}
    return {**reports[0], "cases": rows, **{key: list(dict.fromkeys(items)) for key, items in together.items()}}


def growth(folder: Path) -> list[dict[str, Any]]:
    """Compare each model's time for the most people with that for one person, in every precision.

    Where models were optimized for inference, these alone are listed.
    """
    rows = []
    for name in _MODELS:
        report = read_json(folder, name) or {"cases": []}
        cases = report["cases"]
        for model in (report.get("optimized") or cases[0]["models"]) if cases else ():
            first, last = cases[0], cases[-1]
            quotient = ratio(last["models"][model], first["models"][model], "ms")
            rows.append({
                "model": model,
                "precision": name.removeprefix("models_"),
                "people": f"{first['people']} to {last['people']}",
                "ms": figure(first["models"][model]["ms"]),
                "ms, most people": figure(last["models"][model]["ms"]),
                "growth": "" if quotient is None else f"{100 * (quotient - 1):+.1f} %",
            })  # fmt: skip
    return rows


def counted_tests(folder: Path) -> list[dict[str, Any]]:
    """Count the tests of both parts by outcome."""
    counts = [(name, report["outcomes"]) for name in ("tests", "tests_long") if (report := read_json(folder, name))]
    return [
        {"part": name, **{outcome: str(list(outcomes.values()).count(outcome)) for outcome in _OUTCOMES}}
        for name, outcomes in counts
    ]


_OUTCOMES = ("passed", "failed", "skipped")


def largest_errors(folder: Path) -> list[dict[str, Any]]:
    """Find the kernels' largest errors in each precision, and count the cases beyond the tolerance."""
    report = read_json(folder, "correctness")
    rows = report["cases"] if report else []
    precisions = dict.fromkeys(row["precision"] for row in rows)
    return [_largest(precision, [row for row in rows if row["precision"] == precision]) for precision in precisions]


def _largest(precision, rows):
    def largest(key):
        return max((row[key] for row in rows if row[key] is not None), default=None)

    values, gradients = largest("value_error"), largest("gradient_error")
    return {
        "precision": precision,
        "cases": str(len(rows)),
        "within the tolerance": str(sum(row["status"] == "" for row in rows)),
        "largest error of values": "" if values is None else f"{values:.1e}",
        "of gradients": "" if gradients is None else f"{gradients:.1e}",
    }


def kp_net_figure(rows: list[dict[str, Any]], case: str, instances: int, name: str, key: str) -> str | None:
    """Format a figure of the operator, or name the implementation that ran out of memory; None if it is missing.

    Args:
        rows: of the operator's report.
        case: name of the case.
        instances: N.
        name: of the implementation, or two as "grouped / fused" for their ratio.
        key: of the figure.
    """
    found = next((row for row in rows if (row["case"], row["instances"]) == (case, instances)), None)
    if found is None:
        return None
    figures = {each: found["implementations"].get(each, {}) for each in name.split(" / ")}
    for each, values in figures.items():
        if values.get(key) is None:
            return f"{each}: {OUT_OF_MEMORY}" if values.get("status") == OUT_OF_MEMORY else None
    first, *second = figures.values()
    return figure(ratio(first, second[0], key) if second else first[key])
