"""Synthetic people: a procedural pose data set for trying out, testing and demonstrating dynpose.

The pipeline from a person to an image: ``poses`` draws joint angles, ``looks`` draws body and clothes; ``figure`` (with
``head``) builds 3D pieces from them, ``patches`` turns those into polygons; ``painting`` paints people and determines
the visible keypoints, ``background`` paints the scene behind them; ``render`` composes images and annotations,
``dataset`` writes and registers them.
"""

from .dataset import register_synthetic_pose, register_synthetic_pose_from_cfg, write_synthetic_pose
from .render import SyntheticPose

__all__ = [
    "SyntheticPose",
    "register_synthetic_pose",
    "register_synthetic_pose_from_cfg",
    "write_synthetic_pose",
]
