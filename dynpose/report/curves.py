"""The loss and AP curves of a training, and what they mean."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynpose.data import DatasetError

__all__ = ["TrainingCurves", "read_curves"]

_MAX_POINTS = 400
_TOTAL_LOSS, _AP = "total_loss", "AP"
# Relative change of the loss over the last tenth from which it is still falling, and AP points that matter
_FALLING, _AP_CHANGE = 0.02, 0.5


class TrainingCurves(NamedTuple):
    """Curves of a training.

    A curve is a list of (iteration, value); values that are not finite are NaN.
    """

    losses: dict[str, list[tuple[int, float]]]
    """``total_loss`` first, then its parts"""
    ap: dict[str, list[tuple[int, float]]]
    """AP of the evaluations by task, such as "keypoints/AP" """
    meaning: list[str]
    """One sentence for each thing that the curves show"""


def read_curves(path: str | os.PathLike) -> TrainingCurves | None:
    """Read the ``metrics.json`` of a run.

    Args:
        path: JSON lines, as detectron2's JSONWriter writes them. Incomplete lines are skipped; of several lines
            of an iteration, the last counts.

    Returns:
        None if the file is missing, or has no losses and no AP.

    Raises:
        DatasetError: the file cannot be read.
    """
    if not os.path.exists(path):
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DatasetError(f"{path}: the file cannot be read ({error.strerror or error}); check it") from None
    by_iteration: dict[int, dict] = {}
    for line in lines:
        values = _parse(line)
        if values is not None:
            by_iteration.setdefault(values["iteration"], {}).update(values)
    series: dict[str, list[tuple[int, float]]] = {}
    for iteration in sorted(by_iteration):
        for name, value in by_iteration[iteration].items():
            number = _number(value)
            if number is not None:
                series.setdefault(name, []).append((iteration, number))
    losses = {name: series[name] for name in sorted(series, key=lambda name: name != _TOTAL_LOSS) if _is_loss(name)}
    ap = {name: series[name] for name in series if name.rpartition("/")[2] == _AP}
    if not losses and not ap:
        return None
    return TrainingCurves(
        {name: _thinned(curve) for name, curve in losses.items()}, ap, _meaning(losses.get(_TOTAL_LOSS, []), ap)
    )


def _parse(line: str) -> dict | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("iteration"), int):
        return None
    return values


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else math.nan


def _is_loss(name: str) -> bool:
    return name == _TOTAL_LOSS or ("loss" in name and "/" not in name)


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most 400 points, the last among them."""
    places = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _MAX_POINTS)).round().astype(int))
    return [curve[i] for i in places.tolist()]


def _meaning(total_loss: list[tuple[int, float]], ap: dict[str, list[tuple[int, float]]]) -> list[str]:
    return [
        *_meaning_of_loss(total_loss),
        *(text for name, curve in ap.items() for text in _meaning_of_ap(name, curve)),
    ]


def _meaning_of_loss(curve: list[tuple[int, float]]) -> list[str]:
    if not curve:
        return []
    broken = [iteration for iteration, value in curve if math.isnan(value)]
    if broken:
        return [
            f"The loss is not a finite number from iteration {broken[0]} on: the training diverged. Lower the learning "
            f"rate, or warm up longer."
        ]
    values = np.array([value for _, value in curve])
    tenth = max(1, len(values) // 10)
    first, before, last = (float(np.median(part)) for part in _parts(values, tenth))
    text = f"The total loss went from {first:.3g} to {last:.3g}."
    if len(values) < 10:
        return [text]
    if last > first:
        return [f"{text} It rises: the learning rate is too high, or the data and the config do not fit."]
    change = (before - last) / max(abs(before), 1e-12)
    if change > _FALLING:
        return [f"{text} It still falls, by {100 * change:.0f} % in the last tenth: a longer training may help."]
    return [f"{text} It has levelled off: a longer training at this learning rate changes little."]


def _parts(values: np.ndarray, tenth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first, the last but one and the last tenth."""
    before = values[-2 * tenth : -tenth] if len(values) > tenth else values
    return values[:tenth], before, values[-tenth:]


def _meaning_of_ap(name: str, curve: list[tuple[int, float]]) -> list[str]:
    finite = [(iteration, value) for iteration, value in curve if not math.isnan(value)]
    if not finite:
        return [f"{name} is NaN in all evaluations: the evaluated images have nobody to find."]
    best_iteration, best = max(finite, key=lambda point: point[1])
    last = finite[-1][1]
    if len(finite) == 1:
        return [f"{name} is {last:.1f}, of one evaluation at iteration {best_iteration + 1}."]
    if last < best - _AP_CHANGE:
        return [
            f"{name} is {last:.1f}, {best - last:.1f} below its best, {best:.1f} at iteration {best_iteration + 1}: "
            "the model overfits since then, or the learning rate is too high. Use the checkpoint of that iteration."
        ]
    if last > finite[-2][1] + _AP_CHANGE:
        return [f"{name} is {last:.1f} and still rises: a longer training may help."]
    return [f"{name} is {last:.1f} and no longer rises."]
