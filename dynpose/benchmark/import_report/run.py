"""One run of `dynpose benchmark import`."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from dynpose.benchmark.gpu_report.figures import COMBINED, FORMAT, INDEX, read_json
from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open

from .blocks import BLOCKS, replace_blocks

# beside the page
_IMAGES = {f"{COMBINED}.png": "kp_net_gpu.png"}


def measure(args: Namespace) -> dict[str, Any]:
    """Fill the marked blocks of the page.

    Args:
        args: of the command.

    Returns:
        ``docs``, ``device``, ``commit``, and the names of the blocks that were ``filled`` and ``kept`` and of the
        copied ``images``.

    Raises:
        ConfigError: the folder holds no report that can be imported, figures of it are damaged, or the page has no or
            broken markers.
    """
    heading = read_heading(args.folder, args.commit)
    try:
        text = args.docs.read_text()
    except OSError as error:
        raise ConfigError(f"--docs {args.docs}: {error.strerror}; run it in a checkout, or name the page") from error
    text, filled, kept = replace_blocks(text, args.docs, lambda name, block: _fill(name, args.folder, heading, block))
    with atomic_open(args.docs) as file:
        file.write(text)
    return {
        "docs": str(args.docs),
        **{key: heading[key] for key in ("device", "commit")},
        "filled": filled,
        "kept": kept,
        "images": _copy_images(args.folder, args.docs.parent / "images"),
    }


def read_heading(folder: Path, commit: str | None = None) -> dict[str, Any]:
    """Read report.json and check that the report can be imported.

    Args:
        folder: of the report.
        commit: the commit that was measured, if the report does not name it.

    Raises:
        ConfigError: with the remedy.
    """
    path, again = folder / INDEX, "run dynpose benchmark gpu-report again"
    report = read_json(folder, path.stem)
    if not isinstance(report, dict) or not {"format", "parts", "date"} <= report.keys():
        raise ConfigError(f"{path}: not a report of dynpose benchmark gpu-report; name its folder")
    if report.get("format") != FORMAT:
        raise ConfigError(f"{path}: format is {report.get('format')!r}, but this version reads {FORMAT}; {again}")
    if report.get("rehearsal"):
        raise ConfigError(f"{path}: this is a rehearsal on a CPU, whose figures mean nothing; run it on a GPU")
    if not report.get("device"):
        raise ConfigError(f"{path}: device is missing, since the part of that name was not done; {again}")
    commit = commit or report.get("commit")
    if not commit:
        raise ConfigError(f"{path}: commit is missing; give the one that was measured with --commit")
    return {**report, "commit": commit}


def _fill(name, folder, heading, block):
    try:
        return BLOCKS[name](folder, heading, block)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{folder}: the figures of the block {name} are damaged or of another command "
            f"({type(error).__name__}: {error}); restore the JSON files of the report, or remove the damaged one. The "
            "page is unchanged"
        ) from error


def _copy_images(folder, images):
    copied = []
    for name, target in _IMAGES.items():
        if (folder / name).exists():
            images.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, images / target)
            copied.append(f"{images / target}")
    return copied
