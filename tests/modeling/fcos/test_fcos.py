"""FCOS: locations, targets, sampling, losses, decoding."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torchvision.ops import generalized_box_iou_loss

from dynpose.modeling.fcos import (
    Candidates,
    FCOSDecoder,
    FCOSHead,
    FCOSPredictions,
    LocationConv,
    Locations,
    assign_targets,
    fcos_losses,
    flatten_levels,
    sample_positives,
    targets,
)
from dynpose.modeling.fcos.losses import distance_giou_loss
from dynpose.modeling.fcos.targets import centerness_of


def grids(*sizes, batch=1, channels=1):
    return [torch.zeros(batch, channels, *size) for size in sizes]


def with_boxes(boxes, classes=None):
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    return instances


def test_locations_are_cell_centres_in_flat_order():
    locations = Locations.of(grids((1, 2), (1, 1), batch=2), strides=[8, 16])
    assert locations.points.tolist() == [[4, 4], [12, 4], [4, 4], [12, 4], [8, 8], [8, 8]]
    assert locations.level.tolist() == [0, 0, 0, 0, 1, 1]
    assert locations.image.tolist() == [0, 0, 1, 1, 0, 1]
    maps = [torch.arange(8.0).view(2, 2, 1, 2), 10 + torch.arange(4.0).view(2, 2, 1, 1)]
    assert flatten_levels(maps).tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [10, 11], [12, 13]]


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_location_conv_is_a_convolution(kernel_size):
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 4, 6), torch.randn(2, 5, 2, 3)]
    locations = Locations.of(maps, [8, 16])
    layer = LocationConv(5, 7, kernel_size)
    weight = layer.linear.weight.view(7, 5, kernel_size, kernel_size)
    dense = flatten_levels([F.conv2d(m, weight, layer.linear.bias, padding=kernel_size // 2) for m in maps])
    index = torch.randperm(len(locations))
    torch.testing.assert_close(layer(maps, locations, index), dense[index])
    assert layer(maps, locations, index[:0]).shape == (0, 7)


def test_centre_sampling_and_distances_by_hand():
    # one level of stride 8, cells at 4, 12, 20, 28; a box from 2 to 30 has its centre at 16
    locations = Locations.of(grids((4, 4)), strides=[8])
    targets = assign_targets(
        locations, [with_boxes([[2, 2, 30, 30]])], sizes_of_interest=[], num_classes=1, center_sampling_radius=0.75
    )
    # within 6 pixels of 16: the cells 12 and 20 in both directions
    assert targets.positives.tolist() == [5, 6, 9, 10]
    # cell (12, 12): 10 to the left and top, 18 to the right and bottom, over the stride of 8
    assert targets.distances[5].tolist() == [1.25, 1.25, 2.25, 2.25]
    assert targets.centerness[0].item() == pytest.approx(10 / 18)
    assert targets.labels[[0, 5]].tolist() == [1, 0]
    anywhere = assign_targets(
        locations, [with_boxes([[2, 2, 30, 30]])], sizes_of_interest=[], num_classes=1, center_sampling_radius=0
    )
    assert len(anywhere.positives) == 16


def test_levels_by_size():
    locations = Locations.of(grids((8, 8), (4, 4)), strides=[8, 16])
    small, large = [8, 8, 24, 24], [0, 0, 64, 64]
    targets = assign_targets(
        locations,
        [with_boxes([small, large])],
        sizes_of_interest=[32],
        num_classes=1,
        center_sampling_radius=0,
    )
    # stride 8: the large box has no side within 32 even from the cells nearest to its centre (36 away)
    assert set(targets.matched[locations.level == 0].tolist()) == {-1, 0}
    # stride 16: the small box has no side further than 32, the large one has everywhere
    assert set(targets.matched[locations.level == 1].tolist()) == {1}


def test_range_is_inclusive_at_both_ends():
    # the cell at 4 of a box from 0 to 36: the largest distance is 32 exactly
    locations = Locations.of(grids((1, 1), (1, 1)), strides=[8, 8])
    targets = assign_targets(
        locations, [with_boxes([[0, 0, 36, 36]])], sizes_of_interest=[32], num_classes=1, center_sampling_radius=0
    )
    assert targets.matched.tolist() == [0, 0]


def test_smallest_area_wins_and_matches_count_over_the_batch():
    locations = Locations.of(grids((2, 2), batch=2), strides=[8])
    first = with_boxes([[0, 0, 16, 16], [0, 0, 10, 10]])
    second = with_boxes([[0, 0, 16, 16]], classes=[2])
    targets = assign_targets(locations, [first, second], sizes_of_interest=[], num_classes=3, center_sampling_radius=0)
    assert targets.matched.tolist() == [1, 0, 0, 0, 2, 2, 2, 2]
    assert targets.labels.tolist() == [0, 0, 0, 0, 2, 2, 2, 2]


def test_degenerate_and_missing_boxes_have_no_positives():
    locations = Locations.of(grids((2, 2), batch=2), strides=[8])
    targets = assign_targets(
        locations, [with_boxes([[4, 4, 4, 4]]), with_boxes([])], sizes_of_interest=[], num_classes=1
    )
    assert len(targets.positives) == 0
    assert targets.labels.tolist() == [1] * 8


def test_a_centre_region_that_the_box_does_not_cut():
    # InsPose section 3.1: within 6 pixels of (17, 17) are the cells 12 and 20, whatever the box is
    locations = Locations.of(grids((4, 4)), strides=[8])
    arguments = {"sizes_of_interest": [], "num_classes": 1, "center_sampling_radius": 0.75}
    for box in ([17, 17, 17, 17], [16, 2, 18, 32]):
        targets = assign_targets(locations, [with_boxes([box])], inside_box=False, **arguments)
        assert targets.positives.tolist() == [5, 6, 9, 10]
        assert len(assign_targets(locations, [with_boxes([box])], **arguments).positives) == 0
    # the distances from outside are negative: cell (12, 12) is 4 to the left of the box from 16 to 18
    assert targets.distances[5].tolist() == [-0.5, 1.25, 0.75, 2.5]


def test_a_centre_region_outside_the_box_keeps_to_its_level():
    # a box without extent is for the finest level alone
    locations = Locations.of(grids((8, 8), (4, 4)), strides=[8, 16])
    targets = assign_targets(
        locations, [with_boxes([[30, 30, 30, 30]])], sizes_of_interest=[32], num_classes=1, inside_box=False
    )
    # within 12 of 30: 20, 28 and 36 in both directions
    assert len(targets.positives) == 9
    assert set(locations.level[targets.positives].tolist()) == {0}


def test_centerness_by_hand():
    assert centerness_of(torch.tensor([[1.0, 2.0, 4.0, 2.0]])).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("matched", "scores", "max_samples", "expected"),
    [
        # two people, four samples: two each, the best ones
        ([7, 7, 7, 9, 9, 9], [0.1, 0.9, 0.5, 0.2, 0.3, 0.1], 4, [1, 2, 3, 4]),
        # a share that a person can't fill is not given to others
        ([7, 9, 9, 9], [0.1, 0.2, 0.3, 0.1], 4, [0, 1, 2]),
        # more people than samples: one each, of the best two people
        ([1, 2, 3], [0.1, 0.9, 0.5], 2, [1, 2]),
        # no limit
        ([1, 1, 2], [0.1, 0.9, 0.5], 0, [0, 1, 2]),
        ([], [], 4, []),
    ],
)
def test_sampling_by_hand(matched, scores, max_samples, expected):
    chosen = sample_positives(torch.tensor(matched, dtype=torch.int64), torch.tensor(scores), max_samples)
    assert chosen.tolist() == expected


def test_giou_agrees_with_torchvision():
    torch.manual_seed(0)
    pred, target = torch.rand(50, 4) * 5, torch.rand(50, 4) * 5 + 0.1
    boxes = [torch.cat([-d[:, :2], d[:, 2:]], dim=1) for d in (pred, target)]
    torch.testing.assert_close(distance_giou_loss(pred, target), generalized_box_iou_loss(*boxes))


def test_giou_smooth_by_hand():
    # boxes of 2 x 2 and 4 x 4 around one centre: (4 + 1) / (16 + 1); the hull is the union
    loss = distance_giou_loss(torch.ones(1, 4), torch.full((1, 4), 2.0), smooth=1.0)
    assert loss.item() == pytest.approx(1 - 5 / 17)


def test_losses_are_finite_and_reach_every_output_without_people():
    torch.manual_seed(0)
    head = FCOSHead(in_channels=32, num_levels=2, num_cls_convs=1, num_box_convs=1)
    features = [torch.randn(2, 32, 4, 4), torch.randn(2, 32, 2, 2)]
    predictions = head(features)
    locations = Locations.of(features, [8, 16])
    targets = assign_targets(locations, [with_boxes([]), with_boxes([])], sizes_of_interest=[32], num_classes=1)
    losses = fcos_losses(predictions, targets, num_classes=1)
    assert losses["loss_fcos_box"].item() == 0
    assert losses["loss_fcos_centerness"].item() == 0
    assert 0 < losses["loss_fcos_cls"].item() < 10
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_head_without_boxes_or_centerness():
    features = [torch.randn(1, 32, 4, 4), torch.randn(1, 32, 2, 2)]
    locations = Locations.of(features, [8, 16])
    targets = assign_targets(locations, [with_boxes([[2, 2, 30, 30]])], sizes_of_interest=[32], num_classes=1)
    choices = {"in_channels": 32, "num_levels": 2, "num_cls_convs": 1, "num_box_convs": 1}
    for with_boxes_, with_centerness in ((False, True), (True, False)):
        head = FCOSHead(**choices, with_boxes=with_boxes_, with_centerness=with_centerness)
        names = {name.split(".")[0] for name, _ in head.named_parameters()}
        assert names == {"cls_tower", "box_tower", "cls_logits"} | (
            {"box_distances", "scales"} if with_boxes_ else set()
        )
        predictions = head(features)
        assert (len(predictions.distances), len(predictions.centerness)) == (2 * with_boxes_, 0)
        assert [tower.shape for tower in predictions.box_tower] == [feature.shape for feature in features]
        losses = fcos_losses(predictions, targets, num_classes=1)
        assert losses.keys() == ({"loss_fcos_cls", "loss_fcos_box"} if with_boxes_ else {"loss_fcos_cls"})


def test_box_loss_without_centerness_is_a_mean_over_the_positives():
    features = torch.zeros(1, 1, 2, 2)
    locations = Locations.of([features], [8])
    targets = assign_targets(
        locations, [with_boxes([[0, 0, 16, 16]])], sizes_of_interest=[], num_classes=1, center_sampling_radius=0
    )
    # every cell of the box of 2 x 2 strides predicts 1 x 1 stride in it: 1 - 1 / 4, the hull is the union
    predictions = FCOSPredictions([features], [torch.full((1, 4, 2, 2), 0.5)], [], [features])
    assert fcos_losses(predictions, targets, num_classes=1)["loss_fcos_box"].item() == pytest.approx(0.75)


def test_initial_weights_of_the_towers():
    torch.manual_seed(0)
    given = FCOSHead(in_channels=64, num_levels=1, num_cls_convs=1, num_box_convs=1, tower_std=0.01)
    assert given.cls_tower[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    he = FCOSHead(in_channels=64, num_levels=1, num_cls_convs=1, num_box_convs=1)
    assert he.box_tower[0].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def predictions_at(locations_map, logits, distances, centerness):
    return FCOSPredictions([logits], [distances], [centerness], [locations_map])


def test_decoding_by_hand():
    features = torch.zeros(1, 1, 1, 3)
    logits = torch.tensor([2.0, 1.0, -9.0]).view(1, 1, 1, 3)
    distances = torch.ones(1, 4, 1, 3)
    centerness = torch.tensor([0.0, 3.0, 3.0]).view(1, 1, 1, 3)
    predictions = predictions_at(features, logits, distances, centerness)
    locations = Locations.of([features], [8])
    found, boxes = FCOSDecoder(nms_thresh=0.6)(predictions, locations)
    # the third is below the threshold; the boxes of the others overlap by a third
    probabilities = torch.tensor([1.0, 2.0]).sigmoid() * torch.tensor([3.0, 0.0]).sigmoid()
    torch.testing.assert_close(found.scores, probabilities.sqrt())
    assert boxes.tolist() == [[4, -4, 20, 12], [-4, -4, 12, 12]]
    assert found.index.tolist() == [1, 0]

    suppressed, _ = FCOSDecoder(nms_thresh=0.3)(predictions, locations)
    assert suppressed.index.tolist() == [1]
    best, _ = FCOSDecoder(post_nms_topk=1)(predictions, locations)
    assert best.index.tolist() == [1]
    top, _ = FCOSDecoder(pre_nms_topk=1)(predictions, locations)
    assert top.index.tolist() == [1]


def test_decoding_keeps_classes_apart_and_survives_nothing():
    features = torch.zeros(1, 1, 1, 1)
    logits = torch.ones(1, 2, 1, 1)
    predictions = predictions_at(features, logits, torch.ones(1, 4, 1, 1), torch.zeros(1, 1, 1, 1))
    locations = Locations.of([features], [8])
    both, _ = FCOSDecoder()(predictions, locations)
    assert sorted(both.classes.tolist()) == [0, 1]
    empty, boxes = FCOSDecoder(score_thresh=0.99)(predictions, locations)
    assert empty.index.tolist() == []
    assert boxes.shape == (0, 4)


def test_decoding_by_class_score_alone():
    features = torch.zeros(2, 1, 1, 3)
    logits = torch.tensor([[2.0, 1.0, -9.0], [0.5, 3.0, 1.5]]).view(2, 1, 1, 3)
    coarse = torch.tensor([[1.5], [-9.0]]).view(2, 1, 1, 1)
    predictions = FCOSPredictions([logits, coarse], [], [], [features, coarse])
    locations = Locations.of([features, coarse], [8, 16])
    # flat order: three of the first image, three of the second, then one each
    found = FCOSDecoder(score_thresh=0.1).candidates(predictions, locations)
    assert found.index.tolist() == [0, 1, 3, 4, 5, 6]
    assert found.image.tolist() == [0, 0, 1, 1, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0, 0.5, 3.0, 1.5, 1.5]).sigmoid())

    # the best two per level and image, and per image
    per_level = FCOSDecoder(score_thresh=0.1, pre_nms_topk=2)
    assert per_level.candidates(predictions, locations).index.tolist() == [0, 1, 4, 5, 6]
    per_image = FCOSDecoder(score_thresh=0.1, pre_nms_topk=2, topk_per_level=False)
    assert per_image.candidates(predictions, locations).index.tolist() == [0, 4, 5, 6]


def test_selection_by_boxes_that_come_later():
    candidates = Candidates(
        index=torch.tensor([0, 1, 2, 7]),
        image=torch.tensor([0, 0, 1, 0]),
        classes=torch.tensor([0, 0, 0, 1]),
        scores=torch.tensor([0.3, 0.9, 0.5, 0.4]),
    )
    same = torch.tensor([0.0, 0.0, 10.0, 10.0]).expand(4, 4)
    kept = FCOSDecoder().select(candidates, same, num_images=2)
    # the first candidate is a duplicate of the second; the last is of another class, the third in another image
    assert kept.tolist() == [1, 3, 2]
    assert candidates[kept].image.tolist() == [0, 0, 1]
    torch.testing.assert_close(candidates[kept].scores, torch.tensor([0.9, 0.4, 0.5]))
    assert candidates[kept].classes.tolist() == [0, 1, 0]


def test_many_boxes_are_matched_as_all_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60, 2, generator=generator) * 64
    corners = torch.rand(37, 2, generator=generator) * 48
    boxes = torch.cat([corners, corners + 4 + torch.rand(37, 2, generator=generator) * 30], dim=1)
    # equal areas: the first is chosen
    boxes[20:25] = boxes[3]
    arguments = {
        "radius": torch.full((60,), 12.0),
        "low": torch.zeros(60),
        "high": torch.full((60,), 64.0),
        "inside_box": True,
    }
    chunked = targets._match(points, boxes, **arguments)
    monkeypatch.setattr(targets, "_BOXES_AT_ONCE", 100)
    expected = targets._match(points, boxes, **arguments)
    assert (expected[0] >= 0).any()
    assert all(torch.equal(a, b) for a, b in zip(chunked, expected))


def test_locations_of_an_image():
    maps = [torch.zeros(3, 1, 4, 5), torch.zeros(3, 1, 2, 3)]
    locations = Locations.of(maps, (8, 16))
    for image in range(3):
        assert torch.equal(locations.of_image(image), (locations.image == image).nonzero()[:, 0])
    assert torch.equal(locations.per_level([1.5, 2.5]), torch.tensor([1.5, 2.5])[locations.level])
