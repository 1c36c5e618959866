"""The plot of `dynpose benchmark model`: times over the number of people.

The first panel compares models, as in Figure 6 of the FCPose paper; those of the parts of each model, if they were
measured, are as in Figure 5a of the CID paper.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from matplotlib.figure import Figure

from dynpose.benchmark.plot import BLUE, FAINT, GREEN, INK, LINE, ORANGE, PURPLE, SKY, VERMILION, set_up
from dynpose.benchmark.report import subtitle

# The peer is drawn in another style.
_PEER = {"color": FAINT, "marker": "s", "linestyle": (0, (4, 2))}
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = "oD^vP"
# Panels of parts in a row
_COLUMNS = 2


def draw(report: dict[str, Any]) -> Figure:
    """Draw the time of one image over the people in it, a line for each model, then one for each part of each model.

    Args:
        report: from :func:`~.run.measure`.

    Returns:
        The figure; ``savefig`` writes it.
    """
    with_parts = [
        row["model"]
        for row in report["models"]
        if any(case["models"][row["model"]]["parts_ms"] for case in report["cases"])
    ]
    rows = 1 + math.ceil(len(with_parts) / _COLUMNS)
    image = Figure(figsize=(8.0, 4.6 + 3.4 * (rows - 1)), dpi=160, layout="constrained")
    grid = image.add_gridspec(rows, _COLUMNS, height_ratios=[4.6, *[3.4] * (rows - 1)])
    _draw_models(image.add_subplot(grid[0, :]), report)
    for index, name in enumerate(with_parts):
        # a single model's panel has the whole width
        columns = index % _COLUMNS if len(with_parts) > 1 else slice(None)
        _draw_parts(image.add_subplot(grid[1 + index // _COLUMNS, columns]), report["cases"], name)
    return image


def _draw_models(axes, report):
    height, width = report["settings"]["image_size"]
    set_up(axes, f"One image of {height} x {width} pixels: {subtitle(report)}")
    # With more models than colours, the colours repeat with other markers.
    styles = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    for row in report["models"]:
        name = row["model"]
        color, marker = next(styles) if name != report["peer"] else (None, None)
        style: dict[str, Any] = _PEER if color is None else {"color": color, "marker": marker}
        points = [(case["people"], case["models"][name]["ms"]) for case in report["cases"]]
        measured = [point for point in points if point[1] is not None]
        if measured:
            axes.plot(*zip(*measured), label=name, **style, **LINE)
    _set_up_axes(axes, report["cases"])


def _draw_parts(axes, cases, name):
    set_up(axes, f"Parts of {name}")
    styles = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    measured = [case for case in cases if case["models"][name]["parts_ms"]]
    for part in measured[0]["models"][name]["parts_ms"]:
        color, marker = next(styles)
        points = [(case["people"], case["models"][name]["parts_ms"][part]) for case in measured]
        axes.plot(*zip(*points), label=part, color=color, marker=marker, **LINE)
    _set_up_axes(axes, cases)


def _set_up_axes(axes, cases):
    numbers = [case["people"] for case in cases]
    axes.set_xlim(0, max(numbers) * 1.03)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("people in the image", color=INK)
    axes.set_ylabel("time of one image, ms", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=2.8)
