"""Models that detect people where an image is marked: any number of them, in PyTorch and in an exported file.

Axes: B images, N people.
"""

import torch
import torch.nn.functional as F

# Pixel values of the first channel: those of a mark are above, all others far below
_BACKGROUND, _MARK = 100.0, 200.0


def detect_marks(model):
    """Replace the class logits of an FCOS-like model: high in the cells of P3 that a mark covers, else low.

    All other predictions stay the model's. The marks' brightness gives their order.
    """
    pixels = {}

    def remember(backbone, inputs):
        (images,) = inputs
        pixels["marks"] = images[:, :1] * model.pixel_std[0] + model.pixel_mean[0]

    def replace(head, inputs, predictions):
        height, width = predictions.logits[0].shape[-2:]
        stride = model.detector.strides[0]
        marks = F.max_pool2d(pixels["marks"], stride)[..., :height, :width]
        # -10 for the background, and from 0 for a mark
        logits = [(marks - _MARK) / 10 + torch.zeros_like(predictions.logits[0])]
        logits += [torch.full_like(level, -20.0) for level in predictions.logits[1:]]
        return predictions._replace(logits=logits)

    model.backbone.register_forward_pre_hook(remember)
    model.head.register_forward_hook(replace)
    return model


def marked_images(counts, height, width, stride=8, cells=1, seed=0):
    """Random images with marks on a grid.

    Args:
        counts (list[int]): B, number of marks of each image.
        height, width (int): pixels; multiples of the model's size divisibility.
        stride (int): of P3.
        cells (int): rows and columns of cells that a mark covers.

    Returns:
        images (B, 3, H, W) float32, 0 to 255, and image sizes (B, 2), a few pixels smaller.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(counts), 3, height, width, generator=generator) * _BACKGROUND
    sizes = torch.tensor([[height - 3, width - 5 - image % 2] for image in range(len(counts))])
    for image, count in zip(images, counts):
        brightness = (torch.rand(count, generator=generator) * 0.9 + 0.1) * (255 - _MARK) + _MARK
        rows, columns = height // stride, width // stride
        per_row = max(1, round((count * columns / rows) ** 0.5))
        per_column = -(-count // per_row)
        for mark, value in enumerate(brightness.tolist()):
            row = int((mark // per_row + 0.5) * rows / per_column) - cells // 2
            column = int((mark % per_row + 0.5) * columns / per_row) - cells // 2
            for cell in range(cells**2):
                down, right = divmod(cell, cells)
                # the central cell is the brightest
                at = (row + down) * stride + stride // 2, (column + right) * stride + stride // 2
                image[0, at[0], at[1]] = value - (down - cells // 2) ** 2 - 1.1 * (right - cells // 2) ** 2
    return images, sizes
