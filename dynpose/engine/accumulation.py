"""Gradient accumulation: batches too large for a device are split into micro-batches whose gradients are summed."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from detectron2.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dynpose.config import ConfigError

_Image = TypeVar("_Image")


def check_ims_per_process(cfg: CfgNode) -> int:
    """Check ``SOLVER.IMS_PER_PROCESS``.

    Args:
        cfg (CfgNode)

    Returns:
        int

    Raises:
        ConfigError: the value is below 0.
    """
    limit = cfg.SOLVER.IMS_PER_PROCESS
    if not limit >= 0:
        raise ConfigError(
            "SOLVER.IMS_PER_PROCESS must be the maximum number of images of a forward pass, or 0 for no limit, "
            f"got {limit}"
        )
    return limit


def split_batch(batch: list[_Image], limit: int) -> list[tuple[list[_Image], float]]:
    """Split a batch into as few micro-batches as a limit allows, with sizes as equal as possible.

    Args:
        batch (list): B images of a process.
        limit (int): maximum number of images of a micro-batch; 0 = unlimited.

    Returns:
        list[tuple[list, float]]: the micro-batches, in order, each with its share of the batch.

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


def synchronised(model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """The context of a micro-batch: DistributedDataParallel synchronises gradients only in the last one.

    Args:
        model (nn.Module)
        is_last (bool): whether this is the last micro-batch of the batch.
    """
    if is_last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()
