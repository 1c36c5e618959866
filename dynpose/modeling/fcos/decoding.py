"""From FCOS predictions to scored boxes, without duplicates (FCOS section 3.1, FCPose section 3.4)."""

from dataclasses import dataclass

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances

from dynpose.layers.ranking import rank_in_group

from .locations import flatten_levels


@dataclass
class FCOSDecoder:
    """Threshold, candidates per level, NMS, best of the image.

    Attributes:
        score_thresh (float): on the class probability, or on its product with the centre-ness.
        thresh_with_centerness (bool): which of the two.
        pre_nms_topk (int): candidates kept per level and image.
        nms_thresh (float): IoU above which the lower-scored box of a class is dropped.
        post_nms_topk (int): instances kept per image.
    """

    score_thresh: float = 0.05
    thresh_with_centerness: bool = False
    pre_nms_topk: int = 1000
    nms_thresh: float = 0.6
    post_nms_topk: int = 100

    @classmethod
    def from_cfg(cls, cfg):
        """Build from ``cfg.MODEL.FCOS``."""
        fcos = cfg.MODEL.FCOS
        return cls(
            score_thresh=fcos.SCORE_THRESH_TEST,
            thresh_with_centerness=fcos.SCORE_THRESH_WITH_CENTERNESS,
            pre_nms_topk=fcos.PRE_NMS_TOPK_TEST,
            nms_thresh=fcos.NMS_THRESH_TEST,
            post_nms_topk=fcos.POST_NMS_TOPK_TEST,
        )

    def __call__(self, predictions, locations, image_sizes):
        """Decode a batch.

        Args:
            predictions (FCOSPredictions): of B images.
            locations (Locations): of the same maps.
            image_sizes (list[tuple[int, int]]): B sizes (height, width) before padding, pixels.

        Returns:
            list[Instances]: one per image, by descending score, with pred_boxes (input pixels, may reach beyond the
            image), scores = sqrt(class probability * centre-ness), pred_classes, and ``location_index``: the position
            of each one's location in ``locations``.
        """
        probabilities = flatten_levels(predictions.logits).float().sigmoid()
        quality = probabilities * flatten_levels(predictions.centerness).float().sigmoid()
        distances = flatten_levels(predictions.distances).float() * locations.per_level(locations.strides)[:, None]
        candidates = (quality if self.thresh_with_centerness else probabilities) > self.score_thresh
        index, classes = candidates.nonzero(as_tuple=True)
        quality = quality[index, classes]
        level_and_image = locations.level[index] * locations.num_images + locations.image[index]
        kept = rank_in_group(quality, level_and_image) < self.pre_nms_topk
        index, classes, quality = index[kept], classes[kept], quality[kept]

        points = locations.points[index]
        boxes = torch.cat([points - distances[index, :2], points + distances[index, 2:]], dim=1)
        results = []
        for image, image_size in enumerate(image_sizes):
            here = (locations.image[index] == image).nonzero().squeeze(1)
            scores = quality[here].sqrt()
            kept = batched_nms(boxes[here], scores, classes[here], self.nms_thresh)[: self.post_nms_topk]
            here = here[kept]
            instances = Instances(image_size)
            instances.pred_boxes = Boxes(boxes[here])
            instances.scores = scores[kept]
            instances.pred_classes = classes[here]
            instances.location_index = index[here]
            results.append(instances)
        return results
