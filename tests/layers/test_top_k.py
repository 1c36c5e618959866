"""The largest values of each row, by hand and against a stable sort."""

import math

import pytest
import torch

from dynpose.layers.top_k import stable_descending, stable_top_k, top_of_rows


def test_of_equal_values_the_lowest_indices_are_chosen():
    values, index = stable_top_k(torch.tensor([[0.2, 0.7, 0.2, 0.9, 0.2], [0.5, 0.5, 0.5, 0.5, 0.5]]), 3)
    assert index.tolist() == [[3, 1, 0], [0, 1, 2]]
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.7, 0.2], [0.5, 0.5, 0.5]]))


def test_nan_counts_as_the_largest():
    values, index = stable_top_k(torch.tensor([[0.2, math.nan, 0.7, math.nan]]), 3)
    assert index.tolist() == [[1, 3, 2]]
    assert values[0].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("k", [1, 7, 40])
def test_it_is_a_stable_sort(k):
    generator = torch.Generator().manual_seed(k)
    # 40 values, most of them more than once
    rows = torch.randint(0, 12, (5, 40), generator=generator).float()
    values, index = stable_top_k(rows, k)
    expected_values, expected_index = rows.sort(dim=1, descending=True, stable=True)
    assert torch.equal(values, expected_values[:, :k])
    assert torch.equal(index, expected_index[:, :k])


def test_descending_order():
    assert stable_descending(torch.tensor([0.2, 0.7, 0.2, math.nan])).tolist() == [3, 1, 0, 2]
    assert stable_descending(torch.zeros(0)).tolist() == []
    assert stable_descending(torch.zeros(2, 0)).shape == (2, 0)


def test_the_top_of_rows():
    rows = torch.tensor([[0.2, 0.7, 0.2, 0.2], [0.1, math.nan, 0.3, 0.2]])
    assert top_of_rows(rows, 2).tolist() == [[True, True, False, False], [False, True, True, False]]
    assert top_of_rows(rows, 9).all()
