"""Mixed precision, for training and for evaluation, channels-last layout, and compiled parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode

from dynpose.config import ConfigError

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """The precision of a forward pass.

    Attributes:
        device_type: "cuda" or "cpu".
        dtype: of autocast; None = no autocast, everything in the precision of the weights.

    Example::

        >>> with Precision("cpu", torch.bfloat16).autocast():
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """

    device_type: str = "cpu"
    dtype: torch.dtype | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, enabled: bool | None = None) -> Precision:
        """Read ``SOLVER.AMP``.

        Args:
            cfg (CfgNode): MODEL.DEVICE, SOLVER.AMP.ENABLED and SOLVER.AMP.DTYPE are read.
            enabled (bool | None): overrides SOLVER.AMP.ENABLED.

        Raises:
            ConfigError: DTYPE is not "float16" or "bfloat16", or the GPU does not support it.
        """
        amp = cfg.SOLVER.AMP
        if amp.DTYPE not in _DTYPES:
            raise ConfigError(f"SOLVER.AMP.DTYPE must be 'float16' or 'bfloat16', got {amp.DTYPE!r}")
        device_type = torch.device(cfg.MODEL.DEVICE).type
        if not (amp.ENABLED if enabled is None else enabled):
            return cls(device_type)
        lacks_it = device_type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        if amp.DTYPE == "bfloat16" and lacks_it:
            raise ConfigError(
                f"SOLVER.AMP.DTYPE is 'bfloat16', which {torch.cuda.get_device_name()} does not support: set it to "
                "'float16', or SOLVER.AMP.ENABLED to False"
            )
        return cls(device_type, _DTYPES[amp.DTYPE])

    def autocast(self) -> torch.autocast:
        """The context of a forward pass; a no-op without a dtype."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """A scaler that prevents small float16 gradients from underflowing; disabled for other types."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


def compile_dense_parts(
    model: torch.nn.Module, *, key: str = "SOLVER.COMPILE", training: bool = False, **kwargs: Any
) -> None:
    """Compile the dense parts of a model in place with ``torch.compile``, at its first forward pass.

    These are the modules that its attribute ``dense_parts`` names, by default its backbone. Image sizes are symbolic,
    so that another size does not compile again. Parameter names do not change: checkpoints fit models with and without
    compilation.

    Args:
        model (nn.Module): a model.
        key (str): what asks for it, for the error.
        training (bool): whether gradients are taken. On a CPU, before PyTorch 2.14, the generated code then has one
            thread; convolutions still have all. With several, its backward pass of bilinear upsampling writes outside
            of its buffers (pytorch/pytorch#191837).
        **kwargs: of ``torch.compile``.

    Raises:
        ConfigError: the model has neither the attribute nor a backbone.
    """
    # compared as versions, not as strings: TorchVersion
    if training and torch.__version__ < "2.14" and next(model.parameters()).device.type == "cpu":
        kwargs = {"options": {"cpp.threads": 1}, **kwargs}
    for name in getattr(model, "dense_parts", ("backbone",)):
        part = getattr(model, name, None)
        if not isinstance(part, torch.nn.Module):
            raise ConfigError(f"{key} is True, but {type(model).__name__} has no module named {name}: set it to False")
        part.compile(dynamic=True, **kwargs)
