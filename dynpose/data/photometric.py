"""Augmentation of pixel values: colours, blur, noise and JPEG compression. Coordinates and masks stay unchanged.

Random numbers come from ``numpy.random``, as in detectron2's augmentations, and are drawn when the transform is made: a
transform gives the same result for the same image.

Images are (H, W, 3) uint8.
"""

import functools
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from dynpose.utils.arguments import check_one_of

__all__ = ["RandomBlur", "RandomColor", "RandomJPEG", "RandomNoise"]

IMAGE_FORMATS = ("BGR", "RGB")


class RandomColor(T.Augmentation):
    """Change brightness, contrast, saturation and hue, in random order (the photometric distortion of SSD).

    torchvision computes the changes, as in its ``ColorJitter``. detectron2 has no change of hue, and its
    ``RandomSaturation`` treats the channels of a BGR image as RGB.

    Args:
        brightness, contrast, saturation (float): the factor is drawn between 1 - this and 1 + this; from 0 to 1.
        hue (float): the shift is drawn between minus and plus this, as a fraction of the colour circle; from 0 to 0.5.
        probability (float): of a change.
        image_format (str): order of the channels, "BGR" or "RGB".

    Raises:
        ValueError: an argument is out of its range.

    Example::

        >>> image = RandomColor(hue=0.05)(T.AugInput(image)).apply_image(image)
    """

    def __init__(
        self,
        brightness: float = 0.25,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.05,
        probability: float = 1.0,
        image_format: str = "BGR",
    ):
        super().__init__()
        _check_probability(probability)
        for name, value, limit in (
            ("brightness", brightness, 1),
            ("contrast", contrast, 1),
            ("saturation", saturation, 1),
            ("hue", hue, 0.5),
        ):
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must be from 0 to {limit}, got {value}")
        check_one_of("image_format", image_format, IMAGE_FORMATS)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the changes for an image.

        Returns:
            Transform
        """
        if np.random.random() >= self.probability:
            return NoOpTransform()
        # importing it takes a second, for PyTorch's compiler
        from torchvision.transforms.v2 import functional as F

        changes = [
            (F.adjust_brightness, 1 + self.brightness * np.random.uniform(-1, 1)),
            (F.adjust_contrast, 1 + self.contrast * np.random.uniform(-1, 1)),
            (F.adjust_saturation, 1 + self.saturation * np.random.uniform(-1, 1)),
            (F.adjust_hue, self.hue * np.random.uniform(-1, 1)),
        ]
        ordered = [changes[index] for index in np.random.permutation(len(changes))]
        return T.ColorTransform(functools.partial(_change_colors, changes=ordered, image_format=self.image_format))


class RandomBlur(T.Augmentation):
    """Blur with a Gaussian.

    Args:
        sigma (tuple[float, float]): range of its standard deviation, pixels.
        probability (float): of a blur.

    Raises:
        ValueError: the range is empty or not above 0, or the probability is not from 0 to 1.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), probability: float = 1.0):
        super().__init__()
        _check_probability(probability)
        _check_range("sigma", sigma, minimum=1e-3)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a blur for an image.

        Returns:
            Transform
        """
        if np.random.random() >= self.probability:
            return NoOpTransform()
        sigma = np.random.uniform(*self.sigma)
        return T.ColorTransform(functools.partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=sigma, sigmaY=sigma))


class RandomNoise(T.Augmentation):
    """Add Gaussian noise, independent for each pixel and channel.

    Args:
        std (tuple[float, float]): range of its standard deviation, grey levels of 0 to 255.
        probability (float): of noise.

    Raises:
        ValueError: the range is empty or below 0, or the probability is not from 0 to 1.
    """

    def __init__(self, std: Sequence[float] = (2.0, 10.0), probability: float = 1.0):
        super().__init__()
        _check_probability(probability)
        _check_range("std", std, minimum=0)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the noise of an image.

        Returns:
            Transform
        """
        if np.random.random() >= self.probability:
            return NoOpTransform()
        std, seed = np.random.uniform(*self.std), np.random.randint(2**31)
        return T.ColorTransform(functools.partial(_add_noise, std=std, seed=seed))


class RandomJPEG(T.Augmentation):
    """Compress as JPEG and decompress.

    Args:
        quality (tuple[int, int]): range of the quality, from 1 to 100.
        probability (float): of a compression.
        image_format (str): order of the channels, "BGR" or "RGB".

    Raises:
        ValueError: the range is empty or not within 1 to 100, or the probability is not from 0 to 1.
    """

    def __init__(self, quality: Sequence[int] = (30, 95), probability: float = 1.0, image_format: str = "BGR"):
        super().__init__()
        _check_probability(probability)
        _check_range("quality", quality, minimum=1, maximum=100)
        if not all(type(number) is int for number in quality):
            raise ValueError(f"quality must be whole numbers, got {list(quality)}")
        check_one_of("image_format", image_format, IMAGE_FORMATS)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the quality for an image.

        Returns:
            Transform
        """
        if np.random.random() >= self.probability:
            return NoOpTransform()
        low, high = self.quality
        quality = np.random.randint(low, high + 1)
        return T.ColorTransform(functools.partial(_compress, quality=quality, image_format=self.image_format))


def _change_colors(
    image: np.ndarray, changes: list[tuple[Callable[[torch.Tensor, float], torch.Tensor], float]], image_format: str
) -> np.ndarray:
    # torchvision's images are RGB, channels first
    pixels = torch.from_numpy(np.ascontiguousarray(_swapped(image, image_format == "BGR").transpose(2, 0, 1)))
    for change, amount in changes:
        pixels = change(pixels, amount)
    return np.ascontiguousarray(_swapped(pixels.numpy().transpose(1, 2, 0), image_format == "BGR"))


def _add_noise(image, std, seed):
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image + np.float32(std) * noise), 0, 255).astype(np.uint8)


def _compress(image, quality, image_format):
    # OpenCV's images are BGR
    pixels = np.ascontiguousarray(_swapped(image, image_format == "RGB"))
    _, encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    return np.ascontiguousarray(_swapped(cv2.imdecode(encoded, cv2.IMREAD_COLOR), image_format == "RGB"))


def _swapped(image, swap):
    return image[:, :, ::-1] if swap else image


def _check_range(name, values, minimum, maximum=math.inf):
    is_pair = not isinstance(values, str) and hasattr(values, "__len__") and len(values) == 2
    if not is_pair or not minimum <= values[0] <= values[1] <= maximum or not math.isfinite(values[1]):
        limit = f"at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} must be two numbers {limit}, the smaller one first, got {values}")


def _check_probability(probability):
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be from 0 to 1, got {probability}")
