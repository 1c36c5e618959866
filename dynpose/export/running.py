"""Running an exported file in its runtime, for its check."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynpose.runtime.sessions import openvino_core

from .network import INPUTS, OUTPUTS
from .packages import require
from .quiet import quiet

__all__ = ["RUNNERS", "Runner", "run_onnx", "run_openvino", "run_torch_export", "run_torchscript"]

Runner = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""(images, image_sizes) -> the outputs of :class:`~dynpose.export.network.ExportNetwork`."""

# onnxruntime's level of messages: errors only
_ERRORS_ONLY = 3


def run_onnx(path: Path, precision: str) -> Runner:
    """Load an ONNX file into onnxruntime, on the CPU.

    Raises:
        ConfigError: onnxruntime is missing.
    """
    onnxruntime = require("onnxruntime", "the check of an ONNX file (--no-check leaves it out)")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        return _tensors(session.run(list(OUTPUTS), _feed(images, image_sizes)))

    return run


def run_openvino(path: Path, precision: str) -> Runner:
    """Load an .xml file into OpenVINO, on the CPU, in the precision of the file.

    By default OpenVINO computes float32 files in bfloat16 on a CPU that has it.

    Raises:
        ConfigError: OpenVINO is missing.
    """
    require("openvino", "the check of an OpenVINO file (--no-check leaves it out)", extra="openvino")
    bfloat16 = {"INFERENCE_PRECISION_HINT": "bf16"}
    hint = bfloat16 if precision == "bfloat16" else {"EXECUTION_MODE_HINT": "ACCURACY"}
    model = openvino_core().compile_model(str(path), "CPU", hint)

    def run(images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        results = model(_feed(images, image_sizes))
        return _tensors([results[name] for name in OUTPUTS])

    return run


def run_torch_export(path: Path, precision: str) -> Runner:
    """Load a .pt2 file.

    The conditions on sizes that torch.export notes are not tested: some are on the memory layout of small maps, and no
    result depends on it.
    """
    with quiet():
        program = torch.export.load(path)
        can_skip = "check_guards" in inspect.signature(program.module).parameters  # torch 2.9 and later
        return program.module(check_guards=False) if can_skip else program.module()


def run_torchscript(path: Path, precision: str) -> Runner:
    """Load a TorchScript file."""
    with quiet():
        return torch.jit.load(str(path))


def _feed(images, image_sizes):
    return dict(zip(INPUTS, (images.numpy(), image_sizes.numpy())))


def _tensors(arrays: list[Any]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.array(array)) for array in arrays)


RUNNERS = {
    "onnx": run_onnx,
    "openvino": run_openvino,
    "torch-export": run_torch_export,
    "torchscript": run_torchscript,
}
"""By name of the format: (path, precision) -> Runner."""
