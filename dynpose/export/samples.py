"""Images for the check of an exported file: of several sizes and numbers of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dynpose.data.synthetic import SyntheticPose

__all__ = ["Sample", "check_samples"]

# Height and width in shorter sides of the config, and people of the rendered images. The sides are no multiples of a
# stride. One image is three times as large as the config's, one has no people.
_RENDERED = (
    ((1.0, 1.3), (1, 1)),
    ((1.41, 1.0), (7, 7)),
    ((1.0, 1.72), (40, 60)),
    ((0.63, 0.71), (2, 3)),
    ((3.0, 3.4), (7, 12)),
)
_EMPTY = (1.0, 1.0)
# Of the shorter side, for images of the user
_SCALES = (1.0, 0.63, 3.0)
_LEAST_SIDE = 64
_GREY = 114


@dataclass(frozen=True)
class Sample:
    """A network input of the check.

    Attributes:
        name: for messages.
        images: (1, 3, H, W) float32, 0 to 255, padded with zeros.
        image_sizes: (1, 2) int64, height and width before padding.
    """

    name: str
    images: Tensor
    image_sizes: Tensor

    @classmethod
    def of(cls, name: str, pixels: np.ndarray, divisibility: int) -> Sample:
        """Pad an image.

        Args:
            name: see the class.
            pixels: (h, w, 3) uint8 in the channel order of the network.
            divisibility: H and W become multiples of it, at least twice as large.
        """
        height, width = pixels.shape[:2]
        padded = [max(2, -(-side // divisibility)) * divisibility for side in (height, width)]
        images = torch.zeros((1, 3, *padded))
        images[0, :, :height, :width] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return cls(f"{name}, {height} x {width}", images, torch.tensor([[height, width]]))

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """``images`` and ``image_sizes``."""
        return self.images, self.image_sizes

    def batch(self, number: int) -> Sample:
        """The same image ``number`` times."""
        if number == 1:
            return self
        images, image_sizes = self.images.repeat(number, 1, 1, 1), self.image_sizes.repeat(number, 1)
        return Sample(f"{self.name}, a batch of {number}", images, image_sizes)


def check_samples(images: Sequence[np.ndarray], *, min_size: int, divisibility: int, channels: str) -> list[Sample]:
    """Make the samples of a check.

    Args:
        images: (h, w, 3) uint8 BGR, each used at the config's size, at 0.63 and three times its size; () = synthetic
            people, 0 to 60 of them.
        min_size: shorter side of the config's images, pixels; 0 = 256.
        divisibility: of the network's input.
        channels: "BGR" or "RGB", the network's.

    Returns:
        Samples of one image each; the first has people.
    """
    side = max(_LEAST_SIDE, min_size or 256)
    named = _of_user(images, side) if images else _rendered(side)
    if channels == "RGB":
        named = [(name, pixels[:, :, ::-1]) for name, pixels in named]
    return [Sample.of(name, pixels, divisibility) for name, pixels in named]


def _rendered(side):
    made = []
    for index, ((height, width), people) in enumerate(_RENDERED):
        size = (int(height * side), int(width * side))
        # rendering takes seconds at thousands of pixels; enlarging shows the same people
        drawn = (size[0] // 3, size[1] // 3) if height >= 3 else size
        scene = SyntheticPose(
            seed=17, image_size=drawn, people=people, scale=(0.2, 0.6) if people[1] > 3 else (0.5, 0.8)
        )
        pixels, _ = scene.render(index)
        if drawn != size:
            pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
        made.append(("synthetic people", pixels[:, :, ::-1]))
    empty = np.full((int(_EMPTY[0] * side), int(_EMPTY[1] * side), 3), _GREY, dtype=np.uint8)
    return [*made, ("an empty image", empty)]


def _of_user(images, side):
    made = []
    for index, pixels in enumerate(images):
        # every image at the config's size, and the first at all sizes
        for scale in _SCALES if index == 0 else _SCALES[:1]:
            factor = scale * side / min(pixels.shape[:2])
            size = [max(_LEAST_SIDE, round(length * factor)) for length in pixels.shape[1::-1]]
            made.append((f"image {index + 1}", cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)))
    return made
