"""dynpose benchmark video on a tiny model."""

import json

import pytest
from small_models import small_config

from dynpose.tools.cli import main
from dynpose.video import VideoReader


def test_a_video_from_end_to_end(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(
        small_config("configs/FCPose/Base-FCPose.yaml", "INPUT.MIN_SIZE_TEST", 64).dump()
    )
    command = ["benchmark", "video", "--config-file", str(tmp_path / "tiny.yaml"), "--device", "cpu", "--threads", "1"]
    sizes = ["--frames", "6", "--size", "64", "96", "--people", "2", "--json", str(tmp_path / "report.json")]
    assert main([*command, *sizes]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    video = report["video"]
    assert report["settings"]["frames"] == 6
    assert video["model_wall_s"] > 0
    assert video["wall_ratio"] == pytest.approx(video["video_wall_s"] / video["model_wall_s"])
    assert video["cpu_ratio"] > 0
    assert 0 < video["peak_settled"] <= video["peak_end"]
    out = capsys.readouterr().out
    assert "6 frames of 96 x 64 with 2 people" in out
    assert "peak memory after frame 6, MiB" in out


def test_the_video_has_the_frames(tmp_path):
    from dynpose.benchmark.video.case import write_video

    write_video(tmp_path / "in.mp4", 4, (64, 96))
    frames = list(VideoReader(tmp_path / "in.mp4"))
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 4
    # they move
    assert abs(frames[3].image.astype(int) - frames[0].image).mean() > 3
