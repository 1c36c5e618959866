"""The compared models, and the case of one image with N people."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import nn

from dynpose.benchmark import configs
from dynpose.benchmark.configs import (
    PEER_NAME,
    SETTLING_SIZE,
    ComparedConfig,
    Names,
    build_random,
    settling_norms,
)
from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, load_config
from dynpose.engine import optimize_for_inference
from dynpose.profiling.flops import count_flops_with_people
from dynpose.profiling.inject_detections import inject_detections, require_method


@dataclass(frozen=True)
class PoseModel(ComparedConfig):
    """A model whose detections can be injected.

    Attributes:
        weights: a checkpoint; "" for random weights.
        precision: of a model optimized for inference; "" = the model as it is trained.
        compile: compile the optimized model.

    Raises:
        ConfigError: no method of the meta-architecture is registered.
    """

    weights: str = ""
    precision: str = ""
    compile: bool = False

    def __post_init__(self):
        super().__post_init__()
        require_method(self.architecture)

    @property
    def detection_limit_key(self) -> str:
        """The config key that limits the people in an image; "" = none does."""
        return require_method(self.architecture).detection_limit_key

    def build(self, device: torch.device) -> nn.Module:
        """Build the model in eval mode.

        Raises:
            CheckpointError: weights are given, but do not fit.
            ConfigError: the device does not support the precision.
        """
        model = build_random(self.cfg, device).eval()
        if self.weights:
            PoseCheckpointer(model).load(self.weights)
        else:
            settle_norms(model)
        if self.precision:
            optimize_for_inference(model, self.precision, self.compile, inplace=True)
        return model

    def optimized(self, precision: str, compile: bool) -> PoseModel:
        """The same model, optimized for inference."""
        name = f"{self.name}, {precision}{', compiled' if compile else ''}"
        return replace(self, name=name, precision=precision, compile=compile)


def load_models(
    config_files: Sequence[str],
    weights: Sequence[str] = (),
    opts: Sequence[str] = (),
    peer: bool = True,
    precisions: Sequence[str] = (),
    compile: bool = False,
) -> list[PoseModel]:
    """Read the configs of the compared models.

    Args:
        config_files: YAML files.
        weights: a checkpoint for each of them, or none at all.
        opts: overrides for all of them, KEY VALUE KEY VALUE ...
        peer: whether to append detectron2's Keypoint R-CNN.
        precisions: append each model, and the peer, optimized for inference in each of these precisions.
        compile: compile the optimized models.

    Raises:
        ConfigError: a config is invalid, or the number of weights is not that of the configs.
    """
    if weights and len(weights) != len(config_files):
        raise ConfigError(f"{len(weights)} --weights for {len(config_files)} --config-file: give one for each, or none")
    models, name = [], Names()
    for file, checkpoint in zip(config_files, weights or [""] * len(config_files)):
        cfg = load_config(file, opts)
        models.append(PoseModel(name(cfg, file), cfg, checkpoint))
    if peer:
        models.append(PoseModel(PEER_NAME, configs.peer_config()))
    if not models:
        raise ConfigError("nothing to measure: give a --config-file, or omit --no-peer")
    return models + [model.optimized(precision, compile) for precision in precisions for model in models]


@torch.no_grad()
def settle_norms(model: nn.Module) -> None:
    """Set the statistics of batch normalisation from one image of noise, with one detection injected into it.

    Args:
        model: in eval mode, of a registered method.
    """
    with settling_norms(model), inject_detections(model, 1, SETTLING_SIZE):
        model([{"image": _noise(SETTLING_SIZE, seed=0).to(model.device)}])


def _noise(size, seed):
    """An image in the format of detectron2's model inputs: (3, H, W) float32 in 0 .. 255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, *size), generator=generator).float()


class BuiltModels:
    """Models that are built once per process, each with an adjustable number of people.

    A copy sent to another process builds them again.

    Args:
        models: the models.
        device: to run on.
        image_size: height and width of the images, pixels.
    """

    def __init__(self, models: list[PoseModel], device: torch.device, image_size: tuple[int, int]):
        self._models = {model.name: model for model in models}
        self._device, self._image_size = device, image_size
        self._built: dict[str, nn.Module] = {}
        self._people: dict[str, tuple[int, contextlib.ExitStack]] = {}

    def __getstate__(self):
        return {**self.__dict__, "_built": {}, "_people": {}}

    def names(self) -> list[str]:
        """The models' names."""
        return list(self._models)

    def __getitem__(self, name: str) -> nn.Module:
        """Return a model without injected detections."""
        self._remove_people(name)
        if name not in self._built:
            self._built[name] = self._models[name].build(self._device)
        return self._built[name]

    def with_people(self, name: str, num_people: int) -> nn.Module:
        """Return a model that detects ``num_people`` people, until another number is requested."""
        if name not in self._people or self._people[name][0] != num_people:
            model, context = self[name], contextlib.ExitStack()
            context.enter_context(inject_detections(model, num_people, self._image_size))
            self._people[name] = num_people, context
        return self._built[name]

    def count_flops(self, name: str, numbers: Sequence[int]) -> dict[int, float]:
        """Count FLOPs as ``dynpose model-info`` does, for each number of people."""
        counted = count_flops_with_people(self[name], self._image_size, numbers)
        return {number: flops.total for number, flops in counted.items()}

    def _remove_people(self, name):
        if name in self._people:
            self._people.pop(name)[1].close()


class Inputs(NamedTuple):
    """The inputs of one call."""

    image: torch.Tensor  # (3, H, W)


@dataclass
class ModelCase:
    """One image with N people: from its pixels on the device to their poses.

    A case of :mod:`dynpose.benchmark.measure`, which compares the models by name.

    Attributes:
        models: the compared models.
        num_people: N.
        image_size: height and width, pixels.
        people_found: by model, the numbers of people in its outputs.
    """

    models: BuiltModels
    num_people: int
    image_size: tuple[int, int]
    people_found: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    dtype = torch.float32

    def make_inputs(self, device: torch.device, seed: int) -> Inputs:
        """Draw an image; the same for every device."""
        return Inputs(_noise(self.image_size, seed).to(device))

    @torch.no_grad()
    def run(self, name: str, inputs: Inputs) -> Instances:
        """Run a model once."""
        instances = self.models.with_people(name, self.num_people)([{"image": inputs.image}])[0]["instances"]
        self.people_found[name].add(len(instances))
        return instances
