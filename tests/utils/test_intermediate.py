"""Intermediate results are collected in their context only, and never in a graph that is recorded or compiled."""

import threading

import pytest
import torch
from torch import nn

from dynpose.utils.intermediate import collect_intermediates, provide

needs_exporters = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="a PyTorch without exporters")


class Doubling(nn.Module):
    """Provides its input times 2, and overwrites it afterwards."""

    def forward(self, x):
        doubled = x * 2
        provide(lambda: {"doubled": doubled, "half": doubled / 2})
        return doubled.add_(1)


def test_outside_of_a_context_nothing_is_computed():
    def fail():
        raise AssertionError("called")

    provide(fail)
    with collect_intermediates():
        pass
    provide(fail)


def test_values_are_copies_in_order_without_gradients():
    x = torch.ones(2, requires_grad=True)
    with collect_intermediates() as results:
        result = Doubling()(x)
        Doubling()(x * 5)
    assert result.requires_grad
    assert result.tolist() == [3, 3]
    assert [value.tolist() for value in results["doubled"]] == [[2, 2], [10, 10]]
    assert [value.tolist() for value in results["half"]] == [[1, 1], [5, 5]]
    assert not any(value.requires_grad for values in results.values() for value in values)


def test_the_innermost_context_collects_and_ends_with_an_exception():
    def fail_inside():
        with collect_intermediates() as results:
            inner.append(results)
            Doubling()(torch.ones(1))
            raise ZeroDivisionError

    inner = []
    with collect_intermediates() as outer:
        with pytest.raises(ZeroDivisionError):
            fail_inside()
        Doubling()(torch.zeros(1))
    assert [value.tolist() for value in inner[0]["doubled"]] == [[2]]
    assert [value.tolist() for value in outer["doubled"]] == [[0]]


def test_other_threads():
    errors = []

    def other():
        Doubling()(torch.ones(1))
        try:
            with collect_intermediates():
                pass
        except RuntimeError as error:
            errors.append(str(error))

    with collect_intermediates() as results:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert results == {}
    assert len(errors) == 1
    assert "another thread" in errors[0]


def test_a_compiled_model():
    compiled = torch.compile(Doubling(), backend="eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [3, 3]


def test_a_trace_provides_nothing():
    with collect_intermediates() as results:
        traced = torch.jit.trace(Doubling(), (torch.ones(2),), check_trace=False)
    assert results == {}
    assert traced(torch.zeros(2)).tolist() == [1, 1]


@needs_exporters
@pytest.mark.parametrize("strict", [False, True])
def test_exporters(strict):
    exported = torch.export.export(Doubling(), (torch.ones(2),), strict=strict)
    assert exported.module()(torch.zeros(2)).tolist() == [1, 1]
    with collect_intermediates() as results:
        exported.module()(torch.zeros(2))
    assert results == {}
