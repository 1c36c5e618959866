"""The InsPose meta-architecture as the paper has it (Shi et al., ACM MM 2021).

FCOS's classification finds locations that show somebody; for each, a keypoint network (KP-Net) of 313 weights is
generated and run over a feature map of the whole image; the peaks of its keypoint maps are shifted by offsets that all
people share. Boxes are neither predicted nor learned unless they are asked for: those that training and NMS look at
enclose the keypoints.
"""

from dataclasses import replace

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone

from dynpose.config import ConfigError, check_norm, check_not_negative, check_odd, check_positive
from dynpose.data import schema_from_cfg
from dynpose.modeling.base_models import ImageDetector
from dynpose.modeling.fcos import (
    FCOSDecoder,
    FCOSHead,
    LocationConv,
    Locations,
    assign_targets,
    chosen_locations,
    fcos_loss_arguments,
    fcos_losses,
    give_keypoints,
    pyramid_channels,
)
from dynpose.modeling.generated import GeneratedKPNets, kp_net_spec
from dynpose.modeling.keypoint_maps import enclosing_boxes, gather_keypoints, gaussian_heatmaps, offsets_at
from dynpose.modeling.parameter_rows import layer_rows, of_each, of_generated

from .branches import AuxHeatmap, DiskOffsets, KeypointFeatures
from .losses import (
    disk_offset_loss,
    disk_offset_targets,
    heatmap_focal_loss,
    mean_over_positives,
    with_pseudo_boxes,
)
from .resolution import check_map_stride, keypoint_cross_entropy, keypoint_peaks, resample


@META_ARCH_REGISTRY.register()
class InsPose(ImageDetector):
    """InsPose.

    Args:
        backbone (Backbone): any that gives ``head_in_features`` with one number of channels.
        head (FCOSHead): classification, and boxes where it has them. Its second tower generates the KP-Nets.
        head_in_features (list[str]): pyramid levels, finest first. The branches read the first (P3).
        keypoint_features (KeypointFeatures): makes F_kp of P3.
        spec (KPNetSpec): shape of the generated networks.
        controller (LocationConv): generates their weights from the head's second tower.
        disk_offsets (DiskOffsets | None): None = a keypoint is its cell's centre (Table 1, first row).
        aux_heatmap (AuxHeatmap | None): called in training only.
        decoder (FCOSDecoder): from scores to people in inference.
        schema (KeypointSchema): the keypoints.
        sizes_of_interest (list[float]): upper end of the sizes of every level but the last, pixels.
        center_sampling_radius (float): r of section 3.1, strides.
        center_inside_box (bool): whether positive locations must also lie inside the box; with a box head they must.
        coord_scale (float): what relative coordinates are divided by, in strides of the location's level.
        map_stride (int): of keypoint maps and offsets, pixels.
        disk_radius (float): R, cells of ``map_stride``.
        heatmap_sigma (float): of the auxiliary Gaussians, cells of P3.
        fcos_loss (dict): the remaining arguments of :func:`~dynpose.modeling.fcos.fcos_losses`.
        loss_weights (dict[str, float]): of ``keypoint``, ``offset`` and ``heatmap``.
        kp_net_backend (str): backend of the KP-Net operator.
        pixel_mean, pixel_std (Sequence[float]): of the image channels.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone,
        head,
        head_in_features,
        keypoint_features,
        spec,
        controller,
        disk_offsets=None,
        aux_heatmap=None,
        decoder,
        schema,
        sizes_of_interest,
        center_sampling_radius=1.5,
        center_inside_box=False,
        coord_scale=8.0,
        map_stride=8,
        disk_radius=2.0,
        heatmap_sigma=1.0,
        fcos_loss=None,
        loss_weights,
        kp_net_backend="auto",
        pixel_mean,
        pixel_std,
    ):
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        shapes = backbone.output_shape()
        self.strides = [shapes[name].stride for name in head_in_features]
        self.basis_stride = self.strides[0]
        check_map_stride(map_stride, self.basis_stride)
        self.keypoint_features = keypoint_features
        self.spec = spec
        self.controller = controller
        self.disk_offsets = disk_offsets
        self.aux_heatmap = aux_heatmap
        self.decoder = decoder
        self.schema = schema
        self.sizes_of_interest = sizes_of_interest
        self.center_sampling_radius = center_sampling_radius
        self.has_boxes = head.box_distances is not None
        self.center_inside_box = center_inside_box or self.has_boxes
        self.coord_scale = coord_scale
        self.map_stride = map_stride
        self.disk_radius = disk_radius
        self.heatmap_sigma = heatmap_sigma
        self.fcos_loss = fcos_loss or {}
        self.loss_weights = loss_weights
        self.kp_net_backend = kp_net_backend

    @classmethod
    def from_config(cls, cfg):
        """Read the arguments from cfg.MODEL.{FCOS, INSPOSE, KP_NET}."""
        fcos, inspose = cfg.MODEL.FCOS, cfg.MODEL.INSPOSE
        _check_config(cfg)
        backbone = build_backbone(cfg)
        channels = pyramid_channels(cfg, backbone.output_shape())
        schema = schema_from_cfg(cfg)
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
        return {
            "backbone": backbone,
            "head": FCOSHead.from_cfg(
                cfg,
                channels,
                with_boxes=inspose.BOX_HEAD,
                with_centerness=inspose.CENTERNESS,
                tower_std=inspose.INIT_STD,
            ),
            "head_in_features": fcos.IN_FEATURES,
            "keypoint_features": KeypointFeatures(
                conv_dim=inspose.FEATURE_CONVS_DIM,
                num_convs=inspose.NUM_FEATURE_CONVS,
                out_channels=spec.in_channels,
                **branch,
            ),
            "spec": spec,
            "controller": LocationConv(channels, spec.num_params, inspose.CONTROLLER_KERNEL),
            "disk_offsets": disk_offsets,
            "aux_heatmap": aux_heatmap,
            "decoder": FCOSDecoder.from_cfg(cfg),
            "schema": schema,
            "sizes_of_interest": fcos.SIZES_OF_INTEREST,
            "center_sampling_radius": fcos.CENTER_SAMPLING_RADIUS,
            "center_inside_box": inspose.CENTER_INSIDE_BOX,
            "coord_scale": inspose.COORD_SCALE,
            "map_stride": inspose.MAP_STRIDE,
            "disk_radius": inspose.DISK_RADIUS,
            "heatmap_sigma": inspose.HEATMAP_SIGMA,
            "fcos_loss": fcos_loss_arguments(cfg),
            "loss_weights": {
                "keypoint": inspose.KEYPOINT_LOSS_WEIGHT,
                "offset": inspose.OFFSET_LOSS_WEIGHT,
                "heatmap": inspose.HEATMAP_LOSS_WEIGHT,
            },
            "kp_net_backend": cfg.MODEL.KP_NET.BACKEND,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward_training(self, images, features, predictions, gt_instances):
        """Compute the losses (Eq. 5).

        Args:
            images (ImageList): B padded images.
            features (list[Tensor]): pyramid levels.
            predictions (FCOSPredictions): of these levels.
            gt_instances (list[Instances]): B, with gt_boxes, gt_classes and (where there are people) gt_keypoints. With
                a box head, people without labelled keypoints learn their boxes; without, they are background.

        Returns:
            dict[str, Tensor]: ``loss_fcos_*`` (L_cls, and the boxes'), ``loss_keypoint`` (L_kpf) and, where
            configured, ``loss_offset`` (L_do) and ``loss_aux_heatmap`` (L_hm).
        """
        people = gt_instances if self.has_boxes else with_pseudo_boxes(gt_instances)
        keypoints, image_index = gather_keypoints(people, self.schema.num_keypoints)
        locations = Locations.of(features, self.strides)
        targets = assign_targets(
            locations,
            people,
            sizes_of_interest=self.sizes_of_interest,
            num_classes=self.head.num_classes,
            center_sampling_radius=self.center_sampling_radius,
            inside_box=self.center_inside_box,
        )
        losses = fcos_losses(predictions, targets, num_classes=self.head.num_classes, **self.fcos_loss)

        index = targets.positives
        nets = self._generate(features[0], predictions.box_tower, locations, index)
        cross_entropy, cells = keypoint_cross_entropy(nets, keypoints[targets.matched[index]], self.map_stride)
        losses["loss_keypoint"] = mean_over_positives(cross_entropy, cells >= 0) * self.loss_weights["keypoint"]

        if self.disk_offsets is not None:
            offsets = self._offsets(features[0])
            disks = disk_offset_targets(
                keypoints,
                image_index,
                num_images=len(offsets),
                size=tuple(offsets.shape[-2:]),
                stride=self.map_stride,
                radius=self.disk_radius,
            )
            losses["loss_offset"] = disk_offset_loss(offsets, disks) * self.loss_weights["offset"]

        if self.aux_heatmap is not None:
            logits = self.aux_heatmap(features[0])
            gaussians = gaussian_heatmaps(
                keypoints,
                image_index,
                num_images=len(logits),
                size=tuple(logits.shape[-2:]),
                stride=self.basis_stride,
                sigma=self.heatmap_sigma,
            )
            losses["loss_aux_heatmap"] = heatmap_focal_loss(logits, gaussians) * self.loss_weights["heatmap"]
        return losses

    def forward_inference(self, images, features, predictions):
        """Find people and their keypoints (section 3.4).

        Without a box head, the networks of all candidates are run, and NMS looks at the rectangles around what they
        have found. With one, NMS looks at the predicted boxes alone, so that it comes first and the networks of
        duplicates are never run.

        Args:
            images (ImageList): B padded images.
            features (list[Tensor]): pyramid levels.
            predictions (FCOSPredictions): of these levels.

        Returns:
            list[Instances]: B, with pred_boxes, scores, pred_classes and pred_keypoints (N, K, 3) in input pixels; the
            third value is the softmax probability of the map's peak. Boxes without a box head enclose the keypoints,
            and are at least a cell of the map wide and high.
        """
        locations = Locations.of(features, self.strides)
        if self.has_boxes:
            results = self.decoder(predictions, locations, images.image_sizes)
            index = chosen_locations(results)
            keypoints = self._locate(features[0], predictions.box_tower, locations, index)
            give_keypoints(results, keypoints)
            return results

        candidates = self.decoder.candidates(predictions, locations)
        keypoints = self._locate(features[0], predictions.box_tower, locations, candidates.index)
        # a rectangle without extent overlaps nothing, and detectron2 drops it when it rescales the results
        boxes = enclosing_boxes(keypoints[..., :2], min_size=float(self.map_stride))
        return self.decoder.select(candidates, boxes, images.image_sizes, pred_keypoints=keypoints)

    def keypoint_rows(self, note):
        """Say which rows of the parameters are for which keypoint: see :mod:`dynpose.modeling.parameter_rows`."""
        number = len(note["keypoints"])
        layers = {"controller.linear": of_generated(replace(self.spec, num_keypoints=number))}
        if self.disk_offsets is not None:
            layers["disk_offsets.predict"] = of_each(number, rows=2)
        if self.aux_heatmap is not None:
            layers["aux_heatmap.predict"] = of_each(number)
        return [group for name, owners in layers.items() for group in layer_rows({name: owners})]

    def class_rows(self, number):
        """Say which rows of the parameters are for which class: see :mod:`dynpose.modeling.parameter_rows`."""
        return layer_rows({"head.cls_logits": of_each(number)})

    def _generate(self, p3, tower, locations, index):
        """Generate the KP-Nets of some locations, to run over F_kp: section 3.2."""
        params = self.controller(tower, locations, index).float()
        strides = locations.per_level(locations.strides)
        return GeneratedKPNets(
            features=self.keypoint_features(p3),
            params=params,
            refinement_params=params[:, :0],
            image_index=locations.image[index],
            locations=locations.points[index],
            coord_scale=strides[index] * self.coord_scale,
            spec=self.spec,
            stride=self.basis_stride,
            backend=self.kp_net_backend,
        )

    def _offsets(self, p3):
        """Disk offsets (B, 2 K, H', W') of the map's stride, in its cells."""
        return resample(self.disk_offsets(p3), self.basis_stride, self.map_stride)

    def _locate(self, p3, tower, locations, index):
        """Keypoints (N, K, 3) of the people at some locations: Eq. 2 and 3."""
        nets = self._generate(p3, tower, locations, index)
        cells, confidence = keypoint_peaks(nets, self.map_stride)
        if self.disk_offsets is not None:
            offsets = self._offsets(p3)
            width = offsets.shape[-1]
            shift = offsets_at(offsets, nets.image_index, cells)
        else:
            width = -(-p3.shape[-1] * self.basis_stride // self.map_stride)
            shift = 0.5
        corner = torch.stack([cells % width, torch.div(cells, width, rounding_mode="floor")], dim=-1)
        return torch.cat([(corner + shift) * self.map_stride, confidence[..., None]], dim=-1)


def _check_config(cfg):
    """Find a wrong choice before training does."""
    inspose, key = cfg.MODEL.INSPOSE, "MODEL.INSPOSE.{}".format
    check_positive(cfg, key("COORD_SCALE"), key("HEATMAP_SIGMA"))
    check_not_negative(cfg, key("INIT_STD"), key("DISK_RADIUS"), key("NUM_FEATURE_CONVS"), key("NUM_HEATMAP_CONVS"))
    check_odd(cfg, key("CONTROLLER_KERNEL"))
    for is_used, channels in (
        (True, inspose.FEATURE_CONVS_DIM),
        (inspose.DISK_OFFSET, inspose.OFFSET_CONVS_DIM),
        (inspose.HEATMAP, inspose.HEATMAP_CONVS_DIM),
    ):
        if is_used:
            check_norm(cfg, key("NORM"), channels)
    if inspose.CENTERNESS and not inspose.BOX_HEAD:
        raise ConfigError(
            f"{key('CENTERNESS')} is True, but centre-ness is learned from boxes: set {key('BOX_HEAD')} True too, or "
            f"{key('CENTERNESS')} False"
        )
