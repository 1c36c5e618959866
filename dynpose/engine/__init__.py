"""Training, evaluation and prediction on detectron2's engine."""

from .launching import main, setup
from .predictor import PosePredictor
from .trainer import PoseTrainer

__all__ = ["PosePredictor", "PoseTrainer", "main", "setup"]
