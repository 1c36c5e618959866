"""Reading and writing checkpoints: dynpose's own and the authors' released ones."""

from .checkpointer import CheckpointError, PoseCheckpointer
from .released import ReleasedFormat, convert_released, detect_released

__all__ = ["CheckpointError", "PoseCheckpointer", "ReleasedFormat", "convert_released", "detect_released"]
