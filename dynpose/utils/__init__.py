"""Drawing and small helpers."""

from typing import TYPE_CHECKING

from .first_use import attributes_on_first_use

if TYPE_CHECKING:
    from .drawing import draw_poses

__all__ = ["draw_poses"]

# the helpers need neither OpenCV nor detectron2
__getattr__ = attributes_on_first_use(__name__, {"draw_poses": "drawing"})
