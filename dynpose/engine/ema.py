"""An exponential moving average of a model's weights."""

import torch
from detectron2.engine import HookBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynpose.config import ConfigError
from dynpose.utils.distributed import unwrap_ddp

from .checkpointing import keep_weights


class ModelEMA:
    """A copy of a model whose parameters and buffers follow the model's: ``decay * own + (1 - decay) * model's``.

    It starts as the model is at the first :meth:`update`. Statistics of batch normalisation are averaged too. All
    processes have the same parameters, and each its own average of its own buffers.

    Args:
        model (nn.Module): may be in DistributedDataParallel.
        decay (float): in [0, 1).

    Attributes:
        model (nn.Module): the averaged one, on the same device; in eval mode.

    Raises:
        ConfigError: the decay is not in that range.

    Example::

        >>> ema = ModelEMA(model, decay=0.9998)
        >>> ema.update(model)  # after every iteration
        >>> ema.model(inputs)
    """

    def __init__(self, model, decay):
        if not 0 <= decay < 1:
            raise ConfigError(f"SOLVER.EMA.DECAY must be at least 0 and below 1, got {decay}")
        self._averaged = AveragedModel(unwrap_ddp(model), multi_avg_fn=_average_of_floats(decay), use_buffers=True)
        self._averaged.eval().requires_grad_(False)

    @property
    def model(self):  # noqa: D102  see the class
        return self._averaged.module

    @torch.no_grad()
    def update(self, model):
        """Take the model's current weights into the average.

        Args:
            model (nn.Module): as it was given, after an iteration.
        """
        self._averaged.update_parameters(unwrap_ddp(model))

    def state_dict(self):
        """The averaged parameters and persistent buffers under the model's names, and the number of updates."""
        return {"model": self.model.state_dict(), "num_updates": int(self._averaged.n_averaged)}

    def load_state_dict(self, state_dict):
        """Load :meth:`state_dict`, in place.

        Raises:
            RuntimeError: it is of another model.
        """
        self.model.load_state_dict(state_dict["model"])
        self._averaged.n_averaged.fill_(state_dict["num_updates"])


class EMAHook(HookBase):
    """Updates ``trainer.ema`` after each iteration, and saves it as a checkpoint of its own when training has ended.

    It must come before the hooks that save and evaluate. A training that breaks off saves no such checkpoint; its own
    checkpoints hold the average.

    Args:
        folder (str): the checkpoint is ``model_final.pth`` in there, to be given as MODEL.WEIGHTS.
    """

    def __init__(self, folder):
        self.folder = folder

    def after_step(self):
        """Update."""
        self.trainer.ema.update(self.trainer.model)

    def after_train(self):
        """Save, if all iterations are done."""
        if self.trainer.iter >= max(self.trainer.max_iter, 1):
            class_names, iteration = self.trainer.cfg.MODEL.CLASS_NAMES, self.trainer.iter - 1
            keep_weights(self.trainer.ema.model, self.folder, "model_final", class_names, iteration=iteration)


def _average_of_floats(decay):
    """torch's average; whole numbers, such as a Swin's table of indices, are copied, for it would round them down."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged, current, num_updates):
        if averaged[0].is_floating_point():
            average(averaged, current, num_updates)
        else:
            torch._foreach_copy_(averaged, current)

    return update
