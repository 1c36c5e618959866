"""Availability and precision of the operators' Triton kernels."""

from __future__ import annotations

import functools
import os

import torch

# Older versions support neither tuples in kernels nor an autotuning cache on disk. Tested with 3.6.
_MIN_TRITON = (3, 4)


def _import_triton():
    """Import Triton: return (module, None), or (None, reason) if it cannot be used."""
    try:
        import triton
    except ImportError:  # published for Linux only
        return None, "Triton is not installed"
    if tuple(map(int, triton.__version__.split(".")[:2])) < _MIN_TRITON:
        return None, "Triton {} is installed, but the kernels need {}.{}".format(triton.__version__, *_MIN_TRITON)
    return triton, None


triton, _TRITON_MISSING_REASON = _import_triton()

# Triton reads it when a kernel is defined. A constant, because torch.compile cannot read the environment.
_INTERPRETS = triton is not None and os.environ.get("TRITON_INTERPRET") == "1"
# Kernels rely on the matrix units' TF32 and bfloat16 modes, which came with Ampere.
_MIN_CAPABILITY = (8, 0)


def triton_unavailable_reason(tensor: torch.Tensor) -> str | None:
    """Return the reason why Triton kernels cannot run on a tensor.

    On the CPU they run, for tests, in Triton's interpreter, if the environment variable ``TRITON_INTERPRET`` was 1
    when this process started.

    Args:
        tensor: any tensor of the device and dtype in question.

    Returns:
        The reason, or None if they can run.
    """
    return _unavailable_reason(tensor.dtype, tensor.device)


@torch.compiler.assume_constant_result
def _unavailable_reason(dtype, device):
    if triton is None:
        return _TRITON_MISSING_REASON
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"there is no kernel for {dtype}"
    if interprets():
        return None
    if device.type != "cuda" or torch.version.hip:
        return f"there is no kernel for {'AMD GPUs' if device.type == 'cuda' else device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _MIN_CAPABILITY:
        return "the GPU's compute capability is {}.{}, but the kernels need {}.{}".format(*capability, *_MIN_CAPABILITY)
    return None


def interprets() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU, instead of being compiled."""
    return _INTERPRETS


def num_multiprocessors(device: torch.device) -> int:
    """Number of a CUDA device's multiprocessors; a small number in the interpreter."""
    return _multiprocessors(device.index) if device.type == "cuda" else 2


@functools.cache
def _multiprocessors(device_index):
    return torch.cuda.get_device_properties(device_index).multi_processor_count


def dot_precision(dtype: torch.dtype) -> str:
    """Choose the precision of matrix-unit products for a dtype; sums are always float32.

    Returns:
        "bf16" for bfloat16. "tf32" for float16: equally precise, but with float32's range, so that hidden values do not
        overflow. For float32, "tf32" if ``torch.backends.cuda.matmul.allow_tf32`` (or its successor,
        ``fp32_precision``) allows it, else "tf32x3": three TF32 products with an error close to float32's.
    """
    if dtype == torch.bfloat16:
        return "bf16"
    return "tf32" if dtype == torch.float16 or _allow_tf32() else "tf32x3"


def _allow_tf32():
    matmul = torch.backends.cuda.matmul
    # In newer torch, reading the older setting is an error once the newer one has been used.
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32
