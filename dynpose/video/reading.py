"""Reading video files and streams through PyAV, and animated images through Pillow."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from dynpose.data.faults import Fault
from dynpose.data.image_reading import to_pixels

from .frames import Decoded, FrameSource, Lost

__all__ = ["AnimationReader", "VideoReader"]

# Seconds by which the last packet may end before the duration that a header states
_TOLERANCE = 0.5
_SECONDS_TO_ANSWER = 30.0
# Milliseconds: browsers show a frame of an animation with at most the first number for the second one
_TOO_SHORT, _USUAL_DURATION = 10, 100


class VideoReader(FrameSource):
    """The frames of a video file or stream, as a player shows them.

    The rotation and the aspect ratio of the pixels are applied, and times count from the start of the file, which video
    and sound share. Frames that can't be decoded are named. A file that is cut off gives the frames that are there.

    Args:
        path (str | Path): a file, or a URL that FFmpeg reads.
        stride, max_frames: see :class:`~dynpose.video.FrameSource`.
        is_live (bool): a stream, such as that of a network camera.

    Attributes:
        has_sound (bool)

    Raises:
        DatasetError: the file is missing, not a video, or has no frames.

    Example::

        >>> for frame in VideoReader("street.mp4", stride=5):
        ...     print(frame.time, frame.image.shape)
    """

    def __init__(self, path: str | Path, stride: int = 1, max_frames: int | None = None, is_live: bool = False):
        super().__init__(str(path), stride, max_frames)
        self.path = str(path)
        self.is_live = is_live
        with self._open() as container:
            stream = _video_stream(container)
            if stream is None:
                raise _error(self.path, "it has no video that can be decoded" + _contents(container))
            rate = stream.average_rate or stream.guessed_rate
            self.frame_rate = float(rate) if rate else None
            self.has_sound = container.streams.best("audio") is not None
            self.num_frames = None if is_live else _number_of_frames(container, stream, self.frame_rate)

    def decode(self) -> Generator[Decoded | Lost, None, None]:
        """See :class:`~dynpose.video.FrameSource`."""
        with self._open() as container:
            stream = _video_stream(container)
            start = Fraction(container.start_time or 0, av.time_base)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            lost = _LostFrames()
            packets = _Packets(container, stream)
            failed = None
            for packet in packets:
                # the rest of a packet at the end of a file that is cut off is no frame
                if failed is not None and (packet.size or packets.cut_off() is None):
                    lost.add(*failed)
                failed = None
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    failed = packet, f"it can't be decoded ({error.strerror})"
                    continue
                for frame in frames:
                    yield from lost.before(frame, start)
                    time = None if frame.pts is None else float(frame.pts * frame.time_base - start)
                    if frame.is_corrupt:
                        yield Lost(time, "its data are damaged")
                    else:
                        duration = float(frame.duration * frame.time_base) if frame.duration else None
                        yield Decoded(time, duration, partial(_upright, frame, aspect))
            self.cut_off = packets.cut_off()
            yield from lost.rest(start)

    def _open(self):
        try:
            return av.open(self.path, timeout=(_SECONDS_TO_ANSWER, _SECONDS_TO_ANSWER))
        except av.error.FFmpegError as error:
            # Of FFmpeg's errors, those of the operating system are OSErrors, whose words are clear
            reason = f"it can't be opened as a video ({error.strerror})"
            remedy = "" if isinstance(error, FileNotFoundError) else "it may be damaged or incomplete: copy it again"
            raise _error(self.path, reason, remedy) from None


class _Packets:
    """The packets of a video stream, and how they end."""

    def __init__(self, container, stream):
        self.container = container
        self.stream = stream
        self.count = 0
        self.end = 0.0
        self.failure = None

    def __iter__(self):
        demuxed = self.container.demux()
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self.failure = error.strerror
                # an empty packet makes the decoder give the frames that it holds
                packet = av.Packet()
                packet.stream = self.stream
                yield packet
                return
            time = packet.dts if packet.pts is None else packet.pts
            if packet.size and time is not None:
                end = float((time + (packet.duration or 0)) * packet.time_base)
                self.end = max(self.end, end - (self.container.start_time or 0) / av.time_base)
            if packet.stream_index == self.stream.index:
                self.count += packet.size > 0
                yield packet

    def cut_off(self):
        """How the packets end before the header says; None if they do not."""
        if self.failure is not None:
            return f"the file ends early ({self.failure})"
        form = self.container.format.name
        if "mp4" in form and self.count < self.stream.frames:
            return f"the file is cut off: it has {self.count} of {self.stream.frames} frames"
        # other formats state no duration in their header, and FFmpeg's is an estimate
        duration = (self.container.duration or 0) / av.time_base
        if ("matroska" in form or form == "avi") and self.end < duration - _TOLERANCE:
            return f"the file is cut off: it has {self.end:.1f} of {duration:.1f} s"
        return None


class _LostFrames:
    """Packets that could not be decoded, until frames of later times show their place in the order."""

    def __init__(self):
        self.waiting = []

    def add(self, packet, reason):
        self.waiting.append((packet.pts, packet.time_base, reason))

    def before(self, frame, start):
        ready = [item for item in self.waiting if item[0] is None or frame.pts is None or item[0] < frame.pts]
        self.waiting = [item for item in self.waiting if item not in ready]
        yield from _in_order(ready, start)

    def rest(self, start):
        return _in_order(self.waiting, start)


def _in_order(items, start):
    times = [(None if pts is None else float(pts * base - start), reason) for pts, base, reason in items]
    yield from itertools.starmap(Lost, sorted(times, key=lambda item: -1.0 if item[0] is None else item[0]))


def _video_stream(container):
    """The main video stream, not the cover picture of a sound file; None if there is none."""
    stream = container.streams.best("video")
    is_video = stream is not None and "attached_pic" not in str(stream.disposition)
    return stream if is_video and stream.codec_context is not None else None


def _contents(container):
    kinds = sorted({stream.type or "unknown data" for stream in container.streams})
    return f", only {' and '.join(kinds)}" if kinds else ""


def _number_of_frames(container, stream, rate):
    if stream.frames:
        return stream.frames
    seconds = (container.duration or 0) / av.time_base
    return round(seconds * rate) or None if rate else None


def _upright(frame, aspect):
    """A frame's pixels as a player shows them: never shrunk, square, turned.

    Args:
        frame (VideoFrame)
        aspect (Fraction): width of a pixel over its height.

    Returns:
        ndarray: (H, W, 3) uint8, BGR.
    """
    width = round(frame.width * max(aspect, 1))
    height = round(frame.height / min(aspect, 1))
    image = frame.to_ndarray(format="bgr24", width=width, height=height)
    matrix = _display_matrix(frame)
    if matrix is None:
        return image
    # (x, y) of the stored frame is shown at (a x + c y, b x + d y), moved into the picture
    (a, b), (c, d) = matrix
    if abs(b) > abs(a) or abs(c) > abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display_matrix(frame):
    """The linear part of the matrix that turns and mirrors a frame; None if there is none."""
    side_data = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return None if side_data is None else np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2]


class AnimationReader(FrameSource):
    """The frames of an animated GIF, PNG, WebP or AVIF image, whole as they are shown.

    By Pillow, since FFmpeg does not decode animated WebP.

    Args:
        path (str | Path): of an image with several frames.
        stride, max_frames: see :class:`~dynpose.video.FrameSource`.

    Raises:
        DatasetError: the file is missing or not an image.
    """

    has_sound = False

    def __init__(self, path: str | Path, stride: int = 1, max_frames: int | None = None):
        super().__init__(str(path), stride, max_frames)
        self.path = str(path)
        try:
            with Image.open(path) as image:
                self.num_frames = getattr(image, "n_frames", 1)
        except Exception as error:  # decoders raise any exception on a corrupt file
            raise _error(self.path, f"the animation can't be read ({error})", "copy it again") from None

    def decode(self) -> Generator[Decoded | Lost, None, None]:
        """See :class:`~dynpose.video.FrameSource`."""
        time = 0
        with Image.open(self.path) as image:
            for index in range(self.num_frames or 1):
                try:
                    image.seek(index)
                    image.load()
                except Exception as error:
                    # each frame changes the one before it
                    self.cut_off = f"the file is cut off: it has {index} of {self.num_frames} frames ({error})"
                    return
                pixels = to_pixels(image, "BGR")
                duration = round(image.info.get("duration") or 0)
                duration = duration if duration > _TOO_SHORT else _USUAL_DURATION
                yield Decoded(time / 1000, duration / 1000, partial(np.ascontiguousarray, pixels))
                time += duration


def _error(name, problem, remedy=""):
    return Fault(name, "images", problem, remedy).error()
