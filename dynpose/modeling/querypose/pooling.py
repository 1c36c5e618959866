"""RoI pooling for the boxes of a batch in one tensor.

Axes: B images, R boxes of the batch, C channels, r x r cells of a RoI.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn


class RoIPooler(nn.Module):
    """detectron2's ROIPooler, with each box's image given by a tensor.

    ROIPooler takes a list of boxes per image, whose length an exported graph would fix.

    Args:
        levels (Sequence[ShapeSpec]): of the maps, finest first; their strides are successive powers of 2.
        resolution (int): r.
        sampling_ratio (int): samples per cell along each axis.
    """

    def __init__(self, levels: Sequence[ShapeSpec], resolution: int, sampling_ratio: int):
        super().__init__()
        self.pooler = ROIPooler(resolution, [1 / level.stride for level in levels], sampling_ratio, "ROIAlignV2")

    def forward(self, maps: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """Pool each box from the level that fits its size (Eq. 1 of the FPN paper).

        Args:
            maps (list[Tensor]): (B, C, H, W) of each level.
            boxes (Tensor): (R, 4), pixels of the network's input; NaN is read as 0.
            image (Tensor): (R,) int64, position of each box's image in the batch.

        Returns:
            Tensor: (R, C, r, r).
        """
        # For a NaN box, RoIAlign reads outside the map and crashes. The losses still become NaN.
        boxes = boxes.nan_to_num(nan=0.0)
        rois = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
        poolers = self.pooler.level_poolers
        if len(maps) == 1:
            return poolers[0](maps[0], rois)
        level = self._level_of(boxes)
        pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *self.pooler.output_size)
        for index, (level_pooler, level_map) in enumerate(zip(poolers, maps)):
            (at_level,) = torch.nonzero(level == index, as_tuple=True)
            pooled.index_put_((at_level,), level_pooler(level_map, rois[at_level]))
        return pooled

    def _level_of(self, boxes):
        """Index of each box's map, (R,) int64."""
        pooler = self.pooler
        return assign_boxes_to_levels(
            [Boxes(boxes)], pooler.min_level, pooler.max_level, pooler.canonical_box_size, pooler.canonical_level
        )
