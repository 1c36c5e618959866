"""Builds full-size models without drawing hundreds of millions of random numbers."""

import contextlib
from unittest import mock

import torch

# Not a power of two, as the sizes of most weights are, so that the rows of a matrix differ.
_NUMBERS = 65_537


@contextlib.contextmanager
def no_initialisation():
    """Leave the memory of new weights unset, for models all of whose weights a test then replaces."""
    with _replaced(lambda tensor, *_, **__: tensor, lambda tensor, *_, **__: tensor):
        yield


@contextlib.contextmanager
def quick_initialisation():
    """Fill new weights with a few random numbers, repeated, for models whose weights a test compares or loads."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(_NUMBERS, generator=generator)
    normal = torch.randn(_NUMBERS, generator=generator)

    def fill_uniform(tensor, a=0.0, b=1.0, **_):
        return _fill(tensor, a + (b - a) * uniform)

    def fill_normal(tensor, mean=0.0, std=1.0, **_):
        return _fill(tensor, mean + std * normal)

    with _replaced(fill_uniform, fill_normal):
        yield


@contextlib.contextmanager
def _replaced(uniform, normal):
    with mock.patch.object(torch.Tensor, "uniform_", uniform), mock.patch.object(torch.Tensor, "normal_", normal):
        yield


def _fill(tensor, numbers):
    for chunk in tensor.view(-1).split(len(numbers)):
        chunk.copy_(numbers[: len(chunk)])
    return tensor
