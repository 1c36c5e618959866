"""The state, besides the weights, that a run needs to resume as if it had not been interrupted."""

import logging
import os
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from torch import nn

from dynpose.utils.distributed import unwrap_ddp
from dynpose.utils.random_state import rng_state, seed_rng, set_rng_state

logger = logging.getLogger(__name__)


def resolve_seed(cfg: CfgNode, resume: bool = False) -> None:
    """Replace a negative ``SEED`` of a config with a seed that all processes share, in place.

    :func:`dynpose.engine.setup` does it for every training. The saved config of the run has the seed, so that training
    with it repeats the run; a resumed run reads it from there.

    Args:
        cfg (CfgNode): not frozen.
        resume (bool): look for the seed in ``OUTPUT_DIR/config.yaml`` first.
    """
    if cfg.SEED >= 0:
        return
    seed = None
    if comm.is_main_process():
        seed = _saved_seed(os.path.join(cfg.OUTPUT_DIR, "config.yaml")) if resume else None
        if seed is None:
            # from the operating system's entropy, unlike the global generators
            seed = int(np.random.SeedSequence().generate_state(1)[0]) >> 1
    cfg.SEED = comm.all_gather(seed)[0]


def _saved_seed(config_file):
    try:
        with open(config_file) as f:
            seed = yaml.safe_load(f).get("SEED", -1)
    except (OSError, ValueError, yaml.YAMLError, AttributeError):
        return None
    return seed if isinstance(seed, int) and seed >= 0 else None


def trainer_state(trainer: DefaultTrainer) -> dict[str, Any]:
    """The state of a DefaultTrainer's hooks (with the scheduler), optimizer, scaler, and its EMA.

    detectron2 0.6 omits the optimizer.

    Args:
        trainer (DefaultTrainer): may have an attribute ``ema``, which is None or has a ``state_dict``.

    Returns:
        dict
    """
    state = TrainerBase.state_dict(trainer)
    state["_trainer"] = trainer._trainer.state_dict()
    if getattr(trainer, "ema", None) is not None:
        state["ema"] = trainer.ema.state_dict()
    return state


def load_trainer_state(trainer: DefaultTrainer, state: dict[str, Any]) -> None:
    """Load :func:`trainer_state`, or the state of a detectron2 trainer."""
    TrainerBase.load_state_dict(trainer, state)
    if "_trainer" in state:
        trainer._trainer.load_state_dict(state["_trainer"])
    else:
        logger.warning("The checkpoint has no state of the optimizer, which starts from scratch")
    if getattr(trainer, "ema", None) is not None:
        if "ema" in state:
            trainer.ema.load_state_dict(state["ema"])
        else:
            logger.warning("The checkpoint has no EMA, which starts from scratch")


def process_state(model: nn.Module) -> dict[str, Any]:
    """The state that differs between the processes of a run: random generators and the model's buffers.

    DistributedDataParallel keeps parameters the same; each process has running statistics of batch normalisation of the
    images it processed.

    Args:
        model (nn.Module)

    Returns:
        dict: for :func:`load_process_state`.
    """
    state = {"rng": rng_state()}
    if comm.get_world_size() > 1:
        state["buffers"] = {name: buffer.cpu() for name, buffer in unwrap_ddp(model).named_buffers()}
    return state


def load_process_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Load :func:`process_state` into the same kind of model."""
    for name, buffer in unwrap_ddp(model).named_buffers():
        if name in state.get("buffers", ()):
            buffer.copy_(state["buffers"][name])
    set_rng_state(state["rng"])


class ResumeHook(HookBase):
    """Sets the random generators and the position in the data right before the first iteration of a start or restart.

    Without a checkpoint the generators are seeded from the data's seed and the rank, so that earlier random draws, such
    as those of the model's initialisation, have no influence.

    Args:
        seed (int): of the run; negative = do not seed the generators of a new run.

    Attributes:
        checkpoint (dict): the resumed checkpoint's contents other than the weights and the trainer; empty without one.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self.checkpoint: dict[str, Any] = {}

    def before_train(self) -> None:
        """Set the generators and the data."""
        trainer, rank = self.trainer, comm.get_rank()
        if trainer.start_iter >= max(trainer.max_iter, 1):
            logger.info(
                f"All {trainer.max_iter} iterations are done: the missing final evaluation and files are completed"
            )
            # detectron2 increments it at the end of its loop, even if no iteration ran
            trainer.iter = trainer.start_iter - 1
        processes = self.checkpoint.get("processes", ())
        if len(processes) == comm.get_world_size():
            load_process_state(trainer.model, processes[rank])
        elif self._seed >= 0:
            if trainer.start_iter:
                logger.warning(
                    f"The checkpoint has the random states of {len(processes)} processes, now there are "
                    f"{comm.get_world_size()}: they are seeded again"
                )
            key = (self._seed, trainer.start_iter, rank)
            seed_rng(int(np.random.SeedSequence(key).generate_state(1)[0]))
        self._place_data(trainer)

    def _place_data(self, trainer):
        loader = trainer.data_loader
        if hasattr(loader, "start_iteration"):
            loader.start_iteration = trainer.start_iter
            if "data" in self.checkpoint:
                loader.load_state_dict(self.checkpoint["data"])
        elif trainer.start_iter:
            logger.warning(
                f"{type(loader).__name__} can't resume at its position: it starts again with its first images"
            )
        for hook in trainer._hooks:
            # PreciseBN reads images from a separate loader every ``_period`` iterations
            if isinstance(hook, hooks.PreciseBN) and not hook._disabled and hook._period > 0:
                hook._data_loader.start_iteration = trainer.start_iter // hook._period * hook._num_iter
