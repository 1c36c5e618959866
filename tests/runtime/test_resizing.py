"""Resizing without PyTorch, pixel for pixel against detectron2's and dynpose's augmentations."""

import detectron2.data.transforms as T
import numpy as np
import pytest

from dynpose.data.affine import AffineResize, matrix_to_original
from dynpose.runtime.resizing import AffineCanvas, ShortestEdge

# (height, width)
SIZES = [(48, 64), (64, 48), (50, 50), (37, 211), (333, 97), (61, 60), (64, 100)]


def photo(size):
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limits", [(64, 100), (33, 1333), (0, 1333)], ids=str)
def test_the_shortest_edge_is_detectron2s(size, limits):
    image = photo(size)
    aug_input = T.AugInput(image)
    T.ResizeShortestEdge(limits[0], limits[1])(aug_input)
    for pixels, expected in ((image, aug_input.image), (image[:, :, ::-1], aug_input.image[:, :, ::-1])):
        resized, to_original = ShortestEdge(*limits)(pixels)
        assert to_original is None
        np.testing.assert_array_equal(resized, expected)


def test_a_narrow_image_keeps_a_pixel():
    """Where detectron2 raises an error: 4 x 12000 pixels become 0.44 x 1333."""
    resized, _ = ShortestEdge(800, 1333)(photo((4, 12000)))
    assert resized.shape == (1, 1333, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_size", [None, 192], ids=str)
def test_the_affine_canvas_is_dynposes(size, max_size):
    image = photo(size)
    aug_input = T.AugInput(image)
    transforms = T.AugmentationList([AffineResize(100, max_size=max_size)])(aug_input)
    resized, to_original = AffineCanvas(100, max_size, 64)(image)
    np.testing.assert_array_equal(resized, aug_input.image)
    np.testing.assert_array_equal(to_original, matrix_to_original(transforms))
