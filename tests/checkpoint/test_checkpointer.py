"""Checkpoints: dynpose's own, the released ones, and those that do not fit."""

import contextlib
import json
import logging

import pytest
import torch
from detectron2.modeling import build_model
from reference_rule import rule_state_dict
from small_models import SCHEMA, small_model

from dynpose.checkpoint import CheckpointError, PoseCheckpointer, convert_released, detect_released
from dynpose.config import load_config
from dynpose.data import COCO_PERSON, KeypointSchema, schema_to_cfg

PAPER = "configs/FCPose/R_50_3x.yaml"
FIVE = KeypointSchema(names=("a", "b", "c", "d", "e"), sigmas=(0.05,) * 5)


@pytest.fixture
def saved(tmp_path):
    """A dynpose checkpoint of a small FCPose with four keypoints."""
    model = small_model(PAPER, seed=1)
    PoseCheckpointer(model, str(tmp_path)).save("weights")
    return model, str(tmp_path / "weights.pth")


def test_round_trip(saved):
    model, path = saved
    other = small_model(PAPER, seed=2)
    PoseCheckpointer(other).load(path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert torch.load(path)["dynpose"] == {"method": "FCPose", "keypoints": list(SCHEMA.names), "classes": []}


def test_other_keypoints_are_refused_unless_to_be_learned(saved, caplog):
    model, path = saved
    other = small_model(PAPER, schema=FIVE, seed=2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"weights\.pth: the checkpoint has 4 keypoints .* the model 5"):
        PoseCheckpointer(other).load(path)
    with caplog.at_level(logging.WARNING):
        PoseCheckpointer(other, new_keypoints=True).load(path)
    fresh = ["controller.linear.weight", "controller.linear.bias", "refinement.conv.weight", "refinement.conv.bias"]
    assert (
        f"transferred: none; initialised from scratch: a, b, c, d, e (in 4 parameters: {', '.join(fresh)})"
        in caplog.text
    )
    # of the generated networks (8 channels, 2 coordinates, width 8), the two hidden layers are everybody's
    hidden = {"controller.linear": 10 * 8 + 8 + 8 * 8 + 8, "refinement.conv": 0}
    for name, value in other.state_dict().items():
        expected = model.state_dict()[name]
        if name in fresh:
            rows = hidden[name.rpartition(".")[0]]
            expected = torch.cat([expected[:rows], before[name][rows:]])
        assert torch.equal(value, expected), name


def test_another_network_of_the_same_keypoints_is_refused(saved):
    _, path = saved
    wider = small_model(PAPER, "MODEL.KP_NET.WIDTH", 16)
    with pytest.raises(CheckpointError, match="another shape than in the model"):
        PoseCheckpointer(wider, new_keypoints=True).load(path)


def test_another_method_is_refused(saved, tmp_path):
    _, path = saved
    checkpoint = torch.load(path)
    checkpoint["dynpose"]["method"] = "QueryPose"
    torch.save(checkpoint, tmp_path / "query.pth")
    with pytest.raises(CheckpointError, match=r"query\.pth: these are dynpose's weights of QueryPose, .* is FCPose"):
        PoseCheckpointer(small_model(PAPER)).load(str(tmp_path / "query.pth"))


def test_unreadable_files(tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"broken\.pth: can't be read"):
        PoseCheckpointer(small_model(PAPER)).load(str(broken))
    url = "http://127.0.0.1:9/w.pth?matching_heuristics=True"
    with pytest.raises(
        CheckpointError, match=r"^http://127\.0\.0\.1:9/w\.pth\?.*: can't be downloaded \(.*; check MODEL"
    ):
        PoseCheckpointer(small_model(PAPER)).load(url)
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such file"):
        PoseCheckpointer(small_model(PAPER)).load(str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ({"foo": 1}, "it holds 'foo', a int"),
        ({"model": {"foo": 1, "bar": "x"}}, "it holds 'foo', a int, 'bar', a str"),
        ({"net": {"weight": torch.ones(1)}}, "it holds 'net', a dict"),
        ({0: torch.ones(1)}, "it holds 0, a Tensor"),
        ([1, 2], "it holds a list"),
        (torch.ones(3), "it holds a Tensor"),
        ({}, "it holds no weights"),
        ({"state_dict": {}, "epoch": 3}, "it holds no weights"),
        ({"model": {}}, "it holds no weights"),
    ],
)
def test_files_without_weights(tmp_path, content, holds):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: {holds}, where a checkpoint has named tensors"):
        PoseCheckpointer(small_model(PAPER)).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("prefix", ["backbone.", ""])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "matching_heuristics": True}])
def test_weights_of_which_nothing_fits(tmp_path, prefix, wrap):
    state = {f"{prefix}conv1.bias_term": torch.ones(1), f"{prefix}layer9.term": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "other.pth")
    message = (
        rf"other\.pth: none of its weights fit the model: it holds other parameters \({prefix}conv1\.bias_term, "
        rf"{prefix}layer9\.term\) than FCPose \(backbone\.fpn_lateral3\.weight, .*, \.\.\.\)\. Give weights of this "
        r"model, or ImageNet weights of its backbone, ResNet, with detectron2's names"
    )
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(small_model(PAPER)).load(str(tmp_path / "other.pth"))


def test_weights_of_which_no_shape_fits(tmp_path):
    torch.save({"weight": torch.ones(3, 2), "other": torch.ones(1)}, tmp_path / "other.pth")
    message = r"it holds other parameters \(weight \(3, 2\), not \(1, 1\)\) than Linear \(weight, bias\)"
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / "other.pth"))


def test_constants_and_statistics_alone_are_no_weights(tmp_path):
    state = {"running_mean": torch.ones(2), "running_var": torch.ones(2)}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="none of its weights fit the model"):
        PoseCheckpointer(torch.nn.BatchNorm2d(2)).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("left_out", "is_complete"),
    [
        ("num_batches_tracked", True),
        ("constant", True),
        ("running_var", False),
        ("bias", False),
    ],
)
def test_complete_weights_have_all_that_is_learned(tmp_path, left_out, is_complete):
    model = torch.nn.BatchNorm2d(2)
    model.register_buffer("constant", torch.ones(1))
    state = model.state_dict()
    del state[left_out]
    torch.save(dict(state), tmp_path / "weights.pth")
    PoseCheckpointer(model).load(str(tmp_path / "weights.pth"))
    refused = pytest.raises(CheckpointError, match=rf"1 parameters of the model are not in it .*\({left_out}\)")
    with contextlib.nullcontext() if is_complete else refused:
        PoseCheckpointer(model, complete=True).load(str(tmp_path / "weights.pth"))


def test_backbone_weights_are_left_to_detectron2(tmp_path):
    model = small_model(PAPER, seed=1)
    weights = {k.removeprefix("backbone."): v for k, v in model.state_dict().items() if "bottom_up" in k}
    torch.save({"model": weights, "matching_heuristics": True}, tmp_path / "backbone.pth")
    other = small_model(PAPER, seed=2)
    PoseCheckpointer(other).load(str(tmp_path / "backbone.pth"))
    name = "backbone.bottom_up.res3.0.conv1.weight"
    assert torch.equal(other.state_dict()[name], model.state_dict()[name])


@pytest.mark.parametrize("method", ["fcpose", "inspose", "cid", "querypose", "querypose_first"])
def test_every_released_format_is_recognised(test_data, tmp_path, method):
    keys = json.loads((test_data / f"reference/{method}/keys.json").read_text())
    assert detect_released(dict.fromkeys(keys)).method.lower().removesuffix("released") == method.split("_")[0]
    torch.save(dict.fromkeys(keys, torch.zeros(1)), tmp_path / "released.pth")
    checkpointer = PoseCheckpointer(torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"released\.pth: these are .* weights of .*, but the model is Linear"):
        checkpointer.load(str(tmp_path / "released.pth"))


def test_detection_ignores_dynposes_own():
    assert detect_released(small_model(PAPER).state_dict()) is None


@pytest.fixture(scope="module")
def released_fcpose(test_data):
    """The whole released model, with weights made by the rule."""
    shapes = json.loads((test_data / "reference/fcpose/keys_full_model_r50.json").read_text())
    sizes = {"proposal_generator.fcpose_head.sizes_of_interest": [64, 128, 256, 512, 1333]}
    return rule_state_dict(shapes, sizes)


def test_released_fcpose_loads_by_itself(released_fcpose, tmp_path, caplog):
    torch.save({"model": {f"module.{k}": v for k, v in released_fcpose.items()}}, tmp_path / "R_50_3X.pth")
    cfg = load_config("configs/FCPose/R_50_3x_release.yaml", ["MODEL.DEVICE", "cpu"])
    schema_to_cfg(cfg, COCO_PERSON)
    model = build_model(cfg)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(str(tmp_path / "R_50_3X.pth"))
    assert "AdelaiDet's FCPose weights, 388 parameters converted; 0 unused []; 0 missing []" in caplog.text
    converted, unknown = convert_released(released_fcpose, detect_released(released_fcpose))
    assert not unknown
    # all but the constant sizes_of_interest
    assert len(converted) == len(released_fcpose) - 1
    state = model.state_dict()
    for name, value in converted.items():
        assert torch.equal(state[name], value), name
    assert state["controller.linear.weight"].shape == (2737, 2304)


SHUFFLED = KeypointSchema(names=("beak", "right_knee", "nose"), sigmas=(0.05,) * 3)


def release_model(schema):
    cfg = load_config("configs/FCPose/R_50_3x_release.yaml", ["MODEL.DEVICE", "cpu"])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, schema)
    return build_model(cfg)


def test_released_fcpose_is_fine_tuned_on_other_keypoints(released_fcpose, tmp_path, caplog):
    """Its layers of two numbers a keypoint: right_knee is COCO's 14th, nose its first."""
    torch.save({"model": released_fcpose}, tmp_path / "R_50_3X.pth")
    model = release_model(SHUFFLED)
    with pytest.raises(CheckpointError, match=r"do not fit this model.*To learn other keypoints, train with such a"):
        PoseCheckpointer(model).load(str(tmp_path / "R_50_3X.pth"))
    own = model.basis.project.bias.clone()
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(str(tmp_path / "R_50_3X.pth"))
    assert "388 parameters converted; 0 unused []; 0 missing []; 0 of another shape []" in caplog.text
    assert "transferred: right_knee, nose; initialised from scratch: beak (in 9 parameters: " in caplog.text
    theirs = released_fcpose["proposal_generator.basis_module.tower.4.bias"]
    expected = torch.cat([theirs[:32], own[32:34], theirs[32 + 28 : 32 + 30], theirs[32:34]])
    assert torch.equal(model.basis.project.bias, expected)
    # a whole 3 x 3 controller: 2176 rows of hidden layers, then 17 x 32 weights
    theirs = released_fcpose["proposal_generator.fcpose_head.atten_producer.weight"].flatten(1)
    ours = model.controller.linear.weight
    assert torch.equal(ours[:2176], theirs[:2176])
    assert torch.equal(ours[2176 + 32 : 2176 + 64], theirs[2176 + 14 * 32 : 2176 + 15 * 32])
    # the transposed convolution reads 128 channels and the coarse maps
    theirs = released_fcpose["proposal_generator.basis_module.upsampler.0.weight"]
    assert torch.equal(model.aux_heatmaps.upsample.weight[:128], theirs[:128])
    assert torch.equal(model.aux_heatmaps.upsample.weight[129:], theirs[[128 + 14, 128]])


def test_released_weights_of_cocos_keypoints_in_another_order(released_fcpose, tmp_path):
    torch.save({"model": released_fcpose}, tmp_path / "R_50_3X.pth")
    model = release_model(KeypointSchema(names=COCO_PERSON.names[::-1], sigmas=COCO_PERSON.sigmas[::-1]))
    PoseCheckpointer(model, complete=True).load(str(tmp_path / "R_50_3X.pth"))
    coarse = released_fcpose["proposal_generator.basis_module.p3_logits.bias"]
    assert torch.equal(model.aux_heatmaps.coarse.bias, coarse.flip(0))


def test_seventeen_keypoints_of_ones_own_in_the_released_format(released_fcpose, tmp_path):
    """Trained with AdelaiDet on other data: their user knows their keypoints."""
    torch.save({"model": released_fcpose}, tmp_path / "animals.pth")
    model = release_model(KeypointSchema(names=[f"point{i}" for i in range(17)], sigmas=[0.05] * 17))
    PoseCheckpointer(model, complete=True).load(str(tmp_path / "animals.pth"))
    coarse = released_fcpose["proposal_generator.basis_module.p3_logits.bias"]
    assert torch.equal(model.aux_heatmaps.coarse.bias, coarse)


def test_released_fcpose_does_not_load_into_the_paper_variant(released_fcpose, tmp_path):
    torch.save({"model": released_fcpose}, tmp_path / "R_50_3X.pth")
    cfg = load_config(PAPER, ["MODEL.DEVICE", "cpu"])
    schema_to_cfg(cfg, COCO_PERSON)
    with pytest.raises(CheckpointError, match=r"do not fit this model.*R_50_3x_release\.yaml"):
        PoseCheckpointer(build_model(cfg)).load(str(tmp_path / "R_50_3X.pth"))
