"""Soft OKS-NMS of an image's predictions (``TEST.SOFT_OKS_NMS``), which methods with an NMS share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances

from dynpose.config import check_choice, check_from_0_to_1, check_positive
from dynpose.data import model_schema
from dynpose.layers.nms import SOFT_NMS_METHODS
from dynpose.layers.oks_nms import soft_oks_nms

from .unchecked_boxes import UncheckedBoxes

__all__ = ["SoftOKSNMS"]


@dataclass(frozen=True)
class SoftOKSNMS:
    """Lowers the scores of predictions that are similar to higher-scored ones of their class.

    Args:
        oks_sigmas (tuple[float, ...]): K, those of the keypoint schema.
        method (str): "linear" or "gaussian".
        threshold (float): OKS above which "linear" lowers a score.
        sigma (float): of "gaussian".
        min_score (float): predictions with a lower score are dropped.
    """

    oks_sigmas: tuple[float, ...]
    method: str = "gaussian"
    threshold: float = 0.5
    sigma: float = 0.5
    min_score: float = 1e-3

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SoftOKSNMS | None:
        """Read ``cfg.TEST.SOFT_OKS_NMS``.

        Returns:
            SoftOKSNMS | None: None if it is off.

        Raises:
            ConfigError: a value is out of its range.
        """
        keys = cfg.TEST.SOFT_OKS_NMS
        check_choice(cfg, "TEST.SOFT_OKS_NMS.METHOD", ("", *SOFT_NMS_METHODS))
        check_from_0_to_1(cfg, "TEST.SOFT_OKS_NMS.THRESHOLD", "TEST.SOFT_OKS_NMS.MIN_SCORE")
        check_positive(cfg, "TEST.SOFT_OKS_NMS.SIGMA")
        if not keys.METHOD:
            return None
        return cls(tuple(model_schema(cfg).sigmas), keys.METHOD, keys.THRESHOLD, keys.SIGMA, keys.MIN_SCORE)

    def __call__(self, instances: Instances, max_people: int | None = None) -> Instances:
        """Lower the scores of an image's predictions.

        The area of a prediction in OKS is that of its box.

        Args:
            instances (Instances): N people with pred_boxes, scores, pred_classes and pred_keypoints (N, K, 3).
            max_people (int | None): maximum number of people kept; None = all.

        Returns:
            Instances: those kept, by descending lowered score. A non-finite prediction is similar to none, and one with
            a non-finite score is kept first.
        """
        scores = instances.scores
        kept, lowered = soft_oks_nms(
            instances.pred_keypoints,
            scores.nan_to_num(nan=1.0),
            self.oks_sigmas,
            method=self.method,
            threshold=self.threshold,
            sigma=self.sigma,
            min_score=self.min_score,
            max_poses=max_people,
            areas=instances.pred_boxes.area(),
            classes=instances.pred_classes,
        )
        result = Instances(instances.image_size)
        for name, values in instances.get_fields().items():
            # indexing gives plain boxes
            result.set(name, UncheckedBoxes(values.tensor[kept]) if name == "pred_boxes" else values[kept])
        result.scores = torch.where(scores[kept].isfinite(), lowered.to(scores.dtype), scores[kept])
        return result
