"""The FCPose meta-architecture (Mao et al., CVPR 2021), in the paper's variant and in the released code's.

FCOS finds people; for each, a controller generates the weights of a small keypoint network (KP-Net) that is run over
the feature map F of the whole image; the peaks of its heatmaps are refined by offsets. The two variants differ in
config keys alone.
"""

from dataclasses import replace

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone

from dynpose.config import check_norm, check_not_negative, check_odd, check_positive
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
    flatten_levels,
    give_keypoints,
    pyramid_channels,
    sample_positives,
)
from dynpose.modeling.generated import GeneratedKPNets, kp_net_spec
from dynpose.modeling.keypoint_maps import gather_keypoints, gaussian_heatmaps
from dynpose.modeling.parameter_rows import layer_rows, of_all, of_each, of_generated

from .basis import AuxHeatmaps, BasisBranch
from .losses import head_weights, heatmap_mse
from .refinement import DeconvRefinement, InstanceOffsets, NoRefinement, SharedOffsets


@META_ARCH_REGISTRY.register()
class FCPose(ImageDetector):
    """FCPose.

    Args:
        backbone (Backbone): any that gives ``head_in_features`` with one number of channels.
        head (FCOSHead): the detector.
        head_in_features (list[str]): pyramid levels, finest first.
        basis_in_features (list[str]): those that F is made of; the first is the finest.
        basis (BasisBranch): makes F.
        spec (KPNetSpec): shape of the generated networks.
        refinement (NoRefinement): one of the choices of :mod:`dynpose.modeling.fcpose.refinement`.
        controller (LocationConv): generates the weights from the box tower.
        aux_heatmaps (AuxHeatmaps | None): the released training's auxiliary branch.
        decoder (FCOSDecoder): boxes in inference.
        schema (KeypointSchema): the keypoints.
        sizes_of_interest (list[float]): upper end of the sizes of every level but the last, pixels.
        coord_scales (list[float]): what relative coordinates are divided by, per level, pixels.
        center_sampling_radius (float): FCOS centre sampling, strides.
        fcos_loss (dict): the remaining arguments of :func:`~dynpose.modeling.fcos.fcos_losses`.
        max_samples (int): M, positives that get a KP-Net per batch and process (section 3.3); 0 = all.
        loss_weights (dict[str, float]): of ``heatmap`` (alpha), ``offset`` (beta) and ``aux``.
        aux_sigmas (tuple[float, float]): of the auxiliary Gaussians, in cells of the fine and the coarse map.
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
        basis_in_features,
        basis,
        spec,
        refinement,
        controller,
        aux_heatmaps=None,
        decoder,
        schema,
        sizes_of_interest,
        coord_scales,
        center_sampling_radius=1.5,
        fcos_loss=None,
        max_samples=50,
        loss_weights,
        aux_sigmas=(1.8, 0.9),
        kp_net_backend="auto",
        pixel_mean,
        pixel_std,
    ):
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        shapes = backbone.output_shape()
        self.strides = [shapes[name].stride for name in head_in_features]
        self.basis_levels = [head_in_features.index(name) for name in basis_in_features]
        self.basis_stride = shapes[basis_in_features[0]].stride
        self.basis = basis
        self.spec = spec
        self.refinement = refinement
        self.controller = controller
        self.aux_heatmaps = aux_heatmaps
        self.decoder = decoder
        self.schema = schema
        self.sizes_of_interest = sizes_of_interest
        self.coord_scales = coord_scales
        self.center_sampling_radius = center_sampling_radius
        self.fcos_loss = fcos_loss or {}
        self.max_samples = max_samples
        self.loss_weights = loss_weights
        self.aux_sigmas = aux_sigmas
        self.kp_net_backend = kp_net_backend

    @classmethod
    def from_config(cls, cfg):
        """Read the arguments from cfg.MODEL.{FCOS, FCPOSE, KP_NET}."""
        fcos, fcpose = cfg.MODEL.FCOS, cfg.MODEL.FCPOSE
        _check_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        channels = pyramid_channels(cfg, shapes)
        schema = schema_from_cfg(cfg)
        spec = kp_net_spec(cfg, schema.num_keypoints)
        basis_shapes = [shapes[name] for name in fcpose.BASIS.IN_FEATURES]
        refinement = build_refinement(cfg, spec, basis_shapes[0])
        aux_heatmaps = None
        if fcpose.AUX_HEATMAPS:
            aux_heatmaps = AuxHeatmaps(
                conv_dim=fcpose.BASIS.CONVS_DIM, norm=fcpose.BASIS.NORM, num_keypoints=schema.num_keypoints
            )
        return {
            "backbone": backbone,
            "head": FCOSHead.from_cfg(cfg, channels),
            "head_in_features": fcos.IN_FEATURES,
            "basis_in_features": fcpose.BASIS.IN_FEATURES,
            "basis": BasisBranch(
                in_channels=[shape.channels for shape in basis_shapes],
                strides=[shape.stride for shape in basis_shapes],
                conv_dim=fcpose.BASIS.CONVS_DIM,
                num_convs=fcpose.BASIS.NUM_CONVS,
                norm=fcpose.BASIS.NORM,
                out_channels=spec.in_channels + refinement.num_shared_channels,
            ),
            "spec": spec,
            "refinement": refinement,
            "controller": LocationConv(channels, spec.num_params + refinement.num_params, fcpose.CONTROLLER_KERNEL),
            "aux_heatmaps": aux_heatmaps,
            "decoder": FCOSDecoder.from_cfg(cfg),
            "schema": schema,
            "sizes_of_interest": fcos.SIZES_OF_INTEREST,
            "coord_scales": [*fcos.SIZES_OF_INTEREST, fcpose.LAST_SIZE_OF_INTEREST],
            "center_sampling_radius": fcos.CENTER_SAMPLING_RADIUS,
            "fcos_loss": fcos_loss_arguments(cfg),
            "max_samples": fcpose.MAX_SAMPLES,
            "loss_weights": {
                "heatmap": fcpose.HEATMAP_LOSS_WEIGHT,
                "offset": fcpose.OFFSET_LOSS_WEIGHT,
                "aux": fcpose.AUX_HEATMAP_LOSS_WEIGHT,
            },
            "aux_sigmas": fcpose.AUX_HEATMAP_SIGMAS,
            "kp_net_backend": cfg.MODEL.KP_NET.BACKEND,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward_training(self, images, features, predictions, gt_instances):
        """Compute the losses.

        Args:
            images (ImageList): B padded images.
            features (list[Tensor]): pyramid levels.
            predictions (FCOSPredictions): of these levels.
            gt_instances (list[Instances]): B, with gt_boxes, gt_classes and (where there are people) gt_keypoints.

        Returns:
            dict[str, Tensor]: ``loss_fcos_*``, ``loss_heatmap``, ``loss_offset`` and, where configured, ``loss_aux_*``.
        """
        locations = Locations.of(features, self.strides)
        targets = assign_targets(
            locations,
            gt_instances,
            sizes_of_interest=self.sizes_of_interest,
            num_classes=self.head.num_classes,
            center_sampling_radius=self.center_sampling_radius,
        )
        losses = fcos_losses(predictions, targets, num_classes=self.head.num_classes, **self.fcos_loss)

        with torch.no_grad():
            confidence = flatten_levels(predictions.logits)[targets.positives].sigmoid().amax(dim=1)
            confidence *= flatten_levels(predictions.centerness)[targets.positives, 0].sigmoid()
            sampled = sample_positives(targets.matched[targets.positives], confidence, self.max_samples)
        index = targets.positives[sampled]

        merged, maps, offsets = self._maps(features)
        nets = self._generate(maps, predictions.box_tower, locations, index)
        people = self._people(gt_instances)
        losses.update(self._keypoint_losses(nets, offsets, people, targets.matched[index]))
        if self.aux_heatmaps is not None:
            losses.update(self._aux_losses(merged, people))
        return losses

    def forward_inference(self, images, features, predictions):
        """Find people and their keypoints.

        Boxes are made unique before the KP-Nets run. FCPose section 3.4 does it last; as it looks at the boxes alone,
        the people that remain are the same, and the networks of duplicates are never run.

        Args:
            images (ImageList): B padded images.
            features (list[Tensor]): pyramid levels.
            predictions (FCOSPredictions): of these levels.

        Returns:
            list[Instances]: B, with pred_boxes, scores, pred_classes and pred_keypoints (N, K, 3) in input pixels; the
            third value is the softmax probability of the heatmap's peak.
        """
        locations = Locations.of(features, self.strides)
        results = self.decoder(predictions, locations, images.image_sizes)
        index = chosen_locations(results)
        _, maps, offsets = self._maps(features)
        nets = self._generate(maps, predictions.box_tower, locations, index)
        keypoints = self.refinement.locate(nets, offsets)
        give_keypoints(results, keypoints)
        return results

    def keypoint_rows(self, note):
        """Say which rows of the parameters are for which keypoint: see :mod:`dynpose.modeling.parameter_rows`."""
        number = len(note["keypoints"])
        spec = replace(self.spec, num_keypoints=number)
        refinement = self.refinement.keypoint_rows(number)
        layers = {
            "controller.linear": of_generated(spec) + refinement.generated,
            **{f"refinement.{name}": owners for name, owners in refinement.layers.items()},
        }
        if refinement.shared:
            layers["basis.project"] = of_all(spec.in_channels) + refinement.shared
        if self.aux_heatmaps is not None:
            layers.update({f"aux_heatmaps.{name}": of_each(number) for name in ("coarse", "fine")})
        groups = [group for name, owners in layers.items() for group in layer_rows({name: owners})]
        if self.aux_heatmaps is not None:
            # of a transposed convolution, whose first axis is that of the input
            inputs = of_all(self.aux_heatmaps.coarse.in_channels) + of_each(number)
            groups.append({"aux_heatmaps.upsample.weight": inputs})
        return groups

    def class_rows(self, number):
        """Say which rows of the parameters are for which class: see :mod:`dynpose.modeling.parameter_rows`."""
        return layer_rows({"head.cls_logits": of_each(number)})

    def _maps(self, features):
        """Merged levels, F, and the shared offset map (or None)."""
        merged, projected = self.basis([features[level] for level in self.basis_levels])
        maps, shared = projected.split([self.spec.in_channels, self.refinement.num_shared_channels], dim=1)
        return merged, maps, self.refinement.offsets(features[self.basis_levels[0]], shared)

    def _generate(self, maps, box_tower, locations, index):
        """Generate the KP-Nets of some locations: FCPose section 3.1."""
        generated = self.controller(box_tower, locations, index).float()
        params, refinement_params = generated.split([self.spec.num_params, self.refinement.num_params], dim=1)
        return GeneratedKPNets(
            features=maps,
            params=params,
            refinement_params=refinement_params,
            image_index=locations.image[index],
            locations=locations.points[index],
            coord_scale=locations.per_level(self.coord_scales)[index],
            spec=self.spec,
            stride=self.basis_stride,
            backend=self.kp_net_backend,
        )

    def _people(self, gt_instances):
        """Keypoints (G, K, 3), half box sizes (G,) and image indices (G,) of all people of the batch, in order."""
        keypoints, images = gather_keypoints(gt_instances, self.schema.num_keypoints)
        boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
        return keypoints, (boxes[:, 2:] - boxes[:, :2]).sum(dim=1) / 2, images

    def _keypoint_losses(self, nets, offsets, people, person):
        """L_heatmap and L_reg of Eq. 4. ``person`` (N,) says which of the people each network belongs to."""
        keypoints, box_sizes, image_index = people
        weights = head_weights(person)
        per_net = self.refinement.losses(nets, offsets, keypoints[person], box_sizes[person])
        losses = {f"loss_{name}": (values * weights).sum() for name, values in per_net.items()}
        map_loss = self.refinement.map_loss(offsets, keypoints, image_index, stride=self.basis_stride)
        if map_loss is not None:
            losses["loss_offset"] = map_loss
        return {name: loss * self.loss_weights[name.removeprefix("loss_")] for name, loss in losses.items()}

    def _aux_losses(self, merged, people):
        """Squared error of the multi-person heatmaps (released code)."""
        keypoints, _, image_index = people
        losses = {}
        for name, logits, factor, sigma in zip(("fine", "coarse"), self.aux_heatmaps(merged), (4, 1), self.aux_sigmas):
            targets = gaussian_heatmaps(
                keypoints,
                image_index,
                num_images=len(logits),
                size=logits.shape[-2:],
                stride=self.basis_stride // factor,
                sigma=sigma,
            )
            losses[f"loss_aux_{name}"] = heatmap_mse(logits, targets) * self.loss_weights["aux"]
        return losses


def build_refinement(cfg, spec, shape):
    """Build the refinement that ``cfg.MODEL.FCPOSE.REFINEMENT`` names.

    Args:
        cfg (CfgNode): the config.
        spec (KPNetSpec): of the KP-Nets.
        shape (ShapeSpec): of the finest pyramid level.

    Raises:
        ValueError: for an unknown name.
    """
    fcpose = cfg.MODEL.FCPOSE
    heatmap = {"heatmap_loss": fcpose.HEATMAP_LOSS, "target_rule": fcpose.HEATMAP_TARGET}
    if fcpose.REFINEMENT == "none":
        return NoRefinement(**heatmap)
    if fcpose.REFINEMENT == "shared":
        return SharedOffsets(
            in_channels=shape.channels,
            num_keypoints=spec.num_keypoints,
            source=fcpose.OFFSET_SOURCE,
            kernel_size=fcpose.OFFSET_KERNEL,
            scale=fcpose.OFFSET_SCALE or float(shape.stride),
            loss=fcpose.OFFSET_LOSS,
            radius=fcpose.OFFSET_RADIUS,
            distance_norm=fcpose.DISTANCE_NORM,
            **heatmap,
        )
    if fcpose.REFINEMENT == "instance":
        return InstanceOffsets(spec=spec, **heatmap)
    if fcpose.REFINEMENT == "deconv":
        return DeconvRefinement(num_keypoints=spec.num_keypoints, factor=fcpose.DECONV_FACTOR, **heatmap)
    raise ValueError(
        f"MODEL.FCPOSE.REFINEMENT must be 'none', 'deconv', 'shared' or 'instance', got {fcpose.REFINEMENT!r}"
    )


def _check_config(cfg):
    """Find a wrong choice before training does."""
    key = "MODEL.FCPOSE.{}".format
    check_positive(
        cfg, key("LAST_SIZE_OF_INTEREST"), key("AUX_HEATMAP_SIGMAS"), key("DISTANCE_NORM"), key("DECONV_FACTOR")
    )
    check_not_negative(cfg, key("MAX_SAMPLES"), key("OFFSET_SCALE"), key("OFFSET_RADIUS"), key("BASIS.NUM_CONVS"))
    check_odd(cfg, key("CONTROLLER_KERNEL"), key("OFFSET_KERNEL"))
    check_norm(cfg, key("BASIS.NORM"), cfg.MODEL.FCPOSE.BASIS.CONVS_DIM)
