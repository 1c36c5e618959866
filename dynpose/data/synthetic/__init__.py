"""Synthetic people: a procedural pose data set for trying out, testing and demonstrating dynpose.

From a person to an image: ``poses`` draws joint angles, ``looks`` body and clothes; ``figure`` (with ``head``) makes
pieces in space of them, ``patches`` polygons of those; ``painting`` paints people and finds out which keypoints can be
seen, ``background`` paints what is behind them; ``render`` composes images and annotations, ``dataset`` writes and
registers them.
"""

from .dataset import register_synthetic_pose, register_synthetic_pose_from_cfg, write_synthetic_pose
from .render import SyntheticPose

__all__ = [
    "SyntheticPose",
    "register_synthetic_pose",
    "register_synthetic_pose_from_cfg",
    "write_synthetic_pose",
]
