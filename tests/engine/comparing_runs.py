"""What two runs leave, compared file by file: for test_restart.py and kill_sweep.py."""

import json
import math
from pathlib import Path

import torch

# They say when and where a run was, and how often it was started
_OF_ITS_OWN = ("run.json", "events.out", "log.txt")
_TIMINGS = ("time", "data_time", "rank_data_time", "eta_seconds")


def list_files(folder):
    """The paths within a run's folder that two runs of a kind have in common."""
    paths = (path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if not path.name.startswith(_OF_ITS_OWN))


def flat_state(path):
    """All that a checkpoint holds, as a flat dict."""
    return dict(_flatten(torch.load(path, weights_only=True)))


def read_metrics(path):
    """The lines of metrics.json by their iterations, without what depends on the clock."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    by_iteration = {line["iteration"]: {key: line[key] for key in line if key not in _TIMINGS} for line in lines}
    assert len(by_iteration) == len(lines), f"{path}: an iteration occurs twice"
    return by_iteration


def find_difference(folder, expected, *, failed=False):
    """The first difference between the files of two runs; None where there is none.

    Args:
        folder (Path): of a run that was interrupted.
        expected (Path): of one that was not.
        failed (bool): the first one has ended with an error, too. Then detectron2 writes the metrics of the iteration
            where it was, of which the other may have no line.
    """
    ours, theirs = list_files(folder), list_files(expected)
    if ours != theirs:
        return f"files {sorted(set(ours) ^ set(theirs))}"
    for name in ours:
        difference = _compare(Path(folder, name), Path(expected, name), failed)
        if difference is not None:
            return f"{name}: {difference}"
    return None


def _compare(path, expected, failed):
    if path.suffix == ".pth":
        return _compare_flat(flat_state(path), flat_state(expected))
    if path.name == "metrics.json":
        ours, theirs = (dict(_flatten(read_metrics(each))) for each in (path, expected))
        return _compare_flat({key: ours[key] for key in ours if key in theirs} if failed else ours, theirs)
    return None if path.read_bytes() == expected.read_bytes() else "other bytes"


def _compare_flat(ours, theirs):
    if ours.keys() != theirs.keys():
        return f"keys {sorted(ours.keys() ^ theirs.keys())[:5]}"
    return next((key for key, value in theirs.items() if not _same(ours[key], value)), None)


def _same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    return ours == theirs or (isinstance(theirs, float) and math.isnan(ours) and math.isnan(theirs))


def _flatten(value, key=""):
    if isinstance(value, dict | list | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flatten(item, f"{key}/{name}")
    else:
        yield key, value
