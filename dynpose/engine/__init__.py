"""Training, evaluation and prediction on detectron2's engine."""

from typing import TYPE_CHECKING

from dynpose.utils.first_use import attributes_on_first_use

if TYPE_CHECKING:
    from .ema import ModelEMA
    from .entry import main, setup
    from .fast_inference import optimize_for_inference
    from .launching import launch
    from .nonfinite import NonFiniteError, NonFiniteGuard, replay
    from .optimizer import build_clipped_optimizer, pose_optimizer_params
    from .predictor import PosePredictor
    from .schedule import resolve_epochs
    from .step import TrainingStep
    from .trainer import PoseTrainer

__all__ = [
    "ModelEMA",
    "NonFiniteError",
    "NonFiniteGuard",
    "PosePredictor",
    "PoseTrainer",
    "TrainingStep",
    "build_clipped_optimizer",
    "launch",
    "main",
    "optimize_for_inference",
    "pose_optimizer_params",
    "replay",
    "resolve_epochs",
    "setup",
]

# Imported on first use: a prediction needs neither the trainer nor the evaluation
_MODULES = {
    "ModelEMA": "ema",
    "NonFiniteError": "nonfinite",
    "NonFiniteGuard": "nonfinite",
    "PosePredictor": "predictor",
    "PoseTrainer": "trainer",
    "TrainingStep": "step",
    "build_clipped_optimizer": "optimizer",
    "launch": "launching",
    "main": "entry",
    "optimize_for_inference": "fast_inference",
    "pose_optimizer_params": "optimizer",
    "replay": "nonfinite",
    "resolve_epochs": "schedule",
    "setup": "entry",
}

__getattr__ = attributes_on_first_use(__name__, _MODULES)


def __dir__():
    return sorted({*globals(), *__all__})
