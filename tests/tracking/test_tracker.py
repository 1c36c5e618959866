"""The tracker by hand, and on people who walk and cross."""

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from dynpose.data import COCO_PERSON
from dynpose.data.synthetic import SyntheticPose
from dynpose.tracking import PoseTracker
from dynpose.tracking.motion import KeypointMotion

SIGMAS = (0.1,)


def people(points, scores=None, classes=None, side=20.0):
    """People of one keypoint at (x, 50), with square boxes: OKS exp(-d^2 / 32) at a distance d for a side of 20."""
    number = len(points)
    x = torch.tensor(points, dtype=torch.float32).reshape(number)
    center = torch.stack([x, torch.full_like(x, 50.0)], dim=1)
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.cat([center - side / 2, center + side / 2], dim=1)),
        scores=torch.tensor([0.9] * number if scores is None else scores),
        pred_classes=torch.tensor([0] * number if classes is None else classes),
        pred_keypoints=torch.cat([center, torch.ones(number, 1)], dim=1)[:, None],
    )


def ids_of(tracker, *frames):
    return [tracker.update(frame).tolist() for frame in frames]


def test_the_filter_by_hand():
    """A person of 20 pixels: deviations of a measurement 1, of the first position 2, of the first velocity 37.5."""
    motion = KeypointMotion(np.array([[0.0, 0.0]]), 20.0)
    motion.predict(0.1, 20.0)
    np.testing.assert_allclose(motion.covariance, [[21.203125, 142.734375], [142.734375, 1448.4375]])
    motion.correct(np.array([[10.0, 0.0]]), 20.0)
    # gains 21.203125 / 22.203125 and 142.734375 / 22.203125
    np.testing.assert_allclose(motion.points, [[9.5496130, 0]], rtol=1e-6)
    np.testing.assert_allclose(motion.velocities, [[64.285714, 0]], rtol=1e-6)
    assert motion.covariance[0, 0] == pytest.approx(0.9549613)
    motion.predict(0.1, 20.0)
    np.testing.assert_allclose(motion.points, [[9.5496130 + 6.4285714, 0]], rtol=1e-6)


def test_an_unseen_person_moves_as_one():
    motion = KeypointMotion(np.zeros((2, 2)), 20.0)
    motion.velocities = np.array([[10.0, 0.0], [0.0, 4.0]])
    motion.move_as_one()
    assert motion.velocities.tolist() == [[5.0, 2.0]] * 2


# OKS of at least 0.2: d <= 7.18; of at least 0.5: d <= 4.71
@pytest.mark.parametrize(
    ("distance", "score", "expected"),
    [(7.0, 0.9, 1), (7.4, 0.9, 2), (4.6, 0.2, 1), (4.8, 0.2, -1), (0.0, 0.05, -1)],
    ids=["first", "too far", "second", "too far for a low score", "too low"],
)
def test_the_least_similarity_by_hand(distance, score, expected):
    tracker = PoseTracker(SIGMAS)
    assert ids_of(tracker, people([50.0]), people([50.0 + distance], [score])) == [[1], [expected]]


def test_the_best_pairs_together_are_matched():
    """The nearest pair would leave the person at 10 without a partner: OKS 0.88, and 0.04 with the one at 0."""
    assert ids_of(PoseTracker(SIGMAS), people([0.0, 6.0]), people([4.0, 10.0])) == [[1, 2], [1, 2]]


def test_a_low_score_continues_a_track_and_begins_none():
    tracker = PoseTracker(SIGMAS)
    frames = [people([50.0, 80.0], [0.9, 0.2]), people([50.0, 80.0], [0.2, 0.2]), people([50.0, 80.0], [0.9, 0.9])]
    assert ids_of(tracker, *frames) == [[1, -1], [1, -1], [1, 2]]


def test_a_new_track_needs_a_second_frame_and_an_old_one_survives_a_gap():
    tracker = PoseTracker(SIGMAS, frame_rate=10.0, max_unseen=0.3)
    # person 2 is there once: next time it is another one
    both, first, none = people([20.0, 80.0]), people([20.0]), people([])
    assert ids_of(tracker, first, both, first, both, both) == [[1], [1, 2], [1], [1, 3], [1, 3]]
    # unseen for 0.2 s, and for 0.4 s
    assert ids_of(tracker, none, none, both) == [[], [], [1, 3]]
    assert ids_of(tracker, none, none, none, none, both) == [[], [], [], [], [4, 5]]


def test_times_count_not_frames():
    tracker = PoseTracker(SIGMAS, max_unseen=1.0)
    assert tracker.update(people([20.0]), 10.0).tolist() == [1]
    assert tracker.update(people([20.0]), 10.04).tolist() == [1]
    assert tracker.update(people([]), 10.5).tolist() == []
    assert tracker.update(people([20.0]), 11.0).tolist() == [1]
    assert tracker.update(people([]), 12.5).tolist() == []
    assert tracker.update(people([20.0]), 12.6).tolist() == [2]
    with pytest.raises(ValueError, match=r"a frame at 12.6 s is not after the previous one, at 12.6 s"):
        tracker.update(people([]), 12.6)


def test_classes_do_not_mix():
    tracker = PoseTracker(SIGMAS)
    assert ids_of(tracker, people([50.0], classes=[0]), people([50.0], classes=[1])) == [[1], [2]]


def test_values_that_are_not_finite_have_no_identity():
    poisoned = people([50.0, 20.0, 80.0])
    poisoned.pred_keypoints[0, 0, 0] = math.nan
    poisoned.scores[1] = math.nan
    poisoned.pred_boxes.tensor[2, 0] = -math.inf
    assert ids_of(PoseTracker(SIGMAS), people([50.0]), poisoned, people([50.0])) == [[1], [-1, -1, -1], [1]]


def test_a_box_without_area_has_a_size():
    """A method without a box head derives the box from the keypoints, of which there is one."""
    assert ids_of(PoseTracker(SIGMAS), people([50.0], side=0.0), people([51.0], side=0.0)) == [[1], [1]]


def test_reset_begins_another_video():
    tracker = PoseTracker(SIGMAS)
    assert tracker.update(people([50.0]), 5.0).tolist() == [1]
    tracker.reset()
    assert tracker.update(people([20.0]), 0.0).tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (0.1, 0.0)}, "sigmas"),
        ({"sigmas": (0.1,), "low_score": 0.5}, "low_score 0.5"),
        ({"sigmas": (0.1,), "max_unseen": -1}, "max_unseen"),
        ({"sigmas": (0.1,), "frame_rate": 0}, "frame_rate"),
    ],
)
def test_refuses_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoseTracker(**arguments)


def test_refuses_other_keypoints():
    with pytest.raises(ValueError, match="instances of 1 keypoints, but a tracker of 2 sigmas"):
        PoseTracker((0.1, 0.2)).update(people([50.0]))


# --- people who walk ---


def walker(index):
    """A synthetic person's 17 keypoints around (0, 0), of a height of about 150 pixels: (17, 2)."""
    _, annotations = SyntheticPose(image_size=(256, 256), people=(1, 1), scale=(0.6, 0.6), truncation=0.0).render(index)
    points = np.array(annotations[0]["keypoints"], dtype=float).reshape(-1, 3)
    points, labelled = points[:, :2], points[:, 2] > 0
    points[~labelled] = points[labelled].mean(axis=0)
    return points - points.mean(axis=0)


def walk(body, start, speed, time):
    """The keypoints at a time: the body moves, wrists and ankles swing at 1 Hz by a tenth of the height."""
    points = body + np.array([start + speed * time, 150.0])
    phase = 2 * math.pi * time
    for name, sign in (("left_wrist", 1), ("right_wrist", -1), ("left_ankle", -1), ("right_ankle", 1)):
        points[COCO_PERSON.names.index(name), 0] += sign * 15 * math.sin(phase)
    return points


def seen(poses, scores):
    """Instances of poses, with their boxes and noise of a pixel."""
    noise = np.random.default_rng(len(poses) + int(1e4 * poses[0][0, 0])).normal(size=(len(poses), 17, 2))
    points = torch.tensor(np.stack(poses) + noise, dtype=torch.float32)
    return Instances(
        (300, 600),
        pred_boxes=Boxes(torch.cat([points.amin(dim=1) - 5, points.amax(dim=1) + 5], dim=1)),
        scores=torch.tensor(scores),
        pred_classes=torch.zeros(len(poses), dtype=torch.int64),
        pred_keypoints=torch.cat([points, torch.ones(len(poses), 17, 1)], dim=2),
    )


def crossing(rate, hidden=()):
    """Frames in which two people cross after 2 seconds; the second one, behind, is not found at some times.

    Yields:
        tuple: time, instances in a varying order, and the person (0 or 1) of each.
    """
    bodies = walker(0), walker(3)
    for index in range(int(4 * rate)):
        time = index / rate
        poses = [walk(bodies[0], 100.0, 100.0, time), walk(bodies[1], 500.0, -100.0, time)]
        present = [0] if any(first <= time < last for first, last in hidden) else [0, 1]
        order = present[::-1] if index % 3 else present
        yield time, seen([poses[person] for person in order], [0.8] * len(order)), order


@pytest.mark.parametrize(
    ("rate", "hidden"),
    [(30, ()), (10, ()), (30, [(1.7, 2.3)]), (10, [(1.7, 2.3)]), (30, [(0.5, 0.8), (3.0, 3.9)])],
)
def test_people_who_cross_keep_their_identities(rate, hidden):
    tracker = PoseTracker(COCO_PERSON.sigmas)
    of_person: dict[int, set[int]] = {0: set(), 1: set()}
    for time, instances, order in crossing(rate, hidden):
        for person, track_id in zip(order, tracker.update(instances, time).tolist()):
            of_person[person].add(track_id)
    assert of_person == {0: {1}, 1: {2}}


def test_the_same_frames_give_the_same_identities():
    runs = []
    for _ in range(2):
        tracker = PoseTracker(COCO_PERSON.sigmas)
        runs.append([tracker.update(instances, time).tolist() for time, instances, _ in crossing(10, [(1.7, 2.3)])])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_a_refused_time_changes_nothing(time):
    """The next frame continues the tracks of the frame before."""
    tracker = PoseTracker(COCO_PERSON.sigmas)
    frames = [(at, instances) for at, instances, _ in crossing(30, ())][:2]
    first = tracker.update(frames[0][1], frames[0][0])
    with pytest.raises(ValueError, match=r"time of a frame must be finite|is not after the previous one"):
        tracker.update(frames[1][1], time)
    assert sorted(tracker.update(frames[1][1], frames[1][0]).tolist()) == sorted(first.tolist())


def test_an_infinite_time_of_the_first_frame_is_refused():
    tracker = PoseTracker(COCO_PERSON.sigmas)
    with pytest.raises(ValueError, match="time of a frame must be finite, got inf"):
        tracker.update(seen([walk(walker(0), 100.0, 100.0, 0.0)], [0.8]), math.inf)


def test_an_instance_without_a_score_has_no_identity():
    tracker = PoseTracker(COCO_PERSON.sigmas)
    pose = walk(walker(0), 100.0, 100.0, 0.0)
    assert tracker.update(seen([pose, pose + 300], [0.8, math.nan])).tolist() == [1, -1]
