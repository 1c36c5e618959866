"""Published weights by name: which there are, and their files."""

import difflib
import os
import zipfile
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathHandler, PathManager

from dynpose.config import load_config
from dynpose.data import register_datasets_for_schema
from dynpose.methods import PublishedWeights, find_library_weights, registered_weights

from .downloading import fetch_weights, find_downloaded
from .errors import CheckpointError
from .imagenet import detect_imagenet
from .reading import DamagedCheckpointError, UnsafeCheckpointError, load_checkpoint, read_verified
from .released import compare_shapes, convert_released, detect_released

__all__ = [
    "PREFIX",
    "check_name",
    "find_weights",
    "list_weights",
    "locate_weights",
    "needs_download",
    "origin",
    "weights_of_config",
]

PREFIX = "dynpose://"
"""Prefix of the names of published weights as a URL, as in detectron2's model zoo."""

_DETECTRON2 = "detectron2://"


def find_weights(name: str) -> PublishedWeights | None:
    """Find published weights.

    Args:
        name (str): a name, alone or after ``dynpose://``; a file name of docs/weights.md; a name of timm with its tag,
            such as "convnext_tiny.in12k_ft_in1k"; or the URL of a file, ``http://``, ``https://`` or ``detectron2://``.

    Returns:
        PublishedWeights | None: None = no weights have that name.

    Raises:
        CheckpointError: the name is an invalid URL.

    Example::

        >>> find_weights("fcpose_r50").configs
        ('FCPose/R_50_3x_release.yaml',)
    """
    name = name.removeprefix(PREFIX)
    known = registered_weights()
    for weights in known:
        if name == weights.name or (weights.drive_id and weights.drive_id in name):
            return weights
    for weights in known:
        if name == weights.file or (name == weights.link and not weights.by_hand):
            return weights
    if "://" in name:
        return _of_url(name)
    return find_library_weights(name)


def check_name(path: str) -> PublishedWeights | None:
    """Check a value of MODEL.WEIGHTS that is neither a file nor a URL.

    Args:
        path (str): "" = no weights.

    Returns:
        PublishedWeights | None: the published weights of that name; None for a file, and for a URL that iopath handles.

    Raises:
        CheckpointError: there is neither such a file nor such a name, for which the message lists similar names; or the
            URL is invalid.
    """
    if not path or os.path.isfile(path):
        return None
    weights = find_weights(path)
    if weights is None and ("://" not in path or path.startswith(PREFIX)):
        raise CheckpointError(
            f"{path}: no such file, nor published weights of that name; {_suggest(path)}give a file as MODEL.WEIGHTS, "
            "a name that `dynpose model-info --weights-list` prints, or '' for none"
        )
    return weights


def locate_weights(path: str) -> str:
    """Return the file of a value of MODEL.WEIGHTS; published weights are downloaded if they are not on this machine.

    Args:
        path (str): a file, a name or a URL, see :func:`find_weights`.

    Returns:
        str: path of the file; a URL with another prefix or a query unchanged.

    Raises:
        CheckpointError: there is no such file or name, or it can't be downloaded.
    """
    weights = check_name(path)
    return path if weights is None else fetch_weights(weights, partial(_check_content, weights))


def needs_download(path: str) -> bool:
    """Whether a value of MODEL.WEIGHTS must be downloaded; see :func:`locate_weights`.

    False for weights that people must fetch by hand, since no download will help.

    Raises:
        CheckpointError: there is no such file or name.
    """
    weights = check_name(path)
    if weights is None:
        return "://" in path and not os.path.isfile(path)
    return find_downloaded(weights) is None and not weights.by_hand


def weights_of_config(name: str) -> PublishedWeights | None:
    """Find the weights that fill the model of a config.

    Args:
        name (str): of a config that comes with dynpose, YAML or lazy.

    Returns:
        PublishedWeights | None: None = none are published.
    """
    stem = Path(name).with_suffix("").as_posix()
    for weights in registered_weights():
        if any(Path(config).with_suffix("").as_posix() == stem for config in weights.configs):
            return weights
    return None


def list_weights() -> list[tuple[str, str, str, str, str, str]]:
    """List the published weights, as docs/weights.md has them.

    Returns:
        list[tuple]: rows in Markdown, of name, title, configs or file, AP as published, licence and origin.
    """
    rows = []
    for weights in registered_weights():
        names = [Path(config).as_posix() for config in weights.configs] or [weights.file]
        configs, link = ", ".join(f"`{name}`" for name in names), f"[{_how(weights)}]({weights.link})"
        rows.append((f"`{weights.name}`", weights.title, configs, weights.ap, weights.licence, link))
    return rows


def origin(weights: PublishedWeights) -> str:
    """Where weights are: "on this machine", or how and where to get them.

    Args:
        weights (PublishedWeights)
    """
    return "on this machine" if find_downloaded(weights) else f"{_how(weights)}: {weights.link}"


def _how(weights):
    return "by hand" if weights.by_hand else "download"


def _suggest(name):
    names = [weights.name for weights in registered_weights()]
    files = {weights.file: weights.name for weights in registered_weights()}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), [*names, *files], n=3, cutoff=0.6)
    close = list(dict.fromkeys(files.get(each, each) for each in close))
    return f"did you mean {' or '.join(close)}? Otherwise, " if close else ""


def _of_url(url):
    """Weights at any URL of a file, cached where iopath caches them; None for a URL with another prefix or a query."""
    if url.startswith(_DETECTRON2):
        url = f"https://dl.fbaipublicfiles.com/detectron2/{url.removeprefix(_DETECTRON2)}"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CheckpointError(f"{url}: it is no valid URL ({error}); correct it, or give a file") from error
    file = parts.path.lstrip("/")
    if parts.scheme not in ("http", "https") or parts.query or not os.path.basename(file) or ".." in file.split("/"):
        return None
    return PublishedWeights(name=url, title="a file", file=file, link=url)


def _check_content(weights, path):
    """Refuse a file that does not hold the published weights, by their names and shapes."""
    state = _read(path)["model"]
    if not isinstance(state, dict) or not all(
        isinstance(value, (torch.Tensor, np.ndarray)) for value in state.values()
    ):
        raise CheckpointError("it holds no named tensors")
    if weights.configs:
        fault = _compare_with_config(state, weights.configs[0])
    elif weights.backbone:
        found = detect_imagenet(state)
        is_it = found is not None and found.backbone == weights.backbone
        fault = "" if is_it else f"its parameters do not have the names of {weights.backbone}"
    else:
        fault = ""
    if fault:
        raise CheckpointError(fault)


def _read(path):
    """Read a checkpoint, with the checksums of an archive."""
    if not zipfile.is_zipfile(path):
        return load_checkpoint(path)
    try:
        return read_verified(path)
    except (DamagedCheckpointError, UnsafeCheckpointError) as error:
        raise CheckpointError(str(error)) from error


def _compare_with_config(state, name):
    """Compare released weights with the model of a config, which takes no memory: its parameters have no values."""
    released = detect_released(state)
    if released is None:
        return "its parameters have the names of no known release"
    cfg = load_config(name, ["MODEL.DEVICE", "meta"])
    register_datasets_for_schema(cfg)
    with torch.device("meta"):
        model = build_model(cfg)
    if type(model).__name__ != released.method:
        return f"it holds weights of {released.method}"
    converted, unknown = convert_released(state, released)
    found = compare_shapes(converted, model.state_dict())
    counts = (len(found.missing), len(found.unused) + len(unknown), len(found.misfits))
    if not any(counts):
        return ""
    few = [*found.missing, *found.unused, *unknown, *found.misfits][:3]
    return (
        f"compared with {name}, {counts[0]} parameters are missing, {counts[1]} unknown and {counts[2]} of another "
        f"shape ({', '.join(few)})"
    )


class _Handler(PathHandler):
    """Lets detectron2's PathManager open published weights by ``dynpose://`` and their name."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        self._check_kwargs(kwargs)
        return locate_weights(path)

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        self._check_kwargs(kwargs)
        return open(locate_weights(path), mode, buffering)


PathManager.register_handler(_Handler())
