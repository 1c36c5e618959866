"""`dynpose predict`: files for other tools, and what the pictures show."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image
from pycocotools.coco import COCO

from dynpose.config import load_config
from dynpose.data import model_schema
from dynpose.engine.prediction_record import to_instances
from dynpose.engine.predictor import PosePredictor
from dynpose.tools.cli import main
from dynpose.utils import draw_poses

FORMATS = ("json", "coco", "csv", "yolo-pose", "cvat", "label-studio")
CLASSES = ("MODEL.CLASS_NAMES", "['踊り手']")


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """``call`` of the command on the two images of ``folder``; ``out`` holds all formats, ``record`` is its JSON."""
    folder = tmp_path_factory.mktemp("formats")
    for index in range(2):
        pixels = np.random.RandomState(index).randint(0, 256, (500, 640, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")

    def call(*options, output="out"):
        words = ["predict", "--config-file", small_run.config, "--weights", small_run.weights, "--device", "cpu"]
        return main([*words, "--input", str(folder), "--output", str(folder / output), *options, *CLASSES])

    assert call("--format", *FORMATS, "--no-pictures") == 0
    record = json.loads((folder / "out" / "predictions.json").read_text())
    return SimpleNamespace(call=call, folder=folder, out=folder / "out", record=record)


def test_every_format_has_all_people(finished):
    people = [person for image in finished.record["images"] for person in image["instances"]]
    assert len(people) == 6
    truth = COCO(str(finished.out / "coco_images.json"))
    assert truth.cats[1]["name"] == "踊り手"
    found = truth.loadRes(str(finished.out / "coco_results.json")).dataset["annotations"]
    assert [item["keypoints"] for item in found] == [np.ravel(person["keypoints"]).tolist() for person in people]
    with open(finished.out / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["category_name"] for row in rows} == {"踊り手"}
    tasks = json.loads((finished.out / "label_studio" / "tasks.json").read_text())
    assert [task["data"]["image"].rsplit("=", 1)[1] for task in tasks] == ["0.png", "1.png"]
    assert (finished.out / "yolo-pose" / "images" / "0.png").resolve() == (finished.folder / "0.png").resolve()
    assert "<name>踊り手</name>" in (finished.out / "cvat" / "annotations.xml").read_text(encoding="utf-8")


def test_a_finished_run_writes_another_format_without_predicting(finished, monkeypatch, capsys):
    whole = (finished.out / "predictions.csv").read_bytes()
    (finished.out / "predictions.csv").unlink()

    def infer(*_):
        raise AssertionError

    monkeypatch.setattr(PosePredictor, "infer", infer)
    assert finished.call("--format", "csv", "--no-pictures", "--resume") == 0
    assert (finished.out / "predictions.csv").read_bytes() == whole
    assert capsys.readouterr().out.endswith("predictions.csv: 24 keypoints\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--annotations", "gone.json", "--format", "coco"], "gone.json: the file does not exist"),
        (["--annotations", "gone.json"], "--annotations gives ids for --format coco"),
    ],
)
def test_what_can_not_be_written_is_refused_before_the_run(finished, options, message, capsys):
    """The results of the finished run stay."""
    before = (finished.out / "predictions.jsonl").read_bytes()
    assert finished.call(*options, "--no-pictures") == 2
    assert message in capsys.readouterr().err
    assert (finished.out / "predictions.jsonl").read_bytes() == before


def test_unknown_formats(finished, capsys):
    with pytest.raises(SystemExit):
        finished.call("--format", "coco")
    message = (
        "argument --format: unknown format MODEL.CLASS_NAMES; known are json, coco, csv, parquet, yolo-pose, cvat,"
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "style"),
    [
        pytest.param([], {}, id="default"),
        pytest.param(
            ["--no-show-boxes", "--no-show-conf", "--keypoint-threshold", "0.0001", "--line-width", "7"],
            {"show_boxes": False, "show_scores": False, "keypoint_threshold": 0.0001, "line_width": 7},
            id="limbs",
        ),
        pytest.param(
            ["--show-labels", "--point-radius", "9", "--keypoint-threshold", "0"],
            {"show_labels": True, "class_names": ["踊り手"], "point_radius": 9, "keypoint_threshold": 0},
            id="names",
        ),
    ],
)
def test_switches_of_the_pictures(finished, small_run, request, options, style):
    output = f"pictures-{request.node.callspec.id}"
    assert finished.call("--limit", "1", *options, output=output) == 0
    picture = read_image(str(finished.folder / output / "0.png"))
    entry = json.loads((finished.folder / output / "predictions.json").read_text())["images"][0]
    image = read_image(str(finished.folder / "0.png"))
    schema = model_schema(load_config(small_run.config))
    assert np.array_equal(picture, draw_poses(image, to_instances(entry, 4), schema, **style))
