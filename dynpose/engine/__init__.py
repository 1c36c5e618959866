"""Training, evaluation and prediction on detectron2's engine."""

from .ema import ModelEMA
from .entry import main, setup
from .fast_inference import optimize_for_inference
from .launch import launch
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
