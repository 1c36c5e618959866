"""The predictions of a run, as the writers of all formats take them, and what they share.

An entry holds the results of an image or of a frame of a video, see
:meth:`~dynpose.engine.prediction_record.PredictionRecord.add_image`: ``file_name``, ``width``, ``height`` and
``instances``. Those of a video also have ``frame`` and ``time`` (seconds), and people may have a ``track_id``.
Coordinates are COCO's: keypoints are pixel indices, boxes XYWH from the image's corner.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.sax.saxutils import quoteattr

from dynpose.utils.atomic import atomic_open

__all__ = [
    "Keypoint",
    "Results",
    "Tally",
    "clipped_box",
    "frame_name",
    "json_text",
    "text_file",
    "write_json_list",
    "xml_attribute",
]

# Keypoints are COCO's indices, in which the centre of the first pixel is 0; other tools start at the corner
_CORNER = 0.5
# Characters that XML 1.0 can't hold
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Keypoint(NamedTuple):
    """A keypoint in pixels from the image's corner."""

    x: float
    y: float
    is_shown: bool
    """Whether its confidence reaches the threshold and it is inside the image"""


@dataclass(frozen=True)
class Results:
    """The predictions of a run.

    Args:
        keypoint_names (tuple[str]): K names.
        skeleton (tuple[tuple[int, int]]): limbs as 0-based keypoint indices.
        flip_pairs (tuple[tuple[str, str]]): keypoints that change places in a mirrored image.
        category_names (tuple[str]): of the classes; () = unknown.
        entries (Callable[[], Iterable[dict]]): called for each pass over the entries, in the order of the inputs; all
            entries of a video are neighbours.
        find_image (Callable[[str], Path | str | None]): the file, or the URL, of an image by its ``file_name``.
        score_threshold (float): formats that are corrected by hand or trained on omit people with a lower score.
        keypoint_threshold (float): in these formats, keypoints with a lower confidence are not labelled.
        annotations (str | None): a COCO-format file that gives the ids of images and categories.
    """

    keypoint_names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[str, str], ...]
    category_names: tuple[str, ...]
    entries: Callable[[], Iterable[dict[str, Any]]]
    find_image: Callable[[str], Path | str | None] = lambda name: None
    score_threshold: float = 0.3
    keypoint_threshold: float = 0.02
    annotations: str | None = None

    def class_name(self, index: int) -> str:
        """Name of a class; ``class_<index>`` if unknown."""
        return self.category_names[index] if index < len(self.category_names) else f"class_{index}"

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes. If they are unknown, those of the predictions, which are read for it."""
        if self.category_names:
            return self.category_names
        people = (person for entry in self.entries() for person in entry["instances"])
        return tuple(self.class_name(index) for index in range(max((p["category"] for p in people), default=0) + 1))

    def shown_people(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """The people of an entry whose score reaches the threshold."""
        return [person for person in entry["instances"] if person["score"] >= self.score_threshold]

    def keypoints_from_corner(self, entry: dict[str, Any], person: dict[str, Any]) -> list[Keypoint]:
        """The K keypoints of a person for tools whose coordinates start at the image's corner.

        Points outside the image are moved to its edge and not shown, as these tools refuse or clip them.
        """
        width, height = entry["width"], entry["height"]
        points = []
        for x, y, confidence in person["keypoints"]:
            x, y = x + _CORNER, y + _CORNER
            is_inside = 0 <= x <= width and 0 <= y <= height
            is_shown = is_inside and confidence >= self.keypoint_threshold
            points.append(Keypoint(min(max(x, 0.0), width), min(max(y, 0.0), height), is_shown))
        return points


class Tally:
    """Counts items that a file leaves out, and keeps the first names.

    Args:
        what (str): the end of the line for the user, after the number.
    """

    def __init__(self, what: str):
        self.what = what
        self.number = 0
        self._examples: list[str] = []

    def add(self, name: str) -> None:
        """Count an item."""
        self.number += 1
        if len(self._examples) < 3:
            self._examples.append(name)

    def lines(self) -> list[str]:
        """The line for the user; [] without items."""
        if not self.number:
            return []
        more = ", ..." if self.number > len(self._examples) else ""
        return [f"{self.number} {self.what} ({', '.join(self._examples)}{more})"]


def frame_name(entry: dict[str, Any]) -> str:
    """The name of an image, or of a frame of a video as ``<video>#<frame>``."""
    return f"{entry['file_name']}#{entry['frame']}" if "frame" in entry else entry["file_name"]


def clipped_box(entry: dict[str, Any], person: dict[str, Any]) -> tuple[float, float, float, float]:
    """The part of a person's box inside the image, as XYXY pixels from its corner."""
    x, y, width, height = person["bbox"]
    limits = entry["width"], entry["height"]
    x0, x1 = (min(max(value, 0.0), limits[0]) for value in (x, x + width))
    y0, y1 = (min(max(value, 0.0), limits[1]) for value in (y, y + height))
    return x0, y0, x1, y1


@contextmanager
def text_file(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file for atomic writing. Bytes of a file name that are not UTF-8 are escaped."""
    with atomic_open(path, "wb") as raw:
        text = io.TextIOWrapper(raw, "utf-8", errors="backslashreplace", newline="")
        try:
            yield text
        finally:
            # flushes, and leaves closing to atomic_open
            text.detach()


def json_text(value: Any) -> str:
    """Strict JSON on one line."""
    return json.dumps(value, allow_nan=False)


def xml_attribute(text: str) -> str:
    """The value of an attribute in XML, in quotes, with U+FFFD for characters that XML can't hold."""
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def write_json_list(file: IO[str], items: Iterable[Any]) -> int:
    """Write a JSON list, an item per line; return the number of items."""
    number = 0
    file.write("[")
    for number, item in enumerate(items, 1):
        file.write(("\n" if number == 1 else ",\n") + json_text(item))
    file.write("\n]")
    return number
