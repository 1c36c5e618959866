"""The tables of `dynpose benchmark model`."""

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
    models, cases = report["models"], report["cases"]
    return join(
        f"{header(report)} One image of {height} x {width} pixels.{overrides(report)}",
        table("Models", [_model(row) for row in models], style),
        table("Time of one image, ms", [_times(row, report["peer"], report["optimized"]) for row in cases], style),
        table("Memory of one image beyond weights and image, MiB", [_memory(row) for row in cases], style),
        table("GFLOPs of one image, a multiply-add counted as one", _gflops(models), style),
        *(table(f"Parts of {row['model']}, ms", _parts(row["model"], cases), style) for row in models),
        *(block for row in report.get("parts", []) for block in _alternatives(row, style)),
        *report["notes"],
    )


def _model(row):
    return {
        "model": row["model"],
        "meta-architecture": row["meta_architecture"],
        "weights": row["weights"],
        "precision": row["precision"],
        "parameters": f"{row['parameters']:,}",
        "weights, MiB": figure(row["weights_mib"]),
        **({"GFLOPs without people": f"{row['gflops']['0']:.2f}"} if row["gflops"] else {}),
    }


def _times(row, peer, optimized):
    """All models side by side, the peer's time over theirs, and a model's over that of its optimized copies."""
    models = row["models"]
    others = [name for name in models if peer not in (None, name, optimized.get(name))]
    return {
        "people": row["people"],
        **_cells(models, "ms"),
        **{f"{peer} / {name}": figure(ratio(models[peer], models[name], "ms")) for name in others},
        **{f"{base} / {name}": figure(ratio(models[base], models[name], "ms")) for name, base in optimized.items()},
    }


def _memory(row):
    return {"people": row["people"], **_cells(row["models"], "mib")}


def _parts(model, cases):
    """A line for each number of people; none if parts were not timed."""
    return [
        {"people": case["people"], **{part: figure(value) for part, value in parts.items()}}
        for case in cases
        if (parts := case["models"][model]["parts_ms"])
    ]


def _gflops(models):
    return [
        {"people": number, **{row["model"]: f"{row['gflops'][number]:.2f}" for row in models}}
        for number in models[0]["gflops"]
    ]


def _alternatives(row, style):
    """Times and memory of a part and its alternatives, with the times over that of the part, which comes first."""
    title = f"{row['part'].capitalize()} of {row['model']} and alternatives"
    own, *others = row["cases"][0]["alternatives"]
    times, memory = [], []
    for case in row["cases"]:
        figures = case["alternatives"]
        ratios = {f"{name} / {own}": figure(ratio(figures[name], figures[own], "ms")) for name in others}
        times.append({"people": case["people"], **_cells(figures, "ms"), **ratios})
        memory.append({"people": case["people"], **_cells(figures, "mib")})
    return table(f"{title}, ms", times, style), table(f"{title}, memory, MiB", memory, style)


def _cells(figures, key):
    return {name: cell(each, key) for name, each in figures.items()}
