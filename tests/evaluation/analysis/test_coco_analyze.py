"""Error types and AP after corrections equal those that the authors' tool, coco-analyze, gives for the same data.

The numbers below were recorded from its code (github.com/matteorr/coco-analyze, with the few changes that current numpy
needs). It moves corrected keypoints half as far from the annotation as their similarity says, and so does the test.
"""

import dataclasses

import numpy as np
import pytest
from made_predictions import annotation, matcher, prediction

from dynpose.data import COCO_PERSON
from dynpose.evaluation.analysis.error_types import ap_after_corrections, find_localization_errors
from dynpose.evaluation.analysis.systematic import ap_of

NUM_IMAGES = 40
COUNTS = {"good": 345, "miss": 285, "swap": 51, "inversion": 51, "jitter": 241}
BASELINE = 15.561
TOGETHER = {
    **{"miss": 50.649, "swap": 58.742, "inversion": 70.943, "jitter": 85.712},
    **{"score": 87.325, "false_positives": 87.426, "missed_people": 100.0},
}


def people_with_errors():
    """Up to three people in an image, whose keypoints are displaced, or at their counterparts, or on another person."""
    random = np.random.default_rng(0)
    sigmas, num_keypoints = np.array(COCO_PERSON.sigmas), COCO_PERSON.num_keypoints
    people, predictions = [], []
    for image_id in range(1, NUM_IMAGES + 1):
        here = []
        for _ in range(random.integers(1, 4)):
            size = random.uniform(80, 250)
            points = random.uniform(0, 200, 2) + random.uniform(0, size, (num_keypoints, 2))
            visibility = random.integers(0, 3, num_keypoints)
            visibility[0] = 2
            people.append(annotation(image_id, points, area=size * size * 0.5, visibility=visibility))
            here.append((points, size))
        for points, size in here:
            noise = random.normal(size=points.shape)
            predicted = points + noise * (sigmas * random.choice([0.5, 1, 2]))[:, None] * size
            for k in range(num_keypoints):
                kind = random.random()
                if kind < 0.1:
                    predicted[k] = points[COCO_PERSON.flip_indices[k]]
                elif kind < 0.2:
                    predicted[k] = here[random.integers(len(here))][0][k]
                elif kind < 0.25:
                    predicted[k] += random.uniform(-100, 100, 2)
            predictions.append(prediction(image_id, predicted, random.random()))
    return people, predictions


def test_recorded_numbers():
    made = matcher(*people_with_errors(), COCO_PERSON.sigmas, NUM_IMAGES)
    found = find_localization_errors(made, COCO_PERSON.flip_indices)
    counts = {"good": found.good.sum(), **{error: flags.sum() for error, flags in found.errors.items()}}
    assert counts == COUNTS
    truth = made.arrays.gt_keypoints[found.people, :, :2]
    wrong = np.any(list(found.errors.values()), axis=0)[..., None]
    halved = dataclasses.replace(found, corrected=np.where(wrong, (truth + found.corrected) / 2, found.corrected))
    assert ap_of(made.arrays) == pytest.approx(BASELINE, abs=5e-4)
    assert ap_after_corrections(made, halved)[1] == pytest.approx(TOGETHER, abs=5e-4)
