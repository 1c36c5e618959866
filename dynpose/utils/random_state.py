"""Saving, restoring and seeding the global random generators of random, numpy and torch together."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["preserved_rng", "rng_state", "seed_rng", "set_rng_state"]


def rng_state(cuda: bool = True) -> dict[str, Any]:
    """Return the state of the generators of this process.

    Args:
        cuda (bool): include the generator of the current GPU, if one is in use.

    Returns:
        dict[str, Any]: only tensors, tuples and numbers, so that ``torch.load`` reads it with ``weights_only``.
    """
    legacy = np.random.get_state()
    assert isinstance(legacy, tuple), "numpy's global generator is not its default one"
    name, keys, *rest = legacy
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if cuda and torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set the generators to a state of :func:`rng_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_rng(seed: int, cuda: bool = True) -> None:
    """Seed the generators.

    Args:
        seed (int): from 0 to 2^32 - 1.
        cuda (bool): seed those of the GPUs too.
    """
    random.seed(seed)
    np.random.seed(seed)
    if cuda:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def preserved_rng(cuda: bool = True) -> Iterator[None]:
    """Restore the state of the generators after the block.

    Example::

        >>> with preserved_rng():
        ...     seed_rng(1)  # has no effect outside
    """
    state = rng_state(cuda)
    try:
        yield
    finally:
        set_rng_state(state)
