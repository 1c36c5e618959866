#!/usr/bin/env bash
# Guess: pycocowriter's num_keypoints is the number of keypoints with a visibility above 0, as COCO defines it.
# Seen: it is the number of keypoints with an x above 0. Somebody of whom only an ankle at the left edge (x = 0) is labelled
# has 0, and pycocotools ignores that person; unlabelled keypoints that kept their coordinates are counted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocowriter==0.5.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from pycocowriter.coco import COCOAnnotation

cases = {
    "one labelled, at x = 0": [0, 40, 2, 0, 0, 0, 0, 0, 0],
    "none labelled, with coordinates": [20, 10, 0, 30, 40, 0, 10, 40, 0],
    "two labelled": [20, 10, 2, 30, 40, 1, 0, 0, 0],
}
counted = {
    name: COCOAnnotation(1, 1, 1, bbox=(0, 6, 24, 36), keypoints=keypoints).to_dict()["num_keypoints"]
    for name, keypoints in cases.items()
}
print("pycocowriter", version("pycocowriter"))
for name, number in counted.items():
    print(f"{name}: num_keypoints {number}")
assert list(counted.values()) == [0, 3, 2]
PYTHON
