"""Mirror images of a batch and their maps as functions of tensors, for flip testing inside an exported graph.

Axes: B images, C channels, H x W pixels or cells of stride s. Outside of a graph,
:class:`~dynpose.modeling.test_time_augmentation.PoseTTA` does the same, an image at a time.
"""

import torch
from torch import Tensor


def mirror_images(images: Tensor, widths: Tensor) -> Tensor:
    """Mirror images about the middle of their own width, not of the padded one.

    Args:
        images (Tensor): (B, C, H, W), zero beyond each image's width.
        widths (Tensor): (B,) int64 without padding, pixels.

    Returns:
        Tensor: (B, C, H, W), zero beyond each image's width.
    """
    columns = torch.arange(images.shape[-1], device=images.device)
    source = widths[:, None].to(images.device) - 1 - columns
    mirrored = images.gather(3, source.clamp(min=0)[:, None, None].expand_as(images))
    return mirrored * (source >= 0)[:, None, None]


def mirror_maps(maps: Tensor, image_sizes: Tensor, stride: int) -> Tensor:
    """Mirror the maps of mirrored images back, by bilinear interpolation where the image ends within a cell.

    In the cells of the image this is :func:`~dynpose.modeling.test_time_augmentation.resample_map` of a mirrored view
    of the same size: a cell centre beyond the image's border takes the value at the border.

    Args:
        maps (Tensor): (B, C, H, W); the centre of cell (u, v) is at ((u + 0.5) s, (v + 0.5) s) pixels.
        image_sizes (Tensor): (B, 2) int64 height and width without padding, pixels.
        stride (int): s, pixels.

    Returns:
        Tensor: (B, C, H, W).
    """
    heights, widths = image_sizes.to(maps.device)[..., None].unbind(dim=1)
    y, x = (
        ((torch.arange(length, device=maps.device) + 0.5) * stride).minimum(limits)
        for length, limits in ((maps.shape[-2], heights), (maps.shape[-1], widths))
    )
    rows, columns = (_weights(pixels / stride - 0.5) for pixels in (y, widths - x))
    return rows[:, None].to(maps.dtype) @ maps @ columns[:, None].mT.to(maps.dtype)


def _weights(positions):
    """Weights (B, L, L) of linear interpolation at ``positions`` (B, L): result, then value."""
    length = positions.shape[-1]
    distance = positions.clamp(0, length - 1)[..., None] - torch.arange(length, device=positions.device)
    return (1 - distance.abs()).clamp(min=0)
