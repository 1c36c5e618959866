"""What models have in common: how images get in, and which of them are run together.

detectron2 pads the images of a batch at the right and at the bottom to one size. A network sees that padding: biases
and normalisation make it nonzero after the first layers, convolutions carry it over the edge of the image, and
GroupNorm's mean and variance are those of image and padding together. In inference, only images that have the same
size once they are padded by themselves share a batch. The padding of an image is then the same as without the others.
"""

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList
from torch import nn


class ImageDetector(DenseDetector):
    """detectron2's DenseDetector, but what it predicts for an image does not depend on the others of the batch."""

    def forward(self, batched_inputs):
        """Train or predict, see :class:`DenseDetector`."""
        if self.training:
            return super().forward(batched_inputs)
        return predict_by_padded_size(super().forward, batched_inputs, self.backbone.size_divisibility)


class ImageModel(nn.Module):
    """A model on a backbone that is no DenseDetector.

    Args:
        backbone (Backbone): its ``size_divisibility`` is what images are padded to.
        pixel_mean, pixel_std (Sequence[float]): of the image channels.
    """

    def __init__(self, backbone, *, pixel_mean, pixel_std):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self):
        """Where the model is."""
        return self.pixel_mean.device

    def forward(self, batched_inputs):
        """Train or predict, like any detectron2 model; subclasses have ``compute_losses`` and ``predict``.

        Args:
            batched_inputs (list[dict]): B images in detectron2's format.

        Returns:
            dict[str, Tensor] | list[dict]: losses, or B dicts with ``instances``. What is predicted for an image does
            not depend on the others.
        """
        if self.training:
            return self.compute_losses(batched_inputs)
        return predict_by_padded_size(self.predict, batched_inputs, self.backbone.size_divisibility)

    def preprocess_image(self, batched_inputs):
        """Normalise, pad and batch the images: an ImageList."""
        images = [(inputs["image"].to(self.device) - self.pixel_mean) / self.pixel_std for inputs in batched_inputs]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)


def predict_by_padded_size(predict, batched_inputs, size_divisibility):
    """Run a model on the images of each padded size together, and on those of different ones apart.

    Args:
        predict (callable): list[dict] -> list of one result each.
        batched_inputs (list[dict]): B images in detectron2's format.
        size_divisibility (int): what their sides are padded to a multiple of; 0 or 1 = not at all.

    Returns:
        list: B results, in the order of the inputs.
    """
    if len(batched_inputs) < 2:
        return predict(batched_inputs)
    groups = {}
    for index, inputs in enumerate(batched_inputs):
        groups.setdefault(padded_size(inputs["image"], size_divisibility), []).append(index)
    results = [None] * len(batched_inputs)
    for indices in groups.values():
        for index, result in zip(indices, predict([batched_inputs[index] for index in indices])):
            results[index] = result
    return results


def padded_size(image, size_divisibility):
    """Tell the size of an image that is padded by itself.

    Args:
        image (Tensor): (C, H, W).
        size_divisibility (int): see :func:`predict_by_padded_size`.

    Returns:
        tuple[int, int]: height and width, pixels.
    """
    multiple = max(1, size_divisibility)
    height, width = (-(-int(length) // multiple) * multiple for length in image.shape[-2:])
    return height, width
