"""Loading an exported file into onnxruntime or OpenVINO, and running it.

Axes: B images, P people.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dynpose.checkpoint.errors import CheckpointError

from .metadata import PROPERTY, ExportMetadata

__all__ = ["RUNTIMES", "Session", "is_exported", "is_installed", "open_session", "openvino_core"]

RUNTIMES = ("onnxruntime", "openvino")
# The runtimes that read a kind of file, the preferred one first
_READERS = {".onnx": RUNTIMES, ".xml": ("openvino",)}
# onnxruntime's level of messages: errors only
_ERRORS_ONLY = 3
# Endings of exported files that need PyTorch
_OF_PYTORCH = (".pt2", ".ts")
# The runtimes start as many as they are told to, up to the end of the process
_MOST_THREADS = 1024
# Ending of the file with the weights of an .xml
_WEIGHTS = ".bin"


class Session(ABC):
    """A file that is loaded into a runtime.

    Attributes:
        runtime (str): "onnxruntime" or "openvino".
        device (str): as the runtime names it.
        metadata (ExportMetadata): of the file.
        input_shape (tuple): of the images, (B, 3, H, W); an int where the file fixes it, else None.
    """

    runtime: str
    device: str
    metadata: ExportMetadata
    input_shape: tuple[int | None, ...]

    @abstractmethod
    def run(self, images: np.ndarray, image_sizes: np.ndarray) -> Sequence[np.ndarray]:
        """Run the network.

        Args:
            images (ndarray): (B, 3, H, W) float32, 0 to 255, zero-padded.
            image_sizes (ndarray): (B, 2) int64, height and width before the padding.

        Returns:
            Sequence[ndarray]: boxes (B, P, 4), scores (B, P), classes (B, P), keypoints (B, P, K, 3), counts (B,).
        """


def is_exported(file: str | os.PathLike[str]) -> bool:
    """Whether the name of a file is that of an exported one, also of a format that only PyTorch reads."""
    return Path(file).suffix.lower() in (*_READERS, *_OF_PYTORCH)


def open_session(
    file: str | os.PathLike[str], device: str = "cpu", threads: int | None = None, runtime: str | None = None
) -> Session:
    """Load an exported file.

    Args:
        file (str | PathLike): .onnx, or OpenVINO's .xml.
        device, threads, runtime: see :class:`~dynpose.runtime.Pose`.

    Raises:
        CheckpointError: the file is missing, damaged or no dynpose export, or no installed runtime reads it.
        ValueError: an argument is out of range.
        TypeError: an argument is of another type.
    """
    path = Path(os.path.expanduser(os.fspath(file)))
    if not isinstance(device, str):
        raise TypeError(f"device must be a name such as cpu or cuda:1, got {device!r}")
    if threads is not None and not isinstance(threads, int):
        raise TypeError(f"threads must be an int or None, got {threads!r}")
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise ValueError(f"threads must be from 1 to {_MOST_THREADS}, got {threads}")
    if runtime is not None and runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    readers = _READERS.get(path.suffix.lower())
    if readers is None:
        raise CheckpointError(f"{file}: exported files for this runtime end with {' or '.join(_READERS)}" + _hint(path))
    if not path.is_file():
        raise CheckpointError(f"{file}: there is no such file; write one with dynpose export")
    if runtime is not None and runtime not in readers:
        raise CheckpointError(
            f"{file}: {runtime} does not read {path.suffix}; leave out the runtime, or export to .onnx"
        )
    chosen = runtime or next(filter(is_installed, readers), readers[0])
    if not is_installed(chosen):
        others = [name for name in readers if name != chosen and runtime is None]
        packages = " or ".join(f"pip install {name}" for name in (chosen, *others))
        raise CheckpointError(f"{file}: {chosen} is not installed, which runs it; {packages}")
    return _SESSIONS[chosen](path, device, threads or _default_threads())


def _hint(path):
    if path.suffix.lower() in (".pth", ".pkl", ".safetensors"):
        return "; this is a checkpoint: export it with dynpose export, or use dynpose.PosePredictor"
    of_pytorch = ", this one is for PyTorch" if path.suffix.lower() in _OF_PYTORCH else ""
    return f"{of_pytorch}; write one with dynpose export --format onnx or openvino"


def is_installed(name: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    with suppress(ValueError):  # the module is blocked, or a script of that name runs
        return importlib.util.find_spec(name) is not None
    return False


class _OnnxRuntimeSession(Session):
    runtime = "onnxruntime"

    def __init__(self, path, device, threads):
        onnxruntime = importlib.import_module("onnxruntime")
        provider = _provider(onnxruntime, path, device)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its errors have no common type
            raise CheckpointError(f"{path}: {_onnx_fault(path, error)}") from None
        self.device = self._session.get_providers()[0]
        if self.device != (provider if isinstance(provider, str) else provider[0]):
            # onnxruntime falls back to the CPU with a message only
            raise CheckpointError(
                f"{path}: onnxruntime can't use {device} (it would run on {self.device}); check the installation of "
                "its libraries, or give device cpu"
            )
        text = self._session.get_modelmeta().custom_metadata_map.get(PROPERTY)
        self.metadata = ExportMetadata.from_json(text, str(path))
        inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = {each.name for each in self._session.get_outputs()}
        _check_names(path, self.metadata, inputs, outputs)
        shape = inputs[self.metadata.inputs[0]].shape
        self.input_shape = tuple(side if isinstance(side, int) else None for side in shape)

    def run(self, images: np.ndarray, image_sizes: np.ndarray) -> Sequence[np.ndarray]:
        """See :class:`Session`."""
        feed = dict(zip(self.metadata.inputs, (images, image_sizes)))
        return self._session.run(list(self.metadata.outputs), feed)


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's Core, one in the process and never freed.

    A Core that compiles a model for the CPU gives the thread a stack for signal handlers, and puts the previous one
    back when it is freed (2026.4.1). Where the previous one belongs to a Core that is freed already, the process ends
    with a segmentation fault at its next signal, for example at Ctrl-C.

    Returns:
        openvino.Core
    """
    return importlib.import_module("openvino").Core()


class _OpenVinoSession(Session):
    runtime = "openvino"

    def __init__(self, path, device, threads):
        core = openvino_core()
        self.device = _openvino_device(core, path, device)
        if path.suffix.lower() == ".xml" and not path.with_suffix(_WEIGHTS).is_file():
            raise CheckpointError(
                f"{path}: its weights {path.with_suffix(_WEIGHTS).name} are missing; copy both files to one folder"
            )
        try:
            model = core.read_model(path)
        except Exception as error:  # OpenVINO raises RuntimeError and more
            raise CheckpointError(f"{path}: {_onnx_fault(path, error)}") from None
        self.metadata = ExportMetadata.from_json(_rt_info(model), str(path))
        inputs = {name: each for each in model.inputs for name in each.get_names()}
        outputs = {name for each in model.outputs for name in each.get_names()}
        _check_names(path, self.metadata, inputs, outputs)
        shape = inputs[self.metadata.inputs[0]].get_partial_shape()
        self.input_shape = tuple(None if side.is_dynamic else side.get_length() for side in shape)
        try:
            self._model = core.compile_model(model, self.device, self._properties(threads))
        except Exception as error:
            raise CheckpointError(f"{path}: OpenVINO can't run it on {self.device} ({_in_a_line(error)})") from None
        self._outputs = [self._model.output(name) for name in self.metadata.outputs]

    def _properties(self, threads):
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device.startswith("CPU"):
            properties["INFERENCE_NUM_THREADS"] = threads
        if self.metadata.precision == "bfloat16":
            return {**properties, "INFERENCE_PRECISION_HINT": "bf16"}
        # By default OpenVINO computes float32 files in bfloat16 where the CPU has it. Its float16 finds other people.
        return {**properties, "EXECUTION_MODE_HINT": "ACCURACY"}

    def run(self, images: np.ndarray, image_sizes: np.ndarray) -> Sequence[np.ndarray]:
        """See :class:`Session`."""
        results = self._model(dict(zip(self.metadata.inputs, (images, image_sizes))))
        return [results[output] for output in self._outputs]


_SESSIONS = {"onnxruntime": _OnnxRuntimeSession, "openvino": _OpenVinoSession}


def _check_names(path, metadata, inputs, outputs):
    missing = sorted({*metadata.inputs} - {*inputs}) + sorted({*metadata.outputs} - {*outputs})
    if missing:
        raise CheckpointError(
            f"{path}: it lacks the inputs or outputs {', '.join(missing)} that its metadata name; export it again, and "
            "keep the names in later steps"
        )


# onnxruntime's, by name of the device
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def _provider(onnxruntime, path, device):
    """onnxruntime's provider of a device, with its options."""
    kind, _, number = device.partition(":")
    kind = kind.lower() if kind.lower() in _PROVIDERS else kind
    name = _PROVIDERS.get(kind, kind)
    available = onnxruntime.get_available_providers()
    if name not in available:
        remedy = "pip install onnxruntime-gpu in place of onnxruntime, or give cpu" if kind == "cuda" else "give cpu"
        raise CheckpointError(
            f"{path}: the installed onnxruntime has no device {device!r}, only {', '.join(available)}; {remedy}"
        )
    if not number:
        return name
    if not number.isdecimal():
        raise ValueError(f"device must be like cpu, cuda or cuda:1, got {device!r}")
    return name, {"device_id": number}


def _openvino_device(core, path, device):
    kind, _, number = device.upper().partition(":")
    name = f"{kind}.{number}" if number else kind
    if name not in core.available_devices and name != "AUTO":
        raise CheckpointError(
            f"{path}: OpenVINO has no device {device!r} here, only {', '.join(core.available_devices)}; give cpu"
        )
    return name


def _rt_info(model):
    """The text of the metadata property; OpenVINO keeps the properties of an ONNX file under "framework"."""
    for place in ([PROPERTY], ["framework", PROPERTY]):
        with suppress(RuntimeError):
            return str(model.get_rt_info(place).value)
    return None


def _onnx_fault(path, error):
    """Why a runtime could not load a file, and the remedy."""
    text = _in_a_line(error)
    if "external" in text.lower():
        return f"its weights are in a second file that is missing or damaged ({text}); copy both files to one folder"
    return f"it is damaged, or not a file that this runtime reads ({text}); copy or export it again"


def _in_a_line(error):
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _default_threads():
    """OMP_NUM_THREADS, as in PyTorch, or the number of cores that this process may use.

    Given to the runtimes: their own defaults count all cores of the machine, also in a container with few of them.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1
    return max(1, len({_siblings(cpu) for cpu in cpus}))


def _siblings(cpu):
    """The hardware threads of a CPU's core, as Linux writes them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return cpu
