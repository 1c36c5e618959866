"""Distortions of pixel values: against Pillow and formulas, in either order of the channels, from one seed."""

import colorsys
import io
import math

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from dynpose.data import RandomBlur, RandomColor, RandomJPEG, RandomNoise

IMAGE = np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8)
ONLY = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def distorted(augmentation, image=IMAGE, seed=0):
    np.random.seed(seed)
    return augmentation.get_transform(image).apply_image(image)


def factor_of(seed, place, amount):
    """The factor that RandomColor draws: one number for the probability, then one for each change."""
    np.random.seed(seed)
    np.random.random()
    return 1 + amount * [np.random.uniform(-1, 1) for _ in range(4)][place]


@pytest.mark.parametrize(
    ("change", "place", "enhance"),
    [("brightness", 0, "Brightness"), ("contrast", 1, "Contrast"), ("saturation", 2, "Color")],
)
def test_colours_are_pillows(change, place, enhance):
    """Pillow's ImageEnhance has the same definitions, on RGB images."""
    augmentation = RandomColor(**{**ONLY, change: 0.8}, image_format="RGB")
    for seed in range(3):
        factor = factor_of(seed, place, 0.8)
        expected = np.asarray(getattr(ImageEnhance, enhance)(Image.fromarray(IMAGE)).enhance(factor))
        # torchvision rounds the grey value of a pixel differently
        assert np.abs(distorted(augmentation, seed=seed).astype(int) - expected).max() <= 2


def test_hue_turns_the_colour_circle():
    augmentation = RandomColor(**{**ONLY, "hue": 0.5}, image_format="RGB")
    shift = factor_of(1, 3, 0.5) - 1
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    expected = 255 * np.array(colorsys.hsv_to_rgb(shift % 1, 1, 1))
    assert np.abs(distorted(augmentation, red, seed=1) - expected).max() <= 2


@pytest.mark.parametrize("build", [RandomColor, RandomJPEG])
def test_the_order_of_the_channels_changes_nothing(build):
    bgr = distorted(build(image_format="BGR"), np.ascontiguousarray(IMAGE[:, :, ::-1]))
    assert np.array_equal(bgr[:, :, ::-1], distorted(build(image_format="RGB")))


def test_blur_is_scipys():
    augmentation = RandomBlur(sigma=(1.5, 1.5))
    expected = gaussian_filter(IMAGE.astype(float), (1.5, 1.5, 0), mode="mirror", truncate=4)
    assert np.abs(distorted(augmentation) - expected).max() < 3  # OpenCV's kernel is shorter
    assert distorted(augmentation, IMAGE[:1, :2]).shape == (1, 2, 3)


def test_noise_has_its_standard_deviation():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = distorted(RandomNoise(std=(7, 7)), grey) - 128.0
    assert noise.std() == pytest.approx(7, rel=0.02)
    assert abs(noise.mean()) < 0.1
    assert distorted(RandomNoise(std=(7, 7)), np.zeros((9, 9, 3), np.uint8)).max() < 60  # clipped, not wrapped


def test_jpeg_is_that_of_its_quality():
    smooth = np.asarray(Image.fromarray(IMAGE).resize((96, 72), Image.Resampling.BICUBIC))
    errors = {}
    for quality in (5, 95):
        augmentation = RandomJPEG(quality=(quality, quality), image_format="RGB")
        file = io.BytesIO()
        Image.fromarray(smooth).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(int)
        result = distorted(augmentation, smooth)
        assert np.abs(result - expected).mean() < 2  # two decoders of libjpeg
        errors[quality] = np.abs(result.astype(int) - smooth).mean()
    assert errors[5] > 3 * errors[95]


@pytest.mark.parametrize("augmentation", [RandomColor(), RandomBlur(), RandomNoise(), RandomJPEG()], ids=repr)
def test_a_transform_is_drawn_once_and_changes_pixels_only(augmentation):
    np.random.seed(3)
    transform = augmentation.get_transform(IMAGE)
    first = transform.apply_image(IMAGE)
    np.random.seed(4)
    assert np.array_equal(first, transform.apply_image(IMAGE))
    assert not np.array_equal(first, IMAGE)
    assert (first.dtype, first.shape) == (IMAGE.dtype, IMAGE.shape)
    assert not np.array_equal(first, distorted(augmentation, seed=5))
    points, mask = np.array([[3.0, 4.0]]), np.eye(24, 32, dtype=np.uint8)
    assert np.array_equal(transform.apply_coords(points), points)
    assert np.array_equal(transform.apply_segmentation(mask), mask)


def test_the_probability_is_a_share():
    augmentation = RandomNoise(probability=0.25)
    np.random.seed(0)
    changed = sum(isinstance(augmentation.get_transform(IMAGE), T.ColorTransform) for _ in range(400))
    assert 65 <= changed <= 135  # 4 standard deviations


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomColor(hue=0.6), "hue must be from 0 to 0.5"),
        (lambda: RandomColor(contrast=-0.1), "contrast must be from 0 to 1"),
        (lambda: RandomColor(image_format="L"), "image_format: expected one of 'BGR', 'RGB'"),
        (lambda: RandomBlur((2, 1)), "sigma must be two numbers"),
        (lambda: RandomNoise((-1, 1)), "std must be two numbers at least 0"),
        (lambda: RandomJPEG((0, 50)), "quality must be two numbers from 1 to 100"),
        (lambda: RandomJPEG((10, 50.5)), "quality must be whole numbers"),
        (lambda: RandomJPEG((True, 50)), "quality must be whole numbers"),
        # these would fail at an image of the training
        (lambda: RandomBlur((1, math.inf)), "sigma must be two numbers at least 0.001"),
        (lambda: RandomNoise((0, math.inf)), "std must be two numbers at least 0"),
        (lambda: RandomNoise(5), "std must be two numbers at least 0, the smaller one first, got 5"),
        (lambda: RandomNoise("12"), "std must be two numbers"),
        (lambda: RandomColor(probability=math.nan), "probability must be from 0 to 1, got nan"),
        (lambda: RandomBlur(probability=2), "probability must be from 0 to 1, got 2"),
        (lambda: RandomNoise(probability=-0.1), "probability must be from 0 to 1"),
        (lambda: RandomJPEG(probability=1.5), "probability must be from 0 to 1"),
    ],
)
def test_invalid_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
