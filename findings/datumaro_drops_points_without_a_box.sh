#!/usr/bin/env bash
# Guess: whether points are grouped has no bearing on whether they are exported, and a person without a box gets one around
# the points.
# Seen: datumaro does so for points without a group. Points that are in a group without a box, as any group is that holds one
# person's points alone, are not in the COCO keypoint file at all: 0 annotations, and no word of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datumaro==1.13.12
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

import datumaro as dm
import numpy as np
from datumaro.components.annotation import AnnotationType, Bbox, LabelCategories, Points, PointsCategories
from datumaro.components.media import Image

NAMES = ["nose", "left_hand", "right_hand"]
CATEGORIES = {
    AnnotationType.label: LabelCategories.from_iterable(["person"]),
    AnnotationType.points: PointsCategories.from_iterable([(0, NAMES, [(1, 2), (1, 3)])]),
}


def export(name, group, with_box):
    annotations = [Points([20, 10, 30, 40, 10, 40], [2, 1, 2], label=0, group=group)]
    if with_box:
        annotations.append(Bbox(8, 6, 24, 36, label=0, group=group))
    image = Image.from_numpy(data=np.zeros((48, 64, 3), np.uint8))
    item = dm.DatasetItem("a", subset="train", media=image, annotations=annotations)
    dm.Dataset.from_iterable([item], categories=CATEGORIES).export(name, "coco_person_keypoints", save_media=True)
    return json.loads(Path(name, "annotations", "person_keypoints_train.json").read_text())["annotations"]


exports = {
    "points in a group, with a box": export("with_box", group=1, with_box=True),
    "points in a group, without a box": export("without_box", group=1, with_box=False),
    "points in no group, without a box": export("no_group", group=0, with_box=False),
}
print("datumaro", version("datumaro"))
for name, annotations in exports.items():
    print(f"{name}: {len(annotations)} annotations, boxes {[annotation['bbox'] for annotation in annotations]}")
assert [len(annotations) for annotations in exports.values()] == [1, 0, 1]
assert exports["points in no group, without a box"][0]["bbox"] == [10, 10, 20, 30]
PYTHON
