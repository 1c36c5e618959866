"""Resizing an image to a network's input by Pillow and OpenCV alone, pixel for pixel as with PyTorch and detectron2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

__all__ = ["AffineCanvas", "ShortestEdge"]


class ShortestEdge(NamedTuple):
    """detectron2's ``ResizeShortestEdge`` for inference, with a shorter side of at least one pixel."""

    min_size: int
    """Length of the shorter side, pixels; 0 = images keep their size."""
    max_size: int
    """Maximum length of the longer side; the image is then smaller."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the resized image, pixels."""
        if self.min_size == 0:
            return height, width
        scale = self.min_size / min(height, width)
        if height < width:
            new_height, new_width = float(self.min_size), scale * width
        else:
            new_height, new_width = scale * height, float(self.min_size)
        if max(new_height, new_width) > self.max_size:
            scale = self.max_size * 1.0 / max(new_height, new_width)
            new_height, new_width = new_height * scale, new_width * scale
        return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, None]:
        """Resize an image.

        Args:
            image (ndarray): (H, W, 3) uint8.

        Returns:
            tuple: (h, w, 3) uint8, and None, as the sizes determine the way back.
        """
        height, width = self.output_size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image, None
        # Pillow copies a view of reversed channels pixel by pixel
        reversed_channels = image.strides[2] < 0
        pixels = np.ascontiguousarray(image[:, :, ::-1] if reversed_channels else image)
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        return resized[:, :, ::-1] if reversed_channels else resized, None


class AffineCanvas(NamedTuple):
    """The resize onto a canvas of :class:`~dynpose.data.AffineResize`."""

    min_size: int
    """Length of the shorter side, pixels; rounded up to a multiple."""
    max_size: int | None
    """Maximum length of the longer side, pixels; None = no limit."""
    multiple: int
    """Both sides are multiples of this."""

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Warp an image.

        Args:
            image (ndarray): (H, W, 3) uint8.

        Returns:
            tuple: (h, w, 3) uint8, and the matrix (2, 3) float64 from its continuous pixels to those of the image.
        """
        import cv2

        from dynpose.data.affine_matrix import canvas_warp, matrix_of, warped_image

        height, width = image.shape[:2]
        matrix, output_size = canvas_warp(height, width, self.min_size, self.multiple, self.max_size)
        # composed from points, as for the transforms of the PyTorch model: the same rounding
        composed = matrix_of(lambda points: points @ matrix[:, :2].T + matrix[:, 2])
        return warped_image(image, matrix, output_size), cv2.invertAffineTransform(composed)
