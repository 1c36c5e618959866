"""The video of the measurement, and the predictor, whose people are known.

Letters of the shapes: N people, K keypoints.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from dynpose.benchmark.model.case import settle_norms
from dynpose.config import load_config
from dynpose.data.synthetic import SyntheticPose
from dynpose.engine.file_prediction import FilePredictor
from dynpose.profiling.inject_detections import inject_detections, spread_boxes
from dynpose.video import VideoWriter

FRAME_RATE = 30


def write_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    """Write a video in which a scene of synthetic people moves by two pixels a frame.

    Args:
        path: of the MP4 file.
        frames: their number.
        size: height and width, pixels.
    """
    scene, _ = SyntheticPose(image_size=size, people=(3, 5)).render(0)
    with VideoWriter(path, FRAME_RATE) as writer:
        for index in range(frames):
            writer.write(np.roll(scene, 2 * index, axis=1), index / FRAME_RATE, 1 / FRAME_RATE)


class KnownPeople(FilePredictor):
    """A predictor whose model runs, and whose results are N people at the places of the injected detections.

    Args:
        cfg: of the model.
        people: N.
        size: height and width of the images, pixels.

    Attributes:
        memory: resident bytes and their peak, after the frame of each number.
    """

    def __init__(self, cfg: Any, people: int, size: tuple[int, int]):
        super().__init__(cfg)
        if not cfg.MODEL.WEIGHTS:
            settle_norms(self.model)
        self.memory: dict[int, tuple[int, int]] = {}
        self.count = 0
        boxes = spread_boxes(people, size)
        places = torch.rand(people, self.schema.num_keypoints, 2, generator=torch.Generator().manual_seed(0))
        corners, sides = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        self._people = Instances(
            size,
            pred_boxes=Boxes(boxes),
            scores=torch.full((people,), 0.9),
            pred_classes=torch.zeros(people, dtype=torch.int64),
            pred_keypoints=torch.cat([corners + places * sides, torch.ones(*places.shape[:2], 1)], dim=2),
        )

    @classmethod
    def build(
        cls, config_file: str, weights: str, opts: list[str], device: torch.device, people: int, size: tuple[int, int]
    ) -> KnownPeople:
        """Build from file names; "" leaves the weights random."""
        cfg = load_config(config_file, opts)
        cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = weights, str(device)
        return cls(cfg, people, size)

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """See :meth:`~dynpose.engine.PosePredictor.infer`."""
        # a GPU is waited for, as the results of the model would be
        for result in super().infer(inputs):
            result.scores.cpu()
        self.count += len(inputs)
        self.memory[self.count] = resident_memory()
        return [self._people for _ in inputs]

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """The model detects N people in each frame while the context is entered."""
        image = self.prepare(np.zeros((*self._people.image_size, 3), np.uint8))["image"]
        with inject_detections(self.model, len(self._people), tuple(image.shape[1:])):
            yield


def seconds_of(call: Any) -> tuple[float, float]:
    """Make a call.

    Returns:
        Wall-clock seconds, and CPU seconds of all threads.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def resident_memory() -> tuple[int, int]:
    """The resident memory of this process and its peak, bytes; zeros if the system does not report them."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0, 0
    figures = dict(re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", status, re.MULTILINE))
    return int(figures["VmRSS"]) * 1024, int(figures["VmHWM"]) * 1024
