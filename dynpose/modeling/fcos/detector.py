"""The detector around an FCOS head: locations, targets, losses and decoding, without parameters."""

from dataclasses import dataclass, field

from dynpose.config import blame, set_plain

from .decoding import FCOSDecoder
from .locations import Locations
from .losses import fcos_losses
from .targets import assign_targets


@dataclass(frozen=True)
class FCOSDetector:
    """The parameter-free parts of FCOS (Tian et al., ICCV 2019), for a pyramid of L levels.

    Attributes:
        strides (Sequence[int]): L strides, pixels.
        sizes_of_interest (Sequence[float]): L - 1 upper ends of the sizes of every level but the last, pixels.
        num_classes (int): classes without background.
        center_sampling_radius (float): in strides; 0 = anywhere in the box.
        inside_box (bool): whether positive locations must also lie inside the box.
        focal_loss_alpha, focal_loss_gamma (float): of the focal loss.
        giou_smooth (float): see :func:`~dynpose.modeling.fcos.losses.distance_giou_loss`.
        decoder (FCOSDecoder): from predictions to instances in inference.

    Raises:
        ValueError: if the numbers of strides and sizes do not match.
    """

    strides: tuple
    sizes_of_interest: tuple
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
    def from_config(cls, cfg, shapes, **choices):
        """Build from ``cfg.MODEL.FCOS``.

        Args:
            cfg (CfgNode): the config.
            shapes (dict[str, ShapeSpec]): of the backbone's outputs.
            **choices: ``inside_box``, which depends on the method.

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
                **choices,
            )

    def locations(self, features):
        """List the locations of a pyramid.

        Args:
            features (list[Tensor]): L maps of shape (B, C, H_l, W_l).

        Returns:
            Locations
        """
        return Locations.of(features, self.strides)

    def targets(self, locations, gt_instances):
        """Match locations with ground-truth boxes, see :func:`~dynpose.modeling.fcos.assign_targets`.

        Args:
            locations (Locations): T locations.
            gt_instances (list[Instances]): B, with gt_boxes and gt_classes, input pixels.

        Returns:
            FCOSTargets
        """
        return assign_targets(
            locations,
            gt_instances,
            sizes_of_interest=self.sizes_of_interest,
            num_classes=self.num_classes,
            center_sampling_radius=self.center_sampling_radius,
            inside_box=self.inside_box,
        )

    def losses(self, predictions, targets):
        """Compute the losses of the head's predictions, see :func:`~dynpose.modeling.fcos.fcos_losses`.

        Args:
            predictions (FCOSPredictions): of the whole batch.
            targets (FCOSTargets): of the same locations.

        Returns:
            dict[str, Tensor]: ``loss_fcos_*``, scalars.
        """
        return fcos_losses(
            predictions,
            targets,
            num_classes=self.num_classes,
            focal_loss_alpha=self.focal_loss_alpha,
            focal_loss_gamma=self.focal_loss_gamma,
            giou_smooth=self.giou_smooth,
        )

    def decode(self, predictions, locations, image_sizes):
        """Decode instances with the predicted boxes, see :meth:`FCOSDecoder.__call__`.

        Args:
            predictions (FCOSPredictions): of B images, with boxes.
            locations (Locations): of the same maps.
            image_sizes (list[tuple[int, int]]): B sizes (height, width) before padding, pixels.

        Returns:
            list[Instances]: one per image, with ``location_index``.
        """
        return self.decoder(predictions, locations, image_sizes)

    def candidates(self, predictions, locations):
        """Threshold the scores and keep the top candidates, see :meth:`FCOSDecoder.candidates`.

        Args:
            predictions (FCOSPredictions): of B images.
            locations (Locations): of the same maps.

        Returns:
            Candidates
        """
        return self.decoder.candidates(predictions, locations)

    def select(self, candidates, boxes, image_sizes, **fields):
        """Apply NMS and keep the top instances of each image, see :meth:`FCOSDecoder.select`.

        Args:
            candidates (Candidates): M candidates.
            boxes (Tensor): (M, 4) XYXY, input pixels.
            image_sizes (list[tuple[int, int]]): B sizes (height, width) before padding, pixels.
            **fields (Tensor): (M, ...) further fields of the instances.

        Returns:
            list[Instances]: one per image, by descending score.
        """
        return self.decoder.select(candidates, boxes, image_sizes, **fields)
