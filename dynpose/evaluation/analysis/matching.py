"""COCO's matching and precision, for changes of people and predictions that COCO's tools cannot evaluate.

:func:`~dynpose.evaluation.coco_metrics.evaluate_detections` gives the metrics themselves. The analysis of errors also
needs the matches, AP with predictions or people ignored after matching, and AP of many changed copies of the
predictions in seconds. The rules are those of pycocotools' ``COCOeval``; without a change, the results are equal.

Axes: P people, N predictions, K keypoints, M pairs of a prediction and a person of its group, T OKS thresholds, R
recall thresholds, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .arrays import PoseArrays

__all__ = ["OKS_THRESHOLDS", "RECALLS", "Matches", "PoseMatcher", "keypoint_similarity", "mean_of"]

OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Elements of the padded arrays in matching, and of the keypoint similarities computed at once
_CHUNK = 2_000_000


class Matches(NamedTuple):
    """Matches at T OKS thresholds."""

    thresholds: np.ndarray
    """(T,)"""
    people: np.ndarray
    """(N, T) person that a prediction is matched with, -1 = none"""
    ignored: np.ndarray
    """(N, T) bool: the person is ignored, and so is the prediction"""
    found: np.ndarray
    """(P, T) bool: the person is matched"""


class _Chunk(NamedTuple):
    """Some groups, by their first prediction, and their numbers of predictions and of people."""

    first: np.ndarray
    sizes: np.ndarray
    num_people: np.ndarray


def keypoint_similarity(distances: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Similarity of single keypoints, ``exp(-d^2 / (2 area (2 sigma)^2))``, of which OKS is the mean.

    Args:
        distances: (..., K) pixels.
        areas: (...) square pixels, of the annotated people.
        sigmas: (K,).

    Returns:
        (..., K) in [0, 1].
    """
    variances = (2 * sigmas) ** 2
    return np.exp(-(distances**2) / variances / (areas[..., None] + np.spacing(1)) / 2)


class PoseMatcher:
    """Matches the predictions of :class:`PoseArrays` with the people of their groups.

    Args:
        arrays: people and predictions.

    Attributes:
        pair_predictions, pair_people: (M,) indices of all pairs of a prediction and a person of its group, sorted by
            the prediction.
        oks: (M,) OKS of each pair.
    """

    def __init__(self, arrays: PoseArrays):
        self.arrays = arrays
        first = np.searchsorted(arrays.gt_groups, arrays.groups)
        self._counts = np.searchsorted(arrays.gt_groups, arrays.groups, side="right") - first
        self._starts = np.cumsum(self._counts) - self._counts
        self.pair_predictions = np.repeat(np.arange(len(arrays.groups)), self._counts)
        within = np.arange(len(self.pair_predictions)) - np.repeat(self._starts, self._counts)
        self.pair_people = np.repeat(first, self._counts) + within
        self.oks = self._pairwise_oks()

    def best_oks(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """(N,) the highest OKS of each prediction with a person of its group; 0 in groups without people.

        Args:
            chosen: (M,) bool, pairs that count; None = all.
        """
        best = np.zeros(len(self.arrays.groups))
        oks = self.oks if chosen is None else np.where(chosen, self.oks, 0)
        has_people = self._counts > 0
        if has_people.any():
            best[has_people] = np.maximum.reduceat(oks, self._starts[has_people])
        return best

    def oks_of_group(self, predictions: np.ndarray) -> np.ndarray:
        """(D, P') OKS of the D predictions of a group (their consecutive indices) with its people."""
        start, count = self._starts[predictions[0]], self._counts[predictions[0]]
        return self.oks[start : start + len(predictions) * count].reshape(len(predictions), count)

    def of_pairs(self, predictions: np.ndarray, people: np.ndarray) -> np.ndarray:
        """Similarities of the keypoints: pairs (M',) of predictions and people -> (M', K)."""
        arrays = self.arrays
        distances = np.linalg.norm(arrays.keypoints[predictions, :, :2] - arrays.gt_keypoints[people, :, :2], axis=2)
        return keypoint_similarity(distances, arrays.gt_areas[people], arrays.sigmas)

    def match(self, thresholds: np.ndarray = OKS_THRESHOLDS, gt_ignored: np.ndarray | None = None) -> Matches:
        """Match greedily by descending score, each person at most once except crowds.

        Args:
            thresholds: (T,) OKS.
            gt_ignored: (P,) bool, people to ignore; None = those of the arrays.
        """
        arrays = self.arrays
        gt_ignored = arrays.gt_ignored if gt_ignored is None else gt_ignored
        matched = np.full((len(arrays.groups), len(thresholds)), -1, dtype=np.int64)
        for chunk in self._chunks(len(thresholds)):
            self._match_groups(chunk, np.minimum(thresholds, 1 - 1e-10), gt_ignored, matched)
        found = np.zeros((len(arrays.gt_groups), len(thresholds)), dtype=bool)
        rows, columns = np.nonzero(matched >= 0)
        found[matched[rows, columns], columns] = True
        ignored = np.zeros(matched.shape, dtype=bool)
        ignored[rows, columns] = gt_ignored[matched[rows, columns]]
        return Matches(thresholds, matched, ignored, found)

    def precision(
        self,
        matches: Matches,
        *,
        gt_ignored: np.ndarray | None = None,
        ignored: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Precision at each recall, interpolated as in COCO.

        Args:
            matches: of :meth:`match`.
            gt_ignored: (P,) or (P, T) bool, people who do not count; None = those of the arrays.
            ignored: (N, T) bool, predictions that do not count; None = those of the matches.

        Returns:
            precision (T, R, C) and the highest recall (T, C); -1 for classes without people who count.
        """
        arrays = self.arrays
        gt_ignored = arrays.gt_ignored if gt_ignored is None else gt_ignored
        gt_ignored = gt_ignored if gt_ignored.ndim == 2 else gt_ignored[:, None]
        ignored = matches.ignored if ignored is None else ignored
        shape = (len(matches.thresholds), len(RECALLS), arrays.num_classes)
        precision, recall = np.full(shape, -1.0), np.full((shape[0], shape[2]), -1.0)
        gt_classes, classes = arrays.gt_groups // arrays.num_images, arrays.groups // arrays.num_images
        for c in range(arrays.num_classes):
            numbers = np.broadcast_to((~gt_ignored[gt_classes == c]).sum(axis=0), shape[:1])
            rows = np.flatnonzero(classes == c)
            rows = rows[np.argsort(-arrays.scores[rows], kind="stable")]
            counted, true = ~ignored[rows], matches.people[rows] >= 0
            tp, fp = np.cumsum(counted & true, axis=0), np.cumsum(counted & ~true, axis=0)
            for t in np.flatnonzero(numbers):
                precision[t, :, c], recall[t, c] = _curve(tp[:, t], fp[:, t], numbers[t])
        return precision, recall

    def _pairwise_oks(self) -> np.ndarray:
        arrays = self.arrays
        labelled = arrays.gt_labelled
        oks = np.empty(len(self.pair_people))
        step = max(1, _CHUNK // max(1, len(arrays.sigmas)))
        for start in range(0, len(oks), step):
            here = slice(start, start + step)
            predictions, people = self.pair_predictions[here], self.pair_people[here]
            counted = labelled[people]
            number = counted.sum(axis=1)
            oks[here] = (self.of_pairs(predictions, people) * counted).sum(axis=1) / np.maximum(number, 1)
            without = number == 0
            if without.any():
                oks[here][without] = self._oks_with_boxes(predictions[without], people[without])
        return oks

    def _oks_with_boxes(self, predictions: np.ndarray, people: np.ndarray) -> np.ndarray:
        """OKS with people without labelled keypoints: by the distance to their box, doubled in size, as in COCO."""
        arrays = self.arrays
        x, y, w, h = arrays.gt_boxes[people].T
        low = np.stack([x - w, y - h], axis=1)[:, None]
        high = np.stack([x + 2 * w, y + 2 * h], axis=1)[:, None]
        points = arrays.keypoints[predictions, :, :2]
        distances = np.linalg.norm(np.maximum(0, low - points) + np.maximum(0, points - high), axis=2)
        return keypoint_similarity(distances, arrays.gt_areas[people], arrays.sigmas).mean(axis=1)

    def _chunks(self, num_thresholds: int) -> Iterator[_Chunk]:
        """Predictions that have people in their group, in chunks of whole groups with similar numbers of people."""
        _, first, sizes = np.unique(self.arrays.groups, return_index=True, return_counts=True)
        people = self._counts[first]
        order = np.argsort(people, kind="stable")
        order = order[people[order] > 0]
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * people[order[stop]] * num_thresholds <= _CHUNK:
                stop += 1
            chosen = order[start:stop]
            yield _Chunk(first[chosen], sizes[chosen], people[chosen])
            start = stop

    def _match_groups(self, chunk: _Chunk, thresholds: np.ndarray, gt_ignored: np.ndarray, matched: np.ndarray) -> None:
        """Match all groups of a chunk at once, rank by rank."""
        first, sizes, num_people = chunk
        width = int(num_people.max())
        columns = np.arange(width)
        real = columns < num_people[:, None]
        first_people = self.pair_people[self._starts[first]]
        people = np.where(real, first_people[:, None] + columns, 0)
        ignored = real & gt_ignored[people]
        reusable = ignored & self.arrays.gt_iscrowd[people]
        free = np.repeat(real[:, None], len(thresholds), axis=1)
        for rank in range(int(sizes.max())):
            here = np.flatnonzero(sizes > rank)
            rows = first[here] + rank
            places = np.where(real[here], self._starts[rows][:, None] + columns, 0)
            oks = np.where(real[here], self.oks[places], -1)[:, None]
            possible = free[here] & (oks >= thresholds[:, None])
            counted = possible & ~ignored[here][:, None]
            # an ignored person is taken only where no other is possible
            possible = np.where(counted.any(axis=2, keepdims=True), counted, possible)
            similarity = np.where(possible, oks, -1)
            # of equal similarities, the last, as in COCO
            best = width - 1 - np.argmax(similarity[..., ::-1], axis=2)
            groups, places_t = np.nonzero(possible.any(axis=2))
            taken = best[groups, places_t]
            matched[rows[groups], places_t] = people[here[groups], taken]
            free[here[groups], places_t, taken] = reusable[here[groups], taken]


def mean_of(values: np.ndarray) -> float:
    """The mean of all values of classes with people, in percent; NaN if there are none.

    Args:
        values: precision or recall of :meth:`PoseMatcher.precision`.
    """
    values = values[values > -1]
    return float(values.mean()) * 100 if values.size else float("nan")


def _curve(tp: np.ndarray, fp: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Interpolated precision (R,) and the highest recall, from cumulative counts (N,)."""
    if not len(tp):
        return np.zeros(len(RECALLS)), 0.0
    recall, precision = tp / number, tp / (fp + tp + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return np.where(places < len(tp), precision[np.minimum(places, len(tp) - 1)], 0), float(recall[-1])
