"""FLOPs of one generated keypoint network (KP-Net), computed from its shape; a multiply-add counts as one."""

from typing import cast

from torch import nn

from .head import KPNetHead

# fvcore's FLOPs per bilinearly interpolated value
FLOPS_BILINEAR = 4


def count_kp_net_flops(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Count the FLOPs of generating one KP-Net and running it over the map of an image (FCPose section 3.1).

    Args:
        model: has ``controller`` and ``kp_net_head``.
        size: height and width of the padded image, pixels.

    Returns:
        FLOPs of each part.
    """
    head = cast(KPNetHead, model.kp_net_head)
    return {
        "controller": model.get_parameter("controller.linear.weight").numel(),
        "KP-Net": count_cells(size, head.stride) * sum(n_in * n_out for n_in, n_out in head.spec.layer_sizes),
    }


def count_cells(size: tuple[int, int], stride: int) -> int:
    """Count the cells of the map of a padded image; ``size`` is (height, width) in pixels."""
    height, width = size
    return (height // stride) * (width // stride)
