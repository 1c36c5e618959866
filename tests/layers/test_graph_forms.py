"""Steps that have another form in a recorded graph: both forms agree, also on ties, NaN and nothing."""

from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
import torchvision
from torch.testing import assert_close

from dynpose.layers import KPNets, KPNetSpec, nms, ranking
from dynpose.layers.kp_net import at_once, reference
from dynpose.layers.map_peaks import map_peaks, map_peaks_in_plain_operators
from dynpose.layers.nms import nms_of_images, soft_nms
from dynpose.layers.ranking import first_in_group, order_in_groups
from dynpose.modeling.inspose.released_head import sample_and_multiply

NAN = float("nan")


@contextmanager
def recording(exporting=True):
    """The forms of graphs."""
    with (
        patch.object(nms, "is_recording", lambda: True),
        patch.object(nms, "is_exporting", lambda: exporting),
        patch.object(ranking, "is_recording", lambda: True),
        torch.no_grad(),
    ):
        yield


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def scored_boxes(number, groups, seed=0):
    """Boxes that overlap, with many equal scores, and their groups."""
    generator = random(seed)
    corner = torch.rand(number, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + torch.rand(number, 2, generator=generator) * 40], dim=1)
    scores = torch.randint(1, 20, (number,), generator=generator) / 20
    return boxes, scores, torch.randint(0, groups, (number,), generator=generator)


def test_peaks_of_maps():
    maps = torch.randn(3, 4, 5, 6, generator=random())
    maps[0, 0] = 0.0  # all cells are equal
    maps[0, 1, 3, 2] = maps[0, 1, 1, 4] = 9.0
    maps[1, 2] *= 200  # exp of them overflows
    for one, other in zip(map_peaks(maps), map_peaks_in_plain_operators(maps)):
        assert_close(other, one)
    assert map_peaks_in_plain_operators(maps)[1][0, :2].tolist() == [0, 10]


def test_peaks_of_maps_with_nan():
    maps = torch.zeros(1, 1, 2, 3)
    maps[0, 0, 1, 1] = NAN
    values, cells, confidence = map_peaks_in_plain_operators(maps)
    assert values.isnan().all()
    assert confidence.isnan().all()
    assert cells.item() == map_peaks(maps)[1].item() == 4


def test_peaks_of_no_maps():
    assert [len(each) for each in map_peaks_in_plain_operators(torch.zeros(0, 4, 5, 6))] == [0, 0, 0]


@pytest.mark.parametrize("number", [0, 1, 200])
def test_order_in_groups(number):
    _, scores, group = scored_boxes(number, 3)
    if number > 1:
        scores[[7, 90]] = NAN
    expected = order_in_groups(scores, group), order_in_groups(scores)
    with recording():
        assert torch.equal(order_in_groups(scores, group), expected[0])
        assert torch.equal(order_in_groups(scores), expected[1])


def test_first_in_group():
    group = torch.tensor([0, 0, 0, 2, 2, 3])
    assert first_in_group(group, 5, 2).tolist() == [True, True, False, True, True, True]
    assert first_in_group(group[:0], 5, 2).tolist() == []


@pytest.mark.parametrize("number", [0, 1, 200])
def test_nms_of_images(number):
    boxes, scores, image = scored_boxes(number, 3)
    classes = torch.arange(number) % 2
    arguments = {"num_images": 3, "iou_threshold": 0.5, "max_per_image": 12}
    expected = nms_of_images(boxes, scores, image, classes, **arguments)
    with recording():
        found = nms_of_images(boxes, scores, image, classes, **arguments)
    assert image[found].tolist() == image[expected].tolist()
    assert scores[found].tolist() == scores[expected].tolist()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("exporting", [True, False])
@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("number", [0, 1, 200])
def test_soft_nms(number, method, exporting):
    boxes, scores, groups = scored_boxes(number, 3)
    arguments = {"method": method, "max_per_group": 30, "num_groups": 4, "group_limit": 250}
    expected = soft_nms(boxes, scores, groups, **arguments)
    with recording(exporting):
        found = soft_nms(boxes, scores, groups, **arguments)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_soft_nms_in_a_graph_needs_its_sizes():
    boxes, scores, groups = scored_boxes(3, 1)
    with recording(), pytest.raises(ValueError, match="group_limit"):
        soft_nms(boxes, scores, groups, num_groups=1, max_per_group=3)


@pytest.mark.parametrize("number", [0, 1, 9])
@pytest.mark.parametrize("depth", [1, 3])
def test_kp_nets(number, depth):
    spec = KPNetSpec(in_channels=4, width=5, depth=depth, num_keypoints=3)
    generator = random()
    nets = KPNets(
        features=torch.randn(2, 4, 6, 7, generator=generator),
        params=torch.randn(number, spec.num_params, generator=generator),
        image_index=torch.arange(number) % 2,
        locations=torch.rand(number, 2, generator=generator) * 50,
        coord_scale=torch.full((number,), 32.0),
        spec=spec,
        stride=8,
        backend="torch",
    )
    assert_close(at_once.kp_net_heatmaps(nets), reference._kp_net_heatmaps(nets), atol=1e-4, rtol=1e-5)
    values, cells, confidence = at_once.kp_net_peaks(nets)
    expected = reference._kp_net_peaks(nets)
    assert torch.equal(cells, expected.indices)
    assert_close(values, expected.values, atol=1e-4, rtol=1e-5)
    assert_close(confidence, expected.confidence, atol=1e-4, rtol=1e-4)


def test_the_sampled_convolution_is_torchvision_s():
    generator = random()
    maps, weight = torch.randn(2, 8, 11, 13, generator=generator), torch.randn(6, 8, 3, 3, generator=generator)
    # many samples lie outside of the map, or on its edge
    star = torch.randn(2, 9, 2, 11, 13, generator=generator) * 4
    star[:, :2] = star[:, :2].round()
    # torchvision's samples, (y, x), are relative to those of an ordinary convolution
    side = torch.arange(-1, 2)
    shift = star.flip(2) - torch.cartesian_prod(side, side)[:, :, None, None]
    expected = torchvision.ops.deform_conv2d(maps, shift.flatten(1, 2), weight, padding=1)
    assert_close(sample_and_multiply(maps, star, weight), expected, atol=1e-4, rtol=1e-4)
