"""Counting the parameters and FLOPs of a model. A multiply-add counts as one FLOP, as in fvcore."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from detectron2.structures import ImageList
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from dynpose.methods import find_method

from .inject_detections import inject_detections


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Count the parameters of each top-level module.

    Args:
        model (nn.Module): the model.

    Returns:
        dict[str, tuple[int, int]]: all and trainable parameters. Frozen normalisation has only buffers.
    """
    return {
        name: (
            sum(parameter.numel() for parameter in module.parameters()),
            sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        )
        for name, module in model.named_children()
    }


class FlopsWithPeople(NamedTuple):
    """FLOPs of an image with N people.

    Attributes:
        total: the sum.
        static: FLOPs independent of the people, by top-level module; "" = outside of all modules.
        added: FLOPs per unit, by part; {} if nothing depends on the people.
        unit: "generated network" or "person".
        number: number of units.
    """

    total: float
    static: Mapping[str, float]
    added: Mapping[str, float]
    unit: str
    number: int


def count_flops_with_people(
    model: nn.Module, size: tuple[int, int], numbers: Sequence[int]
) -> dict[int, FlopsWithPeople]:
    """Count the FLOPs of an image for given numbers of people.

    Args:
        model (nn.Module): in eval mode. If its meta-architecture is not registered as a method, nothing is counted for
            people.
        size (tuple[int, int]): height and width of the image before padding, pixels.
        numbers (Sequence[int]): of people.

    Returns:
        dict[int, FlopsWithPeople]: by number.

    Raises:
        ConfigError: the people do not fit into the image.
    """
    method = find_method(type(model))
    if method is None:
        static = count_flops(model, size)
        return {number: FlopsWithPeople(sum(static.values()), static, {}, "person", number) for number in numbers}
    if method.count_network_flops is None:
        # The baseline is 1, not 0: operations on zero instances do not count in a trace.
        traced = {number: _trace(model, size, number) for number in {1, *numbers}}
        return {number: _difference(traced[1], traced[number], number) for number in numbers}
    static, per_network = _trace(model, size, 0), count_flops_per_network(model, size)
    counted = {}
    for number in numbers:
        networks = count_networks(model, size, number)
        total = sum(static.values()) + networks * sum(per_network.values())
        counted[number] = FlopsWithPeople(total, static, per_network, "generated network", networks)
    return counted


def _trace(model, size, num_people):
    with inject_detections(model, num_people, size):
        return count_flops(model, size)


def _difference(of_one, of_all, num_people):
    total = sum(of_all.values())
    if num_people < 2:
        return FlopsWithPeople(total, of_all, {}, "person", num_people)
    added = {name: (flops - of_one.get(name, 0)) / (num_people - 1) for name, flops in of_all.items()}
    static = {name: of_one.get(name, 0) - flops for name, flops in added.items()}
    by_part = {name or "other": flops for name, flops in added.items() if flops > 0}
    return FlopsWithPeople(total, static, by_part, "person", num_people)


def count_flops(model: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Count the FLOPs of one forward pass on a blank image.

    Args:
        model (nn.Module): in eval mode; it detects nothing only with an unreachable score threshold.
        size (tuple[int, int]): height and width of the image before padding, pixels.

    Returns:
        dict[str, float]: non-zero FLOPs by top-level module; "" = outside of all modules.
    """
    analysis = FlopCountAnalysis(_TensorsOnly(model), _blank_image(model, size))
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable_flops)
    # No warnings are needed: element-wise operations are omitted on purpose, training branches are not called, and the
    # sizes that tracing turns into constants are the requested ones.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        by_module = analysis.by_module()
    flops = {name: by_module[f"model.{name}"] for name, _ in model.named_children()}
    flops[""] = by_module[""] - sum(flops.values())
    return {name: value for name, value in flops.items() if value}


def count_flops_per_network(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Count the FLOPs of each generated network (FCPose section 3.1).

    Args:
        model (nn.Module): the model.
        size (tuple[int, int]): height and width of the image before padding, pixels.

    Returns:
        dict[str, int]: FLOPs by part; {} for a model without generated networks.
    """
    method = find_method(type(model))
    if method is None or method.count_network_flops is None:
        return {}
    return method.count_network_flops(model, padded_size(model, size))


def count_networks(model: nn.Module, size: tuple[int, int], num_people: int) -> int:
    """Count the networks generated for injected people; there may be several for one person.

    Args:
        model (nn.Module): in eval mode, with a ``controller`` that generates them.
        size (tuple[int, int]): height and width of the image, pixels.
        num_people (int): N.

    Returns:
        int
    """
    generated = []
    handle = model.get_submodule("controller").register_forward_hook(
        lambda _, inputs, output: generated.append(len(output))
    )
    try:
        with inject_detections(model, num_people, size), torch.no_grad():
            model([{"image": _blank_image(model, size)}])
    finally:
        handle.remove()
    return sum(generated)


def padded_size(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width to which the model pads an image of ``size`` (height, width), pixels."""
    preprocess = cast(Callable[[list[dict[str, Any]]], ImageList], model.preprocess_image)
    height, width = preprocess([{"image": _blank_image(model, size)}]).tensor.shape[-2:]
    return height, width


def _blank_image(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """A black image (3, H, W) of ``size`` (height, width) on the model's device."""
    return torch.zeros(3, *size, device=cast(torch.device, model.device))


def _deformable_flops(inputs, outputs):
    """FLOPs as of a convolution, since fvcore has no handler. The interpolation of samples is not counted."""
    _, *of_output = get_shape(inputs[1])
    return math.prod(get_shape(outputs[0])) * math.prod(of_output)


class _TensorsOnly(nn.Module):
    """A detectron2 model with tensors as input and output, as tracing requires."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image):
        instances = self.model([{"image": image}])[0]["instances"]
        # Boxes hold their tensor in an attribute
        return tuple(getattr(values, "tensor", values) for values in instances.get_fields().values())
