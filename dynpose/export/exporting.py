"""Exporting a model to a file that runs without dynpose: capture, conversion, check, and then the file's name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from dynpose.config import ConfigError

from .capture import captured, traced
from .comparing import TOLERANCES, Comparison, compare
from .network import ExportNetwork
from .onnx_file import OPSETS, write_onnx
from .openvino_file import write_openvino
from .reduced_precision import convert_to_float16, quantize_to_int8
from .running import RUNNERS, Runner
from .samples import Sample
from .torch_file import LowerPrecision, write_torch_export, write_torchscript

__all__ = ["FORMATS", "PRECISIONS", "Exported", "Format", "check_arguments", "check_file", "export_network"]

PRECISIONS = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: of the file's name.
        precisions: that a file of this format can have.
    """

    suffix: str
    precisions: tuple[str, ...]


FORMATS = {
    "onnx": Format(".onnx", ("float32", "float16", "int8")),
    "torch-export": Format(".pt2", ("float32", "bfloat16")),
    "openvino": Format(".xml", PRECISIONS),
    "torchscript": Format(".ts", ("float32",)),
}
"""By name."""


class Exported(NamedTuple):
    """A written network."""

    files: list[Path]
    """The file, and its weights where they are beside it."""
    compared: list[Comparison]
    """With PyTorch, see :func:`check_file`; [] = it was not checked."""


def check_arguments(format: str, precision: str, output: str | os.PathLike[str], opset: int = OPSETS[0]) -> None:
    """Check the names of a format, a precision and a file, and ONNX's opset.

    Raises:
        ConfigError: one of them is unknown, the format does not have the precision, the file is a folder, or its name
            does not end with the format's suffix.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if opset not in OPSETS:
        raise ConfigError(f"--opset must be one of {', '.join(map(str, OPSETS))}, got {opset}")
    chosen = FORMATS[format]
    if precision not in chosen.precisions:
        others = [name for name, other in FORMATS.items() if precision in other.precisions]
        raise ConfigError(
            f"--precision {precision}: --format {format} has {', '.join(chosen.precisions)} only; give --format "
            f"{' or '.join(others)} for {precision}"
        )
    if Path(output).is_dir():
        raise ConfigError(f"--output {os.fspath(output)}: it is a folder; name the file to write in it")
    if Path(output).suffix != chosen.suffix:
        raise ConfigError(
            f"--output {os.fspath(output)}: the name of a file of --format {format} ends in {chosen.suffix}"
        )


def export_network(
    network: ExportNetwork,
    output: str | os.PathLike[str],
    metadata: str,
    *,
    divisibility: int,
    samples: Sequence[Sample],
    format: str = "onnx",
    precision: str = "float32",
    calibration: Iterable[Sample] | None = None,
    batch: int | None = None,
    opset: int = OPSETS[0],
    check: bool = True,
    report: Callable[[Runner, Runner], None] | None = None,
) -> Exported:
    """Write a network to a file.

    The file is written to a temporary folder beside its place, compared with PyTorch there, and moved only if they
    agree: after an error, an earlier file is unchanged.

    Args:
        network: in eval mode, on the CPU.
        output: the file; its suffix is the format's. A missing folder is created.
        metadata: of :func:`~dynpose.export.metadata.file_metadata`.
        divisibility: of the network's input sizes.
        samples: of :func:`~dynpose.export.samples.check_samples`; the first is the example that is captured.
        format: one of :data:`FORMATS`.
        precision: one of the format's.
        calibration: for "int8", inputs with the ranges of the activations.
        batch: number of images of the file's input; None = any.
        opset: of ONNX, see :func:`~dynpose.export.onnx_file.write_onnx`.
        check: compare the file with PyTorch, see :func:`check_file`.
        report: called with PyTorch's network and the file's before the file is moved.

    Raises:
        ConfigError: see :func:`check_arguments`; the model can't be captured or converted, a package is missing, or
            the file and PyTorch disagree.
    """
    check_arguments(format, precision, output, opset)
    if precision == "int8" and calibration is None:
        raise ConfigError("--precision int8 needs --calibration, a folder of images like those that will be predicted")
    place = Path(output)
    place.parent.mkdir(parents=True, exist_ok=True)
    example = samples[0].batch(batch or 2)
    inputs = (example.images, example.image_sizes)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as folder, torch.no_grad():
        path = Path(folder, place.name)
        if format == "torchscript":
            write_torchscript(traced(network, inputs), path, metadata)
        elif format == "torch-export":
            module = network if precision == "float32" else LowerPrecision(network, getattr(torch, precision))
            write_torch_export(captured(module, inputs, divisibility, batch), path, metadata)
        else:
            write_onnx(captured(network, inputs, divisibility, batch), path.with_suffix(".onnx"), metadata, opset)
            _reduce(path.with_suffix(".onnx"), precision, calibration, keep_float32=format == "openvino")
            if format == "openvino":
                _to_openvino(path, metadata, precision)
        compared = []
        if check or report:
            run = _load(format, path, precision, place)
            if check:
                compared = check_file(network, run, samples, precision=precision, batch=batch, name=str(place))
            if report:
                report(network, run)
        return Exported(_move(Path(folder), place), compared)


def check_file(
    network: Runner, run: Runner, samples: Sequence[Sample], *, precision: str, batch: int | None = None, name: str = ""
) -> list[Comparison]:
    """Compare a file with PyTorch.

    Args:
        network: PyTorch's.
        run: the file's, see :mod:`~dynpose.export.running`.
        samples: see :func:`~dynpose.export.samples.check_samples`; without a fixed ``batch``, the first is also run
            three times in one batch.
        precision: of the file, which gives the :data:`~dynpose.export.comparing.TOLERANCES`.
        batch: number of images of the file's input; None = any.
        name: of the file, for messages.

    Returns:
        One for each image.

    Raises:
        ConfigError: they disagree, or the file does not run; the message names the sample.
    """
    batches = [sample.batch(batch or 1) for sample in samples]
    if batch is None:
        batches.append(samples[0].batch(3))
    compared = []
    for sample in batches:
        expected = network(sample.images, sample.image_sizes)
        try:
            found = run(sample.images, sample.image_sizes)
            results = compare(expected, found)
        except Exception as error:  # the runtimes' errors have no common type
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{name} is not written: it fails on {sample.name}: {reason}") from error
        side = int(sample.image_sizes.max())
        for result in results:
            if fault := result.disagreement(TOLERANCES[precision], side):
                raise ConfigError(f"{name} is not written: it disagrees with PyTorch on {sample.name}: {fault}")
        compared += results
    return compared


def _load(format, path, precision, place):
    """Load a written file into its runtime."""
    try:
        return RUNNERS[format](path, precision)
    except ConfigError:
        raise
    except Exception as error:  # the runtimes' errors have no common type
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{place} is not written: its runtime does not load it: {reason}") from error


def _reduce(path, precision, calibration, keep_float32):
    """Convert an ONNX file in place; OpenVINO has float16 and bfloat16 of float32 files."""
    if precision == "int8" or (precision == "float16" and not keep_float32):
        source = path.with_name("float32.onnx")
        data = path.with_name(f"{path.name}.data")
        if data.exists():
            raise ConfigError(f"--precision {precision}: the weights have more than 2 GB, which ONNX can't convert")
        path.rename(source)
        if precision == "int8":
            quantize_to_int8(source, path, calibration)
        else:
            convert_to_float16(source, path)
        source.unlink()


def _to_openvino(path, metadata, precision):
    source = path.with_suffix(".onnx")
    write_openvino(source, path, metadata, precision)
    for used in path.parent.glob(f"{source.name}*"):
        used.unlink()


def _move(folder, place):
    """Give the files of a folder their places, the one of the network last."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == place.name)
    placed = []
    for file in files:
        os.replace(file, place.with_name(file.name))
        placed.append(place.with_name(file.name))
    return placed[::-1]
