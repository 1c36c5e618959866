"""OKS evaluation of predicted poses with COCO's metrics, for any set of keypoints."""

from .checking import check_evaluation
from .pose_evaluator import PoseEvaluator

__all__ = ["PoseEvaluator", "check_evaluation"]
