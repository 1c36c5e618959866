"""opera's InsPose checkpoints: every key has a place, with mmdetection's names of the ResNet and the FPN."""

import json
import logging

import pytest
import torch
from detectron2.modeling import build_model
from quick_initialisation import quick_initialisation
from reference_rule import rule_state_dict
from torchvision.models import resnet50

from dynpose.checkpoint import CheckpointError, PoseCheckpointer, convert_released, detect_released
from dynpose.config import load_config
from dynpose.data import COCO_PERSON, schema_to_cfg

RELEASE = "configs/InsPose/R_50_3x_release.yaml"
BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}


def backbone_shapes():
    """mmdetection's ResNet-50 has torchvision's names and shapes; its FPN's are written down here."""
    shapes = {
        f"backbone.{key}": list(value.shape)
        for key, value in resnet50(weights=None).state_dict().items()
        if not key.startswith("fc.")
    }
    for index, channels in enumerate((512, 1024, 2048)):
        shapes[f"neck.lateral_convs.{index}.conv.weight"] = [256, channels, 1, 1]
        shapes[f"neck.lateral_convs.{index}.conv.bias"] = [256]
    for index in range(5):
        shapes[f"neck.fpn_convs.{index}.conv.weight"] = [256, 256, 3, 3]
        shapes[f"neck.fpn_convs.{index}.conv.bias"] = [256]
    return shapes


@pytest.fixture(scope="module")
def head_shapes(test_data):
    return json.loads((test_data / "reference/inspose/keys.json").read_text())


@pytest.fixture(scope="module")
def state(head_shapes):
    """The whole model's parameters by the rule."""
    shapes = {**backbone_shapes(), **{f"bbox_head.{key}": shape for key, shape in head_shapes.items()}}
    return rule_state_dict(shapes, {"bbox_head.conv_cls.bias": -3.2})


def released_model():
    cfg = load_config(RELEASE, ["MODEL.DEVICE", "cpu"])
    schema_to_cfg(cfg, COCO_PERSON)
    with quick_initialisation():
        return build_model(cfg)


def test_it_loads_by_itself(state, tmp_path, caplog):
    # as mmcv saves it
    meta = {"epoch": 36, "mmdet_version": "2.25.0", "CLASSES": ("person",)}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "inspose_r50.pth")
    model = released_model()
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(str(tmp_path / "inspose_r50.pth"))
    steps = [key for key in state if key.endswith("num_batches_tracked")]
    report = f"opera's InsPose weights, {len(state) - len(steps)} parameters converted; 0 unused []; 0 missing []"
    assert report in caplog.text

    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    ours = model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in converted.items())
    names = {
        "backbone.bottom_up.stem.conv1.norm.running_var": "backbone.bn1.running_var",
        "backbone.bottom_up.res3.0.shortcut.weight": "backbone.layer2.0.downsample.0.weight",
        "backbone.bottom_up.res3.0.shortcut.norm.bias": "backbone.layer2.0.downsample.1.bias",
        "backbone.bottom_up.res5.2.conv3.norm.running_mean": "backbone.layer4.2.bn3.running_mean",
        "backbone.fpn_lateral5.bias": "neck.lateral_convs.2.conv.bias",
        "backbone.fpn_output3.weight": "neck.fpn_convs.0.conv.weight",
        "backbone.top_block.p7.weight": "neck.fpn_convs.4.conv.weight",
        "head.controller_star.norm.weight": "bbox_head.ctr_star_gn.weight",
        "keypoint_features.project.norm.bias": "bbox_head.shared_convs.4.gn.bias",
        "aux_branch.fine_tower.0.weight": "bbox_head.hm_convs.2.conv.weight",
    }
    for name, released in names.items():
        assert torch.equal(ours[name], state[released]), name
    assert torch.equal(ours["controller.linear.weight"], state["bbox_head.controller.weight"].reshape(313, -1))


def test_the_backbone_is_mmdetections(state):
    """torchvision's ResNet with the same weights, and an FPN written out, give P3 to P7."""
    model = released_model().eval()
    converted, _ = convert_released(state, detect_released(state))
    model.load_state_dict(converted, strict=False)
    network = resnet50(weights=None).eval()
    network.fc = torch.nn.Identity()
    weights = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    network.load_state_dict(weights)
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 96)
    conv = torch.nn.functional.conv2d
    with torch.no_grad():
        maps = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(images)))))
        stages = []
        for layer in (network.layer2, network.layer3, network.layer4):
            maps = layer(maps)
            stages.append(maps)
        merged = [conv(stage, *_of(state, f"neck.lateral_convs.{i}.conv")) for i, stage in enumerate(stages)]
        for i in (1, 0):
            merged[i] = merged[i] + torch.nn.functional.interpolate(merged[i + 1], scale_factor=2)
        pyramid = [conv(m, *_of(state, f"neck.fpn_convs.{i}.conv"), padding=1) for i, m in enumerate(merged)]
        pyramid.append(conv(pyramid[-1], *_of(state, "neck.fpn_convs.3.conv"), stride=2, padding=1))
        pyramid.append(conv(pyramid[-1].relu(), *_of(state, "neck.fpn_convs.4.conv"), stride=2, padding=1))
        ours = model.backbone(images)
    for level, expected in zip(range(3, 8), pyramid):
        scale = expected.abs().max().item()
        torch.testing.assert_close(ours[f"p{level}"], expected, rtol=0, atol=1e-4 * scale)


def _of(state, name):
    return state[f"{name}.weight"], state[f"{name}.bias"]


def test_incomplete_and_strange_weights_are_refused(state, tmp_path):
    broken = {**state, "bbox_head.extra.weight": torch.zeros(1)}
    del broken["neck.fpn_convs.4.conv.bias"]
    torch.save({"state_dict": broken}, tmp_path / "broken.pth")
    message = r"opera's InsPose weights do not fit .*: 1 parameters missing \['backbone.top_block.p7.bias'\], 1 unused"
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(released_model()).load(str(tmp_path / "broken.pth"))


def test_the_paper_variant_refuses_them(state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "inspose_r50.pth")
    cfg = load_config("configs/InsPose/R_50_36e.yaml", ["MODEL.DEVICE", "cpu"])
    schema_to_cfg(cfg, COCO_PERSON)
    with pytest.raises(CheckpointError, match="weights of InsPoseReleased, but the model is InsPose"):
        PoseCheckpointer(build_model(cfg)).load(str(tmp_path / "inspose_r50.pth"))
