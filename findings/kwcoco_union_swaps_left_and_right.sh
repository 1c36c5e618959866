#!/usr/bin/env bash
# Guess: where two files name the keypoints of "person" in different orders, a union of them reorders one, or refuses.
# Seen: kwcoco's union keeps the first file's names and copies the keypoint lists of both as they are. Every left hand of the
# second file is a right hand in the union. There is no word of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kwcoco==0.9.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version

import kwcoco

LEFT, RIGHT = [30, 40, 2], [10, 40, 2]


def data_set(file_name, names, keypoints):
    data = kwcoco.CocoDataset()
    category = data.add_category("person", keypoints=names, skeleton=[[1, 2]])
    image = data.add_image(file_name=file_name, width=64, height=48)
    data.add_annotation(image_id=image, category_id=category, bbox=[8, 6, 24, 36], keypoints=keypoints)
    return data


first = data_set("a.png", ["left_hand", "right_hand"], LEFT + RIGHT)
second = data_set("b.png", ["right_hand", "left_hand"], RIGHT + LEFT)
union = json.loads(kwcoco.CocoDataset.union(first, second).dumps())
names = [category["keypoints"] for category in union["categories"]]
keypoints = [annotation["keypoints"] for annotation in union["annotations"]]
print("kwcoco", version("kwcoco"))
print("names in the union:", names)
print("keypoints in the union:", keypoints, "left hand is", LEFT, "in both files")
assert names == [["left_hand", "right_hand"]]
assert keypoints == [LEFT + RIGHT, RIGHT + LEFT]
PYTHON
