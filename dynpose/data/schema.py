"""The keypoint schema of a data set: keypoint names, flip pairs, skeleton and OKS sigmas.

It is the only source of the number of keypoints K, the left/right pairs, the limbs and the OKS sigmas. A schema is read
from a COCO-format category, from detectron2's metadata or from a config (schema_config.py), and is written to the last
two.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .flip_names import infer_flip_pairs
from .known_schema_data import KNOWN_TABLES, table_by_keypoints
from .match_names import match_keypoints

if TYPE_CHECKING:
    from detectron2.data import Metadata

    from .faults import Fault

__all__ = [
    "COCO_PERSON",
    "CROWDPOSE_PERSON",
    "DEFAULT_SIGMA",
    "DatasetError",
    "KeypointSchema",
    "infer_flip_pairs",
    "match_keypoints",
]

logger = logging.getLogger(__name__)

DEFAULT_SIGMA = 0.025
"""OKS sigma of every keypoint of a data set that gives none: the smallest of COCO's (its eyes).

OKS measures the error of a prediction in units of ``2 * sigma * sqrt(area)``, so the larger the sigma, the higher every
score. With COCO's smallest, no keypoint is scored more leniently than COCO's strictest one. A lax default such as
``1 / K`` (0.25 for four keypoints, more than twice COCO's largest) makes any model look near-perfect.
"""

# Okabe and Ito's colour-blind-safe palette; RGB
_LEFT_COLOR, _RIGHT_COLOR, _CENTER_COLOR = (86, 180, 233), (230, 159, 0), (0, 158, 115)


class DatasetError(ValueError):
    """A fault in a data set; the message names the file, the item and the remedy.

    Attributes:
        fault (Fault | None): the parts of the message (:class:`dynpose.data.faults.Fault`), if it was built from them.
    """

    fault: Fault | None = None


@dataclass(frozen=True)
class KeypointSchema:
    """The keypoints of one type of object.

    Args:
        names: the K keypoint names, in the order of the annotation.
        flip_pairs: pairs of names that are swapped in a mirrored image, ``(left, right)``.
        skeleton: pairs of 0-based keypoint indices, drawn as limbs.
        sigmas: K OKS sigmas, COCO's ``k_i / 2``; () = the published sigmas if the names are those of a schema in
            :mod:`.known_schemas` that has any, else :data:`DEFAULT_SIGMA` for all.
        sigmas_are_default: the sigmas are :data:`DEFAULT_SIGMA`, not measured values; scores can then be compared
            within the data set only. Set automatically if no sigmas are given.

    Raises:
        DatasetError: names are missing or repeated, a pair or a limb has an unknown keypoint, a keypoint is in two
            pairs, or the sigmas are not K positive numbers.

    Example::

        >>> KeypointSchema(names=("nose", "left_eye", "right_eye"), flip_pairs=(("left_eye", "right_eye"),),
        ...                skeleton=((0, 1), (0, 2)), sigmas=(0.026, 0.025, 0.025)).flip_indices
        array([0, 2, 1])
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    sigmas_are_default: bool = False

    def __post_init__(self):
        # Lists from JSON and YAML become tuples, so that schemas compare equal regardless of their source.
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
    def num_keypoints(self) -> int:
        """K."""
        return len(self.names)

    @property
    def flip_indices(self) -> np.ndarray:
        """ndarray (K,) of int64: keypoint ``i`` of a mirrored image is keypoint ``flip_indices[i]`` of the image."""
        indices = np.arange(self.num_keypoints)
        for left, right in self.flip_pairs:
            i, j = self.names.index(left), self.names.index(right)
            indices[i], indices[j] = j, i
        return indices

    def has_same_keypoints(self, other: KeypointSchema) -> bool:
        """Whether one model can serve both schemas: the same names in the same order with the same flip pairs."""
        return self.names == other.names and np.array_equal(self.flip_indices, other.flip_indices)

    @classmethod
    def from_category(
        cls,
        category: dict[str, Any],
        *,
        names: Sequence[str] | None = None,
        skeleton: Sequence[Sequence[int | str]] | None = None,
        flip_pairs: Sequence[tuple[str, str]] | None = None,
        sigmas: Sequence[float] | None = None,
        source: str = "",
    ) -> KeypointSchema:
        """Read a category of a COCO-format JSON file.

        The numbers of a skeleton are COCO's, 1 to K. A skeleton with a 0 and nothing above K - 1 is read as 0-based,
        and the log says so. A 0-based skeleton without a 0 cannot be told from a 1-based one: give it as names.

        Args:
            category (dict): an entry of ``"categories"``, with ``"keypoints"`` (names) and optionally ``"skeleton"``
                (pairs of numbers or of names). A limb that points outside the keypoints is skipped with a warning.
            names: K names that replace those of the file, one for one, or name the keypoints of a file without names.
            skeleton: pairs of names, or of numbers as in a file; they replace the file's skeleton.
            flip_pairs: pairs of names; None = those of the category, which ``dynpose convert-data`` writes, else
                :func:`infer_flip_pairs`.
            sigmas: K OKS sigmas; None = see the class.
            source (str): the file, for messages.

        Raises:
            DatasetError: the category has no keypoints and no names are given, or the number of names differs; a
                skeleton has both 0 and K; a given skeleton points outside the keypoints; or see the class.
        """
        where = f"category {category.get('name', category.get('id'))!r}" + (f" of {source}" if source else "")
        in_file = category.get("keypoints")
        in_file = in_file if isinstance(in_file, (list, tuple)) else ()
        if not in_file and names is None:
            raise DatasetError(
                f"{where} has no keypoints: give it a list 'keypoints' of names, give names when it is registered, or "
                f"choose another category of the file"
            )
        try:
            names = _choose_names(in_file, names)
            return cls(
                names=tuple(names),
                flip_pairs=tuple(_read_file_pairs(category, names, where) if flip_pairs is None else flip_pairs),
                skeleton=(
                    _read_file_skeleton(category.get("skeleton") or (), in_file or names, where)
                    if skeleton is None
                    else _read_given_skeleton(skeleton, names, where)
                ),
                sigmas=() if sigmas is None else tuple(sigmas),
            )
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> KeypointSchema:
        """Read detectron2's metadata of a data set, including its built-in ``keypoints_coco_*``.

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
                skeleton=tuple(
                    (index.get(a, a), index.get(b, b)) for a, b, _ in metadata.get("keypoint_connection_rules", ())
                ),
                sigmas=metadata.get("keypoint_sigmas", ()),
                sigmas_are_default=metadata.get("keypoint_sigmas_are_default", False),
            )
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None

    def to_metadata(self, metadata: Metadata) -> None:
        """Write detectron2's standard keypoint fields, and the sigmas, to the metadata of a data set.

        Args:
            metadata (detectron2.data.Metadata): receives ``keypoint_names``, ``keypoint_flip_map``,
                ``keypoint_connection_rules`` (one colour each for left, right and other limbs), ``keypoint_sigmas`` and
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


def _choose_names(in_file, given):
    """The names given at registration, if any, else the file's."""
    names = in_file if given is None else given
    if not isinstance(names, (list, tuple)):
        raise DatasetError(f"keypoint names are {str(names)[:80]!r}: give a list of names")
    if in_file and len(names) != len(in_file):
        raise DatasetError(
            f"{len(names)} names are given for its {len(in_file)} keypoints: give one for each, in the file's order"
        )
    _check_names(names)
    return names


def _read_file_pairs(category, names, where):
    """The pairs of a file; without any, or if they are of other names, those by name."""
    pairs = category.get("flip_pairs")
    if pairs is None:
        return infer_flip_pairs(names, where)
    if isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        ends = [end for pair in pairs for end in pair if isinstance(end, str)]
        if len(set(ends)) == 2 * len(pairs) and set(ends) <= set(names):
            return tuple(map(tuple, pairs))
    logger.warning("%s: flip_pairs %s are no pairs of its keypoints; those by name are used", where, str(pairs)[:80])
    return infer_flip_pairs(names, where)


def _read_file_skeleton(edges, names, where):
    """The limbs of a file, without those that point outside the keypoints."""
    limbs, refused = _read_limbs(edges, names, where)
    if refused:
        logger.warning(
            "%s: limbs %s of its skeleton are not pairs of its keypoints 1 to %d and are skipped. The skeleton may "
            "have been written for another list of keypoints.",
            where,
            ", ".join(map(str, refused))[:200],
            len(names),
        )
    return limbs


def _read_given_skeleton(edges, names, where):
    limbs, refused = _read_limbs(edges, names, where)
    if refused:
        raise DatasetError(
            f"skeleton: limb {str(refused[0])[:80]} is not a pair of its keypoints: give two numbers from 1 to "
            f"{len(names)}, or two names of {', '.join(names)}"
        )
    return limbs


def _read_limbs(edges, names, where):
    """Convert a skeleton of names, or of numbers that start at 1 or at 0, to pairs of 0-based indices.

    Returns the pairs, and the refused edges.
    """
    if not isinstance(edges, (list, tuple)):
        raise DatasetError(
            f"skeleton is {str(edges)[:80]!r}: write pairs of 1-based keypoint numbers or of names, or take it out"
        )
    first = _first_number(edges, len(names), where)
    index = {**{name: i for i, name in enumerate(names)}, **{i + first: i for i in range(len(names))}}
    read, refused = [], []
    for edge in edges:
        limb = tuple(index.get(end) for end in _pair(edge))
        if limb and None not in limb:
            read.append(limb)
        else:
            refused.append(edge)
    return tuple(read), refused


def _pair(edge):
    """The two ends of a limb, whole floats as integers; () = not a pair of numbers or names."""
    if not isinstance(edge, (list, tuple)) or len(edge) != 2:
        return ()
    if any(isinstance(end, bool) or not isinstance(end, (str, Real)) for end in edge):
        return ()
    return tuple(int(end) if isinstance(end, float) and end.is_integer() else end for end in edge)


def _first_number(edges, num_keypoints, where):
    """The number of the first keypoint in a skeleton: 1, as in COCO, or 0.

    A skeleton with numbers above K was written for another list of keypoints; its first number is then unknown.
    """
    numbers = {end for edge in edges for end in _pair(edge) if not isinstance(end, str)}
    if 0 not in numbers or max(numbers) > num_keypoints:
        return 1
    if num_keypoints in numbers:
        raise DatasetError(
            f"its skeleton has limbs with 0 and with {num_keypoints}, so that neither reading fits {num_keypoints} "
            f"keypoints: COCO's numbers are 1 to {num_keypoints}, 0-based ones 0 to {num_keypoints - 1}. Correct "
            f"'skeleton', or give limbs as pairs of keypoint names"
        )
    logger.info(
        "%s: its skeleton is 0-based (it has a 0, and nothing above %d), where COCO's is 1-based; read as such",
        where,
        num_keypoints - 1,
    )
    return 0


def _sigmas_for(names):
    table = table_by_keypoints(names)
    if table is not None and table.sigmas:
        return table.sigmas, False
    return (DEFAULT_SIGMA,) * len(names), True


def _check_names(names):
    if not names:
        raise DatasetError("a schema needs at least one keypoint name")
    for name in names:
        if not isinstance(name, str):
            raise DatasetError(f"keypoint name {name!r} is not a string")
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


def _known(name):
    table = KNOWN_TABLES[name]
    return KeypointSchema(table.names, table.flip_pairs, table.skeleton, table.sigmas)


COCO_PERSON = _known("coco")
"""The person of COCO: 17 keypoints, with the sigmas of COCO's evaluation."""

CROWDPOSE_PERSON = _known("crowdpose")
"""The person of CrowdPose: 14 keypoints, with the sigmas of CrowdPose's evaluation.

The limbs differ from those of CrowdPose's files, which are COCO's: some point outside the 14 keypoints, others join the
wrong ones.
"""
