"""Reading a camera through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial

import cv2
import numpy as np

from dynpose.data.faults import Fault

from .frames import Decoded, FrameSource, Lost

__all__ = ["CameraReader"]


class CameraReader(FrameSource):
    """The frames of a camera of this machine, with the times at which they are taken.

    Args:
        number (int): of the camera, from 0, as OpenCV counts them.
        stride, max_frames: see :class:`~dynpose.video.FrameSource`.

    Raises:
        DatasetError: the camera can't be opened.
    """

    is_live = True
    has_sound = False

    def __init__(self, number: int, stride: int = 1, max_frames: int | None = None):
        super().__init__(f"camera {number}", stride, max_frames)
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise Fault(
                self.name,
                "images",
                "it can't be opened",
                "check its number, that it is connected, that no other program uses it, and that you may read it",
            ).error()
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS) or None

    def decode(self) -> Generator[Decoded | Lost, None, None]:
        """See :class:`~dynpose.video.FrameSource`."""
        start = None
        try:
            while True:
                is_read, image = self._capture.read()
                if not is_read:
                    self.cut_off = f"{self.name} gives no more images"
                    return
                now = time.monotonic()
                start = now if start is None else start
                yield Decoded(now - start, None, partial(np.asarray, image))
        finally:
            self._capture.release()
