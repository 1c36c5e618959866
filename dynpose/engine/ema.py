"""An exponential moving average of a model's weights."""

from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynpose.config import ConfigError
from dynpose.utils.distributed import unwrap_ddp

from .checkpointing import keep_weights


class ModelEMA:
    """An averaged copy of a model's parameters and buffers: ``decay * average + (1 - decay) * current``.

    The first :meth:`update` copies the model. Batch normalisation statistics are averaged too. All processes have the
    same averaged parameters, but each averages the buffers of its process.

    Args:
        model (nn.Module): may be wrapped in DistributedDataParallel.
        decay (float): in [0, 1).

    Attributes:
        model (nn.Module): the averaged model, on the same device; in eval mode.

    Raises:
        ConfigError: the decay is out of range.

    Example::

        >>> ema = ModelEMA(model, decay=0.9998)
        >>> ema.update(model)  # after every iteration
        >>> ema.model(inputs)
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ConfigError(f"SOLVER.EMA.DECAY must be at least 0 and below 1, got {decay}")
        self._averaged = AveragedModel(unwrap_ddp(model), multi_avg_fn=_average_of_floats(decay), use_buffers=True)
        self._averaged.eval().requires_grad_(False)

    @property
    def model(self) -> nn.Module:  # noqa: D102  see the class
        return self._averaged.module

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the model's current weights.

        Args:
            model (nn.Module): the model passed to the constructor, after an iteration.
        """
        self._averaged.update_parameters(unwrap_ddp(model))

    def state_dict(self) -> dict[str, Any]:
        """The averaged parameters and persistent buffers under the model's names, and the number of updates."""
        return {"model": self.model.state_dict(), "num_updates": int(self._averaged.n_averaged)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load :meth:`state_dict`, in place.

        Raises:
            RuntimeError: the state is of another model.
        """
        self.model.load_state_dict(state_dict["model"])
        self._averaged.n_averaged.fill_(state_dict["num_updates"])


class EMAHook(HookBase):
    """Updates ``trainer.ema`` after each iteration, and saves it as a separate checkpoint at the end of training.

    It must come before the hooks that save and evaluate. An interrupted training saves no such checkpoint; its regular
    checkpoints hold the average.

    Args:
        folder (str): gets the checkpoint, ``model_final.pth``, for use as MODEL.WEIGHTS.
    """

    def __init__(self, folder: str):
        self.folder = folder

    def after_step(self) -> None:
        """Update."""
        self.trainer.ema.update(self.trainer.model)

    def after_train(self) -> None:
        """Save if all iterations are done."""
        if self.trainer.iter >= max(self.trainer.max_iter, 1):
            class_names, iteration = self.trainer.cfg.MODEL.CLASS_NAMES, self.trainer.iter - 1
            keep_weights(self.trainer.ema.model, self.folder, "model_final", class_names, iteration=iteration)


def _average_of_floats(decay):
    """torch's average, but copying integers, such as a Swin's index table, which it would round down."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged, current, num_updates):
        if averaged[0].is_floating_point():
            average(averaged, current, num_updates)
        else:
            torch._foreach_copy_(averaged, current)

    return update
