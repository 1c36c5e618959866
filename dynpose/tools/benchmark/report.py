"""The tables of a report."""

from __future__ import annotations

from tabulate import tabulate

from .contestants import GROUPED


def tables(report: dict, style: str) -> str:
    """Write a report as text.

    Args:
        report: of :func:`~.running.measure_all`.
        style: of tabulate, "github" or "simple".

    Returns:
        A header of one line, the tables with their titles, and the notes.
    """
    parts = [
        f"{header(report)} {_measured_rates(report['rates'])}",
        *titled_table("Time of one call, ms", _compared(report["cases"], "ms", floor=True), style),
        *titled_table("Memory of one call beyond its inputs, MiB", _compared(report["cases"], "mib"), style),
        *titled_table("Rate, TFLOP/s, and the floor over the time", _rates(report["cases"]), style),
        *titled_table("Host's time to queue one call, ms", _host(report["cases"]), style),
        *titled_table("Training with all positive locations", _flat(report["all_positives"]), style),
        *titled_table("Losses of the released FCPose, forward and backward", _flat(report["released_loss"]), style),
        *titled_table("First calls of the fused kernels", _first_calls(report["first_call"]), style),
        *report["notes"],
        *report["disagreements"],
    ]
    return "\n\n".join(parts)


def figure(value: float | None) -> str:
    """Write a number with three significant digits, or all before the point; "" for None."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def subtitle(report: dict) -> str:
    """Name the device and the precision."""
    settings = report["settings"]
    precision = settings["dtype"]
    if settings["device"] == "cuda" and precision == "float32":
        precision += " with TF32" if settings["tf32"] else " without TF32"
    others = [name for key, name in _SETTINGS.items() if settings[key]]
    return ", ".join([report["environment"]["device"], precision, *others])


def ratio(row: dict, key: str, name: str) -> float | None:
    """Give a figure of the grouped convolution over another contestant's; None where one is missing."""
    above, below = (row["contestants"].get(each, {}).get(key) for each in (GROUPED, name))
    return None if above is None or not below else above / below


def header(report: dict) -> str:
    """Write what the figures depend on: versions, commit, device, precision, threads, rounds."""
    environment, settings = report["environment"], report["settings"]
    source = f" ({environment['commit']})" if environment["commit"] else ""
    triton = f", triton {environment['triton']}" if environment["triton"] else ""
    return (
        f"dynpose {environment['dynpose']}{source}, torch {environment['torch']}{triton}, {subtitle(report)}, "
        f"{environment['cpu_threads']} CPU threads, median of {settings['rounds']}."
    )


def titled_table(title: str, rows: list[dict], style: str) -> list[str]:
    """Write the title and the table as one block; nothing without rows."""
    if not rows:
        return []
    columns = list(rows[0])
    aligned = ["left" if isinstance(rows[0][column], str) and column in _TEXT else "right" for column in columns]
    body = [[row[column] for column in columns] for row in rows]
    return [f"{title}\n\n" + tabulate(body, columns, tablefmt=style, colalign=aligned, disable_numparse=True)]


def _measured_rates(rates):
    return (
        f"Measured: {figure(rates['tflops'])} TFLOP/s in matrix products, "
        f"{figure(rates['gigabytes_per_second'])} GB/s in copies."
    )


_SETTINGS = {"cudnn_benchmark": "cuDNN benchmark mode", "deterministic": "deterministic"}
_TEXT = ("case", "contestant", "floor is", "model", "meta-architecture", "weights", "variant", "optimizer", "precision")


def cell(contestant: dict, key: str) -> str:
    """Write a figure of a contestant, or why there is none."""
    return figure(contestant[key]) or _short(contestant["note"])


def _short(note):
    """What stands in a cell: the reason why it can't run is below the tables, once."""
    return "" if note.startswith("not run") else note.split(":")[0]


def _compared(rows, key, floor=False):
    """A figure of all contestants side by side, and what the grouped convolution takes of it over theirs."""
    table = []
    for row in rows:
        line = {"case": row["case"], "N": row["instances"]}
        if floor:
            line["floor"] = figure(row["floor_ms"])
        line.update({name: cell(contestant, key) for name, contestant in row["contestants"].items()})
        others = [name for name in row["contestants"] if name != GROUPED]
        line.update({f"{GROUPED} / {name}": figure(ratio(row, key, name)) for name in others})
        table.append(line)
    return table


def _rates(rows):
    table = []
    for row in rows:
        line = {
            "case": row["case"],
            "N": row["instances"],
            "GFLOP": figure(row["flops"] / 1e9),
            "MB": figure(row["bytes"] / 1e6),
            "floor is": row["floor_is"],
        }
        for name, contestant in row["contestants"].items():
            line[name] = cell(contestant, "tflops")
            part = contestant["part_of_floor"]
            line[f"floor / {name}"] = "" if part is None else f"{100 * part:.1f} %"
        table.append(line)
    return table


def _host(rows):
    """Nothing for a CPU, which queues nothing."""
    if not any(contestant["host_ms"] for row in rows for contestant in row["contestants"].values()):
        return []
    return [
        {
            "case": row["case"],
            "N": row["instances"],
            **{name: figure(contestant["host_ms"]) for name, contestant in row["contestants"].items()},
        }
        for row in rows
    ]


def _flat(rows):
    """One line for each contestant that was run."""
    return [
        {
            "case": row["case"],
            "N": row["instances"],
            "contestant": name,
            "time, ms": cell(contestant, "ms"),
            "memory, MiB": cell(contestant, "mib"),
        }
        for row in rows
        for name, contestant in row["contestants"].items()
        if not contestant["note"].startswith("not run")
    ]


def _first_calls(rows):
    return [
        {
            "case": row["case"],
            "N": row["instances"],
            "empty cache, s": figure(row["empty_cache_s"]),
            "filled cache, s": figure(row["filled_cache_s"]),
            "new map size, s": figure(row["new_size_s"]),
            "new map size, empty cache, s": figure(row["new_size_empty_cache_s"]),
            "later calls, ms": figure(1000 * row["later_s"]),
        }
        for row in rows
    ]
