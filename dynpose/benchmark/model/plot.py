"""The plot of `dynpose benchmark model`: time over people, as in the FCPose paper's Figure 6 and the CID paper's 5b."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.figure import Figure

from dynpose.benchmark.plot import BLUE, FAINT, GREEN, INK, LINE, ORANGE, PURPLE, SKY, VERMILION, set_up
from dynpose.benchmark.report import subtitle

# The peer is drawn in another style.
_PEER = {"color": FAINT, "marker": "s", "linestyle": (0, (4, 2))}
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = "oD^vP"


def draw(report: dict[str, Any]) -> Figure:
    """Draw the time of one image over the people in it, a line for each model; below it the compared parts, if any.

    Args:
        report: from :func:`~.run.measure`.

    Returns:
        The figure; ``savefig`` writes it.
    """
    parts = report.get("parts", [])
    image = Figure(figsize=(8.0, 4.6 * (1 + len(parts))), dpi=160, layout="constrained")
    above, *below = image.subplots(1 + len(parts), squeeze=False)[:, 0]
    height, width = report["settings"]["image_size"]
    set_up(above, f"One image of {height} x {width} pixels: {subtitle(report)}")
    names = [row["model"] for row in report["models"]]
    _draw_lines(above, report["cases"], "models", names, report["peer"])
    above.set_ylim(bottom=0)
    above.set_ylabel("time of one image, ms", color=INK)
    for axes, row in zip(below, parts):
        set_up(axes, f"{row['part'].capitalize()} of {row['model']}, and alternatives")
        _draw_lines(axes, row["cases"], "alternatives", list(row["cases"][0]["alternatives"]))
        # some take hundreds of times as long as others
        axes.set_yscale("log")
        axes.set_ylabel("time of the part, ms", color=INK)
        # below the panel, where no line is
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return image


def _draw_lines(axes, cases, key, names, peer=None):
    """Draw the times of ``case[key]`` over the people, a line for each name, and the legend."""
    # with more names than colours, the colours repeat with other markers
    styles = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    for name in names:
        color, marker = next(styles) if name != peer else (None, None)
        style: dict[str, Any] = _PEER if color is None else {"color": color, "marker": marker}
        points = [(case["people"], case[key][name]["ms"]) for case in cases]
        measured = [point for point in points if point[1] is not None]
        if measured:
            axes.plot(*zip(*measured), label=name, **style, **LINE)
    axes.set_xlim(0, max(case["people"] for case in cases) * 1.03)
    axes.set_xlabel("people in the image", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=2.8)
