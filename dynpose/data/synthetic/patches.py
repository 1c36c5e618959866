"""Projecting the parts of a synthetic person from ellipsoids to polygons.

A part of the body is a chain of ellipsoids. In an orthographic projection each becomes an ellipse, and the outline of
the piece between two neighbours is the convex hull of their ellipses. It is sampled with the support function, the
extent of a shape in a direction ``d``: that of a hull is the larger of the two, and that of an ellipse with covariance
``C`` is ``sqrt(d' C d)``. A few array operations thus give all outlines of a person, with any foreshortening.

Axis letters: E ellipsoids, S outlines, P points of an outline, T tones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NUM_POINTS = 28
_ANGLES = np.arange(_NUM_POINTS) * (2 * np.pi / _NUM_POINTS)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
# The outline of the unit sphere, seen along z
_HORIZON = np.pad(_DIRECTIONS, ((0, 0), (0, 1)))

# Tones of a shaded patch, painted one over another: the brightness of its contour line, of the patch and of two lights
_BRIGHTNESS = np.array([0.45, 0.8, 0.93, 1.06])
CONTOUR, BASE = 0, 1
_CONTOUR_WIDTH = 0.0045
# Scale of the lights, and their shift towards the lamp as a fraction of the radius
_LIGHTS = ((0.8, 0.16), (0.48, 0.42))


class Patch(NamedTuple):
    """A piece of one colour: n ellipsoids in the camera frame, or an outline.

    Args:
        part (str): one of ``figure.PARTS``.
        color (tuple): RGB.
        centers (Sequence[ndarray]): n points (3,).
        axes (Sequence[ndarray]): n matrices (3, 3) whose columns are an ellipsoid's half axes.
        outline (ndarray): (P, 2) instead of the ellipsoids.
        shaded (bool): False = flat and without a contour line, for small pieces that lie on others.
        surface (str): adjoining patches with the same one are shaded together, without a seam.
        grain (ndarray): (3,), vector along a surface that is cut into slices of different colours: their lights are cut
            off at the sides only, so that the borders between the colours run on through them.
    """

    part: str
    color: tuple[float, ...]
    centers: Sequence[np.ndarray] = ()
    axes: Sequence[np.ndarray] = ()
    outline: np.ndarray | None = None
    shaded: bool = True
    surface: str | None = None
    grain: np.ndarray = np.zeros(3)


class Outlines(NamedTuple):
    """The outlines and colours for painting a person.

    Attributes:
        parts (list[str]): S names.
        colors (ndarray): (T, S, 3) RGB.
        points (ndarray): (T, S, P, 2), x to the right and y up. ``points[BASE]`` is the silhouette.
        order (list[tuple[int, int]]): (tone, outline) pairs in the order of painting.
    """

    parts: list[str]
    colors: np.ndarray
    points: np.ndarray
    order: list[tuple[int, int]]


class Bone(NamedTuple):
    """A segment of a limb: from ``start`` (3,) along ``-y`` of ``frame`` (3, 3; columns are its axes)."""

    start: np.ndarray
    frame: np.ndarray
    length: float
    radii: tuple[float, float]

    @property
    def end(self) -> np.ndarray:
        """The next joint: (3,)."""
        return self.at(1.0)

    def at(self, t: float) -> np.ndarray:
        """The point at fraction ``t`` of the length: (3,)."""
        return self.start - self.frame[:, 1] * (self.length * t)

    def wrap(
        self,
        part: str,
        color: tuple[float, ...],
        t0: float = 0.0,
        t1: float = 1.0,
        grow: float = 1.0,
        straight: tuple[bool, bool] = (False, False),
    ) -> Patch:
        """A patch around the bone.

        Args:
            part, color: see :class:`Patch`.
            t0, t1 (float): from and to which fraction of the length.
            grow (float): factor on the radius.
            straight (tuple[bool, bool]): whether each end is cut off straight instead of round.
        """
        axes = []
        for t, cut in zip((t0, t1), straight):
            radius = grow * (self.radii[0] + (self.radii[1] - self.radii[0]) * t)
            axes.append(self.frame * (_DISC * radius if cut else radius))
        return Patch(part, color, [self.at(t0), self.at(t1)], axes)


_DISC = np.array([1.0, 0.15, 1.0])


def rod(part: str, color: tuple[float, ...], start: np.ndarray, end: np.ndarray, radius: float) -> Patch:
    """A thin flat patch between two points (3,)."""
    ball = np.eye(3) * radius
    return Patch(part, color, [start, end], [ball, ball], shaded=False)


def cap(
    part: str, color: tuple[float, ...], center: np.ndarray, axes: np.ndarray, frame: np.ndarray, angle: float
) -> Patch | None:
    """The visible part of a cap of an ellipsoid, or None.

    Args:
        part, color: see :class:`Patch`.
        center (ndarray): (3,).
        axes (ndarray): (3, 3), half axes in its columns.
        frame (ndarray): (3, 3), a rotation whose ``y`` points to the middle of the cap.
        angle (float): radius of the cap, degrees, as on a sphere.

    Returns:
        Patch
    """
    direction = frame[:, 1]
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rim = cosine * direction + sine * (_DIRECTIONS @ frame[:, ::2].T)
    seen = rim[:, 2] > 0
    if not seen.any():
        return None
    if not seen.all():
        # The seen arc of the rim, then back along the part of the sphere's outline that lies within the cap
        rim, horizon = _arc(rim, seen), _arc(_HORIZON, _HORIZON @ direction >= cosine)
        if len(horizon) and rim[-1] @ horizon[-1] > rim[-1] @ horizon[0]:
            horizon = horizon[::-1]
        rim = np.concatenate([rim, horizon])
        rim = rim[np.arange(_NUM_POINTS) * len(rim) // _NUM_POINTS]
    on_sphere = rim @ (axes / np.linalg.norm(axes, axis=0))
    return Patch(part, color, outline=(center + on_sphere @ axes.T)[:, :2])


def _arc(ring, chosen):
    """The chosen points of a ring, which are one stretch of it, in order."""
    first = int(np.argmax(chosen & ~np.roll(chosen, 1)))
    return np.roll(ring, -first, axis=0)[: int(chosen.sum())]


def project(groups: list[list[Patch]], origin: np.ndarray, light: float) -> Outlines:
    """Turn patches into outlines.

    Args:
        groups (list[list[Patch]]): from far to near. The contour lines of a group are painted first, so that there is
            none between its patches.
        origin (ndarray): (2,), the point of the camera frame that becomes (0, 0).
        light (float): direction of the light: -1 = from the left, 1 = from the right.

    Returns:
        Outlines
    """
    centers: list[np.ndarray] = []
    axes: list[np.ndarray] = []
    pieces, grains, surface, previous = [], [], -1, None
    for group, patches in enumerate(groups):
        for patch in patches:
            surface += previous is None or patch.surface is None or patch.surface != previous.surface
            first, last = len(centers), len(centers) + len(patch.centers) - 1
            # A patch that is an outline has no ellipsoids: placeholders are used until it replaces them
            pairs = [(j, min(j + 1, last)) for j in range(first, max(last, first + 1))] if patch.centers else [(0, 0)]
            pieces += [_Piece(patch, group, surface, pair) for pair in pairs]
            centers += patch.centers
            axes += patch.axes
            grains += [patch.grain] * len(patch.centers)
            previous = patch
        previous = None

    centers_2d, axes_2d, grains_2d = (np.array(items)[:, :2] for items in (centers, axes, grains))
    points = _hulls(centers_2d, axes_2d, grains_2d, np.array([piece.pair for piece in pieces]), light)
    for i, (patch, *_) in enumerate(pieces):
        if patch.outline is not None:
            points[:, i] = _shade_outline(patch.outline, light)
    colors = np.array([piece.patch.color for piece in pieces], dtype=float)
    shaded = np.array([piece.patch.shaded for piece in pieces])
    brightness = np.where(shaded, _BRIGHTNESS[:, None], 1.0)
    return Outlines(
        parts=[piece.patch.part for piece in pieces],
        colors=np.minimum(brightness[..., None] * colors, 255),
        points=points - origin,
        order=_painting_order(pieces),
    )


class _Piece(NamedTuple):
    """The source of one outline: a patch, or its section between the two ellipsoids ``pair``."""

    patch: Patch
    group: int
    surface: int
    pair: tuple[int, int]


def _hulls(centers, axes, grains, pairs, light):
    """Outlines of pairs of projected ellipsoids in all tones: (T, S, P, 2)."""
    covariance = axes @ axes.transpose(0, 2, 1) + 1e-12 * np.eye(2)
    reach = (covariance @ _DIRECTIONS.T).transpose(0, 2, 1)
    extent = np.sqrt(np.einsum("epi,pi->ep", reach, _DIRECTIONS))
    # The point of each ellipse that is farthest in each direction, from its centre: (E, P, 2)
    outermost = reach / extent[..., None]
    lamp = np.array([light, 0.75])
    lit = covariance @ lamp / np.sqrt(np.einsum("i,eij,j->e", lamp, covariance, lamp))[:, None]
    sliced = grains.any(axis=1)
    across = np.stack([grains[:, 1], -grains[:, 0]], axis=1)[sliced]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    offset = np.einsum("epi,ei->ep", outermost[sliced], across)
    side = np.einsum("ei,ei->e", lit[sliced], across)[:, None]

    a, b = pairs.T
    height = centers @ _DIRECTIONS.T + extent
    base_is_a = height[a] >= height[b]
    tones = []
    for scale, shift in ((1.0, 0.0), *_LIGHTS):
        moved = centers + shift * lit
        points = moved[:, None] + scale * outermost
        height = moved @ _DIRECTIONS.T + scale * extent
        half = scale * np.abs(offset).max(axis=1, keepdims=True)
        inwards = np.clip(offset, shift * side - half, shift * side + half) - offset
        points[sliced] = (centers[:, None] + outermost)[sliced] + inwards[..., None] * across[:, None]
        from_a = np.where(sliced[a][:, None], base_is_a, height[a] >= height[b])
        tones.append(np.where(from_a[..., None], points[a], points[b]))
    return np.stack([tones[0] + _CONTOUR_WIDTH * _DIRECTIONS, *tones])


def _shade_outline(outline, light):
    """All tones of a given outline: (T, P, 2)."""
    middle, lamp = outline.mean(axis=0), np.array([light, 0.75])
    lights = [middle + 0.5 * (1 + scale) * (outline - middle) + 0.02 * shift * lamp for scale, shift in _LIGHTS]
    return np.stack([outline, outline, *lights])


def _painting_order(pieces):
    """(tone, outline) pairs: within a group first all contour lines, within a surface tone after tone."""
    strokes = []
    for i, (patch, group, surface, _) in enumerate(pieces):
        strokes.append((group, surface, BASE, i))
        if patch.shaded:
            strokes += [(group, surface, BASE + 1 + k, i) for k in range(len(_LIGHTS))]
            if patch.outline is None:
                strokes.append((group, -1, CONTOUR, i))
    return [(tone, i) for _, _, tone, i in sorted(strokes)]
