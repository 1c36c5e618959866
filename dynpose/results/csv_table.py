"""CSV with a row per keypoint, for spreadsheets, pandas and R."""

import csv
from pathlib import Path
from typing import Any

from .results import Results, text_file

__all__ = ["COLUMNS", "write"]

COLUMNS = (
    "file_name",
    "frame",
    "time",
    "person",
    "track_id",
    "category",
    "category_name",
    "score",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "keypoint",
    "keypoint_name",
    "x",
    "y",
    "confidence",
)
"""The header. ``frame`` and ``time`` are empty for images, ``track_id`` without a tracker."""


def write(results: Results, folder: Path) -> list[str]:
    """Write ``predictions.csv``: all predicted people, K rows each, in COCO's coordinates.

    Images without people have no row.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: a line for the user.
    """
    path, number = folder / "predictions.csv", 0
    with text_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in results.entries():
            for index, person in enumerate(entry["instances"]):
                writer.writerows(_rows(results, entry, index, person))
                number += len(person["keypoints"])
    return [f"{path}: {number} keypoints"]


def _rows(results: Results, entry: dict[str, Any], index: int, person: dict[str, Any]) -> list[tuple[Any, ...]]:
    of_person = (
        entry["file_name"],
        entry.get("frame"),
        entry.get("time"),
        index,
        person.get("track_id"),
        person["category"],
        results.class_name(person["category"]),
        person["score"],
        *person["bbox"],
    )
    return [
        (*of_person, number, name, *point)
        for number, (name, point) in enumerate(zip(results.keypoint_names, person["keypoints"]))
    ]
