"""The released InsPose's targets and losses, against values worked out by hand."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances, Keypoints

from dynpose.modeling.heatmap_loss import heatmap_focal_loss
from dynpose.modeling.inspose.released import _to_index_coordinates, with_pseudo_boxes
from dynpose.modeling.inspose.released_losses import (
    disk_offset_loss,
    gaussian_radii,
    gaussian_targets,
    keypoint_qualities,
    keypoint_regression_loss,
    mean_over_labelled,
    square_cells,
    tag_losses,
    varifocal_loss,
)

NO_PEOPLE = torch.zeros(0, 2, 3)
NO_INDEX = torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # floor(21 / 8), floor(10 / 8) = (2, 1): the peak (3, 1) is one cell away; the second peak is right
        ("released", (math.exp(-1 / (2 * 0.2**2 * 400)) + 1) / 2),
        # the peak's centre is (28, 12): 7 and 2 pixels away; the second's is (4, 4), the keypoint at (7, 0)
        ("oks", (math.exp(-53 / (2 * 0.2**2 * 400)) + math.exp(-25 / (2 * 0.4**2 * 400))) / 2),
    ],
)
def test_qualities(rule, expected):
    keypoints = torch.tensor([[[21.0, 10, 2], [7, 0, 1], [math.nan, 0, 0]]])
    cells = torch.tensor([[1 * 5 + 3, 0, 7]])
    quality = keypoint_qualities(cells, keypoints, torch.tensor([400.0]), (0.1, 0.2, 0.1), stride=8, width=5, rule=rule)
    assert quality.tolist() == pytest.approx([expected], rel=1e-5)


def test_quality_of_people_without_keypoints():
    keypoints = torch.zeros(1, 2, 3)
    cells = torch.zeros(1, 2, dtype=torch.int64)
    quality = keypoint_qualities(cells, keypoints, torch.zeros(1), (0.1, 0.1), stride=8, width=5, unlabelled=0.3)
    assert quality.tolist() == pytest.approx([0.3])
    with pytest.raises(ValueError, match="rule: expected one of 'released', 'oks', got"):
        keypoint_qualities(cells, keypoints, torch.zeros(1), (0.1, 0.1), stride=8, width=5, rule="iou")


def test_varifocal_loss():
    logits = torch.tensor([[0.0], [math.log(3)]])
    # probability 1/2, quality 0.4: the cross-entropy is log 2 whatever the target
    assert varifocal_loss(logits[:1], torch.tensor([[0.4]])).item() == pytest.approx(0.4 * math.log(2))
    # background with probability 3/4
    assert varifocal_loss(logits[1:], torch.zeros(1, 1)).item() == pytest.approx(0.75 * 0.75**2 * math.log(4))
    both = varifocal_loss(logits, torch.tensor([[0.4], [0.0]]), alpha=0.5, gamma=1.0)
    assert both.item() == pytest.approx(0.4 * math.log(2) + 0.5 * 0.75 * math.log(4))


def test_regression_loss_is_a_mean_over_labelled_coordinates():
    offsets = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [9.0, 9.0]]])
    targets = torch.tensor([[[0.0, 4.0], [3.0, 4.5]], [[math.nan, math.inf], [1.0, 1.0]]])
    labelled = torch.tensor([[True, True], [False, False]])
    assert keypoint_regression_loss(offsets, targets, labelled).item() == pytest.approx((1 + 2 + 0 + 0.5) / 4)
    assert keypoint_regression_loss(offsets, targets, labelled & False).item() == 0


def test_mean_over_labelled():
    losses = torch.tensor([[1.0, 0.0], [4.0, 0.0]])
    assert mean_over_labelled(losses, torch.tensor([[True, False], [True, False]])).item() == 2.5
    assert mean_over_labelled(losses * 0, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


def test_radii():
    boxes = torch.tensor([[0.0, 0, 240, 400], [0, 0, 80, 160], [0, 0, 0, 50], [10, 10, 10, 10]])
    # the second in cells: 20 x 40, sqrt(0.81 * 3600 + 0.36 * 800) - 54 = 2.6
    assert gaussian_radii(boxes, stride=4).tolist() == [3, 2, 0, 0]
    assert gaussian_radii(boxes, stride=4, max_radius=1).tolist() == [1, 1, 0, 0]
    assert gaussian_radii(torch.zeros(0, 4), stride=4).shape == (0,)


def test_square_cells_are_cut_by_the_map():
    keypoints = torch.tensor([[[1.0, 9.0, 2], [5, 5, 0], [100, 5, 2]]])
    person, kind, u, v, position = square_cells(keypoints, torch.tensor([1]), size=(3, 4), stride=4)
    # cell (0, 2) in the bottom left corner of the map; not labelled, and not on the map
    assert set(zip(u.tolist(), v.tolist())) == {(0, 1), (1, 1), (0, 2), (1, 2)}
    assert person.unique().tolist() == kind.unique().tolist() == [0]
    assert position.unique(dim=0).tolist() == [[0.25, 2.25]]


def test_gaussians_of_a_person_have_its_radius():
    keypoints = torch.tensor([[[8.0, 8.0, 2]], [[14.0, 9.0, 1]]])
    radii = torch.tensor([1, 0])
    maps = gaussian_targets(keypoints, torch.tensor([0, 0]), radii, num_images=2, size=(4, 5), stride=4)
    beside, corner = math.exp(-2), math.exp(-4)  # sigma = 1/2
    expected = torch.tensor(
        [[0, 0, 0, 0, 0], [0, corner, beside, corner, 0], [0, beside, 1, 1, 0], [0, corner, beside, corner, 0]]
    )
    torch.testing.assert_close(maps[0, 0], expected)
    assert maps[1].sum() == 0


def test_heatmap_focal_loss():
    logits = torch.tensor([[[[0.0, math.log(3)]]]])
    # a keypoint's cell with probability 1/2, and one beside it with 3/4 and target 1/2
    expected = math.log(2) / 4 + math.log(4) * (9 / 16) * (1 / 16)
    loss = heatmap_focal_loss(logits, torch.tensor([[[[1.0, 0.5]]]]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    # two keypoints' cells share it
    both = heatmap_focal_loss(logits, torch.ones(1, 1, 1, 2))
    assert both.item() == pytest.approx((math.log(2) / 4 + math.log(4 / 3) / 16) / 2, rel=1e-5)
    assert heatmap_focal_loss(logits, torch.zeros(1, 1, 1, 2)).isfinite()
    assert heatmap_focal_loss(logits * 1e4, torch.ones(1, 1, 1, 2)).isfinite()


def test_disk_offsets_go_to_the_nearest_keypoint():
    # in the cells 0 and 2 of the middle row, of two people; cell 1 between them is in both squares, the first is nearer
    keypoints = torch.tensor([[[1.0, 4.0, 2]], [[9.0, 4.0, 2]]])
    size = (3, 4)
    offsets = torch.zeros(1, 1, 2, *size, requires_grad=True)
    loss = disk_offset_loss(offsets, keypoints, torch.tensor([0, 0]), torch.tensor([1, 1]), stride=4)
    loss.backward()
    # x of the four columns' targets, y of the three rows': to 0.25 or 2.25, and to row 1
    x = [0.25 - 0, 0.25 - 1, 2.25 - 2, 2.25 - 3]
    expected = (3 * sum(map(abs, x)) + 4 * (1 + 0 + 1)) / (12 * 2 + 1e-4)
    assert loss.item() == pytest.approx(expected)
    assert offsets.grad[0, 0, 0].sign().tolist() == [[-1, 1, -1, 1]] * 3


def test_disk_offsets_of_the_other_image():
    keypoints = torch.tensor([[[1.0, 4.0, 2]]])
    offsets = torch.zeros(2, 1, 2, 3, 4)
    offsets[1, 0, 0] = 0.25
    loss = disk_offset_loss(offsets, keypoints, torch.tensor([1]), torch.tensor([0]), stride=4)
    assert loss.item() == 0


def _tags(height=4, width=5):
    """Tag = 10 row + column for both kinds of keypoint, in two images."""
    return (10.0 * torch.arange(height)[:, None] + torch.arange(width)).expand(2, 2, height, width).clone()


@pytest.mark.parametrize(
    ("rule", "tags"),
    [
        # own cells (1, 2), (3, 2) of the first person and (0, 1) of the second; stride 4
        ("cell", [(21, 23), (10,)]),
        # one to the left and above; the second's column 0 becomes the last
        ("released", [(10, 12), (4,)]),
    ],
)
def test_tags(rule, tags):
    keypoints = torch.tensor([[[5.0, 9.0, 2], [13.0, 9.0, 1]], [[1.0, 5.0, 2], [0, 0, 0]]])
    pull, push = tag_losses(_tags() / 10, keypoints, torch.tensor([0, 0]), stride=4, rule=rule)
    (a, b), (c,) = ([tag / 10 for tag in one] for one in tags)
    # the first person's variance, halved by two people, halved by two images
    assert pull.item() == pytest.approx(((a - b) / 2) ** 2 / 2 / 2)
    difference = (a + b) / 2 - c
    assert push.item() == pytest.approx(0.5 * math.exp(-(difference**2)) / 2, rel=1e-5)


def test_tags_of_different_images_do_not_push():
    keypoints = torch.tensor([[[5.0, 9.0, 2], [5.0, 9.0, 2]]] * 3)
    pull, push = tag_losses(_tags(), keypoints, torch.tensor([0, 0, 1]), stride=4, rule="cell")
    assert pull.item() == 0
    # one pair of equal tags, in one of two images
    assert push.item() == pytest.approx(0.5 / 2)


def test_people_without_keypoints_have_no_tag():
    labelled = torch.tensor([[[5.0, 9.0, 2], [13.0, 9.0, 1]]])
    with_more = torch.cat([labelled, torch.zeros(2, 2, 3)])
    alone = tag_losses(_tags(), labelled, torch.tensor([1]), stride=4)
    together = tag_losses(_tags(), with_more, torch.tensor([1, 1, 0]), stride=4)
    assert alone == together
    with pytest.raises(ValueError, match="rule: expected one of 'released', 'cell', got"):
        tag_losses(_tags(), labelled, torch.tensor([1]), stride=4, rule="mine")


def test_no_people():
    tags = _tags().requires_grad_()
    offsets = torch.zeros(2, 2, 2, 4, 5, requires_grad=True)
    pull, push = tag_losses(tags, NO_PEOPLE, NO_INDEX, stride=4)
    offset_loss = disk_offset_loss(offsets, NO_PEOPLE, NO_INDEX, NO_INDEX, stride=4)
    assert pull.item() == push.item() == offset_loss.item() == 0
    (pull + push + offset_loss).backward()
    assert tags.grad.abs().sum() == offsets.grad.abs().sum() == 0
    assert gaussian_targets(NO_PEOPLE, NO_INDEX, NO_INDEX, num_images=2, size=(4, 5), stride=4).abs().sum() == 0


def _people():
    instances = Instances((100, 200))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 0, 50, 60], [100, 10, 150, 90]]))
    instances.gt_classes = torch.zeros(2, dtype=torch.int64)
    instances.gt_keypoints = Keypoints(torch.tensor([[[20.0, 30, 2], [40, 10, 1], [0, 0, 0]], [[0.0, 0, 0]] * 3]))
    return instances


def test_pseudo_boxes():
    people = _people()
    pseudo = with_pseudo_boxes(people)
    # around the labelled keypoints; as annotated where there are none
    assert pseudo.gt_boxes.tensor.tolist() == [[20, 10, 40, 30], [100, 10, 150, 90]]
    # the release divides the boxes of its data set in place
    assert people.gt_boxes.tensor.tolist() == [[0, 0, 50, 60], [100, 10, 150, 90]]


def test_index_coordinates():
    people = _people()
    # the image of 100 x 50 was doubled: half a pixel of it is one here
    converted = _to_index_coordinates({"instances": people, "height": 50, "width": 100})["instances"]
    assert converted.gt_keypoints.tensor[0].tolist() == [[19, 29, 2], [39, 9, 1], [0, 0, 0]]
    assert people.gt_keypoints.tensor[0, 0].tolist() == [20, 30, 2]
