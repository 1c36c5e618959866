"""Hostile data sets: a small one that is sound, and seeded ways to spoil its annotation, its images and its file names.

A case is a data set on disk. ``attempt`` loads and maps it as a training run does, under watch: every opened file is
noted, and a case that takes too long ends the tests with a traceback.
"""

import copy
import faulthandler
import json
import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from detectron2.data import transforms as T
from PIL import Image
from pycocotools import mask as mask_util

from dynpose.data import (
    DatasetError,
    KeypointSchema,
    PoseDatasetMapper,
    RandomAffine,
    RandomCropKeepingPeople,
    check_images,
    load_pose_json,
)
from dynpose.data.categories import select_classes
from dynpose.data.coco_json import read_coco_json
from dynpose.data.transforms import ResizeShortestEdge

# Seconds that a case may take; the largest image takes one
TIME_LIMIT = 30
NAMES = ["nose", "left_wrist", "right_wrist"]


class HostileFiles:
    """``images/`` and ``people.json`` in a folder, beside images that must not be read."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.image_root = self.folder / "images"
        self.json_file = self.folder / "people.json"
        (self.image_root / "night").mkdir(parents=True)
        (self.folder / "images_of_others").mkdir()
        for name in ("secret.png", "images_of_others/a.png"):
            Image.new("RGB", (40, 30)).save(self.folder / name)
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.image_root / "a.png")
        Image.fromarray(pixels).save(self.image_root / "night" / "b.jpg")

    def write(self, data):
        """Write the annotation: bytes as they are, anything else as JSON."""
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.json_file.write_bytes(content)


def sound_annotation():
    """An annotation of the two images that uses all that the format has."""
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[3:9, 4:20] = 1
    rle = mask_util.encode(mask)
    person = {"image_id": 7, "category_id": 5, "iscrowd": 0, "area": 300.0, "bbox": [10, 5, 24, 20]}
    return {
        "info": {"description": "people"},
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "night/b.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 5, "name": "person", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}],
        "annotations": [
            {**person, "id": 11, "keypoints": [15, 8, 2, 12, 20, 2, 30, 21, 1]},
            {**person, "id": 12, "keypoints": [0] * 9, "segmentation": [[12, 6, 30, 7, 20.5, 24]]},
            {
                **person,
                "id": 13,
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": [123, 6, *([24, 6] * 15), 621]},
            },
            {
                **person,
                "id": 14,
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": rle["counts"].decode()},
            },
            {
                **person,
                "id": 15,
                "image_id": 3,
                "bbox": [0.5, 0.5, 39.0, 29.0],
                "keypoints": [1, 1, 2, 9, 9, 1, 0, 0, 0],
            },
        ],
    }


# Replacements for a value of the file
HOSTILE_VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, -0.0, 0.5, 1e-320, 1e7, -1e9, 1e39, 1e308, -1e308),
    *(float("nan"), float("inf"), -float("inf"), 65536, 2**31, 2**32, 2**63, 2**64, 10**19, 10**30, -(10**400)),
    *("", "x", "0", "7", "NaN", "1e999", "\ud800", "\0", "a\nb", "é" * 50, "o" * 5000, "PPYo0", "0" * 5000),
    *(
        "../secret.png",
        "/dev/zero",
        "night/../../secret.png",
        "night/../a.png",
        "./a.png",
        "a.png/",
        ".",
        "..",
        "night",
    ),
    *("file:///etc/passwd", "http://localhost:9/a.png", "detectron2://a.png", "~/a.png", "$HOME", "%2e%2e/secret.png"),
    *(
        [],
        [[]],
        [None],
        [[[]]],
        [float("nan")] * 4,
        [0, 0, 0, 0],
        [10, 5, -24, 20],
        [1e308] * 4,
        ["10", "5", "24", "9"],
    ),
    *({}, {"id": 7}, {"size": 5}, {"size": [30, 40]}, {"size": [30, 40], "counts": None}),
    *({"size": [30, 40], "counts": []}, {"size": [30, 40], "counts": [-1, 1201]}, {"size": "30", "counts": "x"}),
    *({"size": [30, 40], "counts": [2**63]}, {"size": [30, 40], "counts": "o" * 5000}),
    *({"size": [30, 40], "counts": "\ud800"}, {"size": [40, 30], "counts": [1200]}),
    *([["1", "1", "9", "1", "9", "9"]], [[1e9, 0, 0, 1e9, 5, 5]], [[0, 0, 40, 30] * 2000]),
    *([[1, 1, 9, 1, 9, 10**400]], [[1, 2]] * 99, [[0, 0, 1e-300, 0, 0, 1]]),
)


def spoil_annotation(rng):
    """The annotation with one to three values replaced, taken out, repeated or exchanged.

    Args:
        rng (random.Random)
    """
    data = sound_annotation()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        container, key = rng.choice([place for place in _places(data) if place[1] != "info"])
        kind = rng.randrange(10)
        if kind < 6:
            container[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
        elif kind < 7:
            del container[key]
        elif kind < 8 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind < 9:
            other, other_key = rng.choice(list(_places(data)))
            container[key] = copy.deepcopy(other[other_key])
        else:
            container[key] = {"x": [copy.deepcopy(container[key])]} if rng.random() < 0.5 else [container[key]]
    return data


def spoil_bytes(content, rng):
    """A file that is cut off, or has bytes changed, taken out or put in."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind, at = rng.randrange(5), rng.randrange(max(1, len(content)))
        if kind == 0:
            del content[at:]
        elif kind == 1 and content:
            content[at % len(content)] = rng.randrange(256)
        elif kind == 2:
            del content[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            content[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            content[at:at] = content[at : at + rng.randrange(1, 200)]
    return bytes(content)


def _places(data):
    """(container, key) of all values in a tree."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield data, key
        yield from _places(value)


_AUGMENTATIONS = (
    (),
    (ResizeShortestEdge((16, 48), 64, sample_style="range"), T.RandomFlip()),
    (RandomCropKeepingPeople("relative_range", (0.3, 0.3)), ResizeShortestEdge((32,), 64, sample_style="choice")),
    (RandomAffine(64), T.RandomFlip()),
)


def attempt(files, seed=0):
    """Load, check and map a data set.

    Args:
        files (HostileFiles)
        seed (int): of the augmentation.

    Returns:
        str: "loaded", or the message of the DatasetError.

    Raises:
        AssertionError: a file outside the image folder was opened, values are not finite or out of range, or the
            message does not name a file.
        Exception: any other that the code raises.
    """
    with _time_limit(), opened_files() as opened:
        try:
            _load_and_map(files, seed)
            result = "loaded"
        except DatasetError as error:
            result = str(error)
            assert str(files.json_file) in result or str(files.image_root) in result, result
            assert "\n" not in result or "Image size" in result, result
    allowed = {os.path.realpath(files.json_file)}
    root = os.path.realpath(files.image_root) + os.sep
    outside = [path for path in opened if path not in allowed and not path.startswith(root)]
    outside = [path for path in outside if not path.startswith(_OURS)]
    assert not outside, f"opened outside of the image folder: {outside}"
    return result


# Python's own files, opened by imports
_OWN = (sys.prefix, sys.base_prefix + "/lib", Path(__file__).parents[2], "/proc/self")
_OURS = tuple(os.path.realpath(folder) + os.sep for folder in _OWN)


def _load_and_map(files, seed):
    json_file, image_root = str(files.json_file), str(files.image_root)
    classes = select_classes(read_coco_json(json_file, required=("categories",)), json_file)
    schema = KeypointSchema.from_category(classes[0].category, source=json_file)
    records = load_pose_json(json_file, image_root)
    check_images(records)
    np.random.seed(seed)
    for augmentations in _AUGMENTATIONS:
        mapper = PoseDatasetMapper(
            True, augmentations=augmentations, image_format="BGR", schema=schema, ignore_masks=True
        )
        for record in records:
            check_sample(mapper(record), schema, len(classes))


def check_sample(sample, schema, num_classes):
    """What every loss relies on."""
    image, instances = sample["image"], sample["instances"]
    height, width = image.shape[1:]
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    assert instances.image_size == (height, width)
    assert sample["ignore_mask"].shape == (height, width)
    boxes, keypoints = instances.gt_boxes.tensor, instances.gt_keypoints.tensor
    assert keypoints.shape == (len(instances), schema.num_keypoints, 3)
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(keypoints).all()
    assert (boxes >= 0).all()
    assert (boxes <= boxes.new_tensor([width, height, width, height])).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    assert ((instances.gt_classes >= 0) & (instances.gt_classes < num_classes)).all()
    labelled = keypoints[..., 2] > 0
    assert (keypoints[~labelled] == 0).all()
    inside = (keypoints[..., 0] >= 0) & (keypoints[..., 0] < width) & (keypoints[..., 1] >= 0)
    assert (inside & (keypoints[..., 1] < height))[labelled].all()
    areas = instances.gt_areas
    assert torch.isfinite(areas).all()
    assert (areas >= 0).all()


@contextmanager
def opened_files():
    """Real paths of the files that this process opens in the block."""
    opened = []
    _watchers.append(opened)
    try:
        yield opened
    finally:
        _watchers.remove(opened)


_watchers = []


def _watch(event, arguments):
    if _watchers and event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        for opened in _watchers:
            opened.append(path)
    elif _watchers and event in ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        for opened in _watchers:
            opened.append(f"{event} {arguments}")


# An audit hook can't be taken out again: without a watcher it does nothing
sys.addaudithook(_watch)


@contextmanager
def _time_limit():
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def images_of_every_kind():
    """(file name, image) of 40 x 30 pixels of every kind that people have."""
    rgb = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    grey = rgb[..., 0]
    picture = Image.fromarray(rgb)
    yield "rgb.png", picture
    yield "rgb.bmp", picture
    yield "rgb.webp", picture
    yield "rgb.gif", picture.convert("P")
    yield "rgb.tif", picture
    yield "grey.png", Image.fromarray(grey)
    yield "grey.jpg", Image.fromarray(grey)
    yield "one_bit.png", Image.fromarray(grey).convert("1")
    yield "grey_alpha.png", picture.convert("LA")
    yield "alpha.png", picture.convert("RGBA")
    yield "palette.png", picture.convert("P")
    yield "cmyk.jpg", picture.convert("CMYK")
    yield "cmyk.tif", picture.convert("CMYK")
    yield "ycbcr.jpg", picture.convert("YCbCr")
    yield "lab.tif", picture.convert("LAB")
    yield "sixteen_bit.png", Image.fromarray(grey.astype(np.uint16) * 257)
    yield "sixteen_bit.tif", Image.fromarray(grey.astype(np.uint16) * 257)
    yield "integers.tif", Image.fromarray(grey.astype(np.int32))
    yield "floats.tif", Image.fromarray(grey / np.float32(math.pi))
    yield "postscript.eps", picture
    yield "portable.ppm", picture
