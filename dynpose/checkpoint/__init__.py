"""Reading and writing checkpoints: dynpose's own and the authors' released ones."""

from typing import TYPE_CHECKING

from dynpose.utils.first_use import attributes_on_first_use

if TYPE_CHECKING:
    from .checkpointer import PoseCheckpointer
    from .errors import CheckpointError
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

# Imported on first use: the error is raised without PyTorch and detectron2 too
_MODULES = {
    "CheckpointError": "errors",
    "PoseCheckpointer": "checkpointer",
    "ReleasedFormat": "released",
    "convert_released": "released",
    "detect_released": "released",
    "find_weights": "published",
    "locate_weights": "published",
}

__getattr__ = attributes_on_first_use(__name__, _MODULES)


def __dir__():
    return sorted({*globals(), *__all__})
