"""ONNX files, of operators that runtimes agree on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from dynpose.config import ConfigError

from .metadata import KEY
from .network import INPUTS, OUTPUTS
from .packages import require
from .quiet import quiet

__all__ = ["OPSETS", "write_onnx"]

OPSETS = (18, 19, 20, 21)
"""onnxruntime has no kernel for RoIAlign of opset 22 and later; reductions of earlier ones differ between runtimes."""
# protobuf's limit of a file is 2 GiB
_LARGEST = 2**31 - 2**20


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: str, opset: int = OPSETS[0]) -> None:
    """Write an ONNX file; weights of 2 GB or more go to ``<path>.data`` beside it.

    Args:
        program: of :func:`~dynpose.export.capture.captured`.
        path: the file.
        metadata: JSON, stored as the metadata property ``dynpose``.
        opset: one of :data:`OPSETS`.

    Raises:
        ConfigError: a package is missing, or an operator has no ONNX form; the cause is the exporter's error.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "an ONNX file")
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=INPUTS,
                output_names=OUTPUTS,
                verbose=False,
                optimize=True,
            )
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ConfigError(f"torch.onnx.export: {reason}") from error
    assert exported is not None
    model = exported.model
    model.metadata_props[KEY] = metadata
    _remove_source_notes(model)
    _make_portable(model)
    with quiet():
        exported.save(os.fspath(path), external_data=_size(model) > _LARGEST)


def _size(model):
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def _remove_source_notes(model):
    """Remove stack traces, which hold paths of this machine, and other notes of the exporter on each node."""
    for graph in model.graphs():
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        graph.metadata_props.clear()


def _make_portable(model: Any) -> None:
    """Replace what some runtimes refuse: parameters of NMS that are scalars, and a Clip of integers.

    onnx.reference and OpenCV read an NMS parameter as a tensor of one element; OpenCV has no integer Clip.
    """
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "NonMaxSuppression":
                for index, value in enumerate(node.inputs[2:], start=2):
                    node.replace_input_with(index, _one_element(graph, node, value))
            elif node.op_type == "Clip" and _is_integer(node.inputs[0]):
                _replace_clip(graph, node)


def _is_integer(value):
    return value.dtype is not None and value.dtype.name in ("INT64", "INT32")


def _one_element(graph, node, value):
    if value is None or value.shape is None or len(value.shape) == 1:
        return value
    import onnx_ir as ir

    shape = ir.node("Constant", [], {"value": ir.tensor([1], dtype=ir.DataType.INT64)})
    reshaped = ir.node("Reshape", [value, shape.outputs[0]])
    reshaped.outputs[0].dtype, reshaped.outputs[0].shape = value.dtype, ir.Shape([1])
    # names that a graph chooses itself may be those of other values
    shape.outputs[0].name, reshaped.outputs[0].name = f"{value.name}_{node.name}_shape", f"{value.name}_{node.name}"
    graph.insert_before(node, [shape, reshaped])
    return reshaped.outputs[0]


def _replace_clip(graph, node):
    import onnx_ir as ir

    value, added = node.inputs[0], []
    for operator, bound in zip(("Max", "Min"), node.inputs[1:]):
        if bound is not None:
            added.append(ir.node(operator, [value, bound]))
            added[-1].outputs[0].name = f"{node.outputs[0].name}_{operator}"
            added[-1].outputs[0].dtype, added[-1].outputs[0].shape = value.dtype, value.shape
            value = added[-1].outputs[0]
    graph.insert_before(node, added)
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    graph.remove(node, safe=True)
