"""What a reduced precision costs: AP, or the shift of keypoints, at the config's size and at three times that size.

A file that froze the range of coordinates is right at the size of its calibration; an AP at that size can't show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from dynpose.data.any_image import to_bgr
from dynpose.evaluation import PoseEvaluator

from .comparing import compare
from .running import Runner
from .samples import Sample

__all__ = ["SCALES", "ap_report", "shift_report"]

SCALES = (1, 3)
"""Of the network's input, in sizes of the config."""


def shift_report(network: Runner, run: Runner, images: Sequence[Path], inputs: InputSize) -> list[str]:
    """Compare a file with PyTorch in float32.

    Args:
        network: PyTorch's.
        run: the file's.
        images: image files.
        inputs: sizes of the network's inputs.

    Returns:
        A line for each scale.
    """
    lines = []
    for scale in SCALES:
        compared = []
        for image in images:
            sample = inputs.sample(to_bgr(image), scale)
            compared += compare(network(sample.images, sample.image_sizes), run(sample.images, sample.image_sizes))
        distances = np.concatenate([result.distances for result in compared])
        shift = "no people in both"
        if distances.size:
            shift = (
                f"keypoints move by {np.median(distances):.2g} (median) and {np.quantile(distances, 0.95):.2g} (95 %)"
            )
            shift += f" pixels of the network's input, {distances.mean():.2g} on average"
        expected, found, matched = (
            sum(getattr(result, name) for result in compared) for name in ("expected", "found", "matched")
        )
        lines.append(
            f"{scale} x the config's size, {len(images)} images: {expected} people in float32, {found} in the file, "
            f"{matched} the same; {shift}"
        )
    return lines


def ap_report(network: Runner, run: Runner, dataset_name: str, inputs: InputSize) -> list[str]:
    """Evaluate PyTorch's float32 and a file on a registered data set.

    Args:
        network, run, inputs: see :func:`shift_report`.
        dataset_name: of a data set in detectron2's catalogs.

    Returns:
        A line for each scale.
    """
    lines = []
    for scale in SCALES:
        before, after = (_keypoint_ap(each, dataset_name, inputs, scale) for each in (network, run))
        lines.append(
            f"{scale} x the config's size: keypoint AP {after:.2f} in the file, {before:.2f} in float32 "
            f"({after - before:+.2f})"
        )
    return lines


class InputSize:
    """Resizes images to multiples of the config's size.

    Args:
        min_size: shorter side at scale 1, pixels; 0 = of the image.
        max_size: limit of the longer side at scale 1.
        divisibility: of the network's input.
        channels: "BGR" or "RGB", the network's.
    """

    def __init__(self, min_size: int, max_size: int, divisibility: int, channels: str):
        self.min_size = min_size
        self.max_size = max_size
        self.divisibility = divisibility
        self.channels = channels

    def sample(self, pixels: np.ndarray, scale: int = 1) -> Sample:
        """Resize and pad an image (h, w, 3) uint8 BGR, keeping its aspect ratio."""
        short, long = sorted(pixels.shape[:2])
        factor = min((self.min_size or short) / short, self.max_size / long if self.min_size else 1.0) * scale
        size = [max(1, round(length * factor)) for length in pixels.shape[1::-1]]
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        if self.channels == "RGB":
            resized = resized[:, :, ::-1]
        return Sample.of("image", resized, self.divisibility)


def _keypoint_ap(run, dataset_name, inputs, scale):
    evaluator = PoseEvaluator(dataset_name, tasks=("keypoints",), distributed=False)
    evaluator.reset()
    for record in DatasetCatalog.get(dataset_name):
        pixels = to_bgr(Path(record["file_name"]))
        sample = inputs.sample(pixels, scale)
        with torch.no_grad():
            results = run(sample.images, sample.image_sizes)
        evaluator.process([record], [{"instances": _instances(results, sample, pixels.shape[:2])}])
    return evaluator.evaluate()["keypoints"]["AP"]


def _instances(results, sample, size):
    """The people of one image, in pixels of its original size."""
    boxes, scores, classes, keypoints = (result[0, : int(results[4])].clone() for result in results[:4])
    height, width = size
    factors = torch.tensor([width, height]) / sample.image_sizes[0].flip(0)
    keypoints[..., :2] *= factors
    instances = Instances(size, pred_boxes=Boxes(boxes * factors.repeat(2)), scores=scores, pred_classes=classes)
    instances.pred_keypoints = keypoints
    return instances
