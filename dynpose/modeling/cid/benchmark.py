"""CID's case of `dynpose benchmark model --alternatives`: instance features by GFD and by RoIAlign (Figure 5b).

Section 4.3 compares the time to generate the people's features from the global feature map. GFD's have the size of the
map. RoIAlign+ pools 14 x 14 cells of a person's box, as Mask R-CNN does, and up-samples them to 56 x 56. RoIAlign*
pools 56 x 56. The boxes are given, as are the people to GFD.

The text leaves open which map is pooled and how it is up-sampled. "RoIAlign+" and "RoIAlign*" pool F, the global
feature map of Eq. 1; up-sampling is bilinear. The same "of F-hat" pool the reduced map of Eq. 9, which GFD uses.
"RoIAlign+ and keypoint head" up-samples as in Mask R-CNN, after its eight convolutions, to heatmaps.

Letters of the shapes: N people, K keypoints, C_in channels of F, C of F-hat, H x W cells.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, pad

from dynpose.methods import PartBenchmark

from .abstraction import People
from .cid import CID

_POOLED_SIZE, _SIZE = 14, 56
# of Mask R-CNN's keypoint head
_NUM_CONVS, _CONV_CHANNELS = 8, 512


def center_cells(boxes: Tensor, stride: int) -> Tensor:
    """Cells (N, 2) int64 (u, v) with the centres of boxes (N, 4), XYXY in pixels."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.div(centers, stride, rounding_mode="floor").long()


def make_inputs(model: CID, boxes: Tensor, size: tuple[int, int], generator: Generator) -> tuple[Tensor, ...]:
    """Draw F (1, C_in, H, W); with it the people's cells (N, 2) int64 and ``boxes`` (N, 4), pixels."""
    height, width = model.map_sizes(torch.tensor(size)).tolist()
    features = torch.randn(1, model.gfd.reduce.in_channels, height, width, generator=generator)
    return features, center_cells(boxes, model.stride), boxes


def alternatives(model: CID) -> dict[str, Callable[..., Iterator[Tensor]]]:
    """Return GFD and the variants of RoIAlign by name: calls with the inputs of :func:`make_inputs`.

    All of them take as many people at a time as the model's inference. RoIAlign is that of detectron2's Keypoint R-CNN,
    with as many samples as a cell of the box has cells of the map. The keypoint head has random weights.
    """
    channels, num_keypoints = model.gfd.reduce.in_channels, model.schema.num_keypoints
    pool, directly = (
        ROIAlign(size, 1 / model.stride, sampling_ratio=0, aligned=True) for size in (_POOLED_SIZE, _SIZE)
    )
    head = KRCNNConvDeconvUpsampleHead(
        ShapeSpec(channels=channels), num_keypoints=num_keypoints, conv_dims=[_CONV_CHANNELS] * _NUM_CONVS
    ).to(model.device)

    def upsampled(features, rois):
        return interpolate(pool(features, rois), size=_SIZE, mode="bilinear", align_corners=False)

    def with_head(features, rois):
        return head.layers(pool(features, rois))

    whole, reduced = nn.Identity(), model.gfd.reduce
    return {
        "GFD": partial(_decouple, model),
        "RoIAlign+": partial(_pool, model, whole, upsampled),
        "RoIAlign*": partial(_pool, model, whole, directly),
        "RoIAlign+ of F-hat": partial(_pool, model, reduced, upsampled),
        "RoIAlign* of F-hat": partial(_pool, model, reduced, directly),
        "RoIAlign+ and keypoint head": partial(_pool, model, whole, with_head),
    }


def _decouple(model, features, cells, boxes):
    """Instance-aware feature maps (Eq. 12): (N, C, H, W), for some people at a time."""
    shared = model.gfd.prepare(features, torch.ones_like(features[:, 0], dtype=torch.bool))
    people = People.at(features, torch.zeros_like(cells[:, 0]), cells)
    for chunk in _chunks(model, features, boxes):
        yield model.gfd.instance_features(shared, people[chunk])


def _pool(model, of_image, of_people, features, cells, boxes):
    """Results (N, ..., 56, 56) of ``of_people`` on the map ``of_image(F)``, for some people at a time."""
    maps, rois = of_image(features), pad(boxes, (1, 0))  # image 0
    for chunk in _chunks(model, features, boxes):
        yield of_people(maps, rois[chunk])


def _chunks(model, features, boxes):
    at_once = model.people_at_once(features)
    return [slice(start, start + at_once) for start in range(0, len(boxes), at_once)]


PART_BENCHMARK = PartBenchmark("instance features", make_inputs, alternatives)
