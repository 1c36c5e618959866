"""`dynpose predict` on videos, animations, a camera, URLs and standard input."""

import functools
import http.server
import io
import json
import os
import signal
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from small_media import cut_off, damage_packet, make_animation, make_video, read_video

from dynpose.engine.predictor import PosePredictor
from dynpose.tools.cli import main


def _person(height, width):
    center = torch.tensor([width / 2, height / 2])
    offsets = torch.tensor([[0.0, -10.0], [-5.0, 0.0], [5.0, 0.0], [0.0, 10.0]])
    keypoints = torch.cat([center + offsets, torch.ones(4, 1)], dim=1)[None]
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.cat([center - 12, center + 12])[None]),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([0]),
        pred_keypoints=keypoints,
    )


@pytest.fixture
def inferred(monkeypatch):
    """Sizes of the forward passes, in which a person in the middle of each image takes the model's place."""
    sizes = []
    monkeypatch.setattr(PosePredictor, "infer", functools.partialmethod(functools.partial(_infer, sizes)))
    return sizes


def _infer(sizes, self, inputs):
    sizes.append(len(inputs))
    return [_person(one["height"], one["width"]) for one in inputs]


@pytest.fixture(scope="module")
def shared(small_run, tmp_path_factory):
    """The command line's beginning."""
    return ("predict", "--config-file", small_run.config, "--weights", small_run.weights, "--device", "cpu")


@pytest.fixture
def run(shared, tmp_path):
    def call(inputs, *more, output="out"):
        code = main([*shared, "--input", *map(str, inputs), "--output", str(tmp_path / output), *more])
        file = tmp_path / output / "predictions.json"
        return code, json.loads(file.read_text()) if file.exists() else None

    return call


def lines_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_video_gives_records_and_a_video_with_sound(run, tmp_path, inferred, capsys):
    source = make_video(tmp_path / "in.mov", 9, rotation=90, sound="aac")
    code, record = run([source], "--track", "--stride", "2", "--batch-size", "2")
    assert code == 0
    assert inferred == [2, 2, 1]
    frames = record["images"]
    assert [(image["file_name"], image["frame"]) for image in frames] == [
        ("in.mov", index) for index in (0, 2, 4, 6, 8)
    ]
    assert [image["time"] for image in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    # turned upright: 48 x 64 pixels are 64 x 48
    assert {(image["width"], image["height"]) for image in frames} == {(48, 64)}
    people = [person for image in frames for person in image["instances"]]
    assert [person["track_id"] for person in people] == [1] * 5
    assert people[0]["keypoints"][0] == [23.5, 21.5, 1.0]
    (video,) = record["videos"]
    assert {key: video[key] for key in ("file_name", "width", "height", "frames", "stride", "result")} == {
        **{"file_name": "in.mov", "width": 48, "height": 64, "frames": 5, "stride": 2},
        "result": "in.mov.mp4",
    }
    result = read_video(tmp_path / "out" / "in.mov.mp4")
    assert (result["codec"], result["sound"]) == ("h264", ["aac"])
    assert result["times"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=1e-4)
    # small frames are enlarged for drawing
    assert result["size"] == (640, 480)
    # the coloured limbs are seen in the middle of the frame
    assert np.ptp(result["images"][0][300:340, 220:260].astype(int)) > 60
    captured = capsys.readouterr()
    assert "5 frames of 1 video, 5 people with a score of at least 0.3" in captured.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "in.mov.mp4",
        "predictions.json",
        "predictions.jsonl",
    ]


def test_a_stopped_run_keeps_its_frames(run, tmp_path, inferred, monkeypatch, capsys):
    source = make_video(tmp_path / "a.mp4", 6)
    infer = PosePredictor.infer

    def ending(self, inputs):
        if len(inferred) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return infer(self, inputs)

    monkeypatch.setattr(PosePredictor, "infer", ending)
    code, record = run([source])
    assert code == 143
    assert [image["frame"] for image in record["images"]] == [0, 1, 2]
    assert (record["videos"], record["info"]["complete"]) == ([], False)
    # an unfinished video is no result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.json", "predictions.jsonl"]
    assert "holds 3 frames; --resume continues" in capsys.readouterr().err
    assert [line["frame"] for line in lines_of(tmp_path / "out")[1:]] == [0, 1, 2]


def test_a_resumed_run_is_as_if_uninterrupted(run, tmp_path, inferred):
    source = make_video(tmp_path / "a.mp4", 6)
    whole = run([source], "--track", output="whole")
    (tmp_path / "out").mkdir()
    lines = (tmp_path / "whole" / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    # the header, frames 0, 1 and 4, and half of a line
    kept = [*lines[:3], lines[5], lines[6][:50]]
    (tmp_path / "out" / "predictions.jsonl").write_bytes(b"".join(kept))
    inferred.clear()
    assert run([source], "--track", "--resume") == whole
    assert inferred == [1] * 3
    ours, theirs = read_video(tmp_path / "out" / "a.mp4"), read_video(tmp_path / "whole" / "a.mp4")
    assert ours["times"] == theirs["times"]
    assert all(np.array_equal(*pair) for pair in zip(ours["images"], theirs["images"]))
    inferred.clear()
    # nothing is left to do: the video is not even read
    before = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    assert run([source], "--track", "--resume") == whole
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == before
    # a result that is gone is drawn from the record, and identities can be added and removed
    (tmp_path / "out" / "a.mp4").unlink()
    _, record = run([source], "--resume")
    assert inferred == []
    assert (tmp_path / "out" / "a.mp4").is_file()
    assert not any("track_id" in person for image in record["images"] for person in image["instances"])


def test_a_broken_frame_is_passed_over_and_listed(run, tmp_path, inferred, capsys):
    source = make_video(tmp_path / "a.avi", 6, codec="mjpeg")
    damage_packet(source, 2)
    code, record = run([source])
    assert code == 1
    assert [image["frame"] for image in record["images"]] == [0, 1, 3, 4, 5]
    (skipped,) = record["skipped"]
    assert (skipped["file_name"], skipped["frame"], skipped["time"], skipped["is_failure"]) == ("a.avi", 2, 0.2, True)
    errors = capsys.readouterr().err
    assert "skipped frame 2 of a.avi (0.200 s): it can't be decoded" in errors
    assert "1 frame can't be decoded" in errors
    assert read_video(tmp_path / "out" / "a.avi.mp4")["times"] == pytest.approx([0, 0.1, 0.3, 0.4, 0.5], abs=1e-4)
    assert run([source], "--resume") == (1, record)


def test_a_video_that_is_cut_off_and_one_that_is_none(run, tmp_path, inferred, capsys):
    (tmp_path / "in").mkdir()
    cut_off(make_video(tmp_path / "in" / "cut.mp4", 20, gop=5))
    (tmp_path / "in" / "text.mp4").write_text("no video")
    code, record = run([tmp_path / "in"], "--no-pictures")
    assert code == 1
    (video,) = record["videos"]
    assert video["cut_off"].startswith("the file is cut off: it has")
    assert 0 < video["frames"] == len(record["images"]) < 20
    assert [(file["file_name"], file["is_failure"]) for file in record["skipped"]] == [("text.mp4", True)]
    errors = capsys.readouterr().err
    assert "cut.mp4: the file is cut off" in errors
    assert "1 video cut off" in errors
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_images_and_animations_together_in_the_order_of_the_inputs(run, tmp_path, inferred):
    Image.new("RGB", (64, 48)).save(tmp_path / "z.png")
    source = make_animation(tmp_path / "wave.gif", [100, 300, 100])
    code, record = run([source, tmp_path / "z.png"], "--max-frames", "2")
    assert code == 0
    assert [(image["file_name"], image.get("frame")) for image in record["images"]] == [
        ("wave.gif", 0),
        ("wave.gif", 1),
        ("z.png", None),
    ]
    assert read_video(tmp_path / "out" / "wave.gif.mp4")["times"] == pytest.approx([0, 0.1], abs=1e-4)
    assert (tmp_path / "out" / "z.png").is_file()


def test_a_result_never_overwrites_a_video(run, tmp_path, inferred, capsys):
    source = make_video(tmp_path / "a.mp4", 2)
    before = source.read_bytes()
    assert run([source], output=".") == (2, None)
    assert "the picture a.mp4 would overwrite an image" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_result_that_can_not_be_written_costs_no_numbers(run, tmp_path, inferred, capsys):
    source = make_video(tmp_path / "a.mp4", 3)
    (tmp_path / "out" / "a.mp4").mkdir(parents=True)
    code, record = run([source])
    assert code == 1
    assert len(record["images"]) == 3
    assert "Is a directory" in record["videos"][0]["picture_error"]
    assert "1 picture not written" in capsys.readouterr().err
    assert list((tmp_path / "out").glob("*.tmp")) == []
    (tmp_path / "out" / "a.mp4").rmdir()
    inferred.clear()
    code, record = run([source], "--resume")
    assert (code, inferred, record["videos"][0]["result"]) == (0, [], "a.mp4")


class Camera:
    """Stands in for OpenCV's camera."""

    def __init__(self, number):
        assert number == 0

    def isOpened(self):
        return True

    def get(self, what):
        return 30.0

    def read(self):
        return True, np.full((48, 64, 3), 90, np.uint8)

    def release(self):
        pass


def test_a_camera_ends_by_ctrl_c_with_a_whole_video(run, tmp_path, inferred, monkeypatch, capsys):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    infer = PosePredictor.infer

    def interrupted(self, inputs):
        if len(inferred) == 4:
            raise KeyboardInterrupt
        return infer(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(PosePredictor, "infer", interrupted)
        code, record = run(["0"], "--track")
    assert code == 0
    assert record["info"]["complete"]
    assert len(record["images"]) == 4
    assert record["images"][0]["file_name"] == "camera_0"
    assert len(read_video(tmp_path / "out" / "camera_0.mp4")["times"]) == 4
    assert run(["0"], "--resume")[0] == 2
    assert "--resume: camera_0 is live and can't be continued" in capsys.readouterr().err
    code, record = run(["camera:0"], "--max-frames", "3", output="other")
    assert (code, len(record["images"])) == (0, 3)


def test_urls_and_names_on_standard_input(run, tmp_path, inferred, monkeypatch):
    (tmp_path / "web").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "web" / "x.jpg")
    make_video(tmp_path / "a.mp4", 2)
    handler = functools.partial(_Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        names = f"{url}/x.jpg\n{url}/gone.jpg\n{tmp_path}/a.mp4\n"
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(names.encode())))
        code, record = run(["-"])
        server.shutdown()
    host = f"127.0.0.1_{server.server_port}"
    assert code == 1
    assert [image["file_name"] for image in record["images"]] == ["a.mp4", "a.mp4", f"{host}/x.jpg"]
    assert [file["reason"] for file in record["skipped"]] == [
        "the server answers 404 File not found; check the address"
    ]
    assert (tmp_path / "out" / host / "x.jpg").is_file()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_show_needs_a_display(run, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run([tmp_path / "a.png"], "--show") == (2, None)
    assert "--show: there is no display" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")

    def headless(*_):
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", headless)
    assert run([tmp_path / "a.png"], "--show") == (2, None)
    assert "this OpenCV is built without windows; pip uninstall opencv-python-headless" in capsys.readouterr().err


def test_show_shows_images_and_frames_and_q_stops(run, tmp_path, inferred, monkeypatch):
    shown, keys = [], iter([-1, -1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    for name, function in {
        "namedWindow": lambda *_: None,
        "imshow": lambda _, image: shown.append(image.shape),
        "waitKey": lambda _: next(keys),
        "getWindowProperty": lambda *_: 1.0,
        "destroyWindow": lambda *_: None,
    }.items():
        monkeypatch.setattr(cv2, name, function)
    Image.new("RGB", (64, 48)).save(tmp_path / "z.png")
    source = make_video(tmp_path / "a.mp4", 30)
    code, record = run([source, tmp_path / "z.png"], "--show", "--no-pictures")
    assert code == 130
    assert shown == [(480, 640, 3)] * 3
    assert record["images"][-1]["file_name"] == "z.png"
    assert not record["info"]["complete"]
