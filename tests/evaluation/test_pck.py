"""PCK, AUC and NME, with values worked out by hand from their definitions."""

import logging
import math

import numpy as np
import pytest
from small_evaluations import coco, evaluate, person, predict

from dynpose.data.known_schemas import known_schema
from dynpose.evaluation import PoseEvaluator
from dynpose.evaluation.pck import match_people, pck_metric_names

NAN = math.nan
MEANS = ["PCK@0.05", "PCK@0.1", "PCK@0.2", "AUC", "NME"]


def pck(name, predictions, **kwargs):
    return evaluate(name, predictions, tasks=("pck",), **kwargs)["pck"]


def means(metrics):
    return [metrics[name] for name in MEANS]


# The longer side of the box is 200 pixels, the square root of its area 160: distances of 10, 20 and 40 pixels are PCK's
# limits, 100 that of AUC
BOX = [0, 0, 128, 200]
PEOPLE = [
    # exact; 8 pixels; 19.5 pixels; 50 pixels off
    pytest.param([(30, 40), (60, 70)], [100, 100, 100, 100, 0], id="exact"),
    pytest.param([(30, 40), (60, 78)], [100, 100, 100, 96, 100 * 4 / 160], id="0 and 8 pixels"),
    pytest.param([(30, 40), (60, 90)], [50, 100, 100, 90, 100 * 10 / 160], id="0 and 20 pixels, a limit itself"),
    pytest.param([(60, 80), (60, 109)], [0, 0, 50, 55.5, 100 * 44.5 / 160], id="50 and 39 pixels"),
    pytest.param([(30, 40), (60, 370)], [50, 50, 50, 50, 100 * 150 / 160], id="0 and 300 pixels: AUC is not below 0"),
    # far from everything: as if no person had been detected
    pytest.param([(330, 340), (360, 370)], [0, 0, 0, 0, NAN], id="424 pixels"),
]


@pytest.mark.parametrize(("keypoints", "expected"), PEOPLE)
def test_one_person(make_dataset, keypoints, expected):
    name = make_dataset(coco([person([(30, 40, 2), (60, 70, 1)], bbox=BOX)]), sigmas=(0.05, 0.05))
    metrics = pck(name, {1: predict([keypoints])})
    assert list(metrics) == [*MEANS, *(f"{metric}-point_{i}" for metric in MEANS for i in (0, 1))]
    assert means(metrics) == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_each_keypoint(make_dataset, caplog):
    people = [
        person([(30, 40, 2), (60, 70, 2), (0, 0, 0)], bbox=BOX),
        person([(30, 40, 2), (0, 0, 0), (0, 0, 0)], bbox=BOX, id=2, image_id=2),
    ]
    name = make_dataset(coco(people, num_images=2), num_keypoints=3)
    with caplog.at_level(logging.INFO):
        metrics = pck(
            name, {1: predict([[(30, 40), (60, 85), (9, 9)]]), 2: predict([[(30, 70), (500, 500), (500, 500)]])}
        )
    # distances: 0 and 15, 30; of them PCK@0.1 takes up to 20
    assert metrics["PCK@0.1"] == pytest.approx(100 * 2 / 3)
    assert [metrics[f"PCK@0.1-point_{i}"] for i in range(3)] == pytest.approx([50, 100, NAN], nan_ok=True)
    assert [metrics[f"AUC-point_{i}"] for i in range(3)] == pytest.approx([85, 85, NAN], nan_ok=True)
    assert metrics["NME"] == pytest.approx(100 * 45 / 3 / 160)
    assert [metrics[f"NME-point_{i}"] for i in range(3)] == pytest.approx(
        [100 * 15 / 160, 100 * 15 / 160, NAN], nan_ok=True
    )
    assert "2 of 2 people have a prediction; NME is relative to the square root of the box's area" in caplog.text
    assert "| point_1   " in caplog.text
    assert "PCK@0.05-point_2, PCK@0.1-point_2, PCK@0.2-point_2, AUC-point_2, NME-point_2" in caplog.text


def test_who_is_missed_counts_for_pck_and_not_for_nme(make_dataset):
    people = [person([(30, 40, 2), (60, 70, 2)], bbox=BOX, id=i, image_id=i) for i in (1, 2, 3)]
    metrics = pck(make_dataset(coco(people, num_images=3)), {1: predict([[(30, 40), (60, 86)]])})
    # one of three is found, 0 and 16 pixels off
    assert means(metrics) == pytest.approx([100 / 6, 100 / 3, 100 / 3, 100 * (1 + 0.84) / 6, 100 * 8 / 160], abs=1e-4)


class TestWhoseItIs:
    A, B = [(30, 40), (60, 70)], [(60, 40), (90, 70)]

    def make(self, make_dataset, **changes):
        people = [
            person([(*p, 2) for p in points], bbox=BOX, id=i) for i, points in enumerate((self.A, self.B), start=1)
        ]
        people[1].update(changes)
        return make_dataset(coco(people, categories=2, num_images=2), sigmas=(0.1, 0.1))

    def test_each_prediction_has_one_person(self, make_dataset):
        # One pose between them, nearer to the first: 5 pixels from A, 25 from B, which has no other
        metrics = pck(self.make(make_dataset), {1: predict([np.add(self.A, (5, 0))])})
        assert means(metrics) == pytest.approx([50, 50, 50, 47.5, 100 * 5 / 160], abs=1e-4)

    def test_the_most_similar_first(self, make_dataset):
        # The best score is 14 pixels from A and 16 from B. The other, 10 pixels beyond A, is that of A, being nearer.
        metrics = pck(self.make(make_dataset), {1: predict([np.add(self.A, (14, 0)), np.add(self.A, (-10, 0))])})
        assert metrics["NME"] == pytest.approx(100 * (10 + 16) / 2 / 160)

    def test_equal_ones_by_score(self, make_dataset):
        # 8 pixels to either side of A, 38 and 22 from B: the best score takes A
        poses = [np.add(self.A, (-8, 0)), np.add(self.A, (8, 0))]
        assert pck(self.make(make_dataset), {1: predict(poses)})["NME"] == pytest.approx(100 * (8 + 22) / 2 / 160)
        assert pck(self.make(make_dataset), {1: predict(poses[::-1])})["NME"] == pytest.approx(100 * (8 + 38) / 2 / 160)

    def test_other_classes_are_other_people(self, make_dataset):
        # everything is predicted as the first class, and the second person is of the second
        metrics = pck(self.make(make_dataset, category_id=2), {1: predict([self.A, self.B])})
        assert metrics["PCK@0.2"] == pytest.approx(50)

    @pytest.mark.parametrize("changes", [{"iscrowd": 1}, {"keypoints": [0] * 6, "num_keypoints": 0}])
    def test_who_does_not_count(self, make_dataset, changes):
        assert pck(self.make(make_dataset, **changes), {1: predict([self.A])})["PCK@0.05"] == pytest.approx(100)

    def test_only_the_first_max_dets_count(self, make_dataset):
        predictions = {1: predict([[(600, 600), (600, 600)], self.A, self.B])}
        assert pck(self.make(make_dataset), predictions, max_dets=2)["PCK@0.2"] == pytest.approx(50)
        assert pck(self.make(make_dataset), predictions, max_dets=3)["PCK@0.2"] == pytest.approx(100)

    def test_chosen_images(self, make_dataset):
        evaluator = PoseEvaluator(self.make(make_dataset, image_id=2), tasks=("pck",))
        evaluator.process([{"image_id": 1}], [{"instances": predict([self.A])}])
        assert evaluator.evaluate(img_ids=[1])["pck"]["PCK@0.2"] == pytest.approx(100)
        assert evaluator.evaluate(img_ids=[2])["pck"]["PCK@0.2"] == 0

    def test_pairs(self):
        # A row a prediction: OKS with the first is exp(-d^2 / 200) for d = 0, 10; with the second 10, 0 pixels, third
        # out of reach
        poses = np.array([[[10, 10, 1.0]], [[20, 10, 1.0]], [[500, 10, 1.0]]])
        people = np.array([[[20, 10, 2.0]], [[10, 10, 2.0]]])
        matched, found = match_people(poses, people, np.full(2, 1e4), np.full(2, 100.0), [0.05])
        assert list(zip(matched, found)) == [(0, 1), (1, 0)]


def test_pckh_where_there_is_a_head(make_dataset):
    # a head of 30 pixels: within 15
    people = [person([(50, 60, 2), (50, 30, 2), (50, 150, 2)], bbox=BOX)]
    name = make_dataset(coco(people), names=("upper_neck", "Head Top", "knee"))
    metrics = pck(name, {1: predict([[(50, 60), (50, 45), (50, 166)]])})
    assert list(metrics)[:6] == ["PCK@0.05", "PCK@0.1", "PCK@0.2", "PCKh@0.5", "AUC", "NME"]
    assert metrics["PCKh@0.5"] == pytest.approx(100 * 2 / 3)
    assert metrics["PCKh@0.5-knee"] == 0
    assert metrics["PCK@0.1"] == pytest.approx(100)


def test_pckh_leaves_out_who_has_no_labelled_head(make_dataset):
    people = [person([(50, 60, 2), (0, 0, 0), (50, 150, 2)], bbox=BOX)]
    name = make_dataset(coco(people), names=("upper_neck", "head_top", "knee"))
    metrics = pck(name, {1: predict([[(50, 60), (0, 0), (50, 150)]])})
    assert math.isnan(metrics["PCKh@0.5"])
    assert metrics["PCK@0.05"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("names", "corners"),
    [
        # the outer corners of 300W's 68 points are 37 and 46, counted from 1, and of WFLW's 98 60 and 72, from 0
        pytest.param([str(i) for i in range(1, 69)], (36, 45), id="300W"),
        pytest.param(known_schema("300W").names, (36, 45), id="300W by name"),
        pytest.param([f"landmark_{i}" for i in range(98)], (60, 72), id="WFLW"),
        pytest.param(known_schema("WFLW").names, (60, 72), id="WFLW by name"),
        pytest.param([f"kpt-{i}" for i in range(0, 136, 2)], None, id="numbers that are not counted"),
        pytest.param([f"{'ab'[i % 2]}{i}" for i in range(68)], None, id="two kinds"),
    ],
)
def test_nme_of_faces(make_dataset, caplog, names, corners):
    points = [(50 + i, 100, 2) for i in range(len(names))]
    for corner, x in zip(corners or (), (40, 120)):
        points[corner] = (x, 100, 2)
    name = make_dataset(coco([person(points, bbox=BOX)]), names=names)
    predicted = [(x, y + 4) for x, y, _ in points]
    with caplog.at_level(logging.INFO):
        metrics = pck(name, {1: predict([predicted])})
    # 4 pixels of the 80 between the corners, or of the 160 of the box
    assert metrics["NME"] == pytest.approx(5 if corners else 2.5)
    assert ("outer corners of the eyes" in caplog.text) == bool(corners)


def test_no_people_to_evaluate(make_dataset, caplog):
    name = make_dataset(coco([person([(0, 0, 0), (0, 0, 0)])]))
    with caplog.at_level(logging.INFO):
        assert np.isnan(list(pck(name, {1: predict([[(1, 2), (3, 4)]])}).values())).all()
    assert "0 of 0 people" in caplog.text


def test_beside_oks(make_dataset):
    points = [(30, 40), (60, 70)]
    name = make_dataset(coco([person([(*p, 2) for p in points])]))
    results = evaluate(name, {1: predict([points])}, tasks=("keypoints", "pck"))
    assert list(results) == ["keypoints", "pck"]
    assert results["keypoints"] == pytest.approx(evaluate(name, {1: predict([points])})["keypoints"], nan_ok=True)


def test_names_of_metrics():
    assert pck_metric_names(["a", "head_top"]) == tuple(MEANS)
    assert pck_metric_names(known_schema("mpii").names) == (*MEANS[:3], "PCKh@0.5", *MEANS[3:])
    assert pck_metric_names(known_schema("coco").names) == tuple(MEANS)
