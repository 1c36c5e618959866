"""Panels, overlays and captions of the figures that methods draw from their intermediate results.

A method's ``figures.py`` makes :class:`Panel`s from a :class:`Scene` with these helpers, and :func:`arrange` puts them
on one page.

Axes: N people, K keypoints, H x W cells of a map.
Coordinates are continuous pixels, of the network's input or of the image (the picture that is predicted).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from dynpose.data import KeypointSchema
from dynpose.utils.drawing import draw_disc, draw_line, draw_poses
from dynpose.utils.text import draw_text, text_size

from .detections import Detections

__all__ = [
    "COLOR_MAP_NAME",
    "GREEN",
    "ORANGE",
    "Panel",
    "Scene",
    "View",
    "arrange",
    "heatmap_rows",
    "in_rows",
    "paint",
    "panel_size",
    "plot_panel",
]

Color = tuple[int, int, int]
GREEN, ORANGE, WHITE, DARK = (60, 230, 60), (255, 150, 30), (255, 255, 255), (38, 38, 38)
# From dark to bright, of equal perceived steps; its name in matplotlib, and its number in OpenCV
COLOR_MAP_NAME = "inferno"
_COLOR_MAP = cv2.COLORMAP_INFERNO
# Longer side of a panel: by default, and limits for one of a whole map, pixels of the page
SIDE, _MAX_SIDE, _PAGE_WIDTH = 230, 420, 1440
# Least size of a map's cell in a panel, unless the panel would be too large, pixels of the page
_CELL = 4
_MARGIN, _TITLE_SIZE, _CAPTION_SIZE, _MIN_WIDTH = 8, 13, 14, 560
# Least width of a panel with its title, and most lines of the title
_MIN_PANEL, _MAX_TITLE_LINES = 100, 3


class Panel(NamedTuple):
    """A part of a page."""

    title: str
    """Wrapped to the width of the panel."""
    image: np.ndarray
    """(h, w, 3) uint8 RGB."""


@dataclass(frozen=True)
class Scene:
    """What figures are drawn from: an image, the people found in it, and the model's intermediate results.

    Attributes:
        image (ndarray): (h, w, 3) uint8 RGB.
        name (str): of its file.
        schema (KeypointSchema): the K keypoints.
        people (Detections): N people of the image, by descending score, in pixels of the network's input; on the CPU.
        to_image (ndarray): (2, 3), from pixels of the network's input to those of the image.
        values (Mapping[str, list[Tensor]]): of :func:`~dynpose.utils.intermediate.collect_intermediates`, on the CPU.
        model (nn.Module): of the method, that has given them.
        person (int): position of the chosen one in ``people``; unused if there are none.
        score_threshold (float): figures of several people show those with at least this score, and the chosen one.
    """

    image: np.ndarray
    name: str
    schema: KeypointSchema
    people: Detections
    to_image: np.ndarray
    values: Mapping[str, list[Tensor]]
    model: Any
    person: int = 0
    score_threshold: float = 0.3

    def value(self, name: str) -> Tensor:
        """The values of a name, joined along their first axis."""
        return torch.cat(self.values[name])

    @cached_property
    def shown(self) -> list[int]:
        """Positions of the people that figures of several people show, by descending score."""
        passed = (self.people.scores >= self.score_threshold).tolist()
        return [row for row, good in enumerate(passed) if good or row == self.person]

    def first(self, limit: int) -> list[int]:
        """Positions of at most ``limit`` of the people ``shown``: the first ones, and always the chosen one."""
        rows = self.shown[:limit]
        return rows if self.person in rows or not self.shown else [*rows[:-1], self.person]

    def selection(self, rows: Sequence[int]) -> str:
        """Say which of the people are drawn, in a sentence.

        Args:
            rows: positions of those, of ``shown`` or ``first``.
        """
        scores = self.people.scores
        passed = (scores >= self.score_threshold).tolist()
        first = [row for row in rows if passed[row] and (row != self.person or row < len(rows))]
        reasons = []
        if first:
            with_score = f"with a score of at least {self.score_threshold:g}"
            left_out = len(first) < sum(passed) and f"the first {len(first)} of the {sum(passed)} "
            reasons.append(f"{left_out or 'those '}{with_score}")
        if len(first) < len(rows):
            reasons.append(f"person {self.person + 1}, who is chosen")
        people = "person" if len(scores) == 1 else "people"
        drawn = f"{len(rows)} of {len(scores)} {people} {'is' if len(rows) == 1 else 'are'} drawn"
        return f"{drawn}: {', and '.join(reasons)}." if rows else ""

    def caption(self, source: str, text: str, *, of_person: bool = True) -> str:
        """Compose a caption: method, section and figure of the paper; what is seen; the image and the person.

        Args:
            source: such as "FCPose, section 3.1".
            text: sentences that say what is seen.
            of_person: whether the figure shows the chosen person.
        """
        words = [f"{source}.", text, f"Image: {self.name}"]
        if of_person:
            score = float(self.people.scores[self.person])
            words[-1] += f", person {self.person + 1} of {len(self.people.scores)} by score ({score:.2f})"
        return " ".join(words) + "."

    def on_image(self, points: Tensor | np.ndarray) -> np.ndarray:
        """Map points (..., 2) of the network's input to the image."""
        return np.asarray(points, dtype=np.float64) @ self.to_image[:, :2].T + self.to_image[:, 2]

    def around_person(self, row: int) -> np.ndarray:
        """The square (4,) around a person's box and keypoints, pixels of the image."""
        corners = self.people.boxes[row].reshape(2, 2)
        return self.around(torch.cat([corners, self.people.keypoints[row, :, :2]]))

    def around(
        self, points: Tensor, margin: float = 0.1, least_ratio: float = 1.0, least_side: float = 16.0
    ) -> np.ndarray:
        """The rectangle (4,) around points, pixels of the image.

        Args:
            points: (n, 2) of the network's input. Those far outside of the image are taken as nearer.
            margin: on each side, relative to the length of the longer side.
            least_ratio: least ratio of the shorter to the longer side; 1 = a square.
            least_side: least length of a side, pixels of the image.
        """
        size = np.array(self.image.shape[1::-1])
        near = np.clip(self.on_image(points), -size / 4, size * 5 / 4)
        low, high = near.min(axis=0), near.max(axis=0)
        half = (high - low) / 2 + margin * (high - low).max()
        half = np.maximum(half, max(least_side / 2, least_ratio * half.max()))
        center = (low + high) / 2
        return np.concatenate([center - half, center + half])

    def poses(self, rows: Sequence[int], boxes: Tensor | None = None, keypoints: Tensor | None = None) -> np.ndarray:
        """Draw people on the image, which is enlarged if it is small.

        Args:
            rows: positions in ``people``.
            boxes: (n, 4) instead of their boxes, pixels of the network's input.
            keypoints: (n, K, 3) instead of their keypoints.
        """
        boxes = self.people.boxes[list(rows)] if boxes is None else boxes
        keypoints = self.people.keypoints[list(rows)] if keypoints is None else keypoints
        people = Instances(self.image.shape[:2])
        people.pred_boxes = Boxes(torch.from_numpy(self.on_image(boxes.reshape(-1, 2, 2))).reshape(-1, 4).float())
        people.scores = self.people.scores[list(rows)]
        people.pred_classes = self.people.classes[list(rows)]
        points = torch.from_numpy(self.on_image(keypoints[..., :2])).float()
        people.pred_keypoints = torch.cat([points, keypoints[..., 2:].float()], dim=2)
        # scores of keypoints differ in scale between methods: draw all
        return draw_poses(self.image, people, self.schema, score_threshold=-math.inf, keypoint_threshold=-math.inf)


class View:
    """A part of the image in the size of a panel, to draw on.

    Args:
        scene: the image and its coordinates.
        box: (4,) the part, pixels of the image; it may reach outside. None = the whole image.
        side: length of the longer side, pixels of the panel.
        picture: (h', w', 3) drawn instead of the image, which it shows at another scale.

    Attributes:
        canvas (ndarray): (h, w, 3) uint8 RGB.
    """

    def __init__(
        self, scene: Scene, box: np.ndarray | None = None, side: int = SIDE, picture: np.ndarray | None = None
    ):
        self._scene = scene
        picture = scene.image if picture is None else picture
        factor = np.array(picture.shape[1::-1]) / scene.image.shape[1::-1]
        box = np.array([0, 0, *scene.image.shape[1::-1]]) if box is None else np.asarray(box)
        low = np.floor(box[:2] * factor).astype(int)
        high = np.maximum(np.ceil(box[2:] * factor).astype(int), low + 1)
        size = np.maximum(np.rint((high - low) * side / (high - low).max()).astype(int), 1)
        shrinks = (size < high - low).all()
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        self.canvas = cv2.resize(_crop(picture, low, high), tuple(size.tolist()), interpolation=interpolation)
        scale = size / (high - low)
        # from the network's input to the canvas, as a (3, 3) matrix
        of_image = np.diag([*(factor * scale), 1.0])
        of_image[:2, 2] = -low * scale
        self._matrix = of_image @ np.vstack([scene.to_image, [0, 0, 1]])

    def at(self, points: Tensor | np.ndarray) -> np.ndarray:
        """Map points (..., 2) of the network's input to the canvas."""
        return np.asarray(points, dtype=np.float64) @ self._matrix[:2, :2].T + self._matrix[:2, 2]

    def heat(self, values: Tensor | np.ndarray, grid: Sequence[float], highest: float | None = None) -> View:
        """Lay a map over the image, which turns grey: bright where it is high.

        Args:
            values: (H, W), at least 0.
            grid: stride of the map and x and y of its first cell's centre, pixels of the network's input.
            highest: the value of the brightest colour; None = that of the map.
        """
        stride, center = grid
        cells = np.array([[stride, 0, center], [0, stride, center], [0, 0, 1]])
        self.canvas = paint(self.canvas, self._resized(values, self._matrix @ cells, highest))
        return self

    def heat_in_box(self, values: Tensor | np.ndarray, box: Tensor | np.ndarray) -> View:
        """Lay a map (H, W) over a box (4,) of the network's input; outside, the image is grey."""
        box = np.asarray(box, dtype=np.float64)
        steps = (box[2:] - box[:2]) / values.shape[::-1]
        cells = np.array([[steps[0], 0, box[0] + steps[0] / 2], [0, steps[1], box[1] + steps[1] / 2], [0, 0, 1]])
        resized = self._resized(values, self._matrix @ cells, None)
        # a pixel belongs to the box if its centre does
        (x0, y0), (x1, y1) = np.rint(self.at(box.reshape(2, 2))).astype(int).clip(0)
        inside = np.zeros_like(resized)
        inside[y0:y1, x0:x1] = resized[y0:y1, x0:x1]
        self.canvas = paint(self.canvas, inside)
        return self

    def _resized(self, values, to_canvas, highest):
        """A map on the pixels of the canvas, in units of the highest value; ``to_canvas`` maps cells to pixels."""
        values = np.asarray(values, dtype=np.float32)
        highest = float(values.max()) if highest is None else highest
        scaled = values / highest if highest > 0 else np.zeros_like(values)
        # OpenCV's coordinates are pixel indices
        from_canvas = np.linalg.inv(np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]]) @ to_canvas)[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = self.canvas.shape[1::-1]
        return cv2.warpAffine(scaled, from_canvas, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def cross(self, point: Tensor | np.ndarray, color: Color = WHITE) -> View:
        """Mark a point with a cross."""
        center = self.at(point)
        # both outlines first, as the second would cut the first line
        for tone, width, arm in ((DARK, 3, 5.0), (color, 1, 4.0)):
            for step in (np.array([arm, arm]), np.array([arm, -arm])):
                draw_line(self.canvas, center - step, center + step, tone, width)
        return self

    def crosshair(self, point: Tensor | np.ndarray, color: Color = GREEN) -> View:
        """Mark a point with four lines around it, which leave what is there visible."""
        center = self.at(point)
        for tone, width, near, far in ((DARK, 3, 6.0, 12.0), (color, 1, 7.0, 11.0)):
            for direction in np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]):
                draw_line(self.canvas, center + near * direction, center + far * direction, tone, width)
        return self

    def dot(self, point: Tensor | np.ndarray, color: Color = GREEN, radius: float = 2.0) -> View:
        """Mark a point with a disc."""
        draw_disc(self.canvas, self.at(point), DARK, radius + 1.2)
        draw_disc(self.canvas, self.at(point), color, radius)
        return self

    def arrow(self, start: Tensor | np.ndarray, end: Tensor | np.ndarray, color: Color = GREEN) -> View:
        """Draw an arrow between two points."""
        tail, head = self.at(start), self.at(end)
        direction = head - tail
        length = float(np.linalg.norm(direction))
        draw_line(self.canvas, tail, head, color, 1)
        if length > 3:
            along = direction / length * min(5.0, length / 2)
            across = np.array([-along[1], along[0]]) * 0.5
            for side in (across, -across):
                draw_line(self.canvas, head, head - along + side, color, 1)
        return self

    def circle(self, center: Tensor | np.ndarray, radius: float, color: Color = WHITE) -> View:
        """Draw a dotted circle; the radius is in pixels of the network's input."""
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        around = np.asarray(center) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for point in self.at(around):
            draw_disc(self.canvas, point, color, 1.0)
        return self

    def box(self, corners: Tensor | np.ndarray, color: Color = WHITE) -> View:
        """Draw a box (4,) of the network's input."""
        x0, y0, x1, y1 = np.asarray(corners).tolist()
        outline = self.at(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]))
        for start, end in zip(outline[:-1], outline[1:]):
            draw_line(self.canvas, start, end, color, 1)
        return self


def panel_size(scene: Scene, stride: float) -> tuple[int, int]:
    """The size of panels that show a map over the whole image.

    Args:
        scene: of the image.
        stride: of the map, pixels of the network's input.

    Returns:
        The longer side of a panel, pixels, so that cells are visible; and the number of panels in a row.
    """
    height, width = scene.image.shape[:2]
    input_pixels = max(height, width) / float(np.linalg.norm(scene.to_image[:, 0]))
    side = int(np.clip(_CELL * input_pixels / stride, SIDE, _MAX_SIDE))
    panel_width = max(_MIN_PANEL, round(side * width / max(height, width)))
    return side, max(1, _PAGE_WIDTH // (panel_width + _MARGIN))


def paint(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Paint values over the grey of an image.

    Args:
        image: (h, w, 3) uint8 RGB.
        values: (h, w), from 0 = the image to 1 = the brightest colour.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    values = np.clip(np.nan_to_num(values), 0, 1)
    colors = cv2.applyColorMap(np.rint(255 * values).astype(np.uint8), _COLOR_MAP)[..., ::-1]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * 0.6
    # low values stay visible on a dark image, and the image under high ones
    weight = 0.85 * np.sqrt(values)[..., None]
    return np.rint(grey * (1 - weight) + colors * weight).astype(np.uint8)


def heatmap_rows(scene: Scene, maps: Tensor, grid: Sequence[float]) -> list[Sequence[Panel]]:
    """The chosen person's pose and heatmaps, in rows for :func:`arrange`.

    Args:
        scene: of the image.
        maps: (K, H, W), at least 0.
        grid: of :meth:`View.heat`.
    """
    side, columns = panel_size(scene, grid[0])
    panels = [Panel("the person's pose", View(scene, side=side, picture=scene.poses([scene.person])).canvas)]
    for name, values, keypoint in zip(scene.schema.names, maps, scene.people.keypoints[scene.person]):
        view = View(scene, side=side).heat(values, grid).crosshair(keypoint[:2])
        panels.append(Panel(f"{name}, highest {float(values.max()):.2g}", view.canvas))
    return in_rows(panels, columns)


def plot_panel(title: str, figure: Any) -> Panel:
    """Render a matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Panel(title, np.asarray(canvas.buffer_rgba())[..., :3].copy())


def in_rows(panels: Sequence[Panel], columns: int) -> list[Sequence[Panel]]:
    """Divide panels into rows of ``columns`` each, for :func:`arrange`."""
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def arrange(rows: Sequence[Sequence[Panel]], caption: str, scale: tuple[str, str] | None = None) -> np.ndarray:
    """Arrange rows of panels on a page, above a caption.

    Args:
        rows: at least one panel in each.
        caption: wrapped to the width of the page.
        scale: what the darkest and the brightest colour of heatmaps mean, for a legend; None = no legend.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    widths = [sum(_panel_width(panel) + _MARGIN for panel in row) for row in rows]
    width = max(_MIN_WIDTH, *(width + _MARGIN for width in widths))
    line_height = text_size("Ag", _TITLE_SIZE)[1]
    strips = []
    for row in rows:
        titles = [_wrapped(panel.title, _TITLE_SIZE, _panel_width(panel))[:_MAX_TITLE_LINES] for panel in row]
        title_height = line_height * max(len(lines) for lines in titles)
        strip = _blank(title_height + _MARGIN + max(panel.image.shape[0] for panel in row), width)
        x = _MARGIN
        for lines, panel in zip(titles, row):
            # the last line is next to the image
            y = _MARGIN // 2 + title_height - line_height * len(lines)
            for number, line in enumerate(lines):
                draw_text(strip, line, (x, y + number * line_height), _TITLE_SIZE, DARK)
            image = panel.image
            strip[title_height + _MARGIN // 2 :][: image.shape[0], x : x + image.shape[1]] = image
            x += _panel_width(panel) + _MARGIN
        strips.append(strip)
    if scale is not None:
        strips.append(_legend(*scale, width))
    strips.append(_lines(caption, width))
    return np.concatenate(strips)


def _panel_width(panel):
    return max(panel.image.shape[1], _MIN_PANEL)


def _blank(height, width):
    return np.full((height, width, 3), 255, np.uint8)


def _crop(picture, low, high):
    """A part of a picture (h, w, 3); grey outside of it."""
    size = np.array(picture.shape[1::-1])
    before, after = np.maximum(-low, 0), np.maximum(high - size, 0)
    inside = picture[max(0, low[1]) : max(0, high[1]), max(0, low[0]) : max(0, high[0])]
    if inside.size == 0:
        return np.full((*(high - low)[::-1], 3), 128, np.uint8)
    sides = [int(side) for side in (before[1], after[1], before[0], after[0])]
    return cv2.copyMakeBorder(inside, *sides, cv2.BORDER_CONSTANT, value=(128, 128, 128))


def _fitted(text, size, width):
    """A line, cut at its end to a width in pixels."""
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(f"{text}\N{HORIZONTAL ELLIPSIS}", size)[0] > width:
        text = text[:-1]
    return f"{text.rstrip()}\N{HORIZONTAL ELLIPSIS}"


def _legend(low, high, width):
    """A strip (h, width, 3) with the colours of heatmaps between the meanings of the lowest and the highest."""
    height, length = text_size("Ag", _TITLE_SIZE)[1], 160
    strip = _blank(height + _MARGIN, width)
    colors = paint(np.full((height - 4, length, 3), 96, np.uint8), np.tile(np.linspace(0, 1, length), (height - 4, 1)))
    x = _MARGIN
    draw_text(strip, low, (x, _MARGIN // 2), _TITLE_SIZE, DARK)
    x += text_size(low, _TITLE_SIZE)[0] + _MARGIN
    strip[_MARGIN // 2 + 2 :][: height - 4, x : x + length] = colors
    high = _fitted(high, _TITLE_SIZE, width - x - length - 2 * _MARGIN)
    draw_text(strip, high, (x + length + _MARGIN, _MARGIN // 2), _TITLE_SIZE, DARK)
    return strip


def _lines(text, width):
    """A strip (h, width, 3) with a text in as many lines as it needs."""
    lines = _wrapped(text, _CAPTION_SIZE, width - 2 * _MARGIN)
    height = text_size("Ag", _CAPTION_SIZE)[1]
    strip = _blank(height * len(lines) + _MARGIN, width)
    for row, line in enumerate(lines):
        draw_text(strip, line, (_MARGIN, row * height), _CAPTION_SIZE, DARK)
    return strip


def _wrapped(text, size, width):
    """Lines of a text, at most ``width`` pixels long; a longer word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_size(longer, size)[0] > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_fitted(line, size, width) for line in lines]
