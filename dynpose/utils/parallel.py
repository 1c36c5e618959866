"""Models that may be spread over processes."""

from torch.nn.parallel import DistributedDataParallel


def bare_model(model):
    """Give the model inside DistributedDataParallel, or the model itself where it is in none."""
    return model.module if isinstance(model, DistributedDataParallel) else model
