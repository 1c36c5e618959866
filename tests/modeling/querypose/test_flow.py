"""The flow and the keypoint loss against the released code's outputs, calculus and formulas by hand."""

import json
import math

import numpy as np
import pytest
import torch
from reference_rule import assert_matches, rule_input, rule_state_dict

from dynpose.modeling.querypose.flow import RealNVP, residual_log_likelihood


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def outputs(test_data):
    return np.load(test_data / "reference/querypose_first/outputs.npz")


@pytest.fixture(scope="module")
def released_flow(test_data):
    """The flow with the fixture's weights, loaded by the released names behind their prefix."""
    folder = test_data / "reference/querypose_first"
    constants = json.loads((folder / "config.json").read_text())["kept_as_constructed"]
    mask = [float(value) for value in constants["criterion.flow.flow.mask"].split("[")[1].rstrip("]").split(",")]
    prefix = "criterion.flow.flow."
    shapes = {
        key: shape for key, shape in json.loads((folder / "keys.json").read_text()).items() if key.startswith(prefix)
    }
    weights = rule_state_dict(shapes, {prefix + "mask": torch.tensor(mask).view(6, 2)})
    flow = RealNVP()
    # ours is made, not loaded
    torch.testing.assert_close(flow.mask, weights[prefix + "mask"])
    flow.load_state_dict({key.removeprefix(prefix): value for key, value in weights.items()})
    return flow


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    return RealNVP()


def test_flow_is_the_released_one(released_flow, outputs):
    x = torch.from_numpy(outputs["flow/log_prob_input"])
    z, log_det = released_flow.inverse(x)
    assert_matches(z, outputs, "flow/z", rel=1e-5)
    assert_matches(log_det, outputs, "flow/logdet", rel=1e-5)
    assert_matches(released_flow.log_prob(x), outputs, "flow/log_prob", rel=1e-5)


def test_parameter_count(test_data, flow):
    counts = json.loads((test_data / "reference/querypose_first/config.json").read_text())["param_counts"]
    assert sum(parameter.numel() for parameter in flow.parameters()) == counts["full"]["flow"]


@pytest.mark.parametrize("num_couplings", [1, 5, 6])
def test_flow_goes_back_and_forth(num_couplings):
    torch.manual_seed(1)
    flow = RealNVP(num_couplings, 16).double()
    z = random(4, 7, 2).double()
    x = flow(z)
    assert (x - z).abs().max() > 0.01
    torch.testing.assert_close(flow.inverse(x)[0], z)


def test_log_prob_is_the_change_of_variables(released_flow):
    """The normal density at z, times the determinant of the Jacobian by autograd."""
    flow = RealNVP().double()
    flow.load_state_dict(released_flow.state_dict())
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    for x in random(5, 2).double():
        jacobian = torch.autograd.functional.jacobian(lambda point: flow.inverse(point)[0], x)
        expected = normal.log_prob(flow.inverse(x)[0]) + torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(flow.log_prob(x), expected)


def test_density_integrates_to_one(flow):
    """On a grid that leaves out next to nothing of a flow that is still near the normal distribution."""
    step = 0.05
    axis = torch.arange(-8, 8, step)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    with torch.no_grad():
        density = flow.log_prob(grid).exp()
        # the tested distribution is not a standard normal one
        normal = (-0.5 * grid.square().sum(dim=-1)).exp() / (2 * math.pi)
        assert (density - normal).abs().max() > 0.01
    assert density.sum().item() * step**2 == pytest.approx(1, abs=1e-3)


def test_loss_is_the_released_one(released_flow, outputs):
    keypoints, sigmas, targets, weights = (
        torch.from_numpy(outputs[f"rle/{name}"]) for name in ("mu", "sigma", "target", "weight")
    )
    assert 0 < weights.mean() < 1
    losses = residual_log_likelihood(released_flow, keypoints, sigmas, targets, weights[..., 0] > 0)
    assert_matches(losses, outputs, "rle/loss", rel=1e-5)


def test_loss_of_matched_queries_is_the_released_one(released_flow, outputs):
    """The targets of both images, relative to the boxes they are matched with; outside of these they don't count."""
    boxes = outputs["matcher/boxes"]
    keypoints = rule_input(436, (5, 17, 2), 0.3)
    sigmas = rule_input(437, (5, 17, 2)).sigmoid()
    targets, learnt = [], []
    for image in range(2):
        for query, person in outputs[f"matcher/img{image}"].T:
            x0, y0, x1, y1 = boxes[image, query]
            x, y = outputs[f"full/train/target{image}/kps_coord"][person].T
            relative = np.stack([(x - (x0 + x1) / 2) / (x1 - x0), (y - (y0 + y1) / 2) / (y1 - y0)], axis=1)
            visible = outputs[f"full/train/target{image}/kps_vis"][person, :, 0] > 0
            targets.append(relative)
            learnt.append(visible & (np.abs(relative) <= 0.5).all(axis=1))
    learnt = torch.from_numpy(np.stack(learnt))
    assert 0 < learnt.float().mean() < 1
    losses = residual_log_likelihood(
        released_flow, keypoints, sigmas, torch.from_numpy(np.stack(targets)).float(), learnt
    )
    assert losses.sum().item() / (5 * 17) == pytest.approx(float(outputs["matcher/unweighted_loss_kps"]), rel=1e-5)


def test_loss_by_hand():
    """With couplings that do nothing, the flow is a standard normal distribution: log phi = -|e|^2 / 2 - log(2 pi)."""
    flow = RealNVP(2, 4)
    for parameter in flow.parameters():
        torch.nn.init.zeros_(parameter)
    losses = residual_log_likelihood(
        flow,
        torch.tensor([[[0.1, -0.2]]]),
        torch.tensor([[[0.2, 0.4]]]),
        torch.tensor([[[0.4, -0.2]]]),
        torch.tensor([[True]]),
    )
    minus_log_phi = (0.3 / 0.2) ** 2 / 2 + math.log(2 * math.pi)
    x = math.log(0.2) + minus_log_phi + math.log(0.2 * math.sqrt(2 * math.pi)) + 0.3 / (math.sqrt(2) * 0.2)
    y = math.log(0.4) + minus_log_phi + math.log(0.4 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(losses, torch.tensor([[[x, y]]]))


def test_gradient():
    torch.manual_seed(0)
    flow = RealNVP(3, 8).double()
    keypoints, targets = random(2, 3, 2).double(), random(2, 3, 2, seed=1).double()
    sigmas = random(2, 3, 2, seed=2).double().sigmoid()
    learnt = torch.tensor([[True, False, True], [True, True, False]])
    assert torch.autograd.gradcheck(
        lambda mu, sigma: residual_log_likelihood(flow, mu, sigma, targets, learnt),
        (keypoints.requires_grad_(), sigmas.requires_grad_()),
    )


@pytest.mark.parametrize("sigma", [0.0, 1e-38, 1e-12, 1e-6, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("error", [0.0, 1e-3, 0.5, 2.0])
def test_finite_at_the_ends_of_sigma(released_flow, sigma, error):
    keypoints = torch.full((1, 1, 2), error, requires_grad=True)
    sigmas = torch.full((1, 1, 2), sigma, requires_grad=True)
    losses = residual_log_likelihood(
        released_flow, keypoints, sigmas, torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    )
    gradients = torch.autograd.grad(losses.sum(), [keypoints, sigmas, *released_flow.parameters()])
    assert losses.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
def test_what_is_not_learnt_is_exactly_zero(flow, garbage):
    """Not even no numbers in predictions or targets come through, nor in gradients."""
    learnt = torch.tensor([[True, False], [False, True]])
    values = [random(2, 2, 2), random(2, 2, 2, seed=1).sigmoid(), random(2, 2, 2, seed=2)]
    clean = residual_log_likelihood(flow, *values, learnt)
    keypoints, sigmas, targets = (torch.where(learnt[..., None], value, garbage).requires_grad_() for value in values)
    losses = residual_log_likelihood(flow, keypoints, sigmas, targets, learnt)
    assert torch.equal(losses, clean)
    assert (losses[~learnt] == 0).all()
    assert (losses[learnt] != 0).all()
    gradients = torch.autograd.grad(losses.sum(), [keypoints, sigmas, targets, *flow.parameters()])
    assert all((gradient[~learnt] == 0).all() for gradient in gradients[:3])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("shape", [(0, 17), (3, 1), (2, 14), (1, 133)])
def test_any_number_of_people_and_keypoints(flow, shape):
    """No people and nothing learnt give a loss of zero that the flow has a gradient of zero from."""
    keypoints = random(*shape, 2).requires_grad_()
    losses = residual_log_likelihood(
        flow, keypoints, torch.full((*shape, 2), 0.5), torch.zeros(*shape, 2), torch.zeros(shape, dtype=torch.bool)
    )
    assert losses.shape == (*shape, 2)
    assert losses.sum() == 0
    gradients = torch.autograd.grad(losses.sum(), [keypoints, *flow.parameters()])
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_under_autocast(flow, dtype):
    keypoints, targets, learnt = random(3, 4, 2).to(dtype), random(3, 4, 2, seed=1), torch.ones(3, 4, dtype=torch.bool)
    sigmas = random(3, 4, 2, seed=2).sigmoid().to(dtype)
    expected = residual_log_likelihood(flow, keypoints.float(), sigmas.float(), targets, learnt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = residual_log_likelihood(flow, keypoints, sigmas, targets, learnt)
        assert losses.dtype == torch.float32
        assert torch.equal(losses, expected)
        assert torch.equal(flow.log_prob(targets), flow.log_prob(targets.double()))


def test_flow_learns_a_shifted_distribution():
    """The likelihood is one: maximising it finds where the samples are."""
    torch.manual_seed(0)
    flow = RealNVP(4, 16)
    samples = torch.tensor([1.5, -1.0]) + 0.3 * torch.randn(256, 2)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -flow.log_prob(samples).mean()
        loss.backward()
        optimizer.step()
    # entropy of the samples' distribution: the least that can be reached
    entropy = math.log(2 * math.pi * math.e * 0.3**2)
    assert loss.item() == pytest.approx(entropy, abs=0.15)
    with torch.no_grad():
        torch.testing.assert_close(flow(torch.randn(4096, 2)).mean(dim=0), torch.tensor([1.5, -1.0]), atol=0.1, rtol=0)
