"""The written video, read back by PyAV and OpenCV."""

import cv2
import numpy as np
import pytest
from small_media import colors, make_video, quarters, read_video

from dynpose.video import VideoWriter


def test_browsers_can_play_it(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    times = [0, 0.04, 0.5, 0.52]
    with VideoWriter(path, 25.0) as writer:
        for time in times:
            # an odd size, which this pixel format can't have
            writer.write(quarters((47, 63)), time)
        assert not path.exists()
    assert writer.encoder == "libx264"
    assert list(path.parent.iterdir()) == [path]
    video = read_video(path)
    assert (video["codec"], video["pixels"], video["size"], video["sound"]) == ("h264", "yuv420p", (48, 64), [])
    assert video["times"] == pytest.approx(times, abs=1e-4)
    assert colors(video["images"][0]) == ["red", "green", "blue", "white"]
    # BT.709 in and out: the colour is the one that was written
    np.testing.assert_allclose(video["images"][0][10, 10], (200, 0, 0), atol=6)
    content = path.read_bytes()
    # the index comes before the frames
    assert content.find(b"moov") < content.find(b"mdat")
    capture = cv2.VideoCapture(str(path))
    is_read, image = capture.read()
    assert is_read
    assert image.shape == (48, 64, 3)
    assert colors(image[:, :, ::-1]) == ["red", "green", "blue", "white"]
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize(
    ("name", "sound", "result"),
    [("a.mp4", "aac", "aac"), ("a.mkv", "libopus", "opus"), ("a.mkv", "pcm_s16le", "aac")],
    ids=["copied", "copied from another container", "encoded"],
)
def test_sound_is_kept(tmp_path, name, sound, result):
    source = make_video(tmp_path / name, 10, sound=sound)
    writer = VideoWriter(tmp_path / "out.mp4", 10.0, source)
    for index in range(10):
        writer.write(quarters(), index / 10, 0.1)
    writer.close()
    video = read_video(tmp_path / "out.mp4")
    assert video["sound"] == [result]
    assert video["sound_seconds"] == [pytest.approx(1.0, abs=0.06)]
    assert len(video["times"]) == 10
    assert writer.sound_problem is None


def test_sound_ends_with_the_frames_where_they_end_early(tmp_path):
    source = make_video(tmp_path / "a.mp4", 10, sound="aac")
    writer = VideoWriter(tmp_path / "out.mp4", 10.0, source)
    for index in range(4):
        writer.write(quarters(), index / 10, 0.1)
    writer.close(whole_sound=False)
    assert read_video(tmp_path / "out.mp4")["sound_seconds"] == [pytest.approx(0.4, abs=0.06)]


def test_a_source_without_sound_is_a_note(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 10.0, make_video(tmp_path / "a.mp4", 2)) as writer:
        writer.write(quarters(), 0.0)
    assert writer.sound_problem == "the source has no sound"
    assert read_video(tmp_path / "out.mp4")["sound"] == []


def test_frames_of_another_size_are_resized_and_times_increase(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 10.0) as writer:
        writer.write(quarters(), -0.02)
        writer.write(quarters((96, 128)), -0.01)
        writer.write(quarters((24, 32)), 0.1)
    video = read_video(tmp_path / "out.mp4")
    assert {image.shape for image in video["images"]} == {(48, 64, 3)}
    assert video["times"] == sorted(set(video["times"]))


def test_the_last_frame_keeps_its_duration(tmp_path):
    with VideoWriter(tmp_path / "out.mp4") as writer:
        for time in (0.0, 0.2):
            writer.write(quarters(), time, 0.7 if time else 0.2)
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert seconds == pytest.approx(0.9, abs=0.01)


def test_nothing_is_left_of_a_failure(tmp_path):
    def write():
        with VideoWriter(tmp_path / "out.mp4") as writer:
            # the file begins when the encoder gives its first frame
            for index in range(80):
                writer.write(quarters(), index / 10)
            assert [path.name for path in tmp_path.iterdir()] == ["out.mp4.tmp"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []
    with VideoWriter(tmp_path / "empty.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []
