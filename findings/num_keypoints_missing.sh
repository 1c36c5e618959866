#!/usr/bin/env bash
# Guess: num_keypoints follows from the visibilities, so that a file without it is scored all the same, and by all alike.
# Seen: three scorers, three answers to one file without it. pycocotools stops with a KeyError, faster-coco-eval takes 0 for
# everybody, ignores them all and gives an AP of -1 without a word, hotcoco counts the visibilities and gives 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
from importlib.metadata import version

import hotcoco
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

K = 17
keypoints = [value for k in range(K) for value in (20 + 3 * k, 60 + 6 * k, 2)]
truth = {
    "info": {},
    "images": [{"id": 1, "file_name": "street.png", "width": 640, "height": 480}],
    "categories": [{"id": 1, "name": "person", "keypoints": [f"k{k}" for k in range(K)], "skeleton": []}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [20, 50, 60, 120],
            "area": 7200,
            "iscrowd": 0,
            "keypoints": keypoints,
        }
    ],
}
json.dump(truth, open("people.json", "w"))
json.dump([{"image_id": 1, "category_id": 1, "keypoints": keypoints, "score": 0.9}], open("predictions.json", "w"))


def average_precision(coco, load, evaluator):
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco("people.json")
        evaluation = evaluator(ground_truth, getattr(ground_truth, load)("predictions.json"), "keypoints")
        try:
            evaluation.evaluate()
        except KeyError as error:
            return f"KeyError: {error}"
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 4)


answers = {
    "pycocotools": average_precision(COCO, "loadRes", COCOeval),
    "faster-coco-eval": average_precision(FasterCOCO, "loadRes", COCOeval_faster),
    "hotcoco": average_precision(hotcoco.COCO, "load_res", hotcoco.COCOeval),
}
for name, answer in answers.items():
    print(f"{name} {version(name)}: AP of a perfect prediction, no num_keypoints in the file: {answer}")
assert answers == {"pycocotools": "KeyError: 'num_keypoints'", "faster-coco-eval": -1, "hotcoco": 1}
PYTHON
