"""AP of the parts of a whole body, against results of COCO-WholeBody's tool, and against values by hand."""

import logging
import math
import random

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from small_evaluations import coco, person

from dynpose.data.known_schemas import known_schema
from dynpose.evaluation import PoseEvaluator

BACKENDS = ("faster", "pycocotools")
# The order of COCO-WholeBody's 133 keypoints
PARTS = {
    "body": range(17),
    "feet": range(17, 23),
    "face": range(23, 91),
    "left_hand": range(91, 112),
    "right_hand": range(112, 133),
}
NUM_KEYPOINTS = 133
SIGMAS = [0.03 + 0.001 * (i * 37 % 71) for i in range(NUM_KEYPOINTS)]


def whole_bodies(seed, num_images=25):
    """Annotations and detections of all sizes, in COCO's formats, from Python's own random numbers.

    There are crowds, people without some of the parts, detections that do not show a part (confidence 0), equal scores,
    and more detections than count. Coordinates are quarters, which nothing rounds.
    """
    rng = random.Random(seed)
    annotations, detections = [], []
    for image_id in range(1, num_images + 1):
        here = [_person(rng, image_id, len(annotations) + i + 1) for i in range(rng.randint(0, 5))]
        annotations += here
        for _ in range(rng.randint(15, 26)):
            detections.append(_detection(rng, image_id, here))
    return annotations, detections


def _person(rng, image_id, annotation_id):
    x, y, width, height = rng.randint(0, 300), rng.randint(0, 300), rng.randint(20, 250), rng.randint(20, 250)
    keypoints = []
    for indices in PARTS.values():
        shown = rng.random() < 0.7
        for _ in indices:
            visibility = rng.choice([0, 1, 2, 2]) if shown else 0
            point = (x + int(width * rng.random()), y + int(height * rng.random()))
            keypoints += [*point, visibility] if visibility else [0, 0, 0]
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": int(rng.random() < 0.1),
        "bbox": [x, y, width, height],
        "area": width * height * rng.uniform(0.3, 1),
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "keypoints": keypoints,
    }


def _detection(rng, image_id, people):
    keypoints = []
    target = rng.choice(people) if people and rng.random() < 0.7 else None
    spread = rng.choice([1, 4, 12])
    x, y, width, height = target["bbox"] if target else [rng.randint(0, 300), rng.randint(0, 300), 90, 90]
    for indices in PARTS.values():
        shown = rng.random() < 0.9
        for i in indices:
            if target and target["keypoints"][3 * i + 2]:
                point = target["keypoints"][3 * i : 3 * i + 2]
            else:
                point = x + width * rng.random(), y + height * rng.random()
            point = [round(4 * (value + rng.uniform(-spread, spread))) / 4 for value in point]
            keypoints += [*point, 0.5 if shown else 0.0]
    box = [x + rng.randint(-3, 3), y + rng.randint(-3, 3), width + rng.randint(0, 5), height + rng.randint(0, 5)]
    return {
        "image_id": image_id,
        "category_id": 1,
        "score": round(rng.random(), 2),
        "bbox": box,
        "keypoints": keypoints,
    }


# What COCOeval of xtcocotools 1.14.3 (numpy 1.23.5) gives of whole_bodies(1), with the keypoints in the separate fields
# of COCO-WholeBody's files and iouType "keypoints_wholebody", "keypoints_body", ..., times 100: AP, AP50, AP75, APm,
# APl, and the same of AR
OFFICIAL = {
    "all": [
        32.18433222,
        39.77956083,
        33.63671805,
        23.08672861,
        48.30696018,
        89.71428571,
        95.71428571,
        90,
        82.85714286,
        98.62068966,
    ],
    "body": [
        25.97835576,
        32.89137828,
        25.91152531,
        20.12787548,
        34.15394662,
        85.66037736,
        88.67924528,
        86.79245283,
        77.24137931,
        95.71428571,
    ],
    "feet": [
        37.22998968,
        44.18067705,
        38.15660061,
        25.69232796,
        51.72619683,
        88.33333333,
        94.44444444,
        87.03703704,
        79.28571429,
        99.52380952,
    ],
    "face": [
        27.50767833,
        33.22243098,
        28.52015348,
        16.58390934,
        50.90110006,
        86.44444444,
        93.33333333,
        86.66666667,
        77.82608696,
        98.42105263,
    ],
    "left_hand": [
        27.69264087,
        35.23887154,
        28.67062756,
        21.1357905,
        35.5778352,
        90.38461538,
        96.15384615,
        90.38461538,
        84.8,
        98.0952381,
    ],
    "right_hand": [
        25.64682475,
        33.73649617,
        22.74192153,
        18.0417516,
        32.26614583,
        88.63636364,
        93.18181818,
        88.63636364,
        87.27272727,
        91.17647059,
    ],
}


def to_instances(detections):
    """Detections of an image in COCO's format as a model gives them."""
    instances = Instances((640, 640))
    keypoints = np.array([detection["keypoints"] for detection in detections]).reshape(len(detections), -1, 3)
    instances.pred_keypoints = torch.as_tensor(np.add(keypoints, (0.5, 0.5, 0)), dtype=torch.float32)
    instances.scores = torch.tensor([detection["score"] for detection in detections])
    instances.pred_classes = torch.zeros(len(detections), dtype=torch.int64)
    boxes = torch.tensor([detection["bbox"] for detection in detections], dtype=torch.float32)
    instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
    return instances


def evaluate(name, detections, **kwargs):
    evaluator = PoseEvaluator(name, tasks=("keypoints",), **kwargs)
    for image_id in sorted({detection["image_id"] for detection in detections}):
        here = [detection for detection in detections if detection["image_id"] == image_id]
        evaluator.process([{"image_id": image_id}], [{"instances": to_instances(here)}])
    metrics = evaluator.evaluate()["keypoints"]
    assert list(metrics) == list(evaluator.metric_names()["keypoints"])
    return metrics


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_are_those_of_the_official_tool(make_dataset, caplog, backend):
    annotations, detections = whole_bodies(1)
    name = make_dataset(coco(annotations, num_images=25), NUM_KEYPOINTS, SIGMAS)
    with caplog.at_level(logging.INFO):
        metrics = evaluate(name, detections, parts=PARTS, backend=backend)
    everything = dict(zip(list(metrics)[:10], OFFICIAL["all"]))
    assert {key: metrics[key] for key in everything} == pytest.approx(everything, abs=1e-7)
    for part in PARTS:
        assert metrics[f"AP_{part}"] == pytest.approx(OFFICIAL[part][0], abs=1e-7)
        assert metrics[f"AR_{part}"] == pytest.approx(OFFICIAL[part][5], abs=1e-7)
        # the table has the others
        (row,) = [line for line in caplog.text.splitlines() if line.startswith(f"| {part} ")]
        assert [float(cell) for cell in row.split("|")[2:-1]] == pytest.approx(OFFICIAL[part], abs=6e-4)


HALVES = {"first": [0], "second": [1]}
DETECTION = {
    "image_id": 1,
    "category_id": 1,
    "score": 0.9,
    "bbox": [0, 0, 100, 100],
    "keypoints": [30.0, 40, 1, 66, 78, 1],
}


class TestByHand:
    def test_a_keypoint_each(self, make_dataset):
        # The first is exact. The second is 10 pixels off: exp(-100 / (2 * 10000 * 0.1^2)) = 0.607 passes 3 thresholds.
        # Both together, 0.803, pass 7.
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])], num_images=1), sigmas=(0.05, 0.05))
        metrics = evaluate(name, [DETECTION], parts=HALVES)
        assert [metrics[key] for key in ("AP_first", "AP_second", "AP")] == pytest.approx([100, 30, 70])
        assert [metrics[key] for key in ("AR_first", "AR_second", "AR")] == pytest.approx([100, 30, 70])

    def test_who_has_no_part_is_neither_found_nor_missed(self, make_dataset, caplog):
        people = [person([(30, 40, 2), (66, 78, 2)]), person([(30, 40, 2), (0, 0, 0)], id=2, image_id=2)]
        name = make_dataset(coco(people, num_images=2), sigmas=(0.05, 0.05))
        # the second image has a detection without the first keypoint, which is no wrong second one either
        nowhere = {**DETECTION, "image_id": 2, "score": 1.0, "keypoints": [300.0, 300, 1, 300, 300, 0]}
        metrics = evaluate(name, [DETECTION, nowhere], parts=HALVES)
        assert metrics["AP_second"] == metrics["AR_second"] == pytest.approx(100)
        # precision is 1/2 all along, until half of the two are found
        assert metrics["AP_first"] == pytest.approx(100 * 51 / 101 / 2)
        assert metrics["AR_first"] == pytest.approx(50)

    def test_a_part_that_no_person_has(self, make_dataset, caplog):
        name = make_dataset(coco([person([(30, 40, 2), (0, 0, 0)])], num_images=1), sigmas=(0.05, 0.05))
        with caplog.at_level(logging.INFO):
            metrics = evaluate(name, [DETECTION], parts=HALVES)
        assert metrics["AP_first"] == pytest.approx(100)
        assert math.isnan(metrics["AP_second"])
        reason = "no person has a labelled keypoint of second among the images that are evaluated"
        assert f"NaN since {reason}" in caplog.text
        assert "AP_second, AR_second" in caplog.text

    def test_parts_of_a_known_schema(self, make_dataset):
        schema = known_schema("coco_wholebody")
        annotations, detections = whole_bodies(2, num_images=3)
        name = make_dataset(coco(annotations, num_images=3), names=schema.names, sigmas=schema.sigmas)
        assert evaluate(name, detections) == pytest.approx(evaluate(name, detections, parts=PARTS), nan_ok=True)
        assert list(evaluate(name, detections))[10:] == [f"{m}_{part}" for part in PARTS for m in ("AP", "AR")]

    def test_without_parts(self, make_dataset):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])], num_images=1), sigmas=(0.05, 0.05))
        for parts in (None, {}):
            assert not any("_" in key for key in evaluate(name, [DETECTION], parts=parts))

    @pytest.mark.parametrize("indices", [[], [2], [-1], ["point_0"]])
    def test_no_keypoints(self, make_dataset, indices):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])], num_images=1), sigmas=(0.05, 0.05))
        with pytest.raises(ValueError, match=r"part 'odd' is .*; give 0-based numbers of the data set's 2 keypoints"):
            PoseEvaluator(name, parts={"odd": indices})
