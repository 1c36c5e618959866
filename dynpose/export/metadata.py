"""What a file says of itself: the JSON in it that :mod:`dynpose.runtime` reads."""

from __future__ import annotations

import json
import os
from typing import Any

from detectron2.config import CfgNode

from dynpose.checkpoint.published import find_weights
from dynpose.data import KeypointSchema, build_pose_augmentation
from dynpose.data.affine import AffineResize
from dynpose.version import __version__

from .network import INPUTS, OUTPUTS

__all__ = ["FORMAT", "KEY", "file_metadata", "licence_of"]

FORMAT = 1
"""Version of the JSON's layout."""
KEY = "dynpose"
"""Name under which a file holds the JSON."""


def file_metadata(
    cfg: CfgNode,
    model: Any,
    schema: KeypointSchema,
    *,
    max_people: int,
    precision: str,
    class_names: list[str],
    config_name: str = "",
    flip: bool = False,
) -> str:
    """Describe an exported model.

    Args:
        cfg: the model's; INPUT's keys describe the resize of an image.
        model: a module that has ``backbone.size_divisibility``, ``pixel_mean`` and ``pixel_std``.
        schema: the K keypoints.
        max_people: P of the outputs.
        precision: "float32", "float16", "bfloat16" or "int8".
        class_names: names of the classes, [] if they are unknown.
        config_name: name of the config, "" if it has none.
        flip: whether the graph averages an image with its mirror image.

    Returns:
        JSON. ``input.rule`` is "shortest_edge" (detectron2's ResizeShortestEdge; a ``min_size`` of 0 resizes nothing),
        or ``{"name": "affine", "multiple": int}`` (:class:`~dynpose.data.affine.AffineResize`). ``score_threshold`` is
        0: the graph applies the config's threshold. ``original_shift`` is added to x and y at the scale of the original
        image: the half pixel of a model that works in pixel indices.
    """
    described = {
        "format": FORMAT,
        "dynpose": __version__,
        "method": cfg.MODEL.META_ARCHITECTURE,
        "config": config_name,
        "licence": licence_of(cfg.MODEL.WEIGHTS),
        "class_names": list(class_names),
        "keypoint_names": list(schema.names),
        "skeleton": [list(map(int, edge)) for edge in schema.skeleton],
        "flip_pairs": [list(pair) for pair in schema.flip_pairs],
        "sigmas": [float(sigma) for sigma in schema.sigmas],
        "input": _input(cfg, model),
        "normalisation": {
            "mean": [float(value) for value in model.pixel_mean.flatten()],
            "std": [float(value) for value in model.pixel_std.flatten()],
            "inside": True,
        },
        "flip": flip,
        "max_people": max_people,
        "precision": precision,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "score_threshold": 0.0,
        "original_shift": float(getattr(model, "original_shift", 0.0)),
    }
    return json.dumps(described)


def licence_of(weights: str) -> str:
    """The licence of weights that dynpose knows by name; "unknown" for all others, whose files state none.

    Args:
        weights: a value of MODEL.WEIGHTS.
    """
    published = None if not weights or os.path.isfile(weights) else find_weights(weights)
    return (published.licence if published is not None else "") or "unknown"


def _input(cfg: CfgNode, model: Any) -> dict[str, Any]:
    described = {
        "channels": cfg.INPUT.FORMAT,
        "size_divisibility": max(1, int(model.backbone.size_divisibility)),
        "min_size": int(cfg.INPUT.MIN_SIZE_TEST),
        "max_size": int(cfg.INPUT.MAX_SIZE_TEST),
        "rule": "shortest_edge",
    }
    for resize in build_pose_augmentation(cfg, is_train=False):
        if isinstance(resize, AffineResize):
            described["rule"] = {"name": "affine", "multiple": resize.multiple}
    return described
