"""Augmentation for pose: detectron2's, and a crop that keeps at least one person.

Coordinates are continuous pixels throughout.
"""

from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from PIL import Image
from torch.nn import functional

from dynpose.config import (
    ConfigError,
    blame,
    check_at_least_one,
    check_choice,
    check_from_0_to_1,
    check_not_negative,
    check_positive,
)

from .affine import SCALE_TYPES, AffineResize, RandomAffine
from .person_regions import HalfBody, PersonAffine, PersonCrop, PersonRegion, upper_body
from .photometric import IMAGE_FORMATS, RandomBlur, RandomColor, RandomJPEG, RandomNoise
from .schema_config import schema_from_cfg

__all__ = ["RandomCropKeepingPeople", "ResizeShortestEdge", "build_pose_augmentation"]


class ResizeShortestEdge(T.ResizeShortestEdge):
    """detectron2's ``ResizeShortestEdge``, with a shorter side of at least one pixel.

    detectron2's raises an error for an image of 4 x 12000 pixels and a ``max_size`` of 1333.

    Args:
        *args, **kwargs: of detectron2's.
        exact (bool): resize colour images by Pillow, as detectron2 does. False = by PyTorch's kernel of that filter,
            in a third of the time on CPUs with AVX2; values differ by at most one grey level, less than 1 % of them.
    """

    def __init__(self, *args: Any, exact: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.exact = exact

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The resize for an image (H, W) or (H, W, C).

        Returns:
            Transform
        """
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            size = max(1, transform.new_h), max(1, transform.new_w)
            kind = T.ResizeTransform if self.exact else _QuickResizeTransform
            return kind(transform.h, transform.w, *size, transform.interp)
        return transform


class _QuickResizeTransform(T.ResizeTransform):
    """detectron2's, with PyTorch's kernel for colour images."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image (H, W) or (H, W, C)."""
        is_color = img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3
        if not is_color or (self.interp if interp is None else interp) != Image.Resampling.BILINEAR:
            return super().apply_image(img, interp)
        pixels = torch.from_numpy(_contiguous(img)).permute(2, 0, 1)[None]
        size = self.new_h, self.new_w
        resized = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        # channels first in memory, as the mapper's output
        return resized[0].permute(1, 2, 0).numpy()


def _contiguous(image):
    """A writable copy of a colour image, in one piece of memory."""
    swapped = image[:, :, ::-1]
    if swapped.flags.c_contiguous:
        # detectron2 reads BGR images as views of RGB ones, which NumPy copies thirty times as slowly as OpenCV
        return cv2.cvtColor(swapped, cv2.COLOR_RGB2BGR)
    return np.array(image, order="C")


class RandomCropKeepingPeople(T.RandomCrop):
    """detectron2's ``RandomCrop``, placed so that it contains the centre of a randomly drawn box.

    The size of the crop is drawn as in ``RandomCrop``, its position uniformly among those that contain the centre.
    Without boxes (``AugInput.boxes`` is None or empty) it is ``RandomCrop``.

    Args:
        crop_type (str): "relative_range" (a fraction of height and of width, drawn between ``crop_size`` and 1),
            "relative", "absolute" or "absolute_range".
        crop_size (tuple[float, float]): see ``RandomCrop``.

    Example::

        >>> crop = RandomCropKeepingPeople("relative_range", (0.4, 0.4))
        >>> aug_input = T.AugInput(image, boxes=boxes)  # (H, W, C) and (N, 4), XYXY
        >>> transform = crop(aug_input)
    """

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the size of a crop, at least one pixel, of an image of ``image_size``: both (height, width)."""
        height, width = super().get_crop_size(image_size)
        return max(1, height), max(1, width)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> T.CropTransform:
        """Draw a crop.

        Args:
            image (ndarray): (H, W) or (H, W, C).
            boxes (ndarray | None): (N, 4), XYXY; the crop keeps the centre of one of them.

        Returns:
            CropTransform
        """
        height, width = image.shape[:2]
        centers = _centers_in_image(boxes, height, width)
        if len(centers) == 0:
            return super().get_transform(image)
        crop_height, crop_width = self.get_crop_size((height, width))
        x, y = centers[np.random.randint(len(centers))]
        x0, y0 = _draw_start(x, crop_width, width), _draw_start(y, crop_height, height)
        return T.CropTransform(x0, y0, crop_width, crop_height)


def build_pose_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Build the augmentation of ``cfg.INPUT``: crop (training), resize of the shortest edge, flip (training).

    With ``INPUT.CROP_AFTER_RESIZE``, training uses the crop of DETR, Sparse R-CNN and QueryPose (its section 4.1):
    flip; with probability ``INPUT.CROP_PROBABILITY`` a resize of the shortest edge to one of ``INPUT.CROP_MIN_SIZES``
    and the crop; resize of the shortest edge.

    With ``INPUT.AFFINE.ENABLED``, a random affine warp replaces crop and resize in training; with
    ``INPUT.AFFINE_RESIZE_TEST``, an affine resize replaces the resize at inference.

    With ``INPUT.HALF_BODY`` and ``INPUT.BOX_JITTER``, some training images show the region around one person: the
    random affine warp shows it instead of the image; without that warp, the image is first cropped to it. The
    distortions of ``INPUT.COLOR``, ``BLUR``, ``NOISE`` and ``JPEG`` are last in training.

    Args:
        cfg (CfgNode): ``INPUT.CROP``, ``INPUT.MIN_SIZE_*``, ``INPUT.MAX_SIZE_*`` and ``INPUT.RANDOM_FLIP`` have their
            meaning in detectron2, including a ``MIN_SIZE_TEST`` of 0 (the image is not resized).
        is_train (bool): False builds the resize alone.

    Returns:
        list[Augmentation]

    Raises:
        ConfigError: ``INPUT.RANDOM_FLIP`` is "vertical", or a used key is not one of its choices or out of its range.
    """
    if is_train and cfg.INPUT.RANDOM_FLIP not in ("horizontal", "vertical", "none"):
        raise ConfigError(f"INPUT.RANDOM_FLIP must be 'horizontal' or 'none', got {cfg.INPUT.RANDOM_FLIP!r}")
    if is_train and cfg.INPUT.RANDOM_FLIP == "vertical":
        # It mirrors too, but detectron2 swaps the left and right keypoints in a horizontal flip only.
        raise ConfigError("INPUT.RANDOM_FLIP 'vertical' does not go with keypoints: set it to 'horizontal' or 'none'")
    if is_train:
        _check_min_sizes(cfg)
    else:
        check_not_negative(cfg, "INPUT.MIN_SIZE_TEST")
        check_at_least_one(cfg, "INPUT.MAX_SIZE_TEST")
    augmentation = [_never_empty(augmentation, is_train) for augmentation in utils.build_augmentation(cfg, is_train)]
    region = _person_region(cfg) if is_train else None
    if is_train and cfg.INPUT.AFFINE.ENABLED:
        affine = _random_affine(cfg)
        augmentation[0] = affine if region is None else PersonAffine(region, affine)
    elif is_train and cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP_AFTER_RESIZE:
        resize, *flip = augmentation
        augmentation = [*flip, _resize_and_crop(cfg), resize]
    elif is_train and cfg.INPUT.CROP.ENABLED:
        augmentation.insert(0, _crop(cfg))
    elif not is_train and cfg.INPUT.AFFINE_RESIZE_TEST and cfg.INPUT.MIN_SIZE_TEST > 0:
        augmentation[0] = _affine_resize(cfg.INPUT)
    if region is not None and not cfg.INPUT.AFFINE.ENABLED:
        augmentation.insert(0, PersonCrop(region))
    return [*augmentation, *_distortions(cfg)] if is_train else augmentation


def _check_min_sizes(cfg):
    """Check the training sizes: detectron2 fails on invalid ones without naming the keys."""
    check_choice(cfg, "INPUT.MIN_SIZE_TRAIN_SAMPLING", ("range", "choice"))
    check_at_least_one(cfg, "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN")
    sizes, sampling = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    if isinstance(sizes, int):
        sizes = (sizes, sizes)  # as detectron2 reads it
    if len(sizes) == 0 or (sampling == "range" and len(sizes) != 2):
        what = "two lengths, the shortest and the longest" if sampling == "range" else "one length or more"
        raise ConfigError(
            f"INPUT.MIN_SIZE_TRAIN must be {what}, got {tuple(sizes)}: INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling!r}"
        )


def _never_empty(augmentation, is_train):
    if type(augmentation) is not T.ResizeShortestEdge:
        return augmentation
    sizes = augmentation.short_edge_length
    return ResizeShortestEdge(
        sizes, augmentation.max_size, augmentation.sample_style, augmentation.interp, exact=not is_train
    )


def _random_affine(cfg):
    affine = cfg.INPUT.AFFINE
    check_not_negative(cfg, "INPUT.AFFINE.ROTATION", "INPUT.AFFINE.TRANSLATION")
    check_choice(cfg, "INPUT.AFFINE.SCALE_TYPE", SCALE_TYPES)
    check_positive(cfg, "INPUT.AFFINE.SCALE")
    check_at_least_one(cfg, "INPUT.AFFINE.SIZE")
    # RandomAffine itself checks the number of values and their order
    with blame("INPUT.AFFINE.SIZE", "INPUT.AFFINE.SCALE"):
        return RandomAffine(
            affine.SIZE,
            rotation=affine.ROTATION,
            scale=affine.SCALE,
            translation=affine.TRANSLATION,
            scale_type=affine.SCALE_TYPE,
        )


def _person_region(cfg):
    """Build the region of ``INPUT.BOX_JITTER`` and ``INPUT.HALF_BODY``; None if both are off."""
    jitter, half_body = cfg.INPUT.BOX_JITTER, cfg.INPUT.HALF_BODY
    check_from_0_to_1(
        cfg,
        "INPUT.BOX_JITTER.PROBABILITY",
        "INPUT.HALF_BODY.PROBABILITY",
        "INPUT.HALF_BODY.UPPER_PROBABILITY",
    )
    if not jitter.PROBABILITY and not half_body.PROBABILITY:
        return None
    check_positive(cfg, "INPUT.BOX_JITTER.SCALE")
    check_not_negative(cfg, "INPUT.BOX_JITTER.SHIFT")
    # PersonRegion itself checks the number of values and their order
    with blame("INPUT.BOX_JITTER.SCALE"):
        return PersonRegion(
            jitter.PROBABILITY, tuple(jitter.SCALE), jitter.SHIFT, _half_body(cfg) if half_body.PROBABILITY else None
        )


def _half_body(cfg):
    keys = cfg.INPUT.HALF_BODY
    check_at_least_one(cfg, "INPUT.HALF_BODY.MIN_KEYPOINTS", "INPUT.HALF_BODY.MARGIN")
    schema = schema_from_cfg(cfg)
    with blame("INPUT.HALF_BODY.UPPER"):
        upper = upper_body(schema, keys.UPPER)
    return HalfBody(upper, keys.PROBABILITY, keys.UPPER_PROBABILITY, keys.MIN_KEYPOINTS, keys.MARGIN)


def _distortions(cfg):
    """Build the augmentations of pixel values that have a probability above 0."""
    keys, image_format = cfg.INPUT, cfg.INPUT.FORMAT
    check_from_0_to_1(cfg, *(f"INPUT.{name}.PROBABILITY" for name in ("COLOR", "BLUR", "NOISE", "JPEG")))
    builders = {
        "COLOR": lambda color: RandomColor(
            color.BRIGHTNESS, color.CONTRAST, color.SATURATION, color.HUE, color.PROBABILITY, image_format
        ),
        "BLUR": lambda blur: RandomBlur(tuple(blur.SIGMA), blur.PROBABILITY),
        "NOISE": lambda noise: RandomNoise(tuple(noise.STD), noise.PROBABILITY),
        "JPEG": lambda jpeg: RandomJPEG(tuple(jpeg.QUALITY), jpeg.PROBABILITY, image_format),
    }
    ranges = {"BLUR": ["SIGMA"], "NOISE": ["STD"], "JPEG": ["QUALITY"]}
    built = []
    for name, build in builders.items():
        if keys[name].PROBABILITY > 0:
            amounts = ranges.get(name, ["BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"])
            check_not_negative(cfg, *(f"INPUT.{name}.{amount}" for amount in amounts))
            if image_format not in IMAGE_FORMATS:
                raise ConfigError(
                    f"INPUT.{name}.PROBABILITY is above 0, which needs INPUT.FORMAT 'BGR' or 'RGB', got "
                    f"{image_format!r}: set it to 0"
                )
            with blame(*(f"INPUT.{name}.{amount}" for amount in amounts)):
                built.append(build(keys[name]))
    return built


def _affine_resize(keys):
    with blame("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"):
        return AffineResize(keys.MIN_SIZE_TEST, max_size=keys.MAX_SIZE_TEST)


def _crop(cfg):
    """Build the crop of ``INPUT.CROP``; detectron2 checks its size when it crops, or not at all."""
    crop = cfg.INPUT.CROP
    check_choice(cfg, "INPUT.CROP.TYPE", ("relative", "relative_range", "absolute", "absolute_range"))
    size = list(crop.SIZE)
    if crop.TYPE.startswith("relative"):
        if len(size) != 2 or not all(0 < share <= 1 for share in size):
            raise ConfigError(
                f"INPUT.CROP.SIZE must be two numbers above 0 and up to 1, of height and width, got {size}: with "
                f"INPUT.CROP.TYPE {crop.TYPE!r} they are fractions of the image's"
            )
    elif len(size) != 2 or not all(isinstance(length, int) and length >= 1 for length in size):
        what = "height and width" if crop.TYPE == "absolute" else "the shortest and the longest side"
        raise ConfigError(
            f"INPUT.CROP.SIZE must be two whole numbers of at least 1, {what}, got {size}: with INPUT.CROP.TYPE "
            f"{crop.TYPE!r} they are pixels"
        )
    elif crop.TYPE == "absolute_range" and size[0] > size[1]:
        raise ConfigError(f"INPUT.CROP.SIZE must be the shortest and then the longest side of the crop, got {size}")
    return RandomCropKeepingPeople(crop.TYPE, size)


def _resize_and_crop(cfg):
    """Build the optional resize and crop; as in DETR, this first resize does not limit the longer side."""
    probability, sizes = cfg.INPUT.CROP_PROBABILITY, cfg.INPUT.CROP_MIN_SIZES
    check_from_0_to_1(cfg, "INPUT.CROP_PROBABILITY")
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"INPUT.CROP_MIN_SIZES must be lengths in pixels, one or more, got {list(sizes)}")
    crop = _crop(cfg)
    resize = ResizeShortestEdge(list(sizes), sample_style="choice", exact=False)
    return T.RandomApply(T.AugmentationList([resize, crop]), prob=probability)


def _centers_in_image(boxes, height, width):
    """(M, 2) centres, x and y, of the part of each box inside the image; boxes wholly outside are dropped."""
    if boxes is None or len(boxes) == 0:
        return np.zeros((0, 2))
    boxes = np.clip(np.asarray(boxes, dtype=np.float64), 0, (width, height, width, height))
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _draw_start(center, length, limit):
    """Draw the first pixel of an interval of ``length`` pixels that contains ``center`` and lies in ``[0, limit]``."""
    first = max(0, int(np.ceil(center - length)))
    last = min(limit - length, int(np.floor(center)))
    return np.random.randint(first, last + 1)
