"""`dynpose train` and `dynpose evaluate`: a new user's path, from one data file to the best weights and a report."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from detectron2.engine import default_argument_parser
from PIL import Image
from small_models import SCHEMA, SMALL

from dynpose.config import load_config
from dynpose.engine import entry
from dynpose.tools import cli, train

pytestmark = pytest.mark.usefixtures("clean_run")

# four of them are those of the weights
NAMES = ["left_ear", "head", "left_hand", "right_hand", "right_ear", "foot"]
NO_FAULT = {"verdict": {"headline": "no fault"}}
EVALUATE = ["evaluate", "--config-file", "custom/cpu.yaml", "--weights", "w"]
OPTS = [
    *("DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice"),
    *("SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "SOLVER.IMS_PER_BATCH", "2"),
]


def write_images(folder, num_images=40):
    """Images of noise with one person each, whose six keypoints are on a line."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    points = [number for i in range(6) for number in (20 + 4 * i, 10 + 8 * i, 2)]
    images, people = [], []
    for i in range(1, num_images + 1):
        name = f"img_{i}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "images" / name)
        images.append({"id": i, "file_name": name, "width": 64, "height": 64})
        person = {"bbox": [18, 8, 26, 46], "area": 700, "iscrowd": 0, "keypoints": points, "num_keypoints": 6}
        people.append({"id": i, "image_id": i, "category_id": 1, **person})
    category = {"id": 1, "name": "robot", "keypoints": NAMES}
    (folder / "robots.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))


def skip_detectron2s_set_up(cfg, args):
    """detectron2's, which takes most of the time to log the config and the environment."""
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    Path(cfg.OUTPUT_DIR, "config.yaml").write_text(cfg.dump())


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """40 images, one file, one command; the folder and the log."""
    folder = tmp_path_factory.mktemp("user")
    write_images(folder)
    (folder / "robots.yaml").write_text("train: {annotations: robots.json, images: images}\nsigmas: [1,1,1,1,1,1]\n")
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(entry, "default_setup", skip_detectron2s_set_up)
        logging.getLogger("dynpose").addHandler(handler)
        code = cli.main(["train", "--data", "robots.yaml", "--weights", small_run.weights, *OPTS])
        logging.getLogger("dynpose").removeHandler(handler)
    assert code == 0
    return SimpleNamespace(folder=folder, run=folder / "output" / "robots", log=records)


def test_the_images_are_divided(finished):
    parts = [json.loads((finished.run / "data" / f"{part}.json").read_text()) for part in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [34, 6]
    (message,) = [message for message in finished.log if "held out" in message]
    assert "6 of 40 images are held out for validation, at random with seed 0" in message


def test_the_config_tells_data_schedule_and_model(finished, small_run):
    cfg = load_config(finished.run / "config.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("robots_train",), ("robots_val",))
    assert cfg.DATASETS.POSE[1]["json_file"] == str(finished.run / "data" / "val.json")
    assert cfg.MODEL.KEYPOINT_SCHEMA.NAMES == NAMES
    assert cfg.MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS == [["left_ear", "right_ear"], ["left_hand", "right_hand"]]
    assert cfg.MODEL.KEYPOINT_SCHEMA.SIGMAS == [1] * 6
    assert (["robot"], small_run.weights) == (cfg.MODEL.CLASS_NAMES, cfg.MODEL.WEIGHTS)
    # that of the weights' run, beside them
    assert cfg.MODEL.RESNETS.RES2_OUT_CHANNELS == load_config(small_run.config).MODEL.RESNETS.RES2_OUT_CHANNELS == 16
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BEST_METRIC) == (4, "keypoints/AP")
    assert any(message.startswith("SOLVER.BEST_METRIC is keypoints/AP: ") for message in finished.log)
    assert finished.log[0] == f"The config is {small_run.config}: that of the weights"
    assert (cfg.INPUT.RANDOM_FLIP == "none") == any("images are not mirrored" in message for message in finished.log)


def test_keypoints_of_the_weights_are_kept(finished):
    (message,) = [message for message in finished.log if "Other keypoints" in message]
    assert all(name in message.partition("initialised")[0] for name in SCHEMA.names)
    assert "left_ear, right_ear" in message.partition("initialised")[2]


def test_the_best_weights_are_left_with_a_report(finished):
    results = json.loads((finished.run / "evaluations.json").read_text())
    values = {entry["iterations"]: entry["results"]["keypoints"]["AP"] for entry in results}
    assert list(values) == [2, 4]
    best = max(values, key=lambda iterations: (values[iterations], -iterations))
    (message,) = [message for message in finished.log if message.startswith("The best weights are ")]
    assert str(Path("output/robots/model_best.pth")) in message
    (noted,) = [line for line in finished.log if "is the best so far" in line][-1:]
    assert f"{values[best]:.4f}" in noted
    repeated = [line for line in finished.log if line.startswith(f"The weights after {best} iterations are the best")]
    assert bool(repeated) == (best != 4)
    report = json.loads((finished.run / "report.json").read_text())
    assert report["metrics"]["AP"] == pytest.approx(values[best])
    assert (finished.run / "report.html").exists()
    assert finished.log[-1].endswith(
        f"report.html says what the best weights get wrong: {report['verdict']['headline']}"
    )


def test_the_folder_of_a_run_is_kept(finished, small_run, monkeypatch, capsys):
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(entry, "default_setup", skip_detectron2s_set_up)
    monkeypatch.setattr("dynpose.report.write_report", lambda source, folder: NO_FAULT)
    before = (finished.run / "model_best.pth").read_bytes()
    words = ["train", "--data", "robots.yaml", "--weights", small_run.weights, *OPTS]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.endswith(
        "--output output/robots: it holds a run; continue it with --resume, or name another folder\n"
    )
    # it continues with its images, even if there are more now
    (finished.folder / "robots.yaml").write_text("train: gone.json\n")
    assert cli.main([*words[:5], "--resume", *OPTS]) == 0
    assert (finished.run / "model_best.pth").read_bytes() == before


def test_evaluation_on_a_file(finished, monkeypatch, caplog):
    """The file's keypoints have the model's sigmas, and the results are those of the run on the same images."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(entry, "default_setup", skip_detectron2s_set_up)
    config = (finished.run / "config.yaml").read_text()
    words = ["evaluate", "--config-file", "output/robots/config.yaml", "--weights", "output/robots/model_best.pth"]
    files = ["--annotations", "output/robots/data/val.json", "--image-root", "images"]
    assert cli.main([*words, *files, "DATALOADER.NUM_WORKERS", "0"]) == 0
    results = json.loads((finished.run / "evaluation" / "results.json").read_text())
    entries = json.loads((finished.run / "evaluations.json").read_text())
    assert results["keypoints/AP"] == pytest.approx(max(item["results"]["keypoints"]["AP"] for item in entries))
    assert (finished.run / "evaluation" / "inference" / "coco_instances_results.json").exists()
    # the run is as it was
    assert (finished.run / "config.yaml").read_text() == config
    assert load_config("output/robots/evaluation/config.yaml").DATASETS.TEST == ("val",)


def test_several_sources_have_several_reports(small_run, tmp_path, monkeypatch):
    write_images(tmp_path, 9)
    (tmp_path / "a.yaml").write_text(
        "train:\n- {annotations: robots.json, images: images}\n- {annotations: robots.json, images: images}\n"
    )
    monkeypatch.setattr(entry, "default_setup", skip_detectron2s_set_up)
    reports = []
    monkeypatch.setattr(
        "dynpose.report.write_report", lambda source, folder: reports.append((source.dataset, folder)) or NO_FAULT
    )
    words = ["train", "--data", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "run"), *SMALL, *OPTS]
    assert cli.main([*words, "SOLVER.MAX_ITER", "1"]) == 0
    cfg = load_config(tmp_path / "run" / "config.yaml")
    assert cfg.DATASETS.TEST == ("a_val_0", "a_val_1")
    assert cfg.SOLVER.BEST_METRIC == "a_val_0/keypoints/AP"
    assert reports == [(name, str(tmp_path / "run" / "report" / name)) for name in ("a_val_0", "a_val_1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs: [[left_ear, right_eye]]\n", "a.yaml: category 'robot' of .*/robots.json: flip pair .*right_eye"),
        ("names: [a, b]\n", "a.yaml: names has 2 names, the categories of .*/robots.json have 6 keypoints; give one"),
        ("category: person\n", "a.yaml: .*/robots.json: it has no category 'person'"),
        ("val: robots.json\nsigmas: [1]\n", "a.yaml: category 'robot' of .*: 1 OKS sigmas for 6 keypoints"),
    ],
)
def test_keys_that_do_not_fit(tmp_path, capsys, text, message):
    write_images(tmp_path, 8)
    path = tmp_path / "a.yaml"
    path.write_text("train: {annotations: robots.json, images: images}\n" + text)
    assert cli.main(["train", "--data", str(path), "--output", str(tmp_path / "run"), *SMALL, *OPTS]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert not (tmp_path / "run" / "data").exists()
    assert re.search(message, err), err


def test_keys_of_the_data_file_are_not_overridden(tmp_path, capsys):
    write_images(tmp_path, 8)
    (tmp_path / "a.yaml").write_text("train: {annotations: robots.json, images: images}\n")
    words = ["train", "--data", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "run"), "DATASETS.TEST", "()"]
    assert cli.main(words) == 2
    assert re.search(r"error: DATASETS.TEST is set by .*a\.yaml: leave it out", capsys.readouterr().err)


def test_classes_of_the_data(tmp_path, capsys):
    """A method of one class says how to learn several as one."""
    write_images(tmp_path, 8)
    content = json.loads((tmp_path / "robots.json").read_text())
    content["categories"].append({"id": 2, "name": "drone", "keypoints": NAMES})
    content["annotations"][0]["category_id"] = 2
    (tmp_path / "robots.json").write_text(json.dumps(content))
    (tmp_path / "a.yaml").write_text("train: {annotations: robots.json, images: images}\n")
    words = ["train", "--data", str(tmp_path / "a.yaml"), "--config-file", "CID/HRNet_W32_140e.yaml"]
    assert cli.main([*words, "--output", str(tmp_path / "run"), "MODEL.DEVICE", "cpu"]) == 2
    assert (
        "a.yaml: it has 2 classes (robot, drone, ...), CID has one; add category: all as one" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "give a config with --config-file, or your data with --data"),
        (["train", "--data", "gone.yaml"], "gone.yaml: "),
        (["train", "--config-file", "gone.yaml"], "gone.yaml: no such config file or name"),
        ([*EVALUATE, "--image-root", "i"], "--image-root goes with --annotations"),
        ([*EVALUATE, "--annotations", "gone.json"], "gone.json: the file does not exist"),
    ],
)
def test_arguments(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_the_arguments_of_train_net(monkeypatch):
    """All of its flags, for the same function."""
    calls = []
    monkeypatch.setattr("dynpose.engine.launch", lambda main, args: calls.append((main, args)))
    words = ["--config-file", "a.yaml", "--num-gpus", "2", "--num-machines", "3", "--machine-rank", "1", "--resume"]
    cli.main(["train", *words, "--dist-url", "tcp://a:1", "--weights", "w.pth", "--output", "o", "SEED", "-1"])
    ((function, args),) = calls
    expected = default_argument_parser().parse_args([*words, "--dist-url", "tcp://a:1"])
    assert function is entry.main
    assert vars(args) == {**vars(expected), "opts": ["MODEL.WEIGHTS", "w.pth", "OUTPUT_DIR", "o", "SEED", "-1"]}


def test_the_default_configs_exist():
    for name in train._DEFAULT_CONFIGS.values():
        assert yaml.safe_load(load_config(name).dump())
