"""The auxiliary heatmap of the release, which section 4.3 found useless: a task of training alone, off by default.

The paper gives neither layers nor targets; both are the release's.
Axes: B images, C channels of the features, K keypoints, G people of the batch, H x W cells of stride s.
"""

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from dynpose.modeling.keypoint_maps import corner_radii, keypoint_cells, multi_person_heatmaps

# Initial logits, as in CornerNet: a probability of 0.1
_INITIAL_LOGIT = -2.19

# Minimum IoU that gives the radius of a person's Gaussians
_MIN_OVERLAP = 0.7


class AuxHeatmap(nn.Module):
    """Multi-person heatmaps: a 3x3 convolution with ReLU, and a 1x1 convolution.

    Args:
        in_channels (int): C, also of the hidden map.
        num_keypoints (int): K.
    """

    def __init__(self, *, in_channels: int, num_keypoints: int):
        super().__init__()
        self.conv = Conv2d(in_channels, in_channels, kernel_size=3, padding=1, activation=F.relu)
        self.predict = Conv2d(in_channels, num_keypoints, kernel_size=1)
        nn.init.constant_(self.predict.bias, _INITIAL_LOGIT)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W) logits."""
        return self.predict(self.conv(features))


def aux_heatmap_targets(
    keypoints: Tensor, boxes: Tensor, image_index: Tensor, *, num_images: int, size: tuple[int, int], stride: int
) -> Tensor:
    """Gaussians of all people, merged by the maximum.

    A person's Gaussians are cropped to squares of 2 r + 1 cells, with sigma = (2 r + 1) / 6, where r is CornerNet's
    radius. As in the release, r is computed from the box in input pixels but counts cells, so it is s times that of the
    box on the map.

    Args:
        keypoints (Tensor): (G, K, 3), x and y in input pixels, visibility 0/1/2.
        boxes (Tensor): (G, 4) XYXY, input pixels.
        image_index (Tensor): (G,) int64.
        num_images (int): B.
        size (tuple[int, int]): (H, W).
        stride (int): s, pixels.

    Returns:
        Tensor: (B, K, H, W) float32 in [0, 1], one in the cells of labelled keypoints.
    """
    flat = keypoint_cells(keypoints, stride, size)
    cells = torch.stack([flat % size[1], torch.div(flat, size[1], rounding_mode="floor")], dim=-1)
    radii = corner_radii((boxes[:, 2:] - boxes[:, :2]).ceil(), _MIN_OVERLAP)
    return multi_person_heatmaps(cells, flat >= 0, radii, image_index, num_images=num_images, size=size)
