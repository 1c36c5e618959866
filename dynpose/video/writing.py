"""Writing a video that browsers play: H.264 in MP4, with the sound of the source."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

__all__ = ["VideoWriter"]

# Encoders of H.264, best first; builds of FFmpeg without them have MPEG-4, which browsers do not play
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_OPTIONS = {"libx264": {"preset": "veryfast", "crf": "20"}}
# Times of frames are kept to this part of a second
_TIME_BASE = Fraction(1, 90000)
# Sound that browsers play from an MP4 file; other sound is encoded again
_PLAYABLE_SOUND = ("aac", "mp3", "opus", "flac")
_SOUND_RATE = 48000
# In the codes of the H.264 standard: BT.709, and values from 16 to 235
_BT709, _LIMITED_RANGE = 1, 1


class VideoWriter:
    """Writes frames to an MP4 file that browsers play while they load it.

    The file gets its name when it is complete; until then it is called ``<path>.tmp``. An exception in the block
    deletes it. Frames of odd sizes get a copy of their last row or column; frames of another size than the first are
    resized.

    Args:
        path (Path): of the result; a file there is replaced.
        frame_rate (float | None): of the source, for the encoder; frames are shown at their times.
        sound_of (str | Path | None): a video file whose sound is copied, from its start; None = no sound. Sound that
            browsers do not play from MP4 is encoded as AAC.

    Attributes:
        encoder (str | None): after the first frame: FFmpeg's name of the encoder.
        sound_problem (str | None): why the sound is missing or incomplete.

    Raises:
        OSError: the file can't be written.

    Example::

        >>> with VideoWriter("out.mp4", 25.0) as writer:
        ...     for index, image in enumerate(images):
        ...         writer.write(image, index / 25, 1 / 25)
    """

    def __init__(self, path: str | Path, frame_rate: float | None = None, sound_of: str | Path | None = None):
        self.path = Path(path)
        self.frame_rate = frame_rate
        self.sound_of = sound_of
        self.encoder: str | None = None
        self.sound_problem: str | None = None
        self._temporary = self.path.with_name(self.path.name + ".tmp")
        self._container: Any = None
        self._stream: Any = None
        self._sound: _Sound | None = None
        # of the frames that the encoder holds, by their times: it gives packets of a constant duration
        self._durations: dict[int, int] = {}
        self._end = 0.0
        self._last_pts = -1

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, image: np.ndarray, time: float, duration: float | None = None) -> None:
        """Add a frame.

        Args:
            image (ndarray): (H, W, 3) uint8, RGB.
            time (float): seconds since the start of the video and of its sound; increasing.
            duration (float | None): seconds; None = until the next frame.
        """
        if self._container is None:
            self._begin(*image.shape[1::-1])
        # times before the start, of frames that the sound follows, are shown at the start
        pts = max(round(time / _TIME_BASE), self._last_pts + 1)
        frame = av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709")
        frame.pts, frame.time_base = pts, _TIME_BASE
        if duration:
            self._durations[pts] = round(duration / _TIME_BASE)
        self._encode(frame)
        self._last_pts = pts
        self._end = float(pts * _TIME_BASE) + (duration or 0.0)
        self._add_sound(float(pts * _TIME_BASE))

    def close(self, whole_sound: bool = True) -> None:
        """Complete the file and give it its name; without a frame there is none.

        Args:
            whole_sound (bool): whether the sound goes on to its end, or ends with the last frame.
        """
        if self._container is None:
            return
        try:
            self._encode(None)
            self._add_sound(float("inf") if whole_sound else self._end, is_last=True)
            self._release()
            os.replace(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Delete the unfinished file."""
        with suppress(av.error.FFmpegError):
            self._release()
        with suppress(FileNotFoundError):
            self._temporary.unlink()

    def _begin(self, width, height):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # without this, a player needs the whole file before it begins
        options = {"movflags": "+faststart"}
        self._container = av.open(str(self._temporary), "w", format="mp4", options=options)
        self.encoder = next(name for name in _ENCODERS if _can_encode(name))
        rate = Fraction(self.frame_rate or 30).limit_denominator(1001)
        self._stream = self._container.add_stream(self.encoder, rate=rate, options=_OPTIONS.get(self.encoder, {}))
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.time_base = _TIME_BASE if self.encoder != "mpeg4" else Fraction(1, 1000)
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
        codec.color_range = _LIMITED_RANGE
        if self.sound_of is not None:
            try:
                self._sound = _Sound(self.sound_of, self._container)
            except (av.error.FFmpegError, ValueError) as error:
                self.sound_problem = _text(error)

    def _encode(self, frame):
        for packet in self._stream.encode(frame):
            if packet.time_base == _TIME_BASE:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _fitted(self, image):
        size = self._stream.width, self._stream.height
        height, width = image.shape[:2]
        if (width + width % 2, height + height % 2) != size:
            return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if width % 2 or height % 2:
            return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(image)

    def _add_sound(self, until, is_last=False):
        if self._sound is None:
            return
        try:
            self._sound.add(until, is_last)
        except av.error.FFmpegError as error:
            # a full disk ends the video, but damaged sound does not
            if isinstance(error, OSError) and not isinstance(error, av.error.InvalidDataError):
                raise
            self.sound_problem = _text(error)
            self._sound.close()
            self._sound = None

    def _release(self):
        sound, self._sound = self._sound, None
        container, self._container = self._container, None
        if sound is not None:
            sound.close()
        if container is not None:
            container.close()


class _Sound:
    """Copies the sound of a video into another one, up to the time that its frames have reached."""

    def __init__(self, path, output):
        self.output = output
        self.source = av.open(str(path))
        stream = self.source.streams.best("audio")
        if stream is None:
            self.source.close()
            raise ValueError("the source has no sound")
        self.start = Fraction(self.source.start_time or 0, av.time_base)
        self.packets = self.source.demux(stream)
        self.is_copied = stream.codec_context.codec.canonical_name in _PLAYABLE_SOUND
        if self.is_copied:
            self.stream = output.add_stream_from_template(stream)
        else:
            self.stream = output.add_stream("aac", rate=_SOUND_RATE)
            self.stream.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self.held = None

    def add(self, until, is_last):
        """Add the packets up to a time, seconds."""
        while (packet := self._next()) is not None:
            if packet.pts is not None and float(packet.pts * packet.time_base - self.start) >= until:
                self.held = packet
                break
            self._add(packet)
        if is_last and not self.is_copied:
            self.output.mux(self.stream.encode(None))

    def _next(self):
        packet, self.held = self.held, None
        return next(self.packets, None) if packet is None else packet

    def _add(self, packet):
        if self.is_copied:
            # the last packet of the demuxer is empty
            if packet.size and packet.dts is not None:
                shift = round(self.start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self.stream
                self.output.mux(packet)
            return
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= round(self.start / frame.time_base)
            self.output.mux(self.stream.encode(frame))

    def close(self):
        self.source.close()


def _can_encode(name):
    try:
        av.Codec(name, "w")
    except ValueError:  # PyAV's UnknownCodecError
        return False
    return True


def _text(error):
    return getattr(error, "strerror", None) or str(error)
