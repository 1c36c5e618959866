"""The worked example of fine-tuning: what its script writes, and its config, after a demo of a few iterations."""

import importlib.util
import json
import logging
import os

import pytest
from detectron2.modeling import build_model
from test_training import arguments

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import load_config
from dynpose.data import COCO_PERSON, schema_to_cfg
from dynpose.engine import main

pytestmark = pytest.mark.usefixtures("clean_run")

PROJECT = "projects/custom_keypoints"


@pytest.fixture
def upper_body():
    spec = importlib.util.spec_from_file_location("upper_body", f"{PROJECT}/upper_body.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_keypoints_are_the_middles_of_labelled_ones(upper_body):
    sources = {"nose": (10, 20, 2), "left_ear": (14, 22, 1), "left_shoulder": (20, 40, 2), "right_wrist": (5, 60, 1)}
    names = ["nose", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "right_wrist"]
    names += ["left_eye", "right_eye", "left_elbow", "right_elbow", "left_wrist"]
    person = {
        "id": 7,
        "image_id": 3,
        "category_id": 1,
        "bbox": [0, 0, 30, 80],
        "area": 1000,
        "iscrowd": 0,
        "keypoints": [number for name in names for number in sources.get(name, (0, 0, 0))],
    }
    images = [{"id": 3, "file_name": "a.jpg", "width": 100, "height": 100}]
    data = {"images": images, "annotations": [person], "categories": [{"id": 1, "keypoints": names}]}
    converted = upper_body.convert(data)
    assert converted["images"] == images
    [category], [found] = converted["categories"], converted["annotations"]
    keypoints = dict(zip(category["keypoints"], zip(*[iter(found["keypoints"])] * 3)))
    # a neck needs both shoulders
    assert keypoints.pop("head") == (12, 21, 2)
    assert keypoints.pop("left_shoulder") == (20, 40, 2)
    assert keypoints.pop("right_wrist") == (5, 60, 1)
    assert set(keypoints.values()) == {(0, 0, 0)}
    assert found["num_keypoints"] == 3
    assert (found["id"], found["image_id"], found["bbox"]) == (7, 3, [0, 0, 30, 80])
    assert category["skeleton"][0] == [1, 2]


def test_the_config_fine_tunes_the_demo(upper_body, tmp_path, monkeypatch, caplog):
    demo, config = tmp_path / "output/demo", os.path.abspath(f"{PROJECT}/upper_body.yaml")
    main(arguments(demo))
    for split in ("train", "val"):
        converted = upper_body.convert(json.loads((demo / f"synthetic/{split}.json").read_text()))
        (tmp_path / f"output/upper_body_{split}.json").write_text(json.dumps(converted))
    # where the config finds the files of the demo
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        # the weights are the config's; those of the other small models are none
        weights = load_config(config).MODEL.WEIGHTS
        results = main(arguments("output/upper_body", "MODEL.WEIGHTS", weights, config=config))
    [message] = [record.getMessage() for record in caplog.records if "Other keypoints" in record.getMessage()]
    assert "output/demo/model_final.pth" in message
    # six of the eight are COCO's
    carried = "left_shoulder, right_shoulder, left_elbow, right_elbow, left_wrist, right_wrist"
    assert f"transferred: {carried}; initialised from scratch: head, neck (in 4 parameters: " in message
    assert results["keypoints"].keys() >= {"AP", "AP50"}


def test_training_on_a_data_file_without_a_gpu_starts_from_the_demo():
    """The weights of the demo fit its default config."""
    shapes = []
    for name in ("quick/fcpose_synthetic.yaml", "custom/cpu.yaml"):
        cfg = load_config(name)
        schema_to_cfg(cfg, COCO_PERSON)
        shapes.append({key: value.shape for key, value in build_model(cfg).state_dict().items()})
    assert shapes[0] == shapes[1]
