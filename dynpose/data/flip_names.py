"""Inferring from keypoint names which keypoints are swapped in a mirrored image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .keypoint_words import LEFT, LETTERS, RIGHT, SIDE_WORDS, UNMISTAKABLE, glued_words, own_words, side_words
from .known_schema_data import numbered_flip_pairs, table_by_keypoints

if TYPE_CHECKING:
    from .schema import KeypointSchema

__all__ = ["contradicted_pairs", "flip_pairs_concern", "infer_flip_pairs", "read_sides"]

logger = logging.getLogger(__name__)

_OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT}


def infer_flip_pairs(names: Sequence[str], where: str | None = None) -> tuple[tuple[str, str], ...]:
    """Pairs of keypoints whose names differ in left/right only.

    A name is paired only with a unique name of the list that is otherwise equal. In this order:

    1. Words: ``left_x``/``right_x``, ``x_left``, ``leftX``, ``x.L``/``x.R``, ``l_x``/``r_x``, ``L Eye``, ``eyeL1``,
       ``handLft``/``handRgt``, and left and right in other languages (``izq``/``der``, ``gauche``/``droite``,
       ``links``/``rechts``, ``sx``/``dx``, ...). All sides of a name are swapped: ``left_eye_right`` is paired with
       ``right_eye_left``. Names of a letter and a number (``L1``/``R1``) are paired only if each of them has its
       partner, since L1 is a vertebra too.
    2. Long words without a separator: ``lefteye``, ``frontleftpaw``.
    3. Two letters for a side and a position: ``FL_paw``/``FR_paw``, ``LFHoof``/``RFHoof``, ``BL``, ``HR``, ``UL``.
    4. A letter without a separator, ``rknee``/``lknee`` or ``hipl``/``hipr``, if such pairs outnumber the words that
       begin (end) with the letter and have no partner. Letters at the end need at least two pairs. The rest of the word
       has at least three letters, unless there are three pairs and no word without a partner.

    Numbered landmarks (``kpt-0``) are not paired, except those of a published table that are complete under its names
    in :mod:`.known_schema_data` (``face-0`` to ``face-67`` of COCO-WholeBody).

    Args:
        names (Sequence[str]): K names.
        where (str): for the warning about a name with a side but no counterpart; None = without a warning.

    Returns:
        tuple[tuple[str, str]]: ``(left, right)`` in the order of ``names``.
    """
    pairs = _find_pairs(names)
    paired = {name for pair in pairs for name in pair}
    # A single letter need not be a side, so only whole words lead to a warning.
    alone = [name for name in names if name not in paired and side_words(name)]
    if alone and where is not None:
        logger.warning(
            "%s: %s: one side of a pair without the other? It keeps its place in a mirrored image. Give "
            "flip_pairs if that is wrong.",
            where,
            ", ".join(map(repr, alone)),
        )
    return tuple(pairs)


def contradicted_pairs(schema: KeypointSchema) -> list[str]:
    """Describe the flip pairs of a schema whose keypoints have other partners by their names.

    Args:
        schema (KeypointSchema): K keypoints.

    Returns:
        list[str]: one clause for each, such as "left_ear / tail is a flip pair, but by their names the pairs are
        left_ear / right_ear".
    """
    by_name = {name: pair for pair in infer_flip_pairs(schema.names) for name in pair}
    found = []
    for left, right in schema.flip_pairs:
        expected = {by_name[name] for name in (left, right) if name in by_name}
        if any(set(pair) != {left, right} for pair in expected):
            twins = " and ".join(" / ".join(pair) for pair in sorted(expected))
            found.append(f"{left} / {right} is a flip pair, but by their names the pairs are {twins}")
    return found


def flip_pairs_concern(schema: KeypointSchema) -> str | None:
    """Describe doubtful flip pairs of a schema whose images are mirrored in training.

    There is a concern if the pairs are not those published for exactly these names, if a pair contradicts the names
    (:func:`contradicted_pairs`), if names that differ in left/right only, or that contain a word for a side, are in no
    pair, and if four keypoints or more have no pair at all. There is none for up to three keypoints without a word for
    a side, or for a schema without pairs whose names consist of words for the midline or for a single hand
    (``head top``, ``thumb_tip``): a mirrored bottle is a bottle, and a mirrored left hand a right one.

    Args:
        schema (KeypointSchema): K keypoints.

    Returns:
        str | None: one sentence for a log; None = no concern.
    """
    names, pairs = schema.names, {frozenset(pair) for pair in schema.flip_pairs}
    paired = frozenset().union(*pairs)
    table = table_by_keypoints(names)
    if table is not None:
        missing = [pair for pair in table.flip_pairs if frozenset(pair) not in pairs]
    else:
        missing = [pair for pair in _find_pairs(names) if not paired & set(pair)]
    if missing:
        return (
            f"{_some(f'{a} and {b}' for a, b in missing)}: left and right of each other by name or by the published "
            f"table, but no flip pairs, so that they keep their places in a mirrored image; give flip_pairs, or set "
            f"INPUT.RANDOM_FLIP none"
        )
    if contradicted := contradicted_pairs(schema):
        return f"{contradicted[0]}; correct flip_pairs, or pairs in a data file, if the names are right"
    alone = [name for name in names if name not in paired and set(own_words(name)) & UNMISTAKABLE]
    if alone:
        return (
            f"{_some(alone)}: in no flip pair although the name has a side, so that it keeps its place in a mirrored "
            f"image; give flip_pairs if that is wrong"
        )
    if not pairs and len(names) >= 4 and table is None and not all(map(_is_on_midline, names)):
        return (
            f"no flip pairs among {len(names)} keypoints ({_some(names)}), so that all keep their places in a mirrored "
            f"image; give flip_pairs, or set INPUT.RANDOM_FLIP none, if some of them are left and right"
        )
    return None


def read_sides(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words of each name, with :data:`LEFT` and :data:`RIGHT` for the sides found by :func:`infer_flip_pairs`.

    Args:
        names (Sequence[str]): K names.

    Returns:
        dict[str, tuple[str, ...]]: name -> words. In a name without a partner only unmistakable words are sides.
    """
    readings = {
        name: tuple(SIDE_WORDS[word][1] if word in UNMISTAKABLE else word for word in glued_words(name))
        for name in names
    }
    for left, right, words in _read_pairs(names):
        readings[left] = words
        readings[right] = tuple(_OPPOSITE.get(word, word) for word in words)
    return readings


def _find_pairs(names):
    index = {name: i for i, name in enumerate(names)}
    pairs = [(left, right) for left, right, _ in _read_pairs(names)]
    return sorted((*pairs, *numbered_flip_pairs(names)), key=lambda pair: index[pair[0]])


def _read_pairs(names):
    """``(left, right, words of the left one)`` of every pair; each pass reads the names not yet paired."""
    found = []
    for read in (
        lambda left_over: _read_words(left_over, glued_words, letters=True),
        # "blinks_left" and "blinks_right": "links" is no side here
        lambda left_over: _read_words(left_over, own_words, letters=True),
        # "left_L1" and "right_L1": nor is the letter, if swapping it too gives no partner
        lambda left_over: _read_words(left_over, glued_words, letters=False),
        lambda left_over: _read_words(left_over, own_words, letters=False),
        _read_codes,
        lambda left_over: _read_letters(left_over, at=0),
        lambda left_over: _read_letters(left_over, at=-1),
    ):
        taken = {name for left, right, _ in found for name in (left, right)}
        # A repeated name is a fault that the schema itself reports.
        found += read([name for name in dict.fromkeys(names) if name not in taken])
    return found


def _read_words(names, words_of, letters):
    """Pair names whose words are equal except for swapped sides; with ``letters``, single letters are sides too."""
    numbered_letters = letters and _numbered_letters_are_complete(names)
    by_key = {}
    for name in names:
        with_letters = letters and (numbered_letters or not _is_numbered_letter(name))
        sides = {**SIDE_WORDS, **LETTERS} if with_letters else SIDE_WORDS
        by_key.setdefault(tuple(sides.get(word, word) for word in words_of(name)), []).append(name)
    found = []
    for key, (name, *others) in by_key.items():
        mirrored = tuple(_exchange(word) for word in key)
        partners = by_key.get(mirrored, ())
        # If two names have the same words (left_eye, leftEye), the partner of the other name is ambiguous.
        if mirrored == key or others or len(partners) != 1:
            continue
        words = tuple(word if isinstance(word, str) else word[1] for word in key)
        if next(word for word in words if word in _OPPOSITE) == LEFT:
            found.append((name, partners[0], words))
    return found


def _exchange(word):
    return word if isinstance(word, str) else (word[0], _OPPOSITE[word[1]])


def _is_numbered_letter(name):
    words = own_words(name)
    return all(word in LETTERS or word.isdigit() for word in words) and any(word.isdigit() for word in words)


def _numbered_letters_are_complete(names):
    """Whether each ``L1`` has its ``R1``; otherwise these may be vertebrae."""
    keys = Counter(own_words(name) for name in names if _is_numbered_letter(name))
    swap = {"l": "r", "r": "l"}
    return all(keys[tuple(swap.get(word, word) for word in key)] for key in keys)


# Letters for the position next to the letter for the side: front, back, hind, rear, upper, lower, top, middle
_POSITIONS = frozenset("fbhrultm")


def _read_codes(names):
    """Pair ``FL``, ``RB`` and so on; ``RL``, rear left or right lower, is read as the one that has a partner."""
    by_words = _unique(names, own_words)
    partners = {name: [] for name in names}
    for words, name in by_words.items():
        for mirrored, read in _exchange_in_codes(words):
            if mirrored in by_words:
                partners[name].append((by_words[mirrored], read))
    found = []
    for name, candidates in partners.items():
        if len(candidates) == 1 and len(partners[candidates[0][0]]) == 1 and LEFT in candidates[0][1]:
            found.append((name, *candidates[0]))
    return found


def _exchange_in_codes(words):
    """Yield the words of the other side and the decoded words, for each way to read one word as a code."""
    for i, word in enumerate(words):
        for at in (0, -1):
            if len(word) == 2 and word[at] in LETTERS and word[-1 - at] in _POSITIONS:
                read = (*words[:i], LETTERS[word[at]][1], word[-1 - at], *words[i + 1 :])
                yield _exchange_letter(words, i, at), read


def _read_letters(names, at):
    """Pair names by a letter at the beginning (``at`` 0) or the end (-1) of a word, which may occur there by chance.

    The rest of the word has at least three letters, unless there are three pairs and no name without a partner
    (``LS, RS, LE, RE, LW, RW``).
    """
    by_words = _unique(names, lambda name: _glue_letters(own_words(name), at))
    long, short, unanswered = [], [], 0
    for words, name in by_words.items():
        places = [i for i, word in enumerate(words) if len(word) > 1 and word[at] in LETTERS]
        partners = {i: by_words.get(_exchange_letter(words, i, at)) for i in places}
        answered = [i for i in places if partners[i] is not None]
        if len(answered) != 1:
            unanswered += bool(places)
        elif words[answered[0]][at] == "l":
            i = answered[0]
            rest = words[i][1:] if at == 0 else words[i][:-1]
            pair = (name, partners[i], (*words[:i], LEFT, rest, *words[i + 1 :]))
            (long if len(rest) >= 3 else short).append(pair)
    if not unanswered and len(long) + len(short) >= 3:
        return long + short
    unanswered += 2 * len(short)
    # One pair is sufficient only at the beginning, as more words end in l or r than begin with them.
    at_least = max(unanswered + 1, 1 if at == 0 and not unanswered else 2)
    return long if len(long) >= at_least else []


def _glue_letters(words, at):
    """``("l", "knee")`` as ``("lknee",)``: one list has LKnee and Rknee."""
    glued = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if (before in LETTERS and at == 0 and word.isalpha()) or (word in LETTERS and at == -1 and before.isalpha()):
            glued[-1] += word
        else:
            glued.append(word)
    return tuple(glued)


def _exchange_letter(words, i, at):
    word, other = words[i], "r" if words[i][at] == "l" else "l"
    return (*words[:i], other + word[1:] if at == 0 else word[:-1] + other, *words[i + 1 :])


def _unique(names, key):
    """Key -> name, for keys that belong to a single name."""
    counts = Counter(map(key, names))
    return {key(name): name for name in names if counts[key(name)] == 1}


# fmt: off
_MIDLINE = frozenset((
    "head", "top", "bottom", "crown", "forehead", "nose", "snout", "chin", "mouth", "beak", "neck", "throat", "spine",
    "back", "chest", "belly", "abdomen", "thorax", "torso", "pelvis", "withers", "tail", "tailbase", "root", "base",
    "tip", "start", "end", "mid", "middle", "center", "centre", "of", "the",
    "wrist", "palm", "thumb", "finger", "forefinger", "index", "ring", "pinky", "little", "cmc", "mcp", "pip", "dip",
    "ip", "handle", "cap", "stem", "shaft", "blade", "hilt",
))
# fmt: on


def _is_on_midline(name):
    words = [word for word in own_words(name) if not word.isdigit()]
    return bool(words) and all(word in _MIDLINE for word in words)


def _some(items):
    items = [str(item) for item in items]
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
