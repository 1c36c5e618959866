"""Identity of people over the frames of a video."""

from .tracker import PoseTracker

__all__ = ["PoseTracker"]
