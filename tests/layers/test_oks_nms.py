"""OKS by hand and against pycocotools; NMS against the recorded one; matching of views by hand."""

import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dynpose.data import COCO_PERSON
from dynpose.layers import oks_nms as oks_nms_module
from dynpose.layers.oks_nms import group_by_oks, oks_nms, oks_nms_by_group, pairwise_oks, pose_areas, soft_oks_nms


def points(*xs):
    """Poses of two keypoints, 30 pixels apart in x and in y, at x = xs: each rectangle has 900 square pixels."""
    return torch.tensor([[[x, 0.0], [x + 30.0, 30.0]] for x in xs])


def test_oks_by_hand():
    poses = torch.tensor([[[3.0, 4.0], [10.0, 10.0]], [[0.0, 0.0], [10.0, 16.0]]])
    others = torch.tensor([[[0.0, 0.0], [10.0, 10.0]]])
    # distances 5, 0 and 0, 6; area 100; 2 area (2 sigma)^2 is 8 for sigma 0.1 and 32 for sigma 0.2
    expected = [[(math.exp(-25 / 8) + 1) / 2], [(1 + math.exp(-36 / 32)) / 2]]
    torch.testing.assert_close(pairwise_oks(poses, others, torch.tensor([100.0]), [0.1, 0.2]), torch.tensor(expected))
    # the second keypoint alone, then none
    visible = torch.tensor([[False, True]])
    oks = pairwise_oks(poses, others, torch.tensor([100.0]), [0.1, 0.2], visible)
    torch.testing.assert_close(oks, torch.tensor([[1.0], [math.exp(-36 / 32)]]))
    assert pairwise_oks(poses, others, torch.tensor([100.0]), [0.1, 0.2], visible & False).tolist() == [[0], [0]]


def test_oks_takes_the_area_of_each_pair():
    oks = pairwise_oks(points(0.0, 0.0), points(4.0), torch.tensor([[400.0], [100.0]]), [0.1, 0.1])
    torch.testing.assert_close(oks, torch.tensor([[math.exp(-16 / 32)], [math.exp(-16 / 8)]]))


def test_oks_without_an_area_is_that_of_equality():
    assert pairwise_oks(points(0.0), points(0.0, 1.0), torch.zeros(2), [0.1, 0.1]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("sigmas", [[0.1], [0.1] * 3])
def test_refuses_other_numbers_of_keypoints(sigmas):
    with pytest.raises(ValueError, match=f"poses of 2 and 2 keypoints and {len(sigmas)} OKS sigmas"):
        pairwise_oks(points(0.0), points(0.0), torch.ones(1), sigmas)


def test_oks_is_that_of_pycocotools():
    random = np.random.RandomState(0)
    sizes = random.uniform(20, 200, (5, 1, 1))
    people = random.uniform(0, 1, (5, 17, 2)) * sizes
    people = np.concatenate([people, random.randint(0, 3, (5, 17, 1))], axis=2)
    areas = sizes.flatten() ** 2 * 0.6
    found = people[[0, 1, 2, 3, 4, 0, 1]] + random.normal(0, 4, (7, 17, 3))

    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": int((person[:, 2] > 0).sum()),
                "area": area,
                "bbox": [0, 0, 200, 200],
                "keypoints": person.flatten().tolist(),
            }
            for i, (person, area) in enumerate(zip(people, areas))
        ],
    }
    truth.createIndex()
    records = [
        {"image_id": 1, "category_id": 1, "score": 1 - i / 10, "keypoints": pose.flatten().tolist()}
        for i, pose in enumerate(found)
    ]
    evaluation = COCOeval(truth, truth.loadRes(records), "keypoints")
    evaluation.evaluate()
    oks = pairwise_oks(
        torch.from_numpy(found),
        torch.from_numpy(people),
        torch.from_numpy(areas),
        COCO_PERSON.sigmas,
        torch.from_numpy(people[..., 2] > 0),
    )
    assert oks.max() > 0.5
    np.testing.assert_allclose(oks.numpy(), evaluation.ious[1, 1], rtol=1e-9)


def test_pose_areas():
    assert pose_areas(torch.tensor([[[1.0, 2.0, 9.0], [4.0, 0.0, 9.0], [2.0, 7.0, 9.0]]])).tolist() == [21.0]


def test_nms_keeps_the_best_of_similar_poses():
    # 0.1: the pair's OKS is exp(-dx^2 / 72): 0.95 at 2 pixels, 0.80 at 4, 0.61 at 6
    poses, scores = points(0.0, 2.0, 6.0, 200.0), torch.tensor([0.5, 0.9, 0.7, 0.6])
    assert oks_nms(poses, scores, [0.1, 0.1], 0.9).tolist() == [1, 2, 3]
    assert oks_nms(poses, scores, [0.1, 0.1], 0.75).tolist() == [1, 3]
    assert oks_nms(poses, scores, [0.1, 0.1], 0.75, classes=torch.tensor([0, 0, 1, 0])).tolist() == [1, 2, 3]
    # with a tenth of the area no pose is similar
    assert oks_nms(poses, scores, [0.1, 0.1], 0.9, areas=torch.full((4,), 90.0)).tolist() == [1, 2, 3, 0]


def test_nms_keeps_a_pose_that_is_similar_only_to_a_dropped_one():
    assert oks_nms(points(0.0, 4.0, 8.0), torch.tensor([0.9, 0.8, 0.7]), [0.1, 0.1], 0.75).tolist() == [0, 2]


def test_nms_of_equal_scores_and_of_no_poses():
    assert oks_nms(points(0.0, 0.0, 90.0), torch.ones(3), [0.1, 0.1], 0.5).tolist() == [0, 2]
    assert oks_nms(torch.zeros(0, 2, 2), torch.zeros(0), [0.1, 0.1], 0.5).tolist() == []


def test_nms_is_the_recorded_one(test_data):
    recorded = np.load(test_data / "reference/cid/outputs.npz")
    kept = oks_nms(
        torch.from_numpy(recorded["oks_nms_dup/poses"]),
        torch.from_numpy(recorded["oks_nms_dup/scores"]),
        COCO_PERSON.sigmas,
        threshold=0.8,
    )
    assert kept.tolist() == recorded["oks_nms_dup/keep"].tolist()


@pytest.fixture(params=["eager", "in a graph"])
def form(request, monkeypatch):
    """The form of :func:`oks_nms_by_group`."""
    monkeypatch.setattr(oks_nms_module, "is_recording", lambda: request.param == "in a graph")


@pytest.mark.usefixtures("form")
def test_nms_by_group_by_hand():
    # each group has 0, 4 and 8, neighbours of which are similar
    poses, groups = points(0.0, 4.0, 8.0, 8.0, 4.0, 0.0), torch.tensor([0, 0, 0, 2, 2, 2])
    options = {"num_groups": 3, "max_per_group": 3}
    scores = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.3, 0.2])
    # the second group's best is similar to both others
    assert oks_nms_by_group(poses, scores, [0.1, 0.1], 0.75, groups, **options).tolist() == [0, 2, 4]
    # of equal scores the earlier is kept, and comes first
    assert oks_nms_by_group(poses, torch.ones(6), [0.1, 0.1], 0.75, groups, **options).tolist() == [0, 2, 3, 5]
    none = oks_nms_by_group(poses[:0], scores[:0], [0.1, 0.1], 0.75, groups[:0], **options)
    assert (none.dtype, none.tolist()) == (torch.int64, [])
    # non-finite poses are similar to none
    poses[1, 0] = math.nan
    scores[1] = math.nan
    assert oks_nms_by_group(poses, scores, [0.1, 0.1], 0.75, groups, **options).tolist() == [1, 0, 2, 4]


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("number", [1, 7, 60])
def test_nms_in_a_graph_is_that_of_a_loop(monkeypatch, number, threshold):
    monkeypatch.setattr(oks_nms_module, "is_recording", lambda: True)
    generator = torch.Generator().manual_seed(number)
    # people in a row, each similar to its neighbours: the longest chains of decisions
    square = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
    poses = square + torch.arange(number)[:, None, None] + 4 * torch.rand(number, 4, 2, generator=generator)
    scores = torch.randint(0, 2 * number, (number,), generator=generator).float()
    groups = torch.randint(0, 3, (number,), generator=generator).sort().values
    kept = oks_nms_by_group(poses, scores, [0.2] * 4, threshold, groups, num_groups=3, max_per_group=number)
    expected = []
    for group in range(3):
        members = (groups == group).nonzero()[:, 0]
        expected += members[oks_nms(poses[members], scores[members], [0.2] * 4, threshold)].tolist()
    assert kept.tolist() == expected
    assert number == 1 or 1 < len(expected) < number


def test_a_chain_needs_as_many_steps_as_it_has_poses(monkeypatch):
    monkeypatch.setattr(oks_nms_module, "is_recording", lambda: True)
    poses, scores = points(*(4.0 * i for i in range(30))), torch.linspace(1, 0.1, 30)
    options = {"sigmas": [0.1, 0.1], "threshold": 0.75, "groups": torch.zeros(30, dtype=torch.int64), "num_groups": 1}
    assert oks_nms_by_group(poses, scores, **options, max_per_group=30).tolist() == list(range(0, 30, 2))
    assert oks_nms_by_group(poses, scores, **options, max_per_group=5).tolist() != list(range(0, 30, 2))


def test_groups_have_the_best_similar_pose_of_each_view():
    poses = points(0.0, 100.0, 3.0, 1.0, 101.0, 6.0)
    views = torch.tensor([0, 0, 1, 1, 1, 2])
    scores = torch.tensor([0.9, 0.8, 0.65, 0.6, 0.5, 0.4])
    group, leaders = group_by_oks(poses, scores, views, [0.1, 0.1], 0.75)
    # from view 1, pose 3 joins the leader 0 (OKS 0.99, times 0.6), not pose 2 (0.88 times 0.65 is less);
    # pose 5 is too far from 0 (0.61) but near 2 (0.88)
    assert group.tolist() == [0, 1, 2, 0, 1, 2]
    assert leaders.tolist() == [0, 1, 2]


def test_groups_prefer_the_higher_score_of_two_copies():
    # the copy 1 of 2 is a little nearer to the leader
    poses, scores = points(0.0, 0.5, 1.0), torch.tensor([0.9, 0.3, 0.8])
    group, _ = group_by_oks(poses, scores, torch.tensor([0, 1, 1]), [0.1, 0.1], 0.75)
    assert group.tolist() == [0, 1, 0]


def test_groups_hold_one_class_and_one_pose_of_a_view():
    group, leaders = group_by_oks(points(0.0, 0.0), torch.tensor([0.1, 0.2]), torch.zeros(2), [0.1, 0.1], 0.5)
    assert (group.tolist(), leaders.tolist()) == ([1, 0], [1, 0])
    classes = torch.tensor([0, 1, 1])
    group, _ = group_by_oks(points(0.0, 0.0, 0.0), torch.ones(3), torch.arange(3), [0.1, 0.1], 0.5, classes=classes)
    assert group.tolist() == [0, 1, 1]


def test_no_poses_make_no_group():
    group, leaders = group_by_oks(torch.zeros(0, 2, 3), torch.zeros(0), torch.zeros(0), [0.1, 0.1], 0.5)
    assert group.shape == leaders.shape == (0,)


def test_soft_oks_nms_by_hand():
    poses = points(0.0, 0.0, 90.0)
    kept, scores = soft_oks_nms(poses, torch.tensor([0.5, 0.9, 0.2]), [0.1, 0.1], sigma=0.5)
    assert kept.tolist() == [1, 2, 0]
    assert scores.tolist() == pytest.approx([0.9, 0.2, 0.5 * math.exp(-2)], abs=1e-5)
    kept, scores = soft_oks_nms(poses, torch.tensor([0.5, 0.9, 0.2]), [0.1, 0.1], method="linear")
    assert kept.tolist() == [1, 2]  # 0.5 * (1 - 1) is below min_score
    assert scores.tolist() == pytest.approx([0.9, 0.2])


def soft_by_a_loop(oks, scores, method, threshold, sigma, min_score):
    """Figure 2 of Bodla et al., one pose after another."""
    left = {index: score for index, score in enumerate(scores) if score >= min_score}
    result = []
    while left:
        best = max(left, key=lambda index: (left[index], -index))
        result.append((best, left.pop(best)))
        for index in list(left):
            if method == "gaussian":
                left[index] *= math.exp(-(oks[best][index] ** 2) / sigma)
            elif oks[best][index] > threshold:
                left[index] *= 1 - oks[best][index]
            if left[index] < min_score:
                del left[index]
    return sorted(result, key=lambda pair: -pair[1])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_oks_nms_is_that_of_a_plain_loop(method):
    generator = torch.Generator().manual_seed(0)
    centers = torch.rand(8, 1, 2, generator=generator) * 60
    poses = centers[torch.randint(8, (30,), generator=generator)] + 20 * torch.rand(30, 5, 2, generator=generator)
    scores = torch.rand(30, generator=generator)
    classes = torch.randint(2, (30,), generator=generator)
    areas = 200 + 400 * torch.rand(30, generator=generator)
    sigmas = [0.05, 0.1, 0.1, 0.2, 0.1]
    pair_areas = (areas[:, None] + areas) / 2
    oks = (pairwise_oks(poses, poses, pair_areas, sigmas) * (classes[:, None] == classes)).tolist()
    options = {"method": method, "threshold": 0.3, "sigma": 0.4, "min_score": 0.05}
    kept, lowered = soft_oks_nms(poses, scores, sigmas, areas=areas, classes=classes, **options)
    expected = soft_by_a_loop(oks, scores.tolist(), **options)
    assert kept.tolist() == [index for index, _ in expected]
    assert lowered.tolist() == pytest.approx([score for _, score in expected], abs=1e-5)
    assert (lowered < scores[kept] - 1e-4).any()
    first, _ = soft_oks_nms(poses, scores, sigmas, areas=areas, classes=classes, max_poses=3, **options)
    assert first.tolist() == kept[:3].tolist()


def test_soft_oks_nms_of_none_and_of_non_finite_poses():
    assert soft_oks_nms(torch.zeros(0, 2, 2), torch.zeros(0), [0.1, 0.1])[0].tolist() == []
    poses = points(0.0, 0.0, 0.0)
    poses[1] = float("nan")
    kept, scores = soft_oks_nms(poses, torch.tensor([0.9, 0.8, 0.7]), [0.1, 0.1])
    assert kept.tolist() == [0, 1, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7 * math.exp(-2)], abs=1e-5)
    with pytest.raises(ValueError, match="method must be 'linear' or 'gaussian', got 'hard'"):
        soft_oks_nms(poses, torch.ones(3), [0.1, 0.1], method="hard")
