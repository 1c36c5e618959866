"""Training, evaluation and prediction on detectron2's engine."""

from .launching import main, setup
from .predictor import PosePredictor
from .schedule import resolve_epochs
from .trainer import PoseTrainer

__all__ = ["PosePredictor", "PoseTrainer", "main", "resolve_epochs", "setup"]
