"""Batches that are larger than what fits on a device: cut into micro-batches whose gradients are added up."""

import math
from contextlib import nullcontext

from torch.nn.parallel import DistributedDataParallel

from dynpose.config import ConfigError


def check_ims_per_process(cfg):
    """Check ``SOLVER.IMS_PER_PROCESS``.

    Args:
        cfg (CfgNode)

    Returns:
        int

    Raises:
        ConfigError: it is not at least 0.
    """
    limit = cfg.SOLVER.IMS_PER_PROCESS
    if not limit >= 0:
        raise ConfigError(
            "SOLVER.IMS_PER_PROCESS must be the most images that a process takes at once, or 0 for all of its batch, "
            f"got {limit}"
        )
    return limit


def split_batch(batch, limit):
    """Cut a batch into as few micro-batches as a limit allows, as equal in size as can be.

    Args:
        batch (list): B images of a process.
        limit (int): most images of a micro-batch; 0 = any number.

    Returns:
        list[tuple[list, float]]: the micro-batches, in order, and the share of the batch that each of them is.

    Example::

        >>> split_batch(["a", "b", "c", "d", "e"], limit=2)
        [(['a', 'b'], 0.4), (['c', 'd'], 0.4), (['e'], 0.2)]
    """
    if limit == 0 or len(batch) <= limit:
        return [(batch, 1.0)]
    count = math.ceil(len(batch) / limit)
    size, larger = divmod(len(batch), count)
    bounds = [0]
    for i in range(count):
        bounds.append(bounds[-1] + size + (i < larger))
    return [(batch[start:end], (end - start) / len(batch)) for start, end in zip(bounds[:-1], bounds[1:])]


def synchronised(model, is_last):
    """The context of a micro-batch: DistributedDataParallel exchanges gradients in that of the last one alone.

    Args:
        model (nn.Module)
        is_last (bool): of the batch's micro-batches.
    """
    if is_last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()
