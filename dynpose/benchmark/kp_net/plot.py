"""The plot of `dynpose benchmark kp-net`: times over the number of instances."""

from __future__ import annotations

from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dynpose.benchmark.memory import OUT_OF_MEMORY
from dynpose.benchmark.plot import BLUE, FAINT, GREEN, INK, LINE, PURPLE, VERMILION, set_up
from dynpose.benchmark.report import subtitle

from .case import FUSED, GROUPED, NATIVE, REFERENCE
from .report import speedup

# The markers differ even without colour. The last is drawn on top.
_STYLES = {
    GROUPED: {"label": "grouped convolution", "color": VERMILION, "marker": "s"},
    REFERENCE: {"label": "reference (PyTorch)", "color": BLUE, "marker": "o"},
    NATIVE: {"label": "native (compiled)", "color": PURPLE, "marker": "^"},
    FUSED: {"label": "fused (Triton)", "color": GREEN, "marker": "D"},
}
_BELOW = "#F1F1F1"
_TIMES = "\N{MULTIPLICATION SIGN}"
_NOTE = (
    f"n{_TIMES}: n times as fast as the grouped convolution. Shaded: faster than the machine's measured rates allow."
)


def draw(report: dict[str, Any]) -> Figure:
    """Draw one panel for each method and mode: log time over log N, a line for each implementation, and the floor.

    The end of each line is labelled with the speedup over the grouped convolution.

    Args:
        report: from :func:`~.run.measure`.

    Returns:
        The figure; ``savefig`` writes it.
    """
    rows = report["cases"]
    methods, modes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "mode"))
    # Not pyplot, which keeps global state and may open a window.
    image = Figure(figsize=(max(8.0, 0.9 + 4.1 * len(modes)), 1.5 + 2.7 * len(methods)), dpi=160, layout="constrained")
    panels = image.subplots(len(methods), len(modes), squeeze=False, sharex=True, sharey=True)
    for line, method in zip(panels, methods):
        for axes, mode in zip(line, modes):
            of_panel = [row for row in rows if (row["method"], row["mode"]) == (method, mode)]
            _set_up(axes, f"{method}, {mode}")
            _draw_lines(axes, sorted(of_panel, key=lambda row: row["instances"]))
    _set_limits(panels[0, 0], rows)
    for axes in panels[-1]:
        axes.set_xlabel("instances N", color=INK)
    for axes in panels[:, 0]:
        axes.set_ylabel("time of one call, ms", color=INK)

    height, width = rows[0]["map_size"]
    title = f"KP-Nets over {height} x {width} cells: {subtitle(report)}"
    image.suptitle(title, x=0.01, ha="left", color=INK, fontsize=11, fontweight="bold")
    handles: dict[str, Artist] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    image.legend(
        list(handles.values()),
        list(handles),
        title=_NOTE,
        title_fontsize=8,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.4,
    )
    return image


def _draw_lines(axes, rows):
    numbers, floor = [row["instances"] for row in rows], [row["floor_ms"] for row in rows]
    alone = "_" if len(rows) == 1 else None  # a line of one point is invisible
    axes.fill_between(numbers, floor, 1e-9, color=_BELOW, linewidth=0, zorder=0)
    axes.plot(numbers, floor, color=FAINT, linewidth=1.2, linestyle=(0, (4, 2)), marker=alone, label="floor", zorder=1)
    for order, (name, style) in enumerate(_STYLES.items(), start=3):
        figures = [(row["instances"], row["implementations"].get(name, {})) for row in rows]
        points = [(number, each["ms"]) for number, each in figures if each.get("ms") is not None]
        if not points:
            continue
        axes.plot(*zip(*points), **style, **LINE, zorder=order)
        last = next(row for row in rows if row["instances"] == points[-1][0])
        faster = speedup(last, "ms", name)
        if any(each.get("status") == OUT_OF_MEMORY for _, each in figures):
            _write(axes, *points[-1], OUT_OF_MEMORY, style["color"], above=True)
        elif name != GROUPED and faster is not None:
            _write(axes, *points[-1], f"{faster:.{int(faster < 10)}f}{_TIMES}", style["color"])


def _write(axes, x, y, text, color, above=False):
    """Write text to the right of a point, or above it."""
    where = {"xytext": (0, 7), "ha": "center"} if above else {"xytext": (7, 0), "va": "center"}
    font = {"fontsize": 8.5, "fontweight": "bold", "color": color}
    axes.annotate(text, (x, y), textcoords="offset points", **where, **font, zorder=9)


def _set_up(axes, title):
    set_up(axes, title)
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _set_limits(axes, rows):
    """Leave room for the markers and, on the right, for the labels; all panels share the axes."""
    numbers = sorted({row["instances"] for row in rows})
    times = [row["floor_ms"] for row in rows]
    times += [each["ms"] for row in rows for each in row["implementations"].values() if each["ms"] is not None]
    axes.set_xlim(numbers[0] / 1.4, numbers[-1] * (numbers[-1] / numbers[0]) ** 0.14 * 1.4)
    axes.set_ylim(min(times) / 1.7, max(times) * 2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
