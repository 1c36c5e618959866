"""The tables of a report of models."""

from __future__ import annotations

from .report import cell, figure, header, titled_table


def model_tables(report: dict, style: str) -> str:
    """Write a report as text.

    Args:
        report: of :func:`~.model_running.measure_models`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    height, width = report["settings"]["image_size"]
    overrides = report["settings"]["opts"]
    parts = [
        f"{header(report)} One image of {height} x {width} pixels."
        + (f" Overrides: {' '.join(overrides)}." if overrides else ""),
        *titled_table("Models", _models(report["models"]), style),
        *titled_table("Time of one image, ms", _times(report), style),
        *titled_table("Memory of one image beyond weights and image, MiB", _memory(report["cases"]), style),
        *titled_table("GFLOPs of one image, a multiply-add counted as one", _gflops(report["models"]), style),
        *(table for row in report["models"] for table in _parts(row["model"], report["cases"], style)),
        *report["notes"],
    ]
    return "\n\n".join(parts)


def _models(rows):
    return [
        {
            "model": row["model"],
            "meta-architecture": row["meta_architecture"],
            "weights": row["weights"],
            "parameters": f"{row['parameters']:,}",
            "weights, MiB": figure(row["weights_mib"]),
            "GFLOPs without people": f"{row['gflops']['0']:.2f}",
        }
        for row in rows
    ]


def _times(report):
    """All models side by side, and what the peer takes over what the others take."""
    table, peer = [], report["peer"]
    for row in report["cases"]:
        contestants = row["contestants"]
        line = {"people": row["people"], **{name: cell(each, "ms") for name, each in contestants.items()}}
        for name in contestants:
            if peer not in (None, name):
                times = contestants[peer]["ms"], contestants[name]["ms"]
                line[f"{peer} / {name}"] = "" if None in times else figure(times[0] / times[1])
        table.append(line)
    return table


def _memory(rows):
    return [
        {"people": row["people"], **{name: cell(each, "mib") for name, each in row["contestants"].items()}}
        for row in rows
    ]


def _parts(model, cases, style):
    """One table for a model whose parts were timed."""
    rows = [
        {"people": case["people"], **{part: figure(value) for part, value in parts.items()}}
        for case in cases
        if (parts := case["contestants"][model]["parts_ms"])
    ]
    return titled_table(f"Parts of {model}, ms", rows, style)


def _gflops(models):
    return [
        {"people": number, **{row["model"]: f"{row['gflops'][number]:.2f}" for row in models}}
        for number in models[0]["gflops"]
    ]
