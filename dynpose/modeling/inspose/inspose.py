"""The InsPose meta-architecture of the paper (Shi et al., ACM MM 2021).

FCOS's classification detects locations of people. For each, a keypoint network (KP-Net) of 313 weights is generated,
which runs over a feature map of the whole image; offsets that all people share shift the peaks of its keypoint maps.
Boxes are predicted only if the config enables them; otherwise training and NMS use boxes that enclose the keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor

from dynpose.config import (
    ConfigError,
    blame,
    check_at_least_one,
    check_norm,
    check_not_negative,
    check_odd,
    check_positive,
)
from dynpose.data import KeypointSchema, model_schema
from dynpose.layers import KPNetSpec
from dynpose.layers.cells import cell_positions
from dynpose.modeling.backbone import build_backbone
from dynpose.modeling.base_models import ImageDetector, pixel_statistics
from dynpose.modeling.detections import Detections
from dynpose.modeling.fcos import (
    FCOSDetector,
    FCOSHead,
    FCOSPredictions,
    LocationConv,
    pyramid_channels,
)
from dynpose.modeling.heatmap_loss import heatmap_focal_loss
from dynpose.modeling.keypoint_maps import enclosing_boxes, gather_keypoints, gaussian_heatmaps, offsets_at
from dynpose.modeling.kp_net import KPNetHead, heatmap_intermediates, kp_net_spec, offset_intermediates
from dynpose.modeling.parameter_rows import layer_rows, of_each, of_generated
from dynpose.utils.intermediate import provide

from .branches import AuxHeatmap, DiskOffsets, KeypointFeatures
from .losses import (
    disk_offset_loss,
    disk_offset_targets,
    mean_over_positives,
    with_pseudo_boxes,
)
from .resolution import check_map_stride, keypoint_cross_entropy, keypoint_peaks, resample


@dataclass(frozen=True)
class InsPoseOptions:
    """Options of InsPose's maps and training.

    Attributes:
        map_stride: stride of keypoint maps and offsets, pixels.
        disk_radius: R, cells of ``map_stride``.
        heatmap_sigma: of the auxiliary Gaussians, cells of P3.
        keypoint_weight, offset_weight, heatmap_weight: weights of the losses in Eq. 5.
    """

    map_stride: int = 8
    disk_radius: float = 2.0
    heatmap_sigma: float = 1.0
    keypoint_weight: float = 1.0
    offset_weight: float = 1.0
    heatmap_weight: float = 1.0


@META_ARCH_REGISTRY.register()
class InsPose(ImageDetector):
    """InsPose.

    Args:
        backbone: provides ``head_in_features``, all with the same number of channels.
        head: classification and, optionally, boxes. Its second tower is the controller's input.
        head_in_features: pyramid levels, finest first. The input of the branches is the first (P3).
        keypoint_features: computes F_kp from P3.
        kp_net_head: generates the KP-Nets, which run over F_kp, from the head's second tower.
        disk_offsets: None = a keypoint is its cell's centre (Table 1, first row).
        aux_heatmap: called only in training.
        detector: detects people as locations; its ``inside_box`` must be True if the head has boxes.
        schema: the keypoints.
        options: options of maps and training; None for the defaults.
        pixel_mean, pixel_std: per image channel.

    Raises:
        ValueError: if the stride of the maps does not fit P3's, or positive locations may lie outside predicted boxes.
    """

    # for optimize_for_inference: parts to compile, and precisions in which a trained model's poses stay the same
    dense_parts = ("backbone", "head", "keypoint_features")
    proven_precisions = ("bfloat16",)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        head_in_features: list[str],
        keypoint_features: KeypointFeatures,
        kp_net_head: KPNetHead,
        disk_offsets: DiskOffsets | None = None,
        aux_heatmap: AuxHeatmap | None = None,
        detector: FCOSDetector,
        schema: KeypointSchema,
        options: InsPoseOptions | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.options = options or InsPoseOptions()
        self.map_stride = self.options.map_stride
        check_map_stride(self.map_stride, kp_net_head.stride)
        self.has_boxes = head.box_distances is not None
        if self.has_boxes and not detector.inside_box:
            raise ValueError("detector: expected inside_box=True for a head with boxes")
        # the module order determines the parameter order in the optimizer's state
        self.keypoint_features = keypoint_features
        self.kp_net_head = kp_net_head
        self.controller = kp_net_head.controller
        self.disk_offsets = disk_offsets
        self.aux_heatmap = aux_heatmap
        self.detector = detector
        self.schema = schema

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.{FCOS, INSPOSE, KP_NET}.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the backbone.
        """
        fcos, inspose = cfg.MODEL.FCOS, cfg.MODEL.INSPOSE
        _check_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        channels = pyramid_channels(cfg, shapes)
        schema = model_schema(cfg)
        spec = kp_net_spec(cfg, schema.num_keypoints)
        branch = {"in_channels": channels, "norm": inspose.NORM, "std": inspose.INIT_STD}
        disk_offsets = aux_heatmap = None
        if inspose.DISK_OFFSET:
            disk_offsets = DiskOffsets(
                num_keypoints=schema.num_keypoints,
                conv_dim=inspose.OFFSET_CONVS_DIM,
                num_convs=inspose.NUM_OFFSET_CONVS,
                **branch,
            )
        if inspose.HEATMAP:
            aux_heatmap = AuxHeatmap(
                num_keypoints=schema.num_keypoints,
                conv_dim=inspose.HEATMAP_CONVS_DIM,
                num_convs=inspose.NUM_HEATMAP_CONVS,
                **branch,
            )
        # the construction order determines the random initialisation
        head = FCOSHead.from_config(
            cfg,
            channels,
            with_boxes=inspose.BOX_HEAD,
            with_centerness=inspose.CENTERNESS,
            tower_std=inspose.INIT_STD,
        )
        keypoint_features = KeypointFeatures(
            conv_dim=inspose.FEATURE_CONVS_DIM,
            num_convs=inspose.NUM_FEATURE_CONVS,
            out_channels=spec.in_channels,
            **branch,
        )
        controller = LocationConv(channels, spec.num_params, inspose.CONTROLLER_KERNEL)
        detector = FCOSDetector.from_config(cfg, shapes, inside_box=inspose.CENTER_INSIDE_BOX or inspose.BOX_HEAD)
        with blame("MODEL.INSPOSE.MAP_STRIDE"):
            check_map_stride(inspose.MAP_STRIDE, detector.strides[0])
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": fcos.IN_FEATURES,
            "keypoint_features": keypoint_features,
            "kp_net_head": KPNetHead(
                controller,
                spec,
                stride=detector.strides[0],
                coord_scales=[stride * inspose.COORD_SCALE for stride in detector.strides],
                backend=cfg.MODEL.KP_NET.BACKEND,
            ),
            "disk_offsets": disk_offsets,
            "aux_heatmap": aux_heatmap,
            "detector": detector,
            "schema": schema,
            "options": InsPoseOptions(
                map_stride=inspose.MAP_STRIDE,
                disk_radius=inspose.DISK_RADIUS,
                heatmap_sigma=inspose.HEATMAP_SIGMA,
                keypoint_weight=inspose.KEYPOINT_LOSS_WEIGHT,
                offset_weight=inspose.OFFSET_LOSS_WEIGHT,
                heatmap_weight=inspose.HEATMAP_LOSS_WEIGHT,
            ),
            **pixel_statistics(cfg),
        }

    @property
    def spec(self) -> KPNetSpec:
        """The shape of the KP-Nets."""
        return self.kp_net_head.spec

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: FCOSPredictions, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses (Eq. 5).

        Args:
            images: B padded images.
            features: pyramid levels.
            predictions: of these levels.
            gt_instances: B, with gt_boxes, gt_classes and (where there are people) gt_keypoints.
                People without labelled keypoints supervise a box head, and are background without one.

        Returns:
            ``loss_fcos_*`` (L_cls and the box losses), ``loss_keypoint`` (L_kpf) and, if configured,
            ``loss_offset`` (L_do) and ``loss_aux_heatmap`` (L_hm).
        """
        people = gt_instances if self.has_boxes else with_pseudo_boxes(gt_instances)
        keypoints, image_index = gather_keypoints(people, self.schema.num_keypoints)
        locations = self.detector.locations(features)
        targets = self.detector.targets(locations, people)
        losses = self.detector.losses(predictions, targets)

        index = targets.positives
        nets = self._generate(features[0], predictions.box_tower, locations, index)
        cross_entropy, cells = keypoint_cross_entropy(nets, keypoints[targets.matched[index]], self.map_stride)
        losses["loss_keypoint"] = mean_over_positives(cross_entropy, cells >= 0) * self.options.keypoint_weight
        if self.disk_offsets is not None:
            losses["loss_offset"] = self._offset_loss(features[0], keypoints, image_index)
        if self.aux_heatmap is not None:
            losses["loss_aux_heatmap"] = self._aux_loss(features[0], keypoints, image_index)
        return losses

    def decode(self, features: list[Tensor], predictions: FCOSPredictions, image_sizes: Tensor) -> Detections:
        """Detect people and locate their keypoints (section 3.4).

        Without a box head, the networks of all candidates run, and NMS compares the rectangles around their keypoints.
        With one, NMS compares only the predicted boxes, so it runs first and the networks of duplicates never run.

        Args:
            features: pyramid levels.
            predictions: of these levels.
            image_sizes: (B, 2) int64, not needed.

        Returns:
            N people; the third value of a keypoint is the softmax probability of the map's peak. Boxes without a box
            head enclose the keypoints, and are at least a cell of the map wide and high.
        """
        locations = self.detector.locations(features)
        decoder = self.detector.decoder
        if self.has_boxes:
            found, boxes = decoder(predictions, locations)
            keypoints = self._locate(features[0], predictions.box_tower, locations, found.index)
            provide(lambda: self._intermediates(features[0], predictions.box_tower, locations, found.index))
            return decoder.detections(found, boxes, keypoints, locations.num_images)

        found = decoder.candidates(predictions, locations)
        keypoints = self._locate(features[0], predictions.box_tower, locations, found.index)
        # a degenerate rectangle overlaps nothing, and detectron2 drops it when rescaling the results
        boxes = enclosing_boxes(keypoints[..., :2], min_size=float(self.map_stride))
        if decoder.soft_oks_nms is None:
            kept = decoder.select(found, boxes, locations.num_images)
            found, boxes, keypoints = found[kept], boxes[kept], keypoints[kept]
        # after the selection: maps of all candidates would take gigabytes
        provide(lambda: self._intermediates(features[0], predictions.box_tower, locations, found.index))
        return decoder.detections(found, boxes, keypoints, locations.num_images, decoder.post_nms_topk)

    def keypoint_rows(self, note: Mapping[str, Any]) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to keypoints, see :mod:`dynpose.modeling.parameter_rows`."""
        number = len(note["keypoints"])
        layers = {"controller.linear": of_generated(replace(self.spec, num_keypoints=number))}
        if self.disk_offsets is not None:
            layers["disk_offsets.predict"] = of_each(number, rows=2)
        if self.aux_heatmap is not None:
            layers["aux_heatmap.predict"] = of_each(number)
        return [group for name, owners in layers.items() for group in layer_rows({name: owners})]

    def class_rows(self, number: int) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to classes, see :mod:`dynpose.modeling.parameter_rows`."""
        return layer_rows({"head.cls_logits": of_each(number)})

    def _generate(self, p3, tower, locations, index):
        """Generate the KP-Nets at locations, to run over F_kp (section 3.2)."""
        return self.kp_net_head(self.keypoint_features(p3), tower, locations, index)

    def _offset_loss(self, p3, keypoints, image_index):
        """L_do of Eq. 5."""
        offsets = self._offsets(p3)
        disks = disk_offset_targets(
            keypoints,
            image_index,
            num_images=len(offsets),
            size=tuple(offsets.shape[-2:]),
            stride=self.map_stride,
            radius=self.options.disk_radius,
        )
        return disk_offset_loss(offsets, disks) * self.options.offset_weight

    def _aux_loss(self, p3, keypoints, image_index):
        """L_hm of Eq. 5."""
        logits = self.aux_heatmap(p3)
        gaussians = gaussian_heatmaps(
            keypoints,
            image_index,
            num_images=len(logits),
            size=tuple(logits.shape[-2:]),
            stride=self.kp_net_head.stride,
            sigma=self.options.heatmap_sigma,
        )
        return heatmap_focal_loss(logits, gaussians) * self.options.heatmap_weight

    def _offsets(self, p3):
        """Disk offsets (B, 2 K, H', W') at the map's stride, in its cells."""
        return resample(self.disk_offsets(p3), self.kp_net_head.stride, self.map_stride)

    def _locate(self, p3, tower, locations, index):
        """Keypoints (N, K, 3) of the people at N locations (Eq. 2 and 3)."""
        nets = self._generate(p3, tower, locations, index)
        cells, confidence = keypoint_peaks(nets, self.map_stride)
        offsets = None if self.disk_offsets is None else self._offsets(p3)
        return torch.cat([self._shifted(cells, nets, offsets), confidence[..., None]], dim=-1)

    def _shifted(self, cells, nets, offsets):
        """Points (N, K, 2) that the offsets at cells (N, K) lead to, input pixels (Eq. 3)."""
        if offsets is not None:
            width = offsets.shape[-1]
            shift = offsets_at(offsets, nets.image_index, cells)
        else:
            width = (nets.features.shape[-1] * self.kp_net_head.stride + self.map_stride - 1) // self.map_stride
            shift = 0.5
        return (cell_positions(cells, width) + shift) * self.map_stride

    def _intermediates(self, p3, tower, locations, index):
        """The maps of the people at N locations, see :mod:`dynpose.modeling.inspose.figures`."""
        nets, stride = self._generate(p3, tower, locations, index), self.map_stride
        maps = heatmap_intermediates(resample(nets.heatmaps(), nets.stride, stride), stride, stride / 2)
        if self.disk_offsets is None:
            return maps
        offsets = self._offsets(p3)
        radius = self.options.disk_radius * stride
        return {**maps, **offset_intermediates(maps, lambda cells: self._shifted(cells, nets, offsets), radius)}


def _check_config(cfg):
    """Validate the config before training starts."""
    inspose, key = cfg.MODEL.INSPOSE, "MODEL.INSPOSE.{}".format
    check_positive(cfg, key("COORD_SCALE"), key("HEATMAP_SIGMA"), key("MAP_STRIDE"))
    check_not_negative(cfg, key("INIT_STD"), key("DISK_RADIUS"), key("NUM_FEATURE_CONVS"), key("NUM_HEATMAP_CONVS"))
    check_not_negative(cfg, key("KEYPOINT_LOSS_WEIGHT"), key("OFFSET_LOSS_WEIGHT"), key("HEATMAP_LOSS_WEIGHT"))
    check_odd(cfg, key("CONTROLLER_KERNEL"))
    for is_used, channels in (
        (True, "FEATURE_CONVS_DIM"),
        (inspose.DISK_OFFSET, "OFFSET_CONVS_DIM"),
        (inspose.HEATMAP, "HEATMAP_CONVS_DIM"),
    ):
        if is_used:
            check_at_least_one(cfg, key(channels))
            check_norm(cfg, key("NORM"), inspose[channels])
    if inspose.DISK_OFFSET:
        check_at_least_one(cfg, key("NUM_OFFSET_CONVS"))
    if inspose.CENTERNESS and not inspose.BOX_HEAD:
        raise ConfigError(
            f"{key('CENTERNESS')} is True, but centre-ness is learned from boxes: set {key('BOX_HEAD')} to True, "
            f"or {key('CENTERNESS')} to False"
        )
