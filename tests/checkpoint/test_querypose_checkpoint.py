"""The released QueryPose checkpoints: every key has a place.

test_querypose_reference.py holds what loaded weights compute against recorded outputs.
"""

import json
import logging
import re

import pytest
import torch
from detectron2.modeling import build_model
from quick_initialisation import quick_initialisation

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import CheckpointError, PoseCheckpointer, convert_released, detect_released
from dynpose.config import load_config
from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON, KeypointSchema, schema_to_cfg
from dynpose.tools import cli

FULL, LIGHT = "configs/QueryPose/HRNet_W32_2x.yaml", "configs/QueryPose/HRNet_W32_2x_light.yaml"
QUERYPOSE = "MODEL.QUERYPOSE."


def querypose(config, *opts, schema=COCO_PERSON):
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *map(str, opts)])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, schema)
    with quick_initialisation():
        return build_model(cfg)


def read_shapes(test_data, name):
    return json.loads((test_data / "reference" / name).read_text())


def state_of(test_data, keys, backbone="hrnet_w32", stages="012345"):
    """A release's parameters, each filled with a separate constant, which takes almost no memory.

    The recorded networks have 20 queries and a stub for a backbone, whose names and shapes are recorded apart.
    """
    shapes = {**read_shapes(test_data, f"querypose_first/{keys}.json")}
    for name in ("init_proposal_features.weight", "init_proposal_boxes.weight"):
        shapes[name] = [100, *shapes[name][1:]]
    shapes.update(read_shapes(test_data, f"backbones/{backbone}/keys.json") if backbone else {})
    dropped = re.compile(rf"head\..+_series\.[^{stages}]\.")
    return {
        key: torch.tensor(index / 7).expand(shape) for index, (key, shape) in enumerate(shapes.items())
        if not dropped.match(key)
    }  # fmt: skip


def save(state, path):
    torch.save({"model": state, "iteration": 280_000}, path)
    return str(path)


UNUSED = re.compile(r".*(num_batches_tracked|updater\.(norm_)?fc3\..+|fpn_conv\.4\..+|lateral_conv\.0\..+)")
# a few of ours, each of another kind
NAMES = {
    "backbone.bottom_up.body.stage4.2.fuse_layers.3.2.0.0.weight": (
        "backbone.bottom_up.stage4.2.fuse_layers.3.2.0.0.weight"
    ),
    "backbone.bottom_up.body.bn1.running_var": "backbone.bottom_up.bn1.running_var",
    "backbone.reduction.bias": "backbone.reduction_conv.0.bias",
    "backbone.outputs.3.weight": "backbone.fpn_conv.3.weight",
    "instance_queries.weight": "init_proposal_features.weight",
    "proposal_boxes.weight": "init_proposal_boxes.weight",
    "part_queries.weight": "part_query.weight",
    "flow.s.3.2.bias": "criterion.flow.flow.s.3.2.bias",
    "box_stages.5.interaction.norm2.weight": "head.head_series.5.inst_interact.norm2.weight",
    "box_stages.4.box_deltas.bias": "head.head_series.4.bboxes_delta.bias",
    "box_stages.0.norm2.bias": "head.head_series.0.norm2.bias",
    "keypoint_stages.2.interaction.norm.running_mean": (
        "head.pose_head_series.2.part_embed_generator.upsample.1.running_mean"
    ),
    "keypoint_stages.2.part_ffn.norm.bias": "head.pose_head_series.2.norm2_l.bias",
    "keypoint_stages.5.coord_heads.6.weight": "head.pose_head_series.5.fc_coord.6.linear.weight",
}  # fmt: skip
NAMES_OF_FULL = {
    "keypoint_stages.1.instance_interaction.out_layer.bias": (
        "head.pose_head_series.1.pose_decoder_inst_interact.out_layer.bias"
    ),
    "keypoint_stages.1.instance_norm.bias": "head.pose_head_series.1.inst_norm.bias",
    "keypoint_stages.1.instance_ffn.norm.bias": "head.pose_head_series.1.norm2.bias",
}


@pytest.mark.parametrize(
    ("config", "keys", "name"), [(FULL, "keys", "full"), (LIGHT, "keys_light", "light")], ids=["full", "light"]
)
def test_it_loads_by_itself(test_data, tmp_path, caplog, config, keys, name):
    state = state_of(test_data, keys)
    model = querypose(config)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(save({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.pth"))
    used = [key for key in state if not UNUSED.fullmatch(key)]
    report = f"the released {name} QueryPose weights, {len(used)} parameters converted; 0 unused []; 0 missing []"
    assert report in caplog.text

    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    ours = model.state_dict()
    # each one somewhere, and no two in one place
    assert sorted(value.flatten()[0].item() for value in converted.values()) == sorted(
        state[key].flatten()[0].item() for key in used
    )
    assert all(torch.equal(ours[key], value) for key, value in converted.items())
    for key, released in (NAMES | (NAMES_OF_FULL if name == "full" else {})).items():
        assert torch.equal(ours[key], state[released]), key


@pytest.mark.parametrize(
    ("config", "width", "neck"),
    [("configs/QueryPose/HRNet_W48_2x.yaml", "hrnet_w48", "HRFPN_v1"), (FULL, "hrnet_w32", "HRFPN")],
)
def test_necks_of_hrnet(test_data, config, width, neck):
    """HRNet-W48's laterals start with the second branch here."""
    state = state_of(test_data, "keys", width, stages="0")
    model = querypose(config, QUERYPOSE + "NUM_STAGES", 1)
    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    backbone = {key for key in model.state_dict() if key.startswith("backbone.") and "num_batches" not in key}
    assert {key for key in converted if key.startswith("backbone.")} == backbone
    model.load_state_dict(converted, strict=False)
    if neck == "HRFPN_v1":
        for ours, released in ((0, 1), (1, 2), (2, 3)):
            loaded = model.backbone.laterals[ours].weight
            assert torch.equal(loaded, state[f"backbone.lateral_conv.{released}.weight"])


def test_resnet_has_detectron2s_names(test_data):
    """As Sparse R-CNN, whose ResNet and FPN are detectron2's own: no recorded keys, but the same classes."""
    model = querypose("configs/QueryPose/R_50_2x.yaml", QUERYPOSE + "NUM_STAGES", 1)
    backbone = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
    assert "backbone.bottom_up.res2.0.conv1.norm.running_mean" in backbone
    assert "backbone.fpn_output5.bias" in backbone
    state = {**state_of(test_data, "keys", None, stages="0"), **backbone}
    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    assert model.state_dict().keys() - converted.keys() == {"keypoint_stages.0.interaction.norm.num_batches_tracked"}


@pytest.mark.parametrize(
    ("keys", "version", "correct"), [("keys", "full", True), ("keys_light", "light", False)], ids=["full", "light"]
)
def test_the_error_names_the_key_to_change_for_the_other_version(test_data, tmp_path, keys, version, correct):
    path = save(state_of(test_data, keys, stages="0"), tmp_path / "weights.pth")
    key = "MODEL.QUERYPOSE.DYNAMIC_MLP"
    model = querypose(FULL, QUERYPOSE + "NUM_STAGES", 1, key, not correct)
    message = rf"the released {version} QueryPose weights do not fit this model: .*with {key} {correct}\. "
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        PoseCheckpointer(model).load(path)
    PoseCheckpointer(querypose(FULL, QUERYPOSE + "NUM_STAGES", 1, key, correct)).load(path)


def test_incomplete_and_strange_weights_are_refused(test_data, tmp_path):
    state = state_of(test_data, "keys_light", stages="0")
    state["head.pose_head_series.0.extra.weight"] = torch.zeros(1)
    del state["head.pose_head_series.0.fc_sigma.3.linear.bias"]
    message = r"light QueryPose .*: 1 parameters missing \['keypoint_stages\.0\.sigma_heads\.3\.bias'\], 1 unused"
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(querypose(LIGHT, QUERYPOSE + "NUM_STAGES", 1)).load(save(state, tmp_path / "broken.pth"))


@pytest.fixture(scope="module")
def converted_file(test_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("querypose")
    released = save(state_of(test_data, "keys_light", stages="0"), folder / "released.pth")
    assert cli.main(["convert-weights", "--input", released, "--output", str(folder / "converted.pth")]) == 0
    return str(folder / "converted.pth")


def test_converted_weights_have_cocos_keypoints(test_data, tmp_path, capsys):
    """Counted over the parts: 10 + 6 x 4 numbers. Only layers without use are left behind."""
    released = save(state_of(test_data, "keys", None, stages="0"), tmp_path / "released.pth")
    assert cli.main(["convert-weights", "--input", released, "--output", str(tmp_path / "converted.pth")]) == 0
    note = torch.load(tmp_path / "converted.pth", weights_only=True)["dynpose"]
    assert note == {"method": "QueryPose", "keypoints": list(COCO_PERSON.names)}
    report = capsys.readouterr().out
    assert "the released full QueryPose, 17 keypoints" in report
    updater = "head.pose_head_series.0.updater."
    unused = [updater + "fc3.weight", updater + "norm_fc3.weight", updater + "norm_fc3.bias"]
    assert f"unused:    {', '.join(unused)}, 1 counters of steps (num_batches_tracked) (constants" in report


@pytest.mark.parametrize("name", ["converted", "released"])
def test_crowdpose_starts_from_all_but_head_and_neck(test_data, converted_file, tmp_path, caplog, name):
    """The same parts except for the keypoints of the head, whose part is kept; each keypoint of a part has two rows.

    CrowdPose's first part, the head and the neck, has two keypoints where COCO's has five.
    """
    state = state_of(test_data, "keys_light", stages="0")
    path = converted_file if name == "converted" else save(state, tmp_path / "released.pth")
    model = querypose(LIGHT, QUERYPOSE + "NUM_STAGES", 1, schema=CROWDPOSE_PERSON)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"the checkpoint has 17 keypoints|do not fit this model"):
        PoseCheckpointer(model).load(path)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(path)
    assert "left_ankle, right_ankle; initialised from scratch: head, neck (in " in caplog.text
    kinds = ("weight", "bias")
    fresh = {f"keypoint_stages.0.{heads}_heads.0.{kind}" for heads in ("coord", "sigma") for kind in kinds}
    converted, _ = convert_released(state, detect_released(state))
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, before[key] if key in fresh else converted[key]), key


def test_other_keypoints_start_from_converted_weights(converted_file, caplog):
    """Parts of one keypoint, each from that which its keypoint was in: COCO's are the head, the shoulders, ..."""
    model = querypose(LIGHT, QUERYPOSE + "NUM_STAGES", 1, schema=KeypointSchema(("tail", "left_wrist", "nose")))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(converted_file)
    assert "transferred: left_wrist, nose; initialised from scratch: tail (in " in caplog.text
    theirs, ours = torch.load(converted_file)["model"], model.state_dict()
    stage = "keypoint_stages.0."
    for key in ("part_queries.weight", stage + "interaction.attention.weight", stage + "interaction.attention.bias"):
        assert torch.equal(ours[key], torch.stack([before[key][0], theirs[key][2], theirs[key][0]])), key
    heads = stage + "coord_heads."
    assert torch.equal(ours[heads + "0.weight"], before[heads + "0.weight"])
    # the third part is the left elbow, then the wrist; the nose is the head's first
    assert torch.equal(ours[heads + "1.weight"], theirs[heads + "2.weight"][2:])
    assert torch.equal(ours[heads + "2.bias"], theirs[heads + "0.bias"][:2])
    residual = stage + "instance_residuals."
    assert torch.equal(ours[residual + "2.weight"], theirs[residual + "0.weight"])
    for key in ("instance_queries.weight", stage + "convs.0.weight", "box_stages.0.norm1.bias"):
        assert torch.equal(ours[key], theirs[key]), key


def test_single_person_pose_weights_fill_the_backbone(test_data, tmp_path, caplog):
    """pose_hrnet_w32_384x288.pth, which the release starts from: one output, and the layer that makes heatmaps."""
    prefix = "backbone.bottom_up."
    body = {key.removeprefix(prefix): value for key, value in state_of(test_data, "keys").items() if prefix in key}
    state = {key: value for key, value in body.items() if not re.match(r"stage4\.2\.fuse_layers\.[123]\.", key)}
    state |= {"final_layer.weight": torch.zeros(17, 32, 1, 1), "final_layer.bias": torch.zeros(17)}
    torch.save(state, tmp_path / "pose_hrnet_w32_384x288.pth")
    model = querypose(LIGHT, QUERYPOSE + "NUM_STAGES", 1)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(str(tmp_path / "pose_hrnet_w32_384x288.pth"))
    assert re.search(r"unused 2 \(.+\); 0 unknown \[\]; 0 missing \[\]; 0 of another shape", caplog.text)
    assert "fuses its branches into the finest alone" in caplog.text
    loaded = model.backbone.bottom_up.body.state_dict()
    for key, value in state.items():
        if not key.startswith("final_layer") and not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded[key], value), key
