"""`dynpose evaluate` with an exported file, on images whose people the file finds by construction."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from exported_files import BOXES, METADATA, POINTS, write_exported

from dynpose.engine import entry
from dynpose.tools.cli import main

pytestmark = pytest.mark.usefixtures("clean_run")
WIDTH, HEIGHT = 200, 150


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("exported") / "pose.onnx")


@pytest.fixture
def annotations(tmp_path):
    """Two images with the file's person where it finds it, and its dog elsewhere."""
    images, objects = [], []
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(1, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        for index, category in enumerate((7, 9)):
            x0, y0, x1, y1 = BOXES[index] * np.tile([WIDTH, HEIGHT], 2)
            points = POINTS[index] * [WIDTH, HEIGHT] - 0.5 + 40 * index
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                    "area": float((x1 - x0) * (y1 - y0)),
                    "num_keypoints": 3,
                    "keypoints": [value for x, y in points for value in (float(x), float(y), 2)],
                }
            )
    names = METADATA["keypoint_names"]
    categories = [{"id": id, "name": name, "keypoints": names} for id, name in ((7, "person"), (9, "dog"))]
    text = json.dumps({"images": images, "annotations": objects, "categories": categories})
    (tmp_path / "val.json").write_text(text)
    return str(tmp_path / "val.json")


def test_ap_of_each_class(exported, annotations, tmp_path, monkeypatch):
    # it logs the config and the environment, which takes most of the time
    monkeypatch.setattr(entry, "default_setup", lambda cfg, args: None)
    words = ["--weights", str(exported), "--annotations", annotations, "--output", str(tmp_path / "out")]
    assert main(["evaluate", *words]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["keypoints/AP-person"], results["keypoints/AP-dog"]) == (pytest.approx(100), 0)
    found = json.loads((tmp_path / "out" / "inference" / "coco_instances_results.json").read_text())
    (head, *_) = [each["keypoints"][:2] for each in found if each["category_id"] == 7]
    assert head == pytest.approx([0.4 * WIDTH - 0.5, 0.2 * HEIGHT - 0.5], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the file does not say on what to evaluate it; give --annotations, --dataset or --config-file"),
        (["--dataset", "x", "--precision", "bfloat16", "--compile"], "leave out --precision, --compile"),
        (
            ["--dataset", "x", "--num-gpus", "1", "TEST.AUG.ENABLED", "True"],
            "an exported file has no test-time augmentation",
        ),
    ],
)
def test_what_is_refused(options, message, exported, capsys):
    assert main(["evaluate", "--weights", str(exported), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pose.onnx: " in line
    assert message in line
