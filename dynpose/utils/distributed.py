"""Models that may be wrapped for training in several processes."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """The module inside a DistributedDataParallel, or the model itself if it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model
