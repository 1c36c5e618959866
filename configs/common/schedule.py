from collections.abc import Sequence

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig


def multi_step(
    max_iter: int, milestones: Sequence[int], *, warmup_iters: int, warmup_factor: float = 0.001
) -> DictConfig:
    """Multiply the learning rate by 0.1 at each milestone, after a linear warm-up.

    Args:
        max_iter (int): iterations of the training.
        milestones (Sequence[int]): iterations at which the rate drops.
        warmup_iters (int): iterations of the warm-up; 0 = none.
        warmup_factor (float): of the rate at the first iteration of the warm-up.

    Returns:
        DictConfig: the ``lr_multiplier`` of a config.
    """
    scheduler = L(MultiStepParamScheduler)(
        values=[0.1**i for i in range(len(milestones) + 1)], milestones=list(milestones), num_updates=max_iter
    )
    return L(WarmupParamScheduler)(
        scheduler=scheduler,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
        warmup_factor=warmup_factor,
    )
