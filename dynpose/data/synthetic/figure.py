"""A synthetic person as geometry: forward kinematics, and the pieces of the body and the clothes.

Lengths are in body heights (a standing person is 1 high). Body frames have ``x`` to the person's left, ``y`` up and
``z`` to the front. The camera frame has ``x`` to the right of the image, ``y`` up and ``z`` towards the viewer: the
left side of a person facing the camera is on the image's right. The projection is orthographic.

The pieces belong to groups (an arm, a leg, the trunk, the head, long hair, a seat), which are painted from far to near.
"""

import numpy as np

from .head import Head
from .looks import Body, Outfit, shade
from .patches import BASE, Bone, Patch, project, rod
from .poses import SIDES, Pose, rotation

_LIMBS = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot")
PARTS = ("trunk", "head", "seat", *(f"{side}_{name}" for side in SIDES for name in _LIMBS))


def _parts_of_keypoints():
    parts = {"nose": ("head",)}
    for side in SIDES:
        parts[f"{side}_eye"] = parts[f"{side}_ear"] = ("head",)
        parts[f"{side}_shoulder"] = ("trunk", f"{side}_upper_arm")
        parts[f"{side}_elbow"] = (f"{side}_upper_arm", f"{side}_forearm")
        parts[f"{side}_wrist"] = (f"{side}_forearm", f"{side}_hand")
        parts[f"{side}_hip"] = ("trunk", f"{side}_thigh")
        parts[f"{side}_knee"] = (f"{side}_thigh", f"{side}_shin")
        parts[f"{side}_ankle"] = (f"{side}_shin", f"{side}_foot")
    return parts


KEYPOINT_PARTS = _parts_of_keypoints()
"""Keypoint name -> the parts that show it: it is hidden if another part, or another person, covers it."""

_HEEL, _TOE = 0.027, 0.02
# A shoulder or hip more than this fraction of its lateral offset behind the trunk's centre is on the far side
_FAR_SIDE = 0.75


class Figure:
    """A posed, dressed person in the camera frame, the origin on the ground below the pelvis.

    Args:
        body (Body): proportions.
        outfit (Outfit): clothes.
        pose (Pose): joint angles.
        yaw (float): direction that the person faces, degrees: 0 = to the camera, 90 = to the right of the image, 180 =
            away.
        pitch (float): downward angle of the camera, degrees.
        light (float): direction of the light: -1 = from the left, 1 = from the right.

    Attributes:
        keypoints (dict[str, ndarray]): name -> (2,), x to the right and y up, body heights.
        turned_away (set[str]): keypoints on the side of the head or the trunk that faces away from the camera.
        outlines (Outlines): shapes to paint, body heights.
        bounds (tuple[float]): left, bottom, right, top of the person, body heights.
    """

    def __init__(self, *, body: Body, outfit: Outfit, pose: Pose, yaw: float, pitch: float = 6.0, light: float = -0.5):
        self._body, self._outfit, self._pose = body, outfit, pose
        self._pelvis = rotation(x=pitch) @ rotation(y=yaw)
        # The back bends at two joints: half of the angle below the waist
        self._waist, self._trunk = (
            self._pelvis @ rotation(x=t * pose.lean) @ rotation(z=-t * pose.tilt) @ rotation(y=t * pose.turn)
            for t in (0.5, 1.0)
        )
        self._joints: dict[str, np.ndarray] = {}
        self.turned_away: set[str] = set()
        # Lowest points of the soles, along the person's up
        self._soles: list[float] = []

        # (depth, patches) pairs
        trunk_depth, trunk = self._make_trunk()
        groups = [(trunk_depth, trunk), *self._make_head()]
        for side in SIDES:
            groups += [self._make_leg(side, trunk_depth), self._make_arm(side)]
        ground = min(self._soles)
        if pose.seated:
            groups.append(self._make_seat(ground))
        groups = [patches for _, patches in sorted(groups, key=lambda group: group[0])]

        origin = (self._pelvis[:, 1] * ground)[:2]
        self.keypoints = {name: self._joints[name][:2] - origin for name in KEYPOINT_PARTS}
        self.outlines = project(groups, origin, light)
        own = np.array([part != "seat" for part in self.outlines.parts])
        points = self.outlines.points[BASE, own].reshape(-1, 2)
        self.bounds = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())

    def _make_trunk(self):
        body, outfit, length = self._body, self._outfit, self._body.trunk
        up = self._trunk[:, 1]
        waist = self._waist[:, 1] * (0.38 * length)
        hips, shoulders, neck = np.zeros(3), waist + up * (0.545 * length), waist + up * (0.615 * length)
        wide, deep = body.shoulder / 0.1, body.girth
        # Cross-sections: hips, waist, chest, shoulders, neck
        centers = [hips, waist, waist + up * (0.3 * length), shoulders, neck]
        frames = [self._pelvis, self._waist, self._trunk, self._trunk, self._trunk]
        radii = [
            (body.hip + 0.045 * deep, 0.04, 0.062 * deep),
            (0.08 * body.waist, 0.01, 0.056 * deep * body.waist),
            (0.1 * wide, 0.01, 0.066 * deep),
            (0.1 * wide, 0.012, 0.045 * deep),
            (0.046, 0.012, 0.034 * deep),
        ]
        self._joints["neck"] = neck
        for side, sign in zip(SIDES, (1, -1)):
            self._place_on_trunk(f"{side}_hip", hips, self._pelvis[:, 0] * (sign * body.hip))
            self._place_on_trunk(f"{side}_shoulder", shoulders - up * 0.008, self._trunk[:, 0] * (sign * body.shoulder))

        patches = self._make_shirt(centers, [frame * np.array(r) for frame, r in zip(frames, radii)])
        if outfit.bottom_style == "skirt":
            patches.insert(0, self._make_skirt(radii[0]))
        if self._trunk[2, 2] > 0.25:
            front = [center + frame[:, 2] * r[2] for center, frame, r in zip(centers, frames, radii)]
            patches += self._make_shirt_front(front)
        return float(np.mean(centers, axis=0)[2]), patches

    def _place_on_trunk(self, name, middle, offset):
        self._joints[name] = middle + offset
        if offset[2] < -_FAR_SIDE * np.linalg.norm(offset):
            self.turned_away.add(name)

    def _make_shirt(self, centers, axes):
        """Slices of the trunk, three to each pair of cross-sections, in the colours of the pattern."""
        outfit, look = self._outfit, self._outfit.shirt_pattern
        slices = [
            ((1 - t) * a + t * b, (1 - t) * p + t * q)
            for a, b, p, q in zip(centers, centers[1:], axes, axes[1:])
            for t in (0, 1 / 3, 2 / 3)
        ]
        slices.append((centers[-1], axes[-1]))
        patches = []
        for i, ((a, p), (b, q)) in enumerate(zip(slices, slices[1:])):
            trimmed = (look == "stripes" and i % 2 == 1) or (look == "yoke" and i >= 6)
            color = outfit.trim if trimmed else outfit.shirt
            patches.append(Patch("trunk", color, [a, b], [p, q], surface="shirt", grain=self._trunk[:, 1]))
        return patches

    def _make_shirt_front(self, front):
        """A zip or a print on the front of the shirt."""
        trim = self._outfit.trim
        if self._outfit.shirt_pattern == "zip":
            return [rod("trunk", trim, a, b, 0.005) for a, b in zip(front, front[1:])]
        if self._outfit.shirt_pattern == "chest":
            ends = [front[2] + self._trunk[:, 0] * x for x in (-0.035, 0.035)]
            return [Patch("trunk", trim, ends, [self._trunk * np.array([0.016, 0.03, 0.004])] * 2, shaded=False)]
        return []

    def _make_skirt(self, hips):
        lifted = max(0.0, 0.5 * (self._pose.left_leg.flexion + self._pose.right_leg.flexion))
        frame = self._pelvis @ rotation(x=-lifted)
        hem = -frame[:, 1] * (0.75 * self._body.leg)
        axes = [self._pelvis * np.array(hips), frame * np.array([hips[0] * 1.35, 0.006, hips[2] * 1.45])]
        return Patch("trunk", self._outfit.bottom, [np.zeros(3), hem], axes)

    def _make_leg(self, side, trunk_depth):
        body, outfit, angles = self._body, self._outfit, getattr(self._pose, f"{side}_leg")
        sign, girth, marked = (1 if side == "left" else -1), body.girth, side == "left"
        frame = self._pelvis @ rotation(x=-angles.flexion) @ rotation(z=sign * angles.abduction) @ rotation(y=sign * 8)
        thigh = Bone(self._joints[f"{side}_hip"], frame, body.leg, (0.051 * girth, 0.037 * girth))
        shin = Bone(thigh.end, frame @ rotation(x=angles.knee), body.leg, (0.037 * girth, 0.024 * girth))
        # The ankle keeps the sole nearly level within its range
        sole = shin.frame @ rotation(x=float(np.clip(-0.8 * (angles.knee - angles.flexion), -45, 30)))
        heel, toe = shin.end - sole @ [0, 0.012, 0.016], shin.end + sole @ [0, -0.02, 0.085]
        self._joints.update({f"{side}_knee": thigh.end, f"{side}_ankle": shin.end})
        up = self._pelvis[:, 1]
        self._soles += [float(heel @ up) - _HEEL, float(toe @ up) - _TOE]

        bare = outfit.bottom_style != "trousers"
        cloth = outfit.skin if bare else outfit.bottom
        upper, lower, foot = f"{side}_thigh", f"{side}_shin", f"{side}_foot"
        on_thigh = [thigh.wrap(upper, cloth)]
        on_shin = [shin.wrap(lower, cloth, grow=1.0 if bare else 1.1)]
        if outfit.bottom_style == "shorts":
            on_thigh.append(thigh.wrap(upper, outfit.bottom, 0, 0.72, 1.16, straight=(False, True)))
        if marked:
            on_shin.append(shin.wrap(lower, outfit.accent, 0.16, 0.36, 1.12, straight=(True, True)))
        if bare:
            sock = outfit.accent if marked else shade(outfit.shoes, 1.5)
            on_shin.append(shin.wrap(lower, sock, 0.8, 1.0, 1.1))
        leather = outfit.accent if marked else outfit.shoes
        shoe = Patch(foot, leather, [heel, toe], [np.eye(3) * _HEEL, np.eye(3) * _TOE])
        pieces = [(thigh.at(0.5), on_thigh), (shin.at(0.5), on_shin), (toe, [shoe])]
        depth = (thigh.start[2] + thigh.end[2] + shin.end[2]) / 3
        # The shirt hangs over the legs until one is lifted well towards the camera
        return depth + trunk_depth - 0.11, _assemble(pieces, straight=angles.knee < 80)

    def _make_arm(self, side):
        body, outfit, angles = self._body, self._outfit, getattr(self._pose, f"{side}_arm")
        sign, girth = (1 if side == "left" else -1), body.girth
        frame = self._trunk @ rotation(x=-angles.flexion) @ rotation(z=sign * angles.abduction)
        frame = frame @ rotation(y=-sign * angles.rotation)
        humerus = Bone(self._joints[f"{side}_shoulder"], frame, body.arm, (0.034 * girth, 0.027 * girth))
        bent = frame @ rotation(x=-angles.elbow)
        radius = Bone(humerus.end, bent, 0.92 * body.arm, (0.026 * girth, 0.018 * girth))
        palm = Bone(radius.end, bent @ rotation(x=-8), 0.056, (0.021, 0.013))
        thumb = Bone(palm.at(0.1), palm.frame @ rotation(x=-38), 0.034, (0.011, 0.008))
        self._joints.update({f"{side}_elbow": humerus.end, f"{side}_wrist": radius.end})

        upper, lower, hand = f"{side}_upper_arm", f"{side}_forearm", f"{side}_hand"
        long = outfit.sleeves == 1.0
        cloth = outfit.shirt if long else outfit.skin
        on_humerus = [humerus.wrap(upper, cloth)]
        on_radius = [radius.wrap(lower, cloth, grow=1.08 if long else 1.0)]
        if 0 < outfit.sleeves < 1:
            on_humerus.append(humerus.wrap(upper, outfit.shirt, 0, outfit.sleeves, 1.14, straight=(False, True)))
        if side == "left":
            on_humerus.append(humerus.wrap(upper, outfit.accent, 0.5, 0.78, 1.2, straight=(True, True)))
            on_radius.append(radius.wrap(lower, outfit.accent, 0.8, 0.98, 1.2, straight=(True, True)))
        fingers = [thumb.wrap(hand, outfit.skin), palm.wrap(hand, outfit.skin)]
        pieces = [(humerus.at(0.5), on_humerus), (radius.at(0.6), on_radius), (palm.at(0.5), fingers)]
        depth = (humerus.start[2] + humerus.end[2] + radius.end[2]) / 3
        return depth + 0.02, _assemble(pieces, straight=angles.elbow < 80)

    def _make_head(self):
        body, pose = self._body, self._pose
        head = Head(
            outfit=self._outfit,
            base=self._joints["neck"] - self._trunk[:, 1] * 0.008,
            up=self._trunk[:, 1],
            frame=self._trunk @ rotation(x=pose.nod - 0.6 * pose.lean) @ rotation(y=pose.shake),
            height=body.head,
            neck=body.neck,
            girth=body.girth,
        )
        self._joints.update(head.keypoints)
        self.turned_away |= head.turned_away
        depth = head.depth + 0.03
        # Long hair is painted over a head that faces away, and otherwise behind the trunk
        hanging = depth + 1e-3 if head.is_turned_away else min(depth, self._joints["neck"][2]) - 0.06
        return [(depth, head.patches()), (hanging, head.long_hair())]

    def _make_seat(self, ground):
        up, back = self._pelvis[:, 1], -0.01 * self._pelvis[:, 2]
        top, bottom = -0.06 * up + back, ground * up + back
        color = shade(self._outfit.trim, 0.75)
        disc = self._pelvis * np.array([0.12, 0.006, 0.12])
        barrel = Patch("seat", color, [top, bottom], [disc, disc * 0.92])
        return -0.03, [barrel, Patch("seat", shade(color, 1.35), [top], [disc])]


def _assemble(pieces, straight):
    """Patches of a limb from far to near.

    Args:
        pieces (list): for each segment of the limb its centre (3,), and its patches: first the bare limb, then its
            clothes.
        straight (bool): no segment covers another, so that neighbours of one colour can be shaded without a seam.
    """
    pieces = [patches for _, patches in sorted(pieces, key=lambda piece: piece[0][2])]
    if not straight:
        return [patch for patches in pieces for patch in patches]
    bare = [patches[0]._replace(surface=str(patches[0].color)) for patches in pieces]
    return bare + [patch for patches in pieces for patch in patches[1:]]
