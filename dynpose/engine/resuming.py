"""What a run needs beside its weights to go on as if it had not been interrupted."""

import logging
import os

import numpy as np
import yaml
from detectron2.engine import HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm

from dynpose.utils.distributed import unwrap_ddp
from dynpose.utils.random_state import rng_state, seed_rng, set_rng_state

logger = logging.getLogger(__name__)


def resolve_seed(cfg, resume=False):
    """Give a config with a negative ``SEED`` one that all processes share, in place.

    :func:`dynpose.engine.setup` does it for every training. The config that the run saves has the seed, so that
    whoever trains by it trains the same; a run that is resumed takes it from there.

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
            # seeded by nobody, unlike the global generators
            seed = int(np.random.SeedSequence().generate_state(1)[0]) >> 1
    cfg.SEED = comm.all_gather(seed)[0]


def _saved_seed(config_file):
    try:
        with open(config_file) as f:
            seed = yaml.safe_load(f).get("SEED", -1)
    except (OSError, ValueError, yaml.YAMLError, AttributeError):
        return None
    return seed if isinstance(seed, int) and seed >= 0 else None


def trainer_state(trainer):
    """The state of a DefaultTrainer's hooks (with the scheduler), optimizer, scaler, and its EMA.

    detectron2 0.6 leaves the optimizer out.

    Args:
        trainer (DefaultTrainer): with an attribute ``ema``, None or with a ``state_dict``, or without.

    Returns:
        dict
    """
    state = TrainerBase.state_dict(trainer)
    state["_trainer"] = trainer._trainer.state_dict()
    if getattr(trainer, "ema", None) is not None:
        state["ema"] = trainer.ema.state_dict()
    return state


def load_trainer_state(trainer, state):
    """Load :func:`trainer_state`, or that of a trainer of detectron2."""
    TrainerBase.load_state_dict(trainer, state)
    if "_trainer" in state:
        trainer._trainer.load_state_dict(state["_trainer"])
    else:
        logger.warning("The checkpoint has no state of the optimizer, which starts afresh")
    if getattr(trainer, "ema", None) is not None:
        if "ema" in state:
            trainer.ema.load_state_dict(state["ema"])
        else:
            logger.warning("The checkpoint has no EMA, which starts afresh")


def process_state(model):
    """What differs between the processes of a run: their random generators, and the model's buffers.

    DistributedDataParallel keeps parameters the same; the running statistics of batch normalisation are of each
    process's own images.

    Args:
        model (nn.Module)

    Returns:
        dict: for :func:`load_process_state`.
    """
    state = {"rng": rng_state()}
    if comm.get_world_size() > 1:
        state["buffers"] = {name: buffer.cpu() for name, buffer in unwrap_ddp(model).named_buffers()}
    return state


def load_process_state(model, state):
    """Load :func:`process_state`, into a model of the same kind."""
    for name, buffer in unwrap_ddp(model).named_buffers():
        if name in state.get("buffers", ()):
            buffer.copy_(state["buffers"][name])
    set_rng_state(state["rng"])


class ResumeHook(HookBase):
    """Sets the random generators and the data where a run starts or goes on; the last thing before its first iteration.

    Without a checkpoint the generators are seeded, with the seed of the data and the rank: what happened before, such
    as the initialisation of the model, has no influence.

    Args:
        seed (int): of the run; negative = leave the generators of a new run alone.

    Attributes:
        checkpoint (dict): what the checkpoint that is resumed holds beside the weights and the trainer; empty without.
    """

    def __init__(self, seed):
        self._seed = seed
        self.checkpoint = {}

    def before_train(self):
        """Set them."""
        trainer, rank = self.trainer, comm.get_rank()
        if trainer.start_iter >= max(trainer.max_iter, 1):
            logger.info(f"All {trainer.max_iter} iterations are done: what the end of the run lacks is made up for")
            # detectron2 counts one more when its loop ends, even if it did nothing
            trainer.iter = trainer.start_iter - 1
        processes = self.checkpoint.get("processes", ())
        if len(processes) == comm.get_world_size():
            load_process_state(trainer.model, processes[rank])
        elif self._seed >= 0:
            if trainer.start_iter:
                logger.warning(
                    f"The checkpoint has the random states of {len(processes)} processes, now there are "
                    f"{comm.get_world_size()}: they are seeded afresh"
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
            logger.warning(f"{type(loader).__name__} can't go on where it was: it starts again with its first images")
        for hook in trainer._hooks:
            # it takes the next images of a loader of its own, every so many iterations
            if isinstance(hook, hooks.PreciseBN) and not hook._disabled and hook._period > 0:
                hook._data_loader.start_iteration = trainer.start_iter // hook._period * hook._num_iter
