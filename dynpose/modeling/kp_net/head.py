"""The head that generates KP-Nets at locations of a feature pyramid (FCPose section 3.1, InsPose section 3.2)."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import Tensor, nn

from dynpose.config import check_at_least_one, check_choice
from dynpose.layers import KPNets, KPNetSpec
from dynpose.layers.backends import backend_names, check_backend
from dynpose.modeling.fcos import Locations


class KPNetHead:
    """Generates KP-Nets at locations, ready to run over a map F.

    It is not an ``nn.Module``: a model registers the controller, the only part with parameters, directly, so that
    checkpoints do not depend on the composition of the head.

    Args:
        controller: (maps, locations, index) -> (N, P), one row of parameters per location, such as a
            :class:`~dynpose.modeling.fcos.LocationConv`. If it generates further values, they come last, and the
            caller splits them off and calls :meth:`nets`.
        spec: the shape of the networks.
        stride: stride of F, pixels.
        coord_scales: divisor of the relative coordinates per pyramid level, pixels.
        backend: backend of the operator, see :mod:`dynpose.layers.backends`.

    Raises:
        ValueError: if no backend has that name.
    """

    def __init__(
        self,
        controller: nn.Module,
        spec: KPNetSpec,
        *,
        stride: int,
        coord_scales: Sequence[float],
        backend: str = "auto",
    ):
        check_backend(backend)
        self.controller = controller
        self.spec = spec
        self.stride = stride
        self.coord_scales = tuple(coord_scales)
        self.backend = backend

    def __call__(self, features: Tensor, maps: list[Tensor], locations: Locations, index: Tensor) -> KPNets:
        """Generate the KP-Nets at locations.

        Args:
            features: F, (B, C, H, W).
            maps: the controller's input, one map per level.
            locations: of these maps.
            index: (N,) int64, positions in ``locations``.

        Returns:
            N networks.
        """
        return self.nets(features, self.controller(maps, locations, index).float(), locations, index)

    def nets(self, features: Tensor, params: Tensor, locations: Locations, index: Tensor) -> KPNets:
        """Combine generated parameters with the map and the locations.

        Args:
            features: F, (B, C, H, W).
            params: (N, P).
            locations: of the pyramid.
            index: (N,) int64, positions in ``locations``.

        Returns:
            N networks.
        """
        return KPNets(
            features=features,
            params=params,
            image_index=locations.image[index],
            locations=locations.points[index],
            coord_scale=locations.per_level(self.coord_scales)[index],
            spec=self.spec,
            stride=self.stride,
            backend=self.backend,
        )


def kp_net_spec(cfg: CfgNode, num_keypoints: int) -> KPNetSpec:
    """Read the shape of the KP-Nets from ``cfg.MODEL.KP_NET`` and validate that section.

    Args:
        cfg: the config.
        num_keypoints: K.

    Raises:
        ConfigError: if a value is out of range or not a valid choice, or BACKEND is unknown.
    """
    kp_net, key = cfg.MODEL.KP_NET, "MODEL.KP_NET.{}".format
    check_at_least_one(cfg, key("IN_CHANNELS"), key("WIDTH"), key("DEPTH"))
    check_choice(cfg, key("COORDS_POSITION"), ("first", "last"))
    check_choice(cfg, key("COORDS_SIGN"), (1, -1))
    check_choice(cfg, key("BACKEND"), backend_names())
    return KPNetSpec(
        in_channels=kp_net.IN_CHANNELS,
        width=kp_net.WIDTH,
        depth=kp_net.DEPTH,
        num_keypoints=num_keypoints,
        coords_position=kp_net.COORDS_POSITION,
        coords_sign=kp_net.COORDS_SIGN,
    )
