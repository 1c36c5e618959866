#!/usr/bin/env bash
# Guess: a scorer that has COCO's 17 sigmas as its default refuses people with another number of keypoints until it is given
# theirs, as pycocotools does (its arrays do not fit).
# Seen: hotcoco gives a number: five keypoints are scored with the sigmas of COCO's first five (nose, eyes, ears), whatever
# they are. They are the strictest of all: a prediction that is 7 pixels off at every keypoint gets an AP of 0.2 (by hand: an
# OKS of 0.592), and with the sigma of a wrist (0.062) for each an AP of 0.8 (an OKS of 0.895).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet hotcoco==1.3.0 pycocotools==2.0.11
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import json
from importlib.metadata import version

import hotcoco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FIRST_SIGMAS_OF_COCO = [0.026, 0.025, 0.025, 0.035, 0.035]
names = ["palm", "thumb", "index", "middle", "little"]
K = len(names)
keypoints = [value for k in range(K) for value in (120 + 8 * k, 160 + 6 * k, 2)]
json.dump(
    {
        "info": {},
        "images": [{"id": 1, "file_name": "hand.png", "width": 640, "height": 480}],
        "categories": [{"id": 1, "name": "hand", "keypoints": names, "skeleton": []}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [100, 100, 120, 120],
                "area": 14400,
                "iscrowd": 0,
                "keypoints": keypoints,
                "num_keypoints": K,
            }
        ],
    },
    open("hands.json", "w"),
)
shifted = [value + 7 if i % 3 == 0 else value for i, value in enumerate(keypoints)]
json.dump([{"image_id": 1, "category_id": 1, "keypoints": shifted, "score": 0.9}], open("predictions.json", "w"))


def average_precision(sigmas=None):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = hotcoco.COCO("hands.json")
        evaluation = hotcoco.COCOeval(truth, truth.load_res("predictions.json"), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO("hands.json")
    evaluation = COCOeval(truth, truth.loadRes("predictions.json"), "keypoints")
    try:
        evaluation.evaluate()
        refusal = None
    except ValueError as error:
        refusal = str(error)
default, first_of_coco, own = average_precision(), average_precision(FIRST_SIGMAS_OF_COCO), average_precision([0.062] * K)
print(f"pycocotools {version('pycocotools')}, no sigmas given: ValueError: {refusal}")
print(f"hotcoco {version('hotcoco')}, no sigmas given: AP {default}; COCO's first five: {first_of_coco}; own sigmas: {own}")
assert refusal is not None
assert default == first_of_coco
assert (default, own) == (0.2, 0.8)
PYTHON
