"""COCO-like annotation files and images, for timing their readers and checks."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dynpose.data.known_schemas import known_schema

# pixels of every image; most of COCO's have this size
_WIDTH, _HEIGHT = 640, 480
_SMALLEST, _LARGEST = 20, 300  # sides of people's boxes, pixels
# Shares of the people: 57 % of the person annotations of COCO's train2017 have keypoints.
_LABELLED, _CROWDS = 0.6, 0.01
# width, height
_JPEG_SIZES = ((160, 120), (120, 160), (160, 160))


def write_annotation(json_file: Path, num_images: int, num_people: int, seed: int = 0) -> list[str]:
    """Write a COCO-like keypoint annotation, with people at random in images of 640 x 480 pixels.

    Every image has COCO's fields, and every person an id, a box, an area, a segmentation and the keypoints of COCO's
    schema. 60 % of the people have labelled keypoints; 1 % are crowds, with an uncompressed RLE instead of polygons.

    Args:
        json_file: file to write.
        num_images: number of images; some may have no people.
        num_people: number of people over all images.
        seed: of the random numbers.

    Returns:
        The file names of the images.
    """
    rng, schema = np.random.default_rng(seed), known_schema("coco")
    images = [_image(i) for i in range(1, num_images + 1)]
    image_ids = np.sort(rng.integers(1, num_images + 1, num_people)).tolist()
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(schema.names),
        "skeleton": [[first + 1, second + 1] for first, second in schema.skeleton],
    }
    annotations = [
        {"id": i, "image_id": image_id, "category_id": 1, **_person(rng, schema.num_keypoints)}
        for i, image_id in enumerate(image_ids, 1)
    ]
    json_file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return [image["file_name"] for image in images]


def write_images(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write small JPEG files of noise.

    Args:
        folder: to write to.
        count: number of files.

    Returns:
        A dataset dict for each in detectron2's format, with ``file_name``, ``width`` and ``height``.
    """
    rng, contents, records = np.random.default_rng(0), [], []
    for width, height in _JPEG_SIZES:
        content = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(content, "JPEG")
        contents.append(content.getvalue())
    for i in range(count):
        kind = i % len(_JPEG_SIZES)
        file, (width, height) = folder / f"{i:012d}.jpg", _JPEG_SIZES[kind]
        file.write_bytes(contents[kind])
        records.append({"file_name": str(file), "width": width, "height": height})
    return records


def _image(image_id):
    name = f"{image_id:012d}.jpg"
    return {
        "license": 4,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": _HEIGHT,
        "width": _WIDTH,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.staticflickr.com/6116/{image_id:010d}_0a1b2c3d4e_z.jpg",
        "id": image_id,
    }


def _person(rng, num_keypoints):
    """The annotation of one person; a crowd's box has integer pixels."""
    is_crowd = rng.random() < _CROWDS
    size = rng.uniform(_SMALLEST, _LARGEST, 2)
    corner = rng.uniform(0, (_WIDTH, _HEIGHT) - size)
    if is_crowd:
        size, corner = np.floor(size), np.floor(corner)
    box = np.concatenate([corner, size]).round(2)
    is_labelled = not is_crowd and rng.random() < _LABELLED / (1 - _CROWDS)
    keypoints = _keypoints(rng, box, num_keypoints) if is_labelled else np.zeros((num_keypoints, 3), np.int64)
    polygons = [] if is_crowd else _polygons(rng, box)
    area = box[2] * box[3] if is_crowd else sum(_polygon_area(polygon) for polygon in polygons)
    return {
        "segmentation": _rle(*box.astype(int).tolist()) if is_crowd else [p.ravel().tolist() for p in polygons],
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "area": round(float(area), 4),
        "iscrowd": int(is_crowd),
        "keypoints": keypoints.ravel().tolist(),
        "bbox": box.tolist(),
    }


def _keypoints(rng, box, num_keypoints):
    """(K, 3) integers; the first keypoint is always labelled, the others with probability 2/3."""
    points = np.floor(box[:2] + rng.random((num_keypoints, 2)) * box[2:])
    visibility = rng.integers(0, 3, (num_keypoints, 1))
    visibility[0] = 2
    return (np.concatenate([points, visibility], axis=1) * (visibility > 0)).astype(np.int64)


def _polygons(rng, box):
    """One or two polygons within a box, side by side: (P, 2) each, rounded to two decimals."""
    count = int(rng.integers(1, 3))
    width, height = box[2] / count, box[3]
    polygons = []
    for part in range(count):
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(12, 32)))
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.6, 1, (len(angles), 1))
        left, top = box[0] + part * width, box[1]
        polygons.append(((left, top) + (1 + directions) / 2 * (width, height)).round(2))
    return polygons


def _polygon_area(polygon):
    x, y = polygon.T
    return abs(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0]) / 2


def _rle(x, y, width, height):
    """The RLE of a rectangle of integer pixels: COCO's runs are in column-major order."""
    runs = [x * _HEIGHT + y, height, *[_HEIGHT - height, height] * (width - 1)]
    return {"counts": [*runs, _WIDTH * _HEIGHT - sum(runs)], "size": [_HEIGHT, _WIDTH]}
