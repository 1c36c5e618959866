"""InsPose as released by its authors in opera; it loads their checkpoints.

It is a separate meta-architecture, since nearly every part differs from the paper (`projects/InsPose` lists them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import Boxes, ImageList, Instances, Keypoints
from torch import Tensor

from dynpose.config import (
    ConfigError,
    check_at_least_one,
    check_between_0_and_1,
    check_choice,
    check_from_0_to_1,
    check_norm,
    check_not_negative,
    check_positive,
    set_plain,
)
from dynpose.data import KeypointSchema, model_schema
from dynpose.layers import KPNets, KPNetSpec
from dynpose.layers.cells import cell_positions
from dynpose.layers.map_peaks import map_peaks
from dynpose.layers.nms import soft_nms
from dynpose.layers.process_mean import mean_over_processes
from dynpose.layers.ranking import first_in_group, order_in_groups
from dynpose.modeling.backbone import build_backbone
from dynpose.modeling.base_models import ImageDetector, pixel_statistics
from dynpose.modeling.detections import Detections
from dynpose.modeling.fcos import (
    FCOSDetector,
    FCOSPredictions,
    LocationConv,
    flatten_levels,
    pyramid_channels,
)
from dynpose.modeling.heatmap_loss import heatmap_focal_loss
from dynpose.modeling.keypoint_maps import enclosing_boxes, gather_keypoints, keypoint_cells
from dynpose.modeling.kp_net import KPNetHead, heatmap_intermediates, kp_net_spec, offset_intermediates
from dynpose.modeling.parameter_rows import layer_rows, of_each, of_generated
from dynpose.modeling.unchecked_boxes import UncheckedBoxes, without_overlap
from dynpose.utils.exporting import is_recording
from dynpose.utils.intermediate import provide

from .released_head import AuxBranch, KeypointFeatures, ReleasedHead, ReleasedPredictions
from .released_losses import (
    QUALITIES,
    TAG_CELLS,
    disk_offset_loss,
    gaussian_radii,
    gaussian_targets,
    keypoint_qualities,
    keypoint_regression_loss,
    mean_over_labelled,
    tag_losses,
    varifocal_loss,
)


@dataclass(frozen=True)
class ReleasedOptions:
    """Options of the released InsPose.

    Attributes:
        index_coordinates: whether the network works in pixel indices, see :class:`InsPoseReleased`.
        nms: arguments of :func:`~dynpose.layers.nms.soft_nms`: ``method``, ``sigma`` and ``min_score``.
        varifocal: arguments of :func:`varifocal_loss`: ``alpha`` and ``gamma``.
        quality: rule of :func:`keypoint_qualities`.
        unlabelled_quality: target of people without labelled keypoints.
        area_of_box: area of a person without ``gt_areas``, as a fraction of the box.
        tag_cell: rule of :func:`tag_losses`.
        min_overlap, max_radius: of the heatmaps' and offsets' squares, see :func:`gaussian_radii`.
        loss_weights: of ``cls``, ``keypoint``, ``keypoint_reg``, ``heatmap``, ``ae_pull``, ``ae_push`` and
            ``heatmap_offset``; 1 by default.
    """

    index_coordinates: bool = True
    nms: dict[str, Any] = field(default_factory=dict)
    varifocal: dict[str, float] = field(default_factory=dict)
    quality: str = "released"
    unlabelled_quality: float = 0.1
    area_of_box: float = 0.53
    tag_cell: str = "released"
    min_overlap: float = 0.9
    max_radius: int = 3
    loss_weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        set_plain(self, "nms", "varifocal", "loss_weights")


@META_ARCH_REGISTRY.register()
class InsPoseReleased(ImageDetector):
    """InsPose, released variant.

    FCOS-like locations regress a person's keypoints directly; star-shaped convolutions on those keypoints classify the
    location and generate a KP-Net. Its heatmaps are computed from P3 and up-sampled by two; an offset map at that
    resolution refines their peaks.

    The release uses COCO's keypoints as stored: (x, y) is a pixel index, and the pixel's centre lies half a pixel
    further right and down in detectron2's continuous coordinates. With ``index_coordinates`` the whole network works in
    pixel indices, and :meth:`forward` converts its inputs and outputs.

    Args:
        backbone: provides ``head_in_features``, all with the same number of channels.
        head: classification, regression, and the controller's branch.
        head_in_features: pyramid levels, finest first; the finest is P3.
        keypoint_features: computes F from P3.
        aux_branch: heatmaps, tags and disk offsets at twice P3's resolution.
        kp_net_head: generates the KP-Nets.
        detector: detects people as locations; its decoder's ``nms_thresh`` is that of the soft-NMS.
        schema: the keypoints.
        options: None for the defaults.
        pixel_mean, pixel_std: per image channel.
    """

    # the reason why weights of the same keypoints in another order cannot be evaluated unchanged
    fixed_keypoint_order = (
        "its star-shaped convolutions sample the keypoints that MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS names by index"
    )

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: ReleasedHead,
        head_in_features: list[str],
        keypoint_features: KeypointFeatures,
        aux_branch: AuxBranch,
        kp_net_head: KPNetHead,
        detector: FCOSDetector,
        schema: KeypointSchema,
        options: ReleasedOptions | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        # the module order determines the parameter order in the optimizer's state
        self.keypoint_features = keypoint_features
        self.aux_branch = aux_branch
        self.kp_net_head = kp_net_head
        self.controller = kp_net_head.controller
        self.detector = detector
        self.schema = schema
        self.options = options or ReleasedOptions()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.{FCOS, INSPOSE_RELEASED, KP_NET}.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the backbone or keypoints.
        """
        fcos, released = cfg.MODEL.FCOS, cfg.MODEL.INSPOSE_RELEASED
        _check_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        channels = pyramid_channels(cfg, shapes)
        schema = model_schema(cfg)
        spec = kp_net_spec(cfg, schema.num_keypoints)
        detector = FCOSDetector.from_config(cfg, shapes)
        # the construction order determines the random initialisation
        head = ReleasedHead.from_config(cfg, channels, schema.num_keypoints)
        keypoint_features = KeypointFeatures(
            in_channels=channels,
            channels=released.FEATURE_CONVS_DIM,
            num_convs=released.NUM_FEATURE_CONVS,
            out_channels=spec.in_channels,
            norm=fcos.NORM,
        )
        aux_branch = AuxBranch(
            in_channels=channels,
            channels=released.AUX_CONVS_DIM,
            num_convs=released.NUM_AUX_CONVS,
            num_keypoints=schema.num_keypoints,
            norm=fcos.NORM,
        )
        controller = LocationConv(2 * channels, spec.num_params, kernel_size=3)
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": fcos.IN_FEATURES,
            "keypoint_features": keypoint_features,
            "aux_branch": aux_branch,
            "kp_net_head": KPNetHead(
                controller,
                spec,
                stride=detector.strides[0],
                coord_scales=[stride * released.COORD_SCALE for stride in detector.strides],
                backend=cfg.MODEL.KP_NET.BACKEND,
            ),
            "detector": detector,
            "schema": schema,
            "options": _options(released),
            **pixel_statistics(cfg),
        }

    @property
    def original_shift(self) -> float:
        """What :meth:`forward` adds to x and y of its results at the scale of the original image, pixels."""
        return 0.5 if self.options.index_coordinates else 0.0

    @property
    def spec(self) -> KPNetSpec:
        """The shape of the KP-Nets."""
        return self.kp_net_head.spec

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Train or predict, like any detectron2 model.

        Args:
            batched_inputs: B images in detectron2's format. ``instances`` may have ``gt_areas`` (G,), the
                areas of the people's masks in square pixels of the input; the default is a fraction of their boxes.

        Returns:
            Losses, or B dicts with ``instances``.
        """
        if not self.options.index_coordinates:
            return super().forward(batched_inputs)
        if self.training:
            return super().forward([_to_index_coordinates(one) for one in batched_inputs])
        outputs: Any = super().forward(batched_inputs)
        for output in outputs:
            _to_continuous_coordinates(output["instances"])
        return outputs

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: ReleasedPredictions, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            images: B padded images.
            features: pyramid levels.
            predictions: of these levels.
            gt_instances: B, with gt_boxes, gt_classes and (where there are people) gt_keypoints in
                the network's coordinates.

        Returns:
            ``loss_cls``, ``loss_keypoint``, ``loss_keypoint_reg``, ``loss_heatmap``, ``loss_ae_pull``,
            ``loss_ae_push``, ``loss_heatmap_offset``.
        """
        keypoints, image_index = gather_keypoints(gt_instances, self.schema.num_keypoints)
        areas = torch.cat([self._areas(instances) for instances in gt_instances])
        pseudo_instances = [with_pseudo_boxes(instances) for instances in gt_instances]
        locations = self.detector.locations(features)
        targets = self.detector.targets(locations, pseudo_instances)
        index = targets.positives
        person = targets.matched[index]
        nets = self._generate(features, predictions, locations, index)
        losses = {
            "loss_cls": self._cls_loss(predictions, targets, nets, keypoints[person], areas[person]),
            **self._keypoint_losses(predictions, locations, index, nets, keypoints[person]),
        }
        boxes = torch.cat([instances.gt_boxes.tensor for instances in pseudo_instances])
        losses.update(self._aux_losses(features[0], keypoints, image_index, boxes))
        weights = self.options.loss_weights
        return {name: loss * weights.get(name.removeprefix("loss_"), 1.0) for name, loss in losses.items()}

    def decode(self, features: list[Tensor], predictions: ReleasedPredictions, image_sizes: Tensor) -> Detections:
        """Detect people and locate their keypoints.

        NMS compares the boxes around the directly regressed keypoints, before any KP-Net runs.

        Args:
            features: pyramid levels.
            predictions: of these levels.
            image_sizes: (B, 2) int64, height and width before padding, pixels.

        Returns:
            N people, with boxes around the regressed keypoints, scores lowered by the soft-NMS, and keypoints in the
            network's coordinates; the third value is the softmax probability of the up-sampled heatmap's peak.
        """
        locations = self.detector.locations(features)
        decoder = self.detector.decoder
        candidates = decoder.candidates(FCOSPredictions(predictions.logits, [], [], []), locations)
        boxes = self._regressed_boxes(predictions, locations, candidates.index, image_sizes)
        found, boxes = self._select(candidates, boxes, locations.num_images)
        nets = self._generate(features, predictions, locations, found.index)
        offsets = self.aux_branch.offsets(self.aux_branch.features(features[0]))
        keypoints = locate_keypoints(nets, offsets, self.aux_branch.factor)
        provide(lambda: self._intermediates(nets, offsets))
        return decoder.detections(found, boxes, keypoints, locations.num_images)

    def keypoint_rows(self, note: Mapping[str, Any]) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to keypoints, see :mod:`dynpose.modeling.parameter_rows`.

        The weights of the stars are not included: they belong to the positions in STAR_KEYPOINTS.
        """
        number = len(note["keypoints"])
        layers = {
            "controller.linear": of_generated(replace(self.spec, num_keypoints=number)),
            "head.keypoint_offsets": of_each(number, rows=2),
            "aux_branch.heatmaps": of_each(number),
            "aux_branch.tags": of_each(number),
            "aux_branch.disk_offsets": of_each(number, rows=2),
        }
        return [group for name, owners in layers.items() for group in layer_rows({name: owners})]

    def class_rows(self, number: int) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to classes, see :mod:`dynpose.modeling.parameter_rows`."""
        return layer_rows({"head.cls_logits": of_each(number)})

    def _areas(self, instances):
        """(G,) areas of the people of an image, square pixels."""
        if instances.has("gt_areas"):
            return instances.gt_areas.float()
        return instances.gt_boxes.area() * self.options.area_of_box

    def _generate(self, features, predictions, locations, index):
        """Generate the KP-Nets at locations."""
        return self.kp_net_head(self.keypoint_features(features[0]), predictions.controller_maps, locations, index)

    def _intermediates(self, nets, offsets):
        """The maps of N people, see :mod:`dynpose.modeling.inspose.figures`."""
        factor = self.aux_branch.factor
        stride = nets.stride // factor
        # the centre of the first cell's pixels: in pixel indices, half a pixel further left and up
        center = (stride - 1) / 2 if self.options.index_coordinates else stride / 2
        maps = heatmap_intermediates(upsampled_heatmaps(nets, factor), stride, center)
        ends = offset_intermediates(maps, lambda cells: shifted_cells(cells, nets, offsets, factor), float("nan"))
        return {**maps, **ends}

    def _cls_loss(self, predictions, targets, nets, keypoints, areas):
        """Varifocal loss; the target of a positive location is the quality of its network's current keypoints."""
        logits = flatten_levels(predictions.logits).float()
        quality = torch.zeros_like(logits)
        with torch.no_grad():
            quality[targets.positives, targets.labels[targets.positives]] = keypoint_qualities(
                nets.peaks().indices,
                keypoints,
                areas,
                self.schema.sigmas,
                stride=nets.stride,
                width=nets.size[1],
                rule=self.options.quality,
                unlabelled=self.options.unlabelled_quality,
            )
        # as released, positives + images: never zero
        count = logits.new_tensor(float(len(targets.positives) + len(nets.features)))
        return varifocal_loss(logits, quality, **self.options.varifocal) / mean_over_processes(count)

    def _keypoint_losses(self, predictions, locations, index, nets, keypoints):
        """Losses of the positive locations: of their networks' heatmaps and of the regressed keypoints."""
        labelled = keypoints[..., 2] > 0
        cells = keypoint_cells(keypoints, nets.stride, nets.size)
        strides = locations.per_level(locations.strides)[index, None, None]
        offsets = flatten_levels(predictions.offsets).float()[index].unflatten(1, (-1, 2))
        targets = (keypoints[..., :2] - locations.points[index, None]) / strides
        return {
            "loss_keypoint": mean_over_labelled(nets.cross_entropy(cells), cells >= 0),
            "loss_keypoint_reg": keypoint_regression_loss(offsets, targets, labelled),
        }

    def _aux_losses(self, feature, keypoints, image_index, boxes):
        """Losses of the maps that all people share."""
        options, stride = self.options, self.kp_net_head.stride // self.aux_branch.factor
        features = self.aux_branch.features(feature)
        radii = gaussian_radii(boxes, stride=stride, min_overlap=options.min_overlap, max_radius=options.max_radius)
        targets = gaussian_targets(
            keypoints, image_index, radii, num_images=len(features), size=tuple(features.shape[-2:]), stride=stride
        )
        tags = self.aux_branch.tags(features)
        pull, push = tag_losses(tags, keypoints, image_index, stride=stride, rule=options.tag_cell)
        offsets = self.aux_branch.offsets(features)
        return {
            "loss_heatmap": heatmap_focal_loss(self.aux_branch.heatmaps(features), targets),
            "loss_ae_pull": pull,
            "loss_ae_push": push,
            "loss_heatmap_offset": disk_offset_loss(offsets, keypoints, image_index, radii, stride=stride),
        }

    def _regressed_boxes(self, predictions, locations, index, image_sizes):
        """Boxes (M, 4) around the directly regressed keypoints, which are clipped to the image first."""
        strides = locations.per_level(locations.strides)[index, None, None]
        offsets = flatten_levels(predictions.offsets)[index].float().unflatten(1, (-1, 2))
        points = locations.points[index, None] + offsets * strides
        sizes = image_sizes.to(points.dtype).flip(1)[locations.image[index], None]
        return enclosing_boxes(torch.minimum(points.clamp(min=0), sizes))

    def _select(self, candidates, boxes, num_images):
        """Apply soft-NMS per image and class, then keep the best of each image: candidates (N) and their boxes."""
        decoder, num_classes = self.detector.decoder, self.detector.num_classes
        # A NaN score passes as the best, with a box that overlaps nothing
        kept, scores = soft_nms(
            without_overlap(boxes, candidates.scores),
            candidates.scores.nan_to_num(nan=1.0),
            candidates.image * num_classes + candidates.classes,
            iou_threshold=decoder.nms_thresh,
            max_per_group=decoder.post_nms_topk,
            num_groups=num_images * num_classes,
            group_limit=decoder.candidate_limit(len(self.detector.strides)),
            **self.options.nms,
        )
        scores = torch.where(candidates.scores[kept].isfinite(), scores, candidates.scores[kept])
        order = order_in_groups(scores, candidates.image[kept])
        order = order[first_in_group(candidates.image[kept[order]], num_images, decoder.post_nms_topk)]
        kept = kept[order]
        return replace(candidates[kept], scores=scores[order]), boxes[kept]


def with_pseudo_boxes(instances: Instances) -> Instances:
    """Replace the boxes of people with labelled keypoints by the tightest around these (release; section 3.1).

    Args:
        instances: with gt_boxes, gt_classes and optionally gt_keypoints; not modified.

    Returns:
        New instances with gt_boxes and gt_classes.
    """
    boxes = instances.gt_boxes.tensor
    if instances.has("gt_keypoints"):
        keypoints = instances.gt_keypoints.tensor.float()
        labelled = keypoints[..., 2] > 0
        boxes = torch.where(labelled.any(dim=1)[:, None], enclosing_boxes(keypoints[..., :2], labelled), boxes)
    result = Instances(instances.image_size)
    result.gt_boxes = Boxes(boxes)
    result.gt_classes = instances.gt_classes
    return result


@torch.no_grad()
def locate_keypoints(nets: KPNets, offsets: Tensor, factor: int) -> Tensor:
    """Decode: the peak of each up-sampled heatmap, plus the offset there, times the stride (paper's Eq. 3).

    Args:
        nets: N networks.
        offsets: (B, K, 2, h, w), x and y in cells of the up-sampled maps.
        factor: factor of the bicubic up-sampling.

    Returns:
        (N, K, 3) x, y in input pixels, and the softmax probability of the peak.
    """

    def peaks(some):
        _, cells, confidence = map_peaks(upsampled_heatmaps(some, factor))
        return cells, confidence

    if not is_recording() and not len(nets):
        return offsets.new_zeros(0, nets.spec.num_keypoints, 3, dtype=torch.float32)
    cells, confidence = nets.map_in_chunks(peaks, values_per_cell=factor**2)
    return torch.cat([shifted_cells(cells, nets, offsets, factor), confidence[..., None]], dim=-1)


def upsampled_heatmaps(nets: KPNets, factor: int) -> Tensor:
    """The bicubically up-sampled heatmaps: (N, K, h, w) logits."""
    return F.interpolate(nets.heatmaps(), scale_factor=factor, mode="bicubic", align_corners=False)


def shifted_cells(cells: Tensor, nets: KPNets, offsets: Tensor, factor: int) -> Tensor:
    """The points that the offsets at cells lead to.

    Args:
        cells: (N, K) int64 flat index in the up-sampled maps.
        nets: N networks.
        offsets: (B, K, 2, h, w), x and y in cells of these maps.
        factor: factor of the up-sampling.

    Returns:
        (N, K, 2) x and y in input pixels.
    """
    kind = torch.arange(nets.spec.num_keypoints, device=cells.device)
    shifts = offsets.flatten(3)[nets.image_index[:, None], kind, :, cells].float()
    return (cell_positions(cells, offsets.shape[-1]) + shifts) * (nets.stride // factor)


def _to_index_coordinates(one):
    """Convert a model input's keypoints to pixel indices of the original image, scaled to the input.

    The scale factors are the ratios of the two sizes: the image has only been resized and possibly mirrored.
    """
    instances = one["instances"]
    if not instances.has("gt_keypoints"):
        return one
    height, width = instances.image_size
    half = torch.tensor([0.5 * width / one.get("width", width), 0.5 * height / one.get("height", height)])
    keypoints = instances.gt_keypoints.tensor.clone()
    shifted = (keypoints[..., :2] - half.to(keypoints)).clamp(min=0)
    keypoints[..., :2] = torch.where(keypoints[..., 2:] > 0, shifted, keypoints[..., :2])
    converted = Instances(instances.image_size, **instances.get_fields())
    converted.gt_keypoints = Keypoints(keypoints)
    return {**one, "instances": converted}


def _to_continuous_coordinates(instances):
    """Convert predictions back in place, at the original scale."""
    instances.pred_keypoints[..., :2] += 0.5
    boxes = UncheckedBoxes(instances.pred_boxes.tensor + 0.5)
    boxes.clip(instances.image_size)
    instances.pred_boxes = Boxes(boxes.tensor)


def _options(released):
    """Read the options from ``cfg.MODEL.INSPOSE_RELEASED``."""
    return ReleasedOptions(
        index_coordinates=released.INDEX_COORDINATES,
        nms={"method": released.NMS_METHOD, "sigma": released.NMS_SIGMA, "min_score": released.NMS_MIN_SCORE},
        varifocal={"alpha": released.VARIFOCAL_ALPHA, "gamma": released.VARIFOCAL_GAMMA},
        quality=released.QUALITY,
        unlabelled_quality=released.UNLABELLED_QUALITY,
        area_of_box=released.AREA_OF_BOX,
        tag_cell=released.TAG_CELL,
        min_overlap=released.RADIUS_MIN_OVERLAP,
        max_radius=released.MAX_RADIUS,
        loss_weights={
            "keypoint": released.KEYPOINT_LOSS_WEIGHT,
            "keypoint_reg": released.REGRESSION_LOSS_WEIGHT,
            "heatmap": released.HEATMAP_LOSS_WEIGHT,
            "ae_pull": released.TAG_LOSS_WEIGHT,
            "ae_push": released.TAG_LOSS_WEIGHT,
            "heatmap_offset": released.OFFSET_LOSS_WEIGHT,
        },
    )


def _check_config(cfg):
    """Validate the config before training starts."""
    released, key = cfg.MODEL.INSPOSE_RELEASED, "MODEL.INSPOSE_RELEASED.{}".format
    for name, choices in (
        ("QUALITY", QUALITIES),
        ("TAG_CELL", TAG_CELLS),
        ("NMS_METHOD", ("linear", "gaussian")),
    ):
        check_choice(cfg, key(name), choices)
    check_positive(cfg, key("COORD_SCALE"), key("AREA_OF_BOX"), key("NMS_SIGMA"))
    check_not_negative(
        cfg, key("MAX_RADIUS"), key("NMS_MIN_SCORE"), key("NUM_REGRESSION_CONVS"), key("NUM_FEATURE_CONVS")
    )
    check_from_0_to_1(cfg, key("STAR_GRADIENT"))
    check_not_negative(cfg, key("VARIFOCAL_ALPHA"), key("VARIFOCAL_GAMMA"))
    losses = ("KEYPOINT", "REGRESSION", "HEATMAP", "TAG", "OFFSET")
    check_not_negative(cfg, *(key(f"{name}_LOSS_WEIGHT") for name in losses))
    check_at_least_one(cfg, key("NUM_AUX_CONVS"))
    check_between_0_and_1(cfg, key("RADIUS_MIN_OVERLAP"))
    check_from_0_to_1(cfg, key("UNLABELLED_QUALITY"))
    for channels in ("REGRESSION_CONVS_DIM", "FEATURE_CONVS_DIM", "AUX_CONVS_DIM"):
        check_at_least_one(cfg, key(channels))
        check_norm(cfg, "MODEL.FCOS.NORM", released[channels])
    for name in ("CROP", "AFFINE"):
        if released.INDEX_COORDINATES and cfg.INPUT[name].ENABLED:
            raise ConfigError(
                f"INPUT.{name}.ENABLED is True, but with {key('INDEX_COORDINATES')} images can only be resized and "
                f"mirrored: set INPUT.{name}.ENABLED or {key('INDEX_COORDINATES')} to False"
            )
