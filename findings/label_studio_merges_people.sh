#!/usr/bin/env bash
# Guess: Label Studio's COCO export makes one annotation of a rectangle and the keypoints that belong to it (parentID).
# Seen: the keypoints of all people of an image become one annotation of a category "default", in which a later person's point
# takes the place of an earlier one's; the rectangles are annotations of another category, without keypoints. The YOLO export
# of the very same task keeps the people apart, with their boxes and the right order.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

from label_studio_sdk.converter import Converter

NAMES = ["nose", "left_hand", "right_hand"]
WIDTH, HEIGHT = 200, 100
PEOPLE = [  # box as x, y, width, height; keypoints as x, y in the order of the names
    ((20, 10, 60, 80), [(50, 20), (70, 60), (30, 60)]),
    ((120, 10, 60, 80), [(150, 20), (170, 60)]),
]
labels = "".join(f'<Label value="{name}" model_index="{i}"/>' for i, name in enumerate(NAMES))
config = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="box" toName="image"><Label value="person"/></RectangleLabels>'
    f'<KeyPointLabels name="points" toName="image">{labels}</KeyPointLabels></View>'
)


def region(region_id, from_name, kind, x, y, **value):
    return {
        "id": region_id,
        "from_name": from_name,
        "to_name": "image",
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, **value},
    }


regions = []
for i, ((x, y, width, height), keypoints) in enumerate(PEOPLE):
    size = {"width": 100 * width / WIDTH, "height": 100 * height / HEIGHT, "rotation": 0}
    regions.append(region(f"person{i}", "box", "rectanglelabels", x, y, rectanglelabels=["person"], **size))
    for name, (u, v) in zip(NAMES, keypoints):
        point = region(f"{name}{i}", "points", "keypointlabels", u, v, width=1, keypointlabels=[name])
        regions.append({**point, "parentID": f"person{i}"})
task = {
    "id": 1,
    "data": {"image": "/data/upload/1/street.png"},
    "annotations": [{"id": 1, "completed_by": 1, "was_cancelled": False, "result": regions}],
}
Path("tasks.json").write_text(json.dumps([task]))
converter = Converter(config, ".", download_resources=False)
converter.convert_to_coco("tasks.json", "coco", is_dir=False)
converter.convert_to_yolo("tasks.json", "yolo", is_dir=False)
coco = json.loads(next(Path("coco").glob("*.json")).read_text())
with_keypoints = [annotation for annotation in coco["annotations"] if "keypoints" in annotation]
rows = [line.split() for line in next(Path("yolo/labels").glob("*.txt")).read_text().splitlines()]
print("label-studio-sdk", version("label-studio-sdk"))
print("COCO categories:", coco["categories"])
print("COCO annotations with keypoints:", [annotation["keypoints"] for annotation in with_keypoints])
print("YOLO rows:", *(" ".join(f"{float(number):g}" for number in row) for row in rows), sep="\n  ")
assert len(with_keypoints) == 1
assert with_keypoints[0]["keypoints"] == [150, 20, 2, 170, 60, 2, 30, 60, 2]
assert [category.get("keypoints") for category in coco["categories"]] == [None, NAMES]
for row, ((x, y, width, height), keypoints) in zip(rows, PEOPLE, strict=True):
    keypoints = [(u / WIDTH, v / HEIGHT, 2) for u, v in keypoints] + [(0, 0, 0)] * (len(NAMES) - len(keypoints))
    expected = [0, (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT]
    expected += [number for keypoint in keypoints for number in keypoint]
    assert [round(float(number), 6) for number in row] == [round(number, 6) for number in expected]
PYTHON
