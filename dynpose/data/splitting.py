"""Holding out a part of a data set's images for validation."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

__all__ = ["Split", "split_images"]

_FRACTION = 0.15
# With few images, a score needs at least these; at most a quarter of the images is held out
_FEWEST, _LARGEST_FRACTION = 4, 0.25
# An evaluation of more images takes time and changes little
_MOST = 2000
# Fewer groups than this can't be divided into parts of about the requested sizes
_FEWEST_GROUPS = 5
# The name that Roboflow gives to each augmented copy of an image: street_jpg.rf.0f3a...
_COPY = re.compile(r"(?:_(?:jpe?g|png|bmp|webp|tiff?))?\.rf\.[0-9a-f]+$", re.IGNORECASE)
_FRAME_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Split:
    """Images for training and for validation.

    Attributes:
        train, val: indices of the images, ascending.
        unit: what stays together: "image", "source image" (augmented copies of one image), "folder", or "sequence"
            (images whose names differ in the number at their end only).
        num_units: number of such units among all images.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    unit: str
    num_units: int


def split_images(file_names: Sequence[str], strata: Sequence[Hashable], *, seed: int = 0) -> Split:
    """Hold out about 15 % of the images for validation: at least 4, at most a quarter and at most 2,000.

    Neighbouring frames of a video look alike: a model that has seen one is rated too well on the other. If there are
    five folders, or five sequences of numbered names, they stay together. Augmented copies of an image, which Roboflow
    marks in the name, always do. Folders that merely sort the images by class are divided.

    Args:
        file_names (Sequence[str]): (N,) names of the images, with their folders.
        strata (Sequence[Hashable]): (N,) a property of each image, such as its class; None = an image without people.
            Each part gets about the same share of every value.
        seed (int): of the random choice.

    Returns:
        Split: both parts have an image if there are two. The same arguments give the same parts.

    Example::

        >>> split_images([f"{i}.jpg" for i in range(40)], [0] * 40).val
        (3, 8, 11, 22, 26, 35)
    """
    num_val = _num_val(len(file_names))
    for unit, keys in _groupings(file_names, strata):
        groups = _group(keys)
        val = _choose(groups, strata, num_val, random.Random(seed))
        if not val and unit == "source image" and len(groups) > 1:
            val = min(groups, key=len)
        if val or unit == "image":
            chosen = set(val)
            train = tuple(i for i in range(len(file_names)) if i not in chosen)
            return Split(train, tuple(sorted(val)), unit, len(groups))
    raise AssertionError("single images can always be divided")


def _num_val(num_images):
    if num_images < 2:
        return 0
    most = max(1, min(int(num_images * _LARGEST_FRACTION), _MOST))
    return min(max(round(num_images * _FRACTION), _FEWEST), most)


def _groupings(file_names, strata):
    """The possible units, the largest first, with the key of each image's unit."""
    paths = [name.replace("\\", "/") for name in file_names]
    folders = [os.path.dirname(path) for path in paths]
    sources = [_COPY.sub("", os.path.splitext(path)[0]) for path in paths]
    sequences = [_FRAME_NUMBER.sub("", source) for source in sources]
    num_sources = len(set(sources))
    if _FEWEST_GROUPS <= len(set(folders)) < num_sources and not _sorts_by_class(folders, strata):
        yield "folder", folders
    elif _FEWEST_GROUPS <= len(set(sequences)) < num_sources and not _sorts_by_class(sequences, strata):
        yield "sequence", sequences
    if num_sources < len(set(paths)):
        yield "source image", sources
    yield "image", range(len(paths))


def _sorts_by_class(keys, strata):
    """Whether each group has images of one class, and there are several classes."""
    classes = defaultdict(set)
    for key, stratum in zip(keys, strata):
        if stratum is not None:
            classes[key].add(stratum)
    return len(set().union(*classes.values())) > 1 and all(len(found) == 1 for found in classes.values())


def _group(keys):
    groups = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return list(groups.values())


def _choose(groups, strata, num_val, rng):
    """Indices of about ``num_val`` images in whole groups; [] if the groups are too large for that."""
    quotas = _quotas(strata, num_val)
    single = all(len(group) == 1 for group in groups)
    # a group rarely has the exact share of each stratum
    room = Counter(quotas if single else {stratum: quota + quota // 3 + 1 for stratum, quota in quotas.items()})
    most = num_val if single else num_val + num_val // 3
    groups = list(groups)
    rng.shuffle(groups)
    val = []
    for group in groups:
        needs = Counter(strata[i] for i in group)
        if len(val) < num_val and len(val) + len(group) <= most and all(room[key] >= needs[key] for key in needs):
            val += group
            room -= needs
    return val if single or 2 * len(val) >= num_val else []


def _quotas(strata, num_val):
    """The images of each stratum to hold out: its share, rounded so that the sum is ``num_val``."""
    counts = Counter(strata)
    shares = {stratum: num_val * count / len(strata) for stratum, count in counts.items()}
    quotas = {stratum: int(share) for stratum, share in shares.items()}
    by_remainder = sorted(shares, key=lambda stratum: (quotas[stratum] - shares[stratum], str(stratum)))
    for stratum in by_remainder[: num_val - sum(quotas.values())]:
        quotas[stratum] += 1
    return quotas
