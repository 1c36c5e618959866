#!/usr/bin/env python
"""Turn annotations of COCO's 17 keypoints into annotations of eight of the upper body.

python projects/custom_keypoints/upper_body.py output/demo/synthetic/train.json upper_body_train.json

It stands for whatever brings your annotations into COCO's format: what must be in such a file, it writes.
"""

import argparse
import json
from pathlib import Path

# each keypoint, and those of COCO it is the middle of: all of its sources must be labelled, but of the head's any
KEYPOINTS = {
    "head": ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    "neck": ("left_shoulder", "right_shoulder"),
    "left_shoulder": ("left_shoulder",),
    "right_shoulder": ("right_shoulder",),
    "left_elbow": ("left_elbow",),
    "right_elbow": ("right_elbow",),
    "left_wrist": ("left_wrist",),
    "right_wrist": ("right_wrist",),
}
LIMBS = [
    ("head", "neck"),
    ("neck", "left_shoulder"),
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("neck", "right_shoulder"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
]


def convert(data):
    """Convert the content of a COCO keypoint file.

    Args:
        data (dict): with one category.

    Returns:
        dict: the same images and people, with 3 x 8 keypoint numbers each: x, y in pixels, and visibility 0 (not
        labelled), 1 (hidden) or 2.
    """
    names = list(KEYPOINTS)
    category = {
        "id": 1,
        "name": "upper_body",
        "keypoints": names,
        # 1-based, as COCO's
        "skeleton": [[names.index(a) + 1, names.index(b) + 1] for a, b in LIMBS],
    }
    position = {name: index for index, name in enumerate(data["categories"][0]["keypoints"])}
    people = []
    for person in data["annotations"]:
        numbers = person["keypoints"]
        points = {name: numbers[3 * index : 3 * index + 3] for name, index in position.items()}
        keypoints = [_middle(name, [points[source] for source in sources]) for name, sources in KEYPOINTS.items()]
        people.append(
            {
                **{key: person[key] for key in ("id", "image_id", "bbox", "area", "iscrowd") if key in person},
                "category_id": category["id"],
                "keypoints": [number for keypoint in keypoints for number in keypoint],
                "num_keypoints": sum(keypoint[2] > 0 for keypoint in keypoints),
            }
        )
    return {"images": data["images"], "annotations": people, "categories": [category]}


def _middle(name, points):
    labelled = [point for point in points if point[2] > 0]
    if not labelled or (name != "head" and len(labelled) < len(points)):
        return [0, 0, 0]
    x, y = (sum(point[axis] for point in labelled) / len(labelled) for axis in (0, 1))
    return [x, y, max(point[2] for point in labelled)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="COCO keypoint file of people")
    parser.add_argument("target", type=Path, help="to write")
    args = parser.parse_args()
    args.target.write_text(json.dumps(convert(json.loads(args.source.read_text()))))
