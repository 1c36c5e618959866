"""The poses of the synthetic people: joint angles drawn from plausible ranges.

All angles are degrees and zero in the rest pose: upright, arms and legs straight down. A left and a right limb with the
same angles mirror each other. The direction that the person faces is not part of the pose; see ``figure.Figure``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SIDES = ("left", "right")


class Arm(NamedTuple):
    """Angles of one arm: ``flexion`` lifts it to the front, ``abduction`` to the side, ``rotation`` turns the bent
    forearm inwards."""

    flexion: float = 0.0
    abduction: float = 9.0
    rotation: float = 10.0
    elbow: float = 12.0


class Leg(NamedTuple):
    """Angles of one leg: ``flexion`` lifts it to the front, ``abduction`` to the side."""

    flexion: float = 0.0
    abduction: float = 3.0
    knee: float = 4.0


class Pose(NamedTuple):
    """A whole pose: ``lean`` bends the trunk forwards, ``tilt`` to the person's left, ``turn`` twists it to the left;
    ``nod`` and ``shake`` do the same to the head."""

    left_arm: Arm = Arm()
    right_arm: Arm = Arm()
    left_leg: Leg = Leg()
    right_leg: Leg = Leg()
    lean: float = 0.0
    tilt: float = 0.0
    turn: float = 0.0
    nod: float = 0.0
    shake: float = 0.0
    seated: bool = False


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: one of the activities below, its angles jittered.

    Args:
        rng (Generator): source of randomness.

    Returns:
        Pose
    """
    names = list(_ACTIVITIES)
    weights = np.array([_ACTIVITIES[name].weight for name in names])
    pose = _ACTIVITIES[names[rng.choice(len(names), p=weights / weights.sum())]].sample(rng)
    if rng.random() < 0.5:
        pose = pose._replace(
            left_arm=pose.right_arm, right_arm=pose.left_arm, left_leg=pose.right_leg, right_leg=pose.left_leg
        )
    tilt, turn, nod, shake = rng.normal(0, (3, 6, 8, 18))
    return pose._replace(
        left_arm=_jitter(pose.left_arm, rng),
        right_arm=_jitter(pose.right_arm, rng),
        tilt=pose.tilt + tilt,
        turn=pose.turn + turn,
        nod=float(np.clip(pose.nod + nod, -25, 30)),
        shake=float(np.clip(shake, -45, 45)),
    )


def _jitter(arm, rng):
    noise = rng.normal(0, (6, 3, 8, 6))
    arm = Arm(*(angle + delta for angle, delta in zip(arm, noise)))
    return arm._replace(abduction=max(arm.abduction, 4.0), elbow=max(arm.elbow, 3.0))


def _stand(rng):
    abduction = rng.uniform(2, 9)
    return Pose(
        left_leg=Leg(abduction=abduction),
        right_leg=Leg(rng.uniform(0, 14), abduction, rng.uniform(2, 18)),
        left_arm=Arm(abduction=rng.uniform(7, 20), elbow=rng.uniform(5, 25)),
        right_arm=Arm(abduction=rng.uniform(7, 20), elbow=rng.uniform(5, 25)),
    )


def _walk(rng):
    stride, swing = rng.uniform(14, 30), rng.uniform(12, 32)
    return Pose(
        left_leg=Leg(stride, 2, rng.uniform(2, 12)),
        right_leg=Leg(-0.8 * stride, 2, rng.uniform(10, 40)),
        left_arm=Arm(-swing, 8, 10, rng.uniform(5, 25)),
        right_arm=Arm(swing, 8, 15, rng.uniform(10, 45)),
        lean=rng.uniform(0, 7),
    )


def _run(rng):
    return Pose(
        left_leg=Leg(rng.uniform(40, 70), 2, rng.uniform(50, 90)),
        right_leg=Leg(-rng.uniform(10, 30), 2, rng.uniform(20, 80)),
        left_arm=Arm(-rng.uniform(30, 55), 10, 15, rng.uniform(70, 100)),
        right_arm=Arm(rng.uniform(20, 50), 10, 25, rng.uniform(70, 105)),
        lean=rng.uniform(6, 18),
    )


def _wave(rng):
    return _stand(rng)._replace(left_arm=Arm(0, rng.uniform(85, 125), -90, rng.uniform(40, 95)), tilt=-4)


def _cheer(rng):
    low, high = rng.uniform(105, 150, 2)
    elbow = rng.uniform(5, 50)
    return _stand(rng)._replace(
        left_arm=Arm(0, low, -80, elbow),
        right_arm=Arm(0, high, -80, elbow),
        left_leg=Leg(0, rng.uniform(5, 18), 4),
        right_leg=Leg(0, rng.uniform(5, 18), 4),
        nod=-6,
    )


def _star(rng):
    return _stand(rng)._replace(
        left_arm=Arm(0, rng.uniform(60, 100), 0, 6),
        right_arm=Arm(0, rng.uniform(60, 100), 0, 6),
        left_leg=Leg(0, rng.uniform(12, 28), 4),
        right_leg=Leg(0, rng.uniform(12, 28), 4),
    )


def _hands_on_hips(rng):
    both = Arm(-15, rng.uniform(38, 50), 75, rng.uniform(85, 105))
    pose = _stand(rng)._replace(left_arm=both)
    return pose._replace(right_arm=both) if rng.random() < 0.6 else pose


def _point(rng):
    return _stand(rng)._replace(left_arm=Arm(rng.uniform(55, 100), rng.uniform(0, 40), 0, rng.uniform(3, 30)))


def _drink(rng):
    return _stand(rng)._replace(left_arm=Arm(rng.uniform(35, 60), 12, 30, rng.uniform(105, 130)))


def _reach(rng):
    return _stand(rng)._replace(
        left_arm=Arm(rng.uniform(130, 165), 12, 0, rng.uniform(5, 35)),
        right_leg=Leg(-rng.uniform(0, 15), 3, rng.uniform(5, 25)),
        nod=-12,
    )


def _bend(rng):
    lean, hip = rng.uniform(35, 70), rng.uniform(0, 25)
    return Pose(
        left_leg=Leg(hip, 5, hip + rng.uniform(0, 15)),
        right_leg=Leg(hip * 0.7, 5, hip + rng.uniform(0, 15)),
        left_arm=Arm(lean * rng.uniform(0.6, 1.2), 8, 5, rng.uniform(5, 30)),
        right_arm=Arm(lean * rng.uniform(0.6, 1.2), 8, 5, rng.uniform(5, 30)),
        lean=lean,
        nod=-15,
    )


def _squat(rng):
    hip = rng.uniform(65, 105)
    return Pose(
        left_leg=Leg(hip, rng.uniform(8, 22), hip + rng.uniform(5, 20)),
        right_leg=Leg(hip, rng.uniform(8, 22), hip + rng.uniform(5, 20)),
        left_arm=Arm(rng.uniform(60, 100), 8, 10, rng.uniform(5, 40)),
        right_arm=Arm(rng.uniform(60, 100), 8, 10, rng.uniform(5, 40)),
        lean=rng.uniform(15, 35),
        nod=-10,
    )


def _lunge(rng):
    return Pose(
        left_leg=Leg(rng.uniform(50, 80), 4, rng.uniform(55, 90)),
        right_leg=Leg(-rng.uniform(10, 25), 4, rng.uniform(15, 45)),
        left_arm=Arm(rng.uniform(-30, 90), rng.uniform(8, 80), 0, rng.uniform(5, 40)),
        right_arm=Arm(rng.uniform(-30, 90), rng.uniform(8, 80), 0, rng.uniform(5, 40)),
        lean=rng.uniform(0, 15),
    )


def _kick(rng):
    return Pose(
        left_leg=Leg(rng.uniform(35, 75), 6, rng.uniform(5, 45)),
        right_leg=Leg(-5, 3, rng.uniform(3, 15)),
        left_arm=Arm(-rng.uniform(10, 40), rng.uniform(20, 60), 0, 25),
        right_arm=Arm(rng.uniform(10, 50), rng.uniform(20, 60), 0, 25),
        lean=rng.uniform(-12, 5),
    )


def _sit(rng):
    hip, spread = rng.uniform(80, 92), rng.uniform(3, 16)
    on_lap = Arm(rng.uniform(15, 35), 9, 25, rng.uniform(35, 65))
    pose = Pose(
        left_leg=Leg(hip, spread, hip - rng.uniform(-12, 15)),
        right_leg=Leg(hip, spread, hip - rng.uniform(-12, 15)),
        left_arm=on_lap,
        right_arm=on_lap,
        lean=rng.uniform(-5, 15),
        seated=True,
    )
    return pose._replace(left_arm=_drink(rng).left_arm) if rng.random() < 0.3 else pose


class _Activity(NamedTuple):
    sample: Callable
    weight: float


_ACTIVITIES: dict[str, _Activity] = {
    "stand": _Activity(_stand, 3),
    "walk": _Activity(_walk, 3),
    "run": _Activity(_run, 1.5),
    "wave": _Activity(_wave, 1.5),
    "cheer": _Activity(_cheer, 1.5),
    "star": _Activity(_star, 1),
    "hands on hips": _Activity(_hands_on_hips, 1.5),
    "point": _Activity(_point, 1.5),
    "drink": _Activity(_drink, 1),
    "reach": _Activity(_reach, 1),
    "bend": _Activity(_bend, 1),
    "squat": _Activity(_squat, 0.8),
    "lunge": _Activity(_lunge, 0.8),
    "kick": _Activity(_kick, 0.8),
    "sit": _Activity(_sit, 2),
}


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """The matrix (3, 3) of a right-handed rotation about one axis, degrees; only one angle is given."""
    angle = np.deg2rad(x or y or z)
    c, s = np.cos(angle), np.sin(angle)
    if x:
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    if y:
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
