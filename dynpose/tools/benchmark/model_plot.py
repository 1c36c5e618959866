"""The plot of a report of models: time over the number of people, as in Figure 6 of the FCPose paper."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure

from .plot import INK, LINE, set_up
from .report import subtitle

# The peer has a style of its own; Okabe and Ito's colours, which colour-blind readers tell apart, with markers.
_PEER = {"color": "#7F7F7F", "marker": "s", "linestyle": (0, (4, 2))}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "oD^vP"


def draw_models(report: dict) -> Figure:
    """Draw the time of one image over the people in it, a line for each model.

    Args:
        report: of :func:`~.model_running.measure_models`.

    Returns:
        The figure; ``savefig`` writes it.
    """
    image = Figure(figsize=(8.0, 4.6), dpi=160, layout="constrained")
    axes = image.subplots()
    height, width = report["settings"]["image_size"]
    set_up(axes, f"One image of {height} x {width} pixels: {subtitle(report)}")
    # More models than colours begin again with other markers.
    styles = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    for row in report["models"]:
        name = row["model"]
        color, marker = next(styles) if name != report["peer"] else (None, None)
        style = _PEER if color is None else {"color": color, "marker": marker}
        points = [(case["people"], case["contestants"][name]["ms"]) for case in report["cases"]]
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
