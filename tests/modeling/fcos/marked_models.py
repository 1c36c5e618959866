"""Small FCOS-like models that detect people where an image is marked: any number of them, in any runtime.

Axes: B images.
"""

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from small_models import small_model
from torch import nn

# Pixel values of the first channel: those of a mark are above, all others far below
_BACKGROUND, _MARK = 100.0, 200.0
MULTIPLE = 16
_CHANNELS = 16
_MARKED = (
    *("MODEL.BACKBONE.NAME", "TwoLevels"),
    *("MODEL.FCOS.NORM", "", "MODEL.FCOS.POST_NMS_TOPK_TEST", 80),
)
TWO_LEVELS = ("MODEL.FCOS.IN_FEATURES", ["p3", "p4"], "MODEL.FCOS.SIZES_OF_INTEREST", [64])
ONE_LEVEL = ("MODEL.FCOS.IN_FEATURES", ["p3"], "MODEL.FCOS.SIZES_OF_INTEREST", [])


@BACKBONE_REGISTRY.register()
class TwoLevels(Backbone):
    """Two convolutions: the least that has P3 and P4."""

    size_divisibility = MULTIPLE

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.p3 = nn.Conv2d(3, _CHANNELS, 9, stride=8, padding=4)
        self.p4 = nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1)

    def forward(self, images):
        p3 = self.p3(images)
        return {"p3": p3, "p4": self.p4(p3)}

    def output_shape(self):
        return {"p3": ShapeSpec(channels=_CHANNELS, stride=8), "p4": ShapeSpec(channels=_CHANNELS, stride=16)}


def marked_model(config_file, *opts):
    """A model that detects a person where the image is marked, see :func:`detect_marks`.

    Args:
        config_file (str)
        *opts: overrides, among them :data:`TWO_LEVELS` or :data:`ONE_LEVEL` of the pyramid.
    """
    model = small_model(config_file, *_MARKED, *opts).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    # networks whose heatmaps have clear peaks, and boxes that overlap
    model.controller.linear.weight.mul_(10)
    model.controller.linear.bias.normal_(0, 0.5, generator=generator)
    for name, layer in model.head.named_modules():
        if name == "box_distances":
            layer.bias.fill_(2.0)
        elif name == "keypoint_offsets":
            layer.bias.normal_(0, 2, generator=generator)
        elif name.endswith("_star"):
            layer.weight.mul_(10)
    return detect_marks(model)


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
