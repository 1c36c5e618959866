"""The FCPose meta-architecture (Mao et al., CVPR 2021), in the variants of the paper and of the release.

FCOS detects people. For each person, a controller generates the weights of a small keypoint network (KP-Net), which
runs over the feature map F of the whole image; offsets refine the peaks of its heatmaps. The two variants differ only
in config keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor

from dynpose.config import (
    ConfigError,
    blame,
    check_at_least_one,
    check_choice,
    check_choices,
    check_length,
    check_norm,
    check_not_negative,
    check_odd,
    check_positive,
    set_plain,
)
from dynpose.data import KeypointSchema, model_schema
from dynpose.layers import KPNetSpec
from dynpose.modeling.backbone import build_backbone
from dynpose.modeling.base_models import ImageDetector, pixel_statistics
from dynpose.modeling.detections import Detections
from dynpose.modeling.fcos import (
    FCOSDetector,
    FCOSHead,
    FCOSPredictions,
    LocationConv,
    flatten_levels,
    pyramid_channels,
    sample_positives,
)
from dynpose.modeling.keypoint_maps import gaussian_heatmaps
from dynpose.modeling.kp_net import KPNetHead, kp_net_spec
from dynpose.modeling.parameter_rows import layer_rows, of_all, of_each, of_generated
from dynpose.utils.intermediate import provide

from .basis import AuxHeatmaps, BasisBranch
from .losses import heatmap_mse
from .refinement import (
    HEATMAP_LOSSES,
    OFFSET_LOSSES,
    OFFSET_SOURCES,
    TARGET_RULES,
    DeconvRefinement,
    InstanceOffsets,
    PeakRefinement,
    People,
    Refinement,
    SharedOffsets,
)


@dataclass(frozen=True)
class FCPoseOptions:
    """Options of FCPose's training.

    Attributes:
        max_samples: M, positives with a KP-Net per batch and process (section 3.3); 0 = all.
        heatmap_weight, offset_weight: alpha and beta of Eq. 4.
        aux_weight: weight of the auxiliary heatmaps' loss (release).
        aux_sigmas: of the auxiliary Gaussians, in cells of the fine and the coarse map.
    """

    max_samples: int = 50
    heatmap_weight: float = 2.5
    offset_weight: float = 5.0
    aux_weight: float = 0.2
    aux_sigmas: tuple[float, float] = (1.8, 0.9)

    def __post_init__(self):
        set_plain(self, "aux_sigmas")


@META_ARCH_REGISTRY.register()
class FCPose(ImageDetector):
    """FCPose.

    Args:
        backbone: provides ``head_in_features``, all with the same number of channels.
        head: the detector's head; its box tower is the controller's input.
        head_in_features: pyramid levels, finest first.
        basis: computes F from some of these levels; its first input is the finest.
        refinement: one of the classes of :mod:`dynpose.modeling.fcpose.refinement`.
        kp_net_head: generates the KP-Nets; its controller appends the refinement's values.
        detector: detects people as boxes.
        aux_heatmaps: the auxiliary branch of the release's training.
        schema: the keypoints.
        options: training options; None for the defaults.
        pixel_mean, pixel_std: per image channel.
    """

    # for optimize_for_inference: parts to compile, and precisions in which a trained model's poses stay the same
    dense_parts = ("backbone", "head", "basis")
    proven_precisions = ("bfloat16",)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        head_in_features: list[str],
        basis: BasisBranch,
        refinement: Refinement,
        kp_net_head: KPNetHead,
        detector: FCOSDetector,
        aux_heatmaps: AuxHeatmaps | None = None,
        schema: KeypointSchema,
        options: FCPoseOptions | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.basis_levels = [head_in_features.index(name) for name in basis.in_features]
        # the module order determines the parameter order in the optimizer's state
        self.basis = basis
        self.refinement = refinement
        self.kp_net_head = kp_net_head
        self.controller = kp_net_head.controller
        self.aux_heatmaps = aux_heatmaps
        self.detector = detector
        self.schema = schema
        self.options = options or FCPoseOptions()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.{FCOS, FCPOSE, KP_NET}.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the backbone.
        """
        fcos, fcpose = cfg.MODEL.FCOS, cfg.MODEL.FCPOSE
        _check_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        channels = pyramid_channels(cfg, shapes)
        check_choices(cfg, "MODEL.FCPOSE.BASIS.IN_FEATURES", fcos.IN_FEATURES)
        schema = model_schema(cfg)
        spec = kp_net_spec(cfg, schema.num_keypoints)
        basis_shapes = [shapes[name] for name in fcpose.BASIS.IN_FEATURES]
        refinement = build_refinement(cfg, spec, basis_shapes[0])
        aux_heatmaps = None
        if fcpose.AUX_HEATMAPS:
            aux_heatmaps = AuxHeatmaps(
                conv_dim=fcpose.BASIS.CONVS_DIM, norm=fcpose.BASIS.NORM, num_keypoints=schema.num_keypoints
            )
        # the construction order determines the random initialisation
        head = FCOSHead.from_config(cfg, channels)
        with blame("MODEL.FCPOSE.BASIS.IN_FEATURES"):
            basis = BasisBranch(
                in_features=fcpose.BASIS.IN_FEATURES,
                in_channels=[shape.channels for shape in basis_shapes],
                strides=[shape.stride for shape in basis_shapes],
                conv_dim=fcpose.BASIS.CONVS_DIM,
                num_convs=fcpose.BASIS.NUM_CONVS,
                norm=fcpose.BASIS.NORM,
                out_channels=spec.in_channels + refinement.num_shared_channels,
            )
        controller = LocationConv(channels, spec.num_params + refinement.num_params, fcpose.CONTROLLER_KERNEL)
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": fcos.IN_FEATURES,
            "basis": basis,
            "refinement": refinement,
            "kp_net_head": KPNetHead(
                controller,
                spec,
                stride=basis_shapes[0].stride,
                coord_scales=[*fcos.SIZES_OF_INTEREST, fcpose.LAST_SIZE_OF_INTEREST],
                backend=cfg.MODEL.KP_NET.BACKEND,
            ),
            "detector": FCOSDetector.from_config(cfg, shapes),
            "aux_heatmaps": aux_heatmaps,
            "schema": schema,
            "options": FCPoseOptions(
                max_samples=fcpose.MAX_SAMPLES,
                heatmap_weight=fcpose.HEATMAP_LOSS_WEIGHT,
                offset_weight=fcpose.OFFSET_LOSS_WEIGHT,
                aux_weight=fcpose.AUX_HEATMAP_LOSS_WEIGHT,
                aux_sigmas=tuple(fcpose.AUX_HEATMAP_SIGMAS),
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
        """Compute the losses.

        Args:
            images: B padded images.
            features: pyramid levels.
            predictions: of these levels.
            gt_instances: B, with gt_boxes, gt_classes and (where there are people) gt_keypoints.

        Returns:
            ``loss_fcos_*``, ``loss_heatmap``, ``loss_offset`` and, if configured, ``loss_aux_*``.
        """
        locations = self.detector.locations(features)
        targets = self.detector.targets(locations, gt_instances)
        losses = self.detector.losses(predictions, targets)

        index = self._sample(predictions, targets)
        merged, maps, offsets = self._maps(features)
        nets, params = self._generate(maps, predictions.box_tower, locations, index)
        people = People.of(gt_instances, self.schema.num_keypoints)
        of_keypoints = self.refinement.losses(nets, params, offsets, people, targets.matched[index])
        weights = {"heatmap": self.options.heatmap_weight, "offset": self.options.offset_weight}
        losses.update({f"loss_{name}": loss * weights[name] for name, loss in of_keypoints.items()})
        if self.aux_heatmaps is not None:
            losses.update(self._aux_losses(merged, people))
        return losses

    def decode(self, features: list[Tensor], predictions: FCOSPredictions, image_sizes: Tensor) -> Detections:
        """Detect people and locate their keypoints.

        NMS runs before the KP-Nets, whereas FCPose section 3.4 runs it last. Since it compares only boxes, the
        remaining people are the same, and the networks of duplicates never run.

        Args:
            features: pyramid levels.
            predictions: of these levels.
            image_sizes: (B, 2) int64, not needed.

        Returns:
            N people; the third value of a keypoint is the softmax probability of the heatmap's peak.
        """
        locations = self.detector.locations(features)
        decoder = self.detector.decoder
        found, boxes = decoder(predictions, locations)
        _, maps, offsets = self._maps(features)
        nets, params = self._generate(maps, predictions.box_tower, locations, found.index)
        keypoints = self.refinement.locate(nets, params, offsets)
        provide(lambda: self.refinement.intermediates(nets, params, offsets))
        return decoder.detections(found, boxes, keypoints, locations.num_images)

    def keypoint_rows(self, note: Mapping[str, Any]) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to keypoints, see :mod:`dynpose.modeling.parameter_rows`."""
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
            # a transposed convolution: the first axis of its weight is the input
            inputs = of_all(self.aux_heatmaps.coarse.in_channels) + of_each(number)
            groups.append({"aux_heatmaps.upsample.weight": inputs})
        return groups

    def class_rows(self, number: int) -> list[dict[str, list[tuple[int, ...]]]]:
        """Map parameter rows to classes, see :mod:`dynpose.modeling.parameter_rows`."""
        return layer_rows({"head.cls_logits": of_each(number)})

    def _maps(self, features):
        """Merged levels, F, and the shared offset map (or None)."""
        merged, projected = self.basis([features[level] for level in self.basis_levels])
        maps, shared = projected.split([self.spec.in_channels, self.refinement.num_shared_channels], dim=1)
        return merged, maps, self.refinement.offsets(features[self.basis_levels[0]], shared)

    @torch.no_grad()
    def _sample(self, predictions, targets):
        """Select the positive locations that get a KP-Net: (N,) positions, by classification times centre-ness."""
        confidence = flatten_levels(predictions.logits)[targets.positives].sigmoid().amax(dim=1)
        confidence *= flatten_levels(predictions.centerness)[targets.positives, 0].sigmoid()
        max_samples = self.options.max_samples
        return targets.positives[sample_positives(targets.matched[targets.positives], confidence, max_samples)]

    def _generate(self, maps, box_tower, locations, index):
        """Generate the KP-Nets at locations, and the (N, R) values for the refinement (FCPose section 3.1)."""
        generated = self.controller(box_tower, locations, index).float()
        params, of_refinement = generated.split([self.spec.num_params, self.refinement.num_params], dim=1)
        return self.kp_net_head.nets(maps, params, locations, index), of_refinement

    def _aux_losses(self, merged, people):
        """Squared error of the multi-person heatmaps (release)."""
        options, losses = self.options, {}
        maps = self.aux_heatmaps(merged)
        for name, logits, factor, sigma in zip(("fine", "coarse"), maps, (4, 1), options.aux_sigmas):
            targets = gaussian_heatmaps(
                people.keypoints,
                people.image_index,
                num_images=len(logits),
                size=logits.shape[-2:],
                stride=self.kp_net_head.stride // factor,
                sigma=sigma,
            )
            losses[f"loss_aux_{name}"] = heatmap_mse(logits, targets) * options.aux_weight
        return losses


def build_refinement(cfg: CfgNode, spec: KPNetSpec, shape: ShapeSpec) -> Refinement:
    """Build the refinement that ``cfg.MODEL.FCPOSE.REFINEMENT`` names.

    Args:
        cfg: the config.
        spec: shape of the KP-Nets.
        shape: of the finest pyramid level.

    Raises:
        ConfigError: if the factor of "deconv" does not divide the level's stride.
    """
    fcpose = cfg.MODEL.FCPOSE
    heatmap = {"heatmap_loss": fcpose.HEATMAP_LOSS, "target_rule": fcpose.HEATMAP_TARGET}
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
        if shape.stride % fcpose.DECONV_FACTOR:
            raise ConfigError(
                f"MODEL.FCPOSE.DECONV_FACTOR must divide the stride {shape.stride} of MODEL.FCPOSE.BASIS.IN_FEATURES, "
                f"got {fcpose.DECONV_FACTOR}"
            )
        return DeconvRefinement(num_keypoints=spec.num_keypoints, factor=fcpose.DECONV_FACTOR)
    return PeakRefinement(**heatmap)


def _check_config(cfg):
    """Validate the config before training starts."""
    key = "MODEL.FCPOSE.{}".format
    for name, choices in (
        ("REFINEMENT", ("none", "deconv", "shared", "instance")),
        ("HEATMAP_LOSS", HEATMAP_LOSSES),
        ("HEATMAP_TARGET", TARGET_RULES),
        ("OFFSET_SOURCE", OFFSET_SOURCES),
        ("OFFSET_LOSS", OFFSET_LOSSES),
    ):
        check_choice(cfg, key(name), choices)
    check_positive(
        cfg, key("LAST_SIZE_OF_INTEREST"), key("AUX_HEATMAP_SIGMAS"), key("DISTANCE_NORM"), key("DECONV_FACTOR")
    )
    check_length(cfg, key("AUX_HEATMAP_SIGMAS"), 2)
    sizes, last = cfg.MODEL.FCOS.SIZES_OF_INTEREST, cfg.MODEL.FCPOSE.LAST_SIZE_OF_INTEREST
    if len(sizes) and last <= sizes[-1]:
        raise ConfigError(
            f"{key('LAST_SIZE_OF_INTEREST')} must be above the last of MODEL.FCOS.SIZES_OF_INTEREST {sizes}, got {last}"
        )
    check_not_negative(cfg, key("MAX_SAMPLES"), key("OFFSET_SCALE"), key("OFFSET_RADIUS"), key("BASIS.NUM_CONVS"))
    check_not_negative(cfg, key("HEATMAP_LOSS_WEIGHT"), key("OFFSET_LOSS_WEIGHT"), key("AUX_HEATMAP_LOSS_WEIGHT"))
    check_at_least_one(cfg, key("BASIS.CONVS_DIM"))
    check_odd(cfg, key("CONTROLLER_KERNEL"), key("OFFSET_KERNEL"))
    check_norm(cfg, key("BASIS.NORM"), cfg.MODEL.FCPOSE.BASIS.CONVS_DIM)
    if cfg.MODEL.FCPOSE.DECONV_FACTOR % 2:
        raise ConfigError(f"{key('DECONV_FACTOR')} must be even, got {cfg.MODEL.FCPOSE.DECONV_FACTOR}")
