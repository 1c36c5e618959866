"""Figures of a model on an image, from the intermediate results of its prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import nn

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.data.any_image import ImageLike, is_url, to_bgr
from dynpose.methods import Figure, find_method
from dynpose.modeling.base_models import sizes_as_tensor
from dynpose.modeling.detections import Detections
from dynpose.modeling.figures import Scene
from dynpose.utils.intermediate import collect_intermediates

from .predictor import PosePredictor

__all__ = ["ALL", "PLAIN_INFERENCE", "FigureDrawer", "choose_figures", "figures_of"]

ALL = "all"


# Overrides of a config, with which each person has one set of maps: test-time augmentation merges the people of several
# views, and soft OKS-NMS reorders them
PLAIN_INFERENCE = ("TEST.AUG.ENABLED", "False", "TEST.SOFT_OKS_NMS.METHOD", "")


class FigureDrawer:
    """Draws the figures of a model's method.

    Args:
        predictor (PosePredictor): in float32, of a config with the overrides ``PLAIN_INFERENCE``.

    Raises:
        ConfigError: its precision or its config is another one.

    Example::

        >>> drawer = FigureDrawer(predictor)
        >>> pictures = drawer.draw("street.jpg", ["heatmaps"])
    """

    def __init__(self, predictor: PosePredictor):
        test = predictor.cfg.TEST
        if test.AUG.ENABLED or test.SOFT_OKS_NMS.METHOD:
            raise ConfigError(
                "TEST.AUG.ENABLED and TEST.SOFT_OKS_NMS.METHOD: figures are of one pass over one view; set them to "
                "False and ''"
            )
        if predictor.precision != "float32":
            raise ConfigError(
                f"the predictor computes in {predictor.precision}, and figures are of float32: make it with "
                'precision="float32"'
            )
        self.predictor = predictor

    def draw(
        self, image: ImageLike, names: Sequence[str], *, person: int = 1, score_threshold: float = 0.3
    ) -> dict[str, np.ndarray]:
        """Predict an image and draw figures.

        Args:
            image: see :class:`PosePredictor`.
            names: of figures, or ["all"]: those that the config and the image allow.
            person: of the figures of one person, by descending score, from 1.
            score_threshold: of the people in the figures of several.

        Returns:
            dict[str, ndarray]: name -> (h, w, 3) uint8 RGB, in the order of the method's figures.

        Raises:
            ConfigError: a figure is unknown, or missing for this config; there is no person of that rank.
            CheckpointError: the model predicts NaN or infinite values.
            DatasetError: the image can't be read.
        """
        figures = choose_figures(self.predictor.model, names)
        scene = self._scene(image, person - 1, score_threshold)
        if len(scene.people.scores) < person:
            figures = _without_person(figures, names, scene, person)
        return {figure.name: figure.draw(scene) for figure in figures}

    def _scene(self, image, person, score_threshold):
        predictor, model = self.predictor, self.predictor.model
        # once: an address may give another image the next time
        pixels = to_bgr(image)
        inputs = predictor.prepare(pixels)
        with torch.no_grad(), collect_intermediates() as values:
            images = model.preprocess_image([inputs])
            people = model.detect(images.tensor, sizes_as_tensor(images))
        people = Detections(*(value.float().cpu() if value.is_floating_point() else value.cpu() for value in people))
        if not all(value.isfinite().all() for value in (people.scores, people.boxes, people.keypoints)):
            raise CheckpointError(
                f"{predictor.cfg.MODEL.WEIGHTS}: the model predicts NaN or infinite values, as a diverged one; use "
                "earlier weights"
            )
        return Scene(
            image=np.ascontiguousarray(pixels[:, :, ::-1]),
            name=_name(image),
            schema=predictor.schema,
            people=people,
            to_image=_to_image(inputs, getattr(model, "original_shift", 0.0)),
            values={name: [value.cpu() for value in each] for name, each in values.items()},
            model=model,
            person=person,
            score_threshold=score_threshold,
        )


def figures_of(model: nn.Module) -> tuple[Figure, ...]:
    """All figures of a model's method; () if there are none."""
    method = find_method(type(model))
    return () if method is None else method.figures


def choose_figures(model: nn.Module, names: Sequence[str]) -> list[Figure]:
    """Choose figures by name.

    Args:
        model: of a registered method.
        names: of figures; "all" = those that the config allows.

    Raises:
        ConfigError: the method has no figures, a name is unknown, or the config does not allow a figure.
    """
    known = {figure.name: figure for figure in figures_of(model)}
    if not known:
        raise ConfigError(f"{type(model).__name__} has no figures: its method registers none")
    unknown = [name for name in names if name != ALL and name not in known]
    if unknown:
        raise ConfigError(
            f"--what {unknown[0]}: {type(model).__name__} has no such figure; known are {', '.join(known)} and {ALL}"
        )
    for name in names:
        reason = "" if name == ALL else known[name].missing(model)
        if reason:
            raise ConfigError(f"--what {name}: this config has nothing to draw: {reason}")
    return [figure for name, figure in known.items() if name in names or (ALL in names and not figure.missing(model))]


def _without_person(figures, names, scene, person):
    """The figures that need no person; an error if one of the others was asked for by its name, or none remains."""
    remaining = [figure for figure in figures if not figure.needs_person]
    number = len(scene.people.scores)
    if number or not remaining or any(figure.name in names and figure.needs_person for figure in figures):
        found = f"{number} people" if number != 1 else "1 person"
        remedy = "choose another image, or lower the threshold, the key of the config that contains SCORE_THRESH"
        if number:
            remedy = f"give a rank from 1 to {number}"
        raise ConfigError(f"--person {person}: the model finds {found} in {scene.name}; {remedy}")
    return remaining


def _name(image):
    """What a caption calls an image. The query of an address may hold a password."""
    if not isinstance(image, (str, os.PathLike)):
        return "given"
    return os.path.basename(urlsplit(image).path if is_url(image) else str(image))


def _to_image(inputs, shift):
    """Matrix (2, 3) from continuous pixels of the network's input to those of the image, as of the predictions."""
    if "to_original" in inputs:
        return np.asarray(inputs["to_original"], dtype=np.float64)
    height, width = inputs["image"].shape[1:]
    return np.array([[inputs["width"] / width, 0, shift], [0, inputs["height"] / height, shift]])
