"""Helpers for the plots of all reports."""

from typing import Any

from matplotlib.axes import Axes

LINE: dict[str, Any] = {"linewidth": 1.9, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.9}
INK, FAINT, GRID = "#262626", "#7F7F7F", "#E4E4E4"
# Okabe and Ito's colours, which colour-blind readers can tell apart
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"


def set_up(axes: Axes, title: str) -> None:
    """Set a title and faint horizontal grid lines, and remove the frame."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=8.5, length=3, labelbottom=True, labelleft=True)
