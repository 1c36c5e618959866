"""Calibration of the score: whether a high score means a good prediction.

Axes: N predictions.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import rankdata, spearmanr

from .matching import PoseMatcher

__all__ = ["calibration"]

_BINS = 10
_CORRECT = 0.5
_LOCALIZED = 0.1


def calibration(matcher: PoseMatcher) -> dict:
    """Compare the scores with the OKS that the predictions reach.

    A prediction is correct if it is matched with a person at OKS 0.5. Its OKS is that of the person matched at 0.1, and
    0 without one. Predictions matched with ignored people do not count.

    Args:
        matcher: people and predictions.

    Returns:
        ``bins`` of equal width over the range of the scores (0 to 1 if they are in it), each with ``low``, ``high``,
        ``predictions`` and the means ``score``, ``correct`` and ``oks`` (NaN without predictions); ``error_correct``
        and ``error_oks``, the mean distance of score and share correct, or OKS, over the bins, weighted by their
        predictions (expected calibration error, Guo et al., ICML 2017); ``auroc``, the probability that a correct
        prediction has a higher score than a wrong one, 0.5 = by chance; ``rank_correlation`` of score and OKS
        (Spearman); ``best_threshold``, the score from which precision and recall at OKS 0.5 have the highest F1
        score, with that ``best_f1``, and its ``precision`` and ``recall``. NaN where it is not defined.
    """
    arrays = matcher.arrays
    correct = matcher.match(np.array([_CORRECT]))
    near = matcher.match(np.array([_LOCALIZED]))
    counted = ~correct.ignored[:, 0] & ~near.ignored[:, 0]
    is_correct = correct.people[counted, 0] >= 0
    oks = _oks_of_matches(matcher, near.people[:, 0])[counted]
    scores = arrays.scores[counted]
    bins = _bins(scores, is_correct, oks)
    return {
        "predictions": int(counted.sum()),
        "bins": bins,
        "error_correct": _calibration_error(bins, "correct"),
        "error_oks": _calibration_error(bins, "oks"),
        "auroc": _auroc(scores, is_correct),
        "rank_correlation": _rank_correlation(scores, oks),
        **_best_threshold(scores, is_correct, int((~arrays.gt_ignored).sum())),
    }


def _oks_of_matches(matcher: PoseMatcher, people: np.ndarray) -> np.ndarray:
    """(N,) OKS with the matched person, 0 without one."""
    return matcher.best_oks(matcher.pair_people == people[matcher.pair_predictions])


def _bins(scores: np.ndarray, correct: np.ndarray, oks: np.ndarray) -> list[dict]:
    low, high = 0.0, 1.0
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high, _BINS + 1)
    places = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, _BINS - 1)
    bins = []
    for i in range(_BINS):
        here = places == i
        means = {
            name: float(values[here].mean()) if here.any() else float("nan")
            for name, values in (("score", scores), ("correct", correct), ("oks", oks))
        }
        bins.append({"low": float(edges[i]), "high": float(edges[i + 1]), "predictions": int(here.sum()), **means})
    return bins


def _calibration_error(bins: list[dict], name: str) -> float:
    filled = [each for each in bins if each["predictions"]]
    total = sum(each["predictions"] for each in filled)
    if not total:
        return float("nan")
    return sum(each["predictions"] * abs(each["score"] - each[name]) for each in filled) / total


def _auroc(scores: np.ndarray, correct: np.ndarray) -> float:
    """The area under the ROC curve: the statistic of Mann and Whitney, ties counted half."""
    positive, negative = int(correct.sum()), int((~correct).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[correct].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _rank_correlation(scores: np.ndarray, oks: np.ndarray) -> float:
    if len(scores) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant scores have none, which NaN says
        return float(spearmanr(scores, oks).statistic)


def _best_threshold(scores: np.ndarray, correct: np.ndarray, num_people: int) -> dict[str, float]:
    names = ("best_threshold", "best_f1", "precision", "recall")
    if not len(scores) or not num_people:
        return dict.fromkeys(names, float("nan"))
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(correct[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + num_people)
    # a threshold keeps all predictions of its score
    last_of_score = np.append(scores[order][1:] != scores[order][:-1], True)
    best = int(np.argmax(np.where(last_of_score, f1, -1)))
    values = (scores[order][best], f1[best], found[best] / (best + 1), found[best] / num_people)
    return dict(zip(names, map(float, values)))
