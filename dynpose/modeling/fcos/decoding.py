"""Decoding of FCOS predictions to scored boxes after NMS (FCOS section 3.1; FCPose and InsPose section 3.4).

Axes: B images, T locations, M candidates of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.layers import batched_nms
from detectron2.structures import Instances
from torch import Tensor

from dynpose.layers.ranking import rank_in_group
from dynpose.modeling.soft_oks_nms import SoftOKSNMS
from dynpose.modeling.unchecked_boxes import UncheckedBoxes, without_overlap

from .head import FCOSPredictions
from .locations import Locations, flatten_levels


@dataclass(frozen=True, eq=False)
class Candidates:
    """Locations that may show an instance, duplicates included.

    Attributes:
        index: (M,) int64, positions in the locations, ascending.
        image: (M,) int64.
        classes: (M,) int64.
        scores: (M,).
    """

    index: torch.Tensor
    image: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor


@dataclass
class FCOSDecoder:
    """Score threshold, top candidates, NMS, top instances per image.

    A call runs all of these steps with the predicted boxes. A method that computes its boxes later calls
    :meth:`candidates` and :meth:`select`.

    Attributes:
        score_thresh: threshold on the class probability, or on its product with the centre-ness.
        thresh_with_centerness: threshold the product.
        pre_nms_topk: candidates kept per level and image, or per image.
        topk_per_level: keep them per level and image.
        nms_thresh: IoU above which the lower-scored box of a class is dropped.
        post_nms_topk: instances kept per image.
        soft_oks_nms: replaces NMS in :meth:`select` if this gets keypoints; else :func:`attach_keypoints` applies it
            after NMS. None = off.
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

    def __call__(
        self, predictions: FCOSPredictions, locations: Locations, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Decode a batch.

        Args:
            predictions: of B images, with boxes.
            locations: of the same maps.
            image_sizes: B sizes (height, width) before padding, pixels.

        Returns:
            One per image, by descending score, with pred_boxes (input pixels, may extend beyond the image), scores,
            pred_classes, and ``location_index``: the position of each instance in ``locations``.
        """
        candidates = self.candidates(predictions, locations)
        boxes = _boxes_at(predictions, locations, candidates.index)
        return self.select(candidates, boxes, image_sizes, location_index=candidates.index)

    def candidates(self, predictions: FCOSPredictions, locations: Locations) -> Candidates:
        """Threshold the scores and keep the top candidates.

        Args:
            predictions: of B images.
            locations: of the same maps.

        Returns:
            M candidates. Their scores are sqrt(class probability * centre-ness), or the class probability if the head
            has no centre-ness. NaN scores pass, so that a diverged model is distinguishable from one that detects
            nothing.
        """
        probabilities = flatten_levels(predictions.logits).float().sigmoid()
        quality = probabilities
        if predictions.centerness:
            quality = probabilities * flatten_levels(predictions.centerness).float().sigmoid()
        passed = ~((quality if self.thresh_with_centerness else probabilities) <= self.score_thresh)
        index, classes = passed.nonzero(as_tuple=True)
        quality = quality[index, classes]
        group = locations.image[index]
        if self.topk_per_level:
            group = locations.level[index] * locations.num_images + group
        kept = rank_in_group(quality, group) < self.pre_nms_topk
        index, classes, quality = index[kept], classes[kept], quality[kept]
        scores = quality.sqrt() if predictions.centerness else quality
        return Candidates(index, locations.image[index], classes, scores)

    def select(
        self, candidates: Candidates, boxes: Tensor, image_sizes: list[tuple[int, int]], **fields: Tensor
    ) -> list[Instances]:
        """Apply NMS and keep the top instances of each image.

        With ``pred_keypoints`` among the fields, the soft OKS-NMS takes its place, if there is one.

        Args:
            candidates: M candidates.
            boxes: (M, 4) XYXY, input pixels.
            image_sizes: B sizes (height, width) before padding, pixels.
            **fields: (M, ...) further fields of the instances.

        Returns:
            One per image, by descending score, with pred_boxes, scores, pred_classes and the fields. Non-finite boxes
            and scores are kept, and suppress nothing.
        """
        compared = without_overlap(boxes, candidates.scores)
        results = []
        for image, image_size in enumerate(image_sizes):
            here = (candidates.image == image).nonzero().squeeze(1)
            soft = self.soft_oks_nms if "pred_keypoints" in fields else None
            if soft is None:
                kept = batched_nms(compared[here], candidates.scores[here], candidates.classes[here], self.nms_thresh)
                here = here[kept[: self.post_nms_topk]]
            instances = Instances(image_size)
            instances.pred_boxes = UncheckedBoxes(boxes[here])
            instances.scores = candidates.scores[here]
            instances.pred_classes = candidates.classes[here]
            for name, values in fields.items():
                instances.set(name, values[here])
            if soft is not None:
                instances = soft(instances, self.post_nms_topk)
            results.append(instances)
        return results


def _boxes_at(predictions, locations, index):
    """Predicted boxes (M, 4) XYXY, input pixels, of the locations ``index`` (M,)."""
    strides = locations.per_level(locations.strides)[index, None]
    distances = flatten_levels(predictions.distances).float()[index] * strides
    points = locations.points[index]
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def select_indices(results: list[Instances]) -> Tensor:
    """Collect the locations at which the instances of a batch were detected.

    Args:
        results: of :class:`FCOSDecoder`, with ``location_index``.

    Returns:
        (N,) int64 positions in the locations, image after image.
    """
    return torch.cat([instances.location_index for instances in results])


def attach_keypoints(results: list[Instances], keypoints: Tensor, soft_oks_nms: SoftOKSNMS | None = None) -> None:
    """Set ``pred_keypoints`` of the instances of a batch, in place, and remove ``location_index``.

    Args:
        results: B, with N instances in all.
        keypoints: (N, K, 3), image after image.
        soft_oks_nms: lowers the scores of similar instances of an image; None = off.
    """
    for image, located in enumerate(keypoints.split([len(instances) for instances in results])):
        instances = results[image]
        instances.pred_keypoints = located
        instances.remove("location_index")
        if soft_oks_nms is not None:
            results[image] = soft_oks_nms(instances)
