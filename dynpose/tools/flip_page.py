"""A page of people, each beside its flipped copy as in training."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances
from PIL import Image, ImageDraw, ImageFont

from dynpose.data import DatasetError, KeypointSchema, PoseDatasetMapper
from dynpose.utils import draw_poses

__all__ = ["MAX_PIXELS", "draw_page", "flipped"]

# Larger images are skipped: an image is decoded as a whole, which takes too much memory for one person
MAX_PIXELS = 25_000_000
# In pixels: the side of a picture, the gap around it, and the text
_CELL, _GAP, _TEXT = 480, 8, 15
# The margin around a person, relative to the sides of the box
_MARGIN = 0.3
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def draw_page(
    samples: Sequence[tuple[dict[str, Any], dict[str, Any], KeypointSchema]],
) -> tuple[Image.Image | None, list[str]]:
    """Draw people and their flipped copies side by side, with numbered keypoints and a legend of their names.

    :class:`PoseDatasetMapper` makes the flipped copies, as in training.

    Args:
        samples (list[tuple]): (record, annotation, schema): the image as dataset dict, the person to show, and the
            keypoints, which are the same for all.

    Returns:
        tuple[Image | None, list[str]]: the page, None without pictures, and the reasons why people were skipped.
    """
    rows, skipped = [], []
    for record, person, schema in samples:
        try:
            rows.append([_picture(*flipped(record, person, schema, flip), schema) for flip in (False, True)])
        except DatasetError as error:
            skipped.append(str(error))
    return (_compose(rows, samples[0][2]) if rows else None), skipped


def flipped(
    record: dict[str, Any], person: dict[str, Any], schema: KeypointSchema, flip: bool
) -> tuple[np.ndarray, Instances]:
    """The mapper's output for a person.

    Args:
        record (dict): the image as dataset dict.
        person (dict): one of its annotations.
        schema (KeypointSchema)
        flip (bool): whether to flip the image.

    Returns:
        tuple[ndarray, Instances]: (H, W, 3) uint8 RGB, cropped around the person; and the person in the crop.
    """
    crop = _crop_around(person, record["height"], record["width"])
    mirror = [T.HFlipTransform(crop.w)] if flip else []
    mapper = PoseDatasetMapper(True, augmentations=[crop, *mirror], image_format="RGB", schema=schema)
    mapped = mapper({**record, "annotations": [person]})
    return mapped["image"].numpy().transpose(1, 2, 0), mapped["instances"]


def _crop_around(person, height, width):
    box = BoxMode.convert(person["bbox"], person["bbox_mode"], BoxMode.XYXY_ABS)
    points = np.reshape(person["keypoints"], (-1, 3))
    points = points[points[:, 2] > 0, :2]
    low, high = np.minimum(box[:2], points.min(axis=0)), np.maximum(box[2:], points.max(axis=0))
    margin = _MARGIN * (high - low) + 2
    low = np.clip(np.floor(low - margin), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(high + margin), low + 1, (width, height)).astype(int)
    return T.CropTransform(*low.tolist(), *(high - low).tolist())


def _picture(image, people, schema):
    """A square picture with the person's limbs and the keypoint numbers."""
    drawn = Instances(people.image_size)
    drawn.pred_boxes = people.gt_boxes
    drawn.scores = people.gt_boxes.tensor.new_ones(len(people))
    drawn.pred_keypoints = people.gt_keypoints.tensor.clamp(max=10**6).clone()
    drawn.pred_keypoints[..., 2] = (drawn.pred_keypoints[..., 2] > 0).float()
    canvas = draw_poses(image, drawn, schema, show_scores=False)
    scale = _CELL / max(canvas.shape[:2])
    canvas = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = Image.fromarray(canvas)
    writer, font = ImageDraw.Draw(picture), ImageFont.load_default(_TEXT)
    for person in drawn.pred_keypoints.numpy():
        for number, (x, y, seen) in enumerate(person):
            if seen:
                at = (x / image.shape[1] * canvas.shape[1] + 5, y / image.shape[0] * canvas.shape[0] - _TEXT)
                writer.text(at, str(number), _WHITE, font, stroke_width=2, stroke_fill=_BLACK)
    return picture


def _compose(rows, schema):
    legend = _legend(schema)
    columns = 2 if len(rows) > 1 else 1
    lines = -(-len(rows) // columns)
    step = _CELL + _GAP
    width = 2 * columns * step + _GAP
    font = ImageFont.load_default(_TEXT)
    legend = _wrap(legend, width - 2 * _GAP, font)
    page = Image.new("RGB", (width, lines * step + _GAP + (len(legend) + 1) * (_TEXT + 4)), _WHITE)
    for i, pair in enumerate(rows):
        for side, picture in enumerate(pair):
            page.paste(picture, (_GAP + (2 * (i % columns) + side) * step, _GAP + i // columns * step))
    writer = ImageDraw.Draw(page)
    for i, line in enumerate(legend):
        writer.text((_GAP, lines * step + _GAP + i * (_TEXT + 4)), line, _BLACK, font)
    return page


def _legend(schema):
    """The words of the legend: keypoint numbers with names, flip pairs together."""
    partner = schema.flip_indices
    words = []
    for number, name in enumerate(schema.names):
        if partner[number] == number:
            words.append(f"{number} {name}")
        elif partner[number] > number:
            words.append(f"{number} {name} <-> {partner[number]} {schema.names[partner[number]]}")
    return words


def _wrap(words, width, font):
    lines = [""]
    for word in words:
        longer = f"{lines[-1]}    {word}" if lines[-1] else word
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
