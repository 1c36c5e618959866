"""Comparing the people of an exported file with PyTorch's.

Axes: N people of an image, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["TOLERANCES", "Comparison", "Tolerance", "compare", "summary"]


@dataclass(frozen=True)
class Tolerance:
    """The differences that a file of some precision may have.

    Attributes:
        people: fraction of the people that both have, and whose scores stay within ``score``.
        score: difference of a person's scores.
        keypoint: distance that a keypoint may move in an image of up to 512 pixels, pixels; in a larger one, or as far
            outside of the image, proportionally more, since rounding is relative to the coordinates.
        keypoints: fraction of the keypoints that stay within it. In float32, the rest are ties of heatmap peaks.
    """

    people: float
    score: float
    keypoint: float
    keypoints: float


TOLERANCES = {
    "float32": Tolerance(people=1.0, score=1e-4, keypoint=0.01, keypoints=0.95),
    "float16": Tolerance(people=0.95, score=0.02, keypoint=1.0, keypoints=0.9),
    "bfloat16": Tolerance(people=0.9, score=0.1, keypoint=4.0, keypoints=0.8),
    "int8": Tolerance(people=0.8, score=0.2, keypoint=4.0, keypoints=0.7),
}
"""By precision. Reduced precisions move people over thresholds; the limits tell that from a broken file, in which most
people are missing or elsewhere."""
_SIDE = 512
# Pixels: people of the two results that are further apart are different people
_SAME_PERSON = 32.0
# Scores this close to the lowest kept one may be cut off instead of it, up to this fraction of the people
_TIE, _MOST_TIES = 1e-4, 0.1


@dataclass
class Comparison:
    """The differences between two results for the same images.

    Attributes:
        expected, found: number of people in each.
        matched: number of people in both.
        scores: (matched,) differences of their scores.
        distances: distance of each keypoint of the matched people, pixels.
        reach: largest coordinate of each of these keypoints, pixels.
        boxes: largest difference of their box coordinates, pixels.
        faults: numbers that are not finite in one result alone, classes that differ, or rows beyond the count.
    """

    expected: int
    found: int
    matched: int
    scores: np.ndarray
    distances: np.ndarray
    reach: np.ndarray
    boxes: float
    faults: list[str]

    def disagreement(self, tolerance: Tolerance, side: int = 0) -> str | None:
        """Describe what exceeds a tolerance.

        Args:
            tolerance: of the file's precision.
            side: longer side of the image, pixels.

        Returns:
            None if nothing does.
        """
        if self.faults:
            return self.faults[0]
        people = max(self.expected, self.found)
        if self.matched < tolerance.people * people:
            return f"PyTorch has {self.expected} people, the file {self.found}; {self.matched} are the same"
        if self.scores.size and (self.scores <= tolerance.score).mean() < tolerance.people:
            return f"scores differ by up to {self.scores.max():.2g}; {tolerance.score:g} is allowed"
        limits = tolerance.keypoint * np.maximum(max(1.0, side / _SIDE), self.reach / _SIDE)
        within = (self.distances <= limits).mean() if self.distances.size else 1.0
        if within < tolerance.keypoints:
            return (
                f"{1 - within:.0%} of the keypoints differ by more than {limits.min():.2g} pixels, the median "
                f"by {np.median(self.distances):.2g}"
            )
        return None


def compare(expected: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> list[Comparison]:
    """Compare two results of :class:`~dynpose.export.network.ExportNetwork`, image by image.

    People are matched by the distance of their keypoints, so that an exchange of two people with equal scores is no
    difference.

    Args:
        expected: PyTorch's.
        found: the file's.

    Returns:
        One for each image.

    Raises:
        ValueError: the results have other shapes, or PyTorch's scores are not finite.
    """
    ours, theirs = ([each.detach().numpy() for each in result] for result in (expected, found))
    for a, b in zip(ours, theirs):
        if a.shape != b.shape:
            raise ValueError(f"the outputs have the shapes {a.shape} and {b.shape}")
    return [_compare([each[i] for each in ours], [each[i] for each in theirs]) for i in range(len(ours[0]))]


def summary(compared: Sequence[Comparison]) -> str:
    """Summarise comparisons in one line: numbers of people and largest differences."""
    distances = np.concatenate([result.distances for result in compared])
    scores = np.concatenate([result.scores for result in compared])
    people = ", ".join(str(number) for number in sorted({result.expected for result in compared}))
    limit = TOLERANCES["float32"].keypoint
    return (
        f"{len(compared)} images with {people} people; largest differences from PyTorch: scores "
        f"{scores.max(initial=0):.1e}, boxes {max(result.boxes for result in compared):.1e} pixels, keypoints "
        f"{distances.max(initial=0):.1e} pixels ({int((distances > limit).sum())} of {distances.size} above {limit:g}, "
        f"median {np.median(distances) if distances.size else 0:.1e})"
    )


def _compare(ours, theirs):
    numbers = int(ours[4]), int(theirs[4])
    if not np.isfinite(ours[1][: numbers[0]]).all():
        raise ValueError("the model's own scores are not finite in PyTorch: it has diverged")
    faults = [] if all((each[numbers[1] :] == 0).all() for each in theirs[:4]) else ["rows beyond the count are not 0"]
    boxes, scores, classes, keypoints = (
        [result[i][:n] for result, n in zip((ours, theirs), numbers)] for i in range(4)
    )
    if any(np.isfinite(each[0]).all() and not np.isfinite(each[1]).all() for each in (boxes, scores, keypoints)):
        faults.append("the file's people have coordinates or scores that are not finite")
    points = [np.nan_to_num(each[..., :2].astype(np.float64)) for each in keypoints]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    cost = np.median(apart, axis=-1) if apart.size else np.zeros(apart.shape[:2])
    # of people at the same position, the one with the same score
    cost_of_scores = np.nan_to_num(np.abs(scores[0][:, None] - scores[1][None]), nan=1.0, posinf=1.0)
    rows, columns = linear_sum_assignment(cost + cost_of_scores)
    same = cost[rows, columns] <= _SAME_PERSON
    rows, columns = rows[same], columns[same]
    if (classes[0][rows] != classes[1][columns]).any():
        faults.append("classes differ")
    return Comparison(
        *numbers,
        matched=len(rows) + _at_the_limit(scores, len(ours[0]), rows, columns),
        scores=np.abs(scores[0][rows] - scores[1][columns]),
        distances=apart[rows, columns].flatten(),
        reach=np.abs(points[0][rows]).max(axis=-1).flatten(),
        boxes=float(np.abs(boxes[0][rows] - boxes[1][columns]).max(initial=0)),
        faults=faults,
    )


def _at_the_limit(scores, max_people, rows, columns):
    """Number of unmatched people that tie for the last row, where both results have as many people as they can."""
    if not len(scores[0]) == len(scores[1]) == max_people:
        return 0
    lowest = min(each.min() for each in scores)
    ties = [(np.delete(each, matched) <= lowest + _TIE).sum() for each, matched in zip(scores, (rows, columns))]
    return int(min(*ties, _MOST_TIES * max_people))
