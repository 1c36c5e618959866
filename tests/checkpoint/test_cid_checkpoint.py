"""The released CID checkpoints: every key has a place; other keypoints start from them."""

import json
import logging

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from quick_initialisation import quick_initialisation
from reference_rule import rule_state_dict
from small_models import SCHEMA

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import CheckpointError, PoseCheckpointer, convert_released, detect_released
from dynpose.config import add_dynpose_config
from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON, KeypointSchema, schema_to_cfg
from dynpose.tools import cli


@pytest.fixture(scope="module")
def state(test_data):
    keys = json.loads((test_data / "reference/cid/keys.json").read_text())
    return rule_state_dict(keys, {})


@pytest.fixture(scope="module")
def released_file(state, tmp_path_factory):
    # as its training saves it from several processes
    path = tmp_path_factory.mktemp("cid") / "coco_hrnet_w32.pth"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path


def cid(schema=COCO_PERSON, **keys):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CID"
    cfg.MODEL.BACKBONE.NAME = "build_hrnet_concat_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    for key, value in keys.items():
        cfg.MODEL.CID[key] = value
    schema_to_cfg(cfg, schema)
    with quick_initialisation():
        return build_model(cfg)


def test_it_loads_by_itself(state, released_file, caplog):
    model = cid()
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(str(released_file))
    steps = [key for key in state if key.endswith("num_batches_tracked")]
    report = f"the released CID weights, {len(state) - len(steps)} parameters converted; 0 unused []; 0 missing []"
    assert report in caplog.text

    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    ours = model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in converted.items())
    names = {
        "backbone.bottom_up.body.stage4.2.fuse_layers.3.2.0.0.weight": "backbone.stage4.2.fuse_layers.3.2.0.0.weight",
        "backbone.bottom_up.body.bn1.running_var": "backbone.bn1.running_var",
        "iia.heatmaps.bias": "iia.keypoint_center_conv.bias",
        "gfd.reduce.weight": "gfd.conv_down.weight",
        "gfd.channel_weights.weight": "gfd.c_attn.atn.weight",
        "gfd.similarity_weights.weight": "gfd.s_attn.atn.weight",
        "gfd.mask.weight": "gfd.s_attn.conv.weight",
        "gfd.fuse.weight": "gfd.fuse_attn.weight",
        "gfd.heatmaps.bias": "gfd.heatmap_conv.bias",
    }
    for name, released in names.items():
        assert torch.equal(ours[name], state[released]), name


def test_its_training_checkpoint_loads(state, tmp_path):
    """Its "model" is the model's name."""
    best = {key: value + 1 for key, value in state.items()}
    checkpoint = {"epoch": 140, "model": "CID", "state_dict": state, "best_state_dict": best, "optimizer": {}}
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    model = cid()
    model.origin = 0.5  # MODEL.CID.INDEX_COORDINATES
    PoseCheckpointer(model, complete=True).load(str(tmp_path / "checkpoint.pth.tar"))
    assert torch.equal(model.gfd.reduce.weight, state["gfd.conv_down.weight"])


def test_continuous_cells_would_move_every_keypoint(state, tmp_path, caplog):
    torch.save(state, tmp_path / "released.pth")
    message = "the released CID weights reproduce the authors' results only with MODEL.CID.INDEX_COORDINATES True"
    with pytest.raises(CheckpointError, match=f"{message}; set it, or use .*HRNet_W32_140e_release.yaml"):
        PoseCheckpointer(cid(), complete=True).load(str(tmp_path / "released.pth"))
    PoseCheckpointer(cid()).load(str(tmp_path / "released.pth"))
    assert f"{message}: training must learn the difference" in caplog.text


def test_crowdposes_weights_name_their_config(state, tmp_path):
    def crowdpose(key, value):
        """14 of the 17 keypoints; one map more is that of the centres."""
        rows = {"iia.keypoint_center_conv": 15, "gfd.heatmap_conv": 14}.get(key.rpartition(".")[0])
        return value[:rows] if rows else value

    torch.save({key: crowdpose(key, value) for key, value in state.items()}, tmp_path / "crowdpose.pth")
    with pytest.raises(CheckpointError, match=r"do not fit .* CrowdPose's 14 keypoints HRNet_W32_300e_crowdpose"):
        PoseCheckpointer(cid()).load(str(tmp_path / "crowdpose.pth"))
    PoseCheckpointer(cid(CROWDPOSE_PERSON)).load(str(tmp_path / "crowdpose.pth"))


@pytest.mark.parametrize("crowdpose", [False, True])
def test_other_keypoints_start_from_released_weights(state, tmp_path, caplog, crowdpose):
    """COCO's and CrowdPose's have different numbers: 13 is COCO's left knee and CrowdPose's neck."""
    rows = {"iia.keypoint_center_conv": 15, "gfd.heatmap_conv": 14} if crowdpose else {}
    released = {
        key: value[: rows.get(key.rpartition(".")[0])] if value.dim() else value for key, value in state.items()
    }
    torch.save(released, tmp_path / "released.pth")
    model = cid(KeypointSchema(names=("neck", "left_knee"), sigmas=(0.05, 0.05)))
    own = model.gfd.heatmaps.weight.clone()
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(str(tmp_path / "released.pth"))
    assert "0 unused []; 0 missing []; 0 of another shape []" in caplog.text
    theirs = released["gfd.heatmap_conv.weight"]
    expected = [theirs[13], theirs[8]] if crowdpose else [own[0], theirs[13]]
    assert torch.equal(model.gfd.heatmaps.weight, torch.stack(expected))
    assert torch.equal(model.iia.heatmaps.bias[2], released["iia.keypoint_center_conv.bias"][-1])


def test_incomplete_and_strange_weights_are_refused(state, tmp_path):
    broken = {**state, "gfd.extra.weight": torch.zeros(1)}
    del broken["gfd.s_attn.conv.bias"]
    torch.save(broken, tmp_path / "broken.pth")
    message = r"the released CID weights do not fit .*: 1 parameters missing \['gfd.mask.bias'\], 1 unused"
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(cid()).load(str(tmp_path / "broken.pth"))


def test_the_papers_choice_has_no_place_for_the_linear_layers(released_file):
    with pytest.raises(CheckpointError, match=r"do not fit .* 4 unused"):
        PoseCheckpointer(cid(CHANNEL_WEIGHTS="feature")).load(str(released_file))


def test_other_keypoints_start_from_converted_weights(state, released_file, tmp_path, caplog, capsys):
    converted = tmp_path / "cid.pth"
    assert cli.main(["convert-weights", "--input", str(released_file), "--output", str(converted)]) == 0
    assert "the released CID, 17 keypoints" in capsys.readouterr().out
    assert torch.load(converted, weights_only=True)["dynpose"]["method"] == "CID"

    model = cid(SCHEMA)
    with pytest.raises(CheckpointError, match=r"the checkpoint has 17 keypoints .* the model 4"):
        PoseCheckpointer(model).load(str(converted))
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(str(converted))
    names = "iia.heatmaps.weight, iia.heatmaps.bias, gfd.heatmaps.weight, gfd.heatmaps.bias"
    expected = f"initialised from scratch: head, left_hand, right_hand, foot (in 4 parameters: {names})"
    assert expected in caplog.text
    # the centres' map is of no keypoint, and stays the last
    assert torch.equal(model.iia.heatmaps.weight[4], state["iia.keypoint_center_conv.weight"][17])
    assert torch.equal(model.gfd.fuse.weight, state["gfd.fuse_attn.weight"])


def test_imagenet_weights_fill_the_backbone(state, tmp_path):
    """The original HRNet's file, as the release starts from: the same names, and a classifier."""
    weights = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    weights["classifier.weight"] = torch.zeros(1000, 2048)
    torch.save(weights, tmp_path / "hrnet_w32.pth")
    model = cid()
    PoseCheckpointer(model).load(str(tmp_path / "hrnet_w32.pth"))
    assert torch.equal(model.backbone.bottom_up.body.conv1.weight, state["backbone.conv1.weight"])
