"""Videos, animations and cameras as frames, and frames as a video that browsers play."""

from .camera import CameraReader
from .frames import BrokenFrame, Frame, FrameSource
from .opening import open_video
from .reading import AnimationReader, VideoReader
from .threads import in_background, newest
from .writing import VideoWriter

__all__ = [
    "AnimationReader",
    "BrokenFrame",
    "CameraReader",
    "Frame",
    "FrameSource",
    "VideoReader",
    "VideoWriter",
    "in_background",
    "newest",
    "open_video",
]
