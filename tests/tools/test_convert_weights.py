"""`dynpose convert-weights` on a small model under the released names, which are written down here a second time."""

import re

import pytest
import torch
from small_models import SCHEMA, small_config, small_model

from dynpose.checkpoint import PoseCheckpointer
from dynpose.data import COCO_PERSON
from dynpose.tools.cli import main

RELEASE = "configs/FCPose/R_50_3x_release.yaml"
# the released format is recognised by a basis of four convolutions
OPTS = ("MODEL.FCPOSE.BASIS.NUM_CONVS", 4)

FCOS, BASIS = "proposal_generator.fcos.fcos_head.", "proposal_generator.basis_module."
RELEASED_NAMES = (
    (r"head\.cls_tower\.0\.norm", FCOS + "cls_tower.1"),
    (r"head\.cls_tower\.0", FCOS + "cls_tower.0"),
    (r"head\.box_tower\.0\.norm", FCOS + "bbox_tower.1"),
    (r"head\.box_tower\.0", FCOS + "bbox_tower.0"),
    (r"head\.cls_logits", FCOS + "cls_logits"),
    (r"head\.box_distances", FCOS + "bbox_pred"),
    (r"head\.centerness", FCOS + "ctrness"),
    (r"head\.scales\.(\d)", FCOS + r"scales.\1.scale"),
    (r"basis\.lateral\.(\d)\.norm", BASIS + r"refine.\1.1"),
    (r"basis\.lateral\.(\d)", BASIS + r"refine.\1.0"),
    (r"basis\.tower\.(\d)\.norm", BASIS + r"tower.\1.1"),
    (r"basis\.tower\.(\d)", BASIS + r"tower.\1.0"),
    (r"basis\.project", BASIS + "tower.4"),
    (r"aux_heatmaps\.tower\.(\d)\.norm", BASIS + r"seg_head.\1.1"),
    (r"aux_heatmaps\.tower\.(\d)", BASIS + r"seg_head.\1.0"),
    (r"aux_heatmaps\.coarse", BASIS + "p3_logits"),
    (r"aux_heatmaps\.upsample", BASIS + "upsampler.0"),
    (r"aux_heatmaps\.fine", BASIS + "p1_logits"),
    (r"controller\.linear", "proposal_generator.fcpose_head.atten_producer"),
)


def released_name(name):
    for pattern, released in RELEASED_NAMES:
        renamed, hits = re.subn("^" + pattern, released, name)
        if hits:
            return renamed
    return name


def released_state(model):
    state = {released_name(name): value for name, value in model.state_dict().items()}
    state["proposal_generator.fcpose_head.sizes_of_interest"] = torch.tensor([64, 128, 256, 512, 1333])
    return state


@pytest.fixture(scope="module")
def coco_model():
    return small_model(RELEASE, *OPTS, schema=COCO_PERSON, seed=3)


@pytest.fixture
def released_file(coco_model, tmp_path):
    torch.save({"model": released_state(coco_model), "iteration": 270000}, tmp_path / "released.pth")
    return tmp_path / "released.pth"


def write_config(path, *opts, schema=COCO_PERSON, config=RELEASE):
    path.write_text(small_config(config, *OPTS, *opts, schema=schema).dump())
    return str(path)


def convert(path, output, *more):
    return main(["convert-weights", "--input", str(path), "--output", str(output), *more])


def test_the_converted_file_is_the_model(coco_model, released_file, tmp_path, capsys):
    assert convert(released_file, tmp_path / "new" / "converted.pth") == 0
    checkpoint = torch.load(tmp_path / "new" / "converted.pth", weights_only=True)
    assert checkpoint["dynpose"] == {"method": "FCPose", "keypoints": list(COCO_PERSON.names)}

    other = small_model(RELEASE, *OPTS, schema=COCO_PERSON, seed=4)
    PoseCheckpointer(other).load(str(tmp_path / "new" / "converted.pth"))
    expected = coco_model.state_dict()
    assert other.state_dict().keys() == expected.keys()
    for name, value in other.state_dict().items():
        assert torch.equal(value, expected[name]), name

    report = capsys.readouterr().out
    assert "AdelaiDet's FCPose, 17 keypoints" in report
    assert f"converted: {len(expected)} parameters" in report
    assert "unused:    proposal_generator.fcpose_head.sizes_of_interest" in report
    assert "missing:   not checked" in report


def test_a_config_that_fits(released_file, tmp_path, capsys):
    config = write_config(tmp_path / "config.yaml")
    assert convert(released_file, tmp_path / "converted.pth", "--config-file", config) == 0
    assert f"missing:   none of {config}" in capsys.readouterr().out


def test_a_config_that_does_not_fit(released_file, tmp_path, capsys):
    """The paper's controller is of another shape."""
    config = write_config(tmp_path / "config.yaml", "MODEL.FCPOSE.CONTROLLER_KERNEL", 1)
    assert convert(released_file, tmp_path / "converted.pth", "--config-file", config) == 2
    assert "do not fit this model" in capsys.readouterr().err
    assert not (tmp_path / "converted.pth").exists()


def test_other_keypoints_than_cocos_need_a_config(tmp_path, capsys):
    torch.save(released_state(small_model(RELEASE, *OPTS)), tmp_path / "four.pth")
    assert convert(tmp_path / "four.pth", tmp_path / "converted.pth") == 2
    assert "has 4 keypoints, not the 17 of COCO or the 14 of CrowdPose; give --config-file" in capsys.readouterr().err

    config = write_config(tmp_path / "config.yaml", schema=SCHEMA)
    assert convert(tmp_path / "four.pth", tmp_path / "converted.pth", "--config-file", config) == 0
    checkpoint = torch.load(tmp_path / "converted.pth", weights_only=True)
    assert checkpoint["dynpose"]["keypoints"] == list(SCHEMA.names)


def without(model, part):
    return {name: value for name, value in released_state(model).items() if part not in name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(lambda model: {"stem.conv1.weight": torch.zeros(1)}, "names of no known release", id="unknown"),
        pytest.param(
            lambda model: {"model": {}, "dynpose": {"method": "FCPose", "keypoints": []}},
            "is a dynpose checkpoint already",
            id="ours",
        ),
        pytest.param(lambda model: [1, 2], "holds no named parameters", id="a-list"),
        pytest.param(lambda model: {"epoch": 3}, "holds no named parameters", id="no-tensors"),
        pytest.param(
            lambda model: {**released_state(model), "surprise.weight": torch.zeros(1)},
            "1 parameters are not of AdelaiDet's FCPose: surprise.weight",
            id="a-name-too-many",
        ),
        pytest.param(
            lambda model: without(model, "p3_logits"), "aux_heatmaps.coarse.bias is missing", id="no-aux-heatmaps"
        ),
        pytest.param(
            lambda model: {
                "part_query.weight": torch.zeros(7, 128),
                "init_proposal_boxes.weight": torch.zeros(100, 4),
                "head.pose_head_series.0.fc_sigma.0.linear.bias": torch.zeros(10),
            },
            "keypoint_stages.0.coord_heads.*.bias is missing from these weights of the released light QueryPose",
            id="no-coordinates",
        ),
    ],
)
def test_files_that_cannot_be_converted(content, message, coco_model, tmp_path, capsys):
    torch.save(content(coco_model), tmp_path / "weights.pth")
    assert convert(tmp_path / "weights.pth", tmp_path / "converted.pth") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dynpose: error: {tmp_path / 'weights.pth'}: ")
    assert message in error
    assert not (tmp_path / "converted.pth").exists()


def test_files_that_cannot_be_read(released_file, tmp_path, capsys):
    assert convert(tmp_path / "nowhere.pth", tmp_path / "converted.pth") == 2
    assert "nowhere.pth: no such file" in capsys.readouterr().err
    released_file.write_bytes(released_file.read_bytes()[:1000])
    assert convert(released_file, tmp_path / "converted.pth") == 2
    assert "released.pth: can't be read as a checkpoint" in capsys.readouterr().err


def test_output_names_that_would_do_harm(released_file, tmp_path, capsys):
    assert convert(released_file, released_file) == 2
    assert "would overwrite the input" in capsys.readouterr().err
    assert convert(released_file, tmp_path / "converted.pkl") == 2
    assert "must end in .pth" in capsys.readouterr().err


@pytest.fixture
def training_checkpoint(tmp_path):
    """As a run saves it, and as earlier ones saved model_final.pth."""
    model = small_model(schema=SCHEMA, seed=1)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad).backward()
    optimizer.step()
    PoseCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000004", iteration=4, processes=[{}])
    return tmp_path / "model_0000004.pth", model


def strip(path, output, *more):
    return convert(path, output, "--strip", *more)


def test_a_checkpoint_is_stripped_to_its_weights(training_checkpoint, tmp_path, capsys):
    path, model = training_checkpoint
    assert strip(path, tmp_path / "new/weights.pth") == 0
    stripped = torch.load(tmp_path / "new/weights.pth", weights_only=True)
    assert stripped.keys() == {"model", "dynpose", "iteration"}
    assert stripped["dynpose"]["keypoints"] == list(SCHEMA.names)
    assert stripped["iteration"] == 4
    state = model.state_dict()
    assert stripped["model"].keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in stripped["model"].items())
    PoseCheckpointer(small_model(schema=SCHEMA, seed=2), complete=True).load(str(tmp_path / "new/weights.pth"))
    # the optimizer has two numbers for each that is learned
    weights = sum(value.numel() * value.element_size() for value in state.values())
    size = (tmp_path / "new/weights.pth").stat().st_size
    assert weights < size < 1.1 * weights + 200_000
    assert path.stat().st_size > 2.5 * weights
    output = capsys.readouterr().out
    assert "removed: optimizer, processes" in output
    # once more changes nothing
    assert strip(tmp_path / "new/weights.pth", tmp_path / "again.pth") == 0
    assert "removed: nothing" in capsys.readouterr().out


def test_files_that_cannot_be_stripped(training_checkpoint, released_file, tmp_path, capsys):
    path, _ = training_checkpoint
    assert strip(released_file, tmp_path / "weights.pth") == 2
    assert "released.pth: is not a checkpoint of a dynpose run" in capsys.readouterr().err
    assert strip(path, path) == 2
    assert "would overwrite the input" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-100])
    assert strip(path, tmp_path / "weights.pth") == 2
    assert "can't be read as a checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        strip(path, tmp_path / "weights.pth", "--config-file", RELEASE)
    assert not (tmp_path / "weights.pth").exists()
