"""The results of a prediction run: one line per image as soon as it is predicted, and one file of all at the end.

``predictions.jsonl`` has a line of strict JSON for each image, each frame of a video and each skipped file, after a
header line with the weights and the config of the run. Lines are only appended, so a killed process leaves at most a
partial last line, which is cut off when the run resumes. ``predictions.json`` is made from it when the run ends.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeAlias

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.file_io import PathManager

from dynpose.checkpoint import CheckpointError, locate_weights
from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open

__all__ = [
    "Key",
    "PredictionRecord",
    "entry_key",
    "exported_fingerprint",
    "find_results",
    "run_fingerprint",
    "to_instances",
    "to_records",
]

# Identifies the file; part of the header line
_FORMAT = {"format": "dynpose predictions", "version": 1}
# The keys that the line of an image must have
_RESULTS = {"file_name", "width", "height", "instances", "not_finite", "file"}
# The last line of a run that has finished
_COMPLETE = b'{"complete": true}\n'
# The name of an image, or that of a video and the index of a frame
Key: TypeAlias = str | tuple[str, int]

# Config keys that do not affect predictions
_WITHOUT_EFFECT = (
    "CUDNN_BENCHMARK",
    "DATALOADER.",
    "DATASETS.",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.",
    "VIS_PERIOD",
)


class PredictionRecord:
    """Results of images by name and of videos by frame, in the file ``predictions.jsonl`` of a folder.

    Args:
        folder (Path): an existing folder.
        info (dict): the meaning of the numbers; includes ``keypoint_names`` and ``category_names``.
        made_with (dict): from :func:`run_fingerprint` or :func:`exported_fingerprint`.
        resume (bool): continue with the results in the folder, if any.
        name (str): of the files, without their endings.

    Attributes:
        damaged (int): number of unreadable lines of an earlier run, which are skipped.

    Raises:
        CheckpointError, ConfigError: the results in the folder are of other weights or another config, or, without
            ``resume``, of an unfinished run, whose results would be lost.

    Example::

        >>> with PredictionRecord(folder, info, made_with) as record:
        ...     record.add_image(entry, path)
        ...     record.finish(["a.jpg"], complete=True)
    """

    def __init__(
        self,
        folder: Path,
        info: dict[str, Any],
        made_with: dict[str, Any],
        resume: bool = False,
        name: str = "predictions",
    ):
        self.path = folder / f"{name}.jsonl"
        self.all_path = folder / f"{name}.json"
        self.info = info
        self.damaged = 0
        self._places: dict[Key, _Place] = {}
        # the recorded frames of each video
        self._frames: dict[str, set[int]] = {}
        self._videos: dict[str, dict[str, Any]] = {}
        self._earlier_skips: dict[Key, dict[str, Any]] = {}
        self._skipped: dict[Key, dict[str, Any]] = {}
        lines = _read_lines(self.path) if self.path.exists() else None
        if lines is None or not (resume or lines.unfinished):
            self._begin(info, made_with)
        elif not resume:
            raise ConfigError(
                f"--output: {self.path} holds {len(lines.places)} images of an unfinished run; continue with "
                "--resume, delete the file, or give another folder"
            )
        else:
            _check_same_run(self.path, lines.header, info, made_with)
            self._places, self._earlier_skips, self.damaged = lines.places, lines.skipped, lines.damaged
            self._videos = lines.videos
            for key in self._places:
                self._count_frame(key)
            self._end = lines.end
        self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115  closed by close()
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Flush all lines to the disk."""
        with suppress(OSError):  # the lines survive the end of the process anyway
            os.fsync(self._file.fileno())
        self._file.close()

    def _begin(self, info, made_with):
        header = {**_FORMAT, "info": info, "made_with": made_with}
        with _explained(self.path), atomic_open(self.path, "wb") as file:
            self._end = file.write(_line(header))

    def has(self, key: Key, path: Path | str | int) -> bool:
        """Whether the record has the results of an image or a frame and its file is unchanged since.

        Args:
            key (Key): of the image or the frame.
            path (Path | str | int): of its file; a URL and the number of a camera count as unchanged.
        """
        place = self._places.get(key)
        return place is not None and place.file == _file_state(path)

    def frames(self, name: str, path: Path | str | int) -> list[int]:
        """The recorded frames of a video whose file is unchanged since.

        Args:
            name (str): of the video.
            path (Path | str | int): see :meth:`has`.

        Returns:
            list[int]: their indices, increasing.
        """
        state = _file_state(path)
        return sorted(index for index in self._frames.get(name, ()) if self._places[name, index].file == state)

    def _count_frame(self, key):
        if isinstance(key, tuple):
            self._frames.setdefault(key[0], set()).add(key[1])

    def video(self, name: str, path: Path | str | int) -> dict[str, Any] | None:
        """What :meth:`add_video` has recorded of a video whose file is unchanged since; None if nothing."""
        video = self._videos.get(name)
        if video is None or video["file"] != _file_state(path):
            return None
        return {key: value for key, value in video.items() if key != "file"}

    def lacks_picture(self, name: str) -> bool:
        """Whether writing the picture of a recorded image has failed."""
        return self._places[name].lacks_picture

    def add_image(self, entry: dict[str, Any], path: Path | str | int) -> None:
        """Add the results of an image or a frame, replacing earlier ones.

        Args:
            entry (dict): ``file_name``, ``width``, ``height``, ``instances`` and ``not_finite``, of a frame also
                ``frame`` (its index) and ``time`` (seconds), and optionally ``note`` and ``picture_error``. All numbers
                are finite.
            path (Path | str | int): see :meth:`has`.

        Raises:
            OSError: for example, the disk is full. The file is unchanged.
        """
        state = _file_state(path)
        offset = self._append({**entry, "file": state})
        key = entry_key(entry)
        self._places[key] = _Place(offset, state, "picture_error" in entry)
        self._count_frame(key)
        self._skipped.pop(key, None)

    def add_video(self, video: dict[str, Any], path: Path | str | int) -> None:
        """Add what is known of a video at its end, when all its frames are recorded.

        Args:
            video (dict): ``file_name`` and whatever describes the video and its result.
            path (Path | str | int): see :meth:`has`.

        Raises:
            OSError: see :meth:`add_image`.
        """
        entry = {**video, "file": _file_state(path)}
        if self._videos.get(video["file_name"]) != entry:
            self._append({"video": entry})
        self._videos[video["file_name"]] = entry

    def keep_skipped(self, name: str) -> None:
        """Keep what an earlier run has skipped of a video that this one does not read again."""
        for key, skipped in self._earlier_skips.items():
            if skipped["file_name"] == name:
                self._skipped[key] = skipped

    def add_skipped(
        self, name: str, reason: str, is_failure: bool, frame: int | None = None, time: float | None = None
    ) -> None:
        """Record that a file or a frame is not predicted.

        Args:
            name (str): of the file; of a folder with a trailing slash.
            reason (str): in one line.
            is_failure (bool): it is, or may hold, an image.
            frame (int | None): index of the frame of a video; None = the whole file.
            time (float | None): of the frame, seconds.

        Raises:
            OSError: see :meth:`add_image`.
        """
        of_frame = {} if frame is None else {"frame": frame, "time": time}
        skipped = {"file_name": name, **of_frame, "reason": reason, "is_failure": is_failure}
        key = entry_key(skipped)
        if self._earlier_skips.get(key) != skipped or key in self._places:
            self._append({"skipped": skipped})
        if self._places.pop(key, None) is not None and frame is not None:
            self._frames[name].discard(frame)
        self._skipped[key] = skipped

    @property
    def result_path(self) -> Path:
        """Path: the file in which the user finds all results and skipped files."""
        return self.all_path

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """list[dict]: ``file_name``, ``reason`` and ``is_failure`` of the files and frames that this run skipped."""
        return list(self._skipped.values())

    def entries(self, keys: Iterable[Key]) -> Iterator[dict[str, Any]]:
        """Read results back, one at a time.

        Args:
            keys (Iterable[Key]): of images and frames; those without results are skipped.

        Yields:
            dict: see :meth:`add_image`.
        """
        with open(self.path, "rb") as file:
            for key in keys:
                if key in self._places:
                    file.seek(self._places[key].offset)
                    entry = json.loads(file.readline())
                    del entry["file"]
                    yield entry

    def finish(
        self,
        keys: Iterable[Key],
        complete: bool,
        on_entry: Callable[[dict[str, Any]], None] = lambda entry: None,
        videos: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write ``predictions.json`` as a whole, reading and writing one image at a time.

        Args:
            keys (Iterable[Key]): of all images and frames of the run, in the order of the file.
            complete (bool): whether no image is missing.
            on_entry (Callable[[dict], None]): called with each image's results.
            videos (Sequence[dict]): of :meth:`video`.

        Raises:
            OSError: the file can't be written; an earlier one is unchanged.
        """
        with _explained(self.all_path), atomic_open(self.all_path, "wb") as file:
            file.write(b'{"info": %s, "images": [' % _json({**self.info, "complete": complete}))
            for index, entry in enumerate(self.entries(keys)):
                file.write((b", " if index else b"") + _json(entry))
                on_entry(entry)
            file.write(b'], "videos": %s, "skipped": %s}\n' % (_json(list(videos)), _json(self.skipped)))
        if complete:
            self._append({"complete": True})

    def _append(self, value):
        """Append a whole line or nothing; return its offset."""
        offset = self._end
        try:
            with _explained(self.path):
                rest = memoryview(_line(value))
                self._end += len(rest)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except BaseException:
            self._end = offset
            with suppress(OSError):  # otherwise the partial line is cut off on resuming
                self._file.truncate(offset)
            self._file.seek(offset)
            raise
        return offset


class _Place(NamedTuple):
    offset: int
    """Offset of the line in the file"""
    file: list[int] | None
    """State of the image file, see _file_state"""
    lacks_picture: bool


class _Lines(NamedTuple):
    header: dict[str, Any]
    places: dict[Key, _Place]
    videos: dict[str, dict[str, Any]]
    skipped: dict[Key, dict[str, Any]]
    damaged: int
    unfinished: bool
    """Whether there are results of a run that did not finish"""
    end: int
    """Offset of the end of the last whole line"""


def _read_lines(path):
    """Read the lines of a run; None if there are none.

    Raises:
        ConfigError: it is another kind of file.
    """
    places, videos, skipped, damaged, is_complete, end = {}, {}, {}, 0, False, 0
    with open(path, "rb") as file:
        first = file.readline()
        if not first:
            return None
        header = _parse(first)
        if not _is_header(header):
            raise ConfigError(
                f"--output: {path} was not written by this version of dynpose predict; give another folder"
            )
        end = len(first)
        for line in iter(file.readline, b""):
            value = _parse(line)
            is_complete = value is not None and "complete" in value
            try:
                if value is None:
                    damaged += line.endswith(b"\n")
                elif "skipped" in value:
                    key = entry_key(value["skipped"])
                    skipped[key] = value["skipped"]
                    places.pop(key, None)
                elif "video" in value:
                    if _leads_out(value["video"]["file_name"]):
                        raise KeyError
                    videos[value["video"]["file_name"]] = {"file": None, **value["video"]}
                elif not is_complete:
                    if _RESULTS - value.keys() or _leads_out(value["file_name"]):
                        raise KeyError
                    key = entry_key(value)
                    places[key] = _Place(end, value["file"], "picture_error" in value)
                    skipped.pop(key, None)
            except (KeyError, TypeError):
                damaged += 1
            if line.endswith(b"\n"):
                end += len(line)
    return _Lines(header, places, videos, skipped, damaged, bool(places) and not is_complete, end)


def _leads_out(name):
    """Whether a name, under which files are written, leads out of their folder; dynpose records no such name."""
    path = PurePath(name)
    return path.is_absolute() or ".." in path.parts


def _is_header(header):
    if header is None or {key: header.get(key) for key in _FORMAT} != _FORMAT:
        return False
    try:
        return bool(header["made_with"]["weights"]["sha256"]) and isinstance(header["made_with"]["config"], dict)
    except (KeyError, TypeError):
        return False


def _parse(line):
    """The object of a whole line; None for an invalid or partial line."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _json(value):
    return json.dumps(value, allow_nan=False).encode()


def _line(value):
    return _json(value) + b"\n"


def _file_state(path):
    """Size in bytes and modification time in ns, as the list that JSON gives; None if the file is gone."""
    if isinstance(path, int):  # of a camera, and not of an open file
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def _explained(path):
    """Add the file and a remedy to errors of writing it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: can't be written ({error.strerror or error}); the .jsonl file keeps the results so far: free "
            "disk space, and continue with --resume"
        ) from error


class Results(NamedTuple):
    """What the file of a run holds, without the results themselves."""

    offsets: list[int]
    """Offsets of the lines with the results of each image and frame, ascending; the frames of a video are together and
    in their order"""
    videos: list[dict[str, Any]]
    """What :meth:`PredictionRecord.add_video` has recorded, with ``file``"""
    skipped: list[dict[str, Any]]
    """The files that were not predicted"""
    damaged: int
    """Number of unreadable lines"""
    is_complete: bool
    """Whether the run has finished"""


def find_results(path: Path) -> Results:
    """Find the lines that count in the file of a run.

    Args:
        path (Path): of a file of JSON lines with a header.

    Returns:
        Results

    Raises:
        ConfigError: it is another kind of file.
    """
    lines = _read_lines(path)
    with open(path, "rb") as file:
        file.seek(-min(len(_COMPLETE), os.path.getsize(path)), os.SEEK_END)
        is_complete = file.read() == _COMPLETE
    videos = list(lines.videos.values())
    return Results(_in_order(lines.places), videos, list(lines.skipped.values()), lines.damaged, is_complete)


def _in_order(places):
    """The offsets of results: by their place in the file, those of a video by frame after its first place."""
    first: dict[str, int] = {}
    for key, place in places.items():
        if isinstance(key, tuple):
            first[key[0]] = min(place.offset, first.get(key[0], place.offset))

    def order(item):
        key, place = item
        return (first[key[0]], key[1]) if isinstance(key, tuple) else (place.offset, 0)

    return [place.offset for _, place in sorted(places.items(), key=order)]


def run_fingerprint(cfg: CfgNode, precision: str) -> dict[str, Any]:
    """Describe the weights, the config keys and the precision that predictions depend on, to compare two runs.

    Args:
        cfg (CfgNode): of a model; MODEL.WEIGHTS is a file, or the name or URL of one.
        precision (str): of the predictor.

    Returns:
        dict: ``weights``, with ``file``, ``bytes`` and ``sha256``, and ``config``, the values of those keys and of
        ``--precision`` as text.
    """
    weights = {"file": cfg.MODEL.WEIGHTS, **_contents([locate_weights(cfg.MODEL.WEIGHTS)])}
    # libyaml's is ten times as fast
    values = _flatten(yaml.load(cfg.dump(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    config = {key: values[key] for key in values if not key.startswith(_WITHOUT_EFFECT)}
    return {"weights": weights, "config": {**config, "--precision": precision}}


def exported_fingerprint(files: Sequence[str], runtime: str) -> dict[str, Any]:
    """Describe an exported model, as :func:`run_fingerprint` does the weights and the config of one in PyTorch.

    Args:
        files (Sequence[str]): the exported file, and those that hold its weights.
        runtime (str): that runs it.
    """
    return {"weights": {"file": files[0], **_contents(files)}, "config": {"runtime": runtime}}


def _contents(files):
    """The number of bytes and the digest of all bytes of files."""
    digest, size = hashlib.sha256(), 0
    for name in files:
        with PathManager.open(name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _flatten(values, prefix=""):
    if not isinstance(values, dict):
        return {prefix[:-1]: str(values)}
    return {key: value for name in values for key, value in _flatten(values[name], f"{prefix}{name}.").items()}


def _check_same_run(path, header, info, made_with):
    old, new = header["made_with"], made_with
    if old["weights"]["sha256"] != new["weights"]["sha256"]:
        raise CheckpointError(
            f"{_describe_weights(new['weights'])}: --resume needs the weights that {path} was started with, "
            f"{_describe_weights(old['weights'])}; give these, or another --output"
        )
    values = {**old["config"], **_names(header["info"])}, {**new["config"], **_names(info)}
    differing = [key for key in sorted({*values[0], *values[1]}) if values[0].get(key) != values[1].get(key)]
    if differing:
        shown = [f"{key} is {values[1].get(key)}, was {values[0].get(key)}" for key in differing[:3]]
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{', '.join(shown)}{more}: --resume needs the config that {path} was started with; give it, or another "
            "--output"
        )


def _describe_weights(weights):
    return f"{weights['file']} ({weights['bytes']} bytes, sha256 {weights['sha256'][:12]}...)"


def _names(info):
    return {key: info[key] for key in ("keypoint_names", "category_names")}


def entry_key(entry: dict[str, Any]) -> Key:
    """The key of an image, a frame, or a skipped one.

    Args:
        entry (dict): with ``file_name``, and of a frame with ``frame``.
    """
    return (entry["file_name"], entry["frame"]) if "frame" in entry else entry["file_name"]


def to_records(instances: Instances, category_names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Turn predictions into plain numbers for JSON.

    Args:
        instances (Instances): N people on the CPU, in continuous pixels.
        category_names (Sequence[str]): of the classes, in the order of their indices; empty = unknown.

    Returns:
        list[dict]: ``category`` (class index), ``category_name`` if known, ``track_id`` if the person has one, ``bbox``
        (XYWH), ``score`` and ``keypoints``, K times [x, y, confidence] in COCO's pixel convention, half a pixel less.
    """
    boxes = instances.pred_boxes.tensor.clone()
    boxes[:, 2:] -= boxes[:, :2]
    keypoints = instances.pred_keypoints.clone()
    keypoints[:, :, :2] -= 0.5
    track_ids = instances.track_ids.tolist() if instances.has("track_ids") else [-1] * len(instances)
    return [
        {
            "category": category,
            **({"category_name": category_names[category]} if category < len(category_names) else {}),
            **({"track_id": track_id} if track_id >= 0 else {}),
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
            "keypoints": [[round(x, 3), round(y, 3), round(confidence, 5)] for x, y, confidence in person],
        }
        for category, box, score, person, track_id in zip(
            instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), keypoints.tolist(), track_ids
        )
    ]


def to_instances(entry: dict[str, Any], num_keypoints: int) -> Instances:
    """Turn an image's results back into predictions, with the numbers as rounded by :func:`to_records`.

    Args:
        entry (dict): ``height``, ``width`` and ``instances``, N people.
        num_keypoints (int): K.

    Returns:
        Instances: N people in continuous pixels, with ``pred_boxes``, ``scores``, ``pred_classes`` and
        ``pred_keypoints`` (N, K, 3), and with ``track_ids`` (N,) int64, -1 = none, if a person has one.
    """
    people = entry["instances"]
    boxes = torch.tensor([person["bbox"] for person in people], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    keypoints = torch.tensor([person["keypoints"] for person in people], dtype=torch.float32)
    keypoints = keypoints.reshape(-1, num_keypoints, 3)
    keypoints[:, :, :2] += 0.5
    instances = Instances(
        (entry["height"], entry["width"]),
        pred_boxes=Boxes(boxes),
        scores=torch.tensor([person["score"] for person in people], dtype=torch.float32),
        pred_classes=torch.tensor([person["category"] for person in people], dtype=torch.int64),
        pred_keypoints=keypoints,
    )
    if any("track_id" in person for person in people):
        instances.track_ids = torch.tensor([person.get("track_id", -1) for person in people], dtype=torch.int64)
    return instances
