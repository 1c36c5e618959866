"""Random generators that are set back give the same numbers again."""

import io
import random

import numpy as np
import pytest
import torch

from dynpose.utils.random_state import preserved_rng, rng_state, seed_rng, set_rng_state


def draw(device="cpu"):
    return random.gauss(0, 1), np.random.randn(), torch.randn(3, device=device).tolist()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_same_numbers_again(device):
    # gauss and randn draw numbers in pairs: half a pair is left
    draw(device)
    state = through_a_file(rng_state())
    expected = draw(device), draw(device)
    assert expected[0] != expected[1]
    set_rng_state(state)
    assert (draw(device), draw(device)) == expected


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_block_is_not_noticed(device):
    draw(device)
    state = rng_state()
    expected = draw(device)
    set_rng_state(state)
    with preserved_rng():
        seed_rng(1)
        first = draw(device)
    assert draw(device) == expected
    with preserved_rng():
        seed_rng(1)
        assert draw(device) == first


@pytest.mark.gpu
def test_loading_an_image_does_not_seed_the_gpu():
    state = torch.cuda.get_rng_state()
    seed_rng(1, cuda=False)
    assert torch.equal(torch.cuda.get_rng_state(), state)
