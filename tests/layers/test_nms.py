"""Soft-NMS: by hand, against a plain loop, and over groups."""

import math

import pytest
import torch

from dynpose.layers.nms import soft_nms

# the second is half of the first, the third the other half of the first and more; the fourth is far away
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 5, 10, 15], [20, 0, 30, 10]])
SCORES = torch.tensor([0.9, 0.8, 0.6, 0.5])
ONE_GROUP = torch.zeros(4, dtype=torch.int64)


def test_linear_by_hand():
    kept, scores = soft_nms(BOXES, SCORES, ONE_GROUP, iou_threshold=0.3)
    # IoU with the first: 1/2, 1/3 and 0; the second and the third do not overlap
    assert kept.tolist() == [0, 3, 1, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.4, 0.4])


def test_linear_ignores_smaller_overlaps():
    kept, scores = soft_nms(BOXES, SCORES, ONE_GROUP, iou_threshold=0.4)
    assert kept.tolist() == [0, 2, 3, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.5, 0.4])


def test_gaussian_by_hand():
    kept, scores = soft_nms(BOXES, SCORES, ONE_GROUP, method="gaussian", sigma=0.5)
    assert kept.tolist() == [0, 3, 1, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.8 * math.exp(-0.5), 0.6 * math.exp(-2 / 9)])


def test_low_scores_are_dropped():
    # 0.8 and 0.6 fall to 0.4, below the limit; 0.3 was there from the beginning
    scores = torch.tensor([0.9, 0.8, 0.6, 0.3])
    kept, lowered = soft_nms(BOXES, scores, ONE_GROUP, min_score=0.45)
    assert kept.tolist() == [0]
    assert lowered.tolist() == pytest.approx([0.9])


def test_a_copy_falls_to_zero():
    boxes = BOXES[[0, 0]]
    kept, scores = soft_nms(boxes, SCORES[:2], ONE_GROUP[:2], min_score=0.0)
    assert kept.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.0])


def test_without_a_lowest_score_nothing_is_kept_twice():
    """A weight of 0, at an IoU of 1, revives neither the selected boxes nor the padding of a smaller group."""
    boxes = BOXES[[0, 1, 2, 0]]
    kept, scores = soft_nms(boxes, SCORES, torch.tensor([0, 0, 0, 1]), min_score=0.0)
    assert sorted(kept.tolist()) == [0, 1, 2, 3]
    kept, scores = soft_nms(BOXES[[0, 0, 3]], SCORES[:3], torch.tensor([0, 0, 1]), min_score=0.0)
    assert kept.tolist() == [0, 2, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.0])


def test_groups_do_not_compete():
    groups = torch.tensor([5, 9, 5, 9])
    kept, scores = soft_nms(BOXES, SCORES, groups)
    assert kept.tolist() == [0, 1, 3, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5, 0.4])


def _random(seed, n=40):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(n, 2, generator=generator)], dim=1)
    return boxes, torch.rand(n, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def _loop(boxes, scores, groups, method, iou_threshold=0.3, sigma=0.5, min_score=1e-3):
    """One box at a time, in Python numbers."""
    left = [[score, i] for i, score in enumerate(scores.tolist())]
    result = []
    while left:
        best = max(left)
        left.remove(best)
        result.append(best)
        for other in left:
            if groups[best[1]] != groups[other[1]]:
                continue
            x0, y0, x1, y1 = boxes[best[1]].tolist()
            a0, b0, a1, b1 = boxes[other[1]].tolist()
            common = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
            iou = common / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - common)
            if method == "linear":
                other[0] *= 1 - iou if iou > iou_threshold else 1
            else:
                other[0] *= math.exp(-(iou**2) / sigma)
        left = [other for other in left if other[0] >= min_score]
    return result


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("seed", range(3))
def test_against_a_loop(method, seed):
    boxes, scores, groups = _random(seed)
    kept, lowered = soft_nms(boxes, scores, groups, method=method)
    expected = _loop(boxes, scores, groups, method)
    assert kept.tolist() == [index for _, index in expected]
    assert lowered.tolist() == pytest.approx([score for score, _ in expected], rel=1e-4)


def test_a_limit_gives_the_first_of_each_group():
    boxes, scores, groups = _random(7)
    kept, lowered = soft_nms(boxes, scores, groups)
    first, first_scores = soft_nms(boxes, scores, groups, max_per_group=3)
    expected = [i for i, k in enumerate(kept) if (groups[kept[:i]] == groups[k]).sum() < 3]
    assert first.tolist() == kept[expected].tolist()
    assert torch.equal(first_scores, lowered[expected])


def test_equal_scores_keep_their_order():
    kept, _ = soft_nms(BOXES[[3, 0]], torch.tensor([0.5, 0.5]), ONE_GROUP[:2])
    assert kept.tolist() == [0, 1]


def test_nothing():
    kept, scores = soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert kept.shape == scores.shape == (0,)
    assert kept.dtype == torch.int64


def test_boxes_without_extent():
    boxes = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]])
    kept, scores = soft_nms(boxes, SCORES[:3], ONE_GROUP[:3])
    assert kept.tolist() == [0, 1, 2]
    assert torch.equal(scores, SCORES[:3])


@pytest.mark.parametrize(("argument", "value"), [("method", "hard"), ("sigma", 0.0), ("min_score", -0.1)])
def test_wrong_arguments(argument, value):
    with pytest.raises(ValueError, match=argument):
        soft_nms(BOXES, SCORES, ONE_GROUP, **{argument: value})
