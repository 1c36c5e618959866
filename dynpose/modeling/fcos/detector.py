"""The detector around an FCOS head: locations, targets, losses and decoding, without parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor

from dynpose.config import blame, set_plain

from .decoding import FCOSDecoder
from .head import FCOSPredictions
from .locations import Locations
from .losses import fcos_losses
from .targets import FCOSTargets, assign_targets


@dataclass(frozen=True)
class FCOSDetector:
    """The parameter-free parts of FCOS (Tian et al., ICCV 2019), for a pyramid of L levels.

    Attributes:
        strides: L strides, pixels.
        sizes_of_interest: L - 1 upper ends of the sizes of every level but the last, pixels.
        num_classes: classes without background.
        center_sampling_radius: in strides; 0 = anywhere in the box.
        inside_box: whether positive locations must also lie inside the box.
        focal_loss_alpha, focal_loss_gamma: of the focal loss.
        giou_smooth: see :func:`~dynpose.modeling.fcos.losses.distance_giou_loss`.
        decoder: from predictions to instances in inference.

    Raises:
        ValueError: if the numbers of strides and sizes do not match.
    """

    strides: tuple[int, ...]
    sizes_of_interest: tuple[float, ...]
    num_classes: int = 1
    center_sampling_radius: float = 1.5
    inside_box: bool = True
    focal_loss_alpha: float = 0.25
    focal_loss_gamma: float = 2.0
    giou_smooth: float = 0.0
    decoder: FCOSDecoder = field(default_factory=FCOSDecoder)

    def __post_init__(self):
        set_plain(self, "strides", "sizes_of_interest")
        if len(self.sizes_of_interest) != len(self.strides) - 1:
            raise ValueError(
                f"sizes_of_interest: expected one for every level but the last, {len(self.strides) - 1}, got "
                f"{list(self.sizes_of_interest)}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, shapes: dict[str, ShapeSpec], *, inside_box: bool = True) -> FCOSDetector:
        """Build from ``cfg.MODEL.FCOS``.

        Args:
            cfg: the config.
            shapes: of the backbone's outputs.
            inside_box: whether positive locations must also lie inside the box.

        Raises:
            ConfigError: if SIZES_OF_INTEREST does not have one entry less than IN_FEATURES.
                :func:`~dynpose.modeling.fcos.pyramid_channels` checks the other values.
        """
        fcos = cfg.MODEL.FCOS
        with blame("MODEL.FCOS.SIZES_OF_INTEREST"):
            return cls(
                strides=tuple(shapes[name].stride for name in fcos.IN_FEATURES),
                sizes_of_interest=tuple(fcos.SIZES_OF_INTEREST),
                num_classes=fcos.NUM_CLASSES,
                center_sampling_radius=fcos.CENTER_SAMPLING_RADIUS,
                focal_loss_alpha=fcos.FOCAL_LOSS_ALPHA,
                focal_loss_gamma=fcos.FOCAL_LOSS_GAMMA,
                giou_smooth=fcos.GIOU_SMOOTH,
                decoder=FCOSDecoder.from_config(cfg),
                inside_box=inside_box,
            )

    def locations(self, features: list[Tensor]) -> Locations:
        """List the locations of a pyramid.

        Args:
            features: L maps of shape (B, C, H_l, W_l).
        """
        return Locations.of(features, self.strides)

    def targets(self, locations: Locations, gt_instances: list[Instances]) -> FCOSTargets:
        """Match locations with ground-truth boxes, see :func:`~dynpose.modeling.fcos.assign_targets`.

        Args:
            locations: T locations.
            gt_instances: B, with gt_boxes and gt_classes, input pixels.
        """
        return assign_targets(
            locations,
            gt_instances,
            sizes_of_interest=self.sizes_of_interest,
            num_classes=self.num_classes,
            center_sampling_radius=self.center_sampling_radius,
            inside_box=self.inside_box,
        )

    def losses(self, predictions: FCOSPredictions, targets: FCOSTargets) -> dict[str, Tensor]:
        """Compute the losses of the head's predictions, see :func:`~dynpose.modeling.fcos.fcos_losses`.

        Args:
            predictions: of the whole batch.
            targets: of the same locations.

        Returns:
            ``loss_fcos_*``, scalars.
        """
        return fcos_losses(
            predictions,
            targets,
            num_classes=self.num_classes,
            focal_loss_alpha=self.focal_loss_alpha,
            focal_loss_gamma=self.focal_loss_gamma,
            giou_smooth=self.giou_smooth,
        )
