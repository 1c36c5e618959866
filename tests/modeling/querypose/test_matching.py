"""QueryPose's matching and set losses against numbers worked out by hand, fvcore, torchvision and all permutations."""

import itertools
import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from fvcore.nn import giou_loss

from dynpose.layers.process_mean import normalizer
from dynpose.modeling.querypose.losses import (
    box_losses,
    class_loss,
    from_relative,
    keypoint_targets,
    to_relative,
)
from dynpose.modeling.querypose.matching import class_costs, match_stages, matching_costs

WEIGHTS = {"class": 2.0, "l1": 5.0, "giou": 2.0}


def random_boxes(*shape, seed=0, size=(100, 200)):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    corners = torch.rand(*shape, 2, 2, generator=generator).sort(dim=-2).values
    return (corners * torch.tensor([width, height])).flatten(-2)


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ground_truth(boxes, size=(100, 200), classes=None):
    instances = Instances(size)
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64) if classes is None else torch.tensor(classes)
    return instances


def test_class_cost_by_hand():
    # p = 0.8: 0.25 * 0.2^2 * -log(0.8) - 0.75 * 0.8^2 * -log(0.2)
    logit = math.log(0.8 / 0.2)
    expected = 0.25 * 0.04 * -math.log(0.8) + 0.75 * 0.64 * math.log(0.2)
    costs = class_costs(torch.tensor([[logit, -3.0]]), torch.tensor([0, 1, 0]))
    assert costs.shape == (1, 3)
    assert costs[0, 0].item() == costs[0, 2].item() == pytest.approx(expected, rel=1e-5)
    # sure of the opposite: finite
    assert class_costs(torch.tensor([[-300.0], [300.0]]), torch.tensor([0])).isfinite().all()


def test_costs_by_hand():
    boxes = torch.tensor([[[0.0, 0, 50, 100], [100, 0, 200, 50]]])
    gt = torch.tensor([[0.0, 0, 100, 100]])
    logits = torch.zeros(1, 2, 1)
    costs = matching_costs(logits, boxes, torch.tensor([0]), gt, (100, 200), weights=WEIGHTS)
    by_class = 2 * (0.25 - 0.75) * 0.25 * math.log(2)
    # the first: x1 is off by 50 of 200; IoU 1 / 2, and the hull is the annotated box itself
    first = by_class + 5 * 0.25 - 2 * 0.5
    # the second: x0 and x1 by 100 of 200, y1 by 50 of 100; IoU 0, and a quarter of the hull is empty
    second = by_class + 5 * 1.5 + 2 * 0.25
    assert costs.shape == (1, 2, 1)
    torch.testing.assert_close(costs[0, :, 0], torch.tensor([first, second]))


def by_permutations(costs):
    """Pairs of the least sum of costs, of all there are."""
    num_queries, num_people = costs.shape
    if num_people > num_queries:
        return sorted((query, person) for person, query in by_permutations(costs.T))
    choices = itertools.permutations(range(num_queries), num_people)
    best = min(choices, key=lambda queries: sum(costs[query, person].item() for person, query in enumerate(queries)))
    return sorted((query, person) for person, query in enumerate(best))


def test_every_stage_and_image_is_matched_at_the_least_cost():
    people = [3, 0, 6, 1]
    sizes = [(100, 200), (64, 64), (120, 50), (100, 200)]
    gt = [ground_truth(random_boxes(n, seed=n, size=size), size) for n, size in zip(people, sizes)]
    logits, boxes = random_logits(2, 4, 5, 1), random_boxes(2, 4, 5, seed=9)
    matches = match_stages(logits, boxes, gt, weights=WEIGHTS)
    assert len(matches) == 2
    for stage in range(2):
        expected, first_person = [], 0
        for image, instances in enumerate(gt):
            costs = matching_costs(
                logits[stage : stage + 1, image],
                boxes[stage : stage + 1, image],
                instances.gt_classes,
                instances.gt_boxes.tensor,
                sizes[image],
                weights=WEIGHTS,
            )[0]
            expected += [(query + 5 * image, person + first_person) for query, person in by_permutations(costs)]
            first_person += len(instances)
        queries, people_of = matches[stage]
        assert list(zip(queries.tolist(), people_of.tolist())) == expected
        assert queries.tolist() == sorted(queries.tolist())
        # six people, five queries
        assert len(queries) == 3 + 0 + 5 + 1
    assert any(not torch.equal(*pair) for pair in zip(*matches))


def test_costs_are_brought_to_the_cpu_once(monkeypatch):
    calls = []
    to_cpu = torch.Tensor.cpu

    def count(name):
        method = getattr(torch.Tensor, name)
        return lambda self, *args, **kwargs: (calls.append(name), method(self, *args, **kwargs))[1]

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, count(name))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (calls.append("cpu"), to_cpu(self))[1])
    gt = [ground_truth(random_boxes(n, seed=n)) for n in (3, 0, 2)]
    match_stages(random_logits(6, 3, 5, 1), random_boxes(6, 3, 5), gt, weights=WEIGHTS)
    assert calls == ["cpu"]


@pytest.mark.gpu
def test_on_a_gpu_nothing_else_waits():
    gt = [ground_truth(random_boxes(n, seed=n)).to("cuda") for n in (3, 0, 2)]
    logits, boxes = random_logits(6, 3, 5, 1).cuda(), random_boxes(6, 3, 5).cuda()
    expected = match_stages(logits, boxes, gt, weights=WEIGHTS)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        matches = match_stages(logits, boxes, gt, weights=WEIGHTS)
    assert sum(event.count for event in profile.key_averages() if "Memcpy DtoH" in event.key) == 1
    assert all(torch.equal(a, b) for pairs in zip(matches, expected) for a, b in zip(*pairs))


def test_no_people():
    gt = [ground_truth([]), ground_truth([])]
    for queries, people in match_stages(random_logits(3, 2, 5, 1), random_boxes(3, 2, 5), gt, weights=WEIGHTS):
        assert queries.shape == people.shape == (0,)
        assert queries.dtype == people.dtype == torch.int64


def test_a_run_that_has_diverged_gets_to_its_losses():
    logits = torch.full((1, 1, 4, 1), math.nan)
    ((queries, people),) = match_stages(logits, random_boxes(1, 1, 4), [ground_truth(random_boxes(2))], weights=WEIGHTS)
    assert len(queries) == len(people) == 2
    assert class_loss(logits[0], queries, torch.zeros(2, dtype=torch.int64)).isnan()


def test_degenerate_boxes_are_matched():
    """An annotated box without extent, and predicted ones as small as they get."""
    boxes = random_boxes(1, 1, 3)
    boxes[0, 0, 0] = torch.tensor([50, 50, 50.01, 50.01])
    gt = [ground_truth([[50.0, 50, 50, 50], [10, 10, 90, 90]])]
    ((queries, people),) = match_stages(random_logits(1, 1, 3, 1), boxes, gt, weights=WEIGHTS)
    assert dict(zip(people.tolist(), queries.tolist()))[0] == 0
    sizes = torch.tensor([200.0, 100]).repeat(2, 1)
    for loss in box_losses(boxes[0, 0, queries], gt[0].gt_boxes.tensor[people], sizes):
        assert loss.isfinite()


def test_several_classes():
    """Only the class tells who is who."""
    logits = torch.tensor([[[[-5.0, 5, -5], [5, -5, -5], [-5, -5, -5]]]])
    boxes = torch.tensor([10.0, 10, 60, 60]).repeat(1, 1, 3, 1)
    ((queries, people),) = match_stages(logits, boxes, [ground_truth(boxes[0, 0, :2], classes=[0, 1])], weights=WEIGHTS)
    assert (queries.tolist(), people.tolist()) == ([0, 1], [1, 0])


# Losses


def test_class_loss_by_hand():
    """p = 0.5 everywhere: each costs log 2 / 4, times 0.25 for matched queries and 0.75 for others."""
    loss = class_loss(torch.zeros(2, 3, 1), torch.tensor([1, 5]), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(math.log(2) / 4 * (2 * 0.25 + 4 * 0.75), rel=1e-6)
    no_people = torch.zeros(0, dtype=torch.int64)
    loss = class_loss(torch.zeros(2, 3, 2), no_people, no_people)
    assert loss.item() == pytest.approx(math.log(2) / 4 * 12 * 0.75, rel=1e-6)


def test_box_losses():
    boxes, gt = random_boxes(5, seed=1), random_boxes(5, seed=2)
    sizes = torch.tensor([[200.0, 100]] * 3 + [[50, 400]] * 2)
    distance, overlap = box_losses(boxes, gt, sizes)
    expected = sum(
        abs(a - b) / side
        for row, gt_row, (width, height) in zip(boxes.tolist(), gt.tolist(), sizes.tolist())
        for a, b, side in zip(row, gt_row, (width, height, width, height))
    )
    assert distance.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(overlap, giou_loss(boxes, gt, reduction="sum"))
    assert [loss.item() for loss in box_losses(gt, gt, sizes)] == pytest.approx([0, 0], abs=1e-5)
    assert [loss.item() for loss in box_losses(boxes[:0], gt[:0], sizes[:0])] == [0, 0]


def test_relative_keypoints():
    box = torch.tensor([[10.0, 20, 30, 60]])
    points = torch.tensor([[[20.0, 40], [10, 20], [30, 60], [40, 0]]])
    relative = to_relative(points, box)
    assert relative.tolist() == [[[0, 0], [-0.5, -0.5], [0.5, 0.5], [1, -1]]]
    assert from_relative(relative, box).tolist() == points.tolist()


def test_keypoint_targets():
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 0.01, 0.01]])
    keypoints = torch.tensor(
        [
            [[20, 30, 2], [30, 60, 1], [31, 40, 2], [20, 19, 1], [25, 25, 0]],
            [[0.005, 0.005, 2], [1e5, 0, 2], [0, -1e5, 1], [0, 0, 0], [0.02, 0, 2]],
        ]
    )
    targets, learnt = keypoint_targets(keypoints, boxes)
    assert learnt.tolist() == [[True, True, False, False, False], [True, False, False, False, False]]
    assert targets[0].tolist() == [[0, -0.25], [0.5, 0.5], [0, 0], [0, 0], [0, 0]]
    assert targets.isfinite().all()
    targets, learnt = keypoint_targets(keypoints[:0], boxes[:0])
    assert targets.shape == (0, 5, 2)
    assert learnt.shape == (0, 5)


def test_normalizer():
    assert normalizer(7).item() == 7
    assert normalizer(0).item() == 1
