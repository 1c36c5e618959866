"""The compared training runs, and the case of one iteration of each."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from dynpose.benchmark.clocks import Clock
from dynpose.benchmark.configs import (
    PEER_CONFIG,
    PEER_NAME,
    SETTLING_SIZE,
    ComparedConfig,
    Names,
    build_random,
    on_device,
    settling_norms,
    without_folders,
)
from dynpose.config import ConfigError, load_config
from dynpose.data import schema_from_cfg
from dynpose.engine.optimizer import build_optimizer
from dynpose.engine.precision import Precision, compile_dense_parts
from dynpose.profiling.inject_detections import spread_boxes

# share of a person's box that the person covers, for the area that the mapper would give
_AREA_OF_BOX = 0.5
# number of people in the image that sets the statistics of normalisation
_SETTLING_PEOPLE = 2


@dataclass(frozen=True)
class TrainingConfig(ComparedConfig):
    """A config of model and optimizer. Weights are random; MODEL.WEIGHTS is ignored.

    Attributes:
        variant: the overrides that distinguish it from others of the same file, KEY VALUE ...; "" = none.

    Raises:
        ConfigError: it needs masks.
    """

    variant: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.cfg.MODEL.MASK_ON:
            raise ConfigError(f"{self.name}: MODEL.MASK_ON: the synthetic people have no masks; set it to False")


def load_training_configs(
    config_files: Sequence[str],
    variants: Sequence[str] = (),
    opts: Sequence[str] = (),
    peer: bool = False,
    amp: bool = False,
) -> list[TrainingConfig]:
    """Read the compared configs: every variant of every file.

    Args:
        config_files: YAML files.
        variants: overrides, each "KEY VALUE KEY VALUE ..." in shell quoting; "" or no variants = the
            unchanged file.
        opts: overrides for all of them, KEY VALUE KEY VALUE ..., applied first.
        peer: whether to append detectron2's Keypoint R-CNN.
        amp: train all in mixed precision; otherwise SOLVER.AMP.ENABLED decides.

    Raises:
        ConfigError: a config is invalid.
    """
    configs, name = [], Names()
    for file in config_files:
        for variant in variants or ("",):
            words = shlex.split(variant)
            cfg = load_config(file, [*opts, *words])
            configs.append(TrainingConfig(name(cfg, file, _short(words)), cfg, " ".join(without_folders(words))))
    if peer:
        cfg = load_config(model_zoo.get_config_file(PEER_CONFIG))
        if configs:  # the overrides are not for it, but the precision is
            cfg.SOLVER.AMP.DTYPE = configs[0].cfg.SOLVER.AMP.DTYPE
        configs.append(TrainingConfig(PEER_NAME, cfg))
    for config in configs:
        config.cfg.SOLVER.AMP.ENABLED |= amp
    if not configs:
        raise ConfigError("nothing to measure: give a --config-file, or --peer")
    return configs


def _short(words):
    """The name suffix of a variant: its values with the last parts of their keys."""
    pairs = zip(words[::2], words[1::2])
    return "".join(f", {key.rpartition('.')[2]} {Path(value).name}" for key, value in pairs)


class Inputs(NamedTuple):
    """A batch on the device; only the tensors needed to make ground truth with any number of keypoints."""

    images: torch.Tensor  # (B, 3, H, W) uint8
    boxes: torch.Tensor  # (B, N, 4) XYXY, pixels
    seed: torch.Tensor  # (), of the keypoints


class Training:
    """A model in training mode with its optimizer.

    The learning rates are 0. The optimizer's work is unchanged and the weights stay random, so that all iterations do
    the same work and no loss diverges.

    Args:
        cfg: of both; with SOLVER.AMP.ENABLED, autocast in SOLVER.AMP.DTYPE and, for float16, a gradient
            scaler are used.
        device: to run on.

    Raises:
        ConfigError: a key of the optimizer is invalid.
        DatasetError: the config names no keypoints.
    """

    def __init__(self, cfg: CfgNode, device: torch.device):
        self.device = device
        self.precision = Precision.from_config(on_device(cfg, device))
        self.model = build_random(cfg, device).train()
        if cfg.SOLVER.CHANNELS_LAST:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ignore_masks = cfg.INPUT.IGNORE_MASKS
        # detectron2's R-CNNs use another key
        is_rcnn = hasattr(self.model, "roi_heads")
        self.num_keypoints = (
            cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if is_rcnn else schema_from_cfg(cfg).num_keypoints
        )
        self.optimizer = build_optimizer(cfg, self.model)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        # With the default scale, the first steps would be skipped because gradients overflow.
        is_scaled = self.precision.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=is_scaled)
        settling = make_batch(1, SETTLING_SIZE, _SETTLING_PEOPLE, 0, device)
        with torch.no_grad(), settling_norms(self.model), EventStorage():
            self.model(self.ground_truth(settling))
        if cfg.SOLVER.COMPILE:
            # not before: a pass without gradients would be compiled as well
            compile_dense_parts(self.model, training=True)

    def ground_truth(self, inputs: Inputs) -> list[dict[str, Any]]:
        """Make outputs like the mapper's: images and Instances with boxes, classes, areas and labelled keypoints."""
        size = tuple(inputs.images.shape[-2:])
        generator = torch.Generator().manual_seed(int(inputs.seed))
        batch = []
        for image, boxes in zip(inputs.images, inputs.boxes):
            # uniformly within the box, all visible
            position = torch.rand(len(boxes), self.num_keypoints, 2, generator=generator).to(boxes)
            corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
            visible = boxes.new_full((*position.shape[:2], 1), 2.0)
            people = Instances(size)
            people.gt_boxes = Boxes(boxes)
            people.gt_classes = boxes.new_zeros(len(boxes), dtype=torch.int64)
            people.gt_keypoints = Keypoints(torch.cat([corner + position * side, visible], dim=2))
            people.gt_areas = _AREA_OF_BOX * side.prod(dim=2).squeeze(1)
            batch.append({"image": image, "instances": people, "height": size[0], "width": size[1]})
            if self.ignore_masks:
                batch[-1]["ignore_mask"] = image.new_zeros(size, dtype=torch.bool)
        return batch

    def forward(self, batch: list[dict[str, Any]]) -> torch.Tensor:
        """Compute the sum of the losses, as detectron2's trainer does."""
        with EventStorage(), self.precision.autocast():
            losses = self.model(batch)
        if isinstance(losses, torch.Tensor):
            return losses
        first, *others = losses.values()
        return sum(others, start=first)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients; the old ones are cleared after the forward pass, as in detectron2's trainer."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        """Clip gradients if configured, and step."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def constant_bytes(self) -> dict[str, int]:
        """Count the bytes that persist across iterations, by kind."""
        parameters = list(self.model.parameters())
        states = (value for state in self.optimizer.state.values() for value in state.values())
        return {
            "weights and buffers": sum(tensor.nbytes for tensor in (*parameters, *self.model.buffers())),
            "gradients": sum(each.grad.nbytes for each in parameters if each.grad is not None),
            "optimizer state": sum(value.nbytes for value in states if isinstance(value, torch.Tensor)),
        }


def make_batch(
    batch_size: int, image_size: tuple[int, int], num_people: int, seed: int, device: torch.device
) -> Inputs:
    """Make images of noise with people spread evenly over them; the same for every device.

    Args:
        batch_size: B.
        image_size: height and width, pixels.
        num_people: N in every image, possibly 0.
        seed: of the noise and the keypoints.
        device: of the tensors.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (batch_size, 3, *image_size), generator=generator, dtype=torch.uint8)
    boxes = spread_boxes(num_people, image_size).expand(batch_size, -1, -1).contiguous()
    return Inputs(images.to(device), boxes.to(device), torch.tensor(seed))


def time_parts(training: Training, inputs: Inputs, clock: Clock, rounds: int) -> dict[str, float]:
    """Time forward pass, backward pass and step within whole iterations.

    On a GPU the device is synchronised after each, so together they take slightly longer than an iteration timed alone.

    Args:
        training: the model and optimizer.
        inputs: a batch.
        clock: of whole calls, see :mod:`dynpose.benchmark.clocks`.
        rounds: number of timed iterations, after one warm-up iteration.

    Returns:
        Median seconds of "forward", "backward" and the optimizer's "step".
    """
    seconds: dict[str, list[float]] = {"forward": [], "backward": [], "step": []}
    for _ in range(1 + rounds):
        loss: list[torch.Tensor] = []
        forward, _ = clock(lambda: loss.append(training.forward(training.ground_truth(inputs))))  # noqa: B023
        backward, _ = clock(lambda: training.backward(loss.pop()))  # noqa: B023
        step, _ = clock(training.update)
        for name, value in zip(seconds, (forward, backward, step)):
            seconds[name].append(value)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


@dataclass
class TrainingCase:
    """One iteration: forward, backward and the optimizer's step, on a batch on the device.

    A case of :mod:`dynpose.benchmark.measure`, which compares the configs by name. They are built once per process; a
    copy sent to another process builds them again.

    Attributes:
        configs: the compared configs, by name.
        batch_size: B.
        image_size: height and width, pixels.
        num_people: N in every image.
        device: of the models.
        losses: by name, the total loss of the last iteration, () on the device.

    Raises:
        ConfigError: mixed precision in float16 without a GPU.
    """

    configs: dict[str, TrainingConfig]
    batch_size: int
    image_size: tuple[int, int]
    num_people: int
    device: torch.device
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    _built: dict[str, Training] = field(default_factory=dict)

    dtype = torch.float32

    def __post_init__(self):
        for name, config in self.configs.items():
            amp = config.cfg.SOLVER.AMP
            if amp.ENABLED and amp.DTYPE != "bfloat16" and self.device.type != "cuda":
                raise ConfigError(
                    f"{name}: SOLVER.AMP.ENABLED (--amp): mixed precision needs a GPU; measure float32 on a CPU, "
                    "or set SOLVER.AMP.DTYPE to bfloat16"
                )

    def __getstate__(self):
        return {**self.__dict__, "losses": {}, "_built": {}}

    def make_inputs(self, device: torch.device, seed: int) -> Inputs:
        """Make a batch; its keypoints depend on the config."""
        return make_batch(self.batch_size, self.image_size, self.num_people, seed, device)

    def __getitem__(self, name: str) -> Training:
        """Return the training of a config."""
        if name not in self._built:
            self._built[name] = Training(self.configs[name].cfg, self.device)
        return self._built[name]

    def run(self, name: str, inputs: Inputs) -> None:
        """Run one iteration of a config."""
        training = self[name]
        try:
            loss = training.forward(training.ground_truth(inputs))
            training.backward(loss)
            training.update()
        except RuntimeError:
            # Free the memory held by an iteration that ran out of memory, for the other configs.
            del self._built[name]
            raise
        self.losses[name] = loss.detach()
