"""Models of one keypoint schema evaluated on data of another."""

import json
import logging
import math

import numpy as np
import pytest
from small_evaluations import coco, evaluate, person, predict

from dynpose.config import ConfigError, load_config
from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON, DatasetError, KeypointSchema
from dynpose.evaluation import PoseEvaluator

# In another order and spelling than the data set's, with one more keypoint
MODEL = KeypointSchema(names=("tail", "LEye", "REye", "nose"))
NAMES = ("nose", "left_eye", "right_eye", "left_ear")
LABELLED = [(30, 40, 2), (60, 70, 2), (0, 0, 0), (80, 20, 2)]


def make(make_dataset, people=None, sigmas=(0.05, 0.05, 0.05, 0.001)):
    return make_dataset(coco(people or [person(LABELLED)], num_images=2), names=NAMES, sigmas=sigmas)


def test_keypoints_are_matched_by_name(make_dataset, tmp_path, caplog):
    name = make(make_dataset)
    # nose exact; left eye 10 pixels off, exp(-100 / (2 * 10000 * 0.1^2)) = 0.607: their mean 0.803 passes 7 thresholds
    instances = predict([[(500, 500), (66, 78), (77, 88), (30, 40)]], boxes=[[0, 0, 100, 100]])
    with caplog.at_level(logging.INFO):
        results = evaluate(name, {1: instances}, model_schema=MODEL, output_dir=str(tmp_path))
    assert results["keypoints"]["AP"] == results["keypoints"]["AR"] == pytest.approx(70)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert "evaluated on the 3 of its 4 keypoints that the model has by name" in caplog.text
    assert "These count as not labelled: left_ear" in caplog.text
    assert "OKS sigmas: nose 0.05, left_eye 0.05, right_eye 0.05\n" in caplog.text
    (written,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert written["keypoints"] == [30, 40, 0.5, 66, 78, 0.5, 77, 88, 0.5, 0, 0, 0]


def test_who_has_nothing_in_common_is_neither_found_nor_missed(make_dataset):
    unlabelled = person([(0, 0, 0)] * 3 + [(30, 40, 2)], id=2, image_id=2)
    name = make(make_dataset, [person(LABELLED), unlabelled])
    found = predict([[(0, 0), (60, 70), (0, 0), (30, 40)]], [0.5])
    # within the box of the other, hence not wrong, wherever keypoints are that the model does not have
    beside = predict([[(600, 600), (20, 20), (30, 40), (50, 50)]], [0.9])
    metrics = evaluate(name, {1: found, 2: beside}, model_schema=MODEL)["keypoints"]
    assert metrics["AP"] == metrics["AR"] == pytest.approx(100)


def test_a_box_around_the_keypoints_is_around_those_in_common(make_dataset):
    people = [person(LABELLED, area=5000)]
    wrong = predict([[(0, 0), (400, 400), (500, 500), (400, 500)], [(0, 0), (60, 70), (90, 90), (30, 40)]])
    # 100 x 100 pixels around the first, which is wrong among the large only; with 0, 0 it would be 500 x 500
    metrics = evaluate(make(make_dataset, people), {1: wrong}, model_schema=MODEL)["keypoints"]
    assert metrics["AP"] == pytest.approx(50)
    assert metrics["APm"] == pytest.approx(100)
    medium = predict([[(0, 0), (450, 450), (500, 500), (450, 500)], [(0, 0), (60, 70), (90, 90), (30, 40)]])
    metrics = evaluate(make(make_dataset, people), {1: medium}, model_schema=MODEL)["keypoints"]
    assert metrics["APm"] == pytest.approx(50)


def test_pck_is_of_the_keypoints_in_common(make_dataset):
    instances = predict([[(500, 500), (60, 70), (77, 88), (30, 46)]])
    metrics = evaluate(make(make_dataset), {1: instances}, model_schema=MODEL, tasks=("pck",))["pck"]
    assert metrics["PCK@0.05"] == pytest.approx(50)
    assert "PCK@0.05-left_eye" in metrics
    assert "PCK@0.05-left_ear" not in metrics


def test_parts_that_the_model_has(make_dataset, caplog):
    parts = {"eyes": [1, 2], "ears": [3], "left": [1, 3]}
    instances = predict([[(0, 0), (66, 78), (77, 88), (30, 40)]], boxes=[[0, 0, 100, 100]])
    with caplog.at_level(logging.INFO):
        metrics = evaluate(make(make_dataset), {1: instances}, model_schema=MODEL, parts=parts)["keypoints"]
    # the left eye alone: 0.607 passes 3 thresholds
    assert metrics["AP_eyes"] == metrics["AP_left"] == pytest.approx(30)
    assert math.isnan(metrics["AP_ears"])
    assert "NaN since the model has no keypoint of ears" in caplog.text


def test_the_same_schema_changes_nothing(make_dataset):
    name = make(make_dataset)
    predictions = {1: predict([[(33, 44), (60, 70), (9, 9), (80, 20)]], boxes=[[0, 0, 99, 99]])}
    plain, matched = (evaluate(name, predictions, model_schema=schema) for schema in (None, KeypointSchema(NAMES)))
    for task in ("keypoints", "bbox"):
        assert matched[task] == pytest.approx(plain[task], nan_ok=True)


def test_coco_on_crowdpose_has_12_keypoints_in_common(make_dataset):
    # the twelve from shoulders to ankles; not the head, nor the neck
    name = make_dataset(coco([person([(10 * i, 5 * i, 2) for i in range(1, 15)])]), names=CROWDPOSE_PERSON.names)
    keypoints = np.full((1, 17, 2), 999.0)
    for i, keypoint in enumerate(CROWDPOSE_PERSON.names[:12], start=1):
        keypoints[0, COCO_PERSON.names.index(keypoint)] = 10 * i, 5 * i
    assert evaluate(name, {1: predict(keypoints)}, model_schema=COCO_PERSON)["keypoints"]["AP"] == pytest.approx(100)


def test_nothing_in_common(make_dataset):
    with pytest.raises(DatasetError, match=r"have no keypoint in common: it has nose, .*, the model wheel"):
        PoseEvaluator(make(make_dataset), model_schema=KeypointSchema(names=("wheel",)))


def test_another_number_of_keypoints_than_the_models(make_dataset):
    with pytest.raises(DatasetError, match="the evaluator's model_schema has 4 keypoints, but the predictions have 2"):
        evaluate(make(make_dataset), {1: predict([[(1, 2), (3, 4)]])}, model_schema=MODEL)


class TestOfTheConfig:
    def cfg(self, **test):
        cfg = load_config()
        cfg.MODEL.KEYPOINT_SCHEMA.NAMES = list(MODEL.names)
        cfg.TEST.update(test)
        return cfg

    def test_the_models_schema(self, make_dataset):
        name = make(make_dataset)
        cfg = self.cfg(MAP_KEYPOINTS=True)
        # the data set has other keypoints, which schema_from_cfg would refuse
        cfg.DATASETS.TEST = (name,)
        evaluator = PoseEvaluator.from_config(cfg, name, output_dir=None)
        instances = predict([[(0, 0), (60, 70), (0, 0), (30, 40)]])
        evaluator.process([{"image_id": 1}], [{"instances": instances}])
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100)
        assert (name,) == cfg.DATASETS.TEST

    def test_only_where_it_is_asked_for(self, make_dataset):
        evaluator = PoseEvaluator.from_config(self.cfg(), make(make_dataset))
        with pytest.raises(DatasetError, match=r"predictions have 2 .*TEST\.MAP_KEYPOINTS"):
            evaluator.process([{"image_id": 1}], [{"instances": predict([[(1, 2), (3, 4)]])}])

    def test_without_a_schema(self, make_dataset):
        cfg = self.cfg(MAP_KEYPOINTS=True)
        cfg.MODEL.KEYPOINT_SCHEMA.NAMES = []
        with pytest.raises(ConfigError, match=r"TEST\.MAP_KEYPOINTS is True, but MODEL\.KEYPOINT_SCHEMA names no"):
            PoseEvaluator.from_config(cfg, make(make_dataset))
