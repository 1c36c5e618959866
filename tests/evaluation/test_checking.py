"""What only an evaluation reads is found before a training starts."""

import math
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import verify_results
from small_evaluations import coco, evaluate, person, predict

from dynpose.config import ConfigError, load_config
from dynpose.data import DatasetError
from dynpose.evaluation import PoseEvaluator, check_evaluation

POINTS = ((30, 40), (60, 70))
PEOPLE = [person([(*p, 2) for p in POINTS])]


def cfg_for(*names, **test):
    cfg = load_config()
    cfg.DATASETS.TEST = names
    cfg.TEST.update(test)
    return cfg


def check(make_dataset, data=None, metadata=None, **test):
    name = make_dataset(coco(PEOPLE) if data is None else data, **(metadata or {}))
    check_evaluation(cfg_for(name, **test), name)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"KEYPOINT_OKS_SIGMAS": [0.1] * 3}, "TEST.KEYPOINT_OKS_SIGMAS does not fit data set .*: 3 OKS sigmas for 2"),
        ({"KEYPOINT_OKS_SIGMAS": [0.1, -0.1]}, "TEST.KEYPOINT_OKS_SIGMAS .*-0.1 of keypoint 'point_1'"),
        ({"KEYPOINT_OKS_SIGMAS": [0.1, math.inf]}, "TEST.KEYPOINT_OKS_SIGMAS .*inf of keypoint 'point_1'"),
        ({"KEYPOINT_OKS_SIGMAS": [0.1, "a"]}, r"TEST.KEYPOINT_OKS_SIGMAS .*\[0.1, 'a'\]; write a number"),
        ({"TASKS": ["keypoint"]}, "TEST.TASKS has unknown tasks 'keypoint': known are keypoints, bbox, pck"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP", 50.0]]}, r"TEST.EXPECTED_RESULTS\[0\] is .*tolerance\]"),
        ({"EXPECTED_RESULTS": ["keypoints", "AP", 50.0, 1.0]}, r"TEST.EXPECTED_RESULTS\[0\] is 'keypoints'"),
        (
            {"EXPECTED_RESULTS": [["keypoints", "AP", 50.0, 1.0], ["segm", "AP", 50.0, 1.0]]},
            r"TEST.EXPECTED_RESULTS\[1\]: there is no task 'segm'; this evaluation gives keypoints, bbox$",
        ),
        ({"EXPECTED_RESULTS": [["pck", "PCK@0.1", 50.0, 1.0]]}, "there is no task 'pck'"),
        ({"EXPECTED_RESULTS": [["keypoints_TTA", "AP", 50.0, 1.0]]}, "there is no task 'keypoints_TTA'"),
        (
            {"EXPECTED_RESULTS": [["keypoints", "APs", 50.0, 1.0]]},
            r"'keypoints' has no metric 'APs'; it has AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl$",
        ),
        ({"EXPECTED_RESULTS": [["bbox", "AR", 50.0, 1.0]]}, "'bbox' has no metric 'AR'"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP-person", 50.0, 1.0]]}, "has no metric 'AP-person'"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP", "50", 1.0]]}, "the expected value must be a number, got '50'"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP", math.nan, 1.0]]}, "the expected value must be a number, got nan"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP", 50.0, True]]}, "the tolerance must be a number, got True"),
        ({"EXPECTED_RESULTS": [["keypoints", "AP", 50.0, -1]]}, "the tolerance must be at least 0, got -1"),
    ],
)
def test_faults_of_the_config(make_dataset, test, message):
    with pytest.raises(ConfigError, match=message):
        check(make_dataset, **test)


@pytest.mark.parametrize("key", ["KEYPOINTS", "BOXES"])
def test_limits(make_dataset, key):
    name = make_dataset(coco(PEOPLE))
    cfg = cfg_for(name)
    cfg.TEST.MAX_DETS[key] = 0
    with pytest.raises(ConfigError, match=f"TEST.MAX_DETS.{key} must be at least 1, got 0"):
        check_evaluation(cfg, name)


def test_sound_configs(make_dataset, tmp_path):
    check(make_dataset)
    check(
        make_dataset,
        KEYPOINT_OKS_SIGMAS=(0.1, 0.2),
        TASKS=("pck", "keypoints"),
        EXPECTED_RESULTS=[["pck", "PCK@0.1-point_1", 50.0, 1.0], ["keypoints", "AP", 50, 0]],
    )
    two_classes = {"thing_classes": ["dog", "cat"], "thing_dataset_id_to_contiguous_id": {1: 0, 2: 1}}
    check(
        make_dataset,
        coco(PEOPLE, categories=2),
        two_classes,
        EXPECTED_RESULTS=[["bbox", "AP-cat", 1.0, 1.0], ["keypoints", "AP-dog", 1.0, 1.0]],
    )


@pytest.mark.parametrize("tasks", [(), ("keypoints",), ("pck",)])
def test_known_metrics_are_those_of_an_evaluation(make_dataset, tasks):
    name = make_dataset(coco(PEOPLE))
    results = evaluate(name, {1: predict([POINTS], boxes=[[0, 0, 100, 100]])}, tasks=tasks or None)
    assert {task: tuple(metrics) for task, metrics in results.items()} == PoseEvaluator(
        name, tasks=tasks or None
    ).metric_names()
    # every number that is one passes both checks
    expected = [
        [task, metric, value, 1e-6]
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if math.isfinite(value)
    ]
    cfg = cfg_for(name, TASKS=tasks, EXPECTED_RESULTS=expected)
    check_evaluation(cfg, name)
    assert verify_results(cfg, results)


def test_crowdpose(make_dataset):
    data = coco(PEOPLE)
    data["images"][0]["crowdIndex"] = 0.1
    crowdpose = {"keypoint_protocol": "crowdpose"}
    check(make_dataset, data, crowdpose, EXPECTED_RESULTS=[["keypoints", "APhard", 50.0, 1.0]])
    with pytest.raises(ConfigError, match="has no metric 'APl'; it has AP, AP50, AP75, AR, AR50, AR75, APeasy"):
        check(make_dataset, data, crowdpose, EXPECTED_RESULTS=[["keypoints", "APl", 50.0, 1.0]])


@pytest.mark.parametrize(
    ("ema", "tta", "eval_only", "known"),
    [
        (False, False, False, {""}),
        (True, False, False, {"", "_EMA"}),
        (False, True, False, {"", "_TTA"}),
        (True, True, False, {"", "_EMA", "_TTA", "_TTA_EMA"}),
        (True, True, True, {"", "_TTA"}),
    ],
)
def test_tasks_that_the_trainer_adds(make_dataset, ema, tta, eval_only, known):
    name = make_dataset(coco(PEOPLE))
    cfg = cfg_for(name)
    cfg.SOLVER.EMA.ENABLED, cfg.TEST.AUG.ENABLED = ema, tta
    for suffix in ("", "_EMA", "_TTA", "_TTA_EMA"):
        cfg.TEST.EXPECTED_RESULTS = [[f"keypoints{suffix}", "AP", 50.0, 1.0]]
        if suffix in known:
            check_evaluation(cfg, name, eval_only=eval_only)
        else:
            with pytest.raises(ConfigError, match=f"there is no task 'keypoints{suffix}'"):
                check_evaluation(cfg, name, eval_only=eval_only)


def test_several_data_sets_have_no_expected_results(make_dataset):
    names = [make_dataset(coco(PEOPLE)) for _ in range(2)]
    check_evaluation(cfg_for(*names), names[0])
    cfg = cfg_for(*names, EXPECTED_RESULTS=[["keypoints", "AP", 100.0, 1.0]])
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST names 2: keep one of them, or set TEST\.EXPECTED_RESULTS"):
        check_evaluation(cfg, names[0])
    # which detectron2 indeed cannot compare
    results = {name: evaluate(name, {1: predict([POINTS])}) for name in names}
    with pytest.raises(KeyError):
        verify_results(cfg, results)


def test_no_annotation_has_no_expected_results(make_dataset):
    data = {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "person"}]}
    check(make_dataset, data)
    with pytest.raises(ConfigError, match=r"TEST\.EXPECTED_RESULTS has nothing .* has no annotation"):
        check(make_dataset, data, EXPECTED_RESULTS=[["keypoints", "AP", 50.0, 1.0]])


def test_faults_of_the_annotation(make_dataset):
    name = make_dataset(coco([person([(1, 2, 2)])]))
    with pytest.raises(DatasetError, match=rf"{name}.*annotation 1"):
        check_evaluation(cfg_for(name), name)
    Path(MetadataCatalog.get(name).json_file).unlink()
    with pytest.raises(DatasetError, match="does not exist"):
        check_evaluation(cfg_for(name), name)


def test_a_data_set_without_keypoints():
    MetadataCatalog.get("boxes_only").set(thing_classes=["person"])
    try:
        with pytest.raises(DatasetError, match="'boxes_only' has no keypoints"):
            check_evaluation(cfg_for("boxes_only"), "boxes_only")
    finally:
        MetadataCatalog.remove("boxes_only")
