"""What is wrong with predictions: errors by type, size, keypoint and score, and systematic faults."""

from .analysis import analyse_predictions

__all__ = ["analyse_predictions"]
