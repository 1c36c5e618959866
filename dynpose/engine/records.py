"""The provenance of a run, in ``OUTPUT_DIR/run.json``: software, machine, commit and data."""

import datetime
import hashlib
import json
import logging
import os
import platform
import sys
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from dynpose.checkpoint.writing import explain_write_errors
from dynpose.data.datasets import annotation_files
from dynpose.utils.atomic import atomic_open
from dynpose.utils.environment import git_state, versions

logger = logging.getLogger(__name__)

_FILE = "run.json"
_PACKAGES = (
    "detectron2",
    "torchvision",
    "timm",
    "triton",
    "fvcore",
    "numpy",
    "pillow",
    "opencv-python-headless",
)
_SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_RESTART_COUNT")


def write_records(cfg: CfgNode, start_iteration: int) -> None:
    """Add a start of a run to ``OUTPUT_DIR/run.json``, in the main process only.

    A run that starts at iteration 0 replaces the file. Resuming with other annotations or another commit than at the
    start of the run logs a warning.

    Args:
        cfg (CfgNode)
        start_iteration (int): the first iteration to run.

    Raises:
        CheckpointError: the file can't be written, for example because the disk is full.
    """
    if not comm.is_main_process() or "://" in cfg.OUTPUT_DIR:
        return
    path = os.path.join(cfg.OUTPUT_DIR, _FILE)
    starts = _read_starts(path) if start_iteration else []
    start = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "start_iteration": start_iteration,
        "command": sys.argv,
        "seed": cfg.SEED,
        "environment": environment(),
        "git": git_state(),
        "datasets": {name: fingerprint(name) for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))},
    }
    if starts:
        for key, meaning in (("datasets", "the data sets"), ("git", "the code")):
            if starts[0].get(key) != start[key]:
                logger.warning(f"{path}: {meaning} changed since the start of the run; compare {key} of its starts")
    with explain_write_errors(path), atomic_open(path) as f:
        json.dump({"starts": [*starts, start]}, f, indent=1)


def _read_starts(path):
    try:
        with open(path) as f:
            return [start for start in json.load(f)["starts"] if isinstance(start, dict)]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return []


def environment() -> dict[str, Any]:
    """The software and the machine.

    Returns:
        dict: versions (None if not installed), devices, processes, and the SLURM job, if any.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        **versions(_PACKAGES),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "gpus": gpus,
        "host": platform.node(),
        "processes": comm.get_world_size(),
        **{name: os.environ[name] for name in _SLURM if name in os.environ},
    }


def fingerprint(name: str) -> dict[str, Any]:
    """Information that distinguishes a data set from another one of the same name.

    Args:
        name (str): a registered data set.

    Returns:
        dict: ``images``, their number, and ``sha256`` of each annotation file; None if unavailable.
    """
    files = annotation_files(name)
    try:
        if not files:
            return {"images": len(DatasetCatalog.get(name)), "sha256": {}}
        contents = {}
        for path in files:
            with PathManager.open(path, "rb") as f:
                contents[str(path)] = f.read()
    except (OSError, KeyError):
        # the code that needs the data reports the error
        return {"images": None, "sha256": dict.fromkeys(map(str, files))}
    return {
        "images": sum(len(json.loads(content)["images"]) for content in contents.values()),
        "sha256": {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()},
    }
