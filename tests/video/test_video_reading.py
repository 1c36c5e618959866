"""Reading videos and animations, against OpenCV's own reader and values by hand."""

import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image
from small_media import colors, cut_off, damage_packet, make_animation, make_video

from dynpose.data import DatasetError
from dynpose.video import AnimationReader, BrokenFrame, CameraReader, Frame, VideoReader, open_video


def test_frames_have_numbers_times_and_images(tmp_path):
    reader = VideoReader(make_video(tmp_path / "a.mp4", 5))
    frames = list(reader)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert frames[0].duration == pytest.approx(0.1)
    assert {(frame.image.shape, frame.image.dtype) for frame in frames} == {((48, 64, 3), np.dtype(np.uint8))}
    assert colors(frames[0].image[:, :, ::-1]) == ["red", "green", "blue", "white"]
    assert (reader.frame_rate, reader.num_frames, reader.cut_off, reader.is_whole) == (10, 5, None, True)
    assert not reader.has_sound


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (90, ["green", "white", "red", "blue"]),
        (-90, ["blue", "red", "white", "green"]),
        (180, ["white", "blue", "green", "red"]),
    ],
)
def test_rotation_is_applied_as_opencv_does(tmp_path, degrees, expected):
    path = make_video(tmp_path / "turned.mp4", 2, rotation=degrees)
    frame = next(iter(VideoReader(path)))
    assert colors(frame.image[:, :, ::-1]) == expected
    is_read, image = cv2.VideoCapture(str(path)).read()
    assert is_read
    assert image.shape == frame.image.shape
    assert colors(image[:, :, ::-1]) == expected


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64))])
def test_pixels_become_square_without_loss(tmp_path, aspect, size):
    frame = next(iter(VideoReader(make_video(tmp_path / "wide.mp4", 2, aspect=aspect))))
    assert frame.image.shape[:2] == size
    assert colors(frame.image[:, :, ::-1]) == ["red", "green", "blue", "white"]


def test_a_variable_rate_keeps_its_times(tmp_path):
    times = [0, 40, 80, 500, 520, 1500]
    reader = VideoReader(make_video(tmp_path / "variable.mkv", 6, times=times))
    assert [frame.time for frame in reader] == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize(
    ("stride", "max_frames", "indices", "expected"),
    [(3, None, [0, 3, 6], 3), (1, 2, [0, 1], 2), (3, 2, [0, 3], 2), (3, 9, [0, 3, 6], 3)],
)
def test_stride_and_max_frames(tmp_path, stride, max_frames, indices, expected):
    reader = VideoReader(make_video(tmp_path / "a.mp4", 8), stride, max_frames)
    assert reader.expected_frames == expected
    assert [frame.index for frame in reader] == indices
    assert reader.is_whole == (max_frames in (None, 9))


@pytest.mark.parametrize("arguments", [{"stride": 0}, {"max_frames": 0}])
def test_refuses_less_than_one_frame(tmp_path, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        VideoReader(make_video(tmp_path / "a.mp4", 2), **arguments)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mjpeg"), ("a.mp4", "libx264"), ("a.mp4", "mpeg4")])
def test_a_broken_frame_is_named_and_the_others_keep_their_numbers(tmp_path, name, codec):
    path = make_video(tmp_path / name, 8, codec=codec, gop=1)
    damage_packet(path, 3)
    items = list(VideoReader(path))
    assert [item.index for item in items] == list(range(8))
    assert [item.time for item in items] == pytest.approx([index / 10 for index in range(8)])
    assert [item.index for item in items if isinstance(item, BrokenFrame)] == [3]
    assert "decode" in items[3].reason or "damaged" in items[3].reason


def test_a_broken_frame_of_a_stream_with_b_frames(tmp_path):
    """Its packet comes before those of frames that are shown earlier."""
    path = make_video(tmp_path / "b.mp4", 8)
    damage_packet(path, 1)
    items = list(VideoReader(path))
    (broken,) = [item for item in items if isinstance(item, BrokenFrame)]
    assert [item.index for item in items] == list(range(8))
    # the time of the packet is that of its frame
    assert broken.time == pytest.approx(broken.index / 10)
    assert broken.index > 1


@pytest.mark.parametrize(
    ("name", "words"), [("a.mp4", "of 30 frames"), ("a.mkv", "of 3.0 s")], ids=["index", "duration"]
)
def test_a_file_that_is_cut_off_gives_what_is_there(tmp_path, name, words):
    reader = VideoReader(cut_off(make_video(tmp_path / name, 30, gop=5)))
    frames = list(reader)
    assert 0 < len(frames) < 30
    assert all(isinstance(frame, Frame) for frame in frames)
    assert "the file is cut off: it has" in reader.cut_off
    assert words in reader.cut_off
    assert not reader.is_whole


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DatasetError, match=r"text\.mp4: it can't be opened as a video \(Invalid data .* copy it again"):
        VideoReader(tmp_path / "text.mp4")
    with pytest.raises(DatasetError, match=r"gone\.mp4: it can't be opened as a video \(No such file or directory\)$"):
        VideoReader(tmp_path / "gone.mp4")
    path = make_video(tmp_path / "sound.mkv", 2, sound="flac")
    assert VideoReader(path).has_sound


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animations_are_videos(tmp_path, ending):
    reader = AnimationReader(make_animation(tmp_path / f"wave.{ending}", [100, 300, 50]))
    frames = list(reader)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.4])
    assert [frame.duration for frame in frames] == pytest.approx([0.1, 0.3, 0.05])
    assert colors(frames[0].image[:, :, ::-1]) == ["red", "green", "blue", "white"]
    # the second and third are moved by a quarter and by half of the width
    assert colors(frames[2].image[:, :, ::-1]) == ["green", "red", "white", "blue"]
    assert (reader.num_frames, reader.is_whole) == (3, True)


def test_an_animation_that_is_cut_off(tmp_path):
    path = make_animation(tmp_path / "wave.gif", [100] * 6)
    with Image.open(path) as image:
        assert image.n_frames == 6
    reader = AnimationReader(cut_off(path, 0.7))
    assert 0 < len(list(reader)) < 6


class Camera:
    """Stands in for OpenCV's camera: five frames, one when the test asks for it, and then it is unplugged."""

    def __init__(self, number):
        self.number, self.left, self.is_released = number, 5, False
        self.asked = threading.Semaphore(1)

    def isOpened(self):
        return self.number == 0

    def get(self, what):
        assert what == cv2.CAP_PROP_FPS
        return 0.0

    def read(self):
        assert self.asked.acquire(timeout=10)
        self.left -= 1
        return self.left >= 0, np.full((48, 64, 3), max(self.left, 0), np.uint8)

    def release(self):
        self.is_released = True


def test_a_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    reader = open_video(0, "camera")
    assert reader.is_live
    assert reader.frame_rate is None
    frames = []
    for frame in reader:
        frames.append(frame)
        reader._capture.asked.release()
    assert [(frame.index, frame.image[0, 0, 0]) for frame in frames] == [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0)]
    assert frames[0].time == 0 < frames[1].time < frames[2].time
    assert reader.cut_off == "camera 0 gives no more images"
    assert reader._capture.is_released
    with pytest.raises(DatasetError, match="camera 7: it can't be opened; check its number"):
        CameraReader(7)
