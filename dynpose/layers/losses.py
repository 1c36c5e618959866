"""Loss pieces that no method owns."""

import torch.distributed as dist
from detectron2.utils import comm


def mean_over_processes(value):
    """Average a count over all processes.

    DistributedDataParallel averages gradients. A loss that is a sum divided by this mean of the processes' counts
    therefore gives the gradient that one process would give on the whole batch.

    Args:
        value (Tensor): a count, any shape; not differentiated.

    Returns:
        Tensor: the same shape, detached.
    """
    value = value.detach().clone()
    if comm.get_world_size() > 1:
        dist.all_reduce(value)
        value /= comm.get_world_size()
    return value
