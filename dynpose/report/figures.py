"""Charts as inline SVG, in the colours of the page and its dark mode.

matplotlib draws them in placeholder colours, which become variables of the page's style sheet.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["bars", "calibration_chart", "lines", "waterfall"]

# Placeholder -> variable of the style sheet
_TEXT, _GRID, _BACKGROUND = "#010101", "#020202", "#030303"
_SERIES = ("#010102", "#010103", "#010104", "#010105", "#010106", "#010107")
_VARIABLES = {_TEXT: "--text", _GRID: "--grid", _BACKGROUND: "--card"}
_VARIABLES |= {color: f"--series-{i}" for i, color in enumerate(_SERIES, start=1)}
# Labels stay legible on a phone at this width, in inches
_WIDTH, _HEIGHT = 4.8, 3.0
_STYLES = ("-", "--", "-.", ":")
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dynpose",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,
}


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    name: str,
    *,
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    marked: bool = False,
    log: bool = False,
) -> str:
    """A line for each series.

    Args:
        series: label -> (x, y) of equal length.
        name: of the chart, unique on the page.
        x_label, y_label: of the axes.
        x_limits, y_limits: of the axes; None = those of the values.
        marked: whether points are marked.
        log: whether y is logarithmic, if all values are above 0.

    Returns:
        An ``<svg>`` element.
    """
    columns = 3 if max(map(len, series)) < 16 else 2
    with _style():
        figure, axes = _figure(len(series) // columns)
        for i, (label, (x, y)) in enumerate(series.items()):
            style = _STYLES[i // len(_SERIES) % len(_STYLES)]
            marker = "o" if marked or len(x) == 1 else None
            axes.plot(x, y, style, color=_SERIES[i % len(_SERIES)], label=label, marker=marker, markersize=4)
        if log and all(value > 0 for _, y in series.values() for value in y if not math.isnan(value)):
            axes.set_yscale("log")
        axes.set(xlabel=x_label, ylabel=y_label, xlim=x_limits, ylim=y_limits)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=columns)
        return _svg(figure, name)


def bars(values: dict[str, float], name: str, *, x_label: str, y_label: str) -> str:
    """A bar for each value, with the value above it; NaN has none.

    Args:
        values: label -> height.
        name: of the chart, unique on the page.
        x_label, y_label: of the axes.

    Returns:
        An ``<svg>`` element.
    """
    with _style():
        figure, axes = _figure()
        heights = [0 if math.isnan(value) else value for value in values.values()]
        drawn = axes.bar(range(len(values)), heights, color=_SERIES[0], width=0.7)
        texts = ["" if math.isnan(value) else f"{value:.4g}" for value in values.values()]
        axes.bar_label(drawn, texts, fontsize=8, padding=2)
        axes.set_xticks(range(len(values)), list(values))
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
        axes.set(xlabel=x_label, ylabel=y_label)
        return _svg(figure, name)


def waterfall(start: float, steps: dict[str, float], name: str, *, x_label: str) -> str:
    """Horizontal bars from each value to the next: what each step adds.

    Args:
        start: the value before the first step.
        steps: label -> the value after the step.
        name: of the chart, unique on the page.
        x_label: of the values.

    Returns:
        An ``<svg>`` element.
    """
    with _style():
        figure, axes = _figure()
        before, labels = start, ["as predicted"]
        axes.barh(0, start, color=_SERIES[0], height=0.7)
        axes.text(start + 1, 0, f"{start:.1f}", va="center", fontsize=8)
        for i, (label, value) in enumerate(steps.items(), start=1):
            axes.barh(i, value - before, left=before, color=_SERIES[1], height=0.7)
            right = max(before, value)
            axes.text(right + 1, i, f"{value - before:+.1f}", va="center", fontsize=8)
            labels.append(label)
            before = value
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=x_label, xlim=(min(0, start), 112))
        return _svg(figure, name)


def calibration_chart(bins: Sequence[dict], name: str) -> str:
    """The share of correct predictions and the mean OKS over the score, with the diagonal of a calibrated score.

    Args:
        bins: of :func:`~dynpose.evaluation.analysis.calibration.calibration`.
        name: of the chart, unique on the page.

    Returns:
        An ``<svg>`` element.
    """
    filled = [each for each in bins if each["predictions"]]
    with _style():
        figure, axes = _figure()
        limits = bins[0]["low"], bins[-1]["high"]
        if limits == (0, 1):
            axes.plot(limits, limits, color=_GRID, linestyle="--", label="calibrated")
        scores = [each["score"] for each in filled]
        for i, (key, label) in enumerate((("correct", "share with OKS of at least 0.5"), ("oks", "mean OKS"))):
            axes.plot(
                scores, [each[key] for each in filled], "os"[i] + "-", color=_SERIES[i], label=label, markersize=4
            )
        axes.set(xlabel="score", ylabel="quality", xlim=limits, ylim=(0, 1.02))
        figure.legend(loc="outside lower center", ncols=2)
        return _svg(figure, name)


def _style() -> AbstractContextManager:
    return matplotlib.rc_context(_RC)


def _figure(legend_rows: int = 0) -> tuple[Figure, Axes]:
    """A figure with room for a legend below it."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT + 0.18 * legend_rows), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The ``<svg>`` element, with the ids of this chart alone and the colours of the page."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        # the browser has other fonts than matplotlib, which misses the glyphs of some scripts
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid=")', rf"\g<1>{name}-", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    # the font of the page, in the sizes of the chart
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text.strip()
