"""The averaged weights: the formula, their state, and a run that evaluates and saves them."""

import copy

import pytest
import torch
from test_training import arguments
from torch import nn

from dynpose.config import ConfigError, load_config
from dynpose.engine import ModelEMA, PoseTrainer, main

pytestmark = pytest.mark.usefixtures("clean_run")


class Model(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("table", torch.arange(5000))
        self.set(value)

    @torch.no_grad()
    def set(self, value):
        for parameter in self.parameters():
            parameter.fill_(value)
        self.norm.running_mean.fill_(10 * value)


def test_the_formula():
    """With decay 0.75: 4, then 0.75 * 4 + 0.25 * 8 = 5, then 0.75 * 5 + 0.25 * 1 = 4."""
    model = Model(1.0)
    ema = ModelEMA(model, decay=0.75)
    for value, expected in ((4.0, 4.0), (8.0, 5.0), (1.0, 4.0)):
        model.set(value)
        ema.update(model)
        assert ema.model.linear.weight.tolist() == [[expected, expected]]
        assert ema.model.norm.running_mean.tolist() == [10 * expected] * 2
        assert model.linear.weight.tolist() == [[value, value]]
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_integer_tables_are_unchanged():
    """0.9999 * 11 + 0.0001 * 11 is a little less than 11 in float32, and would be cut off to 10."""
    model = Model()
    ema = ModelEMA(model, decay=0.9999)
    for _ in range(3):
        ema.update(model)
    assert torch.equal(ema.model.table, torch.arange(5000))


def test_its_state_resumes_bit_for_bit():
    torch.manual_seed(0)
    model = Model()
    ema = ModelEMA(model, decay=0.9)
    values = torch.rand(6).tolist()
    for value in values[:3]:
        model.set(value)
        ema.update(model)
    state = copy.deepcopy(ema.state_dict())
    restored = ModelEMA(Model(7.0), decay=0.9)
    restored.load_state_dict(state)
    for value in values[3:]:
        model.set(value)
        ema.update(model)
        restored.update(model)
    assert all(map(torch.equal, ema.model.state_dict().values(), restored.model.state_dict().values()))
    with pytest.raises(RuntimeError, match="Missing key"):
        restored.load_state_dict({"model": {}, "num_updates": 1})


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_decays_that_are_none(decay):
    with pytest.raises(ConfigError, match=r"SOLVER\.EMA\.DECAY must be at least 0 and below 1"):
        ModelEMA(Model(), decay)


def test_a_run_evaluates_and_saves_it(tmp_path, monkeypatch):
    history = []
    after_step = PoseTrainer.after_step

    def note(trainer):
        after_step(trainer)
        history.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})

    monkeypatch.setattr(PoseTrainer, "after_step", note)
    results = main(arguments(tmp_path, "SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5))
    assert results.keys() == {"keypoints", "bbox", "keypoints_EMA", "bbox_EMA"}
    saved = torch.load(tmp_path / "ema/model_final.pth", weights_only=True)
    assert saved["dynpose"]["method"] == "FCPose"
    assert saved.keys() == {"model", "dynpose", "iteration"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    first, second, third = history
    for name, value in saved["model"].items():
        if name in first:
            torch.testing.assert_close(value, first[name] / 4 + second[name] / 4 + third[name] / 2)

    # they are weights like any other
    weights = ["MODEL.WEIGHTS", tmp_path / "ema/model_final.pth", "DATASETS.SYNTHETIC.ROOT", tmp_path / "synthetic"]
    again = main(arguments(tmp_path / "again", *weights, eval_only=True))
    assert again["keypoints"] == pytest.approx(results["keypoints_EMA"], nan_ok=True)


def test_it_is_off_by_default():
    assert not load_config().SOLVER.EMA.ENABLED
