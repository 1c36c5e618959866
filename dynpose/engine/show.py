"""A window that shows pictures while they are drawn."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from dynpose.config import ConfigError

__all__ = ["Window"]

_NAME = "dynpose"
_KEYS_TO_STOP = (ord("q"), 27)


class Window:
    """Shows pictures, each until the next one.

    Raises:
        ConfigError: there is no display, or OpenCV is built without windows.
    """

    def __init__(self):
        # without a display, OpenCV's toolkit may end the process
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ConfigError("--show: there is no display (DISPLAY is not set); omit it and look at the result video")
        try:
            cv2.namedWindow(_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise ConfigError(
                "--show: this OpenCV is built without windows; pip uninstall opencv-python-headless, then pip install "
                "opencv-python"
            ) from None

    def show(self, image_rgb: np.ndarray) -> None:
        """Show a picture.

        Args:
            image_rgb (ndarray): (H, W, 3) uint8 RGB.

        Raises:
            KeyboardInterrupt: q or Esc was pressed, or the window was closed.
        """
        cv2.imshow(_NAME, image_rgb[:, :, ::-1])
        if cv2.waitKey(1) & 0xFF in _KEYS_TO_STOP or cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) < 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow(_NAME)
