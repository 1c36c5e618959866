"""CID's losses by hand-worked numbers."""

import math

import pytest
import torch

from dynpose.modeling.cid.losses import contrastive_loss, focal_sums, multi_heatmap_loss, single_heatmap_loss

HEATMAPS = torch.tensor([[[[0.8, 0.4]]], [[[0.1, 0.5]]]])
TARGETS = torch.tensor([[[[1.0, 0.5]]], [[[0.0, 1.0]]]])
# -(1 - p)^2 log p where the target is one, -(1 - t)^4 p^2 log(1 - p) elsewhere
FIRST = -(0.2**2) * math.log(0.8) - 0.5**4 * 0.4**2 * math.log(0.6)
SECOND = -(0.1**2) * math.log(0.9) - 0.5**2 * math.log(0.5)


def test_focal_loss():
    everything = torch.ones(1, dtype=torch.bool)
    torch.testing.assert_close(focal_sums(HEATMAPS, TARGETS, everything), torch.tensor([FIRST, SECOND]))
    masked = focal_sums(HEATMAPS, TARGETS, torch.tensor([True, False]))
    expected = [-(0.2**2) * math.log(0.8), -(0.1**2) * math.log(0.9)]
    torch.testing.assert_close(masked, torch.tensor(expected))


def test_multi_heatmap_loss_is_divided_by_the_counted_peaks():
    counted = torch.ones(2, 1, 1, 2, dtype=torch.bool)
    assert multi_heatmap_loss(HEATMAPS, TARGETS, counted).item() == pytest.approx((FIRST + SECOND) / 2)
    counted[1] = False
    assert multi_heatmap_loss(HEATMAPS, TARGETS, counted).item() == pytest.approx(FIRST)
    # without any, the sum
    loss = multi_heatmap_loss(HEATMAPS, torch.zeros_like(TARGETS), counted)
    assert loss.item() == pytest.approx(-(0.8**2) * math.log(0.2) - 0.4**2 * math.log(0.6))


def test_single_heatmap_loss_of_release_and_paper():
    sums, labelled = torch.tensor([6.0, 4.0]), torch.tensor([3, 1])
    assert single_heatmap_loss(sums, labelled, "pooled").item() == 10 / 4
    assert single_heatmap_loss(sums, labelled, "person").item() == (6 / 3 + 4 / 1) / 2
    for norm in ("pooled", "person"):
        assert single_heatmap_loss(sums[:0], labelled[:0], norm).item() == 0
    with pytest.raises(ValueError, match="norm: expected one of 'pooled', 'person', got 'mean'"):
        single_heatmap_loss(sums, labelled, "mean")


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_contrastive_loss(temperature):
    # two equal ones and one at right angles; lengths do not matter
    features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    one_image = torch.zeros(3, dtype=torch.int64)
    apart = math.exp(-1 / temperature)
    expected = (2 * math.log(2 + apart) + math.log(1 + 2 * apart)) / 3
    assert contrastive_loss(features, one_image, temperature=temperature).item() == pytest.approx(expected)
    # of the same image: the second and the third
    images = torch.tensor([0, 1, 1])
    expected = 2 * math.log(1 + apart) / 3
    assert contrastive_loss(features, images, temperature=temperature).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_contrastive_loss_is_computed_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 480, generator=generator) * 0.3 + torch.randn(1, 480, generator=generator)
    image = torch.zeros(30, dtype=torch.int64)
    with torch.autocast("cpu", dtype=dtype):
        loss = contrastive_loss(features, image)
    assert loss.dtype == torch.float32
    assert loss == contrastive_loss(features, image)


@pytest.mark.parametrize("features", [torch.zeros(0, 5), torch.zeros(2, 5)])
def test_contrastive_loss_is_finite(features):
    features.requires_grad_()
    loss = contrastive_loss(features, torch.zeros(len(features), dtype=torch.int64))
    assert loss.item() == pytest.approx(math.log(2) if len(features) else 0)
    loss.backward()
    assert features.grad.isfinite().all()
