"""A part of a model beside alternatives to it, over the number of people, as in Figure 5b of the CID paper."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dynpose.benchmark.measure import measure, progress
from dynpose.benchmark.settings import Settings
from dynpose.config import ConfigError
from dynpose.methods import PartBenchmark
from dynpose.profiling.inject_detections import require_method, spread_boxes

from .case import BuiltModels, PoseModel


@dataclass
class PartCase:
    """A part of a model for an image with N people, and its alternatives.

    A case of :mod:`dynpose.benchmark.measure`, which compares them by name. Its inputs are tensors, those of the part.

    Attributes:
        models: has the model.
        model: its name.
        benchmark: the part and its alternatives.
        num_people: N.
        image_size: height and width, pixels.
    """

    models: BuiltModels
    model: str
    benchmark: PartBenchmark
    num_people: int
    image_size: tuple[int, int]
    _calls: Mapping[str, Callable[..., Iterable[torch.Tensor]]] = field(default_factory=dict, init=False, repr=False)

    dtype = torch.float32

    def __getstate__(self):
        return {**self.__dict__, "_calls": {}}

    def names(self) -> list[str]:
        """Names of the alternatives, the model's own part first."""
        return list(self._alternatives())

    def make_inputs(self, device: torch.device, seed: int) -> tuple[torch.Tensor, ...]:
        """Draw the part's inputs; the same for every device."""
        generator, boxes = torch.Generator().manual_seed(seed), spread_boxes(self.num_people, self.image_size)
        inputs = self.benchmark.make_inputs(self.models[self.model], boxes, self.image_size, generator)
        return tuple(tensor.to(device) for tensor in inputs)

    @torch.no_grad()
    def run(self, name: str, inputs: tuple[torch.Tensor, ...]) -> None:
        """Run an alternative once. Its results are dropped one after the other."""
        for _ in self._alternatives()[name](*inputs):
            pass

    def _alternatives(self):
        self._calls = self._calls or self.benchmark.alternatives(self.models[self.model])
        return self._calls


def compared_parts(models: Sequence[PoseModel]) -> dict[str, PartBenchmark]:
    """Return the part that has alternatives of each model, by the model's name, without optimized models.

    Raises:
        ConfigError: no model has any.
    """
    benchmarks = {
        model.name: require_method(model.architecture).part_benchmark for model in models if not model.precision
    }
    found = {name: benchmark for name, benchmark in benchmarks.items() if benchmark is not None}
    if not found:
        raise ConfigError(
            f"--alternatives: no part of {', '.join(benchmarks)} has alternatives to compare: omit it, or give a "
            "--config-file of a method that names some (part_benchmark in its entry, docs/adding_a_method.md)"
        )
    return found


def compare_parts(
    benchmarks: dict[str, PartBenchmark],
    models: BuiltModels,
    numbers: Sequence[int],
    image_size: tuple[int, int],
    settings: Settings,
) -> list[dict[str, Any]]:
    """Measure the parts and their alternatives.

    Args:
        benchmarks: of :func:`compared_parts`.
        models: all of them.
        numbers: of people.
        image_size: height and width, pixels.
        settings: of the run, applied.

    Returns:
        A row for each model: ``model``, ``part`` and ``cases``, a row for each number of people with the figures of the
        ``alternatives``.
    """
    clock, rows = settings.make_clock(), []
    for model, benchmark in benchmarks.items():
        cases = []
        for number in numbers:
            case = PartCase(models, model, benchmark, number, image_size)
            measured = measure(case, case.names(), settings.device, clock, settings.rounds)
            figures = {name: measurement.figures() for name, measurement in measured.items()}
            times = ", ".join(progress(*each) for each in figures.items())
            print(f"{benchmark.part} of {number} people: {times}", file=sys.stderr, flush=True)
            cases.append({"people": number, "alternatives": figures})
        rows.append({"model": model, "part": benchmark.part, "cases": cases})
    return rows
