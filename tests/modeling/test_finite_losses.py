"""Losses and gradients of every method stay finite on whatever a mapper can give."""

import sys
from pathlib import Path

import pytest
import torch
from small_models import image, one_person, people

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import METHODS, tiny_model


def someone(box, points, count=1, size=(128, 128), visibility=2):
    return people([box] * count, [[(x, y, visibility) for x, y in points]] * count, size)


# Boxes of the least size that the mapper leaves, keypoints up to the last place inside of the image
EDGE = 127.99
CROWDED = {
    "a box of a pixel": someone([63.2, 63.2, 64.2, 64.2], [(64, 64)] * 4),
    "one in the last corner": someone([127, 127, 128, 128], [(EDGE, EDGE)] * 4),
    "one in the first corner": someone([0, 0, 1, 1], [(0, 0)] * 4),
    "a line": someone([0, 60, 128, 61], [(0, 60.5), (EDGE, 60.5), (5, 60.2), (9, 60)]),
    "an upright line": someone([60, 0, 61, 128], [(60.5, 0), (60.5, EDGE), (60, 1), (60, 2)]),
    "the whole image": someone([0, 0, 128, 128], [(0, 0), (EDGE, 0), (0, EDGE), (EDGE, EDGE)]),
    "keypoints outside the box": someone([10, 10, 20, 20], [(100, 100), (EDGE, 0), (0, EDGE), (64, 64)]),
    "people at one place": someone([20, 20, 90, 100], [(50, 50)] * 4, count=5),
    "more people than queries": someone([20, 20, 90, 100], [(50, 50), (60, 60), (70, 50), (55, 90)], count=120),
    "one keypoint": people([[20, 20, 90, 100]], [[(50, 50, 2), *[(0, 0, 0)] * 3]]),
}
ALONE = {
    "no-people": people([], []),
    "no one labelled": people([[10, 10, 60, 90]], [[(0, 0, 0)] * 4]),
    "1 x 1 pixels": someone([0, 0, 1, 1], [(0.5, 0.5)] * 4, size=(1, 1)),
    "1 x 64 pixels": someone([0, 0, 1, 64], [(0.5, 0.5), (0.5, 63), (0.2, 9), (0.7, 30)], size=(64, 1)),
}


@pytest.fixture(scope="module", params=METHODS)
def model(request):
    return tiny_model(request.param)


def not_finite(model, batch):
    """Names of losses and parameters."""
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients
    return [name for name, value in {**losses, **gradients}.items() if not torch.isfinite(value).all()]


def test_crowded(model):
    assert not_finite(model, [image(instances, i) for i, instances in enumerate(CROWDED.values())]) == []


@pytest.mark.parametrize("case", ALONE)
def test_alone(model, case):
    assert not_finite(model, [image(ALONE[case])]) == []


def test_everything_ignored(model):
    inputs = image(one_person())
    inputs["ignore_mask"] = torch.ones(128, 128, dtype=torch.bool)
    assert not_finite(model, [inputs]) == []


@torch.no_grad()
def scale_predictions(model, factor):
    """Multiply the last layers' weights, all that start from a normal distribution."""
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone") and parameter.dim() > 1:
            parameter *= factor


def test_predictions_far_out(model):
    """exp and log: scores near 0 and 1, boxes and offsets of thousands of pixels."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale_predictions(model, 30)
    assert not_finite(model, [image(one_person(), 1)]) == []
    model.load_state_dict(before)
