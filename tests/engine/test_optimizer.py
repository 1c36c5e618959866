"""The optimizers of a config, against torch's and detectron2's own."""

import copy

import pytest
import torch
from detectron2.solver import build_optimizer as build_of_detectron2
from small_models import small_config, small_model

from dynpose.config import ConfigError
from dynpose.engine.optimizer import build_clipped_optimizer, build_optimizer, pose_optimizer_params


@pytest.fixture
def cfg():
    return small_config()


class Two(torch.nn.Module):
    """Two weights of two numbers."""

    def __init__(self):
        super().__init__()
        self.slow = torch.nn.Linear(2, 1, bias=False)
        self.fast = torch.nn.Linear(2, 1, bias=False)
        for layer in (self.slow, self.fast):
            torch.nn.init.zeros_(layer.weight)

    def set_gradients(self, slow, fast):
        self.slow.weight.grad, self.fast.weight.grad = torch.tensor([slow]), torch.tensor([fast])


def test_sgd_is_detectron2s(cfg):
    model = small_model()
    sgd = build_optimizer(cfg, model)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults == {**build_of_detectron2(cfg, model).defaults, "fused": True, "foreach": None}
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.01, 0.9, 0.0001)


@pytest.mark.parametrize(("name", "kind"), [("ADAM", torch.optim.Adam), ("ADAMW", torch.optim.AdamW)])
def test_adaptive(cfg, name, kind):
    cfg.SOLVER.OPTIMIZER = name
    optimizer = build_optimizer(cfg, small_model())
    assert isinstance(optimizer, kind)
    # no weight decay on normalisation layers
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.0001}


def test_unknown(cfg):
    cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(ConfigError, match=r"SOLVER\.OPTIMIZER must be one of 'SGD', 'ADAM', 'ADAMW', got 'LION'"):
        build_optimizer(cfg, small_model())


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_learning_rates_of_parts(cfg, name):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_FACTORS = name, [["^fast", 10.0], ["weight", 1.0]]
    model = Two()
    optimizer = build_optimizer(cfg, model)
    of_parameter = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert of_parameter == {model.slow.weight: pytest.approx(0.01), model.fast.weight: pytest.approx(0.1)}
    # the first step of both moves by the rate alone where all gradients are 1
    model.set_gradients([1.0, 1.0], [1.0, 1.0])
    optimizer.step()
    torch.testing.assert_close(model.fast.weight / model.slow.weight, torch.full((1, 2), 10.0))


def test_a_part_that_is_not_there(cfg):
    cfg.SOLVER.LR_FACTORS = [["flow", 10.0]]
    with pytest.raises(ConfigError, match="no parameter of Two has 'flow' in its name"):
        build_optimizer(cfg, Two())


def test_clipping_the_full_model(cfg):
    """Gradients (3, 0) and (0, 4) have norm 5 together: clipped to 1 they are (0.6, 0) and (0, 0.8)."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE = True, "full_model", 1.0, 2.0
    cfg.SOLVER.MOMENTUM = cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.BASE_LR = 1.0
    model = Two()
    optimizer = build_optimizer(cfg, model)
    model.set_gradients([3.0, 0.0], [0.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(model.slow.weight.detach(), torch.tensor([[-0.6, 0.0]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.fast.weight.detach(), torch.tensor([[0.0, -0.8]]), rtol=1e-5, atol=0)


def test_faults_without_a_config_name_the_arguments():
    with pytest.raises(ValueError, match=r"^clip_type: expected 'value', 'norm', 'full_model' or None, got 'all'"):
        build_clipped_optimizer(params=Two().parameters(), optimizer_class=torch.optim.SGD, clip_type="all")
    with pytest.raises(ConfigError, match=r"^lr_factors: no parameter of Two has 'flow' in its name"):
        pose_optimizer_params(Two(), base_lr=0.1, lr_factors=[("flow", 10.0)])


@pytest.mark.parametrize("clip_type", ["value", "norm"])
def test_clipping_is_detectron2s(cfg, clip_type):
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE = True, clip_type, 1.5, 2.0
    stepped = []
    for build in (build_optimizer, build_of_detectron2):
        model = Two()
        optimizer = build(cfg, model)
        model.set_gradients([3.0, -4.0], [0.5, 1.0])
        optimizer.step()
        stepped.append(torch.cat([model.slow.weight.detach(), model.fast.weight.detach()]))
    assert stepped[1].abs().max() > 0
    torch.testing.assert_close(*stepped, rtol=1e-6, atol=0)


def test_clipping_without_gradients(cfg):
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE = True, "norm"
    model = Two()
    build_optimizer(cfg, model).step()
    assert not model.slow.weight.any()


class Conv(torch.nn.Module):
    """A convolution, the same at each construction, whose weight may be channels-last."""

    def __init__(self, layout):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 4, 3)
        self.conv.to(memory_format=layout)


def steps_of(optimizer, model, seeds):
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        optimizer.zero_grad()
        for parameter in model.parameters():
            # in the default layout, whatever the parameter's is
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "ADAM", "ADAMW"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_steps_continue_those_that_are_not(cfg, name, layout):
    """As a run that an earlier version started; its state is in the default layout."""
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    model, fused_model = Conv(torch.contiguous_format), Conv(layout)
    kinds = {"SGD": torch.optim.SGD, "ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}
    fused = build_optimizer(cfg, fused_model)
    momentum = {"momentum": cfg.SOLVER.MOMENTUM} if name == "SGD" else {}
    groups = [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in fused.param_groups]
    by_name = dict(zip(fused_model.parameters(), model.parameters()))
    for group in groups:
        group["params"] = [by_name[parameter] for parameter in group["params"]]
    plain = kinds[name](groups, **momentum)

    steps_of(plain, model, range(2))
    fused_model.load_state_dict(model.state_dict())
    # loading does not copy the tensors
    fused.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert all(group["fused"] for group in fused.param_groups)
    steps_of(plain, model, range(2, 5))
    steps_of(fused, fused_model, range(2, 5))
    for actual, expected in zip(fused_model.parameters(), model.parameters()):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_callers_choice_of_a_step_is_kept():
    optimizer = build_clipped_optimizer(
        params=Two().parameters(), optimizer_class=torch.optim.SGD, clip_type="norm", lr=0.1, foreach=True
    )
    assert (optimizer.defaults["fused"], optimizer.defaults["foreach"]) == (None, True)
