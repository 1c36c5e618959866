"""Parquet with a row per person, for large collections: files of several runs are read as one data set."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open

from .results import Results

__all__ = ["check", "write"]

# People of a row group, which is held in memory: about 20 MB for 133 keypoints
_GROUP = 16384


def check(results: Results, folder: Path) -> None:
    """Check that pyarrow is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--format parquet: pyarrow is missing ({error}); pip install pyarrow") from None


def write(results: Results, folder: Path) -> list[str]:
    """Write ``predictions.parquet``: all predicted people, in COCO's coordinates.

    The columns are ``file_name``, ``frame`` and ``time`` (null for images), ``width``, ``height``, ``person``,
    ``track_id`` (null without a tracker), ``category``, ``category_name``, ``score``, ``bbox`` (4 numbers, XYWH) and
    ``keypoints`` (K x [x, y, confidence]). The names of the keypoints and the skeleton are JSON in the metadata of the
    file, under ``dynpose``. Images without people have no row.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: a line for the user.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, number = folder / "predictions.parquet", 0
    schema = _schema(pa, results)
    with atomic_open(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
        rows = _rows(results)
        while group := list(itertools.islice(rows, _GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
            number += len(group)
    return [f"{path}: {number} people"]


def _schema(pa, results):
    point = pa.list_(pa.float32(), 3)
    about = {"keypoint_names": results.keypoint_names, "skeleton": results.skeleton, "skeleton_indices": "start at 0"}
    return pa.schema(
        [
            ("file_name", pa.string()),
            ("frame", pa.int64()),
            ("time", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("person", pa.int32()),
            ("track_id", pa.int64()),
            ("category", pa.int32()),
            ("category_name", pa.string()),
            ("score", pa.float32()),
            ("bbox", pa.list_(pa.float32(), 4)),
            ("keypoints", pa.list_(point, len(results.keypoint_names))),
        ],
        metadata={"dynpose": json.dumps(about)},
    )


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    for entry in results.entries():
        name = _text(entry["file_name"])
        for index, person in enumerate(entry["instances"]):
            yield {
                "file_name": name,
                "frame": entry.get("frame"),
                "time": entry.get("time"),
                "width": entry["width"],
                "height": entry["height"],
                "person": index,
                "track_id": person.get("track_id"),
                "category": person["category"],
                "category_name": _text(results.class_name(person["category"])),
                "score": person["score"],
                "bbox": person["bbox"],
                "keypoints": person["keypoints"],
            }


def _text(text: str) -> str:
    """Parquet's text is UTF-8, which a file name, or a name in a JSON file, may not be."""
    return text.encode("utf-8", "backslashreplace").decode()
