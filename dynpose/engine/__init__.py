"""Training, evaluation and prediction on detectron2's engine."""

import importlib
from typing import TYPE_CHECKING

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


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
