"""Matching, precision and AP of groups are pycocotools'."""

import contextlib
import io

import numpy as np
import pytest
from made_predictions import annotation, ground_truth, matcher, prediction
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dynpose.evaluation.analysis.arrays import pose_arrays
from dynpose.evaluation.analysis.groups import (
    ap_by_crowd_index,
    ap_by_overlap,
    ap_by_size,
    ap_by_visible_keypoints,
    crowd_indices,
)
from dynpose.evaluation.analysis.matching import PoseMatcher, mean_of

NUM_KEYPOINTS, NUM_IMAGES = 4, 25
SIGMAS = [0.05, 0.1, 0.05, 0.08]


@pytest.fixture(scope="module")
def scenes():
    """People with crowds, unlabelled ones and two classes; predictions with equal scores, duplicates and others."""
    random = np.random.default_rng(3)
    people, predictions = [], []
    for image_id in range(1, NUM_IMAGES + 1):
        for _ in range(random.poisson(2)):
            size = float(np.exp(random.uniform(np.log(15), np.log(200))))
            points = random.uniform(0, 300, 2) + random.uniform(0, size, (NUM_KEYPOINTS, 2))
            visibility = random.integers(0, 3, NUM_KEYPOINTS) * (random.random() > 0.1)
            options = {"category_id": int(random.integers(1, 3))}
            people.append(
                annotation(
                    image_id,
                    points,
                    area=0.6 * size**2,
                    visibility=visibility,
                    iscrowd=int(random.random() < 0.1),
                    **options,
                )
            )
            for _ in range(random.integers(0, 4)):
                noise = random.choice([0.02, 0.05, 0.2]) * size * random.normal(size=points.shape)
                predictions.append(prediction(image_id, points + noise, random.integers(1, 9) / 10, **options))
        for _ in range(random.poisson(1)):
            points = random.uniform(0, 300, (NUM_KEYPOINTS, 2))
            predictions.append(prediction(image_id, points, random.integers(1, 9) / 10))
    return ground_truth(people, NUM_IMAGES, 2), predictions


def pycocotools_evaluation(annotations, predictions, max_dets=20):
    """precision (T, R, C, A) and recall (T, C, A)."""
    images = [{"id": i} for i in range(1, NUM_IMAGES + 1)]
    categories = [{"id": 1}, {"id": 2}]
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": [dict(each) for each in annotations]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in predictions]), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


@pytest.mark.parametrize("max_dets", [20, 2])
def test_precision_and_recall(scenes, max_dets):
    truth, predictions = scenes
    ours = PoseMatcher(pose_arrays(truth, predictions, SIGMAS, max_dets=max_dets))
    precision, recall = ours.precision(ours.match())
    expected = pycocotools_evaluation(truth.annotations, predictions, max_dets)
    assert 0.05 < precision[precision > -1].mean() < 0.9
    np.testing.assert_allclose(precision, expected[0][..., 0], atol=1e-12)
    np.testing.assert_allclose(recall, expected[1][..., 0], atol=1e-12)


def test_changed_scores_and_kept_predictions(scenes):
    truth, predictions = scenes
    random = np.random.default_rng(0)
    arrays = pose_arrays(truth, predictions, SIGMAS, max_dets=100)
    scores, kept = random.random(len(predictions)), random.random(len(predictions)) < 0.8
    ours = PoseMatcher(arrays.with_predictions(scores=scores[arrays.indices], kept=kept[arrays.indices]))
    chosen = [{**predictions[i], "score": scores[i]} for i in np.flatnonzero(kept)]
    expected, _ = pycocotools_evaluation(truth.annotations, chosen, 100)
    np.testing.assert_allclose(ours.precision(ours.match())[0], expected[..., 0], atol=1e-12)


def test_groups_of_sizes_are_those_of_coco(scenes):
    truth, predictions = scenes
    rows = ap_by_size(PoseMatcher(pose_arrays(truth, predictions, SIGMAS, max_dets=20)))
    precision, recall = pycocotools_evaluation(truth.annotations, predictions)
    for row, area in zip(rows[1:], (1, 2)):
        assert row["people"] > 5
        assert row["ap"] == pytest.approx(mean_of(precision[..., area]), abs=1e-9)
        assert row["ar"] == pytest.approx(mean_of(recall[..., area]), abs=1e-9)


def test_groups_of_people_ignore_the_others(scenes):
    """pycocotools ignores people without labelled keypoints by ``num_keypoints``, and computes OKS by visibility."""
    truth, predictions = scenes
    rows = ap_by_visible_keypoints(PoseMatcher(pose_arrays(truth, predictions, SIGMAS, max_dets=20)))
    assert [row["group"] for row in rows] == ["1", "2", "3 to 4"]
    for row in rows:
        low, _, high = row["group"].partition(" to ")
        inside = range(int(low), int(high or low) + 1)
        annotations = [
            {**each, "num_keypoints": each["num_keypoints"] * (each["num_keypoints"] in inside)}
            for each in truth.annotations
        ]
        precision, recall = pycocotools_evaluation(annotations, predictions)
        assert row["ap"] == pytest.approx(mean_of(precision[..., 0]), abs=1e-9, nan_ok=True)
        assert row["ar"] == pytest.approx(mean_of(recall[..., 0]), abs=1e-9, nan_ok=True)


def test_crowding_by_hand():
    """Two people of 4 keypoints side by side; one keypoint of the second is in the box of the first."""
    first = annotation(1, [(0, 0), (10, 0), (0, 10), (10, 10)], area=100)
    second = annotation(1, [(9, 9), (20, 9), (9, 20), (20, 20)], area=100, bbox=[9.0, 9.0, 12.0, 12.0])
    alone = annotation(2, [(0, 0), (10, 0), (0, 10), (10, 10)], area=100)
    exact = [
        prediction(each["image_id"], np.reshape(each["keypoints"], (-1, 3))[:, :2], 0.9) for each in (first, alone)
    ]
    made = matcher([first, second, alone], exact, SIGMAS, 2)
    # 1 of 4 in the first box; in the second, which is larger, the corner (10, 10) of the first
    assert crowd_indices(made.arrays) == {0: pytest.approx(0.25), 1: 0}
    rows = {row["group"]: row for row in ap_by_crowd_index(made)}
    assert [rows[name]["images"] for name in ("easy", "medium", "hard")] == [1, 1, 0]
    assert rows["easy"]["ap"] == pytest.approx(100)
    # one of two people found, at all thresholds: 51 of 101 recall thresholds
    assert rows["medium"]["ap"] == pytest.approx(100 * 51 / 101)
    # the boxes of 100 and 144 square pixels share 1: an IoU of 0.004 is no overlap
    assert [row["people"] for row in ap_by_overlap(made)] == [3, 0, 0]


def test_nobody_and_nothing():
    person = annotation(1, np.zeros((4, 2)), visibility=0)
    for people, predictions in (([], []), ([person], []), ([person], [prediction(1, np.ones((4, 2)), 0.5)])):
        made = matcher(people, predictions, SIGMAS, 1)
        assert np.isnan(mean_of(made.precision(made.match())[0]))
    labelled = annotation(1, np.ones((4, 2)))
    made = matcher([labelled], [], SIGMAS, 1)
    assert mean_of(made.precision(made.match())[0]) == 0
