"""dynpose benchmark predict on a tiny model, and its comparison by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from small_models import small_config, small_model

from dynpose.benchmark.predict import shards
from dynpose.benchmark.predict.case import difference, images_of_shapes
from dynpose.checkpoint import PoseCheckpointer
from dynpose.tools.cli import main

OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 2, "INPUT.MIN_SIZE_TEST", 64)


@pytest.fixture
def files(tmp_path):
    """Arguments of a model without offsets from cells to keypoints: untrained ones are of hundreds of pixels."""
    model = small_model("configs/FCPose/Base-FCPose.yaml", *OPTS)
    model.head.box_distances.bias.data.fill_(2.0)
    for parameter in model.refinement.parameters():
        parameter.data.zero_()
    PoseCheckpointer(model, str(tmp_path)).save("model_final")
    (tmp_path / "tiny.yaml").write_text(small_config("configs/FCPose/Base-FCPose.yaml", *OPTS).dump())
    return ["--config-file", str(tmp_path / "tiny.yaml"), "--weights", str(tmp_path / "model_final.pth")]


def people(points, scores):
    keypoints = torch.tensor(points, dtype=torch.float32).reshape(len(points), -1, 3)
    return Instances((9, 9), pred_keypoints=keypoints, scores=torch.tensor(scores))


def test_images_of_shapes():
    images = images_of_shapes(7, 3, 40)
    # widths of half, once and twice the height
    assert sorted(image.shape for image in images) == [(40, 40, 3)] * 2 + [(40, 80, 3)] * 2 + [(80, 40, 3)] * 3
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert all(np.array_equal(*pair) for pair in zip(images, images_of_shapes(7, 3, 40)))


def test_difference_by_hand():
    first = people([[5, 5, 1], [1, 2, 1]], [0.9, 0.5])
    # in another order; the second has moved by a quarter of a pixel and by 0.0625 in score
    second = people([[1, 2.25, 0], [5, 5, 0], [7, 7, 0]], [0.4375, 0.9, 0.1])
    assert difference(first, second) == {"unmatched": 1, "moved": 1, "pixels": 0.25, "score": 0.0625}
    assert difference(first, first) == {"unmatched": 0, "moved": 0, "pixels": 0.0, "score": 0.0}
    assert difference(first, first[:0]) == {"unmatched": 2, "moved": 0, "pixels": 0.0, "score": 0.0}


def test_both_ways_find_the_same(files, tmp_path, capsys):
    sizes = ["--images", "9", "--shapes", "3", "--batch", "2", "--device", "cpu", "--threads", "1"]
    assert main(["benchmark", "predict", *files, *sizes, "--json", str(tmp_path / "report.json")]) == 0
    (row,) = json.loads((tmp_path / "report.json").read_text())["models"]
    assert row["people"] == 18
    assert row["unmatched"] == row["moved"] == 0
    assert row["wall_ratio"] == pytest.approx(row["alone_wall_ms"] / row["batched_wall_ms"])
    assert "9 images of 3 shapes in batches of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config-file", "other.yaml"], "2 --config-file and 1 --weights: give one for each"),
        (["--images", "3"], "--images 3 is less than --shapes 20"),
    ],
)
def test_refuses(files, more, message, capsys):
    assert main(["benchmark", "predict", *files, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_in_shards(files, tmp_path, monkeypatch, capsys):
    """The two commands run in this process, one after another: starting others takes seconds."""

    class Process:
        def __init__(self, command, **options):
            self.returncode = main(command[command.index("predict") :])

        def poll(self):
            return self.returncode

        def communicate(self):
            return "", ""

    monkeypatch.setattr(shards, "subprocess", SimpleNamespace(Popen=Process, DEVNULL=None, PIPE=None))
    sizes = ["--images", "5", "--shapes", "2", "--batch", "2", "--device", "cpu", "--processes", "2"]
    assert main(["benchmark", "predict", *files, *sizes, "--json", str(tmp_path / "report.json")]) == 0
    (row,) = json.loads((tmp_path / "report.json").read_text())["models"]
    assert (row["people"], row["agree"]) == (10, True)
    assert row["seconds_ratio"] == pytest.approx(row["one_seconds"] / row["shards_seconds"])
    assert "2 processes, s" in capsys.readouterr().out


def test_shards_with_other_people_disagree():
    person = {"score": 0.5}
    assert shards._agree({"a": [person]}, {"a": [{"score": 0.50001}]})
    assert not shards._agree({"a": [person]}, {"a": []})
    assert not shards._agree({"a": [person]}, {"a": [{"score": 0.6}]})
    assert not shards._agree({"a": [person]}, {"b": [person]})
