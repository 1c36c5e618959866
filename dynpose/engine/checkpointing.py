"""The checkpoints of a training run: complete, atomic, bounded in number, and skipped if corrupt."""

import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch import nn

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.checkpoint.reading import DamagedCheckpointError, UnsafeCheckpointError, read_verified
from dynpose.checkpoint.writing import explain_write_errors
from dynpose.config import ConfigError
from dynpose.utils.distributed import unwrap_ddp

from .metrics_file import storage_state
from .resuming import process_state

logger = logging.getLogger(__name__)

# The numbered checkpoints of this run, oldest first
_LIST = "checkpoints.json"
_LAST = "last_checkpoint"
_NUMBERED = re.compile(r"model_\d{7,}\.pth")
_FINAL = "model_final"


class TrainingCheckpointer(PoseCheckpointer):
    """A PoseCheckpointer whose files stay valid when the writing process is killed.

    A checkpoint and ``last_checkpoint`` are written to a temporary file and renamed, so that each is either the old or
    the new one, never partial. ``checkpoints.json`` lists the numbered checkpoints of the run; all but the newest
    ``kept`` are deleted once a new one is complete.

    Args:
        model (nn.Module): see PoseCheckpointer.
        save_dir (str): the folder of the run.
        kept (int): number of numbered checkpoints (``model_0004999.pth``) to keep; 0 = all.
        **kwargs: of PoseCheckpointer.

    Raises:
        ConfigError: ``kept`` is negative.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, kept: int = 0, **kwargs: Any):
        super().__init__(model, save_dir, **kwargs)
        if kept < 0:
            raise ConfigError(f"SOLVER.CHECKPOINTS_KEPT must be a number of checkpoints, or 0 for all, got {kept}")
        self.kept = kept
        self._numbered: list[str] = []

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record a complete checkpoint as the newest, and delete the oldest ones.

        Raises:
            CheckpointError: ``last_checkpoint`` can't be written; the earlier one is unchanged.
        """
        old = [name for name in self._numbered if name != last_filename_basename]
        if _NUMBERED.fullmatch(last_filename_basename):
            self._numbered = [*old, last_filename_basename]
            self._write_list()
        with explain_write_errors(os.path.join(self.save_dir, _LAST)):
            super().tag_last_checkpoint(last_filename_basename)
        self._delete_old()

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the newest intact checkpoint of the folder, or else weights.

        This is the one that ``last_checkpoint`` names. If that file is missing or invalid, it is the newest numbered
        one of ``checkpoints.json`` or, without this list, of the folder. All processes must call it.

        Args:
            path (str): weights to start from, without ``resume`` or where the folder has no checkpoint.
            resume (bool)

        Returns:
            dict: the contents of the folder's checkpoint other than the model and the trainer. Empty without one: only
            the weights of ``path`` are loaded, even if it is another run's checkpoint.

        Raises:
            CheckpointError: all checkpoints are corrupt, or another process does not see the file.
        """
        name = comm.all_gather(self._choose_or_fail() if resume and comm.is_main_process() else None)[0]
        if isinstance(name, Exception):
            raise name
        if name is None:
            if not resume and comm.is_main_process() and (self.has_checkpoint() or self._find_numbered()):
                logger.warning(
                    f"{self.save_dir} holds the checkpoints of an earlier run, which this one will overwrite. Until "
                    "its first checkpoint is written, --resume continues the earlier run"
                )
            self.load(path, checkpointables=[])
            return {}
        path = os.path.join(self.save_dir, name)
        if not all(comm.all_gather(os.path.isfile(path))):
            raise CheckpointError(
                f"{path}: not every process finds this file; let OUTPUT_DIR be a folder that all machines share"
            )
        return self.load(path)

    def _choose_or_fail(self):
        """The result of :meth:`_choose`, or its error, for all processes to raise."""
        try:
            return self._choose()
        except CheckpointError as error:
            return error

    def _choose(self):
        """The newest intact checkpoint, or None if the folder has no checkpoints."""
        self._remove_unfinished()
        last, fault = self._read_last()
        numbered = self._find_numbered()
        if last is None and fault is None and not numbered:
            return None
        # a user may have reset last_checkpoint to an earlier one: ignore later checkpoints
        older = numbered[: numbered.index(last)] if last in numbered else numbered
        faults = [fault] if fault else []
        for name in ([last] if last else []) + older[::-1]:
            damage = find_damage(os.path.join(self.save_dir, name), required=self.checkpointables)
            if damage is None:
                if faults:
                    logger.warning(f"The newest checkpoint can't be used ({'; '.join(faults)}): resuming from {name}")
                self._numbered = [kept for kept in older if kept != name] + [name] * bool(_NUMBERED.fullmatch(name))
                self._repair_notes(name, last)
                return name
            faults.append(f"{name}: {damage}")
        raise CheckpointError(
            f"{self.save_dir}: no checkpoint of the run can be read ({'; '.join(faults)}). Copy one back from where "
            "it was saved, or start again without --resume"
        )

    def _repair_notes(self, name, last):
        """Complete the bookkeeping that a kill interrupted after the checkpoint was written.

        A run that has ended saves no further checkpoint that would do it.
        """
        if last is None or not os.path.isfile(os.path.join(self.save_dir, last)):
            self.tag_last_checkpoint(name)
            return
        self._delete_old()
        if self._read_list() != self._numbered:
            self._write_list()

    def _read_last(self):
        """The file that ``last_checkpoint`` names, or None, and the fault of ``last_checkpoint``, or None.

        Without a ``last_checkpoint``, a final file that holds the run's whole state is the last checkpoint.
        """
        path = os.path.join(self.save_dir, _LAST)
        try:
            with open(path, encoding="utf-8") as f:
                name = os.path.basename(f.read().strip())
        except FileNotFoundError:
            fault = f"{_LAST} is missing" if self._find_numbered() else None
            return self._find_final(), fault
        except IsADirectoryError:
            return None, self._move_folder_away(path)
        except (OSError, ValueError) as error:
            return None, f"{_LAST} can't be read ({error})"
        if not name.endswith(".pth") or not name.isprintable():
            return None, f"{_LAST} names no checkpoint"
        return name, None

    def _find_final(self):
        name = f"{_FINAL}.pth"
        return name if os.path.isfile(os.path.join(self.save_dir, name)) and not self._find_numbered() else None

    def _move_folder_away(self, path):
        """Rename a folder that blocks the path of a file that the next checkpoint writes."""
        moved = f"{path}.moved"
        try:
            os.rename(path, moved)
        except OSError as error:
            raise CheckpointError(f"{path}: is a folder that can't be renamed ({error}); move it away") from error
        return f"{_LAST} is a folder, which was renamed to {os.path.basename(moved)}"

    def _find_numbered(self):
        """The numbered checkpoints of the run, oldest first: those listed, or else all in the folder."""
        try:
            there = sorted((name for name in os.listdir(self.save_dir) if _NUMBERED.fullmatch(name)), key=_number)
        except OSError:
            return []
        listed = self._read_list()
        return listed if set(listed).intersection(there) else there

    def _read_list(self):
        path = os.path.join(self.save_dir, _LIST)
        try:
            with open(path, encoding="utf-8") as f:
                names = json.load(f)
        except FileNotFoundError:
            return []  # a run of detectron2, or of an earlier dynpose
        except (OSError, ValueError, RecursionError) as error:
            logger.warning(f"{path}: can't be read ({error}); the checkpoints in the folder are used")
            return []
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not is_list or not all(map(_NUMBERED.fullmatch, names)):
            logger.warning(f"{path}: is not a list of numbered checkpoints; those in the folder are used")
            return []
        return names

    def _delete_old(self):
        """Delete all but the newest numbered checkpoints of the run, and list those kept."""
        if not self.kept or len(self._numbered) <= self.kept:
            return
        for name in self._numbered[: -self.kept]:
            with suppress(FileNotFoundError):
                os.remove(os.path.join(self.save_dir, name))
        self._numbered = self._numbered[-self.kept :]
        self._write_list()

    def _write_list(self):
        path = os.path.join(self.save_dir, _LIST)
        with explain_write_errors(path), self.path_manager.open(path, "w") as f:
            json.dump(self._numbered, f)

    def _remove_unfinished(self):
        """Delete partial files of killed writes; a checkpoint saved on a signal may never be written again."""
        with suppress(OSError):
            for name in os.listdir(self.save_dir):
                stem, ending = os.path.splitext(name)
                if ending == ".tmp" and _NUMBERED.fullmatch(stem):
                    os.remove(os.path.join(self.save_dir, name))


def _number(name):
    return int(re.sub(r"\D", "", name))


def find_damage(path: str, required: Collection[str] = ()) -> str | None:
    """Check whether a run can resume from a checkpoint, by reading the whole file.

    Args:
        path (str): of a file of ``torch.save``.
        required (Collection[str]): entries needed to resume, besides the model and the iteration.

    Returns:
        str | None: the fault; None if the file is intact. A file refused because it could execute code is reported when
        it is loaded.
    """
    try:
        checkpoint = read_verified(path)
    except DamagedCheckpointError as error:
        return str(error)
    except UnsafeCheckpointError:
        return None
    iteration = checkpoint.get("iteration")
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 0:
        return "it has no iteration"
    # each required entry is a non-empty dict
    lacking = [name for name in required if not isinstance(checkpoint.get(name), dict) or not checkpoint[name]]
    return f"it has weights, but no state of the {lacking[0]}" if lacking else None


def keep_weights(model: nn.Module, folder: str, name: str, class_names: Sequence[str], **note: Any) -> None:
    """Write weights for prediction from the main process, unless the file already holds them.

    Args:
        model (nn.Module): of the run, wrapped in DistributedDataParallel or not.
        folder (str): created if missing.
        name (str): of the file, without ``.pth``.
        class_names (Sequence[str]): of the model.
        **note: additional entries of the file, such as ``iteration``.

    Raises:
        CheckpointError: the file can't be written; an earlier one is unchanged.
    """
    if not comm.is_main_process() or _holds(os.path.join(folder, f"{name}.pth"), unwrap_ddp(model), note):
        return
    PathManager.mkdirs(folder)
    PoseCheckpointer(model, folder, class_names=class_names).save_weights(name, **note)


def _holds(path, model, note):
    try:
        saved = read_verified(path)
    except (DamagedCheckpointError, UnsafeCheckpointError):
        return False
    ours = model.state_dict()
    return (
        saved.keys() == {"model", "dynpose", *note}
        and all(saved[key] == value for key, value in note.items())
        and saved["model"].keys() == ours.keys()
        and all(torch.equal(saved["model"][key], value.cpu()) for key, value in ours.items())
    )


class CheckpointHook(HookBase):
    """Saves a checkpoint every ``period`` iterations and after the last one; replaces detectron2's hook.

    At the end of training, ``model_final.pth`` gets the weights; a run with a larger SOLVER.MAX_ITER resumes from the
    numbered checkpoint of the last iteration. A run resumed after its last iteration writes the missing files.

    It runs in all processes, because each has a random state to save.

    Args:
        checkpointer (PoseCheckpointer)
        period (int): iterations.
    """

    def __init__(self, checkpointer: PoseCheckpointer, period: int):
        self._checkpointer = checkpointer
        self._period = period
        self._saved = None

    def before_train(self) -> None:
        """Save a numbered checkpoint if only the final file, about to be reduced to weights, holds the run's state."""
        trainer = self.trainer
        if trainer.start_iter >= max(trainer.max_iter, 1):
            path = os.path.join(self._checkpointer.save_dir, f"{self._name()}.pth")
            if not comm.all_gather(os.path.isfile(path))[0]:
                self.save()

    def after_step(self) -> None:
        """Save a checkpoint if one is due."""
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0 or next_iter >= self.trainer.max_iter:
            self.save()

    def after_train(self) -> None:
        """Save the final weights if all iterations are done."""
        done = self.trainer.iter
        if done >= max(self.trainer.max_iter, 1):
            checkpointer = self._checkpointer
            keep_weights(
                checkpointer.model, checkpointer.save_dir, _FINAL, checkpointer.class_names, iteration=done - 1
            )

    def save(self) -> None:
        """Save ``model_<iteration>`` unless it is already saved."""
        if self._saved == self.trainer.iter:
            return
        extra = {
            "iteration": self.trainer.iter,
            "processes": comm.gather(process_state(self.trainer.model)),
            "metrics": storage_state(self.trainer.storage),
        }
        if hasattr(self.trainer.data_loader, "state_dict"):
            extra["data"] = self.trainer.data_loader.state_dict()
        self._checkpointer.save(self._name(), **extra)
        self._saved = self.trainer.iter

    def _name(self):
        return f"model_{self.trainer.iter:07d}"
