"""Affine warps as detectron2 augmentations: CID's random warp for training, and its resize for testing.

A warp is a matrix (2, 3), [A | b], which maps the point p = (x, y) to A p + b. It uses one of two coordinate
conventions, and every function here states which:

- pixel indices: the centre of the first pixel is 0. Used by OpenCV, COCO's keypoints and the released CID.
- continuous pixels: the centre of the first pixel is 0.5. Used by detectron2 and the rest of dynpose.

Sizes are (width, height), in the order of points.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from dynpose.utils.arguments import check_one_of

from .affine_matrix import (
    SCALE_UNIT,
    affine_matrix,
    affine_matrix_to,
    canvas_warp,
    index_to_continuous,
    matrix_of,
    warped_image,
)

__all__ = [
    "AffineResize",
    "AffineTransform",
    "RandomAffine",
    "affine_matrix",
    "affine_matrix_to",
    "composed_matrix",
    "index_to_continuous",
    "matrix_to_original",
]

# The image side that a scale of 1 of RandomAffine refers to
SCALE_TYPES = ("short", "long")


class AffineTransform(Transform):
    """Warps an image and its annotations by one matrix.

    Boxes become the boxes around their four warped corners, as in every detectron2 transform.

    Args:
        matrix (ndarray): (2, 3), from continuous pixels of the image to continuous pixels of the output.
        input_size (tuple[int, int]): (width, height) of the image.
        output_size (tuple[int, int]): (width, height) of the output.
        fill (float | Sequence[float]): colour of the output outside the image: one number, or one for each of up to
            four channels.

    Raises:
        ValueError: the matrix is not (2, 3) and finite, is singular, or mirrors the image. Left and right keypoints
            have to be swapped in a mirrored image, which detectron2 does for ``HFlipTransform`` alone.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        input_size: tuple[int, int],
        output_size: tuple[int, int],
        fill: float | Sequence[float] = 0,
    ):
        super().__init__()
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
            raise ValueError(f"an affine matrix has 2 x 3 finite numbers, got {matrix.tolist()}")
        if np.linalg.det(matrix[:, :2]) <= 0:
            raise ValueError(f"the affine matrix {matrix.tolist()} mirrors or flattens the image: mirror by RandomFlip")
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Warp an image with linear interpolation.

        Args:
            img (ndarray): (H, W) or (H, W, C) with C <= 4; uint8 or floating point.

        Returns:
            ndarray: (h, w) or (h, w, C) of the same type.
        """
        fill = np.broadcast_to(self.fill, 4) if np.ndim(self.fill) == 0 else self.fill
        return self._warp(img, cv2.INTER_LINEAR, tuple(map(float, fill)))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Warp points.

        Args:
            coords (ndarray): (N, 2), continuous pixels of the image; they may lie outside it.

        Returns:
            ndarray: (N, 2) float64, continuous pixels of the output.
        """
        return np.asarray(coords, dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Warp a mask or a label map.

        A mask, of type bool or of uint8 with values 0 and 1 only, is interpolated linearly and thresholded at one half.
        Other labels are those of the nearest pixel. Values outside the image are 0.

        Args:
            segmentation (ndarray): (H, W), bool or integers.

        Returns:
            ndarray: (h, w) of the same type.
        """
        dtype = segmentation.dtype
        if dtype.kind == "b" or (dtype == np.uint8 and segmentation.max(initial=0) <= 1):
            warped = self._warp(segmentation.astype(np.uint8) * 255, cv2.INTER_LINEAR)
            return (warped > 127).astype(dtype)
        # float64 holds labels of the types that OpenCV lacks
        return self._warp(segmentation.astype(np.float64), cv2.INTER_NEAREST).astype(dtype)

    def inverse(self) -> "AffineTransform":
        """The inverse warp, from an image of ``output_size`` to one of ``input_size``."""
        return AffineTransform(cv2.invertAffineTransform(self.matrix), self.output_size, self.input_size, self.fill)

    def _warp(self, img, interpolation, fill=(0.0,) * 4):
        width, height = self.input_size
        if img.shape[:2] != (height, width):
            raise ValueError(
                f"the transform is for images of {width} x {height} pixels, got one of {img.shape[1]} x {img.shape[0]}"
            )
        return warped_image(img, self.matrix, self.output_size, interpolation, fill)


class RandomAffine(T.Augmentation):
    """Rotate, scale and shift at random, onto a canvas of fixed size (CID section 4.2).

    With the defaults this is the release's augmentation and gives the same warps for the same state of ``np.random``.
    Mirroring is left to ``T.RandomFlip``, which follows and swaps the left and right keypoints.

    Args:
        size (int | tuple[int, int]): width and height of the output, pixels; one number is a square.
        rotation (float): drawn between plus and minus this, degrees.
        scale (tuple[float, float]): range of the size of the visible region, relative to the image side of
            ``scale_type``: 2 zooms out to half size.
        translation (float): maximum shift of the centre in x and in y, in 200ths of the visible side; drawn in whole
            pixels.
        scale_type (str): at scale 1 the output's shorter side shows the image's "short" side, cropping the other, or
            its "long" one, with margins.
        fill (float | Sequence[float]): see :class:`AffineTransform`.

    Raises:
        ValueError: an argument is out of its range.

    Example::

        >>> augmentations = [RandomAffine(512), T.RandomFlip()]
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 512,
        *,
        rotation: float = 30.0,
        scale: tuple[float, float] = (0.75, 1.5),
        translation: float = 40.0,
        scale_type: str = "short",
        fill: float | Sequence[float] = 0,
    ):
        super().__init__()
        size = tuple(np.broadcast_to(size, 2).tolist())
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"size: expected one or two whole numbers of pixels, width and height, got {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: expected a range of positive factors, the smaller one first, got {scale}")
        if rotation < 0 or translation < 0:
            raise ValueError(f"rotation and translation can't be negative, got {rotation} and {translation}")
        check_one_of("scale_type", scale_type, SCALE_TYPES)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> AffineTransform:
        """Draw a warp for an image (H, W) or (H, W, C).

        Returns:
            AffineTransform
        """
        height, width = image.shape[:2]
        side = min(width, height) if self.scale_type == "short" else max(width, height)
        low, high = self.scale
        scale = side / SCALE_UNIT * (low + np.random.random() * (high - low))
        rotation = (2 * np.random.random() - 1) * self.rotation
        limit = int(self.translation * scale)
        translation = [np.random.randint(-limit, limit) if limit else 0 for _ in "xy"]
        matrix = affine_matrix((width / 2, height / 2), scale, rotation, translation, self.size)
        return AffineTransform(index_to_continuous(matrix), (width, height), self.size, self.fill)


class AffineResize(T.Augmentation):
    """Resize onto a canvas whose sides are multiples of a number, with equal margins around the image (CID's test).

    The image's shorter side fills the canvas. The longer one, in whole pixels, is padded to the next multiple, half of
    the margin on either side. (A fraction of a pixel beyond a multiple is cut, as in the release.)

    Args:
        size (int): length of the shorter side, pixels; rounded up to a multiple.
        multiple (int): both sides are multiples of this.
        max_size (int | None): maximum length of the longer side. If the canvas would be longer, the image is scaled
            down to fit the largest multiple below it, and then has margins along its shorter side. The release has no
            limit (None).

    Raises:
        ValueError: an argument is not positive, or ``max_size`` is below ``multiple``.
    """

    def __init__(self, size: int, multiple: int = 64, max_size: int | None = None):
        super().__init__()
        if min(size, multiple) < 1:
            raise ValueError(f"size and multiple must be positive, got {size} and {multiple}")
        if max_size is not None and max_size < multiple:
            raise ValueError(f"max_size ({max_size}) must be at least multiple ({multiple})")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> AffineTransform:
        """The warp for an image (H, W) or (H, W, C).

        Returns:
            AffineTransform
        """
        height, width = image.shape[:2]
        matrix, output_size = canvas_warp(height, width, self.size, self.multiple, self.max_size)
        return AffineTransform(matrix, (width, height), output_size)


def composed_matrix(transforms: T.TransformList) -> np.ndarray:
    """The composition of affine transforms (flips, crops, resizes, warps).

    Args:
        transforms (TransformList): from an image to the augmented image.

    Returns:
        ndarray: (2, 3) float64, from continuous pixels to continuous pixels.
    """
    return matrix_of(transforms.apply_coords)


def matrix_to_original(transforms: T.TransformList) -> np.ndarray | None:
    """The warp back to the original image, if the image sizes do not determine it.

    Args:
        transforms (TransformList): from the original image to the network's input.

    Returns:
        ndarray | None: (2, 3) float64, from continuous pixels of the network's input to those of the original image;
        None without an :class:`AffineTransform`, as a factor for x and one for y are then sufficient.
    """
    if not any(isinstance(transform, AffineTransform) for transform in transforms.transforms):
        return None
    return cv2.invertAffineTransform(composed_matrix(transforms))
