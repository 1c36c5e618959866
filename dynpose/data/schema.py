"""The keypoint schema: which keypoints a data set has, and what else is known of them.

It is the one place where the number of keypoints K, the left/right pairs, the limbs and the OKS sigmas come from. A
schema is read from a COCO-format category, from detectron2's metadata or from a config (schema_config.py), and is
written to the last two.
"""

import logging
import math
import re
from dataclasses import dataclass
from numbers import Real

import numpy as np

__all__ = ["COCO_PERSON", "CROWDPOSE_PERSON", "DEFAULT_SIGMA", "DatasetError", "KeypointSchema"]

logger = logging.getLogger(__name__)

DEFAULT_SIGMA = 0.025
"""OKS sigma of every keypoint of a data set that gives none: the smallest of COCO's (its eyes).

OKS measures how far a prediction is off in units of ``2 * sigma * sqrt(area)``, so the larger the sigma, the higher
every score. With COCO's smallest, no keypoint is scored more leniently than COCO's strictest one. A lax default such
as ``1 / K`` (0.25 for four keypoints, more than twice COCO's largest) makes any model look near-perfect.
"""

# Okabe and Ito's palette, which colour-blind readers can tell apart; RGB
_LEFT_COLOR, _RIGHT_COLOR, _CENTER_COLOR = (86, 180, 233), (230, 159, 0), (0, 158, 115)


class DatasetError(ValueError):
    """A fault in a data set; the message names the file, the item and what to do about it."""


@dataclass(frozen=True)
class KeypointSchema:
    """The keypoints of one kind of object.

    Args:
        names: the K keypoint names, in the order of the annotation.
        flip_pairs: pairs of names that change places in a mirrored image, ``(left, right)``.
        skeleton: pairs of 0-based keypoint indices, drawn as limbs.
        sigmas: K OKS sigmas, COCO's ``k_i / 2``; () = COCO's where the names are COCO's, else :data:`DEFAULT_SIGMA`
            for all.
        sigmas_are_default: the sigmas are :data:`DEFAULT_SIGMA` and not measured ones; scores can then be compared
            within the data set only. Set by itself where no sigmas are given.

    Raises:
        DatasetError: names are missing or occur twice, a pair or a limb has an unknown keypoint, a keypoint is in two
            pairs, or the sigmas are not K positive numbers.

    Example::

        >>> KeypointSchema(names=("nose", "left_eye", "right_eye"), flip_pairs=(("left_eye", "right_eye"),),
        ...                skeleton=((0, 1), (0, 2)), sigmas=(0.026, 0.025, 0.025)).flip_indices
        array([0, 2, 1])
    """

    names: tuple
    flip_pairs: tuple = ()
    skeleton: tuple = ()
    sigmas: tuple = ()
    sigmas_are_default: bool = False

    def __post_init__(self):
        # Lists from JSON and YAML become tuples, so that schemas compare equal wherever they were read from.
        for field, value in (
            ("names", tuple(self.names)),
            ("flip_pairs", tuple(tuple(pair) for pair in self.flip_pairs)),
            ("skeleton", tuple(tuple(edge) for edge in self.skeleton)),
            ("sigmas", tuple(self.sigmas)),
        ):
            object.__setattr__(self, field, value)
        _check_names(self.names)
        _check_flip_pairs(self.flip_pairs, self.names)
        _check_skeleton(self.skeleton, self.names)
        if not self.sigmas:
            sigmas, are_default = _sigmas_for(self.names)
            object.__setattr__(self, "sigmas", sigmas)
            object.__setattr__(self, "sigmas_are_default", are_default)
        _check_sigmas(self.sigmas, self.names)

    @property
    def num_keypoints(self):
        """K."""
        return len(self.names)

    @property
    def flip_indices(self):
        """ndarray (K,) of int64: keypoint ``i`` of a mirrored image is keypoint ``flip_indices[i]`` of the image."""
        indices = np.arange(self.num_keypoints)
        for left, right in self.flip_pairs:
            i, j = self.names.index(left), self.names.index(right)
            indices[i], indices[j] = j, i
        return indices

    def has_same_keypoints(self, other):
        """Whether one model can serve both: the same names in the same order, and the same ones paired."""
        return self.names == other.names and np.array_equal(self.flip_indices, other.flip_indices)

    @classmethod
    def from_category(cls, category, *, flip_pairs=None, sigmas=None, source=""):
        """Read a category of a COCO-format JSON file.

        Args:
            category (dict): an entry of ``"categories"``, with ``"keypoints"`` (names) and optionally ``"skeleton"``
                (pairs of 1-based indices). A limb that points outside the keypoints is left out with a warning.
            flip_pairs: pairs of names; None = inferred from names that differ in left/right only.
            sigmas: K OKS sigmas; None = see the class.
            source (str): the file, for messages.

        Raises:
            DatasetError: the category has no keypoints, or see the class.
        """
        where = f"category {category.get('name', category.get('id'))!r}" + (f" of {source}" if source else "")
        names = category.get("keypoints")
        if not isinstance(names, (list, tuple)) or not names:
            raise DatasetError(
                f"{where} has no keypoints: give it a list 'keypoints' of names, or choose another category of the file"
            )
        try:
            return cls(
                names=names,
                flip_pairs=infer_flip_pairs(names, where) if flip_pairs is None else flip_pairs,
                skeleton=_read_skeleton(category.get("skeleton") or (), len(names), where),
                sigmas=() if sigmas is None else sigmas,
            )
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None

    @classmethod
    def from_metadata(cls, metadata):
        """Read detectron2's metadata of a data set, its own ``keypoints_coco_*`` included.

        Args:
            metadata (detectron2.data.Metadata): with ``keypoint_names``; the other fields of :meth:`to_metadata` are
                optional.

        Raises:
            DatasetError: the data set has no keypoints.
        """
        names = metadata.get("keypoint_names")
        if not names:
            raise DatasetError(
                f"data set {metadata.name!r} has no keypoints: register it with dynpose.data.register_pose_dataset, or "
                f"set keypoint_names and keypoint_flip_map in its metadata"
            )
        where = f"data set {metadata.name!r}"
        flip_pairs = metadata.get("keypoint_flip_map")
        index = {name: i for i, name in enumerate(names)}
        try:
            return cls(
                names=names,
                flip_pairs=infer_flip_pairs(names, where) if flip_pairs is None else flip_pairs,
                skeleton=[
                    (index.get(a, a), index.get(b, b)) for a, b, _ in metadata.get("keypoint_connection_rules", ())
                ],
                sigmas=metadata.get("keypoint_sigmas", ()),
                sigmas_are_default=metadata.get("keypoint_sigmas_are_default", False),
            )
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None

    def to_metadata(self, metadata):
        """Write detectron2's standard keypoint fields, and the sigmas, to the metadata of a data set.

        Args:
            metadata (detectron2.data.Metadata): gets ``keypoint_names``, ``keypoint_flip_map``,
                ``keypoint_connection_rules`` (left, right and other limbs in a colour each), ``keypoint_sigmas`` and
                ``keypoint_sigmas_are_default``.
        """
        metadata.set(
            keypoint_names=self.names,
            keypoint_flip_map=self.flip_pairs,
            keypoint_connection_rules=[
                (self.names[a], self.names[b], self._limb_color(a, b)) for a, b in self.skeleton
            ],
            keypoint_sigmas=self.sigmas,
            keypoint_sigmas_are_default=self.sigmas_are_default,
        )

    def _limb_color(self, a, b):
        left, right = ({pair[side] for pair in self.flip_pairs} for side in (0, 1))
        ends = {self.names[a], self.names[b]}
        if ends & left and not ends & right:
            return _LEFT_COLOR
        if ends & right and not ends & left:
            return _RIGHT_COLOR
        return _CENTER_COLOR


def infer_flip_pairs(names, where="keypoints"):
    """Pairs of keypoints whose names differ in left/right only.

    ``left_x``/``right_x``, ``x_left``, ``l_x``/``r_x``, ``L Eye``, ``leftEye`` and the like are understood. A name is
    paired only with one that is there, so a wrong guess takes two names that happen to differ in exactly that word.

    Args:
        names (Sequence[str]): K names.
        where (str): for the warning about a name with a side but no counterpart.

    Returns:
        tuple[tuple[str, str]]: ``(left, right)`` in the order of ``names``.
    """
    by_words = {}
    for name in names:
        by_words.setdefault(_words(name), name)
    pairs, alone = [], []
    for name in names:
        words = _words(name)
        sides = [word for word in words if word in _OPPOSITE]
        if not sides:
            continue
        mirrored = by_words.get(tuple(_OPPOSITE.get(word, word) for word in words))
        if mirrored is None:
            # A lone letter is no side (the vertebra "L1"), so only whole words are worth a warning.
            alone += [name] if {"left", "right"} & set(sides) else []
        elif sides[0] in ("left", "l"):
            pairs.append((name, mirrored))
    if alone:
        logger.warning(
            "%s: %s: one side of a pair whose other side is not there? It keeps its place in a mirrored image. Give "
            "flip_pairs if that is wrong.",
            where,
            ", ".join(map(repr, alone)),
        )
    return tuple(pairs)


_OPPOSITE = {"left": "right", "right": "left", "l": "r", "r": "l"}


def _words(name):
    """Lower-case words: ``leftEye``, ``left_eye``, ``Left Eye`` and ``lefteye`` all give ``("left", "eye")``."""
    words = []
    for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+", str(name)):
        words += [word for word in re.split(r"^(left|right)|(left|right)$", part.lower()) if word]
    return tuple(words)


def _read_skeleton(edges, num_keypoints, where):
    """COCO's 1-based limbs as 0-based pairs; those that point outside the keypoints are left out."""
    if not isinstance(edges, (list, tuple)):
        raise DatasetError(f"skeleton is {str(edges)[:80]!r}: write pairs of 1-based keypoint numbers, or take it out")
    inside = [
        edge
        for edge in edges
        if isinstance(edge, (list, tuple))
        and len(edge) == 2
        and all(isinstance(i, int) and 1 <= i <= num_keypoints for i in edge)
    ]
    if len(inside) < len(edges):
        logger.warning(
            "%s: limbs %s of its skeleton are no pairs of its keypoints 1 to %d and are left out. The skeleton may "
            "have been written for another list of keypoints.",
            where,
            ", ".join(str(edge) for edge in edges if edge not in inside)[:200],
            num_keypoints,
        )
    return tuple((a - 1, b - 1) for a, b in inside)


def _sigmas_for(names):
    for known, sigmas in ((_COCO_NAMES, _COCO_SIGMAS), (_CROWDPOSE_NAMES, _CROWDPOSE_SIGMAS)):
        if names == known:
            return sigmas, False
    return (DEFAULT_SIGMA,) * len(names), True


def _check_names(names):
    if not names:
        raise DatasetError("a schema needs at least one keypoint name")
    for name in names:
        if not isinstance(name, str):
            raise DatasetError(f"keypoint name {name!r} is no string")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"keypoint names occur more than once: {', '.join(twice)}; give each its own")


def _check_flip_pairs(flip_pairs, names):
    seen = set()
    for pair in flip_pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise DatasetError(f"flip pair {pair} is not two different keypoints")
        for name in pair:
            if name not in names:
                raise DatasetError(f"flip pair {pair} names an unknown keypoint {name!r}; known are {', '.join(names)}")
            if name in seen:
                raise DatasetError(f"keypoint {name!r} is in more than one flip pair; keep one")
            seen.add(name)


def _check_skeleton(skeleton, names):
    for edge in skeleton:
        if len(edge) != 2 or not all(isinstance(end, int) and 0 <= end < len(names) for end in edge):
            raise DatasetError(f"skeleton edge {edge} is not two 0-based indices of the {len(names)} keypoints")


def _check_sigmas(sigmas, names):
    if len(sigmas) != len(names):
        raise DatasetError(f"{len(sigmas)} OKS sigmas for {len(names)} keypoints; give one per keypoint, or none")
    for name, sigma in zip(names, sigmas):
        if not isinstance(sigma, Real) or not math.isfinite(sigma) or sigma <= 0:
            raise DatasetError(f"OKS sigma {sigma!r} of keypoint {name!r} is not a positive number")


# fmt: off
_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)
# https://cocodataset.org/#keypoints-eval
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)
_COCO_SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)
# fmt: on

COCO_PERSON = KeypointSchema(
    names=_COCO_NAMES, flip_pairs=infer_flip_pairs(_COCO_NAMES), skeleton=_COCO_SKELETON, sigmas=_COCO_SIGMAS
)
"""The person of COCO keypoints: 17 keypoints, with the sigmas of its evaluation."""

# fmt: off
_CROWDPOSE_NAMES = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
)
# Those of CrowdPose's own evaluation tool: COCO's for the joints that COCO has, its shoulders' for head and neck
_CROWDPOSE_SIGMAS = (
    0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079,
)
_CROWDPOSE_SKELETON = (
    (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9),
    (9, 11),
)
# fmt: on

CROWDPOSE_PERSON = KeypointSchema(
    names=_CROWDPOSE_NAMES,
    flip_pairs=infer_flip_pairs(_CROWDPOSE_NAMES),
    skeleton=_CROWDPOSE_SKELETON,
    sigmas=_CROWDPOSE_SIGMAS,
)
"""The person of CrowdPose: 14 keypoints, with the sigmas of its evaluation.

The limbs are not those of its files, which are COCO's: some point outside the 14 keypoints, others join the wrong ones.
"""
