"""The marked blocks of docs/benchmarks.md and their figures.

A block is either written completely, or is a table of the page whose cells are filled row by row: the first cell says
which figure belongs into the row, so that its rows and their words stay in the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynpose.benchmark.gpu_report.figures import (
    COMBINED,
    combined_kp_net,
    counted_tests,
    growth,
    kp_net_figure,
    largest_errors,
    read_json,
)
from dynpose.benchmark.gpu_report.runner import DONE
from dynpose.benchmark.kp_net import report as kp_net_report
from dynpose.benchmark.model import report as model_report
from dynpose.benchmark.report import figure, join, table
from dynpose.benchmark.train import report as train_report
from dynpose.config import ConfigError

_BLOCK = re.compile(r"<!-- gpu-report: (?P<name>[a-z_]+) -->\n(?P<content>.*?)<!-- /gpu-report -->", re.DOTALL)
_MARKER = re.compile(r"<!-- /?gpu-report\b.*?-->")
_SOURCE, _OTHERS = "Measured on ", "Cells without a figure there: "
_OPEN = "not measured yet"
_UNITS = {"time": "ms", "memory": "mib", "floor": "part_of_floor"}

# (folder of the report, content of report.json, the block's content) -> the new content; None without figures
Block = Callable[[Path, dict[str, Any], str], "str | None"]


def replace_blocks(text: str, path: Path, fill: Callable[[str, str], str | None]) -> tuple[str, list[str], list[str]]:
    """Replace the marked blocks of a page.

    Args:
        text: of the page.
        path: of the page, for messages.
        fill: (name, content) -> the new content; None = keep it.

    Returns:
        The new text, and the names of the blocks that were filled and kept.

    Raises:
        ConfigError: there is no block, a marker is not closed, or a name is unknown.
    """
    blocks = list(_BLOCK.finditer(text))
    if not blocks or len(_MARKER.findall(text)) != 2 * len(blocks):
        raise ConfigError(
            f"{path}: the markers <!-- gpu-report: NAME --> and <!-- /gpu-report --> are missing or not in pairs; "
            "restore them from the repository"
        )
    unknown = [block["name"] for block in blocks if block["name"] not in BLOCKS]
    if unknown:
        raise ConfigError(f"{path}: gpu-report: {unknown[0]}: unknown block; the known ones are {', '.join(BLOCKS)}")
    filled: list[str] = []
    kept: list[str] = []

    def replace(found):
        content = fill(found["name"], found["content"])
        (kept if content is None else filled).append(found["name"])
        if content is None:
            return found[0]
        return f"<!-- gpu-report: {found['name']} -->\n{content.strip()}\n<!-- /gpu-report -->"

    return _BLOCK.sub(replace, text), filled, kept


def source(heading: dict[str, Any]) -> str:
    """Name the device, the versions and the commit of a report."""
    software = "".join(f", {key} {heading[key]}" for key in ("torch", "triton", "cuda") if heading.get(key))
    return f"{_SOURCE}{heading['device']}, commit {heading['commit']}, {heading['date']}{software}."


def fill_rows(content: str, heading: dict[str, Any], cells: Callable[[str], list[str | None]]) -> str | None:
    """Fill the last cells of the rows of a table.

    Args:
        content: of the block: possibly a line that names an earlier report, and a table.
        heading: the content of report.json.
        cells: the first cell of a row -> the texts of its last cells; None = keep the cell.

    Returns:
        The new content; None if no cell was filled.
    """
    lines, earlier, is_filled, keeps = [], [], False, False
    for line in content.strip().splitlines():
        if line.startswith((_SOURCE, _OTHERS)):
            earlier.append(line.removeprefix(_OTHERS))
            continue
        row = [cell.strip() for cell in line.strip().strip("|").split("|")]
        new = cells(row[0]) if line.startswith("|") else []
        if new:
            kept, old = row[: -len(new)], row[-len(new) :]
            is_filled |= any(cell is not None for cell in new)
            keeps |= any(cell is None and before != _OPEN for before, cell in zip(old, new))
            row = [*kept, *(before if cell is None else cell for before, cell in zip(old, new))]
            line = f"| {' | '.join(row)} |"
        lines.append(line)
    if not is_filled:
        return None
    # Cells of earlier reports keep the name of their device.
    others = [f"{_OTHERS}{line}" for line in earlier if keeps and line != source(heading)]
    return join(source(heading), *others, "\n".join(lines).strip())


# --- blocks that are written completely ---


def _summary(folder, heading, content):
    parts = heading["parts"]
    missing = [row["name"] for row in parts if row["status"] != DONE]
    notes = [f"Not done: {', '.join(missing)}."] if missing else []
    return join(
        source(heading),
        table("Largest errors of the kernels against float64", largest_errors(folder), "github"),
        table("Tests marked gpu", counted_tests(folder), "github"),
        *notes,
    )


def _kp_net(folder, heading, content):
    report = combined_kp_net(folder)
    if report is None:
        return None
    # The tables of the other parts, which the same command prints, without their small grids
    extras = {
        "first_call": (read_json(folder, "first_call") or report)["first_call"],
        **{key: (read_json(folder, "memory") or report)[key] for key in ("all_positives", "released_loss")},
    }
    plot = f"![Time over the number of instances on {heading['device']}](images/kp_net_gpu.png)"
    return join(
        source(heading),
        plot if (folder / f"{COMBINED}.png").exists() else "",
        kp_net_report.tables({**report, **extras}, "github"),
    )


def _models(folder, heading, content):
    reports = [report for name in ("tf32", "bfloat16", "float32") if (report := read_json(folder, f"models_{name}"))]
    parts = read_json(folder, "parts_of_a_model")
    if not reports and not parts:
        return None
    return join(
        source(heading),
        table("Time for the most people over that for one", growth(folder), "github"),
        *(model_report.tables(report, "github") for report in (*reports, *([parts] if parts else []))),
    )


def _training(folder, heading, content):
    report = read_json(folder, "training")
    return report and join(source(heading), train_report.tables(report, "github"))


def _quick_training(folder, heading, content):
    report = read_json(folder, "quick_training")
    if report is None:
        return None
    metrics = ", ".join(
        f"{task} AP {figure(found['AP'])}" for task, found in report["results"].items() if "AP" in found
    )
    return join(
        source(heading),
        f"`configs/{report['config']}`: {report['iterations']} iterations in {report['seconds']:.0f} s, evaluation "
        f"included: {metrics}.",
    )


# --- tables whose cells are filled ---


def _targets(folder, heading, content):
    report = combined_kp_net(folder)
    rows = report["cases"] if report else []
    memory, first = read_json(folder, "memory") or {}, read_json(folder, "first_call") or {}
    fillers = (
        (r"(?P<case>.+), N = (?P<n>\d+): (?P<names>[a-z]+ / [a-z]+)(?:, (?P<unit>time|memory))?", _kp_net_cell(rows)),
        (
            r"(?P<case>\w+ training) with all positive locations, fused with N = (?P<n>\d+): memory",
            _positives(memory),
        ),
        (r"first call of the fused kernels: .*", lambda found: _first_calls(first)),
        (r"losses of the released (?P<method>\w+), fused: time, memory", _losses(memory)),
    )

    def cells(label):
        for pattern, fill in fillers:
            if found := re.fullmatch(pattern, label):
                return [fill(found)]
        return []

    return fill_rows(content, heading, cells)


def _kp_net_cell(rows):
    def fill(found):
        names, unit = found["names"], found["unit"]
        if names.startswith("floor / "):
            part = _figures(rows, found["case"], int(found["n"]), names.removeprefix("floor / ")).get("part_of_floor")
            return None if part is None else f"{100 * part:.1f} %"
        return kp_net_figure(rows, found["case"], int(found["n"]), names, _UNITS[unit or "time"])

    return fill


def _figures(rows, case, instances, name):
    found = [row for row in rows if (row["case"], row["instances"]) == (case, instances)]
    return found[0]["implementations"].get(name, {}) if found else {}


def _positives(memory):
    def fill(found):
        rows = memory.get("all_positives", [])
        case = found["case"]
        fused = _figures(rows, case, int(found["n"]), "fused").get("mib")
        grouped = next((row for row in rows if row["case"] == case and "grouped" in row["implementations"]), None)
        if fused is None or grouped is None:
            return None
        other = figure(grouped["implementations"]["grouped"]["mib"]) or grouped["implementations"]["grouped"]["status"]
        return f"{figure(fused)} MiB, grouped with N = {grouped['instances']} {other} MiB"

    return fill


def _first_calls(report):
    rows = report.get("first_call", [])
    keys = ("empty_cache_s", "filled_cache_s", "new_size_s")
    return "; ".join(f"{row['case']} {', '.join(f'{figure(row[key])} s' for key in keys)}" for row in rows) or None


def _losses(memory):
    def fill(found):
        rows = [row for row in memory.get("released_loss", []) if found["method"] in row["method"]]
        figures = [(row["case"], row["implementations"].get("fused", {})) for row in rows]
        texts = [f"{case} {figure(x['ms'])} ms, {figure(x['mib'])} MiB" for case, x in figures if x.get("ms")]
        return "; ".join(texts) or None

    return fill


def _checkpointing(folder, heading, content):
    report = read_json(folder, "checkpointing")
    rows = report["configs"] if report else []

    def cells(label):
        words = label.strip("`").split()
        wanted = "" if label == "all activations kept" else words
        row = next((row for row in rows if _is_variant(row["variant"], wanted)), None)
        if row is None:
            return []
        keys = ("iterations_per_second", "images_per_second", "ms", "mib")
        return [figure(row[key]) or (row["status"] if key == "ms" else None) for key in keys]

    return fill_rows(content, heading, cells)


def _is_variant(variant, wanted):
    """Whether the overrides of a variant end in these words; the page leaves the prefix of the key out."""
    words = variant.split()
    if not wanted or not words:
        return not wanted and not words
    return words[1:] == wanted[1:] and words[0].rpartition(".")[2] == wanted[0]


BLOCKS: dict[str, Block] = {
    "summary": _summary,
    "targets": _targets,
    "kp_net": _kp_net,
    "models": _models,
    "training": _training,
    "checkpointing": _checkpointing,
    "quick_training": _quick_training,
}
