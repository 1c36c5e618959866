"""Types of errors and the AP that correcting them gives, by hand on five people."""

import math

import numpy as np
import pytest
from made_predictions import annotation, matcher, prediction

from dynpose.evaluation.analysis.error_types import (
    KEYPOINT_ERRORS,
    ap_after_corrections,
    find_localization_errors,
)
from dynpose.evaluation.analysis.keypoint_errors import errors_of_keypoints
from dynpose.evaluation.analysis.systematic import ap_of
from dynpose.evaluation.analysis.worst_images import worst_images

NAMES = ("nose", "left", "right", "tail")
FLIP = np.array([0, 2, 1, 3])
# The similarity at a distance of d pixels is exp(-d² / 200): 0.726 at 8, 0.0003 at 40; 0.85 at 5.7, 0.5 at 11.8
SIGMAS, AREA = (0.05,) * 4, 10000.0
PLACES = {"A": (1, (0, 0)), "B": (1, (200, 0)), "C": (2, (0, 0)), "D": (3, (0, 0)), "E": (3, (40, 0))}
POINTS = np.array([(50, 0), (30, 50), (70, 50), (50, 100)], dtype=float)


@pytest.fixture(scope="module")
def five_people():
    """A is exact; B has jitter; C a miss and left/right inverted; D a keypoint on E, who is missed. One is nobody."""
    at = {name: POINTS + place for name, (_, place) in PLACES.items()}
    people = [annotation(image, at[name], area=AREA) for name, (image, _) in PLACES.items()]
    at["B"][3] += (0, 8)
    at["C"] = at["C"][FLIP] + [(0, -50), (0, 0), (0, 0), (0, 0)]
    at["D"][0] = at["E"][0]
    predictions = [
        prediction(1, at["A"], 0.9),
        prediction(2, POINTS + np.array((400, 300)), 0.8),
        prediction(1, at["B"], 0.7),
        prediction(3, at["D"], 0.6),
        prediction(2, at["C"], 0.5),
    ]
    return matcher(people, predictions, SIGMAS, 3)


def test_similarities(five_people):
    # of A, B, C and D; in the order of the groups C comes before D
    found = find_localization_errors(five_people, FLIP)
    oks = found.similarities.mean(axis=1)
    small = math.exp(-8)
    expected = [1, (3 + math.exp(-64 / 200)) / 4, (1 + 2 * small + math.exp(-2500 / 200)) / 4, (3 + small) / 4]
    np.testing.assert_allclose(oks, expected, rtol=1e-12)


def test_types(five_people):
    found = find_localization_errors(five_people, FLIP)
    people = {error: np.argwhere(found.errors[error]).tolist() for error in KEYPOINT_ERRORS}
    assert people == {"miss": [[2, 0]], "swap": [[3, 0]], "inversion": [[2, 1], [2, 2]], "jitter": [[1, 3]]}
    assert found.good.sum() == 16 - 5


def ap(*sums):
    """AP of (number of thresholds, sum of the precision over the 101 recalls)."""
    assert sum(number for number, _ in sums) == 10
    return 100 * sum(number * total for number, total in sums) / 1010


# Five people. By score: A, nobody, B, D, C. Found up to OKS 0.75: A, B, D; up to 0.9: A, B; at 0.95: A.
# Precision 1 up to recall 0.2 (21 recalls), then 3/4 up to 0.6 (40), or 2/3 up to 0.4 (20).
BASE = ap((6, 21 + 30), (3, 21 + 40 / 3), (1, 21))
ALONE = {
    # C becomes 0.38
    "miss": BASE,
    # D becomes exact
    "swap": ap((9, 21 + 30), (1, 21 + 10)),
    # C becomes 0.75: precision 4/5 up to recall 0.8
    "inversion": ap((6, 21 + 48), (3, 21 + 40 / 3), (1, 21)),
    # B becomes (3 + 0.85) / 4 = 0.96
    "jitter": ap((6, 21 + 30), (4, 21 + 40 / 3)),
    # the order A, B, D, C, nobody
    "score": ap((6, 61), (3, 41), (1, 21)),
    "false_positives": ap((6, 61), (3, 41), (1, 21)),
    # four people without E
    "missed_people": ap((6, 26 + 37.5), (3, 26 + 50 / 3), (1, 26)),
}
TOGETHER = {
    "miss": BASE,
    "swap": ALONE["swap"],
    # C becomes (0.5 + 3) / 4 = 0.875
    "inversion": ap((8, 21 + 48), (1, 21 + 30), (1, 21 + 10)),
    "jitter": ap((8, 21 + 48), (2, 21 + 30)),
    "score": ap((8, 81), (2, 61)),
    "false_positives": ap((8, 81), (2, 61)),
    "missed_people": 100,
}


def test_ap_after_corrections(five_people):
    assert ap_of(five_people.arrays) == pytest.approx(BASE)
    alone, together = ap_after_corrections(five_people, find_localization_errors(five_people, FLIP))
    assert alone == pytest.approx(ALONE)
    assert together == pytest.approx(TOGETHER)


def test_each_keypoint(five_people):
    rows = errors_of_keypoints(five_people.arrays, find_localization_errors(five_people, FLIP), NAMES)
    nose, left, _, tail = rows
    # 0, 0, 50 and 40 pixels; the tolerance is 10 pixels
    assert (nose["labelled"], nose["median_px"], nose["mean_px"], nose["median_oks_units"]) == (4, 20, 22.5, 2)
    assert [nose[name] for name in ("good", "jitter", "inversion", "swap", "miss")] == [50, 0, 0, 25, 25]
    assert (left["inversion"], left["median_px"], left["dx_px"]) == (25, 0, 0)
    assert (tail["jitter"], tail["mean_px"], tail["similarity"]) == (25, 2, pytest.approx((3 + math.exp(-0.32)) / 4))


def test_worst_images(five_people):
    worst = worst_images(five_people, 2)
    assert worst["score_threshold"] == 0.5
    c, d = 1 - (1 + 2 * math.exp(-8) + math.exp(-12.5)) / 4, 1 - (3 + math.exp(-8)) / 4
    assert [(row["image"], row["missed"], row["false_positives"]) for row in worst["images"]] == [(1, 0, 1), (2, 1, 0)]
    assert [row["error"] for row in worst["images"]] == pytest.approx([c + 1, d + 1])
