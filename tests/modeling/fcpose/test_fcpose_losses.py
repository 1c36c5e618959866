"""FCPose's losses and targets, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from dynpose.layers import KPNets, KPNetSpec
from dynpose.layers.cells import cell_centers
from dynpose.layers.triton_support import interprets
from dynpose.modeling.fcpose import basis
from dynpose.modeling.fcpose.losses import head_weights, heatmap_mse
from dynpose.modeling.fcpose.refinement import SharedOffsets
from dynpose.modeling.keypoint_maps import gaussian_heatmaps, keypoint_cells, offset_targets


@pytest.mark.parametrize(
    ("x", "y", "visibility", "nearest", "paper"),
    [
        (0.0, 0.0, 2, 0, 0),
        (7.9, 8.0, 1, 3, 0),  # row 1, column 0; the paper's rule: floor(3.9 / 8), floor(4 / 8)
        (12.5, 20.0, 2, 7, 7),  # row 2, column 1; the paper's: floor(8.5 / 8) = 1, floor(16 / 8) = 2
        (11.9, 19.0, 2, 7, 3),
        (23.99, 31.99, 2, 11, 11),
        (24.0, 0.0, 2, -1, -1),
        (-0.1, 0.0, 2, -1, -1),
        (4.0, 4.0, 0, -1, -1),
        (float("nan"), 4.0, 0, -1, -1),
        (1e20, 4.0, 2, -1, -1),
    ],
)
def test_keypoint_cells(x, y, visibility, nearest, paper):
    keypoints = torch.tensor([[[x, y, float(visibility)]]])
    assert keypoint_cells(keypoints, 8, (4, 3)).item() == nearest
    assert keypoint_cells(keypoints, 8, (4, 3), "paper").item() == paper


def test_cell_centers():
    assert cell_centers(torch.tensor([0, 4]), 8, 3).tolist() == [[4, 4], [12, 12]]


def test_heads_of_a_person_share_its_weight():
    # two persons; one has three heads
    assert head_weights(torch.tensor([5, 5, 8, 5]), 9).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert head_weights(torch.tensor([], dtype=torch.int64), 0).shape == (0,)


@pytest.mark.parametrize("heatmap_loss", ["upsampled", "cell"])
def test_released_losses_by_kernels(heatmap_loss, monkeypatch):
    """On maps that the networks have written, the losses' kernels give what PyTorch gives."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not interprets():
        pytest.skip("the kernels run on a GPU or, with TRITON_INTERPRET=1, on the CPU")
    # The networks themselves by PyTorch for both.
    heatmaps = KPNets.heatmaps
    monkeypatch.setattr(KPNets, "heatmaps", lambda nets: heatmaps(replace(nets, backend="torch")))
    torch.manual_seed(0)
    spec = KPNetSpec(in_channels=4, width=4, depth=2, num_keypoints=2)
    refinement = SharedOffsets(in_channels=4, num_keypoints=2, loss="expected_distance", heatmap_loss=heatmap_loss).to(
        device
    )
    features = torch.randn(2, 4, 5, 6, device=device)
    keypoints = torch.rand(3, 2, 3, device=device) * torch.tensor([48.0, 40.0, 2.0], device=device)
    keypoints[..., 2].round_()
    results = []
    for backend in ("torch", "triton"):
        params = torch.randn(3, spec.num_params, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
        nets = KPNets(
            features=features,
            params=params,
            image_index=torch.tensor([1, 0, 1], device=device),
            locations=keypoints[:, 0, :2],
            coord_scale=torch.full((3,), 16.0, device=device),
            spec=spec,
            stride=8,
            backend=backend,
        )
        losses = refinement._losses_on_maps(
            nets, refinement.offsets(features, None), keypoints, torch.tensor([30.0, 0.0, 50.0], device=device)
        )
        gradients = torch.autograd.grad(sum(x.sum() for x in losses), [params, *refinement.parameters()])
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        results.append([*losses, *gradients])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_offsets_point_to_the_nearest_keypoint_of_their_kind():
    # two people in one image; their keypoint 0 in the cells 0 and 2 of a row of four, keypoint 1 of the first alone
    keypoints = torch.tensor(
        [[[3.0, 4.0, 2.0], [30.0, 4.0, 2.0]], [[18.0, 4.0, 1.0], [0.0, 0.0, 0.0]]],
    )
    image, kind, cell, target = offset_targets(
        keypoints, torch.tensor([0, 0]), num_images=1, size=(1, 4), stride=8, radius=1
    )
    assert image.tolist() == [0] * len(image)
    found = {(k, c): tuple(t) for k, c, t in zip(kind.tolist(), cell.tolist(), target.tolist())}
    assert found == {
        (0, 0): (-1.0, 0.0),
        (0, 1): (6.0, 0.0),  # 12 + 6 = 18 is nearer than 12 - 9 = 3
        (0, 2): (-2.0, 0.0),
        (0, 3): (-10.0, 0.0),
        (1, 2): (10.0, 0.0),
        (1, 3): (2.0, 0.0),
    }
    assert len(found) == len(cell)


def test_offset_radius_is_a_disk_inside_the_map():
    keypoints = torch.tensor([[[20.0, 20.0, 2.0]]])
    index = torch.tensor([0])
    for radius, count in ((0, 1), (1, 5), (1.5, 9), (2, 13)):
        _, _, cell, _ = offset_targets(keypoints, index, num_images=1, size=(5, 5), stride=8, radius=radius)
        assert len(cell) == count
    corner = torch.tensor([[[1.0, 1.0, 2.0]]])
    _, _, cell, _ = offset_targets(corner, index, num_images=1, size=(5, 5), stride=8, radius=1)
    assert sorted(cell.tolist()) == [0, 1, 5]


def test_gaussians_merge_people_by_maximum():
    keypoints = torch.tensor([[[4.0, 0.5, 2.0]], [[7.0, 0.5, 1.0]], [[7.0, 0.5, 0.0]]])
    maps = gaussian_heatmaps(keypoints, torch.tensor([0, 0, 1]), num_images=2, size=(1, 10), stride=1, sigma=1.0)
    near = math.exp(-0.5)
    assert maps[0, 0, 0, 3:9].tolist() == pytest.approx([near, 1, near, near, 1, near])
    # cut at round(3 sigma) + 1 = 4 cells
    assert maps[0, 0, 0, 0].item() == pytest.approx(math.exp(-8))
    assert maps[1].abs().sum() == 0


def test_heatmap_mse():
    targets = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    logits = torch.tensor([1.0, 1.0]).view(1, 1, 1, 2)
    assert heatmap_mse(logits, targets).item() == pytest.approx(2 / 4)
    # without any target the sum is divided by 1
    assert heatmap_mse(logits, torch.zeros_like(targets)).item() == pytest.approx(2)


def test_strips_do_not_change_the_fine_heatmaps(monkeypatch):
    head = basis.AuxHeatmaps(conv_dim=4, norm="", num_keypoints=3).double()
    merged = torch.randn(2, 4, 19, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def result():
        leaf = merged.clone().requires_grad_()
        fine, coarse = head(leaf)
        weights = torch.arange(fine.numel()).view_as(fine) % 7
        return fine, coarse, *torch.autograd.grad((fine * weights).sum(), [leaf, *head.fine.parameters()])

    whole = result()
    monkeypatch.setattr(basis, "_MAX_FINE_VALUES", 1)
    for actual, expected in zip(result(), whole):
        torch.testing.assert_close(actual, expected)
