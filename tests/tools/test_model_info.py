"""`dynpose model-info` against the counts of the released network and against counting by hand."""

import json

import pytest
from small_models import SCHEMA, small_config, small_model
from torch import nn

from dynpose.config import load_config
from dynpose.profiling.flops import count_flops, count_flops_per_network, count_parameters, padded_size
from dynpose.tools.cli import main

RELEASE = "configs/FCPose/R_50_3x_release.yaml"


@pytest.fixture(scope="module")
def released_r50():
    from detectron2.modeling import build_model

    cfg = load_config(RELEASE, ["MODEL.DEVICE", "cpu", "MODEL.FCOS.SCORE_THRESH_TEST", "1.0"])
    return build_model(cfg).eval()


@pytest.fixture(scope="module")
def recorded(test_data):
    return json.loads((test_data / "reference" / "fcpose" / "full_model_counts.json").read_text())["R50"]


def test_parameters_of_the_released_network(released_r50, recorded):
    """The release also counts its five sizes of interest, which are no parameters of dynpose's."""
    counts = count_parameters(released_r50)
    assert sum(total for total, _ in counts.values()) == recorded["params_total"] - 5
    assert sum(trainable for _, trainable in counts.values()) == recorded["params_trainable_if_freeze_at_2"]
    assert counts["backbone"][0] == recorded["params_backbone"]
    assert counts["head"][0] == recorded["params_fcos"]
    assert counts["basis"][0] + counts["aux_heatmaps"][0] == recorded["params_basis"]
    assert counts["controller"][0] == recorded["params_head_linear"] - 5


def test_flops_of_the_released_network(released_r50, recorded):
    """fvcore knows the release's up-sampling of P4 and P5 (to one cell more, 128 channels, 4 FLOPs a value)."""
    flops = count_flops(released_r50, (512, 512))
    interpolation = 2 * 65 * 65 * 128 * 4
    assert sum(flops.values()) + interpolation == recorded["GMAC_512x512_without_dynamic_part"] * 1e9
    assert "aux_heatmaps" not in flops


def test_flops_per_network_of_the_released_model(released_r50, recorded):
    per_network = count_flops_per_network(released_r50, (800, 1344))
    assert sum(per_network.values()) == recorded["GMAC_dynamic_part_per_person_at_800x1344"] * 1e9
    # 34 -> 32 -> 32 -> 17 at each of 100 x 168 cells
    assert per_network["KP-Net"] == (34 * 32 + 32 * 32 + 32 * 17) * 100 * 168


def test_convolutions_are_counted_as_by_hand():
    """Against the shapes that hooks see, at a size that is padded. Norms and interpolation add a few percent."""
    model = small_model("configs/FCPose/Base-FCPose.yaml", "MODEL.FCOS.SCORE_THRESH_TEST", 1.0).eval()
    counted = []

    def count(module, inputs, output):
        counted.append(module.weight.numel() * output.shape[-2] * output.shape[-1])

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    flops = sum(count_flops(model, (100, 130)).values())
    assert padded_size(model, (100, 130)) == (128, 160)
    assert 1 < flops / sum(counted) < 1.1


def test_a_deconvolution_is_counted_for_every_network():
    model = small_model("configs/FCPose/Base-FCPose.yaml", "MODEL.FCPOSE.REFINEMENT", "deconv")
    # 4 keypoints, filters of 8 x 8, on 4 x 4 cells
    assert count_flops_per_network(model, (32, 32))["deconvolution"] == 4 * 64 * 16


def test_a_model_without_generated_networks_has_nothing_per_network():
    assert count_flops_per_network(nn.Linear(2, 2), (32, 32)) == {}


def test_command(tmp_path, capsys):
    """An untrained model that sees people everywhere must not have them counted."""
    cfg = small_config("configs/FCPose/Base-FCPose.yaml", "MODEL.FCOS.PRIOR_PROB", 0.99)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    arguments = ["model-info", "--config-file", str(tmp_path / "config.yaml"), "--input-size", "100", "130"]
    assert main([*arguments, "--people", "3", "MODEL.KP_NET.WIDTH", "16"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    model = small_model("configs/FCPose/Base-FCPose.yaml", "MODEL.KP_NET.WIDTH", 16)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert rows["total"][0] == f"{num_parameters:,}"
    assert rows["controller"][2] == "0.000"
    assert "image of 100 x 130 pixels, padded to 128 x 160" in out
    per_network = (10 * 16 + 16 * 16 + 16 * SCHEMA.num_keypoints) * 16 * 20
    assert "Each generated network adds" in out
    assert f"KP-Net {per_network / 1e9:.6f}" in out
    assert "With 3 people, 3 generated networks: " in out


def test_inspose_generates_more_networks_than_people(tmp_path, capsys):
    """Nine for a person at most; 500 for an image."""
    config = "configs/InsPose/Base-InsPose.yaml"
    opts = [f"MODEL.INSPOSE.{name}_CONVS_DIM" for name in ("FEATURE", "OFFSET", "HEATMAP")]
    cfg = small_config(config, *(word for key in opts for word in (key, 32)), "MODEL.FPN.OUT_CHANNELS", 32)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    arguments = ["model-info", "--config-file", str(tmp_path / "config.yaml"), "--input-size", "256", "384"]
    assert main([*arguments, "--people", "2"]) == 0
    assert "With 2 people, 18 generated networks: " in capsys.readouterr().out
    assert main([*arguments, "--people", "2", "MODEL.FCOS.PRE_NMS_TOPK_TEST", "7"]) == 0
    assert "With 2 people, 7 generated networks: " in capsys.readouterr().out


def test_sizes_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        main(["model-info", "--config-file", RELEASE, "--input-size", "0", "5"])
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_cost_of_a_person_in_cid(capsys):
    """CID-W32 at 64 x 64: 16 x 16 cells; 32 channels, 17 keypoints, 480 channels of the backbone."""
    config = "configs/CID/HRNet_W32_140e.yaml"
    arguments = ["--input-size", "64", "64", "--people", "3", "MODEL.DEVICE", "cpu"]
    assert main(["model-info", "--config-file", config, *arguments]) == 0
    out = capsys.readouterr().out
    # inner product, mask from 32 shared maps and those of x, y and 1, two 1x1 convolutions; and two linear layers
    per_person = 256 * (32 + 35 + 32 * 32 + 32 * 17) + 2 * 480 * 32
    assert f"Each person adds {per_person / 1e9:.6f}" in out
    # the reduction of the map runs once
    (gfd,) = (line.split() for line in out.splitlines() if line.startswith("gfd"))
    assert gfd[1:] == ["48,893", "48,893", f"{256 * 480 * 32 / 1e9:.3f}"]
