#!/usr/bin/env bash
# Guess: three people drawn with one pose template are three annotations of one category.
# Seen: superannotate's COCO converter notes templates it has met as text and looks the number up, so that each person adds a
# category of the same name. The annotations' category_id is the project's class id, which none of those categories has. And
# a keypoint that was not drawn is left out of the list instead of written as 0, 0, 0: the later ones move up.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet superannotate==4.6.2
cd "$work"
HOME="$work" "$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

from superannotate import export_annotation

NAMES = ["nose", "left_hand", "right_hand"]
CLASS_ID = 7
PEOPLE = [[(1, 20, 10), (2, 30, 40), (3, 10, 40)], [(2, 130, 40), (3, 110, 40)], [(1, 220, 10), (2, 230, 40), (3, 210, 40)]]


def person(points):
    return {
        "type": "template",
        "classId": CLASS_ID,
        "className": "person",
        "templateId": 3,
        "templateName": "person",
        "probability": 100,
        "points": [{"id": number, "x": x, "y": y} for number, x, y in points],
        "connections": [{"id": 1, "from": 1, "to": 2}, {"id": 2, "from": 1, "to": 3}],
        "pointLabels": {str(i): name for i, name in enumerate(NAMES)},
        "groupId": 0,
        "attributes": [],
    }


Path("in/classes").mkdir(parents=True)
Path("out").mkdir()
Path("in/classes/classes.json").write_text(
    json.dumps([{"id": CLASS_ID, "name": "person", "color": "#ff0000", "attribute_groups": []}])
)
metadata = {"name": "street.png", "width": 300, "height": 60, "status": "Completed"}
instances = [person(points) for points in PEOPLE]
Path("in/street.png___objects.json").write_text(
    json.dumps({"metadata": metadata, "instances": instances, "tags": [], "comments": []})
)
export_annotation("in", "out", "COCO", "people", "Vector", "keypoint_detection")
coco = json.loads(Path("out/people.json").read_text())
categories = [(category["id"], category["name"]) for category in coco["categories"]]
print("superannotate", version("superannotate"))
print("categories:", categories)
print("category_id of the annotations:", [annotation["category_id"] for annotation in coco["annotations"]])
print("keypoints of the second person:", coco["annotations"][1]["keypoints"])
assert categories == [(1, "person"), (2, "person"), (3, "person")]
assert [annotation["category_id"] for annotation in coco["annotations"]] == [CLASS_ID] * 3
assert coco["annotations"][1]["keypoints"] == [130, 40, 2, 110, 40, 2]
PYTHON
