"""InsPose's targets and losses, against values worked out by hand."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from small_models import one_person, people

from dynpose.layers import KPNets, KPNetSpec
from dynpose.modeling.heatmap_loss import heatmap_focal_loss
from dynpose.modeling.inspose.losses import (
    disk_offset_loss,
    disk_offset_targets,
    mean_over_positives,
    with_pseudo_boxes,
)
from dynpose.modeling.inspose.resolution import (
    check_map_stride,
    keypoint_cross_entropy,
    keypoint_peaks,
    resample,
    resampled_size,
)
from dynpose.modeling.keypoint_maps import enclosing_boxes, offsets_at


def test_pseudo_boxes_enclose_the_labelled_keypoints():
    nan = float("nan")
    instances = people(
        [[0, 0, 90, 90], [0, 0, 50, 50], [0, 0, 20, 20]],
        [
            [(10, 40, 2), (30, 20, 1), (0, 0, 0), (nan, nan, 0)],
            [(0, 0, 0)] * 4,
            [(0, 0, 0), (7, 9, 1), (0, 0, 0), (0, 0, 0)],
        ],
    )
    instances.gt_classes = torch.tensor([0, 1, 2])
    first, no_people, unlabelled = with_pseudo_boxes([instances, people([], []), one_person(visibility=0)])
    assert first.gt_boxes.tensor.tolist() == [[10, 20, 30, 40], [7, 9, 7, 9]]
    # the person without a labelled keypoint is excluded
    assert first.gt_classes.tolist() == [0, 2]
    assert len(no_people) == len(unlabelled) == 0
    # the caller's instances are as they were
    assert instances.gt_boxes.tensor[0].tolist() == [0, 0, 90, 90]
    assert len(instances) == 3


def test_an_image_without_the_field_of_keypoints_has_no_pseudo_boxes():
    instances = Instances((10, 10))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, 5.0, 5.0]]))
    instances.gt_classes = torch.tensor([0])
    (kept,) = with_pseudo_boxes([instances])
    assert len(kept) == 0
    assert kept.gt_boxes.tensor.shape == (0, 4)


def test_enclosing_boxes_have_a_smallest_size():
    points = torch.tensor([[[5.0, 10.0], [7.0, 40.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert enclosing_boxes(points).tolist() == [[5, 10, 7, 40], [3, 3, 3, 3]]
    assert enclosing_boxes(points, min_size=8).tolist() == [[2, 10, 10, 40], [-1, -1, 7, 7]]
    assert enclosing_boxes(points[:0]).shape == (0, 4)


def test_every_location_is_the_mean_of_its_keypoints():
    losses = torch.tensor([[2.0, 4.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 6.0]])
    counted = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]]) > 0
    assert mean_over_positives(losses, counted).item() == pytest.approx((3 + 5 + 0 + 3) / 4)
    assert mean_over_positives(losses[:0], counted[:0]).item() == 0


def as_dict(targets):
    image, kind, cell, target = (values.tolist() for values in targets)
    found = {key: tuple(offset) for key, offset in zip(zip(image, kind, cell), target)}
    assert len(found) == len(image)
    return found


def test_disk_offset_targets():
    # at stride 8 the keypoint (21, 12) is at (2.625, 1.5) cells: in cell (2, 1), whose centre (2.5, 1.5) is 0.125 away
    keypoints = torch.tensor([[[21.0, 12.0, 2.0], [4.0, 4.0, 0.0]]])
    arguments = {"num_images": 2, "size": (3, 4), "stride": 8}
    found = as_dict(disk_offset_targets(keypoints, torch.tensor([1]), radius=1.0, **arguments))
    # the centre of (3, 1) is 0.875 away, that of (1, 1) 1.125, those of (2, 0) and (2, 2) a little more than 1
    assert found == {(1, 0, 6): (0.625, 0.5), (1, 0, 7): (-0.375, 0.5)}
    # its own cell counts even where its centre is outside the disk
    assert as_dict(disk_offset_targets(keypoints, torch.tensor([1]), radius=0.1, **arguments)) == {
        (1, 0, 6): (0.625, 0.5)
    }
    # a radius of 1.2: also (1, 1), (2, 0) and (2, 2)
    assert as_dict(disk_offset_targets(keypoints, torch.tensor([1]), radius=1.2, **arguments)) == {
        (1, 0, 2): (0.625, 1.5),
        (1, 0, 5): (1.625, 0.5),
        (1, 0, 6): (0.625, 0.5),
        (1, 0, 7): (-0.375, 0.5),
        (1, 0, 10): (0.625, -0.5),
    }


def test_overlapping_disks_belong_to_the_nearest_keypoint():
    # two people's keypoints at 0.5 and 2.25 cells of a row
    keypoints = torch.tensor([[[4.0, 4.0, 2.0]], [[18.0, 4.0, 1.0]]])
    found = as_dict(
        disk_offset_targets(keypoints, torch.tensor([0, 0]), num_images=1, size=(1, 4), stride=8, radius=1.0)
    )
    # cell 1, with its centre at 1.5, is 1 from the first and 0.75 from the second
    assert found == {(0, 0, 0): (0.5, 0.5), (0, 0, 1): (1.25, 0.5), (0, 0, 2): (0.25, 0.5)}


def test_disk_offset_loss():
    offsets = torch.zeros(2, 4, 1, 3)
    offsets[1, 2:, 0, 2] = torch.tensor([0.75, -0.5])  # kind 1 of image 1
    targets = (torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([[0.5, 0.5], [0.5, 0.0]]))
    assert disk_offset_loss(offsets, targets).item() == pytest.approx((0.25 + 1.0 + 0.5 + 0.0) / 4)
    nothing = tuple(values[:0] for values in targets)
    assert disk_offset_loss(offsets, nothing).item() == 0


def test_offsets_are_read_at_the_cells_of_each_kind():
    offsets = torch.arange(2 * 4 * 2 * 3.0).view(2, 4, 2, 3)
    found = offsets_at(offsets, torch.tensor([1, 0]), torch.tensor([[0, 5], [2, 3]]))
    # image 1, kind 0, cell 0: channels 0 and 1; kind 1, cell 5: channels 2 and 3; six cells a channel
    assert found[0].tolist() == [[24, 30], [24 + 12 + 5, 24 + 18 + 5]]
    assert found[1].tolist() == [[2, 8], [15, 21]]


def test_heatmap_focal_loss():
    # p = 0.8 at the keypoint, 0.6 next to it where the target is 0.5, 0.1 elsewhere
    probability = torch.tensor([0.8, 0.6, 0.1])
    targets = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    logits = probability.logit().view(1, 1, 1, 3)
    peak = -(0.2**2) * math.log(0.8)
    near = -(0.5**4) * 0.6**2 * math.log(0.4)
    far = -(0.1**2) * math.log(0.9)
    assert heatmap_focal_loss(logits, targets).item() == pytest.approx(peak + near + far)
    # divided by the number of peaks
    twice = heatmap_focal_loss(torch.cat([logits, logits]), torch.cat([targets, targets]))
    assert twice.item() == pytest.approx(peak + near + far)
    # without any, by one; and it stays finite where a sigmoid is exactly 0 or 1
    no_people = heatmap_focal_loss(logits, torch.zeros_like(targets))
    assert no_people.item() == pytest.approx(-(0.64 * math.log(0.2) + 0.36 * math.log(0.4)) + far)
    extreme = torch.tensor([-200.0, 200.0, 200.0]).view(1, 1, 1, 3).requires_grad_()
    loss = heatmap_focal_loss(extreme, targets)
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad.isfinite().all()


def test_resampling_keeps_places():
    # values are the x of the cell's centre, in pixels, at stride 8
    maps = (torch.arange(4.0) * 8 + 4).view(1, 1, 1, 4).expand(1, 1, 2, 4).contiguous()
    assert resample(maps, 8, 8) is maps
    assert resample(maps, 8, 16)[0, 0].tolist() == [[8, 24]]
    # beyond the outermost centres the edge is repeated
    assert resample(maps, 8, 4)[0, 0, 0].tolist() == [4, 6, 10, 14, 18, 22, 26, 28]
    assert resample(maps, 8, 2)[0, 0, 0, 2:-2].tolist() == list(range(5, 29, 2))
    # an odd number of cells: the last of the coarse ones is made of one
    odd = resample(maps[..., :3], 8, 16)
    assert odd[0, 0].tolist() == [[8, 20]]
    for stride in (16, 8, 4, 2):
        assert tuple(resample(maps[..., :3], 8, stride).shape[2:]) == resampled_size((2, 3), 8, stride)
        assert resample(maps[:0], 8, stride).shape[0] == 0


@pytest.mark.parametrize("map_stride", [0, 1, 3, 12, 5])
def test_impossible_strides(map_stride):
    with pytest.raises(ValueError, match=rf"map_stride: .* stride 8, got {map_stride}"):
        check_map_stride(map_stride, 8)


def networks(num=3, seed=0):
    torch.manual_seed(seed)
    spec = KPNetSpec(in_channels=4, width=4, depth=2, num_keypoints=2, coords_position="last", coords_sign=1)
    return KPNets(
        features=torch.randn(2, 4, 6, 8),
        params=torch.randn(num, spec.num_params),
        image_index=torch.tensor([1, 0, 1])[:num],
        locations=torch.tensor([[10.0, 20.0], [30.0, 30.0], [50.0, 4.0]])[:num],
        coord_scale=torch.full((num,), 64.0),
        spec=spec,
        stride=8,
    )


@pytest.mark.parametrize("map_stride", [16, 8, 4, 2])
def test_other_resolutions_are_resampled_heatmaps(map_stride):
    """Loss and peak are those of the maps written out and re-sampled."""
    nets = networks()
    maps = resample(nets.heatmaps(), 8, map_stride)
    keypoints = torch.tensor(
        [[[3.0, 47.9, 2], [63.9, 0.0, 1]], [[20.0, 21.0, 2], [0, 0, 0]], [[64.0, 5.0, 2], [33, 17, 1]]]
    )
    losses, cells = keypoint_cross_entropy(nets, keypoints, map_stride)
    width = maps.shape[-1]
    for n, k in ((0, 0), (0, 1), (1, 0), (2, 1)):
        u, v = (int(value // map_stride) for value in keypoints[n, k, :2])
        assert cells[n, k].item() == v * width + u
        expected = maps[n, k].logsumexp(dim=(0, 1)) - maps[n, k, v, u]
        assert losses[n, k].item() == pytest.approx(expected.item(), rel=1e-4)
    # not labelled, and not on the map
    assert losses[1, 1] == losses[2, 0] == 0
    assert cells[1, 1] == cells[2, 0] == -1

    found, confidence = keypoint_peaks(nets, map_stride)
    assert found.tolist() == maps.flatten(2).argmax(dim=2).tolist()
    torch.testing.assert_close(confidence, maps.flatten(2).softmax(dim=2).amax(dim=2), rtol=1e-4, atol=1e-6)

    none, _ = keypoint_peaks(nets[:0], map_stride)
    assert none.shape == (0, 2)
    losses, _ = keypoint_cross_entropy(nets[:0], keypoints[:0], map_stride)
    assert losses.shape == (0, 2)
