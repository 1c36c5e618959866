"""A page of people, each beside its flipped copy as in training."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances
from PIL import Image

from dynpose.data import DatasetError, KeypointSchema, PoseDatasetMapper
from dynpose.utils import draw_poses
from dynpose.utils.text import draw_text, text_size

__all__ = ["MAX_PIXELS", "draw_page", "flipped"]

# Larger images are skipped: an image is decoded as a whole, which takes too much memory for one person
MAX_PIXELS = 25_000_000
# In pixels: the side of a picture, the gap around it, and the text
_CELL, _GAP, _TEXT = 480, 8, 15
# The margin around a person, relative to the sides of the box
_MARGIN = 0.3
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
# Before text that may be of a script written from the right, whose numbers would move to its end
_LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"


def draw_page(
    samples: Sequence[tuple[dict[str, Any], dict[str, Any], KeypointSchema]],
) -> tuple[Image.Image | None, list[str]]:
    """Draw people and their flipped copies side by side, with numbered keypoints and a legend of their names.

    The caption of a picture has the file, and says whether it is the image or its mirrored copy.

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
            pictures = [_picture(*flipped(record, person, schema, flip), schema) for flip in (False, True)]
            rows.append(list(zip(pictures, _captions(record))))
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
    """A picture with the person's limbs and the keypoint numbers, whose longer side is that of a cell."""
    drawn = Instances(people.image_size)
    drawn.pred_boxes = people.gt_boxes
    drawn.scores = people.gt_boxes.tensor.new_ones(len(people))
    drawn.pred_keypoints = people.gt_keypoints.tensor.clamp(max=10**6).clone()
    drawn.pred_keypoints[..., 2] = (drawn.pred_keypoints[..., 2] > 0).float()
    canvas = draw_poses(image, drawn, schema, show_scores=False)
    scale = _CELL / max(canvas.shape[:2])
    canvas = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for person in drawn.pred_keypoints.numpy():
        for number, (x, y, seen) in enumerate(person):
            if seen:
                at = (
                    round(x / image.shape[1] * canvas.shape[1] + 5),
                    round(y / image.shape[0] * canvas.shape[0]) - _TEXT,
                )
                draw_text(canvas, str(number), at, _TEXT, _WHITE, outline=_BLACK)
    return canvas


def _captions(record):
    """The captions of an image and of its mirrored copy."""
    # the name with its folder; it may have line ends
    name = " ".join("/".join(PurePath(record["file_name"]).parts[-2:]).split())
    return [_shortened(f"{_LEFT_TO_RIGHT}{word}: ", name) for word in ("as annotated", "mirrored")]


def _shortened(start, name):
    """A caption without so much of the middle of a name that it fits above a picture."""
    kept = name
    while text_size(start + kept, _TEXT)[0] > _CELL and len(kept) > 3:
        half = (len(kept) - 2) // 2
        kept = f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
    return start + kept


def _compose(rows, schema):
    columns = 2 if len(rows) > 1 else 1
    lines = -(-len(rows) // columns)
    step, line_height = _CELL + _GAP, text_size("", _TEXT)[1]
    width = 2 * columns * step + _GAP
    legend = _wrap(_legend(schema), width - 2 * _GAP)
    row_height = step + line_height
    page = np.full((lines * row_height + _GAP + (len(legend) + 1) * line_height, width, 3), _WHITE, np.uint8)
    for i, pair in enumerate(rows):
        for side, (picture, caption) in enumerate(pair):
            x, y = _GAP + (2 * (i % columns) + side) * step, _GAP + i // columns * row_height
            draw_text(page, caption, (x, y), _TEXT, _BLACK)
            y += line_height
            page[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    for i, line in enumerate(legend):
        for x, word in line:
            draw_text(page, word, (_GAP + x, lines * row_height + _GAP + i * line_height), _TEXT, _BLACK)
    return Image.fromarray(page)


def _legend(schema):
    """The words of the legend: keypoint numbers with names, flip pairs together."""
    partner = schema.flip_indices
    words = []
    for number, name in enumerate(schema.names):
        if partner[number] == number:
            words.append(f"{_LEFT_TO_RIGHT}{number} {name}")
        elif partner[number] > number:
            pair = f"{name} <-> {_LEFT_TO_RIGHT}{partner[number]} {schema.names[partner[number]]}"
            words.append(f"{_LEFT_TO_RIGHT}{number} {pair}")
    return words


def _wrap(words, width):
    """Lines of (x, word). Words are placed one by one, as scripts of both directions would change their order."""
    lines, x = [[]], 0
    for word in words:
        end = x + text_size(word, _TEXT)[0]
        if end > width and lines[-1]:
            lines.append([])
            x, end = 0, end - x
        lines[-1].append((x, word))
        x = end + 2 * _TEXT
    return lines
