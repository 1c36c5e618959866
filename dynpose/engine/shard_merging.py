"""Joining the files of all shards into one, image by image, and writing it as Parquet for analysis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open

from .prediction_record import find_results
from .sharding import Shard, shard_files

__all__ = ["MergedShards", "merge_shards"]

# What the headers of all shards must have in common
_MADE_WITH: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weights": lambda header: header["made_with"]["weights"]["sha256"],
    "configs": lambda header: header["made_with"]["config"],
    "keypoints": lambda header: header["info"]["keypoint_names"],
    "classes": lambda header: header["info"]["category_names"],
}
# Rows of a row group: the unit that Parquet's readers load
_ROW_GROUP = 10_000


@dataclass
class MergedShards:
    """What :func:`merge_shards` has joined.

    Attributes:
        count (int): number of shards.
        missing (list[int]): indices of shards without a file.
        incomplete (list[int]): indices of shards that are still running or have ended early.
        images, videos, frames, people, skipped, damaged (int): numbers of images, of videos, of their frames, of
            predicted people, of skipped files and frames, and of unreadable lines.
    """

    count: int
    missing: list[int] = field(default_factory=list)
    incomplete: list[int] = field(default_factory=list)
    images: int = 0
    videos: int = 0
    frames: int = 0
    people: int = 0
    skipped: int = 0
    damaged: int = 0


def merge_shards(folder: Path, *, whole_json: bool = False, parquet: bool = False) -> MergedShards:
    """Join the shards of a folder into ``predictions.jsonl``, in the format of a run without shards.

    Shards follow each other, each in its own order. Results are read and written one image at a time; of the lines of
    one shard at a time, only the names and positions are in memory.

    Args:
        folder (Path): with files such as ``predictions-00003-of-00016.jsonl``.
        whole_json (bool): also write ``predictions.json``.
        parquet (bool): also write ``predictions.parquet``: a row for each image and frame, with its people as a list of
            structs, and a row group for each 10,000 rows. Coordinates and scores are float32.

    Returns:
        MergedShards: missing and incomplete shards are left out or joined as they are; the merged file then has no mark
        of its end, and ``dynpose predict --resume`` without shards continues with the missing images.

    Raises:
        ConfigError: there are no shards, shards of two counts, of two models or of different inputs,
            ``predictions.jsonl`` is of a run without shards, or pyarrow is not installed.
        OSError: a file can't be written; an earlier one is unchanged.
    """
    shards = _find_shards(folder)
    headers = {shard: _read_header(path) for shard, path in shards.items()}
    _check_same(shards, headers)
    lines_path = folder / "predictions.jsonl"
    if lines_path.exists() and "shards" not in _read_header(lines_path)["info"]:
        raise ConfigError(f"{lines_path} is of a run without shards: move it to another folder")
    count = next(iter(shards)).count
    merged = MergedShards(count, missing=sorted(set(range(count)) - {shard.index for shard in shards}))
    first = next(iter(headers.values()))
    info = {key: value for key, value in first["info"].items() if key != "shard"}
    with ExitStack() as stack:
        outputs: list[_Output] = [_Lines(stack.enter_context(atomic_open(lines_path, "wb")), first, info, count)]
        if whole_json:
            outputs.append(_WholeJSON(stack.enter_context(atomic_open(folder / "predictions.json", "wb"))))
        if parquet:
            outputs.append(_Parquet(stack.enter_context(atomic_open(folder / "predictions.parquet", "wb")), info))
        for shard, path in shards.items():
            for line in _lines_of(shard, path, merged):
                for output in outputs:
                    output.add(line)
        for output in outputs:
            output.finish(info, merged)
    return merged


def _find_shards(folder):
    shards = shard_files(folder)
    if not shards:
        raise ConfigError(f"{folder}: it holds no shards, files such as predictions-00003-of-00016.jsonl")
    counts = sorted({shard.count for shard in shards})
    if len(counts) > 1:
        raise ConfigError(f"{folder}: it holds shards of {counts[0]} and of {counts[1]}: move one of the two away")
    return shards


def _read_header(path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline())
            if {"info", "made_with"} <= header.keys():
                return header
        except (ValueError, AttributeError):
            pass
    raise ConfigError(f"{path} was not written by this version of dynpose predict: move it away")


def _check_same(shards: dict[Shard, Path], headers: dict[Shard, dict[str, Any]]) -> None:
    """Compare weights, config, keypoints and inputs of all shards with those of the first."""
    first, *others = shards
    inputs = ("inputs", "sha256")
    for other in others:
        for what, of_header in _MADE_WITH.items():
            if of_header(headers[first]) != of_header(headers[other]):
                raise ConfigError(
                    f"{shards[first]} and {shards[other]} were made with other {what}: predict one of them again"
                )
        if any(headers[first]["info"]["shard"][key] != headers[other]["info"]["shard"][key] for key in inputs):
            raise ConfigError(
                f"{shards[first]} and {shards[other]} have other inputs ({headers[first]['info']['shard']['inputs']} "
                f"and {headers[other]['info']['shard']['inputs']}, or others): predict one of them again"
            )


def _lines_of(shard, path, merged) -> Iterator[dict[str, Any]]:
    """The last line of each image and frame, then videos and skipped files, as objects; counts them."""
    results = find_results(path)
    if not results.is_complete:
        merged.incomplete.append(shard.index)
    merged.damaged += results.damaged
    with path.open("rb") as file:
        for offset in results.offsets:
            file.seek(offset)
            entry = json.loads(file.readline())
            merged.images += "frame" not in entry
            merged.frames += "frame" in entry
            merged.people += len(entry["instances"])
            yield entry
    for video in results.videos:
        merged.videos += 1
        yield {"video": video}
    for skipped in results.skipped:
        merged.skipped += 1
        yield {"skipped": skipped}


class _Output:
    """A file that takes the lines of all shards."""

    def add(self, line: dict[str, Any]) -> None:
        raise NotImplementedError

    def finish(self, info: dict[str, Any], merged: MergedShards) -> None:
        raise NotImplementedError


class _Lines(_Output):
    def __init__(self, file, header, info, count):
        self.file = file
        self._write({**header, "info": {**info, "shards": count}})

    def add(self, line):
        self._write(line)

    def finish(self, info, merged):
        if not merged.missing and not merged.incomplete:
            self._write({"complete": True})

    def _write(self, value):
        self.file.write(_json(value) + b"\n")


class _WholeJSON(_Output):
    """The file of :meth:`PredictionRecord.finish`, with ``info`` at its end: whether it is complete is known then."""

    def __init__(self, file):
        self.file = file
        self.videos = []
        self.skipped = []
        self.separator = b'{"images": ['

    def add(self, line):
        if "skipped" in line:
            self.skipped.append(line["skipped"])
            return
        if "video" in line:
            self.videos.append(_without_file(line["video"]))
            return
        self.file.write(self.separator + _json(_without_file(line)))
        self.separator = b", "

    def finish(self, info, merged):
        complete = not merged.missing and not merged.incomplete
        start = b"" if self.separator == b", " else self.separator
        parts = (self.videos, self.skipped, {**info, "complete": complete})
        self.file.write(start + b'], "videos": %s, "skipped": %s, "info": %s}\n' % tuple(map(_json, parts)))


class _Parquet(_Output):
    def __init__(self, file, info):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ConfigError("Parquet needs pyarrow: pip install 'dynpose[parquet]'") from None
        self.pyarrow = pyarrow
        self.schema = _parquet_schema(pyarrow, len(info["keypoint_names"])).with_metadata({"dynpose": _json(info)})
        self.writer = pyarrow.parquet.ParquetWriter(file, self.schema, compression="zstd")
        self.rows = []

    def add(self, line):
        if "instances" in line:
            self.rows.append(_row(line))
        if len(self.rows) == _ROW_GROUP:
            self._write()

    def finish(self, info, merged):
        self._write()
        self.writer.close()

    def _write(self):
        if self.rows:
            self.writer.write_table(self.pyarrow.Table.from_pylist(self.rows, self.schema))
        self.rows = []


def _parquet_schema(pyarrow, num_keypoints):
    point = pyarrow.list_(pyarrow.float32(), 3)
    person = {
        "category": pyarrow.int32(),
        "category_name": pyarrow.string(),
        "score": pyarrow.float32(),
        "bbox": pyarrow.list_(pyarrow.float32(), 4),
        "keypoints": pyarrow.list_(point, num_keypoints),
        "track_id": pyarrow.int32(),
    }
    return pyarrow.schema(
        {
            "file_name": pyarrow.string(),
            "width": pyarrow.int32(),
            "height": pyarrow.int32(),
            "people": pyarrow.list_(pyarrow.struct(person)),
            "not_finite": pyarrow.int32(),
            "note": pyarrow.string(),
            "frame": pyarrow.int32(),
            "time": pyarrow.float64(),
        }
    )


def _row(entry):
    # names in other encodings than UTF-8, which JSON escapes and Parquet refuses
    name = entry["file_name"].encode("utf-8", "backslashreplace").decode()
    return {**entry, "file_name": name, "people": entry["instances"]}


def _without_file(entry):
    return {key: value for key, value in entry.items() if key != "file"}


def _json(value):
    return json.dumps(value, allow_nan=False).encode()
