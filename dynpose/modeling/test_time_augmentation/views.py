"""The views of an image: copies of several sizes and their mirror images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch

from dynpose.data import AffineResize
from dynpose.data.affine import matrix_to_original
from dynpose.data.image_reading import read_image


@dataclass
class ViewsOfSize:
    """The views of an image that share one size: one batch, without padding.

    Attributes:
        size (tuple[int, int]): (height, width), pixels.
        resize (Transform): from the image to the first view.
        inputs (list[dict]): in detectron2's format: the resized image, then optionally its mirror image.
    """

    size: tuple[int, int]
    resize: T.Transform
    inputs: list[dict[str, Any]]


class ViewMaker:
    """Makes the views of images.

    Args:
        min_sizes (Sequence[int]): lengths of the shorter side, pixels. Duplicate sizes are used once.
        max_size (int): upper limit of the longer side, pixels.
        affine_resize (bool): resize by :class:`~dynpose.data.AffineResize`.
        flip (bool): add the mirror image of every view.
    """

    def __init__(self, min_sizes: Sequence[int], max_size: int, *, affine_resize: bool = False, flip: bool = True):
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.affine_resizes = [AffineResize(size, max_size=max_size) for size in min_sizes] if affine_resize else None
        self.flip = flip

    def resizes(self, height: int, width: int) -> dict[tuple[int, int], T.Transform]:
        """Return the transforms that resize an image to its views.

        Args:
            height, width (int): of the image, pixels.

        Returns:
            dict[tuple[int, int], Transform]: keyed by (height, width) of the result, in the order of ``min_sizes``.

        Raises:
            ValueError: if a side would have no pixels.
        """
        if self.affine_resizes is not None:
            image = np.broadcast_to(np.uint8(0), (height, width))
            warps = [resize.get_transform(image) for resize in self.affine_resizes]
            return {warp.output_size[::-1]: warp for warp in warps}
        shapes = [
            T.ResizeShortestEdge.get_output_shape(height, width, min_size, self.max_size) for min_size in self.min_sizes
        ]
        if min(map(min, shapes)) < 1:
            raise ValueError(f"an image of {width} x {height} pixels is too narrow to be resized to {min(shapes)}")
        return {shape: T.ResizeTransform(height, width, *shape) for shape in shapes}

    def make(self, inputs: dict[str, Any], *, largest_first: bool = False) -> Iterator[ViewsOfSize]:
        """Make the views of an image, one size at a time.

        Args:
            inputs (dict): from :func:`complete_inputs`.
            largest_first (bool): begin with the largest view instead of keeping the order of ``min_sizes``.

        Yields:
            ViewsOfSize

        Raises:
            ValueError: see :meth:`resizes`.
        """
        resizes = list(self.resizes(*inputs["image"].shape[-2:]).items())
        if largest_first:
            resizes.sort(key=lambda item: np.prod(item[0]), reverse=True)
        pixels = _to_array(inputs["image"])
        for size, resize in resizes:
            image = torch.as_tensor(np.ascontiguousarray(resize.apply_image(pixels).transpose(2, 0, 1)))
            views = [{**inputs, "image": image}]
            if self.flip:
                views.append({**inputs, "image": image.flip(-1)})
            to_original = matrix_to_original(T.TransformList([resize]))
            if to_original is not None:
                # the requested size of the result may differ from the image's
                height, width = pixels.shape[:2]
                to_original *= np.array([[inputs["width"] / width], [inputs["height"] / height]])
                matrices = [to_original, _mirror_matrix(to_original, size[1], inputs["width"])]
                views = [{**view, "to_original": matrix} for view, matrix in zip(views, matrices)]
            yield ViewsOfSize(size, resize, views)


def complete_inputs(inputs: dict[str, Any], image_format: str) -> dict[str, Any]:
    """Copy the inputs of an image, with its pixels and sizes but without the training-only entries.

    Args:
        inputs (dict): in detectron2's format, with ``image`` (3, H, W) or ``file_name``.
        image_format (str): "BGR" or "RGB", for a file.

    Returns:
        dict: with ``image``, ``height`` and ``width``.

    Raises:
        ValueError: if it has precomputed ``proposals`` or has been resized by an affine warp.
    """
    inputs = {name: value for name, value in inputs.items() if name != "instances"}
    if "proposals" in inputs:
        raise ValueError(
            "test-time augmentation cannot use precomputed proposals, which are of one view: remove them from "
            "the inputs"
        )
    if "to_original" in inputs:
        raise ValueError(
            "test-time augmentation resizes the original image, but an input has been resized by an affine warp "
            "(to_original): pass the image before the warp"
        )
    if "image" not in inputs:
        image = read_image({"file_name": inputs["file_name"]}, image_format)
        inputs["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = inputs["image"].shape[-2:]
    inputs.setdefault("height", height)
    inputs.setdefault("width", width)
    return inputs


def _to_array(image):
    """(C, H, W) tensor -> (H, W, C) array; uint8 if lossless, so that Pillow resizes it as in the mappers."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if pixels.dtype != np.uint8 and pixels.min() >= 0 and pixels.max() <= 255 and (pixels == np.rint(pixels)).all():
        return pixels.astype(np.uint8)
    return pixels


def _mirror_matrix(matrix, width, result_width):
    """Mirror ``matrix`` (2, 3): the map between mirror images of ``width`` and ``result_width`` pixels."""
    mirror, mirror_result = (np.array([[-1.0, 0, side], [0, 1, 0], [0, 0, 1]]) for side in (width, result_width))
    return (mirror_result @ np.vstack([matrix, [0, 0, 1]]) @ mirror)[:2]
