"""What an exported file says about its model: JSON in its metadata property ``dynpose``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynpose.checkpoint.errors import CheckpointError
from dynpose.data.schema import DatasetError, KeypointSchema

from .resizing import AffineCanvas, ShortestEdge

__all__ = ["FORMAT", "PROPERTY", "ExportMetadata"]

FORMAT = 1
"""Version of the metadata that this dynpose reads."""
PROPERTY = "dynpose"
"""Name of the file's metadata property."""

_OUTPUTS = ("boxes", "scores", "classes", "keypoints", "counts")
_RULES = ("shortest_edge", "affine")


@dataclass(frozen=True)
class ExportMetadata:
    """The description of an exported model.

    Attributes:
        dynpose (str): version that wrote the file.
        method (str): name of the meta-architecture.
        config (str): name of the model's config; "" if unknown.
        licence (str): of the weights.
        class_names (tuple[str, ...]): in the order of the class indices; () if unknown.
        schema (KeypointSchema): the keypoints.
        channels (str): order of the input's channels, "BGR" or "RGB".
        size_divisibility (int): height and width of the input are multiples of it.
        resize (ShortestEdge | AffineCanvas): how an image becomes an input.
        max_people (int): P, the bound of people per image.
        precision (str): of the network, such as "float32".
        inputs, outputs (tuple[str, ...]): names of the inputs ``images`` and ``image_sizes``, and of the outputs
            ``boxes``, ``scores``, ``classes``, ``keypoints`` and ``counts``.
        score_threshold (float): minimum score that the config states for the predictions, which the file applies.
        original_shift (float): added to x and y of boxes and keypoints in pixels of the original image.
    """

    dynpose: str
    method: str
    config: str
    licence: str
    class_names: tuple[str, ...]
    schema: KeypointSchema
    channels: str
    size_divisibility: int
    resize: ShortestEdge | AffineCanvas
    max_people: int
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    score_threshold: float
    original_shift: float = 0.0

    @classmethod
    def from_json(cls, text: str | None, source: str) -> ExportMetadata:
        """Read the metadata property of a file.

        Args:
            text (str | None): its value; None = the file has none.
            source (str): the file, for messages.

        Raises:
            CheckpointError: the file is no dynpose export, a later version wrote it, or its metadata are damaged.
        """
        if text is None:
            raise CheckpointError(
                f"{source}: it is not a dynpose export (it has no metadata property {PROPERTY!r}); write one with "
                "dynpose export"
            )
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise CheckpointError(_of_another_format(values, source))
            return cls._from_values(values)
        except CheckpointError:
            raise
        except KeyError as error:
            reason = f"{error.args[0]!r} is missing"
        except (ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
        raise CheckpointError(f"{source}: its metadata property {PROPERTY!r} is damaged ({reason}); export it again")

    @classmethod
    def _from_values(cls, values):
        rule = values["input"]
        if rule["channels"] not in ("BGR", "RGB"):
            raise ValueError(f"channels {rule['channels']!r} are neither BGR nor RGB")
        if len(values["inputs"]) != 2 or len(values["outputs"]) != len(_OUTPUTS):
            raise ValueError(f"{len(values['inputs'])} inputs and {len(values['outputs'])} outputs, not 2 and 5")
        return cls(
            dynpose=values["dynpose"],
            method=values["method"],
            config=values["config"],
            licence=values["licence"],
            class_names=tuple(values["class_names"]),
            schema=_schema(values),
            channels=rule["channels"],
            size_divisibility=max(1, int(rule["size_divisibility"])),
            resize=_resize(rule),
            max_people=int(values["max_people"]),
            precision=values["precision"],
            inputs=tuple(values["inputs"]),
            outputs=tuple(values["outputs"]),
            score_threshold=float(values["score_threshold"]),
            original_shift=float(values.get("original_shift", 0.0)),
        )


def _of_another_format(values, source):
    written = f"dynpose {values.get('dynpose', '?')} wrote its metadata, of format {values['format']}"
    known = f"this version reads format {FORMAT}"
    return f"{source}: {written}; {known}: pip install --upgrade dynpose, or export it again"


def _schema(values):
    try:
        return KeypointSchema(
            names=values["keypoint_names"],
            flip_pairs=values["flip_pairs"],
            skeleton=values["skeleton"],
            sigmas=values["sigmas"],
        )
    except DatasetError as error:
        raise ValueError(str(error)) from None


def _resize(rule):
    """The resize that the metadata state: a name, or a name with its parameters."""
    stated = rule["rule"]
    parameters: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {"name": stated}
    if parameters["name"] not in _RULES:
        raise ValueError(f"its resize {parameters['name']!r} is none of {', '.join(_RULES)}")
    if parameters["name"] == "affine" and rule["min_size"] > 0:
        return AffineCanvas(rule["min_size"], rule["max_size"], int(parameters["multiple"]))
    return ShortestEdge(int(rule["min_size"]), int(rule["max_size"]))
