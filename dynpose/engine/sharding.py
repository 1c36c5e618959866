"""The shards of a prediction: which images a process takes, and the file that it writes.

The inputs are dealt out in turn, input ``i`` to shard ``i % count``, so that every process gets images of all kinds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from dynpose.config import ConfigError

from .prediction_record import Key, PredictionRecord

__all__ = [
    "Shard",
    "ShardRecord",
    "fingerprint_of_names",
    "parse_shard",
    "shard_files",
    "shard_of_process",
    "use_own_gpu",
]

_Item = TypeVar("_Item")
_FILE = re.compile(r"predictions-(\d{5,})-of-(\d{5,})\.jsonl")
_ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT"))


@dataclass(frozen=True, order=True)
class Shard:
    """One of several equal parts of the inputs.

    Attributes:
        index (int): from 0.
        count (int)
    """

    index: int
    count: int

    @property
    def stem(self) -> str:
        """str: name of its file without the ending."""
        return f"predictions-{self.index:05d}-of-{self.count:05d}"

    def of(self, items: Sequence[_Item]) -> list[_Item]:
        """The items of this shard, in order."""
        return list(items[self.index :: self.count])


def parse_shard(text: str) -> Shard:
    """Parse ``I/N``.

    Args:
        text (str): the index, from 0 to N - 1, and the number of shards.

    Returns:
        Shard

    Raises:
        ConfigError: it is not of this form.

    Example::

        >>> parse_shard("3/16").stem
        'predictions-00003-of-00016'
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(*map(int, match.groups())) if match else None
    if shard is None or shard.index >= shard.count:
        raise ConfigError(f"--shard {text}: expected I/N with I from 0 to N - 1, such as 0/16 to 15/16")
    return shard


def shard_of_process(environment: Mapping[str, str]) -> Shard | None:
    """The shard of this process by the variables of its launcher.

    Torchrun sets RANK and WORLD_SIZE; srun SLURM_PROCID and SLURM_STEP_NUM_TASKS (SLURM_NTASKS is also set in a batch
    script that runs the command once). A SLURM job array multiplies their number by that of its jobs.

    Args:
        environment (Mapping[str, str])

    Returns:
        Shard | None: None for a single process.

    Raises:
        ConfigError: the ids of the job array are not consecutive, as if some of its jobs are started again.

    Example::

        >>> shard_of_process({"RANK": "3", "WORLD_SIZE": "16"})
        Shard(index=3, count=16)
    """
    rank, world_size = 0, 1
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        rank, world_size = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    job, num_jobs = _job_of_array(environment)
    count = world_size * num_jobs
    return Shard(job * world_size + rank, count) if count > 1 else None


def _job_of_array(environment):
    """Index and number of the jobs of a SLURM array; (0, 1) without."""
    if not environment.keys() >= set(_ARRAY):
        return 0, 1
    task, first, last, count = (int(environment[name]) for name in _ARRAY)
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1)) or 1
    if first + (count - 1) * step != last or (task - first) % step:
        raise ConfigError(
            f"SLURM_ARRAY_TASK_ID {task}: the {count} ids from {first} to {last} are not consecutive, so they do not "
            "tell the number of shards; give --shard I/N, such as --shard $SLURM_ARRAY_TASK_ID/16"
        )
    return (task - first) // step, count


def use_own_gpu(environment: Mapping[str, str]) -> None:
    """Make "cuda" the GPU of this process, where a machine has several processes and several GPUs.

    Args:
        environment (Mapping[str, str]): LOCAL_RANK of torchrun or SLURM_LOCALID of srun.
    """
    local_rank = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID")
    if local_rank and torch.cuda.is_available():
        torch.cuda.set_device(int(local_rank) % torch.cuda.device_count())


def fingerprint_of_names(names: Iterable[str]) -> dict[str, Any]:
    """Describe the inputs of all shards together, to compare those of two shards.

    Args:
        names (Iterable[str]): of all inputs, in order.

    Returns:
        dict: ``inputs``, their number, and ``sha256`` of the names.
    """
    digest, number = hashlib.sha256(), 0
    for name in names:
        digest.update(os.fsencode(name) + b"\n")
        number += 1
    return {"inputs": number, "sha256": digest.hexdigest()}


def shard_files(folder: Path) -> dict[Shard, Path]:
    """Find the files of shards in a folder, by shard."""
    matches = [(match, path) for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    return {Shard(int(match[1]), int(match[2])): path for match, path in sorted(matches, key=lambda pair: pair[1])}


class ShardRecord(PredictionRecord):
    """The results of one shard, in a file such as ``predictions-00003-of-00016.jsonl``.

    There is no file of all results: :func:`~dynpose.engine.shard_merging.merge_shards` writes it.

    Args:
        folder (Path): an existing folder, which the shards share.
        info, made_with (dict): see :class:`~dynpose.engine.prediction_record.PredictionRecord`.
        shard (Shard)
        inputs (dict): of all shards, from :func:`fingerprint_of_names`.
        resume (bool): continue with the results of this shard, if any.

    Raises:
        ConfigError: the folder has results of another number of shards or, with ``resume``, of other inputs.
    """

    def __init__(
        self,
        folder: Path,
        info: dict[str, Any],
        made_with: dict[str, Any],
        shard: Shard,
        inputs: dict[str, Any],
        *,
        resume: bool = False,
    ):
        _check_count(folder, shard)
        if resume:
            _check_inputs(folder / f"{shard.stem}.jsonl", inputs)
        super().__init__(folder, {**info, "shard": {**asdict(shard), **inputs}}, made_with, resume, name=shard.stem)

    @property
    def result_path(self) -> Path:
        """Path: the file of the shard itself."""
        return self.path

    def finish(
        self,
        keys: Iterable[Key],
        complete: bool,
        on_entry: Callable[[dict[str, Any]], None] = lambda entry: None,
        videos: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Mark the shard as complete; see :meth:`PredictionRecord.finish` for the arguments."""
        for entry in self.entries(keys):
            on_entry(entry)
        if complete:
            self._append({"complete": True})


def _check_count(folder, shard):
    other = next((found for found in shard_files(folder) if found.count != shard.count), None)
    if other is not None:
        raise ConfigError(
            f"--output {folder}: it holds {other.stem}.jsonl, and this is shard {shard.index} of {shard.count}: images "
            f"would be predicted twice. Give --shard I/{other.count} (a part of a SLURM array that is started again "
            "counts as another number of shards), or another folder"
        )


def _check_inputs(path, inputs):
    """Compare the inputs with those that the file of a shard was started with."""
    try:
        with path.open("rb") as file:
            old = json.loads(file.readline())["info"]["shard"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # PredictionRecord reports a file of another kind
    if {key: old.get(key) for key in inputs} != inputs:
        raise ConfigError(
            f"--input: {path} was started with {old.get('inputs')} inputs, now there are {inputs['inputs']} or others, "
            "and the shards would not fit together: give the same inputs, or another --output"
        )
