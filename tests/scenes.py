"""Scenes for figures: a model's people and intermediate results of one image of random pixels."""

import numpy as np
import torch

from dynpose.modeling.detections import Detections
from dynpose.modeling.figures import Scene
from dynpose.utils.intermediate import collect_intermediates


def pixels(height=96, width=128, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene_of(model, size=(96, 128), **fields):
    """The scene of a model in eval mode; its input is the image itself."""
    image = pixels(*size)
    with torch.no_grad(), collect_intermediates() as values:
        images = model.preprocess_image([{"image": torch.from_numpy(image.transpose(2, 0, 1).copy())}])
        people = model.detect(images.tensor, torch.tensor([size]))
    fields = {"score_threshold": 0.0, "to_image": np.eye(3)[:2], **fields}
    return Scene(image=image, name="x.jpg", schema=model.schema, people=people, values=values, model=model, **fields)


def plain_scene(image, to_image=None, schema=None, scores=()):
    """A scene of people without boxes and keypoints."""
    number = len(scores)
    people = Detections(
        torch.zeros(number, dtype=torch.int64),
        torch.zeros(number, 4),
        torch.tensor(scores),
        torch.zeros(number, dtype=torch.int64),
        torch.zeros(number, 1, 3),
    )
    return Scene(image, "street.jpg", schema, people, np.eye(3)[:2] if to_image is None else to_image, {}, None)


def drawn(figure, scene):
    """Draw a figure and check that it is a picture."""
    picture = figure.draw(scene)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    # more than a white page
    assert (picture != 255).mean() > 0.1
    return picture
