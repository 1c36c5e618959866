"""The config of weights, for commands without one."""

import pytest

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.tools.config_of_weights import config_of_weights, required_config


def test_a_run_leaves_the_config_beside_its_weights(tmp_path):
    weights = tmp_path / "model_best.pth"
    assert config_of_weights(str(weights)) is None
    weights.touch()
    assert config_of_weights(str(weights)) is None
    (tmp_path / "config.yaml").touch()
    assert config_of_weights(str(weights)) == str(tmp_path / "config.yaml")


def test_published_weights_have_one():
    assert config_of_weights("fcpose_r50") == config_of_weights("dynpose://fcpose_r50") == "FCPose/R_50_3x_release.yaml"
    assert config_of_weights("hrnet_w32.ms_in1k") is None


def test_it_is_required(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert required_config("mine.yaml", "fcpose_r50") == "mine.yaml"
    assert required_config(None, "fcpose_r50") == "FCPose/R_50_3x_release.yaml"
    (tmp_path / "model.pth").touch()
    for weights, reason in {
        "model.pth": "there is no config.yaml in its folder",
        "hrnet_w32.ms_in1k": "no config belongs to them",
    }.items():
        with pytest.raises(ConfigError, match=rf"^--weights {weights}: {reason}; .*--config-file"):
            required_config(None, weights)


def test_weights_that_do_not_exist_are_named_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=r"^model\.pth: no such file"):
        required_config(None, "model.pth")
    with pytest.raises(CheckpointError, match=r"^fcpose_r5: no such file.*did you mean fcpose_r50"):
        required_config(None, "fcpose_r5")
