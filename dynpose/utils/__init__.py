"""Drawing and small helpers."""

from .drawing import draw_poses

__all__ = ["draw_poses"]
