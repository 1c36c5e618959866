"""A tiny model of every method, without statistics of batches and random numbers, and a batch for all of them."""

import torch
from detectron2.modeling import build_model
from small_models import SCHEMA, image, one_person, people

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import load_config
from dynpose.data import schema_to_cfg

_TINY = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""),
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.FPN.OUT_CHANNELS", "64"),
]
_STARS = "[0, 1, 2, 3, 0, 1, 2, 3, 0]"
_RELEASED = ["REGRESSION_CONVS_DIM", "64", "FEATURE_CONVS_DIM", "64", "AUX_CONVS_DIM", "64", "STAR_KEYPOINTS", _STARS]

METHODS = {
    "FCPose": ("configs/quick/fcpose_small.yaml", ["MODEL.FCPOSE.BASIS.NORM", "", "MODEL.FCPOSE.MAX_SAMPLES", "0"]),
    "InsPose": ("configs/quick/inspose_small.yaml", []),
    "InsPoseReleased": (
        "configs/InsPose/R_50_3x_release.yaml",
        [word if i % 2 else f"MODEL.INSPOSE_RELEASED.{word}" for i, word in enumerate(_RELEASED)],
    ),
    "CID": ("configs/quick/cid_small.yaml", []),
    "QueryPose": ("configs/quick/querypose_small.yaml", ["MODEL.QUERYPOSE.KEYPOINT_NORM", "FrozenBN"]),
}


# of its FPN, CID reads P2 alone
USES_ALL = {method: method != "CID" for method in METHODS}


def tiny_config(method, *opts):
    config_file, own = METHODS[method]
    cfg = load_config(config_file, [*_TINY, *own, *map(str, opts)])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, SCHEMA)
    return cfg


def tiny_model(method, *opts, device="cpu"):
    torch.manual_seed(0)
    model = build_model(tiny_config(method, *opts)).train().to(device)
    if method == "CID":
        # its centres are moved by random numbers, which would differ between the processes and the whole
        model.losses = lambda features, sizes, instances, masks=None: type(model).losses(
            model, features, sizes, instances, masks, features.new_zeros(sum(map(len, instances)), 2, dtype=torch.int64)
        )
    return model


def global_batch():
    """Two images whose people differ in number and in labelled keypoints."""
    boxes = [[60, 20, 100, 90], [10, 30, 50, 110], [80, 80, 120, 120]]
    points = [
        [(70, 30, 2), (90, 50, 2), (65, 50, 1), (80, 85, 2)],
        [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)],
        [(0, 0, 0)] * 4,
    ]
    return [image(one_person(), 0), image(people(boxes, points), 1)]
