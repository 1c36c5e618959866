"""The frames of any moving source, numbered and with their times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .threads import newest

__all__ = ["BrokenFrame", "Decoded", "Frame", "FrameSource", "Lost"]

# For sources that state no rate
_USUAL_RATE = 30.0


@dataclass(frozen=True)
class Frame:
    """A frame as a player shows it: turned upright, with square pixels."""

    index: int
    """Number in the source, from 0."""
    time: float
    """Seconds since the start of the source; increasing."""
    duration: float | None
    """Seconds that it is shown, None if unknown."""
    image: np.ndarray
    """(H, W, 3) uint8, BGR."""


@dataclass(frozen=True)
class BrokenFrame:
    """A frame that can't be decoded."""

    index: int
    time: float
    reason: str


class Decoded(NamedTuple):
    """What a source gives for a frame: the image is made only of the frames that are used."""

    time: float | None
    """None if the source does not state it."""
    duration: float | None
    make_image: Callable[[], np.ndarray]


class Lost(NamedTuple):
    """What a source gives for a frame that can't be decoded."""

    time: float | None
    reason: str


class FrameSource(ABC):
    """Frames of a video, an animation or a camera, in the order of their times. It is read once.

    Args:
        name (str): for messages.
        stride (int): every so many frames, one is used, beginning with the first.
        max_frames (int | None): number of used frames, at which the source ends; None = all.

    Attributes:
        frame_rate (float | None): frames per second, before the stride; the average where it varies.
        num_frames (int | None): in the source, before the stride, as far as its header tells.
        is_live (bool): frames come in real time; those that are not taken in time are dropped, and not counted.
        cut_off (str | None): after reading: how the source ended early.
        is_whole (bool): after reading: whether the end of the source was reached.
        notes (list[str]): what a user should know about the source.

    Raises:
        ValueError: ``stride`` or ``max_frames`` is less than 1.
    """

    is_live = False

    def __init__(self, name: str, stride: int = 1, max_frames: int | None = None):
        if stride < 1 or (max_frames is not None and max_frames < 1):
            raise ValueError(f"stride and max_frames must be at least 1, got {stride} and {max_frames}")
        self.name = name
        self.stride = stride
        self.max_frames = max_frames
        self.frame_rate: float | None = None
        self.num_frames: int | None = None
        self.cut_off: str | None = None
        self.is_whole = False
        self.notes: list[str] = []

    @property
    def expected_frames(self) -> int | None:
        """int | None: number of used frames, as far as the header tells."""
        known = [] if self.num_frames is None else [math.ceil(self.num_frames / self.stride)]
        known += [] if self.max_frames is None else [self.max_frames]
        return min(known, default=None)

    def __iter__(self) -> Generator[Frame | BrokenFrame, None, None]:
        previous, step = -math.inf, 1 / (self.frame_rate or _USUAL_RATE)
        with closing(newest(self.decode()) if self.is_live else self.decode()) as decoded:
            for index, item in enumerate(decoded):
                if self.max_frames is not None and index >= self.stride * self.max_frames:
                    return
                # files that were joined, or cut without their index, have times that go back or are missing
                time = item.time if item.time is not None and item.time > previous else max(0.0, previous + step)
                previous = time
                if index % self.stride:
                    continue
                if isinstance(item, Lost):
                    yield BrokenFrame(index, time, item.reason)
                    continue
                try:
                    frame = Frame(index, time, item.duration, item.make_image())
                except Exception as error:  # converters raise various errors on invalid data
                    yield BrokenFrame(index, time, f"{type(error).__name__}: {error}")
                else:
                    yield frame
        self.is_whole = self.cut_off is None

    @abstractmethod
    def decode(self) -> Generator[Decoded | Lost, None, None]:
        """Decode all frames, in the order of their times.

        Yields:
            Decoded | Lost: every frame of the source.
        """
