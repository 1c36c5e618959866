"""The head of a synthetic person: face, hair and the keypoints on it."""

import numpy as np

from .looks import Outfit, shade
from .patches import Patch, cap, rod
from .poses import SIDES, rotation

# Head size to which the lengths in this module refer, body heights
_MODEL_HEIGHT = 0.152
# Minimum cosine of the angle between the camera and the surface normal at a keypoint of the head for the keypoint to be
# visible. Nose and ears protrude and are also visible from slightly behind.
_SEEN = {"nose": -0.15, "eye": 0.08, "ear": -0.3}


class Head:
    """A head on a neck.

    Args:
        outfit (Outfit): skin, hair and their colours.
        base (ndarray): (3,), foot of the neck in the camera frame.
        up (ndarray): (3,), direction of the neck.
        frame (ndarray): (3, 3), axes of the head: left, up, front.
        height, neck (float): lengths, body heights.
        girth (float): factor on the neck's thickness.

    Attributes:
        keypoints (dict[str, ndarray]): name -> (3,).
        turned_away (set[str]): keypoints on the far side.
        is_turned_away (bool): the back of the head faces the camera.
        depth (float): position of the head's centre towards the camera.
    """

    def __init__(
        self,
        *,
        outfit: Outfit,
        base: np.ndarray,
        up: np.ndarray,
        frame: np.ndarray,
        height: float,
        neck: float,
        girth: float,
    ):
        self._outfit, self._frame, self._base, self._girth = outfit, frame, base, girth
        self._size = height / _MODEL_HEIGHT
        self._skull = base + up * (0.75 * neck) + frame @ (np.array([0, 0.089, 0.008]) * self._size)
        self.depth = float(self._skull[2])
        self.is_turned_away = bool(frame[2, 2] < 0)
        self.keypoints = {"nose": self._at(0, -0.02, 0.066)}
        self._toward = {"nose": float(frame[2, 2])}
        for side, sign in zip(SIDES, (1, -1)):
            self.keypoints[f"{side}_eye"] = self._at(sign * 0.0235, 0.002, 0.053)
            self.keypoints[f"{side}_ear"] = self._at(sign * 0.058, -0.012, -0.004)
            self._toward[f"{side}_eye"] = float(frame[2] @ (sign * 0.4, 0, 0.92))
            self._toward[f"{side}_ear"] = float(frame[2] @ (sign, 0, 0))
        self.turned_away = {name for name, cosine in self._toward.items() if cosine < _SEEN[name.split("_")[-1]]}

    def patches(self) -> list[Patch]:
        """The head, from far to near: list[Patch]."""
        outfit = self._outfit
        neck = Patch(
            "head",
            shade(outfit.skin, 0.92),
            [self._base, self._at(0, -0.045, -0.008)],
            [np.eye(3) * 0.031 * self._girth**0.5, np.eye(3) * 0.029 * self._size],
        )
        skin = Patch(
            "head",
            outfit.skin,
            [self._at(0, 0.004, 0), self._at(0, -0.04, 0.017)],
            [self._axes(0.055, 0.066, 0.062), self._axes(0.037, 0.034, 0.04)],
        )
        ears: dict[bool, list[Patch]] = {True: [], False: []}
        for side, sign in zip(SIDES, (1, -1)):
            ear = self._ball(outfit.skin, (sign * 0.056, -0.012, -0.004), (0.009, 0.018, 0.013))
            ears[self._toward[f"{side}_ear"] < -0.2].append(ear)
        head = [neck, *ears[True], skin, *self._hair(), *ears[False], *self._features()]
        behind, before = self._ornament()
        return [*behind, *head, *before]

    def long_hair(self) -> list[Patch]:
        """Hair that hangs down to the shoulders: list[Patch], empty for other styles."""
        if self._outfit.hair_style != "long":
            return []
        centers = [self._at(0, 0, -0.02), self._at(0, -0.085, -0.034)]
        axes = [self._axes(0.059, 0.062, 0.045), self._axes(0.05, 0.045, 0.022)]
        return [Patch("head", self._outfit.hair, centers, axes)]

    def _at(self, x, y, z):
        return self._skull + self._frame @ (np.array([x, y, z]) * self._size)

    def _axes(self, x, y, z):
        return self._frame * (np.array([x, y, z]) * self._size)

    def _ball(self, color, center, radii):
        return Patch("head", color, [self._at(*center)], [self._axes(*radii)])

    def _hair(self):
        """Hair all around the skull, except for the face."""
        if self._outfit.hair_style == "bald":
            return []
        skin = self._outfit.skin
        patches = [self._ball(self._outfit.hair, (0, 0.006, -0.003), (0.0575, 0.069, 0.065))]
        face = cap(
            "head",
            skin,
            self._at(0, 0.004, 0.001),
            self._axes(0.0566, 0.068, 0.064),
            self._frame @ rotation(x=115),
            66,
        )
        if face is not None:
            patches.append(face)
        if not self.is_turned_away:
            jaw = [self._at(0, -0.03, 0.022), self._at(0, -0.043, 0.02)]
            axes = [self._axes(0.036, 0.02, 0.036), self._axes(0.032, 0.029, 0.034)]
            patches.append(Patch("head", skin, jaw, axes, shaded=False))
        return patches

    def _features(self):
        """Eyes, brows, nose and mouth, as far as they face the camera."""
        size, skin, hair = self._size, self._outfit.skin, self._outfit.hair
        patches = []
        for side, sign in zip(SIDES, (1, -1)):
            if f"{side}_eye" in self.turned_away:
                continue
            tangent = self._frame @ rotation(y=sign * 24)
            for color, radii, lift in (
                ((250, 250, 248), (0.0115, 0.009, 0.001), 0.0),
                ((38, 30, 30), (0.0055, 0.005, 0.001), 0.003),
            ):
                center = self._at(sign * 0.0235, 0.002, 0.053 + lift)
                patches.append(Patch("head", color, [center], [tangent * (np.array(radii) * size)], shaded=False))
            brow = self._at(sign * 0.012, 0.021, 0.058), self._at(sign * 0.035, 0.019, 0.048)
            patches.append(rod("head", shade(hair, 0.8), *brow, 0.0036 * size))
        if "nose" not in self.turned_away:
            nose = self._at(0, 0, 0.058), self._at(0, -0.02, 0.067)
            patches.append(rod("head", shade(skin, 0.8), *nose, 0.0065 * size))
        if not self.is_turned_away:
            mouth = [self._at(*point) for point in _MOUTH]
            patches += [rod("head", _LIPS, a, b, 0.0042 * size) for a, b in zip(mouth, mouth[1:])]
        return patches

    def _ornament(self):
        """A bun, curls or a cap: the patches painted before the head, and those painted after it."""
        outfit = self._outfit
        if outfit.hair_style == "bun":
            patches = [self._ball(outfit.hair, (0, 0.062, -0.045), (0.028, 0.026, 0.028))]
        elif outfit.hair_style == "curly":
            patches = [self._ball(outfit.hair, center, (0.027, 0.025, 0.027)) for center in _CURLS]
        elif outfit.hair_style == "cap":
            tipped = self._frame @ rotation(x=7)
            crown = cap("head", outfit.trim, self._at(0, 0.01, 0), self._axes(0.061, 0.07, 0.068), tipped, 68)
            peak = Patch(
                "head",
                outfit.trim,
                [self._at(0, 0.034, 0.03), self._at(0, 0.026, 0.085)],
                [self._axes(0.046, 0.005, 0.03), self._axes(0.036, 0.005, 0.02)],
            )
            crown = [] if crown is None else [crown]
            return ([peak], crown) if self.is_turned_away else ([], [*crown, peak])
        else:
            return [], []
        return ([], patches) if self.is_turned_away else (patches, [])


_MOUTH = ((-0.017, -0.041, 0.056), (-0.006, -0.047, 0.06), (0.006, -0.047, 0.06), (0.017, -0.041, 0.056))
_LIPS = (164, 74, 70)
_CURLS = (
    (0.03, 0.058, 0.0),
    (-0.03, 0.058, 0.0),
    (0.05, 0.03, -0.016),
    (-0.05, 0.03, -0.016),
    (0, 0.07, 0.006),
    (0.03, 0.05, -0.04),
    (-0.03, 0.05, -0.04),
    (0, 0.02, -0.055),
)
