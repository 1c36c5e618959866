"""`dynpose predict` with an exported file: the outputs of a checkpoint, and options that make no sense."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from exported_files import write_exported

from dynpose.runtime import Pose
from dynpose.tools.cli import main
from dynpose.video import VideoWriter


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("exported") / "pose.onnx")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with two photos, a black image, a damaged one and a video of three frames."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    for name, size in (("a.png", (60, 80)), ("night/b.jpg", (90, 50))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(1, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    Image.new("RGB", (64, 64)).save(folder / "black.png")
    (folder / "damaged.png").write_bytes((folder / "a.png").read_bytes()[:500])
    with VideoWriter(folder / "walk.mp4", 10.0) as writer:
        for index in range(3):
            writer.write(random.integers(1, 256, (96, 128, 3), dtype=np.uint8), index / 10, 1 / 10)
    return folder


def words(exported, inputs, output, *more):
    return ["predict", "--weights", str(exported), "--input", str(inputs), "--output", str(output), *more]


def test_images_and_videos(exported, inputs, tmp_path, capsys):
    assert main(words(exported, inputs, tmp_path, "--batch-size", "2", "--track")) == 1
    record = json.loads((tmp_path / "predictions.json").read_text())
    assert record["info"]["keypoint_names"] == ["head", "left_hand", "right_hand"]
    assert record["info"]["category_names"] == ["person", "dog"]
    assert [file["file_name"] for file in record["skipped"]] == ["damaged.png"]
    numbers = {(image["file_name"], image.get("frame")): image["instances"] for image in record["images"]}
    frames = [("walk.mp4", index) for index in range(3)]
    assert set(numbers) == {("a.png", None), ("night/b.jpg", None), ("black.png", None), *frames}
    assert numbers["black.png", None] == []
    assert [person["track_id"] for frame in frames for person in numbers[frame]] == [1, 2] * 3

    people = Pose(exported)(inputs / "a.png")
    assert [person["category_name"] for person in numbers["a.png", None]] == ["person", "dog"]
    for index, person in enumerate(numbers["a.png", None]):
        x0, y0, x1, y1 = people.pred_boxes[index].tolist()
        assert person["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=2e-3)
        assert person["score"] == pytest.approx(people.scores[index], abs=1e-5)
        np.testing.assert_allclose(person["keypoints"], people.pred_keypoints[index] - [0.5, 0.5, 0], atol=2e-3)
    # pictures are enlarged for drawing
    assert Image.open(tmp_path / "a.png").size == (640, 480)
    assert (tmp_path / "walk.mp4").stat().st_size > 1000
    assert "3 images, 3 frames of 1 video, 10 people" in capsys.readouterr().out


def test_a_resumed_run_needs_the_same_file(exported, inputs, tmp_path, capsys):
    command = words(exported, inputs / "a.png", tmp_path, "--no-pictures")
    assert main(command) == 0
    first = (tmp_path / "predictions.json").read_text()
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "predictions.json").read_text() == first
    assert "1 of 1 images are in" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    other = write_exported(tmp_path / "other" / "pose.onnx", licence="MIT")
    assert main([*words(other, inputs / "a.png", tmp_path, "--no-pictures"), "--resume"]) == 2
    assert "--resume needs the weights that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--config-file", "FCPose/R_50_1x.yaml"], "--config-file"),
        (["--precision", "bfloat16", "--compile"], "--precision, --compile"),
        (["--limit", "1", "INPUT.MIN_SIZE_TEST", "64"], "the overrides INPUT.MIN_SIZE_TEST 64"),
    ],
)
def test_options_of_checkpoints_are_refused(options, named, exported, inputs, tmp_path, capsys):
    assert main(words(exported, inputs, tmp_path / "out", *options)) == 2
    line = capsys.readouterr().err
    assert (
        f"pose.onnx: an exported file has its config and its precision in it; leave out {named}, or give them" in line
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.onnx", None, "missing.onnx: there is no such file; write one with dynpose export"),
        ("damaged.onnx", b"\x08\x0a", "damaged.onnx: it is"),
        ("pose.ts", b"x", "pose.ts: exported files for this runtime end with .onnx or .xml, this one is for PyTorch;"),
        ("pose.xml", b"<net/>", "pose.xml: its weights pose.bin are missing"),
    ],
)
def test_files_that_do_not_load_end_in_one_line(name, content, message, inputs, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(words(tmp_path / name, inputs, tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_device_that_is_not_there(exported, inputs, tmp_path, capsys):
    assert main(words(exported, inputs, tmp_path / "out", "--device", "cpu:x")) == 2
    assert "--device: device must be like cpu, cuda or cuda:1, got 'cpu:x'" in capsys.readouterr().err
