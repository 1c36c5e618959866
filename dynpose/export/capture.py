"""Capturing a network as a graph: by torch.export, or as a TorchScript trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx.experimental._config
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from dynpose.config import ConfigError

from .network import INPUTS, ExportNetwork
from .quiet import quiet

__all__ = ["captured", "captured_at", "traced"]

# Of the images' sides, in multiples of the size divisibility. torch.export takes a side of 1 as a constant.
_LEAST, _MOST = 2, 1024
# torch.export's strict mode, and whether sizes of 0 and 1 are the same case as larger ones. The last two are what
# torch.onnx.export tries; with them, a file of torch.export may refuse a single image.
_ATTEMPTS = ((False, False), (False, True), (True, True))


def captured(
    network: nn.Module, example: tuple[Tensor, Tensor], divisibility: int, batch: int | None = None
) -> torch.export.ExportedProgram:
    """Capture a network with symbolic height and width, and a symbolic or fixed number of images.

    Args:
        network: :class:`~dynpose.export.network.ExportNetwork`, or a module that runs one.
        example: images (B, C, H, W) and image sizes (B, 2), with B of at least 2 or of ``batch``.
        divisibility: H and W are multiples of it.
        batch: B of the graph; None = symbolic.

    Raises:
        ConfigError: the model can't be captured; the cause is the exporter's error.
    """
    if not hasattr(torch.compiler, "is_exporting"):
        raise ConfigError(f"dynpose export needs PyTorch 2.7 or later, not {torch.__version__}: pip install -U torch")
    sides = {2 + axis: _side(name, divisibility) for axis, name in enumerate(("height", "width"))}
    images = torch.export.Dim("batch", min=1, max=_MOST) if batch is None else None
    shapes = ({0: images, **sides}, {0: images}) if batch is None else (sides, {})
    failures = []
    for strict, oblivious in _ATTEMPTS:
        try:
            with quiet(), torch.no_grad(), _pooling_by_selection(network), _settings(oblivious):
                return torch.export.export(network, example, dynamic_shapes=shapes, strict=strict)
        except Exception as error:
            failures.append(error)
            if _config_error(error):
                break
    raise _explained(failures[0], "torch.export", network) from failures[0]


def captured_at(network: nn.Module, example: tuple[Tensor, Tensor]) -> torch.export.ExportedProgram:
    """Capture a network for the size and number of images of the example alone.

    Raises:
        ConfigError: see :func:`captured`.
    """
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(network, example, strict=False)
    except Exception as error:
        raise _explained(error, "torch.export", network) from error


def traced(network: nn.Module, example: tuple[Tensor, Tensor]) -> torch.jit.ScriptModule:
    """Trace a network to TorchScript.

    A trace turns into constants what the model reads as Python numbers. Only a comparison at other sizes and numbers of
    people shows that there are none.

    Args:
        network: see :func:`captured`.
        example: see :func:`captured`; with people in the images.

    Raises:
        ConfigError: the model can't be traced; the cause is the tracer's error.
    """
    try:
        with quiet(), torch.no_grad():
            return torch.jit.trace(network, example, check_trace=False)
    except Exception as error:
        raise _explained(error, "torch.jit.trace", network) from error


@contextmanager
def _settings(oblivious: bool) -> Iterator[None]:
    """Settings of torch.export: sizes of 0 and 1, and no cache of operators' results.

    With symbolic sizes, filling the cache costs more than it saves, a sixth of an export.
    """
    from torch._dynamo import config

    sizes = torch.fx.experimental._config.patch(backed_size_oblivious=oblivious)  # type: ignore[attr-defined]
    with sizes, config.patch(fake_tensor_cache_enabled=False):
        yield


@contextmanager
def _pooling_by_selection(network: nn.Module) -> Iterator[None]:
    """Let FPN's P6 be selected cells of P5 instead of max pooling with a window of one cell: the same values.

    The pooling ties the captured sizes to the parity of the example's P5, and so does a slice by its strides.
    """
    pools = [module for module in network.modules() if isinstance(module, LastLevelMaxPool)]
    for pool in pools:
        pool.forward = _every_second_cell
    try:
        yield
    finally:
        for pool in pools:
            del pool.forward


def _every_second_cell(x):
    for axis in (2, 3):
        x = x.index_select(axis, torch.arange(0, x.shape[axis], 2, device=x.device))
    return [x]


def _side(name, divisibility):
    cells = torch.export.Dim(f"{name}_cells" if divisibility > 1 else name, min=_LEAST, max=_MOST)
    return divisibility * cells if divisibility > 1 else cells


def _explained(error: BaseException, exporter: str, network: Any) -> ConfigError:
    """The ConfigError that a model raised, or one that names the model and the exporter's error."""
    if cause := _config_error(error):
        return cause
    models = [module.model for module in network.modules() if isinstance(module, ExportNetwork)]
    name = type(models[0] if models else network).__name__
    reason = " ".join(str(error).split())[:300]
    return ConfigError(
        f"MODEL.META_ARCHITECTURE {name!r}: {exporter} can't capture detect({', '.join(INPUTS)}): "
        f"{type(error).__name__}: {reason}"
    )


def _config_error(error: BaseException | None) -> ConfigError | None:
    """The ConfigError among an error and its causes."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__ or error.__context__
    return error
