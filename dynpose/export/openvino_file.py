"""OpenVINO's IR: an .xml file with the graph and a .bin file with the weights."""

from __future__ import annotations

from pathlib import Path

from dynpose.runtime.sessions import openvino_core

from .metadata import KEY
from .packages import require
from .quiet import quiet

__all__ = ["write_openvino"]


def write_openvino(onnx_file: Path, path: Path, metadata: str, precision: str) -> None:
    """Convert an ONNX file.

    Args:
        onnx_file: of the same precision, or of float32.
        path: the .xml file; the .bin file is written beside it.
        metadata: JSON, stored as ``dynpose`` in the model's runtime information.
        precision: "float16" stores the weights in float16. "bfloat16" is in the metadata alone: the runtime that
            loads the file computes in it.

    Raises:
        ConfigError: OpenVINO is missing.
    """
    openvino = require("openvino", "--format openvino", extra="openvino")
    with quiet():
        # convert_model gives the same network, in ten times the time, and reports its use to the maker
        model = openvino_core().read_model(str(onnx_file))
        model.set_rt_info(metadata, KEY)
        openvino.save_model(model, str(path), compress_to_fp16=precision == "float16")
