"""The backbones against sizes and outputs recorded from the releases (reference/backbones, reference/cid)."""

import json
import re

import numpy as np
import pytest
import torch
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from reference_rule import assert_matches, rule_input, rule_state_dict

from dynpose.checkpoint.imagenet import convert_imagenet, detect_imagenet
from dynpose.modeling.backbone import DLA, HRFPN, BranchConcat, HRNet

IMAGES = rule_input(300, (1, 3, 64, 64))
HRFPN_NAMES = (
    (r"reduction_conv\.0\.", "reduction."),
    # level 5 and the lateral of the finest branch reach no output of the release
    (r"fpn_conv\.([0-3])\.", r"outputs.\1."),
    (r"lateral_conv\.([1-3])\.", lambda match: f"laterals.{int(match[1]) - 1}."),
)


def recorded(test_data, folder):
    folder = test_data / "reference" / folder
    shapes = json.loads((folder / "keys.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    return rule_state_dict(shapes, {}), config, np.load(folder / "outputs.npz")


def load_body(backbone, state_dict, prefix):
    """Load the part with a prefix into a timm adapter. Returns the number of values that the release does not use."""
    part = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    part = {key: value for key, value in part.items() if key.split(".")[0] not in ("reduction_conv", "fpn_conv")}
    report = convert_imagenet(part, detect_imagenet(part), "", backbone.body)
    assert report.fits
    assert not report.lacking
    backbone.body.load_state_dict(report.converted)
    unused = [key for keys in report.unused.values() for key in keys if not re.search("running|num_batches", key)]
    return sum(part[key].numel() for key in unused)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
@pytest.mark.parametrize(("width", "laterals"), [(32, False), (48, True)])
def test_hrnet_with_querypose_pyramid(test_data, width, laterals):
    state_dict, config, outputs = recorded(test_data, f"backbones/hrnet_w{width}")
    bottom_up = HRNet(width)
    neck = HRFPN(bottom_up, bottom_up.output_shape(), 256, laterals=laterals)
    assert load_body(bottom_up, state_dict, "backbone.bottom_up.") == 0
    renamed, unused = {}, 0
    for key, value in state_dict.items():
        name = key.removeprefix("backbone.")
        if name.startswith("bottom_up."):
            continue
        for pattern, replacement in HRFPN_NAMES:
            new_name, hits = re.subn(f"^{pattern}", replacement, name)
            if hits:
                renamed[new_name] = value
                break
        else:
            assert name.startswith(("fpn_conv.4.", "lateral_conv.0."))
            unused += value.numel()
    missing, unexpected = neck.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert all(name.startswith("bottom_up.") for name in missing)

    counts = config["param_counts"]
    assert count(bottom_up) == counts["bottom_up"]
    assert count(neck) - count(bottom_up) == counts["neck"] - unused
    for index, branch in enumerate(bottom_up.eval()(IMAGES).values()):
        assert_matches(branch, outputs, f"branch{index}", rel=1e-4)
    for name, level in neck.eval()(IMAGES).items():
        assert_matches(level, outputs, name, rel=1e-4)


@torch.no_grad()
def test_hrnet_with_cids_concatenation(test_data):
    state_dict, config, outputs = recorded(test_data, "cid")
    bottom_up = HRNet(32)
    load_body(bottom_up, state_dict, "backbone.")
    backbone = BranchConcat(bottom_up, bottom_up.output_shape()).eval()
    assert count(backbone) == config["param_counts"]["backbone"]
    joined = backbone(IMAGES)["concat"]
    assert_matches(joined, outputs, "backbone/out_64x64", rel=1e-4)
    branches = joined[0].split([32, 64, 128, 256])
    # the recorded mean and standard deviation of each branch
    statistics = torch.stack([torch.stack([branch.mean(), branch.std()]) for branch in branches])
    assert_matches(statistics, outputs, "backbone/out_mean_std_per_branch", rel=1e-3)


@torch.no_grad()
def test_dla34_with_fpn(test_data):
    state_dict, config, outputs = recorded(test_data, "backbones/dla34")
    bottom_up = DLA(34, out_features=("res3", "res4", "res5"))
    unused = load_body(bottom_up, state_dict, "backbone.bottom_up.")
    fpn = FPN(bottom_up, ["res3", "res4", "res5"], 256, top_block=LastLevelP6P7(256, 256, in_feature="p5")).eval()
    pyramid = {key.removeprefix("backbone."): value for key, value in state_dict.items() if "bottom_up" not in key}
    missing, unexpected = fpn.load_state_dict(pyramid, strict=False)
    assert not unexpected
    assert all(name.startswith("bottom_up.") for name in missing)

    # level3.project and level4.project, whose output the release throws away
    assert unused == 41_728
    whole, real_time = config["variants"]["BN_toplevels2"], config["variants"]["BN_toplevels0"]
    assert count(bottom_up) == whole["params_bottom_up"] - unused
    assert count(fpn) == whole["params_total"] - unused
    fpn_without_top = FPN(bottom_up, ["res3", "res4", "res5"], 256)
    assert count(fpn_without_top) == real_time["params_total"] - unused
    assert count(DLA(34, norm="FrozenBN")) == config["variants"]["FrozenBN_toplevels0"]["params_bottom_up"] - (
        # their two norms are constant there
        unused - 2 * (128 + 256)
    )
    for level, maps in zip(("level2", "level3", "level4", "level5"), DLA.forward(_all(bottom_up), IMAGES).values()):
        assert_matches(maps, outputs, level, rel=1e-4)
    for name, maps in fpn(IMAGES).items():
        assert_matches(maps, outputs, name, rel=1e-4)


def _all(backbone):
    """The same weights with all four outputs."""
    whole = DLA(34).eval()
    whole.body.load_state_dict(backbone.body.state_dict())
    return whole
