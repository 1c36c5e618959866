"""Single-stage multi-person pose estimation with instance-aware networks, for detectron2."""

import importlib
from typing import TYPE_CHECKING

from .utils.first_use import attributes_on_first_use
from .version import __version__

if TYPE_CHECKING:
    from . import model_zoo
    from .config import load_config
    from .data import PoseDatasetMapper, register_pose_dataset
    from .engine import PosePredictor, PoseTrainer, optimize_for_inference
    from .evaluation import PoseEvaluator
    from .utils import draw_poses

__all__ = [
    "PoseDatasetMapper",
    "PoseEvaluator",
    "PosePredictor",
    "PoseTrainer",
    "__version__",
    "draw_poses",
    "load_config",
    "model_zoo",
    "optimize_for_inference",
    "register_pose_dataset",
]

# Imported on first use: PyTorch and detectron2 take seconds, and parts of the package work without them.
_MODULES = {
    "PoseDatasetMapper": "data",
    "PoseEvaluator": "evaluation",
    "PosePredictor": "engine",
    "PoseTrainer": "engine",
    "draw_poses": "utils",
    "load_config": "config",
    "optimize_for_inference": "engine",
    "register_pose_dataset": "data",
}


_import_attribute = attributes_on_first_use(__name__, _MODULES)


def __getattr__(name):
    return importlib.import_module(".model_zoo", __name__) if name == "model_zoo" else _import_attribute(name)


def __dir__():
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
