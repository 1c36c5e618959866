"""ImageNet weights of HRNet, DLA and Swin in the formats that users have."""

import logging
import re

import pytest
import timm
import torch
from quick_initialisation import quick_initialisation
from safetensors.torch import save_file
from small_models import small_model

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.checkpoint.imagenet import detect_imagenet, find_backbone, resize_position_table
from dynpose.modeling.backbone import DLA, HRNet, Swin, Timm

CONFIG = "configs/FCPose/R_50_1x.yaml"
REAL_TIME = "configs/FCPose/DLA_34_4x.yaml"


@pytest.fixture(autouse=True)
def _quick_initialisation():
    """The weights that the models begin with are replaced."""
    with quick_initialisation():
        yield


def weights(backbone, seed=1):
    """Parameters of the network by timm's names, all of them random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value if value.dtype == torch.int64 else torch.rand(value.shape, generator=generator)
        for key, value in backbone.body.state_dict().items()
    }


def without_counters(state_dict):
    """As files from before torch 0.4.1."""
    return {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}


def original_hrnet(state_dict):
    """hrnetv2_w32_imagenet_pretrained.pth: timm's names, and the classifier."""
    heads = ["incre_modules.0.0.conv1.weight", "downsamp_modules.0.0.bias", "final_layer.0.weight", "classifier.weight"]
    return {**state_dict, **dict.fromkeys(heads, torch.zeros(2))}


def pose_hrnet(state_dict):
    """pose_hrnet_w32_384x288.pth: only the finest output, and the layer that makes the heatmaps."""
    kept = {k: v for k, v in state_dict.items() if not re.match(r"stage4\.2\.fuse_layers\.[123]", k)}
    return {**kept, "final_layer.weight": torch.zeros(17, 18, 1, 1), "final_layer.bias": torch.zeros(17)}


def original_dla(state_dict):
    """dla34-ba72cf86.pth: timm's names, projections that are not used, and the classifier."""
    project = {"level3.project.0.weight": torch.zeros(128, 64, 1, 1), "level4.project.1.running_mean": torch.zeros(256)}
    return {**without_counters(state_dict), **project, "fc.weight": torch.zeros(1000, 512, 1, 1)}


def microsoft_swin(state_dict):
    """Swin's names: patch merging ends a stage; buffers are saved."""
    renamed = {}
    for key, value in state_dict.items():
        renamed[re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)] = value
    assert "layers.0.downsample.reduction.weight" in renamed
    assert "layers.3.downsample.reduction.weight" not in renamed
    buffers = ["layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.1.attn_mask"]
    heads = ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    return {"model": {**renamed, **dict.fromkeys([*buffers, *heads], torch.zeros(2))}}


FORMATS = {
    # file, backbone, from timm's names to the file's, the unused parameters in the report
    "HRNet": ("w18.pth", lambda: HRNet(18), original_hrnet, r"unused 4 \(classifier\)"),
    "HRNet, distributed": (
        "w18.pth",
        lambda: HRNet(18),
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "unused 0;",
    ),
    "DLA": (
        "dla34.pth",
        lambda: DLA(34),
        original_dla,
        r"unused 1 \(classifier\), 2 \(output discarded by the release\)",
    ),
    "DLA, timm": (
        "model.safetensors",
        lambda: DLA(34),
        lambda state: {**state, "fc.bias": torch.zeros(1000)},
        r"unused 1 \(classifier\)",
    ),
    "Swin": (
        "swin.pth",
        lambda: Swin("tiny"),
        microsoft_swin,
        r"unused 2 \(classifier\), 2 \(norm before the classifier\), 2 \(recomputed\)",
    ),
    "Swin, timm": (
        "model.safetensors",
        lambda: Swin("tiny"),
        lambda state: {**state, "norm.weight": torch.zeros(768), "head.fc.weight": torch.zeros(1000, 768)},
        r"unused 1 \(classifier\), 1 \(norm before the classifier\)",
    ),
}


def save(state_dict, path):
    if path.suffix == ".safetensors":
        save_file(state_dict, path)
    else:
        torch.save(state_dict, path)
    return str(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_round_trip(kind, tmp_path, caplog):
    name, make, to_file, report = FORMATS[kind]
    model = make()
    expected = weights(model)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model).load(save(to_file(expected), tmp_path / name))
    state = model.body.state_dict()
    for key, value in without_counters(expected).items():
        assert torch.equal(state[key], value), key
    assert re.search(report, caplog.text)
    assert "0 unknown []; 0 missing []; 0 of another shape []" in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("dynpose") and record.levelname != "INFO"]


def timms_own(name, seed=1):
    """All parameters of a network, the classifier's too, by the names of timm's files."""
    torch.manual_seed(seed)
    state = timm.create_model(name, pretrained=False).state_dict()
    return {key: value if value.dtype == torch.int64 else torch.rand(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name", ["convnext_atto", "regnetx_002"])
def test_a_network_by_its_name(name, tmp_path, caplog):
    path = save(timms_own(name), tmp_path / "model.safetensors")
    timm.models.load_checkpoint(whole := timm.create_model(name, pretrained=False), path)
    ours = Timm(name)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(ours).load(path)
    report = rf"timm's {name} ImageNet weights, .* unused \d+ \(after the feature maps\); 0 unknown \[\]; 0 missing"
    assert re.search(report, caplog.text)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)[-4:]
        for value, target in zip(ours.eval()(images).values(), expected, strict=True):
            torch.testing.assert_close(value, target)


def test_another_network_than_the_named_one(tmp_path):
    path = save(timms_own("convnext_atto"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"do not fit this backbone: .* of another size of Timm, .* MODEL\.TIMM"):
        PoseCheckpointer(Timm("convnext_femto")).load(path)
    with pytest.raises(CheckpointError, match=r"none of its weights fit the model"):
        PoseCheckpointer(Timm("regnetx_002")).load(path)
    path = save(original_dla(weights(DLA(34))), tmp_path / "dla34.pth")
    with pytest.raises(CheckpointError, match=r"ImageNet weights of DLA, but the model's backbone is Timm"):
        PoseCheckpointer(Timm("regnetx_002")).load(path)


def test_into_a_whole_model(tmp_path):
    model = small_model(REAL_TIME)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    prefix, _ = find_backbone(model)
    assert prefix == "backbone.bottom_up.body."
    expected = weights(model.backbone.bottom_up)
    PoseCheckpointer(model).load(save(original_dla(expected), tmp_path / "dla34.pth"))
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            wanted = expected[key.removeprefix(prefix)] if key.startswith(prefix) else before[key]
            assert torch.equal(value, wanted), key


def test_constant_norms_take_the_weights(tmp_path):
    model = DLA(34, norm="FrozenBN")
    expected = weights(DLA(34))
    PoseCheckpointer(model).load(save(expected, tmp_path / "dla34.pth"))
    assert torch.equal(model.body.state_dict()["level2.root.bn.running_var"], expected["level2.root.bn.running_var"])


def test_pose_network_lacks_three_outputs(tmp_path, caplog):
    model = HRNet(18)
    before = {key: value.clone() for key, value in model.body.state_dict().items()}
    expected = weights(model)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model).load(save(pose_hrnet(expected), tmp_path / "pose_hrnet.pth"))
    state = model.body.state_dict()
    fresh = "stage4.2.fuse_layers.3.0.2.0.weight"
    assert torch.equal(state[fresh], before[fresh])
    assert torch.equal(state["stage4.2.fuse_layers.0.1.0.weight"], expected["stage4.2.fuse_layers.0.1.0.weight"])
    assert re.search(
        r"fuses its branches into the finest alone: \d+ parameters initialised from scratch: ", caplog.text
    )
    assert fresh in caplog.text


def test_swin_of_another_window(tmp_path, caplog):
    expected = weights(Swin("tiny", window_size=12))
    path = save(microsoft_swin(expected), tmp_path / "swin.pth")
    table = "layers.2.blocks.1.attn.relative_position_bias_table"
    same, other = Swin("tiny", window_size=12), Swin("tiny")
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(same).load(path)
        assert "interpolated" not in caplog.text
        PoseCheckpointer(other).load(path)
    assert "12 relative-position tables of another window interpolated; set MODEL.SWIN.WINDOW_SIZE" in caplog.text
    assert torch.equal(same.body.state_dict()[table], expected[table])
    assert torch.equal(other.body.state_dict()[table], resize_position_table(expected[table], 13 * 13))


def test_resized_tables():
    """The centre (no offset) stays the centre, a mirrored table a mirrored one, a constant a constant."""
    table = torch.rand(23 * 23, 3, generator=torch.Generator().manual_seed(0))
    resized = resize_position_table(table, 13 * 13)
    assert resized.shape == (169, 3)
    torch.testing.assert_close(resized[84], table[264])
    torch.testing.assert_close(resize_position_table(table.flip(0), 169), resized.flip(0))
    torch.testing.assert_close(resize_position_table(torch.full((529, 1), 0.5), 169), torch.full((169, 1), 0.5))
    assert torch.equal(resize_position_table(table, 529), table)


def without(key):
    return lambda state: {k: v for k, v in original_dla(state).items() if k != key}


@pytest.mark.parametrize(
    ("make_file", "message"),
    [
        (
            lambda: original_dla(weights(DLA(60))),
            r"DLA's .* do not fit this backbone: .* of another shape \['level2\..*They are of another size of DLA.*"
            r"MODEL\.DLA",
        ),
        (
            lambda: without("level5.root.conv.weight")(weights(DLA(34))) | {"level5.root.conv.weight": torch.zeros(1)},
            r"1 of another shape \['level5\.root\.conv\.weight \(1,\) instead of \(512, 1280, 1, 1\)'\]",
        ),
        (
            lambda: without("level4.tree2.root.bn.bias")(weights(DLA(34))),
            r"1 parameters missing \['level4\.tree2\.root\.bn\.bias'\], 0 unknown",
        ),
        (
            lambda: {**weights(DLA(34)), "level6.conv.weight": torch.zeros(1)},
            r"0 parameters missing \[\], 1 unknown \['level6\.conv\.weight'\]",
        ),
        (
            lambda: original_hrnet(weights(HRNet(18))),
            r"these are ImageNet weights of HRNet, but the model's backbone is DLA\. Give weights of that",
        ),
        (
            lambda: {"state_dict": {f"backbone.{key}": value for key, value in weights(DLA(34)).items()}},
            r"none of its weights fit the model: it holds other parameters \(backbone\.base_layer\.0\.weight, .* of "
            r"its backbone, DLA, with the names of its release or of timm and no other prefix",
        ),
        (
            lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
            r"none of its weights fit the model: it holds other parameters \(conv1\.weight, layer1\.0\.conv1\.weight\)",
        ),
        (
            lambda: {"model": {"stem.conv1.weight": torch.zeros(64, 3, 7, 7)}, "matching_heuristics": True},
            r"these are not weights of DLA, the model's backbone",
        ),
    ],
)
def test_weights_that_do_not_fit(make_file, message, tmp_path):
    model = small_model(REAL_TIME)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"file\.pth: .*" + message):
        PoseCheckpointer(model).load(save(make_file(), tmp_path / "file.pth"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_resnet_refuses_other_backbones(tmp_path):
    with pytest.raises(CheckpointError, match=r"ImageNet weights of DLA, but the model's backbone is ResNet"):
        PoseCheckpointer(small_model(CONFIG)).load(save(weights(DLA(34)), tmp_path / "dla34.pth"))


def test_dynposes_own_checkpoints_are_no_imagenet_weights(tmp_path):
    model, other = small_model(REAL_TIME, seed=1), small_model(REAL_TIME, seed=2)
    assert detect_imagenet(model.state_dict()) is None
    PoseCheckpointer(model, str(tmp_path)).save("weights")
    PoseCheckpointer(other).load(str(tmp_path / "weights.pth"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_broken_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: can't be read as a checkpoint"):
        PoseCheckpointer(DLA(34)).load(str(path))
