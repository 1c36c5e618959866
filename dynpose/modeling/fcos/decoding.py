"""Decoding of FCOS predictions to scored boxes after NMS (FCOS section 3.1; FCPose and InsPose section 3.4).

All people of the batch are in flat tensors. Axes: B images, T locations, M candidates of the batch, N instances, K
keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor

from dynpose.config import ConfigError
from dynpose.layers.nms import nms_of_images
from dynpose.layers.ranking import rank_in_group
from dynpose.layers.top_k import top_of_rows
from dynpose.modeling.detections import Detections, join_instances, split_detections
from dynpose.modeling.soft_oks_nms import SoftOKSNMS
from dynpose.modeling.unchecked_boxes import without_overlap
from dynpose.utils.exporting import is_recording

from .head import FCOSPredictions
from .locations import Locations, flatten_levels


@dataclass(frozen=True, eq=False)
class Candidates:
    """Locations that may show an instance.

    Attributes:
        index: (M,) int64, positions in the locations.
        image: (M,) int64.
        classes: (M,) int64.
        scores: (M,).
    """

    index: torch.Tensor
    image: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor

    def __getitem__(self, chosen: Tensor) -> Candidates:
        """Select candidates by mask or index tensor."""
        return Candidates(self.index[chosen], self.image[chosen], self.classes[chosen], self.scores[chosen])


@dataclass
class FCOSDecoder:
    """Score threshold, top candidates, NMS, top instances per image.

    A call runs all of these steps with the predicted boxes. A method that computes its boxes later calls
    :meth:`candidates` and :meth:`select`. :meth:`detections` comes last.

    Attributes:
        score_thresh: threshold on the class probability, or on its product with the centre-ness.
        thresh_with_centerness: threshold the product.
        pre_nms_topk: candidates kept per level and image, or per image.
        topk_per_level: keep them per level and image.
        nms_thresh: IoU above which the lower-scored box of a class is dropped.
        post_nms_topk: instances kept per image.
        soft_oks_nms: applied by :meth:`detections`; None = off.
    """

    score_thresh: float = 0.05
    thresh_with_centerness: bool = False
    pre_nms_topk: int = 1000
    topk_per_level: bool = True
    nms_thresh: float = 0.6
    post_nms_topk: int = 100
    soft_oks_nms: SoftOKSNMS | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FCOSDecoder:
        """Build from ``cfg.MODEL.FCOS`` and ``cfg.TEST.SOFT_OKS_NMS``."""
        fcos = cfg.MODEL.FCOS
        return cls(
            score_thresh=fcos.SCORE_THRESH_TEST,
            thresh_with_centerness=fcos.SCORE_THRESH_WITH_CENTERNESS,
            pre_nms_topk=fcos.PRE_NMS_TOPK_TEST,
            topk_per_level=fcos.PRE_NMS_TOPK_PER_LEVEL,
            nms_thresh=fcos.NMS_THRESH_TEST,
            post_nms_topk=fcos.POST_NMS_TOPK_TEST,
            soft_oks_nms=SoftOKSNMS.from_config(cfg),
        )

    def __call__(self, predictions: FCOSPredictions, locations: Locations) -> tuple[Candidates, Tensor]:
        """Decode a batch.

        Args:
            predictions: of B images, with boxes.
            locations: of the same maps.

        Returns:
            The N candidates that remain after NMS, by image and then by descending score, and their boxes (N, 4) XYXY
            in input pixels, which may extend beyond the image.
        """
        candidates = self.candidates(predictions, locations)
        boxes = _boxes_at(predictions, locations, candidates.index)
        kept = self.select(candidates, boxes, locations.num_images)
        return candidates[kept], boxes[kept]

    def candidates(self, predictions: FCOSPredictions, locations: Locations) -> Candidates:
        """Threshold the scores and keep the top candidates.

        Args:
            predictions: of B images.
            locations: of the same maps.

        Returns:
            M candidates by ascending index. Their scores are sqrt(class probability * centre-ness), or the class
            probability if the head has no centre-ness. NaN scores pass, so that a diverged model is distinguishable
            from one that detects nothing.
        """
        probabilities = flatten_levels(predictions.logits).float().sigmoid()
        quality = probabilities
        if predictions.centerness:
            quality = probabilities * flatten_levels(predictions.centerness).float().sigmoid()
        passed = ~((quality if self.thresh_with_centerness else probabilities) <= self.score_thresh)
        if is_recording():
            passed = passed & self._is_top(torch.where(passed, quality, -1.0), locations)
        index, classes = passed.nonzero(as_tuple=True)
        quality = quality[index, classes]
        if not is_recording():
            kept = self._rank(quality, index, locations) < self.pre_nms_topk
            index, classes, quality = index[kept], classes[kept], quality[kept]
        scores = quality.sqrt() if predictions.centerness else quality
        return Candidates(index, locations.image[index], classes, scores)

    def candidate_limit(self, num_levels: int) -> int:
        """Number of candidates of an image that :meth:`candidates` does not exceed."""
        return self.pre_nms_topk * (num_levels if self.topk_per_level else 1)

    def select(self, candidates: Candidates, boxes: Tensor, num_images: int) -> Tensor:
        """Apply NMS and keep the top instances of each image.

        Args:
            candidates: M candidates.
            boxes: (M, 4) XYXY, input pixels.
            num_images: B.

        Returns:
            (N,) int64, positions in the candidates, by image and then by descending score, the earlier one first among
            equal scores. Non-finite boxes and scores are kept, and suppress nothing.
        """
        return nms_of_images(
            without_overlap(boxes, candidates.scores),
            candidates.scores,
            candidates.image,
            candidates.classes,
            num_images=num_images,
            iou_threshold=self.nms_thresh,
            max_per_image=self.post_nms_topk,
        )

    def detections(
        self, candidates: Candidates, boxes: Tensor, keypoints: Tensor, num_images: int, max_people: int | None = None
    ) -> Detections:
        """Combine instances with their keypoints, and apply the soft OKS-NMS if it is on.

        Args:
            candidates: N instances.
            boxes: (N, 4).
            keypoints: (N, K, 3).
            num_images: B.
            max_people: maximum number per image that the soft OKS-NMS keeps; None = all.

        Returns:
            The people of the batch, in the order of the candidates if the soft OKS-NMS is off.

        Raises:
            ConfigError: if it is on and an exporter records the model.
        """
        found = Detections(candidates.image, boxes, candidates.scores, candidates.classes, keypoints)
        if self.soft_oks_nms is None:
            return found
        if is_recording():
            raise ConfigError(
                f"TEST.SOFT_OKS_NMS.METHOD is {self.soft_oks_nms.method!r}, which no exported file supports: the "
                "number of its steps depends on the people found. Set it to ''"
            )
        people = split_detections(found, [(0, 0)] * num_images)
        return join_instances([self.soft_oks_nms(instances, max_people) for instances in people])

    def _rank(self, quality, index, locations):
        """Rank (M,) within the group of which the top candidates are kept."""
        group = locations.image[index]
        if self.topk_per_level:
            group = locations.level[index] * locations.num_images + group
        return rank_in_group(quality, group)

    def _is_top(self, quality, locations):
        """The candidates that :meth:`_rank` would keep, as a mask (T, classes), from values (T, classes) above -inf."""
        counts = [locations.num_images * height * width for height, width in locations.sizes]
        # (B, cells and classes) of each level
        rows = [level.reshape(locations.num_images, -1) for level in quality.split(counts)]
        if self.topk_per_level:
            tops = [top_of_rows(row, self.pre_nms_topk) for row in rows]
        else:
            lengths = [row.shape[1] for row in rows]
            tops = top_of_rows(torch.cat(rows, dim=1), self.pre_nms_topk).split(lengths, dim=1)
        return torch.cat([top.reshape(-1, quality.shape[1]) for top in tops])


def _boxes_at(predictions, locations, index):
    """Predicted boxes (M, 4) XYXY, input pixels, of the locations ``index`` (M,)."""
    strides = locations.per_level(locations.strides)[index, None]
    distances = flatten_levels(predictions.distances).float()[index] * strides
    points = locations.points[index]
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)
