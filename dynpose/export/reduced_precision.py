"""ONNX files in float16 and int8.

Only the dense network is converted. Coordinates, scores and everything that follows a selection of people is decoded in
float32: pixels of a large image are further apart than float16 resolves, and int8 freezes the range of coordinates to
that of the calibration's images.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dynpose.config import ConfigError

from .network import INPUTS
from .packages import require
from .quiet import quiet
from .samples import Sample

__all__ = ["convert_to_float16", "quantize_to_int8"]

# What follows one of these depends on the choice of people or candidates
_SELECTIONS = ("NonMaxSuppression", "NonZero", "TopK", "RoiAlign")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# What a network has between convolutions; sizes and coordinates are computed by others
_DENSE = (
    *_CONVOLUTIONS,
    *("Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Clip", "Add", "Sum", "Mul", "Concat", "MaxPool", "AveragePool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "Resize", "Split"),
)
# protobuf's limit of a file is 2 GiB
_LARGEST = 2**31 - 2**20


def convert_to_float16(source: Path, path: Path) -> None:
    """Convert the dense network of a float32 ONNX file; inputs, outputs and decoding stay in float32.

    Args:
        source: the float32 file.
        path: the file to write.

    Raises:
        ConfigError: onnxruntime, which has the converter, is missing, or nothing in the file can be converted.
    """
    onnx = require("onnx", "--precision float16")
    converter = require("onnxruntime.transformers.float16", "--precision float16")
    model = onnx.load(str(source))
    _name_nodes(model)
    dense = _dense_nodes(model)
    if not dense:
        raise ConfigError("--precision float16: the model has no convolution before its selection of people")
    blocked = [node.name for node in model.graph.node if node.name not in dense]
    with quiet():
        # the types of values are in the file; inferring shapes again fails above 2 GB
        converted = converter.convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=True, node_block_list=blocked
        )
    _save(onnx, converted, path)


def quantize_to_int8(source: Path, path: Path, calibration: Iterable[Sample]) -> None:
    """Quantise the convolutions of a float32 ONNX file: weights by channel, unsigned activations, static ranges.

    Args:
        source: the float32 file.
        path: the file to write.
        calibration: inputs whose activations give the ranges.

    Raises:
        ConfigError: onnxruntime, which has the quantiser, is missing, or the file has no convolution.
    """
    onnx = require("onnx", "--precision int8")
    quantization = require("onnxruntime.quantization", "--precision int8")
    model = onnx.load(str(source))
    if not any(node.op_type == "Conv" for node in model.graph.node):
        raise ConfigError("--precision int8: the model has no convolution")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _name_nodes(model)
    named = path.with_name("named.onnx")
    _save(onnx, model, named)
    is_large = model.ByteSize() > _LARGEST
    del model
    with quiet():
        quantization.quantize_static(
            str(named),
            str(path),
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            # weights of 7 bits: the 16-bit sums of a CPU without VNNI saturate with 8
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=is_large,
            # an output that is a coordinate keeps its range; that of a hidden layer is the next one's input
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
    for used in (named, named.with_name(f"{named.name}.data")):
        used.unlink(missing_ok=True)
    _restore_metadata(onnx, path, metadata)


class _Reader:
    """onnxruntime's reader of calibration data."""

    def __init__(self, samples: Iterable[Sample]):
        self._samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._samples, None)
        if sample is None:
            return None
        return dict(zip(INPUTS, (sample.images.numpy(), sample.image_sizes.numpy())))


def _name_nodes(model: Any) -> None:
    """Name the nodes that have no name: the converters address nodes by it."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"


def _dense_nodes(model: Any) -> set[str]:
    """Names of the nodes between the first and the last convolutions that no selection of people precedes."""
    nodes = list(model.graph.node)  # in topological order
    selected: set[str] = set()
    after_convolution: set[str] = set()
    for node in nodes:
        if node.op_type in _SELECTIONS or selected.intersection(node.input):
            selected.update(node.output)
        elif node.op_type in _CONVOLUTIONS or (node.op_type in _DENSE and after_convolution.intersection(node.input)):
            after_convolution.update(node.output)
    needed: set[str] = set()
    dense = set()
    for node in reversed(nodes):
        is_convolution = node.op_type in _CONVOLUTIONS and not selected.intersection(node.output)
        if is_convolution or (needed.intersection(node.output) and after_convolution.intersection(node.output)):
            dense.add(node.name)
            needed.update(node.input)
    return dense


def _save(onnx, model, path):
    is_large = model.ByteSize() > _LARGEST
    onnx.save(model, str(path), save_as_external_data=is_large, location=f"{path.name}.data" if is_large else None)


def _restore_metadata(onnx, path, metadata):
    model = onnx.load(str(path), load_external_data=False)
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
