"""Batching of images such that the padding of an image does not depend on the rest of the batch.

detectron2 pads the images of a batch at the right and bottom to one size. The padding affects a network's output:
biases and normalisation make it nonzero after the first layers, convolutions spread it across the edge of the image,
and GroupNorm's mean and variance include it. In inference, only images whose individually padded sizes are equal share
a batch, so that the padding of an image is the same as without the others.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from dynpose.utils import padding

Result = TypeVar("Result")


def predict_by_padded_size(
    predict: Callable[[list[dict[str, Any]]], list[Result]],
    batched_inputs: list[dict[str, Any]],
    size_divisibility: int,
) -> list[Result]:
    """Run a model on one batch per padded size.

    Args:
        predict (callable): list[dict] -> list with one result per image.
        batched_inputs (list[dict]): B images in detectron2's format.
        size_divisibility (int): sides are padded to a multiple of it; 0 or 1 = no padding.

    Returns:
        list: B results, in the order of the inputs.
    """
    if len(batched_inputs) < 2:
        return predict(batched_inputs)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, inputs in enumerate(batched_inputs):
        groups.setdefault(padded_size(inputs["image"], size_divisibility), []).append(index)
    results: dict[int, Result] = {}
    for indices in groups.values():
        results.update(zip(indices, predict([batched_inputs[index] for index in indices])))
    return [results[index] for index in range(len(batched_inputs))]


def padded_size(image: Tensor, size_divisibility: int) -> tuple[int, int]:
    """Return the size of an individually padded image.

    Args:
        image (Tensor): (C, H, W).
        size_divisibility (int): see :func:`predict_by_padded_size`.

    Returns:
        tuple[int, int]: height and width, pixels.
    """
    height, width = image.shape[-2:]
    return padding.padded_size(height, width, size_divisibility)
