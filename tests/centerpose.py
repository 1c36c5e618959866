"""CenterPose, a toy method: a centre map finds people, and offsets at a centre give the person's keypoints."""

import contextlib

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import nn
from torch.nn import functional as F

from dynpose.data import model_schema
from dynpose.layers.ranking import order_in_groups
from dynpose.layers.top_k import top_of_rows
from dynpose.methods import Figure, Method, ReleasedFormat, register_method
from dynpose.modeling.base_models import ImageModel
from dynpose.modeling.detections import Detections
from dynpose.modeling.figures import Panel, View, arrange
from dynpose.modeling.injection import corner_keypoints, substitute
from dynpose.modeling.keypoint_maps import enclosing_boxes, gather_keypoints
from dynpose.modeling.parameter_rows import layer_rows, of_each
from dynpose.utils.intermediate import provide


def add_centerpose_config(cfg):
    """Add the keys of MODEL.CENTERPOSE, in place."""
    cfg.MODEL.CENTERPOSE = CN()
    # The feature map of the backbone that everything is read from
    cfg.MODEL.CENTERPOSE.IN_FEATURE = "p3"
    # Inference: most people in an image, and the least centre score
    cfg.MODEL.CENTERPOSE.MAX_DETECTIONS = 20
    cfg.MODEL.CENTERPOSE.SCORE_THRESH = 0.05


@META_ARCH_REGISTRY.register()
class CenterPose(ImageModel):
    """A toy pose estimator.

    Letters of the shapes: B images, N people, K keypoints, H x W cells of the map.

    Args:
        backbone (Backbone): any that gives ``in_feature``.
        in_feature (str): the feature map that everything is read from.
        schema (KeypointSchema): the K keypoints.
        max_detections (int): people kept in an image.
        score_thresh (float): the least centre score.
        pixel_mean, pixel_std (Sequence[float]): of the image channels.
    """

    @configurable
    def __init__(self, *, backbone, in_feature, schema, max_detections, score_thresh, pixel_mean, pixel_std):
        super().__init__(backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        shape = backbone.output_shape()[in_feature]
        self.in_feature, self.stride = in_feature, shape.stride
        self.schema = schema
        self.max_detections, self.score_thresh = max_detections, score_thresh
        self.center = nn.Conv2d(shape.channels, 1, 1)
        self.offsets = nn.Conv2d(shape.channels, 2 * schema.num_keypoints, 1)
        # a background probability of 0.99 to start from
        nn.init.constant_(self.center.bias, -4.6)

    @classmethod
    def from_config(cls, cfg):
        """Read the arguments from cfg.MODEL.CENTERPOSE."""
        return {
            "backbone": build_backbone(cfg),
            "in_feature": cfg.MODEL.CENTERPOSE.IN_FEATURE,
            "schema": model_schema(cfg),
            "max_detections": cfg.MODEL.CENTERPOSE.MAX_DETECTIONS,
            "score_thresh": cfg.MODEL.CENTERPOSE.SCORE_THRESH,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def predict_maps(self, features):
        """Centre logits (B, H, W) and offsets (B, H, W, K, 2) from a cell's centre, strides."""
        offsets = self.offsets(features).unflatten(1, (-1, 2))
        return self.center(features).squeeze(1), offsets.permute(0, 3, 4, 1, 2)

    def cells_of(self, boxes, size):
        """Rows (N,) and columns (N,) of the cells in a map of (H, W) that hold the centres of boxes (N, 4), pixels."""
        cells = torch.div((boxes[:, :2] + boxes[:, 2:]) / 2, self.stride, rounding_mode="floor").long()
        return cells[:, 1].clamp(0, size[0] - 1), cells[:, 0].clamp(0, size[1] - 1)

    def cell_centers(self, v, u):
        """Centres (N, 1, 2) of cells by row and column (N,), x and y in pixels."""
        return torch.stack([u, v], dim=1)[:, None] * self.stride + self.stride // 2

    def compute_losses(self, batched_inputs):
        """Binary cross-entropy of the centre map, and the L1 distance of the labelled keypoints, strides."""
        features = self.backbone(self.preprocess_image(batched_inputs).tensor)[self.in_feature]
        centers, offsets = self.predict_maps(features)
        gt_instances = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        keypoints, image = gather_keypoints(gt_instances, self.schema.num_keypoints)
        v, u = self.cells_of(torch.cat([each.gt_boxes.tensor for each in gt_instances]), centers.shape[1:])
        target = torch.zeros_like(centers)
        target[image, v, u] = 1
        labelled = keypoints[..., 2] > 0
        distances = offsets[image, v, u] - (keypoints[..., :2] - self.cell_centers(v, u)) / self.stride
        return {
            "loss_center": F.binary_cross_entropy_with_logits(centers, target),
            "loss_offset": distances[labelled].abs().sum() / max(1, 2 * int(labelled.sum())),
        }

    def detect(self, images, image_sizes):
        """Detect the people of normalised images (B, 3, H, W): what a prediction and an exported file run."""
        centers, offsets = self.predict_maps(self.backbone(images)[self.in_feature])
        provide(lambda: {"centers": centers.sigmoid()})
        return self.decode(centers, offsets)

    def decode(self, centers, offsets):
        """Decode the peaks of centre maps, and the offsets at them."""
        is_peak = centers == F.max_pool2d(centers, 3, stride=1, padding=1)
        scores = (centers.sigmoid() * is_peak).flatten(1)
        chosen = (scores > self.score_thresh) & top_of_rows(scores, self.max_detections)
        image, cells = chosen.nonzero(as_tuple=True)
        scores = scores[image, cells]
        order = order_in_groups(scores, image)
        image, cells, scores = image[order], cells[order], scores[order]
        width = offsets.shape[2]
        v = torch.div(cells, width, rounding_mode="floor")
        u = cells - v * width
        points = offsets[image, v, u] * self.stride + self.cell_centers(v, u)
        confidences = scores[:, None, None].expand(-1, points.shape[1], 1)
        keypoints = torch.cat([points, confidences], dim=2)
        return Detections(image, enclosing_boxes(points), scores, torch.zeros_like(cells), keypoints)

    def keypoint_rows(self, note):
        """Say which rows of the parameters are for which keypoint: see dynpose.modeling.parameter_rows."""
        return layer_rows({"offsets": of_each(len(note["keypoints"]), rows=2)})


@contextlib.contextmanager
def inject_detections(model, boxes):
    """Replace the predicted maps, so that decoding detects one person for each box."""
    predict_maps, points = model.predict_maps, corner_keypoints(boxes, model.schema.num_keypoints)

    def injected_maps(features):
        centers, offsets = predict_maps(features)
        v, u = model.cells_of(boxes, centers.shape[1:])
        injected_centers, injected_offsets = torch.full_like(centers, -20.0), torch.zeros_like(offsets)
        injected_centers[:, v, u] = 5.0
        injected_offsets[:, v, u] = (points - model.cell_centers(v, u)) / model.stride
        return substitute(centers, injected_centers), substitute(offsets, injected_offsets)

    model.predict_maps = injected_maps
    try:
        yield
    finally:
        del model.predict_maps


RELEASED_FORMATS = (
    ReleasedFormat(
        name="the released CenterPose",
        method="CenterPose",
        signature=("heads.ctr.weight", "heads.reg.weight"),
        renames=(
            (r"net\.(.+)", r"backbone.\1"),
            (r"heads\.ctr\.(.+)", r"center.\1"),
            (r"heads\.reg\.(.+)", r"offsets.\1"),
        ),
        # x and y
        rows_per_keypoint=("offsets.bias", 2),
        unused=(r".+\.num_batches_tracked",),
        config="centerpose.yaml",
    ),
)


def draw_centers(scene):
    """Draw the centre map of the image."""
    stride = scene.model.stride
    view = View(scene).heat(scene.values["centers"][0][0], grid=(stride, stride // 2))
    caption = scene.caption("CenterPose", "The probability of each cell to be a person's centre.", of_person=False)
    return arrange([[Panel("centres", view.canvas)]], caption, ("0", "highest value"))


FIGURES = (Figure("centers", "the centre map", draw_centers, needs_person=False),)


register_method(
    Method(
        name="CenterPose",
        add_config=add_centerpose_config,
        num_classes_key="",
        detection_limit_key="MODEL.CENTERPOSE.MAX_DETECTIONS",
        released_formats=RELEASED_FORMATS,
        published_weights=(),
        parts={"backbone": ["backbone"], "heads": ["predict_maps"], "decoding": ["decode"]},
        inject_detections=inject_detections,
        count_network_flops=None,
        kp_net_benchmark=None,
        part_benchmark=None,
        figures=FIGURES,
    )
)
