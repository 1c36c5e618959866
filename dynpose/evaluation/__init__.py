"""OKS evaluation of predicted poses with COCO's metrics, for any set of keypoints."""

from .pose_evaluator import PoseEvaluator

__all__ = ["PoseEvaluator"]
