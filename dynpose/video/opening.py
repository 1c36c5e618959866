"""Opening a moving source by its kind."""

from __future__ import annotations

from pathlib import Path

from .camera import CameraReader
from .frames import FrameSource
from .reading import AnimationReader, VideoReader

__all__ = ["open_video"]


def open_video(
    location: str | Path | int, kind: str = "video", stride: int = 1, max_frames: int | None = None
) -> FrameSource:
    """Open a video, an animated image, a stream or a camera.

    Args:
        location (str | Path | int): a file or URL, or the number of a camera.
        kind (str): of :class:`~dynpose.data.sources.Source`: "video", "animation", "stream" or "camera".
        stride, max_frames: see :class:`~dynpose.video.FrameSource`.

    Raises:
        DatasetError: the source can't be opened.
        ValueError: another kind.
    """
    if kind == "camera":
        return CameraReader(int(str(location)), stride, max_frames)
    if kind == "animation":
        return AnimationReader(str(location), stride, max_frames)
    if kind not in ("video", "stream"):
        raise ValueError(f"kind must be video, animation, stream or camera, got {kind!r}")
    return VideoReader(str(location), stride, max_frames, is_live=kind == "stream")
