"""Matching the keypoints of two schemas by name."""

from collections import Counter
from collections.abc import Sequence

from .flip_names import read_sides
from .keypoint_words import LEFT, RIGHT

__all__ = ["match_keypoints"]


def match_keypoints(names: Sequence[str], other_names: Sequence[str]) -> tuple[int | None, ...]:
    """For each keypoint, the index of the same keypoint in another list.

    Two keypoints match if their names are equal except for case, separators, accents, the order of the words, and the
    form of left and right, in all forms of :func:`~dynpose.data.flip_names.infer_flip_pairs`: ``left_eye``, ``L Eye``,
    ``leftEye`` and ``LEye`` (in a list that also has a right eye). A few words are synonyms, if the rest of the name is
    unambiguous:

    - of a limb with a side: ``F``, ``fore`` and ``front``; ``B``, ``H``, ``back``, ``hind`` and ``rear``
      (``L_F_Paw`` is ``left_front_paw``);
    - of a hand: ``index`` and ``forefinger``, ``little`` and ``pinky``, with ``finger`` or without, and the joints'
      names and their numbers from the root, ``cmc mcp ip tip`` of the thumb and ``mcp pip dip tip`` of a finger
      (``index_pip`` is ``forefinger2``);
    - ``of`` and ``the`` are ignored (``root_of_tail`` is ``tail_root``).

    Names that are a number, with or without ``kpt``, ``landmark`` and similar words, match if both lists have the same
    numbers. ``head`` and ``head_top`` or ``hip`` and ``pelvis`` do not match.

    Args:
        names (Sequence[str]): K names.
        other_names (Sequence[str]): K' names.

    Returns:
        tuple[int | None, ...]: K unique indices into ``other_names``; None = the other list has no such keypoint, or
        more than one.

    Example::

        >>> match_keypoints(("nose", "left_eye", "right_eye"), ("REye", "LEye", "Neck"))
        (None, 1, 0)
    """
    left_out = _numbers_of_different_lists(names, other_names)
    matches: dict[str, str] = {}
    for keys_of in (lambda some: {name: name for name in some}, _keys, _joined):
        seen = left_out | matches.keys() | set(matches.values())
        keys, others = (
            {name: key for name, key in keys_of(some).items() if name not in seen} for some in (names, other_names)
        )
        matches |= _same_keys(keys, others)
    index = {name: i for i, name in enumerate(other_names)}
    return tuple(index[matches[name]] if name in matches else None for name in names)


def _numbers_of_different_lists(names, other_names):
    """The numbered names of both lists, if the two lists have different numbers."""
    numbered, other_numbered = (
        {name: key for name, key in _keys(some).items() if _is_number(key)} for some in (names, other_names)
    )
    return set() if set(numbered.values()) == set(other_numbered.values()) else {*numbered, *other_numbered}


def _same_keys(keys, others):
    """Name -> other name, for keys that occur once in each list."""
    counts, other_counts = Counter(keys.values()), Counter(others.values())
    by_key = {key: name for name, key in others.items()}
    return {name: by_key[key] for name, key in keys.items() if counts[key] == 1 and other_counts[key] == 1}


def _keys(names):
    """Name -> its sides in order, and its other words sorted."""
    keys = {}
    for name, words in read_sides(names).items():
        sides = tuple(word for word in words if word in (LEFT, RIGHT))
        others = [word for word in words if word not in (LEFT, RIGHT, "of", "the")]
        if sides:
            others = [_OF_A_LIMB.get(word, word) for word in others]
        keys[name] = sides, tuple(sorted(_without_generic_words(_of_a_hand([_number(word) for word in others]))))
    return keys


def _joined(names):
    """Name -> its sides, and its other words joined, so that ``earbase`` matches ``ear_base``."""
    return {
        name: (
            tuple(word for word in words if word in (LEFT, RIGHT)),
            "".join(word for word in words if word not in (LEFT, RIGHT)),
        )
        for name, words in read_sides(names).items()
    }


_OF_A_LIMB = {"f": "front", "fore": "front", "b": "back", "h": "back", "hind": "back", "rear": "back"}
_FINGERS = {"index": "forefinger", "forefinger": "forefinger", "middle": "middle", "ring": "ring", "pinky": "pinky"}
_FINGERS |= {"little": "pinky"}
# The order of MediaPipe's hand landmarks, the same as that of the 21 hand keypoints
_JOINTS = {
    "thumb": {"cmc": "1", "mcp": "2", "ip": "3", "tip": "4"},
    "finger": {"mcp": "1", "pip": "2", "dip": "3", "tip": "4"},
}


def _of_a_hand(words):
    """Normalise the words of a hand's keypoint; other words are unchanged."""
    if "thumb" in words:
        return [_JOINTS["thumb"].get(word, word) for word in words]
    if not any(word in _FINGERS for word in words) or not any(
        word == "finger" or word in _JOINTS["finger"] or word.isdigit() for word in words
    ):
        return words
    return [_FINGERS.get(word, _JOINTS["finger"].get(word, word)) for word in words if word != "finger"]


def _number(word):
    return word.lstrip("0") or "0" if word.isascii() and word.isdecimal() else word


_GENERIC = frozenset(("kpt", "kp", "keypoint", "landmark", "lm", "point", "pt", "p", "joint", "node", "id"))


def _without_generic_words(words):
    """Reduce ``kpt 7`` to ``7``; names with other words are unchanged."""
    numbers = [word for word in words if word.isdigit()]
    return numbers if numbers and all(word.isdigit() or word in _GENERIC for word in words) else words


def _is_number(key):
    sides, words = key
    return bool(words) and not sides and all(word.isdigit() for word in words)
