"""Reading and writing checkpoints: dynpose's own and the authors' released ones."""

from .checkpointer import CheckpointError, PoseCheckpointer
from .published import find_weights, locate_weights
from .released import ReleasedFormat, convert_released, detect_released

__all__ = [
    "CheckpointError",
    "PoseCheckpointer",
    "ReleasedFormat",
    "convert_released",
    "detect_released",
    "find_weights",
    "locate_weights",
]
