#!/usr/bin/env bash
# Guess: a NaN in a predicted keypoint costs that prediction, or stops the evaluation.
# Seen: pycocotools matches it with anybody at every threshold, since an OKS of NaN is never "too small": four predictions
# that are 300 pixels off get an AP of 0, and an AP of 1 as soon as one coordinate of each is NaN. faster-coco-eval gives 0
# for the same file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import copy
import io
from importlib.metadata import version

from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

K, NUM_PEOPLE = 17, 4
truth = {
    "info": {},
    "images": [{"id": i, "width": 640, "height": 480} for i in range(1, NUM_PEOPLE + 1)],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [
        {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "bbox": [20, 50, 60, 120],
            "area": 7200,
            "iscrowd": 0,
            "keypoints": [value for k in range(K) for value in (20 + 3 * k, 60 + 6 * k, 2)],
            "num_keypoints": K,
        }
        for i in range(1, NUM_PEOPLE + 1)
    ],
}
far_off = [
    {
        "image_id": i,
        "category_id": 1,
        "keypoints": [float(value) for k in range(K) for value in (320 + 3 * k, 60 + 6 * k, 1)],
        "score": 0.9,
    }
    for i in range(1, NUM_PEOPLE + 1)
]
with_nan = copy.deepcopy(far_off)
for prediction in with_nan:
    prediction["keypoints"][0] = float("nan")


def average_precision(coco, evaluator, predictions):
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco()
        ground_truth.dataset = copy.deepcopy(truth)
        ground_truth.createIndex()
        evaluation = evaluator(ground_truth, ground_truth.loadRes(copy.deepcopy(predictions)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


aps = {}
for name, parts in {"pycocotools": (COCO, COCOeval), "faster-coco-eval": (FasterCOCO, COCOeval_faster)}.items():
    aps[name] = [average_precision(*parts, predictions) for predictions in (far_off, with_nan)]
    print(f"{name} {version(name)}: AP of predictions 300 pixels off {aps[name][0]}, with one NaN in each {aps[name][1]}")
assert aps == {"pycocotools": [0, 1], "faster-coco-eval": [0, 0]}
PYTHON
