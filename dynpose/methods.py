"""The registry of methods: the interface between a method and the generic packages.

Config, checkpoints, engine, tools and benchmarks name no method. A method registers a :class:`Method` when its package
is imported, and the generic packages look it up here. :func:`load_methods` imports the packages that come with dynpose,
so that a lookup finds their methods independently of earlier imports. An external method needs one import of its module
(docs/adding_a_method.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from torch import Generator, Tensor

__all__ = [
    "Figure",
    "KPNetBenchmark",
    "LossBenchmark",
    "Method",
    "PartBenchmark",
    "PublishedWeights",
    "ReleasedFormat",
    "add_registered_config",
    "find_library_weights",
    "find_method",
    "get_method",
    "load_methods",
    "register_config",
    "register_method",
    "register_weights",
    "register_weights_library",
    "registered_methods",
    "registered_weights",
]

# Packages that register methods when they are imported; by name, since a direct import would be circular
_PACKAGES = ["dynpose.modeling"]

_METHODS: dict[str, Method] = {}
_SHARED_CONFIGS: list[Callable[[CfgNode], None]] = []
_SHARED_WEIGHTS: dict[str, PublishedWeights] = {}
_LIBRARIES: list[Callable[[str], PublishedWeights | None]] = []


@dataclass(frozen=True)
class ReleasedFormat:
    """A checkpoint format that the authors of a method published.

    Attributes:
        name: name of the release, for messages.
        method: the meta-architecture that the weights load into.
        signature: key endings; the first registered format whose endings all occur is used.
        renames: (pattern, replacement) pairs; the first that matches a whole key is used.
        rows_per_keypoint: a pattern (``fnmatch``) of renamed parameters, and the total number of their rows for one
            keypoint.
        unused: patterns of keys without learned values.
        linear: renamed weights that are convolutions in the release and linear layers here.
        config: the configs that the weights load into, for messages.
        expects: model attributes required for the same results as in the release: name, value, and the config key that
            sets it.
    """

    name: str
    method: str
    signature: tuple[str, ...]
    renames: tuple[tuple[str, str], ...]
    rows_per_keypoint: tuple[str, int]
    unused: tuple[str, ...] = ()
    linear: tuple[str, ...] = ()
    config: str = ""
    expects: tuple[tuple[str, object, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A checkpoint that its authors published, which dynpose knows by name.

    Attributes:
        name: the value of MODEL.WEIGHTS that selects it.
        title: network and training data, for tables.
        file: its file in dynpose's part of the cache and in a mirror; with folders, its path in the whole cache. The
            suffix selects the format.
        link: address of the file, or of the page that leads to it.
        by_hand: how to get the file from ``link``, an instruction for people; "" = it can be downloaded.
        drive_id: ID of the file on Google Drive, which is downloaded instead of ``link``.
        hub_id: repository of timm on the Hugging Face Hub that holds the weights as model.safetensors.
        configs: names of the configs whose models it fills completely; () = it initialises a part of a model.
        ap: keypoint AP and split, as stated with the checkpoint; "" = not stated.
        backbone: class name of the backbone whose weights it holds; "" = another one, or a whole model.
        sha256: SHA-256 of the file, or its first digits; "" = not stated.
        licence: licence of the weights or, if they have none, of the code that they were published with.
    """

    name: str
    title: str
    file: str
    link: str
    by_hand: str = ""
    drive_id: str = ""
    hub_id: str = ""
    configs: tuple[str, ...] = ()
    ap: str = ""
    backbone: str = ""
    sha256: str = ""
    licence: str = ""


@dataclass(frozen=True)
class LossBenchmark:
    """A loss over given heatmaps that `dynpose benchmark kp-net` measures, forward and backward.

    Attributes:
        method: the method that uses the loss, for the title of the table.
        name: name of the loss.
        make_inputs: (benchmark, generator) -> tensors by name on the CPU; those that require gradients are float32.
        losses: (backend, **inputs) -> (N, K). Both callables are module-level functions, so that they can be pickled.
        num_instances: N.
        map_size: (H, W) of the heatmaps.
        num_keypoints: K.
    """

    method: str
    name: str
    make_inputs: Callable[[LossBenchmark, Generator], dict[str, Tensor]]
    losses: Callable[..., Tensor]
    num_instances: int
    map_size: tuple[int, int]
    num_keypoints: int = 17


@dataclass(frozen=True)
class KPNetBenchmark:
    """The generated networks of a method, for `dynpose benchmark kp-net`.

    Attributes:
        channels: channels of the features and of the hidden layers.
        cpu_instances: default numbers of instances for inference on a CPU, without those for which the grouped
            convolution takes gigabytes.
        num_sampled: positive locations that training samples from a batch; 0 = it does not sample, and the method is
            skipped in the extra measurements of first calls and of training with all positive locations.
        num_positives: approximate number of positive locations in a batch.
        losses: further losses over heatmaps.
    """

    channels: int
    cpu_instances: tuple[int, ...]
    num_sampled: int = 0
    num_positives: int = 0
    losses: tuple[LossBenchmark, ...] = ()


@dataclass(frozen=True)
class PartBenchmark:
    """A part of a model beside alternatives to it, for `dynpose benchmark model --alternatives`.

    Attributes:
        part: name of the part, for the titles of the tables.
        make_inputs: (model, boxes, (height, width), generator) -> the tensors that the part gets for one image of that
            size in pixels, on the CPU. ``boxes`` (N, 4) are those of the people, XYXY in pixels.
        alternatives: (model) -> the calls by name, that of the model itself first. A call takes the tensors, on the
            model's device, and iterates over its results, for some of the people at a time; each result is dropped
            before the next one.
    """

    part: str
    make_inputs: Callable[[Any, Tensor, tuple[int, int], Generator], tuple[Tensor, ...]]
    alternatives: Callable[[Any], Mapping[str, Callable[..., Iterable[Tensor]]]]


@dataclass(frozen=True)
class Figure:
    """A figure that `dynpose visualize` draws, such as one of the paper.

    Attributes:
        name: for ``--what``.
        shows: what is seen, one line.
        draw: scene (:class:`dynpose.modeling.figures.Scene`) -> (h, w, 3) uint8 RGB, the picture with its caption. It
            reads the intermediate results that the model provides (:mod:`dynpose.utils.intermediate`).
        missing: model -> why it has nothing to draw, in terms of the config; "" = it can be drawn.
        needs_person: whether it needs at least one person in the image.
    """

    name: str
    shows: str
    draw: Callable[[Any], Any]
    missing: Callable[[Any], str] = lambda model: ""
    needs_person: bool = True


@dataclass(frozen=True, kw_only=True)
class Method:
    """Everything that the generic packages need from a method. No field has a default: each method sets all of them.

    The model that a callable takes is of the method's own class.

    Attributes:
        name: name of the meta-architecture, as in ``cfg.MODEL.META_ARCHITECTURE``. Subclasses share the entry, except
            for the check of their number of classes.
        add_config: adds the method's config keys to a CfgNode, in place.
        num_classes_key: full name of the key that holds the number of classes; "" = the method has one class only.
        detection_limit_key: full name of the key that limits the instances in an image in inference; "" = no limit.
        released_formats: the checkpoints that the authors released; () = none. Of two formats with common keys, the
            more specific one comes first.
        published_weights: the checkpoints that the authors or others published; () = none. Each fills the model of all
            its configs.
        parts: the parts in a profile of inference: name of the part -> dotted paths of model attributes, modules or
            methods. They do not call one another. An attribute with a public name must be replaceable on the instance.
        inject_detections: (model, boxes) -> context manager. While it is entered, the model, in eval mode, detects
            exactly one instance for each box in every image. ``boxes`` (N, 4) are disjoint, XYXY in pixels of the
            network's input, on the model's device; N may be 0. Predictions are replaced as early as possible, so that
            as much as possible of the network, its decoding, NMS and keypoint branch runs, and through
            :func:`dynpose.modeling.injection.substitute`, so that the FLOPs of the replaced predictions are counted.
        count_network_flops: (model, (height, width)) -> part -> FLOPs of one generated network, for an image of that
            padded size. The model generates the parameters in ``model.controller``, whose output has a row for each
            network. None = the method generates no networks; the cost of an instance is then the difference between
            traces.
        kp_net_benchmark: the generated networks for `dynpose benchmark kp-net`; None = the method generates none, or
            the same ones as another method.
        part_benchmark: a part beside alternatives to it for `dynpose benchmark model --alternatives`; None = no part
            has any.
        figures: what `dynpose visualize` draws, with unique names; () = nothing.
    """

    name: str
    add_config: Callable[[CfgNode], None]
    num_classes_key: str
    detection_limit_key: str
    released_formats: tuple[ReleasedFormat, ...]
    published_weights: tuple[PublishedWeights, ...]
    parts: Mapping[str, Sequence[str]]
    inject_detections: Callable[[Any, Tensor], AbstractContextManager[Any]]
    count_network_flops: Callable[[Any, tuple[int, int]], dict[str, int]] | None
    kp_net_benchmark: KPNetBenchmark | None
    part_benchmark: PartBenchmark | None
    figures: tuple[Figure, ...]


def register_method(method: Method) -> None:
    """Register a method. A module calls this when it is imported.

    Raises:
        ValueError: a method of that name is already registered, a released format belongs to another method, or
            published weights name no config.
    """
    if method.name in _METHODS:
        raise ValueError(f"a method named {method.name!r} is already registered; choose another name")
    for released in method.released_formats:
        if released.method != method.name:
            raise ValueError(f"{released.name}: the format belongs to {released.method!r}, not to {method.name!r}")
    for weights in method.published_weights:
        if not weights.configs:
            raise ValueError(f"{weights.name}: weights of a method need a config that they fit")
    _METHODS[method.name] = method


def register_config(add_config: Callable[[CfgNode], None]) -> None:
    """Register config keys that several methods share.

    Args:
        add_config: adds the keys to a CfgNode, in place.
    """
    _SHARED_CONFIGS.append(add_config)


def register_weights(*weights: PublishedWeights) -> None:
    """Register weights that several methods share, such as a backbone's.

    Raises:
        ValueError: weights of that name are already registered.
    """
    for each in weights:
        if each.name in _SHARED_WEIGHTS:
            raise ValueError(f"weights named {each.name!r} are already registered; choose another name")
        _SHARED_WEIGHTS[each.name] = each


def register_weights_library(find: Callable[[str], PublishedWeights | None]) -> None:
    """Register a library whose weights are too many to be listed.

    Args:
        find: name -> the library's weights of that name, or None.
    """
    _LIBRARIES.append(find)


def load_methods() -> None:
    """Import the packages that register dynpose's methods."""
    for package in _PACKAGES:
        importlib.import_module(package)


def registered_methods() -> tuple[Method, ...]:
    """Return all methods in the order of their registration."""
    load_methods()
    return tuple(_METHODS.values())


def get_method(name: str) -> Method | None:
    """Return the method of exactly this meta-architecture, or None."""
    load_methods()
    return _METHODS.get(name)


def find_method(model_class: type) -> Method | None:
    """Return the method of a meta-architecture or of its nearest base class, or None."""
    load_methods()
    return next((_METHODS[cls.__name__] for cls in model_class.__mro__ if cls.__name__ in _METHODS), None)


def add_registered_config(cfg: CfgNode) -> None:
    """Add the shared keys and those of every method to a CfgNode, in place."""
    load_methods()
    for add_config in (*_SHARED_CONFIGS, *(method.add_config for method in _METHODS.values())):
        add_config(cfg)


def registered_weights() -> tuple[PublishedWeights, ...]:
    """Return the published weights: those of every method, then the shared ones."""
    load_methods()
    return tuple(weights for method in _METHODS.values() for weights in method.published_weights) + tuple(
        _SHARED_WEIGHTS.values()
    )


def find_library_weights(name: str) -> PublishedWeights | None:
    """Return the weights of a registered library by name, or None."""
    load_methods()
    return next((weights for find in _LIBRARIES if (weights := find(name)) is not None), None)
