"""Injecting a fixed number of detections, so that time, memory and FLOPs can be measured over it.

An untrained model detects nothing and a trained one an unpredictable number, so N detections are injected: they replace
what the network predicts, as early as possible. The whole network still runs, and the injected detections go through
the model's own decoding, its NMS and its keypoint branch. How to inject differs by method, and is a slot of
:class:`dynpose.methods.Method`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from dynpose.config import ConfigError
from dynpose.methods import Method, find_method, registered_methods

# People in photographs are taller than wide.
_HEIGHT_TO_WIDTH = 2.5
_PART_OF_CELL = 0.8


@contextlib.contextmanager
def inject_detections(model: nn.Module, num_people: int, image_size: tuple[int, int]) -> Iterator[None]:
    """Make a model detect exactly N people in every image while the context is entered.

    Args:
        model: a detectron2 model in eval mode.
        num_people: N, possibly 0.
        image_size: height and width of the images, pixels.

    Raises:
        ConfigError: the meta-architecture is not registered as a method, or the people do not fit into the image.

    Example::

        >>> with inject_detections(model, 5, (480, 640)):
        ...     len(model([{"image": torch.zeros(3, 480, 640)}])[0]["instances"])
        5
    """
    method = require_method(type(model))
    device = cast(torch.device, model.device)
    with method.inject_detections(model, spread_boxes(num_people, image_size).to(device)):
        yield


def require_method(model_class: type) -> Method:
    """Return the method of a meta-architecture or of its nearest base class.

    Raises:
        ConfigError: there is none.
    """
    method = find_method(model_class)
    if method is not None:
        return method
    known = ", ".join(sorted(method.name for method in registered_methods()))
    raise ConfigError(
        f"MODEL.META_ARCHITECTURE {model_class.__name__}: no method of that name is registered, so detections cannot "
        "be injected and the model cannot be measured over their number. Register one with "
        f"dynpose.methods.register_method (docs/adding_a_method.md); registered are {known}"
    )


def spread_boxes(num_people: int, image_size: tuple[int, int]) -> torch.Tensor:
    """Spread people evenly over an image.

    Each box is centred in a grid cell, 2.5 times as tall as wide, and as large as fits into 80 % of the cell. The last
    row may have empty cells.

    Args:
        num_people: N.
        image_size: height and width, pixels.

    Returns:
        Tensor: (N, 4) disjoint boxes, x0, y0, x1, y1 in pixels.
    """
    if num_people == 0:
        return torch.zeros(0, 4)
    height, width = image_size
    rows = math.ceil(math.sqrt(num_people * height / width / _HEIGHT_TO_WIDTH))
    columns = math.ceil(num_people / rows)
    cell_height, cell_width = height / rows, width / columns
    box_height = _PART_OF_CELL * min(cell_height, cell_width * _HEIGHT_TO_WIDTH)
    half = torch.tensor([box_height / _HEIGHT_TO_WIDTH, box_height]) / 2
    index = torch.arange(num_people)
    column, row = index % columns, index // columns
    centers = (torch.stack([column, row], dim=1) + 0.5) * torch.tensor([cell_width, cell_height])
    return torch.cat([centers - half, centers + half], dim=1)
