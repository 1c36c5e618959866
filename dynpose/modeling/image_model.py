"""What models have in common that are not detectron2's DenseDetector: how images get in."""

import torch
from detectron2.structures import ImageList
from torch import nn


class ImageModel(nn.Module):
    """A model on a backbone.

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

    def preprocess_image(self, batched_inputs):
        """Normalise, pad and batch the images: an ImageList."""
        images = [(inputs["image"].to(self.device) - self.pixel_mean) / self.pixel_std for inputs in batched_inputs]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)
