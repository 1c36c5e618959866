"""Schedules in epochs become iterations, and contradictions are refused."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from small_models import SMALL, small_config

from dynpose.config import ConfigError, load_config
from dynpose.data import register_pose_dataset
from dynpose.engine import resolve_epochs, setup
from dynpose.engine.schedule import check_steps, epochs_to_iterations, num_training_images, resolve_reference_batch

pytestmark = pytest.mark.usefixtures("clean_run")

_CONFIG = "configs/FCPose/Base-FCPose.yaml"


@pytest.fixture
def entry(tmp_path):
    """A data set of 7 images: 5 with keypoints, one with a person without any, one with no person."""
    labelled, unlabelled = [10, 10, 2, 20, 30, 2], [0, 0, 0, 0, 0, 0]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(7)]
    annotations = [
        {
            "id": i + 1,
            "image_id": i,
            "category_id": 1,
            "bbox": [5, 5, 30, 40],
            "area": 1200,
            "iscrowd": 0,
            "keypoints": labelled if i < 5 else unlabelled,
            "num_keypoints": 2 if i < 5 else 0,
        }
        for i in range(6)
    ]
    categories = [{"id": 1, "name": "person", "keypoints": ["head", "foot"], "skeleton": []}]
    for item in images:
        Image.new("RGB", (64, 64)).save(tmp_path / item["file_name"])
    path = tmp_path / "seven.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return {"name": "seven", "json_file": str(path), "image_root": str(tmp_path)}


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch_size", "iterations"),
    [
        (36, 56599, 16, 127348),  # COCO: 127347.75
        (100, 56599, 16, 353744),
        (2, 8, 4, 4),
        (1, 9, 4, 3),
        (0.5, 8, 4, 1),
        (0.1, 30, 3, 1),  # 1.0000000000000002 in floating point
    ],
)
def test_iterations(epochs, num_images, batch_size, iterations):
    assert epochs_to_iterations(epochs, num_images, batch_size) == iterations


def epochs_config(*opts):
    opts = ["SOLVER.MAX_EPOCHS", 36, "SOLVER.STEPS_EPOCHS", "[27,33]", "SOLVER.IMS_PER_BATCH", 16, *opts]
    return small_config("configs/FCPose/Base-FCPose.yaml", "SOLVER.MAX_ITER", 40000, "SOLVER.STEPS", "(30000,)", *opts)


def test_the_papers_schedule_on_coco():
    cfg = epochs_config()
    resolve_epochs(cfg, num_images=56599)
    # 27 * 56599 / 16 = 95510.8 and 33 * 56599 / 16 = 116735.4
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (127348, (95511, 116736))
    # the config can be read again, with another data set too
    assert (cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.STEPS_EPOCHS) == (0, [])
    resolve_epochs(cfg, num_images=3)
    assert cfg.SOLVER.MAX_ITER == 127348


def test_twice_the_batch_is_half_the_iterations():
    cfg = epochs_config("SOLVER.IMS_PER_BATCH", 32)
    resolve_epochs(cfg, num_images=64)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (72, (54, 66))


def test_epochs_without_steps():
    cfg = epochs_config("SOLVER.STEPS_EPOCHS", "[]")
    resolve_epochs(cfg, num_images=16)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (36, ())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD must be at least 1, got 0"),
        ("SOLVER.BASE_LR", -1.0, "SOLVER.BASE_LR must be at least 0, got -1.0"),
        ("SOLVER.WEIGHT_DECAY", -0.1, "SOLVER.WEIGHT_DECAY must be at least 0, got -0.1"),
        ("TEST.EVAL_PERIOD", -1, "TEST.EVAL_PERIOD must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_range(key, value, message):
    with pytest.raises(ConfigError, match=message):
        check_steps(small_config("configs/FCPose/R_50_3x.yaml", key, value))


def test_iterations_are_left_alone():
    cfg = small_config("configs/FCPose/R_50_3x.yaml")
    resolve_epochs(cfg)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (270000, (180000, 240000))


@pytest.mark.parametrize("given", [127348, 40000])
def test_equal_values_are_no_contradiction(given):
    cfg = epochs_config("SOLVER.MAX_ITER", given)
    resolve_epochs(cfg, num_images=56599)
    assert cfg.SOLVER.MAX_ITER == 127348


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["SOLVER.MAX_ITER", 150],
            r"SOLVER\.MAX_EPOCHS 36 is SOLVER\.MAX_ITER 36 for 16 images .* is set to 150",
        ),
        (["SOLVER.STEPS", "(5,)"], r"SOLVER\.STEPS_EPOCHS \[27, 33\] is SOLVER\.STEPS \(27, 33\) .* is set to \(5,\)"),
        (["SOLVER.MAX_EPOCHS", 0], r"STEPS_EPOCHS is \[27, 33\], but SOLVER\.MAX_EPOCHS is 0"),
        (["SOLVER.MAX_EPOCHS", 33], "must ascend between 0 and SOLVER.MAX_EPOCHS 33"),
        (["SOLVER.STEPS_EPOCHS", "[33,27]"], "must ascend"),
        (["SOLVER.MAX_EPOCHS", -1, "SOLVER.STEPS_EPOCHS", "[]"], "MAX_EPOCHS must be at least 0, got -1"),
    ],
)
def test_contradictions(opts, message):
    with pytest.raises(ConfigError, match=message):
        resolve_epochs(epochs_config(*opts), num_images=16)


def test_images_are_counted_as_they_are_trained_on(entry):
    register_pose_dataset(**entry)
    cfg = epochs_config("SOLVER.IMS_PER_BATCH", 2)
    cfg.DATASETS.TRAIN = ("seven",)
    assert num_training_images(cfg) == 5
    cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 0
    assert num_training_images(cfg) == 6
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert num_training_images(cfg) == 7
    resolve_epochs(cfg)
    assert cfg.SOLVER.MAX_ITER == 126


@pytest.mark.parametrize("eval_only", [False, True])
def test_a_run_writes_its_iterations(entry, tmp_path, eval_only):
    opts = [
        *SMALL,
        *("OUTPUT_DIR", str(tmp_path / "run"), "DATASETS.POSE", str([entry])),
        *("DATASETS.TRAIN", "('seven',)", "DATASETS.TEST", "('seven',)", "SOLVER.IMS_PER_BATCH", "2"),
    ]
    arguments = SimpleNamespace(
        config_file="configs/InsPose/R_50_36e.yaml", opts=opts, eval_only=eval_only, resume=False
    )
    cfg = setup(arguments)
    written = load_config(str(tmp_path / "run/config.yaml")).SOLVER
    if eval_only:
        # the training set may not be there: the schedule stays as it is
        assert (written.MAX_EPOCHS, written.STEPS_EPOCHS) == (36, [27, 33])
    else:
        # 5 images in batches of 2: 36 * 2.5, 27 * 2.5 = 67.5, 33 * 2.5 = 82.5
        assert (written.MAX_ITER, tuple(written.STEPS)) == (90, (68, 83))
        assert (written.MAX_EPOCHS, written.STEPS_EPOCHS) == (0, [])
        assert cfg.SOLVER.MAX_ITER == 90


@pytest.mark.parametrize(("batch", "base_lr"), [(40, 0.001), (20, 0.0005), (160, 0.004)])
def test_the_learning_rate_follows_the_batch(batch, base_lr):
    cfg = small_config(_CONFIG, "SOLVER.REFERENCE_BATCH", 40, "SOLVER.BASE_LR", 0.001, "SOLVER.IMS_PER_BATCH", batch)
    resolve_reference_batch(cfg)
    assert pytest.approx(base_lr) == cfg.SOLVER.BASE_LR
    # a saved config says the same again
    resolve_reference_batch(cfg)
    assert pytest.approx(base_lr) == cfg.SOLVER.BASE_LR
    cfg.SOLVER.IMS_PER_BATCH = 80
    resolve_reference_batch(cfg)
    assert pytest.approx(0.002) == cfg.SOLVER.BASE_LR


def test_no_or_a_wrong_reference_batch():
    cfg = small_config(_CONFIG, "SOLVER.BASE_LR", 0.001, "SOLVER.IMS_PER_BATCH", 7)
    resolve_reference_batch(cfg)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.REFERENCE_BATCH) == (0.001, 0)
    cfg.SOLVER.REFERENCE_BATCH = -1
    with pytest.raises(ConfigError, match=r"SOLVER\.REFERENCE_BATCH must be .*, got -1"):
        resolve_reference_batch(cfg)
