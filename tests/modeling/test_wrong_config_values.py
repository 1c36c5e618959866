"""Every config key of every method: a wrong value is a ConfigError that names the key, found before the first step."""

import sys
from pathlib import Path

import pytest
from detectron2.modeling import META_ARCH_REGISTRY

from dynpose.config import ConfigError, read_key

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import METHODS, tiny_config

NODES = {
    "FCPose": ("FCOS", "KP_NET", "FCPOSE"),
    "InsPose": ("FCOS", "KP_NET", "INSPOSE"),
    "InsPoseReleased": ("FCOS", "KP_NET", "INSPOSE_RELEASED"),
    "CID": ("CID",),
    "QueryPose": ("QUERYPOSE",),
}
NAN = float("nan")

# Keys that take 0: nothing of its kind, or no threshold, weight or smoothing
_TAKE_0 = {
    "FCOS": """
        NUM_CLS_CONVS NUM_BOX_CONVS CENTER_SAMPLING_RADIUS FOCAL_LOSS_ALPHA FOCAL_LOSS_GAMMA GIOU_SMOOTH
        SCORE_THRESH_TEST NMS_THRESH_TEST
    """,
    "FCPOSE": """
        MAX_SAMPLES HEATMAP_LOSS_WEIGHT OFFSET_SCALE OFFSET_RADIUS OFFSET_LOSS_WEIGHT AUX_HEATMAP_LOSS_WEIGHT
        BASIS.NUM_CONVS
    """,
    "INSPOSE": """
        INIT_STD NUM_FEATURE_CONVS KEYPOINT_LOSS_WEIGHT DISK_RADIUS OFFSET_LOSS_WEIGHT NUM_HEATMAP_CONVS
        HEATMAP_LOSS_WEIGHT
    """,
    "INSPOSE_RELEASED": """
        STAR_GRADIENT NUM_REGRESSION_CONVS NUM_FEATURE_CONVS VARIFOCAL_ALPHA VARIFOCAL_GAMMA MAX_RADIUS
        UNLABELLED_QUALITY KEYPOINT_LOSS_WEIGHT REGRESSION_LOSS_WEIGHT HEATMAP_LOSS_WEIGHT TAG_LOSS_WEIGHT
        OFFSET_LOSS_WEIGHT NMS_MIN_SCORE
    """,
    "CID": """
        INIT_STD MIN_BOX_AREA MULTI_HEATMAP_LOSS_WEIGHT CONTRASTIVE_LOSS_WEIGHT SINGLE_HEATMAP_LOSS_WEIGHT
        SCORE_THRESH OKS_NMS_THRESH
    """,
    "QUERYPOSE": """
        POOLER_SAMPLING_RATIO DROPOUT NUM_CLS_LAYERS NUM_REG_LAYERS CLASS_LOSS_WEIGHT L1_LOSS_WEIGHT
        GIOU_LOSS_WEIGHT KEYPOINT_LOSS_WEIGHT AUX_HEATMAP_LOSS_WEIGHT FOCAL_LOSS_ALPHA FOCAL_LOSS_GAMMA
        NUM_KEYPOINT_CONVS
    """,
}
# Values that would be wrong for most keys: (key, value as a string)
LEGITIMATE = {
    *((f"MODEL.{node}.{name}", "0") for node, names in _TAKE_0.items() for name in names.split()),
    # no balance of positives and negatives
    ("MODEL.FCOS.FOCAL_LOSS_ALPHA", "-1"),
    # every location is a candidate
    ("MODEL.FCOS.SCORE_THRESH_TEST", "-1"),
    ("MODEL.KP_NET.COORDS_SIGN", "-1"),
    # any number of thresholds
    ("MODEL.CID.WINDOW_THRESHOLDS", "[0]"),
    ("MODEL.CID.WINDOW_THRESHOLDS", "[]"),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_value_names_its_key(method, monkeypatch):
    model = META_ARCH_REGISTRY.get(method)
    module = sys.modules[model.__module__]
    cfg = tiny_config(method)
    backbone = module.build_backbone(cfg)
    monkeypatch.setattr(module, "build_backbone", lambda cfg: backbone)
    surprises = []
    for key in keys_of(cfg, method):
        for value in wrong_values(read_key(cfg, key)):
            raised = error_of(model, cfg, key, value)
            expected = (key, str(value)) not in LEGITIMATE
            if expected != (isinstance(raised, ConfigError) and key in str(raised)):
                surprises.append((key, str(value), type(raised).__name__, str(raised)[:150]))
    assert not surprises, "\n".join(map(str, surprises))


def keys_of(cfg, method):
    """Full names of the keys in the method's nodes of MODEL."""
    found = ["MODEL.PIXEL_STD"]
    nodes = [f"MODEL.{node}" for node in NODES[method]]
    for node in nodes:
        for name, value in read_key(cfg, node).items():
            (nodes if isinstance(value, dict) else found).append(f"{node}.{name}")
    return found


def wrong_values(value):
    """Values of the same type that are no choice, or out of most ranges; none for a switch."""
    if isinstance(value, bool):
        return ()
    if isinstance(value, (int, float)):
        return (0, -1, NAN, None)
    if isinstance(value, (list, tuple)) and not isinstance(value[0], str):
        return ([0], [-1], [NAN] * len(value), [])
    return ("foo",) if isinstance(value, str) or value is None else (["foo"], [])


def error_of(model, cfg, key, value):
    """What reading the model's arguments raises; None = nothing."""
    cfg = cfg.clone()
    node, _, name = key.rpartition(".")
    read_key(cfg, node)[name] = value
    try:
        model.from_config(cfg)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["foo", ""])
def test_a_wrong_backbone_names_its_key(method, name):
    cfg = tiny_config(method, "MODEL.BACKBONE.NAME", name)
    with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.NAME"):
        META_ARCH_REGISTRY.get(method).from_config(cfg)


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("FCPose", {"MODEL.FCPOSE.DECONV_FACTOR": 6, "MODEL.FCPOSE.REFINEMENT": "deconv"}),
        ("FCPose", {"MODEL.FCPOSE.BASIS.IN_FEATURES": ["p4", "p3"]}),
        ("FCPose", {"MODEL.FCPOSE.BASIS.IN_FEATURES": ["p3", "p3"]}),
        ("FCPose", {"MODEL.FCOS.IN_FEATURES": ["p4", "p3", "p5", "p6", "p7"]}),
        ("FCPose", {"MODEL.FCPOSE.LAST_SIZE_OF_INTEREST": 512}),
        ("FCPose", {"MODEL.PIXEL_MEAN": [1.0]}),
        ("FCPose", {"MODEL.FCPOSE.AUX_HEATMAP_SIGMAS": [1.8]}),
        ("FCPose", {"MODEL.FCOS.SIZES_OF_INTEREST": [64, 128]}),
        ("FCPose", {"MODEL.PIXEL_STD": [1.0, 1.0]}),
        ("InsPose", {"MODEL.INSPOSE.MAP_STRIDE": 12}),
        ("InsPoseReleased", {"MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS": [0] * 8 + [4]}),
        ("CID", {"MODEL.CID.IN_FEATURES": ["p2", "p3"]}),
        ("CID", {"MODEL.CID.RECALIBRATION": ["spatial", "foo"]}),
        ("QueryPose", {"MODEL.QUERYPOSE.ITERATION": "sum", "MODEL.QUERYPOSE.QUERY": "instance"}),
        ("QueryPose", {"MODEL.QUERYPOSE.INTERACTION": "pool"}),
        (
            "QueryPose",
            {
                "MODEL.QUERYPOSE.INTERACTION": "pool",
                "MODEL.QUERYPOSE.QUERY": "instance",
                "MODEL.QUERYPOSE.ITERATION": "none",
                "MODEL.QUERYPOSE.PIPELINE": "box_decoder",
                "MODEL.QUERYPOSE.DYNAMIC_MLP": True,
            },
        ),
        ("QueryPose", {"MODEL.QUERYPOSE.PART_DIM": 33}),
        ("QueryPose", {"MODEL.QUERYPOSE.HIDDEN_DIM": 32}),
        ("QueryPose", {"MODEL.QUERYPOSE.PARTS": [["head"]]}),
        ("QueryPose", {"TEST.DETECTIONS_PER_IMAGE": 0}),
    ],
)
def test_values_that_do_not_go_together_name_a_key(method, keys):
    cfg = tiny_config(method)
    for key, value in keys.items():
        node, _, name = key.rpartition(".")
        read_key(cfg, node)[name] = value
    with pytest.raises(ConfigError, match=next(iter(keys))):
        META_ARCH_REGISTRY.get(method).from_config(cfg)
