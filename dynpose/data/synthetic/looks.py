"""The appearance of the synthetic people: proportions, skin, hair and clothes."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Body:
    """Proportions, in body heights: ``ankle + 2 leg + trunk + neck + head`` is 1.

    ``leg`` is the length of the thigh and of the shin, ``arm`` that of the upper arm; ``shoulder`` and ``hip`` are half
    the distance between the joints. ``girth`` (of everything) and ``waist`` are factors.
    """

    head: float = 0.152
    neck: float = 0.05
    trunk: float = 0.288
    leg: float = 0.235
    ankle: float = 0.04
    arm: float = 0.16
    shoulder: float = 0.1
    hip: float = 0.052
    girth: float = 1.0
    waist: float = 1.0


def sample_body(rng: np.random.Generator) -> Body:
    """Draw an adult's or, occasionally, a child's proportions."""
    child = rng.random() < 0.12
    head = rng.uniform(0.185, 0.21) if child else rng.uniform(0.143, 0.16)
    neck = 0.035 if child else 0.05
    trunk = rng.uniform(0.275, 0.3)
    leg = (1 - head - neck - trunk - Body.ankle) / 2
    return Body(
        head=head,
        neck=neck,
        trunk=trunk,
        leg=leg,
        arm=leg * rng.uniform(0.66, 0.71),
        shoulder=rng.uniform(0.088, 0.108),
        hip=rng.uniform(0.048, 0.057),
        girth=rng.uniform(0.9, 1.2),
        waist=rng.uniform(0.88, 1.2),
    )


@dataclass(frozen=True)
class Outfit:
    """Colours (RGB, 0..255) and cut of the clothes. ``sleeves`` is the covered fraction of the arm; ``trim`` is the
    second colour of the shirt. ``accent`` is worn on the left only, see :func:`sample_outfit`."""

    skin: tuple[float, ...]
    hair: tuple[float, ...]
    hair_style: str
    shirt: tuple[float, ...]
    shirt_pattern: str
    trim: tuple[float, ...]
    sleeves: float
    bottom: tuple[float, ...]
    bottom_style: str
    shoes: tuple[float, ...]
    accent: tuple[float, ...]


# fmt: off
_SKIN = (
    (255, 221, 193), (244, 203, 168), (232, 184, 146), (214, 160, 120), (186, 130, 92), (148, 97, 66), (108, 70, 48),
)
_HAIR = (
    (34, 28, 28), (58, 40, 32), (96, 62, 38), (146, 96, 52), (206, 166, 98), (150, 70, 40), (168, 164, 160),
)
_SHIRTS = (
    (198, 58, 52), (222, 110, 60), (232, 176, 66), (88, 148, 88), (52, 112, 104), (74, 130, 190), (50, 74, 132),
    (120, 84, 150), (196, 98, 130), (232, 228, 218), (158, 164, 172), (72, 78, 90), (150, 190, 200), (176, 132, 96),
)
_BOTTOMS = (
    (46, 62, 102), (70, 92, 136), (104, 128, 164), (52, 54, 62), (92, 94, 100), (126, 104, 80), (188, 168, 136),
    (84, 92, 68), (112, 58, 56), (198, 198, 194),
)
_SHOES = ((40, 38, 42), (84, 60, 46), (110, 112, 118), (64, 72, 96))
_ACCENTS = ((255, 214, 40), (64, 224, 208), (255, 92, 120), (150, 235, 70), (255, 140, 30), (250, 250, 245))
# fmt: on
_HAIR_STYLES = {"short": 0.4, "long": 0.2, "bun": 0.12, "curly": 0.12, "cap": 0.1, "bald": 0.06}
_SHIRT_PATTERNS = {"plain": 0.3, "stripes": 0.2, "chest": 0.2, "yoke": 0.15, "zip": 0.15}
_BOTTOM_STYLES = {"trousers": 0.62, "shorts": 0.26, "skirt": 0.12}


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Draw skin, hair and clothes.

    Everyone wears a bright colour on the left only: an armband, a wristband, a band below the knee and a shoe. This
    distinguishes left and right from behind and when the head is cut off, as clothes or held objects often do in
    photographs.
    """
    shirt = _pick(rng, _SHIRTS)
    trim = _pick(rng, [color for color in _SHIRTS if math.dist(color, shirt) > 110])
    bottom = _pick(rng, [color for color in _BOTTOMS if math.dist(color, shirt) > 60])
    skin = _pick(rng, _SKIN)
    clear = [color for color in _ACCENTS if min(math.dist(color, other) for other in (shirt, bottom, skin)) > 95]
    return Outfit(
        skin=_vary(rng, skin, 6),
        hair=_vary(rng, _pick(rng, _HAIR), 6),
        hair_style=_pick_key(rng, _HAIR_STYLES),
        shirt=_vary(rng, shirt, 10),
        shirt_pattern=_pick_key(rng, _SHIRT_PATTERNS),
        trim=trim,
        sleeves=_pick_key(rng, {0.0: 0.1, 0.55: 0.5, 1.0: 0.4}),
        bottom=_vary(rng, bottom, 8),
        bottom_style=_pick_key(rng, _BOTTOM_STYLES),
        shoes=_pick(rng, _SHOES),
        accent=_pick(rng, clear),
    )


def shade(color: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Make an RGB colour darker (factor < 1) or lighter."""
    return tuple(min(255.0, value * factor) for value in color)


def _pick(rng, items):
    return items[rng.integers(len(items))]


def _pick_key(rng, weights):
    return list(weights)[rng.choice(len(weights), p=list(weights.values()))]


def _vary(rng, color, amount):
    return tuple(
        min(max(value + int(delta), 0), 255) for value, delta in zip(color, rng.integers(-amount, amount + 1, 3))
    )
