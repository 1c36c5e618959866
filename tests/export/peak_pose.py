"""PeakPose, a toy model with the seam of an export: bright cells of an image are people, as many as the image has."""

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from small_models import SCHEMA, small_config
from torch import nn
from torch.nn import functional as F

from dynpose.data import model_schema
from dynpose.modeling.base_models import ImageModel
from dynpose.modeling.detections import Detections

STRIDE = 8
MAX_PEOPLE = 20


class CellBackbone(Backbone):
    """Means of cells, and features of them by one more convolution."""

    size_divisibility = 32

    def __init__(self):
        super().__init__()
        self.mean = nn.Conv2d(3, 1, STRIDE, stride=STRIDE, bias=False)
        nn.init.constant_(self.mean.weight, 1 / (3 * STRIDE**2))
        self.features = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        brightness = self.mean(x)
        return {"brightness": brightness, "features": self.features(brightness).relu()}

    def output_shape(self):
        return {"features": ShapeSpec(channels=4, stride=STRIDE)}


@META_ARCH_REGISTRY.register()
class PeakPose(ImageModel):
    """A person for every cell that is brighter than the eight around it."""

    @configurable
    def __init__(self, *, schema, pixel_mean, pixel_std):
        super().__init__(CellBackbone(), pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.schema = schema
        self.offsets = nn.Conv2d(4, 2 * schema.num_keypoints, 1)

    @classmethod
    def from_config(cls, cfg):
        """The arguments."""
        return {"schema": model_schema(cfg), "pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}

    def detect(self, images, image_sizes):
        """The people of a batch."""
        features = self.backbone(images)
        offsets = self.offsets(features["features"]).float()
        brightness = features["brightness"].float()
        height, width = brightness.shape[-2:]
        # among equal cells the first is brighter
        order = torch.arange(width) + 0.9 * torch.arange(height)[:, None]
        scores = ((brightness - 1e-3 * order) / 100).sigmoid()
        is_peak = (scores == F.max_pool2d(scores, 3, stride=1, padding=1)) & (scores > 0.5)
        best, cells = (scores * is_peak).flatten(1).topk(MAX_PEOPLE)
        image, rank = (best > 0).nonzero(as_tuple=True)
        scores, cells = best[image, rank], cells[image, rank]
        v = torch.div(cells, width, rounding_mode="floor")
        centers = torch.stack([cells - v * width, v], dim=1) * STRIDE + STRIDE // 2
        points = centers[:, None] + offsets.flatten(2)[image, :, cells].unflatten(1, (-1, 2)) / 40
        points = torch.minimum(points, image_sizes.flip(1)[image][:, None].float())
        boxes = torch.cat([centers - 2.0 * STRIDE, centers + 2.0 * STRIDE], dim=1)
        confidence = scores[:, None, None].expand(-1, self.schema.num_keypoints, 1)
        return Detections(image, boxes, scores, torch.zeros_like(image), torch.cat([points, confidence], dim=2))

    def predict(self, batched_inputs):
        """Detect people: B dicts with ``instances``, in pixels of the original images."""
        images = self.preprocess_image(batched_inputs)
        found = self.detect(images.tensor, torch.tensor(images.image_sizes))
        results = []
        for index, (inputs, size) in enumerate(zip(batched_inputs, images.image_sizes)):
            here = found.image == index
            instances = Instances(size, pred_boxes=Boxes(found.boxes[here]), scores=found.scores[here])
            instances.pred_classes, instances.pred_keypoints = found.classes[here], found.keypoints[here]
            height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
            results.append({"instances": detector_postprocess(instances, height, width)})
        return results


def peak_config(*opts):
    """Config of the toy model."""
    opts = ("MODEL.META_ARCHITECTURE", "PeakPose", "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 256, *opts)
    return small_config("configs/FCPose/Base-FCPose.yaml", *opts)


def bright_cells(height, width, cells):
    """An image (H, W, 3) uint8 with a bright cell for each (row, column), each darker than the one before."""
    pixels = torch.full((height, width, 3), 60, dtype=torch.uint8)
    for index, (row, column) in enumerate(cells):
        pixels[STRIDE * row : STRIDE * (row + 1), STRIDE * column : STRIDE * (column + 1)] = 250 - 8 * index
    return pixels.numpy()


__all__ = ["MAX_PEOPLE", "SCHEMA", "STRIDE", "PeakPose", "bright_cells", "peak_config"]
