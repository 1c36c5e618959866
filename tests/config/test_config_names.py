"""Configs by name: in load_config, in _BASE_, in the model zoo and in commands."""

import re
from pathlib import Path

import pytest
import torch

from dynpose import model_zoo
from dynpose.config import ConfigError, config_names, find_config_file, load_config
from dynpose.tools.cli import main

NAME = "FCPose/R_50_3x.yaml"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_config_has_a_name():
    files = (path for pattern in ("*.yaml", "*.py") for path in Path("configs").rglob(pattern))
    names = {path.relative_to("configs").as_posix() for path in files}
    assert set(config_names()) == names


def test_a_name_is_the_file(elsewhere):
    assert Path(find_config_file(NAME)).read_text() == (Path(__file__).parents[2] / "configs" / NAME).read_text()
    assert load_config(NAME).SOLVER.MAX_ITER == 270000


def test_a_file_of_that_path_takes_precedence(elsewhere):
    (elsewhere / "FCPose").mkdir()
    (elsewhere / NAME).write_text("_BASE_: FCPose/R_50_1x.yaml\nSEED: 7\n")
    assert find_config_file(NAME) == NAME
    assert load_config(NAME).SEED == 7


def test_a_base_may_be_a_name(elsewhere):
    (elsewhere / "my.yaml").write_text(f"_BASE_: {NAME}\nSEED: 7\n")
    mine, base = load_config("my.yaml"), load_config(NAME)
    base.SEED = 7
    assert mine == base


def test_a_file_beside_it_takes_precedence_as_a_base(elsewhere):
    (elsewhere / "sub" / "FCPose").mkdir(parents=True)
    (elsewhere / "sub" / NAME).write_text("SEED: 7\n")
    (elsewhere / "sub" / "my.yaml").write_text(f"_BASE_: {NAME}\n")
    assert load_config("sub/my.yaml").SEED == 7


def test_overriding_a_key_leaves_its_anchors_aliases(elsewhere):
    (elsewhere / "base.yaml").write_text("MODEL: {FPN: &f {NORM: BN}, RESNETS: *f}\n")
    (elsewhere / "my.yaml").write_text("_BASE_: base.yaml\nMODEL: {FPN: {NORM: GN}}\n")
    cfg = load_config("my.yaml")
    assert (cfg.MODEL.FPN.NORM, cfg.MODEL.RESNETS.NORM) == ("GN", "BN")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FCPose/R50_3x.yaml", "no such config file or name; did you mean FCPose/R_50_3x.yaml or "),
        ("configs/FCPose/R_50_3x.yaml", "did you mean FCPose/R_50_3x.yaml or "),
        ("FCPose", "no such config file or name; "),
        ("xyzzy", "no such config file or name; those that come with dynpose are in .*configs"),
    ],
)
def test_similar_names_are_listed(elsewhere, name, message):
    for find in (load_config, model_zoo.get_config_file, model_zoo.get_config, model_zoo.get):
        with pytest.raises(ConfigError, match=f"^{re.escape(name)}: .*{message}"):
            find(name)


def test_similar_names_of_a_base_are_listed(elsewhere):
    (elsewhere / "my.yaml").write_text("_BASE_: FCPose/R50_3x.yaml\n")
    with pytest.raises(ConfigError, match=r"^my\.yaml: _BASE_ FCPose/R50_3x\.yaml does not exist; did you mean F"):
        load_config("my.yaml")


def test_a_fault_names_its_file_once(elsewhere):
    (elsewhere / "my.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"^my\.yaml: the file is empty"):
        load_config("my.yaml")
    (elsewhere / "base.yaml").write_text("SEED: 1\n")
    (elsewhere / "my.yaml").write_text("_BASE_: base.yaml\nSEED: {A: 1}\n")
    with pytest.raises(ConfigError, match=r"^my\.yaml: SEED holds keys, but a value in the file it is based on"):
        load_config("my.yaml")


def test_commands_take_names(elsewhere, capsys):
    assert main(["model-info", "--config-file", "quick/fcpose_small.yml"]) == 2
    assert "did you mean quick/fcpose_small.yaml" in capsys.readouterr().err


class TestModelZoo:
    NAME = "quick/fcpose_small.yaml"

    def test_config(self, elsewhere):
        cfg = model_zoo.get_config(self.NAME, opts=["SEED", "3"])
        assert (cfg.MODEL.META_ARCHITECTURE, cfg.SEED) == ("FCPose", 3)

    def test_an_untrained_model_downloads_nothing(self):
        opts = ["MODEL.WEIGHTS", "detectron2://ImageNetPretrained/MSRA/R-50.pkl"]
        model = model_zoo.get(self.NAME, device="cpu", opts=opts)
        assert model.training
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

    def test_trained_weights_are_loaded(self, tmp_path):
        torch.manual_seed(1)
        weights = str(tmp_path / "weights.pth")
        expected = model_zoo.get(self.NAME, device="cpu").state_dict()
        torch.save({"model": expected}, weights)
        actual = model_zoo.get(self.NAME, trained=True, device="cpu", opts=["MODEL.WEIGHTS", weights]).state_dict()
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[key], expected[key]) for key in expected)

    @pytest.mark.parametrize("name", ["quick/fcpose_small.yaml", "FCPose/R_50_3x.yaml"])
    def test_a_config_without_trained_weights_says_so(self, name):
        for get in (model_zoo.get_config, model_zoo.get):
            with pytest.raises(ConfigError, match=r"no trained weights are published for this .*set MODEL\.WEIGHTS"):
                get(name, trained=True)
