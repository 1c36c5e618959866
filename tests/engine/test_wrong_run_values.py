"""Config keys beside the model's: each place that reads some says which one is wrong, before the first image."""

import pytest
import torch
from small_models import SCHEMA
from tiny_methods import tiny_config

from dynpose.config import ConfigError, read_key
from dynpose.data import PoseDatasetMapper, build_pose_augmentation
from dynpose.data.loader import build_pose_train_loader
from dynpose.engine import PosePredictor, PoseTrainer
from dynpose.engine.accumulation import check_ims_per_process
from dynpose.engine.optimizer import build_optimizer
from dynpose.engine.preflight import check_machine
from dynpose.engine.schedule import check_steps, resolve_epochs, resolve_reference_batch
from dynpose.modeling.build import build_model
from dynpose.modeling.test_time_augmentation import PoseTTA

NAN = float("nan")


class Reader(torch.nn.Module):
    """A model with one parameter."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)


def train_augmentation(cfg):
    build_pose_augmentation(cfg, is_train=True)


def resize(cfg):
    build_pose_augmentation(cfg, is_train=False)


def scheduler(cfg):
    check_steps(cfg)
    PoseTrainer.build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=0.1))


READERS = {
    train_augmentation: {
        "INPUT.RANDOM_FLIP": ["foo"],
        "INPUT.MIN_SIZE_TRAIN": [(0, 8), (NAN, 8), (8,), ()],
        "INPUT.MAX_SIZE_TRAIN": [0, -1, NAN],
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": ["foo"],
        "INPUT.CROP.TYPE": ["foo"],
        "INPUT.CROP.SIZE": [[0, 0], [-1, -1], [NAN, NAN], []],
    },
    resize: {"INPUT.MIN_SIZE_TEST": [-1, NAN], "INPUT.MAX_SIZE_TEST": [0, -1, NAN]},
    build_pose_train_loader: {
        "SOLVER.IMS_PER_BATCH": [0, -1, NAN],
        "DATALOADER.NUM_WORKERS": [-1, NAN],
        "DATALOADER.SAMPLER_TRAIN": ["foo"],
    },
    lambda cfg: build_optimizer(cfg, Reader()): {
        "SOLVER.OPTIMIZER": ["foo"],
        "SOLVER.BASE_LR": [-1, NAN],
        "SOLVER.MOMENTUM": [-1, 2, NAN],
        "SOLVER.WEIGHT_DECAY": [-1, NAN],
        "SOLVER.WEIGHT_DECAY_NORM": [-1, NAN],
        "SOLVER.BIAS_LR_FACTOR": [-1, NAN],
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ["foo"],
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": [0, -1, NAN],
        "SOLVER.LR_FACTORS": [["layer"], [["layer"]], [["(", 1.0]], [["layer", -1]], [["layer", NAN]], [[1, 1]]],
    },
    scheduler: {
        "SOLVER.LR_SCHEDULER_NAME": ["foo"],
        "SOLVER.WARMUP_METHOD": ["foo"],
        "SOLVER.WARMUP_ITERS": [-1, NAN],
        "SOLVER.WARMUP_FACTOR": [-1, NAN],
        "SOLVER.GAMMA": [-1, NAN],
        "SOLVER.MAX_ITER": [0, -1, NAN],
        "SOLVER.CHECKPOINT_PERIOD": [0, -1, NAN],
        "TEST.EVAL_PERIOD": [-1, NAN],
    },
    resolve_epochs: {"SOLVER.MAX_EPOCHS": [-1, NAN]},
    resolve_reference_batch: {"SOLVER.REFERENCE_BATCH": [-1, NAN]},
    check_ims_per_process: {"SOLVER.IMS_PER_PROCESS": [-1, NAN]},
    PosePredictor: {"INPUT.FORMAT": ["foo", "L"], "MODEL.META_ARCHITECTURE": ["foo"]},
    build_model: {
        "INPUT.FORMAT": ["foo"],
        "MODEL.META_ARCHITECTURE": ["foo"],
        "MODEL.BACKBONE.NAME": ["foo"],
        "MODEL.RESNETS.DEPTH": [0, 19],
    },
    PoseTrainer.build_model: {"MODEL.META_ARCHITECTURE": ["foo"]},
    PoseDatasetMapper: {"INPUT.FORMAT": ["foo"]},
    check_machine: {
        "DATALOADER.NUM_WORKERS": [-1, NAN],
        "DISTRIBUTED.TIMEOUT_MINUTES": [0, -1, NAN],
        "DISTRIBUTED.REPORT_SECONDS": [-1, NAN],
        "MODEL.DEVICE": ["foo"],
        "OUTPUT_DIR": [""],
    },
    lambda cfg: PoseTTA(cfg, Reader()): {
        "TEST.AUG.MIN_SIZES": [(0,), (-1,), (NAN,), ()],
        "TEST.AUG.MAX_SIZE": [0, -1, NAN],
        "TEST.AUG.MERGE": ["foo", "maps"],
        "TEST.AUG.MATCH_OKS": [0, -1, NAN, 1.5],
        "TEST.DETECTIONS_PER_IMAGE": [0, -1, NAN],
        "MODEL.LOAD_PROPOSALS": [True],
        "INPUT.AFFINE_RESIZE_TEST": [True],
    },
}
CASES = [(read, key, value) for read, keys in READERS.items() for key, values in keys.items() for value in values]


@pytest.fixture(scope="module")
def config():
    """A config that has all of these keys in use, to be copied."""
    return tiny_config("FCPose", "INPUT.CROP.ENABLED", True, "SOLVER.CLIP_GRADIENTS.ENABLED", True)


@pytest.mark.parametrize(("read", "key", "value"), CASES, ids=[f"{key}-{value}" for _, key, value in CASES])
def test_a_wrong_value_names_its_key(config, read, key, value):
    cfg = config.clone()
    node, _, name = key.rpartition(".")
    (read_key(cfg, node) if node else cfg)[name] = value
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        read(cfg)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("SIZE", [[0, 0], [-1], [NAN, NAN], [8, 8, 8]]),
        ("SCALE", [[0, 1], [-1, 1], [NAN, NAN], [1]]),
        ("ROTATION", [-1, NAN]),
        ("TRANSLATION", [-1, NAN]),
        ("SCALE_TYPE", ["foo"]),
    ],
)
def test_a_wrong_value_of_the_affine_warp_names_its_key(key, values):
    for value in values:
        cfg = tiny_config("FCPose", "INPUT.AFFINE.ENABLED", True)
        cfg.INPUT.AFFINE[key] = value
        with pytest.raises(ConfigError, match=rf"INPUT\.AFFINE\.{key}\b"):
            build_pose_augmentation(cfg, is_train=True)


def test_building_a_model_opens_no_data_set(tmp_path, catalogs, monkeypatch):
    """A completed config suffices, and so does the metadata of a registered data set."""
    cfg = tiny_config("FCPose")
    cfg.DATASETS.POSE = [{"name": "gone", "json_file": str(tmp_path / "gone.json"), "image_root": str(tmp_path)}]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("gone",)
    assert build_model(cfg).schema.names == SCHEMA.names
    cfg.MODEL.KEYPOINT_SCHEMA.NAMES = []
    with pytest.raises(ValueError, match=r"data set 'gone' is not registered .* dynpose\.data\.register"):
        build_model(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("keypoints_coco_2017_val",)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert build_model(cfg).schema.num_keypoints == 17
