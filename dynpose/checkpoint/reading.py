"""Reading checkpoint files without running code in them.

A pickle may name any function, which is called when it is read. Here it may name only the parts of tensors and arrays,
unless the user trusts the file and sets PyTorch's environment variable. This is no config key, because config files are
distributed together with weights.
"""

import os
import pickle
import re
import zipfile
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import load_file

from .errors import CheckpointError

__all__ = [
    "TRUST_VARIABLE",
    "DamagedCheckpointError",
    "UnsafeCheckpointError",
    "load_checkpoint",
    "read_checkpoint",
    "read_verified",
    "trusts_checkpoints",
]

TRUST_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""PyTorch's environment variable: with "1" or "true" checkpoints may hold, and run, anything."""

# Names in pickles of numpy arrays, of all numpy versions since Python 2
_ARRAY_GLOBALS = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict")}


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A checkpoint that holds more than weights."""


class DamagedCheckpointError(ValueError):
    """A checkpoint that is missing or incomplete; the message gives the reason without the file name."""


def trusts_checkpoints() -> bool:
    """Whether :data:`TRUST_VARIABLE` allows checkpoints to run code."""
    return os.environ.get(TRUST_VARIABLE, "0").lower() in ("1", "y", "yes", "true")


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint as :func:`read_checkpoint` does, with errors for users.

    Args:
        path (str | PathLike): the file.

    Returns:
        dict: see :func:`read_checkpoint`.

    Raises:
        CheckpointError: the file is missing, can't be read, or holds more than weights.
    """
    try:
        return read_checkpoint(os.fspath(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the weights of a trained model") from None
    except UnsafeCheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a truncated archive, a text file and others raise different errors
        raise CheckpointError(
            f"{path}: can't be read as a checkpoint ({type(error).__name__}: {error}). It may be truncated or not a "
            "checkpoint; copy it again or give another file"
        ) from error


def read_verified(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of ``torch.save`` and verify its checksums, which ``torch.load`` does not.

    Args:
        path (str | PathLike): the file.

    Returns:
        dict: see :func:`read_checkpoint`.

    Raises:
        DamagedCheckpointError: the file is missing, incomplete, modified or not a checkpoint.
        UnsafeCheckpointError: see :func:`read_checkpoint`.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names, broken = file.namelist(), file.testzip()
    except FileNotFoundError:
        raise DamagedCheckpointError("it does not exist") from None
    except Exception as error:  # from zlib, struct and others on corrupt files
        raise DamagedCheckpointError(f"it is incomplete ({error})") from error
    if not names:
        raise DamagedCheckpointError("it is an empty archive")
    if broken is not None:
        raise DamagedCheckpointError(f"the checksum of {broken} is wrong")
    try:
        return read_checkpoint(os.fspath(path))
    except UnsafeCheckpointError:
        raise
    except Exception as error:  # torch.load may raise any exception on another type of file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedCheckpointError(f"it is not a checkpoint ({reason})") from error


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint of dynpose, detectron2 (including its model zoo), Detectron or pycls, or a safetensors file.

    Args:
        path (str): .safetensors, .pkl, .pyth, or else a file of ``torch.save``.

    Returns:
        dict: with ``model``, as in ``DetectionCheckpointer``; ``model`` is the ``state_dict`` of a file that has one.

    Raises:
        UnsafeCheckpointError: it holds more than weights, and the user has not declared it trusted.
        Exception: the errors of the decoders for a corrupt file.
    """
    if path.endswith(".safetensors"):
        return {"model": load_file(path)}
    if path.endswith(".pkl"):
        return _as_detectron(_read_pickle(path))
    checkpoint = _read_torch(path)
    if path.endswith(".pyth"):
        state = {key: value for key, value in checkpoint["model_state"].items() if "num_batches_tracked" not in key}
        return {"model": state, "__author__": "pycls", "matching_heuristics": True}
    return _with_model(checkpoint)


def _with_model(checkpoint):
    """Convert content of ``torch.save`` to ``DetectionCheckpointer``'s format; some files have a ``state_dict``."""
    # The released CID's training checkpoints have the model's name as "model"
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        checkpoint = {"model": checkpoint}
    weights = checkpoint["model"]
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        return {**checkpoint, "model": weights["state_dict"]}
    return checkpoint


def _read_torch(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusts_checkpoints())
    except pickle.UnpicklingError as error:
        # PyTorch reports an unsupported operand for bytes that are not a pickle
        unsafe = [line for line in str(error).splitlines() if re.search("GLOBAL|Unsupported (?!operand)", line)]
        if not unsafe:
            raise
        raise UnsafeCheckpointError(_unsafe(unsafe[0].strip())) from error


def _read_pickle(path):
    """Read a pickle of numpy arrays, including pickles of Python 2."""
    with PathManager.open(path, "rb") as file:
        unpickler = pickle.Unpickler if trusts_checkpoints() else _ArrayUnpickler
        return unpickler(file, encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in _SAFE_REPLACEMENTS:
            return _SAFE_REPLACEMENTS[module, name]
        if (module, name) not in _ARRAY_GLOBALS:
            raise UnsafeCheckpointError(_unsafe(f"it refers to {module}.{name}"))
        return super().find_class(module, name)


def _encode(text, encoding="latin1"):
    if encoding != "latin1" or not isinstance(text, str):
        raise UnsafeCheckpointError(_unsafe(f"it encodes by {encoding!r}"))
    return text.encode("latin1")


def _empty_bytes():
    return b""


# Names that Python 3 writes in pickles of bytes for Python 2
_SAFE_REPLACEMENTS = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}


def _unsafe(reason):
    return (
        f"it holds more than weights, which would run when it is read: {reason}. If you trust where it comes from, set "
        f"the environment variable {TRUST_VARIABLE}=1"
    )


def _as_detectron(data):
    """Convert a pickle to ``DetectionCheckpointer``'s format: without detectron2's keys, it is Detectron's."""
    if "model" in data and "__author__" in data:
        return data
    # detectors have "blobs", ImageNet models have none
    weights = {key: value for key, value in data.get("blobs", data).items() if not key.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
