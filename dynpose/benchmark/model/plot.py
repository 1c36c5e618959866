"""The plot of `dynpose benchmark model`: times over the number of people.

The first panel compares models, as in Figure 6 of the FCPose paper. Those of the parts of each model, if they were
measured, are as in Figure 5a of the CID paper, and those of a part beside its alternatives as in its Figure 5b.
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
# Heights of the panels of models, of parts and of alternatives, inches
_MODELS, _PARTS, _ALTERNATIVES = 4.6, 3.4, 4.6


def draw(report: dict[str, Any]) -> Figure:
    """Draw the time of one image over the people in it, a line for each model.

    Further panels have a line for each part of a model, and for each alternative to a part, where they were measured.

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
    compared = report.get("parts", [])
    rows_of_parts = math.ceil(len(with_parts) / _COLUMNS)
    heights = [_MODELS, *[_PARTS] * rows_of_parts, *[_ALTERNATIVES] * len(compared)]
    image = Figure(figsize=(8.0, sum(heights)), dpi=160, layout="constrained")
    grid = image.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
    _draw_models(image.add_subplot(grid[0, :]), report)
    for index, name in enumerate(with_parts):
        # a single model's panel has the whole width
        columns = index % _COLUMNS if len(with_parts) > 1 else slice(None)
        _draw_parts(image.add_subplot(grid[1 + index // _COLUMNS, columns]), report["cases"], name)
    for index, row in enumerate(compared):
        _draw_alternatives(image.add_subplot(grid[1 + rows_of_parts + index, :]), row)
    return image


def _draw_models(axes, report):
    height, width = report["settings"]["image_size"]
    set_up(axes, f"One image of {height} x {width} pixels: {subtitle(report)}")
    lines = {
        row["model"]: [(case["people"], case["models"][row["model"]]["ms"]) for case in report["cases"]]
        for row in report["models"]
    }
    _draw_lines(axes, lines, report["peer"])


def _draw_parts(axes, cases, name):
    set_up(axes, f"Parts of {name}")
    measured = {case["people"]: case["models"][name]["parts_ms"] for case in cases if case["models"][name]["parts_ms"]}
    names = next(iter(measured.values()))
    _draw_lines(axes, {part: [(people, parts[part]) for people, parts in measured.items()] for part in names})


def _draw_alternatives(axes, row):
    set_up(axes, f"{row['part'].capitalize()} of {row['model']}, and alternatives")
    names = row["cases"][0]["alternatives"]
    lines = {name: [(case["people"], case["alternatives"][name]["ms"]) for case in row["cases"]] for name in names}
    _draw_lines(axes, lines)
    # some take many times as long as others
    axes.set_yscale("log")
    axes.autoscale(axis="y")
    axes.set_ylabel("time of the part, ms", color=INK)
    # below the panel, where no line is
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _draw_lines(axes, lines, peer=None):
    """Draw times over people, and the legend: a list of (people, ms or None) by name."""
    # With more names than colours, the colours repeat with other markers.
    styles = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    for name, points in lines.items():
        color, marker = next(styles) if name != peer else (None, None)
        style: dict[str, Any] = _PEER if color is None else {"color": color, "marker": marker}
        measured = [point for point in points if point[1] is not None]
        if measured:
            axes.plot(*zip(*measured), label=name, **style, **LINE)
    axes.set_xlim(0, max(people for points in lines.values() for people, _ in points) * 1.03)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("people in the image", color=INK)
    axes.set_ylabel("time of one image, ms", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=2.8)
