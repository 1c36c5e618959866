"""A model, its optimized copy and its exported file: the case of one image with N people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from dynpose.benchmark.model.case import Inputs, ModelCase, PoseModel
from dynpose.config import ConfigError, read_key
from dynpose.data import schema_from_cfg
from dynpose.export import ExportNetwork, file_metadata
from dynpose.export.capture import captured_at
from dynpose.export.onnx_file import write_onnx
from dynpose.export.quiet import quiet
from dynpose.runtime.sessions import Session, open_session
from dynpose.utils.padding import padded_size


@torch.no_grad()
def write_with_people(model: nn.Module, source: PoseModel, image_size: tuple[int, int], path: Path) -> None:
    """Export a model into which people are injected, for images of one size.

    Args:
        model: of ``source``, with the injected people.
        source: its config.
        image_size: height and width, pixels.
        path: the .onnx file.

    Raises:
        ConfigError: the model can't be exported.
    """
    key = source.detection_limit_key
    if not key:
        raise ConfigError(f"{source.name}: no key limits the people in an image, which an exported file needs")
    network = ExportNetwork(model, read_key(source.cfg, key)).eval()
    size = padded_size(*image_size, _divisibility(model))
    example = torch.zeros(1, 3, *size), torch.tensor([image_size])
    # makes what is injected, which would be recorded piece by piece
    network(*example)
    program = captured_at(network, example)
    metadata = file_metadata(
        source.cfg,
        model,
        schema_from_cfg(source.cfg),
        max_people=network.max_people,
        precision="float32",
        class_names=[],
    )
    write_onnx(program, path, metadata)


class OpenedFile(Mapping[str, Session]):
    """An exported file in runtimes, which load it on first use.

    A copy sent to another process loads it again.

    Args:
        file: of a fixed number of people and image size.
        runtimes: their names.
        threads: of the CPU.
    """

    def __init__(self, file: Path, runtimes: Sequence[str], threads: int):
        self._file, self._runtimes, self._threads = file, tuple(runtimes), threads
        self._opened: dict[str, Session] = {}

    def __getstate__(self):
        return {**self.__dict__, "_opened": {}}

    def __getitem__(self, runtime: str) -> Session:
        """The session of a runtime."""
        if runtime not in self._runtimes:
            raise KeyError(runtime)
        if runtime not in self._opened:
            with quiet():
                self._opened[runtime] = open_session(self._file, threads=self._threads, runtime=runtime)
        return self._opened[runtime]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runtimes)

    def __len__(self) -> int:
        return len(self._runtimes)


@dataclass
class ExportedCase(ModelCase):
    """One image with N people, by models and by an exported file in its runtimes.

    Attributes:
        sessions: the file, of the same number of people and image size.
        divisibility: of the padded image.
    """

    sessions: Mapping[str, Session] = field(default_factory=dict)
    divisibility: int = 1

    def run(self, name: str, inputs: Inputs) -> Any:
        """Run a model or a runtime once."""
        if name not in self.sessions:
            return super().run(name, inputs)
        height, width = padded_size(*self.image_size, self.divisibility)
        image = pad(inputs.image, (0, width - self.image_size[1], 0, height - self.image_size[0]))
        outputs = self.sessions[name].run(image[None].numpy(), torch.tensor([self.image_size]).numpy())
        self.people_found[name].add(int(outputs[4][0]))
        return outputs


def _divisibility(model):
    return max(1, int(model.backbone.size_divisibility))
