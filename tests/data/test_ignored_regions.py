"""Masks of people who are not to be learnt, against pycocotools and hand computation."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from dynpose.data.ignored_regions import draw_ignored_regions, read_segmentation

HEIGHT, WIDTH = 6, 8
# Columns 2 to 4, rows 1 to 3
SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]
SQUARE_MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE_MASK[1:4, 2:5] = 1
# Run lengths go down the columns: two columns of 6 and one row, then three times 3 rows set and 3 not
SQUARE_RUNS = [13, 3, 3, 3, 3, 3, 20]


def person(segmentation=None, *, visibility=0, iscrowd=0, bbox=(2, 1, 3, 3)):
    annotation = {"bbox": list(bbox), "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": iscrowd, "category_id": 0}
    annotation["keypoints"] = [3.5, 2.5, visibility]
    return annotation if segmentation is None else {**annotation, "segmentation": segmentation}


def compressed(mask, as_text):
    rle = mask_util.encode(np.asfortranarray(mask))
    return {**rle, "counts": rle["counts"].decode()} if as_text else rle


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [[2, 1, 5, 1, 5, 2, 2, 2], [2, 2, 5, 2, 5, 4, 2, 4], [0, 0, 1, 1]],  # two halves, and a line
        [np.array(SQUARE, np.float32)],
        {"size": [HEIGHT, WIDTH], "counts": SQUARE_RUNS},
        compressed(SQUARE_MASK, as_text=True),
        compressed(SQUARE_MASK, as_text=False),
    ],
)
def test_every_kind_of_segmentation(segmentation):
    assert np.array_equal(draw_ignored_regions([person(segmentation)], HEIGHT, WIDTH), SQUARE_MASK)


def test_who_is_drawn():
    def is_drawn(annotation):
        return bool(draw_ignored_regions([annotation], HEIGHT, WIDTH).any())

    assert is_drawn(person([SQUARE]))
    assert not is_drawn(person([SQUARE], visibility=1))
    assert is_drawn(person([SQUARE], visibility=2, iscrowd=1))
    assert not is_drawn(person())
    assert not is_drawn(person([[1, 1, 2, 2]]))  # two points
    without_keypoints = person([SQUARE])
    del without_keypoints["keypoints"]
    assert is_drawn(without_keypoints)
    assert draw_ignored_regions([], HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)


def test_crowd_without_segmentation_is_its_box():
    assert np.array_equal(draw_ignored_regions([person(iscrowd=1)], HEIGHT, WIDTH), SQUARE_MASK)
    # Pixels whose centres are inside; the rest of the box is outside the image
    mask = draw_ignored_regions([person(iscrowd=1, bbox=(-3, 4.6, 5.6, 90))], HEIGHT, WIDTH)
    assert np.argwhere(mask).tolist() == [[5, 0], [5, 1], [5, 2]]


def test_several_are_joined():
    other = np.zeros_like(SQUARE_MASK)
    other[2:, 4:] = 1
    mask = draw_ignored_regions(
        [
            person([SQUARE]),
            person(compressed(other, True), iscrowd=1),
            person([[0, 0, 8, 0, 8, 6, 0, 6]], visibility=2),
        ],
        HEIGHT,
        WIDTH,
    )
    assert np.array_equal(mask, SQUARE_MASK | other)


def test_random_runs_are_accepted():
    """What pycocotools writes is read; a pixel more or less is not."""
    random = np.random.RandomState(0)
    for _ in range(50):
        height, width = random.randint(1, 60, 2)
        mask = (random.rand(height, width) > random.rand()).astype(np.uint8)
        rle = compressed(mask, as_text=random.rand() > 0.5)
        assert read_segmentation(rle, height, width) is rle
        assert np.array_equal(draw_ignored_regions([person(rle)], height, width), mask)
        with pytest.raises(ValueError, match="do not make"):
            read_segmentation({**rle, "size": [height, width + 1]}, height, width + 1)


@pytest.mark.skipif("DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data")
def test_real_runs_are_accepted():
    data = json.loads((Path(os.environ["DYNPOSE_TEST_DATA"]) / "data/ochuman/test_ochuman.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    areas = [
        draw_ignored_regions([person(annotation["segmentation"])], *sizes[annotation["image_id"]]).sum()
        for annotation in data["annotations"]
    ]
    assert areas == [mask_util.area(annotation["segmentation"]) for annotation in data["annotations"]]
    assert min(areas) > 0


RLE = {"size": [HEIGHT, WIDTH]}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("10,20", "^is '10,20', neither polygons nor an RLE"),
        ([1, 2, 3, 4, 5, 6], "^has a polygon that is not finite numbers x, y, x, y, ...: 1"),
        ([[1, 2, 3, 4, 5, 6, 7]], r"^has a polygon that is not .*: \[1, 2, 3, 4, 5, 6, 7\]"),
        ([SQUARE, [1, 2, float("nan"), 4, 5, 6]], "has a polygon .*nan"),
        ([[1, "a"] * 3], "has a polygon"),
        ([[[1, 2], [3]]], "has a polygon"),
        ([None], "has a polygon"),
        ({"counts": SQUARE_RUNS}, r"^is an RLE of size None, its image has \[height, width\] \[6, 8\]"),
        ({"size": [WIDTH, HEIGHT], "counts": SQUARE_RUNS}, r"of size \[8, 6\]"),
        (RLE, "counts are neither whole numbers nor a string: None"),
        ({**RLE, "counts": [1.5]}, "neither whole numbers"),
        ({**RLE, "counts": [[1], [2, 3]]}, "neither whole numbers"),
        ({**RLE, "counts": []}, "neither whole numbers"),
        ({**RLE, "counts": [*SQUARE_RUNS, 1]}, "do not make the 6 x 8 pixels of its image"),
        ({**RLE, "counts": [-2, *SQUARE_RUNS, 2]}, "do not make"),
        ({**RLE, "counts": "garbage!!"}, "a character in its counts that none has: 'r'"),
        ({**RLE, "counts": ""}, "cut off"),
        ({**RLE, "counts": compressed(SQUARE_MASK, True)["counts"][:-1]}, "cut off|do not make"),
        ({**RLE, "counts": "P"}, "cut off"),
    ],
)
def test_malformed(segmentation, message):
    with pytest.raises(ValueError, match=message):
        read_segmentation(segmentation, HEIGHT, WIDTH)


@pytest.mark.parametrize("segmentation", [None, [], {}, [[]], [[1, 2]]])
def test_nothing(segmentation):
    assert read_segmentation(segmentation, HEIGHT, WIDTH) is None
