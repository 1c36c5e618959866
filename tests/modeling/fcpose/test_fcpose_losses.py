"""FCPose's losses and targets, against values worked out by hand."""

import math

import pytest
import torch

from dynpose.modeling.fcpose.losses import (
    cell_centers,
    expected_distance,
    gaussian_heatmaps,
    head_weights,
    heatmap_cross_entropy,
    heatmap_mse,
    keypoint_cells,
    offset_targets,
)


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
    assert head_weights(torch.tensor([5, 5, 8, 5])).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert head_weights(torch.tensor([], dtype=torch.int64)).shape == (0,)


def test_heatmap_cross_entropy():
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 0, 1, 2] = math.log(5)
    loss = heatmap_cross_entropy(logits, torch.tensor([[5, -1]]))
    # softmax of the cell: 5 / (5 + 5)
    assert loss.tolist() == [[pytest.approx(math.log(2)), 0.0]]


def test_expected_distance_by_hand():
    # two cells at x = 4 and 12 with weights 3/4 and 1/4; the offsets bring the first onto the keypoint
    logits = torch.tensor([math.log(3), 0.0]).view(1, 1, 1, 2)
    offsets = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 1, 2)
    keypoints = torch.tensor([[[6.0, 4.0, 2.0]]])
    loss = expected_distance(logits, offsets, keypoints, torch.tensor([12.0]), stride=8, distance_norm=12.0)
    squashed = 2 * (1 / (1 + math.exp(-12 * 6 / 12)) - 0.5)
    assert loss.item() == pytest.approx(0.25 * squashed / 12, rel=1e-4)


def test_expected_distance_has_a_gradient_at_zero_distance():
    """The released square root has none there: users report NaN runs."""
    logits = torch.zeros(1, 1, 1, 1, requires_grad=True)
    offsets = torch.zeros(1, 1, 2, 1, 1, requires_grad=True)
    keypoints = torch.tensor([[[4.0, 4.0, 2.0]]])
    expected_distance(logits, offsets, keypoints, torch.tensor([10.0]), stride=8).sum().backward()
    assert offsets.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_unlabelled_keypoints_cost_nothing():
    logits = torch.randn(1, 2, 3, 3)
    keypoints = torch.tensor([[[0.0, 0.0, 0.0], [4.0, 4.0, 1.0]]])
    loss = expected_distance(logits, torch.zeros(1, 2, 2, 3, 3), keypoints, torch.tensor([0.0]), stride=8)
    assert loss[0, 0] == 0
    assert 0 < loss[0, 1] < 1


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
