"""Base classes of models whose predictions for an image do not depend on the rest of the batch."""

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from dynpose.config import ConfigError, check_image_format, check_positive
from dynpose.utils.exporting import is_recording

from .batching import predict_by_padded_size
from .detections import Detections, split_detections


class ImageDetector(DenseDetector):
    """detectron2's DenseDetector, with predictions for an image that do not depend on the rest of the batch.

    Subclasses implement :meth:`forward_training` and :meth:`decode`.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Train or predict, see :class:`DenseDetector`."""
        refuse_to_be_traced(self)
        if self.training:
            return super().forward(batched_inputs)
        return predict_by_padded_size(self.predict, batched_inputs, self.backbone.size_divisibility)

    def predict(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict a batch of images of one padded size: one dict with ``instances`` per image."""
        return _predict(self, batched_inputs)

    def detect(self, images: Tensor, image_sizes: Tensor) -> Detections:
        """Detect people, with tensors as input and output: the seam for exporters.

        Args:
            images: (B, 3, H, W), normalised, and padded with zeros to multiples of the backbone's size divisibility.
            image_sizes: (B, 2) int64, height and width before padding, pixels.

        Returns:
            N people of the batch.

        Raises:
            ConfigError: if an exporter records the model and the config has a step that no file supports.
        """
        features = self.backbone(images)
        features = [features[name] for name in self.head_in_features]
        return self.decode(features, self.head(features), image_sizes)

    def decode(self, features: list[Tensor], predictions: Any, image_sizes: Tensor) -> Detections:
        """Compute the detections of a batch from its features and the head's predictions; of subclasses.

        Args:
            features: pyramid levels.
            predictions: of these levels.
            image_sizes: (B, 2) int64, height and width before padding, pixels.
        """
        raise NotImplementedError

    def forward_inference(self, images: ImageList, features: list[Tensor], predictions: Any) -> list[Instances]:
        """Decode the predictions of B padded images to Instances in pixels of the network's input."""
        detections = self.decode(features, predictions, sizes_as_tensor(images))
        return split_detections(detections, images.image_sizes)


class ImageModel(nn.Module):
    """A model with a backbone that is not a DenseDetector.

    Args:
        backbone (Backbone): images are padded to its ``size_divisibility``.
        pixel_mean, pixel_std (Sequence[float]): per image channel.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Train or predict, like any detectron2 model.

        Args:
            batched_inputs (list[dict]): B images in detectron2's format.

        Returns:
            dict[str, Tensor] | list[dict]: losses, or B dicts with ``instances``. Predictions for an image do not
            depend on the others.
        """
        refuse_to_be_traced(self)
        if self.training:
            return self.compute_losses(batched_inputs)
        return predict_by_padded_size(self.predict, batched_inputs, self.backbone.size_divisibility)

    def compute_losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses of a batch; implemented by subclasses."""
        raise NotImplementedError

    def predict(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict a batch of images of one padded size: one dict with ``instances`` per image."""
        return _predict(self, batched_inputs)

    def detect(self, images: Tensor, image_sizes: Tensor) -> Detections:
        """Detect people, with tensors as input and output; implemented by subclasses.

        Args:
            images (Tensor): (B, 3, H, W), normalised and padded with zeros.
            image_sizes (Tensor): (B, 2) int64, height and width before padding, pixels.

        Returns:
            Detections: of the batch.
        """
        raise NotImplementedError

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, pad and batch the images into an ImageList."""
        images = [(inputs["image"].to(self.device) - self.pixel_mean) / self.pixel_std for inputs in batched_inputs]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)


def _predict(model, batched_inputs):
    """Detect the people of images, and rescale them to the original sizes."""
    images = model.preprocess_image(batched_inputs)
    detections = model.detect(images.tensor, sizes_as_tensor(images))
    return at_original_size(split_detections(detections, images.image_sizes), batched_inputs)


def sizes_as_tensor(images: ImageList) -> Tensor:
    """(B, 2) int64, the heights and widths of images before padding."""
    # under tracing, the sizes are tensors
    sizes = [[int(side) for side in size] for size in images.image_sizes]
    return torch.tensor(sizes, device=images.tensor.device)


def at_original_size(people: list[Instances], batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rescale the people of B images to ``height`` and ``width`` of the inputs, as detectron2's models do.

    Args:
        people: one per image, in pixels of the network's input.
        batched_inputs: B dicts.

    Returns:
        B dicts with ``instances``.
    """
    outputs = []
    for inputs, instances in zip(batched_inputs, people):
        height, width = instances.image_size
        resized = detector_postprocess(instances, inputs.get("height", height), inputs.get("width", width))
        outputs.append({"instances": resized})
    return outputs


def pixel_statistics(cfg: CfgNode) -> dict[str, list[float]]:
    """Read mean and standard deviation of the image channels.

    Args:
        cfg (CfgNode): MODEL.PIXEL_MEAN and PIXEL_STD.

    Returns:
        dict[str, list[float]]: ``pixel_mean`` and ``pixel_std``, arguments of the models.

    Raises:
        ConfigError: if their lengths differ, a deviation is not above 0, or INPUT.FORMAT is not a valid choice.
    """
    check_image_format(cfg)
    if len(cfg.MODEL.PIXEL_MEAN) != len(cfg.MODEL.PIXEL_STD):
        raise ConfigError(
            "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD must have a value for each channel of the images, got "
            f"{len(cfg.MODEL.PIXEL_MEAN)} and {len(cfg.MODEL.PIXEL_STD)} values"
        )
    check_positive(cfg, "MODEL.PIXEL_STD")
    return {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}


def refuse_to_be_traced(model: nn.Module) -> None:
    """Refuse torch.jit.trace, torch.export and torch.onnx.export of a model's ``forward``.

    It takes and returns lists of any length, and pads images by their sizes: a trace turns all these into constants of
    the example, and answers for another image without an error. fvcore's analyses also trace, but only count.

    Args:
        model: for the message.

    Raises:
        ConfigError: the model is being traced for another purpose than counting.
    """
    if not is_recording() or _is_counting():
        return
    raise ConfigError(
        f"{type(model).__name__} can't be traced or exported as a whole: its inputs and outputs are lists. Use "
        "`dynpose export`, or export dynpose.export.ExportNetwork(model, max_people)"
    )


def _is_counting():
    """Whether fvcore traces, for FLOPs or activations: its graph is never run."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "fvcore.nn.jit_analysis":
            return True
        frame = frame.f_back
    return False


def reads_to_original(meta_architecture: type) -> bool:
    """Whether a model reads ``to_original`` of its inputs (:func:`~dynpose.data.affine.matrix_to_original`).

    Args:
        meta_architecture (type): the class of the model; its attribute ``reads_to_original`` is True if it does.

    Returns:
        bool
    """
    return getattr(meta_architecture, "reads_to_original", False)


def check_reads_to_original(meta_architecture: type) -> None:
    """Refuse ``INPUT.AFFINE_RESIZE_TEST`` for a model that would treat it as a plain resize.

    Args:
        meta_architecture (type): the class of the model.

    Raises:
        ConfigError: if it does not read ``to_original``, see :func:`reads_to_original`.
    """
    if not reads_to_original(meta_architecture):
        raise ConfigError(
            f"INPUT.AFFINE_RESIZE_TEST is True, but {meta_architecture.__name__} does not support the transform "
            "back to the original image (to_original) that it requires: set it to False"
        )
