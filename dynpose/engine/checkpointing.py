"""The checkpoints of a training run: complete, atomic, bounded in number, and passed over where they are damaged."""

import json
import logging
import os
import re
import zipfile
from contextlib import suppress

from detectron2.engine import HookBase
from detectron2.utils import comm

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.config import ConfigError
from dynpose.utils.atomic import atomic_open

from .resuming import process_state

logger = logging.getLogger(__name__)

# The numbered checkpoints of this run, oldest first
_LIST = "checkpoints.json"
_NUMBERED = re.compile(r"model_\d{7,}\.pth")


class TrainingCheckpointer(PoseCheckpointer):
    """A PoseCheckpointer whose files survive whatever ends the process that writes them.

    A checkpoint and ``last_checkpoint`` are written beside their place and renamed, so that either is the old one or
    the new one, never a part. ``checkpoints.json`` lists the numbered checkpoints of the run; those beyond the newest
    ``kept`` are deleted, after a new one is complete.

    Args:
        model (nn.Module): see PoseCheckpointer.
        save_dir (str): the folder of the run.
        kept (int): numbered checkpoints (``model_0004999.pth``) that are kept; 0 = all of them.
        **kwargs: of PoseCheckpointer.

    Raises:
        ConfigError: ``kept`` is negative.
    """

    def __init__(self, model, save_dir="", *, kept=0, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        if kept < 0:
            raise ConfigError(f"SOLVER.CHECKPOINTS_KEPT must be a number of checkpoints, or 0 for all, got {kept}")
        self.kept = kept
        self._numbered = []
        self.path_manager = _AtomicFiles(self.path_manager)

    def tag_last_checkpoint(self, last_filename_basename):
        """Note a complete checkpoint as the newest, and delete those that are too old."""
        old = [name for name in self._numbered if name != last_filename_basename]
        if _NUMBERED.fullmatch(last_filename_basename):
            self._numbered = [*old, last_filename_basename]
            self._write_list()
        super().tag_last_checkpoint(last_filename_basename)
        if self.kept and len(self._numbered) > self.kept:
            for name in self._numbered[: -self.kept]:
                with suppress(FileNotFoundError):
                    os.remove(os.path.join(self.save_dir, name))
            self._numbered = self._numbered[-self.kept :]
            self._write_list()

    def resume_or_load(self, path, *, resume=True):
        """Load the newest checkpoint of the folder that is whole, or else weights.

        All processes must call it.

        Args:
            path (str): weights to start from, without ``resume`` or where the folder has no ``last_checkpoint``.
            resume (bool)

        Returns:
            dict: what is in the checkpoint of the folder beside the model and the trainer. Empty where there is none:
            of ``path`` only the weights are taken, even if it is another run's checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none is whole; or another process does not see the file.
        """
        name = comm.all_gather(self._choose() if resume and comm.is_main_process() else None)[0]
        if isinstance(name, Exception):
            raise name
        if name is None:
            if not resume and comm.is_main_process() and self.has_checkpoint():
                logger.warning(
                    f"{self.save_dir} holds the checkpoints of an earlier run, which this one will overwrite. Until "
                    "its first checkpoint is written, --resume goes on with the earlier run"
                )
            self.load(path, checkpointables=[])
            return {}
        path = os.path.join(self.save_dir, name)
        if not all(comm.all_gather(os.path.isfile(path))):
            raise CheckpointError(
                f"{path}: not every process finds this file; let OUTPUT_DIR be a folder that all machines share"
            )
        return self.load(path)

    def _choose(self):
        """The newest checkpoint that is whole, None where there is none at all, or the error that there is no whole."""
        if not self.has_checkpoint():
            return None
        last = os.path.basename(self.get_checkpoint_file())
        listed = self._read_list()
        # of those that come after the last one, which somebody may have set back, nothing is wanted
        older = listed[: listed.index(last)] if last in listed else listed
        damages = []
        for name in (last, *reversed(older)):
            damage = find_damage(os.path.join(self.save_dir, name))
            if damage is None:
                if damages:
                    logger.warning(f"The newest checkpoint is damaged ({'; '.join(damages)}): going on from {name}")
                self._numbered = [kept for kept in older if kept != name] + [name] * bool(_NUMBERED.fullmatch(name))
                return name
            damages.append(f"{name}: {damage}")
        return CheckpointError(
            f"{self.save_dir}: no checkpoint of the run can be read ({'; '.join(damages)}). Copy one back from where "
            "it was saved, or start again without --resume"
        )

    def _read_list(self):
        try:
            with open(os.path.join(self.save_dir, _LIST)) as f:
                return [name for name in json.load(f) if _NUMBERED.fullmatch(name)]
        except (OSError, ValueError):
            return []  # a run of detectron2, or of an earlier dynpose

    def _write_list(self):
        with self.path_manager.open(os.path.join(self.save_dir, _LIST), "w") as f:
            json.dump(self._numbered, f)


def find_damage(path):
    """Read a checkpoint through and compare its checksums, which ``torch.load`` does not.

    Args:
        path (str): of a file of ``torch.save``.

    Returns:
        str | None: what is wrong with it; None where it is whole.
    """
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except FileNotFoundError:
        return "it does not exist"
    except Exception as error:  # zlib, struct and others on damaged files
        return f"it is incomplete ({error})"
    return None if broken is None else f"the checksum of {broken} is wrong"


class _AtomicFiles:
    """A detectron2 PathManager that writes local files atomically."""

    def __init__(self, path_manager):
        self._path_manager = path_manager

    def __getattr__(self, name):
        return getattr(self._path_manager, name)

    def open(self, path, mode="r", **kwargs):
        if "w" in mode and "://" not in path:
            return atomic_open(path, mode)
        return self._path_manager.open(path, mode, **kwargs)


class CheckpointHook(HookBase):
    """Saves a checkpoint every ``period`` iterations and after the last one, in the place of detectron2's hook.

    All processes have it, because each has a random state to save.

    Args:
        checkpointer (Checkpointer)
        period (int): iterations.
    """

    def __init__(self, checkpointer, period):
        self._checkpointer = checkpointer
        self._period = period
        self._saved = None

    def after_step(self):
        """Save, if it is time."""
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0:
            self.save()
        if next_iter >= self.trainer.max_iter:
            self._write("model_final")

    def save(self):
        """Save ``model_<iteration>``, unless that has been done."""
        if self._saved != self.trainer.iter:
            self._write(f"model_{self.trainer.iter:07d}")
            self._saved = self.trainer.iter

    def _write(self, name):
        processes = comm.gather(process_state(self.trainer.model))
        extra = {"iteration": self.trainer.iter, "processes": processes}
        if hasattr(self.trainer.data_loader, "state_dict"):
            extra["data"] = self.trainer.data_loader.state_dict()
        self._checkpointer.save(name, **extra)
