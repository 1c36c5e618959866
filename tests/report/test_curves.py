"""What the curves of a training mean."""

import json
import math

import pytest

from dynpose.report.curves import read_curves


def curves(tmp_path, losses=(), ap=(), more=""):
    lines = [{"iteration": 20 * i, "total_loss": loss, "loss_fcos_cls": loss / 2} for i, loss in enumerate(losses)]
    lines += [{"iteration": 100 * i - 1, "keypoints/AP": value} for i, value in enumerate(ap, start=1)]
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + more)
    return read_curves(path)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([10 - i / 10 for i in range(50)], "still falls, by 9 %"),
        ([10 / (1 + i) + 1 for i in range(10)] + [1.5] * 40, "levelled off"),
        ([1 + i for i in range(20)], "It rises"),
        ([5, 4, math.nan, 3], "not a finite number from iteration 40"),
        ([5, 4], "from 5 to 4"),
    ],
)
def test_loss(tmp_path, losses, words):
    (sentence,) = curves(tmp_path, losses).meaning
    assert words in sentence


@pytest.mark.parametrize(
    ("ap", "words"),
    [
        ([10, 30, 20], "20.0, 10.0 below its best, 30.0 at iteration 200"),
        ([10, 20, 30], "still rises"),
        ([10, 30, 30.1], "no longer rises"),
        ([10], "of one evaluation at iteration 100"),
        ([math.nan], "NaN in all evaluations"),
    ],
)
def test_ap(tmp_path, ap, words):
    (sentence,) = curves(tmp_path, ap=ap).meaning
    assert words in sentence


def test_series(tmp_path):
    found = curves(tmp_path, [3, 2], [50], more='{"iteration": 20, "total_loss": 1}\n{"iteration": 4')
    assert found.losses == {"total_loss": [(0, 3), (20, 1)], "loss_fcos_cls": [(0, 1.5), (20, 1)]}
    assert found.ap == {"keypoints/AP": [(99, 50)]}


def test_long_curves_are_thinned(tmp_path):
    curve = curves(tmp_path, [1.0] * 2000).losses["total_loss"]
    assert len(curve) == 400
    assert (curve[0], curve[-1]) == ((0, 1), (39980, 1))


def test_no_curves(tmp_path):
    assert read_curves(tmp_path / "gone.json") is None
    assert curves(tmp_path, more='{"iteration": 1, "lr": 1}\n') is None
