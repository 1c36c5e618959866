#!/usr/bin/env bash
# Guess: an annotation's id only has to be unique, so 0 is as good as any.
# Seen: pycocowriter numbers annotations from 0, as do label-studio-sdk and pylabel. pycocotools and faster-coco-eval note
# a match by the annotation's id, and 0 there means "no match": the first person of the file is counted as never found.
# Perfect predictions of four people get an AR of 0.75 and an AP of 0.75 * 76 / 101 = 0.5644, not 1. hotcoco gives 1. Only
# faster-coco-eval warns.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocowriter==0.5.6 jsonschema==4.26.0 pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
from importlib.metadata import version

import hotcoco
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocowriter.coco import COCOCategories, COCOData, COCOInfo
from pycocowriter.csv2coco import Iterable2COCO, Iterable2COCOConfig

K = 17
config = {
    "filename": 0,
    "label": 1,
    "bbox_xywh": {"x": 2, "y": 3, "w": 4, "h": 5},
    "keypoints": [{"name": f"k{i}", "x": 6 + 2 * i, "y": 7 + 2 * i} for i in range(K)],
    "keypoint_skeleton": [[1, 2]],
}
Image.new("RGB", (640, 480)).save("street.png")
rows = [
    ["street.png", "person", x, 50, 60, 120, *(value for i in range(K) for value in (x + 3 * i, 60 + 6 * i))]
    for x in (20, 170, 320, 470)
]
images, annotations, categories = Iterable2COCO(Iterable2COCOConfig(config)).parse(iter(rows))
COCOData(COCOInfo(), images, annotations, [], categories).to_json("people.json")
written = json.load(open("people.json"))["annotations"]
json.dump(
    [{"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9} for a in written],
    open("predictions.json", "w"),
)


def score(load, predictions_of, evaluator):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = load("people.json")
        evaluation = evaluator(truth, predictions_of(truth), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 4), round(float(evaluation.stats[5]), 4)


ids = [annotation["id"] for annotation in written]
scores = {
    "pycocotools": score(COCO, lambda truth: truth.loadRes("predictions.json"), COCOeval),
    "faster-coco-eval": score(FasterCOCO, lambda truth: truth.loadRes("predictions.json"), COCOeval_faster),
    "hotcoco": score(hotcoco.COCO, lambda truth: truth.load_res("predictions.json"), hotcoco.COCOeval),
}
print("pycocowriter", version("pycocowriter"), "annotation ids:", ids)
for name, (ap, ar) in scores.items():
    print(f"{name} {version(name)}: perfect predictions get AP {ap}, AR {ar}")
assert ids == [0, 1, 2, 3]
assert scores["pycocotools"] == scores["faster-coco-eval"] == (0.5644, 0.75)
assert scores["hotcoco"] == (1, 1)
PYTHON
