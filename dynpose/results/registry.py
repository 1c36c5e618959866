"""The formats by name. The command line lists them, so that this module imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .results import Results

__all__ = ["FORMATS", "ResultFormat", "check_formats", "write_formats"]


class ResultFormat(NamedTuple):
    """A format: a module with ``write`` and, if it has requirements, ``check``; see :func:`write_formats`."""

    module: str | None
    """In this package; None = the record itself is the file"""
    description: str
    """Files and their readers, in a few words"""


FORMATS = {
    "json": ResultFormat(None, "predictions.json and predictions.jsonl, which every run writes"),
    "coco": ResultFormat("coco", "coco_results.json, for pycocotools and COCO's evaluation server"),
    "csv": ResultFormat("csv_table", "predictions.csv, a row per keypoint"),
    "parquet": ResultFormat("parquet", "predictions.parquet, a row per person; needs pyarrow"),
    "yolo-pose": ResultFormat("yolo", "yolo-pose/, a data set for Ultralytics"),
    "cvat": ResultFormat("cvat", "cvat/, skeletons to correct in CVAT (CVAT for images 1.1)"),
    "label-studio": ResultFormat("label_studio", "label_studio/, predictions to correct in Label Studio"),
}
"""Name -> format."""


def check_formats(formats: Sequence[str], results: Results, folder: Path) -> None:
    """Check, before predicting, what the formats need: packages, annotation, a folder that may be replaced.

    Args:
        formats (Sequence[str]): keys of :data:`FORMATS`.
        results (Results): ``entries`` is not called.
        folder (Path): of the results; it may not exist.

    Raises:
        ConfigError, DatasetError: a requirement is not met.
    """
    for module in _modules(formats):
        if hasattr(module, "check"):
            module.check(results, folder)


def write_formats(formats: Sequence[str], results: Results, folder: Path) -> Iterator[str]:
    """Write files atomically, replacing earlier ones.

    Args:
        formats (Sequence[str]): keys of :data:`FORMATS`.
        results (Results): the predictions.
        folder (Path): an existing folder.

    Yields:
        str: lines for the user, after each format: the files, their numbers, and what was left out.

    Raises:
        DatasetError: the predictions don't fit the annotation.
        OSError: a file can't be written; an earlier one of this name is unchanged.
    """
    for module in _modules(formats):
        try:
            yield from module.write(results, folder)
        except OSError as error:
            raise OSError(
                f"{error.filename or folder}: can't be written ({error.strerror or error}); the predictions are kept: "
                "free disk space, and write the file with --resume"
            ) from error


def _modules(formats):
    names = [FORMATS[name].module for name in dict.fromkeys(formats)]
    return [importlib.import_module(f".{name}", __package__) for name in names if name is not None]
