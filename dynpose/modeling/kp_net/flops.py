"""FLOPs of one generated keypoint network (KP-Net), computed from its shape; a multiply-add counts as one."""

# fvcore's FLOPs per bilinearly interpolated value
FLOPS_BILINEAR = 4


def count_kp_net_flops(model, size):
    """Count the FLOPs of generating one KP-Net and running it over the map of an image (FCPose section 3.1).

    Args:
        model (nn.Module): has ``controller`` and ``kp_net_head``.
        size (tuple[int, int]): height and width of the padded image, pixels.

    Returns:
        dict[str, int]: FLOPs of each part.
    """
    head = model.kp_net_head
    return {
        "controller": model.controller.linear.weight.numel(),
        "KP-Net": count_cells(size, head.stride) * sum(n_in * n_out for n_in, n_out in head.spec.layer_sizes),
    }


def count_cells(size, stride):
    """Count the cells of the map of a padded image; ``size`` is (height, width) in pixels."""
    height, width = size
    return (height // stride) * (width // stride)
