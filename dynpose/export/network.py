"""The network that is exported: a model from pixels to padded people, tensors in and tensors out.

Axes: B images, H x W pixels of the padded images, P = ``max_people``, N people of the batch, K keypoints.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from dynpose.config import ConfigError
from dynpose.modeling.base_models import ImageModel
from dynpose.modeling.detections import Detections

__all__ = ["INPUTS", "OUTPUTS", "ExportNetwork", "People"]

INPUTS = ("images", "image_sizes")
OUTPUTS = ("boxes", "scores", "classes", "keypoints", "counts")
# A plain tuple, because files of PyTorch can't hold a named one
People = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class ExportNetwork(nn.Module):
    """Normalisation, the model's ``detect`` and padding of its people to a fixed number.

    Args:
        model (nn.Module): in eval mode, with ``detect(images, image_sizes) -> Detections``, ``pixel_mean`` and
            ``pixel_std``.
        max_people (int): P. Of more people in an image, those with the highest scores are kept.
        flip (bool): pass ``flip=True`` to ``detect``: the model averages each image with its mirror image.

    Raises:
        ConfigError: the model has no ``detect``, or ``flip`` is True and ``detect`` has no argument of that name.
        ValueError: ``max_people`` is below 1.

    Example::

        >>> network = ExportNetwork(model, max_people=100)
        >>> boxes, scores, classes, keypoints, counts = network(torch.zeros(1, 3, 64, 96), torch.tensor([[60, 90]]))
        >>> keypoints.shape
        torch.Size([1, 100, 17, 3])
    """

    model: Any

    def __init__(self, model: nn.Module, max_people: int, flip: bool = False):
        super().__init__()
        if max_people < 1:
            raise ValueError(f"max_people must be at least 1, got {max_people}")
        _check_detect(model, flip)
        self.model = model
        self.max_people = max_people
        self.flip = flip

    def forward(self, images: Tensor, image_sizes: Tensor) -> People:
        """Detect the people of a batch.

        Args:
            images: (B, C, H, W) float32, pixel values from 0 to 255, channels in the order of the config's
                INPUT.FORMAT, padded at the right and bottom by any values. H and W are multiples of the backbone's size
                divisibility.
            image_sizes: (B, 2) int64, height and width of each image before padding.

        Returns:
            For each image its people by descending score, and rows of zeros: boxes (B, P, 4) XYXY and keypoints
            (B, P, K, 3) in pixels of the unpadded images, the third value a confidence; scores (B, P), classes (B, P)
            int64, and their number, counts (B,) int64.
        """
        normalised = (images - self.model.pixel_mean) / self.model.pixel_std
        inside = _inside(image_sizes, images.shape[-2], images.shape[-1])
        normalised = torch.where(inside, normalised, torch.zeros_like(normalised))
        options = {"flip": True} if self.flip else {}
        return _padded(self.model.detect(normalised, image_sizes, **options), image_sizes.shape[0], self.max_people)


def _check_detect(model, flip):
    name = type(model).__name__
    if getattr(type(model), "detect", ImageModel.detect) is ImageModel.detect:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {name!r} can't be exported: it has no method detect(images, image_sizes) that "
            "returns dynpose.modeling.detections.Detections"
        )
    if flip and "flip" not in inspect.signature(model.detect).parameters:
        raise ConfigError(f"--flip: MODEL.META_ARCHITECTURE {name!r} has no test-time flip in its detect; leave it out")


def _inside(image_sizes, height, width):
    """(B, 1, H, W) bool: the pixels that are not padding."""
    sizes = image_sizes[:, :, None, None]
    rows = torch.arange(height, device=image_sizes.device)[:, None] < sizes[:, :1]
    columns = torch.arange(width, device=image_sizes.device)[None] < sizes[:, 1:]
    return rows & columns


def _padded(detections: Detections, num_images, max_people):
    """Rows of each image, gathered from the flat rows after a row of zeros.

    A gather runs in every runtime; a scatter to no rows does not.
    """
    images = torch.arange(num_images, device=detections.image.device)
    found = (detections.image[None] == images[:, None]).sum(dim=1)
    first = found.cumsum(dim=0) - found
    counts = torch.minimum(found, torch.full_like(found, max_people))
    rank = torch.arange(max_people, device=found.device)[None]
    row = torch.where(rank < counts[:, None], first[:, None] + rank + 1, torch.zeros_like(rank))

    def rows_of(values):
        zeros = torch.zeros((1, *values.shape[1:]), dtype=values.dtype, device=values.device)
        return torch.cat([zeros, values])[row]

    return (
        rows_of(detections.boxes),
        rows_of(detections.scores),
        rows_of(detections.classes),
        rows_of(detections.keypoints),
        counts,
    )
