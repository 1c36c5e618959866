"""Counts that losses divide by, averaged over the processes of a job."""

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a count over all processes.

    DistributedDataParallel averages gradients. A loss that is a sum divided by this mean of the processes' counts
    therefore gives the gradient that one process would give on the whole batch.

    Args:
        value: a count, any shape; not differentiated.

    Returns:
        The mean, of the same shape, detached.
    """
    value = value.detach().clone()
    if comm.get_world_size() > 1:
        dist.all_reduce(value)
        value /= comm.get_world_size()
    return value


def normalizer(count: Tensor | int, device: torch.device | None = None) -> Tensor:
    """Average a count over all processes, with their total clamped to at least one.

    Losses divide by it: it is never zero, and no single process's count is rounded up.

    Args:
        count: scalar.
        device (torch.device | None): device of the result if ``count`` is a number.

    Returns:
        A float32 scalar.
    """
    if not isinstance(count, Tensor):
        # filled, because a copy from the host would wait for a GPU
        count = torch.full((), float(count), device=device)
    count = count.to(device=device, dtype=torch.float32)
    return mean_over_processes(count).clamp(min=1 / comm.get_world_size())
