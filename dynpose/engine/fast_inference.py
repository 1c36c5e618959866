"""A faster copy of a trained model: folded batch normalisation, channels-last layout, lower precision, compilation."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dynpose.config import ConfigError

from .folding import fold_batch_norms
from .precision import Precision, compile_dense_parts

__all__ = ["PRECISIONS", "optimize_for_inference", "resolve_precision"]

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# A side that all backbones' strides divide
_EXAMPLE_SIDE = 128
# Functions that autocast runs in lower precision, whose weights need not be converted in every pass
_CONVERTED = (functional.conv2d, functional.conv_transpose2d, functional.linear)


def optimize_for_inference(
    model: nn.Module, precision: str = "auto", compile: bool = False, *, inplace: bool = False
) -> nn.Module:
    """Make a model faster for prediction; it can't be trained or saved afterwards.

    - Batch normalisation is folded into convolutions, see :func:`~dynpose.engine.folding.fold_batch_norms`.
    - Weights get PyTorch's channels-last layout.
    - In a lower precision, the model runs under autocast; decoding of boxes and keypoints stays in float32.
    - Compilation by ``torch.compile`` covers the modules that the model's attribute ``dense_parts`` names, by default
      its backbone, with symbolic image sizes: pictures of another size do not compile again.

    In float32, predictions equal those of the model up to rounding; docs/prediction.md states the differences.

    Args:
        model (nn.Module): takes detectron2's inputs (a list of dicts with ``image``).
        precision (str): "float32", "bfloat16", "float16", or "auto", see :func:`resolve_precision`.
        compile (bool): compile at the first image, which takes a minute or more.
        inplace (bool): change ``model`` instead of a copy.

    Returns:
        nn.Module: in eval mode, without gradients.

    Raises:
        ConfigError: an unknown precision, or one that the device does not support.

    Example::

        >>> fast = optimize_for_inference(model)
        >>> people = fast([{"image": image}])[0]["instances"]
    """
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device, type(model))
    model = (model if inplace else copy.deepcopy(model)).eval().requires_grad_(False)
    example = _example(model)
    folded = fold_batch_norms(model, lambda: model(example))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision != "float32":
        dtype = getattr(torch, precision)
        # unlike a closure, a partial of a bound method belongs to the copy in a copied model
        model.forward = partial(_under_autocast, Precision(device.type, dtype), model.forward)
        _convert_weights(model, dtype, example)
    if compile:
        compile_dense_parts(model, key="compile")
    logger.info(
        f"Inference in {precision}, channels last, {folded} batch normalisations folded"
        f"{', compiled at the first image' if compile else ''}"
    )
    return model


def resolve_precision(precision: str, device: torch.device | str, model_class: type) -> str:
    """The precision that a name stands for.

    Args:
        precision (str): "float32", "bfloat16", "float16", or "auto": bfloat16 where the device multiplies in it
            natively (GPUs; CPUs with AMX, AVX512-BF16 or Arm's instructions) and the model's class lists it in its
            attribute ``proven_precisions``, else float32.
        device (torch.device | str)
        model_class (type): of the model.

    Returns:
        str: "float32", "bfloat16" or "float16".

    Raises:
        ConfigError: another name, or the GPU does not support it.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    device = torch.device(device)
    if precision == "auto":
        is_proven = "bfloat16" in getattr(model_class, "proven_precisions", ())
        return "bfloat16" if is_proven and _has_bfloat16(device) else "float32"
    if precision == "bfloat16" and device.type == "cuda" and not _has_bfloat16(device):
        raise ConfigError(f"precision: {torch.cuda.get_device_name(device)} has no bfloat16; give float16 or float32")
    return precision


def _has_bfloat16(device):
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # of PyTorch 2.11 and later
    capabilities = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _under_autocast(precision, forward, *args, **kwargs):
    with precision.autocast():
        return forward(*args, **kwargs)


def _example(model):
    channels = getattr(model, "pixel_mean", torch.zeros(3)).numel()
    image = torch.zeros((channels, _EXAMPLE_SIDE, _EXAMPLE_SIDE), dtype=torch.uint8)
    return [{"image": image, "height": _EXAMPLE_SIDE, "width": _EXAMPLE_SIDE}]


def _convert_weights(model, dtype, example):
    """Convert the weights that autocast would convert in every pass, and that nothing reads in float32."""
    observer = _AutocastObserver(model)
    with torch.no_grad(), observer:
        model(example)
    for parameter in observer.only_converted():
        parameter.data = parameter.data.to(dtype)


class _AutocastObserver(TorchFunctionMode):
    """Records which parameters are read by functions that autocast converts them for, and by others."""

    def __init__(self, model: nn.Module):
        super().__init__()
        layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        weights = [module.weight for module in model.modules() if isinstance(module, layers)]
        self._parameters = {id(weight): weight for weight in weights}
        self._converted: set[int] = set()
        self._others: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            read = {id(leaf) for leaf in tree_leaves((args, kwargs))} & self._parameters.keys()
            if read:
                device_type = self._parameters[next(iter(read))].device.type
                is_converted = func in _CONVERTED and torch.is_autocast_enabled(device_type)
                (self._converted if is_converted else self._others).update(read)
        return result

    def only_converted(self) -> list[Tensor]:
        return [self._parameters[key] for key in self._converted - self._others]
