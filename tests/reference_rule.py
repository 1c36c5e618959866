"""The deterministic weights and inputs of the numeric fixtures (reference/RULE.md), and how outputs are compared."""

import zlib

import numpy as np
import torch


def rule_state_dict(shapes, constants):
    """Weights by the rule.

    Args:
        shapes (dict[str, list[int]]): released parameter name -> shape.
        constants (dict[str, object]): name -> value, for those that the rule does not draw.
    """
    return {key: _value(key, tuple(shape), constants) for key, shape in shapes.items()}


def _value(key, shape, constants):
    if key in constants:
        return torch.as_tensor(constants[key]).expand(shape).clone()
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    draw = _draw(zlib.crc32(key.encode()), shape)
    tenth = np.float32(0.1)
    if key.endswith("running_var"):
        value = 1 + tenth * np.abs(draw)
    elif key.endswith(("running_mean", "bias")):
        value = tenth * draw
    elif draw.ndim >= 2:
        value = draw * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    elif draw.size == 1 or key.endswith(".weight"):
        value = 1 + tenth * draw
    else:
        value = tenth * draw
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


# of float64 numbers, which then stay in the processor's cache: twice as fast as all at once
_CHUNK = 2**15


def _draw(seed, shape):
    """Draw from the standard normal distribution, rounded to float32; the numbers are those of a single draw."""
    generator, draw = np.random.RandomState(seed), np.empty(shape, dtype=np.float32)
    flat = draw.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        chunk[:] = generator.standard_normal(chunk.size)
    return draw


def rule_input(seed, shape, scale=1.0):
    """N(seed, shape, scale)."""
    return torch.from_numpy((np.random.RandomState(seed).standard_normal(shape) * scale).astype(np.float32))


def assert_matches(actual, outputs, name, *, rel=None, abs=None):
    """Compare with a recorded array, or with its recorded summary.

    Args:
        actual (Tensor): the computed array.
        outputs (NpzFile): the fixture.
        name (str): the recorded array.
        rel (float): largest deviation allowed, relative to the largest magnitude of the recorded values.
        abs (float): the same, absolute.
    """
    actual = actual.detach().double().numpy()
    if f"{name}@shape" in outputs:
        assert list(actual.shape) == outputs[f"{name}@shape"].tolist()
        count, total, total_magnitude, *first = outputs[f"{name}@summary"]
        assert actual.size == count
        np.testing.assert_allclose(actual.sum(), total, atol=(rel or 1e-5) * total_magnitude)
        np.testing.assert_allclose(np.abs(actual).sum(), total_magnitude, rtol=rel or 1e-5)
        actual, expected = actual.ravel()[: len(first)], np.array(first)
    else:
        expected = outputs[name]
        assert actual.shape == expected.shape
    limit = abs if abs is not None else rel * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)
