"""Backgrounds for synthetic people: empty rooms and streets of flat, textured shapes."""

import cv2
import numpy as np

# RGB
_WALLS = (
    (228, 218, 198), (206, 216, 216), (192, 206, 190), (224, 198, 180), (172, 188, 204), (236, 232, 224),
    (204, 190, 208), (150, 168, 168), (188, 176, 160), (120, 136, 152),
)  # fmt: skip
_FLOORS = (
    (182, 140, 98), (150, 112, 80), (204, 174, 134), (160, 158, 156), (122, 112, 106), (128, 142, 160), (174, 128, 112),
    (144, 150, 128),
)  # fmt: skip
_GROUNDS = ((118, 156, 86), (158, 158, 156), (212, 192, 152), (134, 170, 106), (176, 160, 140))


def paint_background(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    """Paint a room or an outdoor scene.

    Args:
        rng (Generator): source of randomness.
        height, width (int): size in pixels.
        horizon (float): start of the ground, pixels from the top.

    Returns:
        ndarray: (H, W, 3) RGB uint8.
    """
    image = np.empty((height, width, 3), np.uint8)
    horizon = int(np.clip(horizon, 1, height - 1))
    paint = _paint_room if rng.random() < 0.5 else _paint_outdoors
    paint(rng, image, horizon)
    noise = sum(
        _smooth_noise(rng, height, width, cell * height) * strength for cell, strength in ((0.25, 4), (0.05, 3))
    )
    return cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def _paint_room(rng, image, horizon):
    height, width = image.shape[:2]
    wall = _vary(rng, _WALLS)
    _gradient(image[:horizon], wall, _scale(wall, rng.uniform(0.82, 0.97)))
    style = rng.integers(4)
    if style == 0:
        _stripes(image[:horizon], _scale(wall, 0.93), rng.uniform(0.04, 0.1) * height)
    elif style == 1:
        _grid(image[:horizon], _scale(wall, 0.9), rng.uniform(0.07, 0.14) * height)
    elif style == 2:
        dado = round(horizon * rng.uniform(0.45, 0.7))
        _gradient(image[dado:horizon], _scale(wall, 0.8), _scale(wall, 0.74))
        _rectangle(image, 0, dado, width, dado + max(1, height // 90), _scale(wall, 1.1))
    for _ in range(rng.integers(0, 3)):
        _paint_frame(rng, image, horizon)
    floor = _vary(rng, _FLOORS)
    _gradient(image[horizon:], _scale(floor, 0.9), _scale(floor, 1.08))
    _paint_floor(rng, image, horizon, floor)
    _rectangle(image, 0, horizon - max(1, height // 60), width, horizon, _scale(wall, 1.12))
    for _ in range(rng.integers(0, 4)):
        _paint_furniture(rng, image, horizon)


def _paint_outdoors(rng, image, horizon):
    sky = np.array((150, 190, 226)) + rng.integers(-25, 25, 3)
    _gradient(image[:horizon], sky, np.clip(sky + np.array((60, 42, 18)), 0, 250))
    _paint_clouds(rng, image[:horizon])
    for distance in (0.5, 0.8):
        if rng.random() < 0.6:
            _paint_hills(rng, image, horizon, distance)
    if rng.random() < 0.6:
        _paint_houses(rng, image, horizon)
    for _ in range(rng.integers(0, 5)):
        _paint_tree(rng, image, horizon)
    ground = _vary(rng, _GROUNDS)
    _gradient(image[horizon:], _scale(ground, 1.08), _scale(ground, 0.88))
    if rng.random() < 0.4:
        _paint_floor(rng, image, horizon, ground)
    if rng.random() < 0.35:
        _paint_fence(rng, image, horizon)


def _paint_frame(rng, image, horizon):
    """A picture or a window on the wall."""
    height, width = image.shape[:2]
    w, h = rng.uniform(0.12, 0.3) * width, rng.uniform(0.3, 0.65) * horizon
    x, y = rng.uniform(0, width - w), rng.uniform(0.06, 0.25) * horizon
    border = max(2, round(0.014 * height))
    _rectangle(image, x - border, y - border, x + w + border, y + h + border, _muted(rng, 60, 250, warmth=15))
    inside = image[max(0, int(y)) : int(y + h), int(x) : int(x + w)]
    if not inside.size:
        return
    if rng.random() < 0.5:
        _gradient(inside, (176, 208, 236), (226, 236, 240))
        bar = _muted(rng, 180, 250)
        _rectangle(image, x + w / 2 - border / 2, y, x + w / 2 + border / 2, y + h, bar)
        _rectangle(image, x, y + h / 2 - border / 2, x + w, y + h / 2 + border / 2, bar)
    else:
        _gradient(inside, _muted(rng, 60, 230, tint=40), _muted(rng, 60, 230, tint=40))


def _paint_furniture(rng, image, horizon):
    """A cabinet, a shelf or a plant against the wall."""
    height, width = image.shape[:2]
    base = horizon + rng.uniform(0.01, 0.07) * height
    color = _muted(rng, 70, 210, warmth=22)
    w = rng.uniform(0.12, 0.32) * width
    x = rng.uniform(-0.3 * w, width - 0.7 * w)
    kind = rng.integers(3)
    if kind == 2:
        pot = 0.05 * width
        for _ in range(7):
            tip = (x + rng.uniform(-1.6, 1.6) * pot, base - rng.uniform(3, 5.5) * pot)
            green = np.array((70, 120, 66)) + rng.integers(-20, 24, 3)
            leaf = np.array([[x - 0.25 * pot, base - 1.2 * pot], tip, [x + 0.25 * pot, base - 1.2 * pot]])
            _polygon(image, leaf, green)
        _polygon(image, np.array([[x - 0.7 * pot, base - 1.5 * pot], [x + 0.7 * pot, base - 1.5 * pot],
                                  [x + 0.5 * pot, base], [x - 0.5 * pot, base]]), (168, 104, 76))  # fmt: skip
        return
    h = rng.uniform(0.14, 0.26) * height if kind == 0 else rng.uniform(0.35, 0.6) * height
    depth = 0.025 * height
    top = np.array([[x, base - h], [x + w, base - h], [x + w - depth, base - h - depth], [x + depth, base - h - depth]])
    _polygon(image, top, _scale(color, 1.15))
    _rectangle(image, x, base - h, x + w, base, color)
    gap = max(1, round(0.006 * height))
    columns, rows = (rng.integers(1, 4), 1) if kind == 0 else (1, rng.integers(3, 6))
    for i in range(columns):
        for j in range(rows):
            x0, x1 = x + w * i / columns + 2 * gap, x + w * (i + 1) / columns - 2 * gap
            y0, y1 = base - h + h * j / rows + 2 * gap, base - h + h * (j + 1) / rows - gap
            _rectangle(image, x0, y0, x1, y1, _scale(color, 0.88 if kind == 0 else 0.6))
            if kind == 0:
                _rectangle(image, x1 - 3 * gap, (y0 + y1) / 2 - 2 * gap, x1 - 2 * gap, (y0 + y1) / 2, (228, 222, 206))
                continue
            left = x0
            while left < x1 - 3 * gap:
                book = rng.uniform(2, 5) * gap
                lean = rng.uniform(0.15, 0.45) * (y1 - y0)
                _rectangle(image, left, y0 + lean, min(left + book, x1), y1, _muted(rng, 70, 220, tint=45))
                left += book + rng.uniform(0, 2) * gap


def _paint_floor(rng, image, horizon, color):
    """Joints of planks or tiles that run to a vanishing point."""
    height, width = image.shape[:2]
    style = rng.integers(3)
    line = tuple(_scale(color, 0.82))
    if style != 0:
        vanishing = (rng.uniform(0.2, 0.8) * width, horizon - 0.25 * height)
        for x in np.arange(-1.5, 2.5, rng.uniform(0.1, 0.22)) * width:
            t = (horizon - vanishing[1]) / (height - vanishing[1])
            _line(image, (vanishing[0] + t * (x - vanishing[0]), horizon), (x, height), line)
    if style == 1:
        for k in range(1, 9):
            y = horizon + (height - horizon) * (k / 8) ** 1.8
            _line(image, (0, y), (width, y), line)


def _paint_clouds(rng, sky):
    height, width = sky.shape[:2]
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(0, width), rng.uniform(0.05, 0.6) * height
        size = rng.uniform(0.05, 0.12) * width
        for dx, dy, r in ((-1.0, 0.1, 0.6), (0.0, -0.15, 0.85), (1.0, 0.1, 0.65), (0.4, 0.2, 0.6)):
            center = (round(x + dx * size), round(y + dy * size))
            cv2.ellipse(
                sky, center, (round(r * size), round(0.55 * r * size)), 0, 0, 360, (244, 246, 248), -1, cv2.LINE_AA
            )


def _paint_hills(rng, image, horizon, nearness):
    height, width = image.shape[:2]
    t = np.linspace(0, 1, 40)
    rise = sum(rng.uniform(0.3, 1) * np.sin(2 * np.pi * (f * t + rng.random())) for f in (0.7, 1.6, 3.1))
    crest = horizon - height * (0.12 - 0.05 * nearness + 0.03 * rise)
    color = np.array((150, 176, 190)) * (1 - nearness) + np.array((96, 132, 96)) * nearness
    points = np.concatenate([np.stack([t * width, crest], 1), [[width, horizon], [0, horizon]]])
    cv2.fillPoly(image, [np.round(points).astype(np.int32)], tuple(color), cv2.LINE_AA)


def _paint_houses(rng, image, horizon):
    height, width = image.shape[:2]
    x = rng.uniform(-0.2, 0.1) * width
    while x < width:
        w, h = rng.uniform(0.14, 0.3) * width, rng.uniform(0.45, 1.0) * horizon
        if rng.random() < 0.75:
            color = _muted(rng, 130, 220, warmth=16)
            _rectangle(image, x, horizon - h, x + w, horizon, color)
            if rng.random() < 0.5:
                roof = np.array([[x - 0.02 * width, horizon - h], [x + w + 0.02 * width, horizon - h],
                                 [x + 0.75 * w, horizon - 1.2 * h], [x + 0.25 * w, horizon - 1.2 * h]])  # fmt: skip
                _polygon(image, roof, _muted(rng, 90, 150, warmth=30))
            pane = (110, 132, 152) if rng.random() < 0.7 else (240, 220, 160)
            columns, rows = max(2, int(w / (0.055 * width))), max(2, int(h / (0.1 * height)))
            for i in range(columns):
                for j in range(rows):
                    x0, y0 = x + w * (i + 0.25) / columns, horizon - h + h * (j + 0.25) / rows
                    _rectangle(image, x0, y0, x0 + 0.5 * w / columns, y0 + 0.5 * h / rows, pane)
        x += w * rng.uniform(1.0, 1.3)


def _paint_tree(rng, image, horizon):
    height, width = image.shape[:2]
    x, size = rng.uniform(0, width), rng.uniform(0.07, 0.16) * height
    base = horizon + 0.02 * height
    _rectangle(image, x - 0.12 * size, base - 2 * size, x + 0.12 * size, base, (104, 80, 62))
    green = np.array((84, 128, 72)) + rng.integers(-22, 22, 3)
    for dx, dy, r in ((-0.5, -2.0, 0.8), (0.5, -2.0, 0.8), (0, -2.7, 0.85), (0.1, -2.2, 0.7)):
        center = (round(x + dx * size), round(base + dy * size))
        cv2.circle(image, center, round(r * size), tuple(_scale(green, 1.0 - 0.12 * dx - 0.04 * dy)), -1, cv2.LINE_AA)


def _paint_fence(rng, image, horizon):
    height, width = image.shape[:2]
    top, color = horizon - rng.uniform(0.06, 0.12) * height, _muted(rng, 110, 230, warmth=14)
    step = rng.uniform(0.04, 0.08) * width
    for x in np.arange(0, width + step, step):
        _rectangle(image, x, top, x + 0.35 * step, horizon + 0.02 * height, color)
    for y in (0.3, 0.75):
        level = top + y * (horizon - top)
        _rectangle(image, 0, level, width, level + 0.012 * height, _scale(color, 0.92))


def _smooth_noise(rng, height, width, cell):
    """Noise (H, W) of standard deviation 1 at points about ``cell`` pixels apart, interpolated smoothly."""
    cell = max(2, round(cell))
    coarse = rng.standard_normal((height // cell + 3, width // cell + 3), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _gradient(image, top, bottom):
    """Fill with a vertical gradient, in place."""
    t = np.linspace(0, 1, len(image))[:, None, None]
    image[:] = np.clip((1 - t) * np.asarray(top, float) + t * np.asarray(bottom, float), 0, 255)


def _stripes(image, color, period):
    for x in np.arange(0, image.shape[1], period):
        _rectangle(image, x, 0, x + period / 2, len(image), color)


def _grid(image, color, period):
    height, width = image.shape[:2]
    for x in np.arange(0, width, period):
        _line(image, (x, 0), (x, height), tuple(color))
    for y in np.arange(height, 0, -period / 2):
        _line(image, (0, y), (width, y), tuple(color))


def _rectangle(image, x0, y0, x1, y1, color):
    height, width = image.shape[:2]
    x0, x1 = (min(max(round(x), 0), width) for x in (x0, x1))
    y0, y1 = (min(max(round(y), 0), height) for y in (y0, y1))
    image[y0:y1, x0:x1] = color


def _polygon(image, points, color):
    cv2.fillConvexPoly(image, np.round(points).astype(np.int32), tuple(float(c) for c in color), cv2.LINE_AA)


def _line(image, start, end, color):
    thickness = max(1, len(image) // 300)
    cv2.line(image, *(tuple(round(float(v)) for v in point) for point in (start, end)), color, thickness, cv2.LINE_AA)


def _vary(rng, palette):
    """A colour near one of a palette."""
    return np.clip(palette[rng.integers(len(palette))] + rng.uniform(-10, 10, 3), 0, 255)


def _muted(rng, low, high, tint=14, warmth=0):
    """A greyish colour with a brightness between ``low`` and ``high``."""
    return np.clip(rng.uniform(low, high) + rng.uniform(-tint, tint, 3) + np.array((1, 0.2, -1)) * warmth, 0, 255)


def _scale(color, factor):
    return np.minimum(np.asarray(color, float) * factor, 255)
