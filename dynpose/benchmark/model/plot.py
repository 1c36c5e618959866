"""The plot of `dynpose benchmark model`: time over the number of people, as in Figure 6 of the FCPose paper."""

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
    """Draw the time of one image over the people in it, a line for each model.

    Args:
        report: from :func:`~.run.measure`.

    Returns:
        The figure; ``savefig`` writes it.
    """
    image = Figure(figsize=(8.0, 4.6), dpi=160, layout="constrained")
    axes = image.subplots()
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
    numbers = [case["people"] for case in report["cases"]]
    axes.set_xlim(0, max(numbers) * 1.03)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("people in the image", color=INK)
    axes.set_ylabel("time of one image, ms", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=2.8)
    return image
