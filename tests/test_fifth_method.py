"""A method from outside the package, the one of docs/adding_a_method.md, gets everything that dynpose's methods get."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import centerpose
import pytest
import torch
import yaml

from dynpose import engine
from dynpose.benchmark import memory
from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import load_config
from dynpose.data import COCO_PERSON
from dynpose.methods import get_method
from dynpose.modeling.build import build_model
from dynpose.tools.cli import main

pytestmark = pytest.mark.usefixtures("clean_run")

CONFIG = str(Path(__file__).with_name("centerpose.yaml"))
PAGE = Path(__file__).parents[1] / "docs" / "adding_a_method.md"
TINY = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("DATASETS.SYNTHETIC.NUM_TRAIN", "4", "DATASETS.SYNTHETIC.NUM_VAL", "2"),
    *("DATASETS.SYNTHETIC.IMAGE_SIZE", "[64, 64]", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1", "DATALOADER.NUM_WORKERS", "0"),
]
MODEL = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of three iterations and its evaluation: the folder and the results."""
    folder = tmp_path_factory.mktemp("run")
    opts = [*TINY, "OUTPUT_DIR", str(folder)]
    results = engine.main(SimpleNamespace(config_file=CONFIG, opts=opts, eval_only=False, resume=False))
    return folder, results


def test_the_page_shows_the_whole_method():
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S)
    shown = {kind: [text.strip() for language, text in blocks if language == kind] for kind in ("python", "yaml")}
    assert "\n\n\n".join(shown["python"]) == Path(centerpose.__file__).read_text().strip()
    assert [yaml.safe_load(text) for text in shown["yaml"]] == [yaml.safe_load(Path(CONFIG).read_text())]


def test_its_config_keys_are_there():
    assert load_config(CONFIG, ["MODEL.CENTERPOSE.IN_FEATURE", "p4"]).MODEL.CENTERPOSE.IN_FEATURE == "p4"


def test_training_and_evaluation(run):
    folder, results = run
    assert results.keys() == {"keypoints", "bbox"}
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert any("loss_offset" in line for line in lines)


def test_the_number_of_classes_is_checked(tmp_path):
    assert get_method("CenterPose").num_classes_key == ""
    person = {"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "annotations": []}
    person["categories"] = [
        {"id": i, "name": name, "keypoints": ["head"], "skeleton": []} for i, name in enumerate("ab", 1)
    ]
    (tmp_path / "two.json").write_text(json.dumps(person))
    entry = {"name": "two_classes", "json_file": str(tmp_path / "two.json"), "image_root": str(tmp_path)}
    opts = [*TINY, "DATASETS.POSE", f"[{entry | {'classes': ['a', 'b']}}]", "OUTPUT_DIR", str(tmp_path / "run")]
    opts += ["DATASETS.TRAIN", "('two_classes',)", "DATASETS.TEST", "()"]
    with pytest.raises(ValueError, match=r"has 2 classes .* CenterPose has 1"):
        engine.setup(SimpleNamespace(config_file=CONFIG, opts=opts, eval_only=False, resume=False))


def test_released_weights_are_converted(run, tmp_path, capsys):
    weights = torch.load(run[0] / "model_final.pth", weights_only=False)["model"]
    renames = (("backbone", "net"), ("center", "heads.ctr"), ("offsets", "heads.reg"))
    released = {}
    for name, value in weights.items():
        for ours, theirs in renames:
            name = re.sub(rf"^{ours}\.", f"{theirs}.", name)
        released[name] = torch.as_tensor(value)
    torch.save(released, tmp_path / "released.pth")
    arguments = ["convert-weights", "--input", str(tmp_path / "released.pth"), "--output", str(tmp_path / "own.pth")]
    assert main(arguments) == 0
    assert "the released CenterPose, 17 keypoints" in capsys.readouterr().out
    assert main([*arguments, "--config-file", str(run[0] / "config.yaml")]) == 0
    assert "missing:   none of" in capsys.readouterr().out
    converted = torch.load(tmp_path / "own.pth", weights_only=True)
    assert converted["dynpose"] == {"method": "CenterPose", "keypoints": list(COCO_PERSON.names)}
    assert converted["model"].keys() == {name for name in weights if "num_batches_tracked" not in name}

    for name in ("released.pth", "own.pth"):
        model = build_model(load_config(run[0] / "config.yaml", MODEL))
        PoseCheckpointer(model, complete=True).load(str(tmp_path / name))
        assert torch.equal(model.center.weight, torch.as_tensor(weights["center.weight"]))


def test_model_info(run, capsys):
    arguments = ["--config-file", str(run[0] / "config.yaml"), "--input-size", "64", "96", "--people", "2"]
    assert main(["model-info", *arguments, *MODEL]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["center"][0] == "33"
    assert rows["offsets"][0] == f"{33 * 34:,}"


def test_figures(run, tmp_path, capsys):
    image = next((run[0] / "synthetic" / "val").glob("*.jpg"))
    words = ["visualize", "--weights", str(run[0] / "model_final.pth"), "--input", str(image), "--device", "cpu"]
    assert main([*words, "--what", "centers", "--output", str(tmp_path / "centers.png")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'centers.png'}: centers, ")
    assert main([*words, "--what", "heatmaps", "--output", str(tmp_path / "heatmaps.png")]) == 2
    assert "CenterPose has no such figure; known are centers and all" in capsys.readouterr().err


def test_benchmark_of_the_model(run, tmp_path):
    file = tmp_path / "models.json"
    arguments = ["--config-file", str(run[0] / "config.yaml"), "--no-peer", "--people", "3", "--size", "64", "96"]
    arguments += ["--repeats", "1", "--parts", "--json", str(file), "--device", "cpu"]
    assert main(["benchmark", "model", *arguments, *MODEL]) == 0
    (case,) = json.loads(file.read_text())["cases"]
    (figures,) = case["models"].values()
    assert figures["people_found"] == [3]
    assert list(figures["parts_ms"]) == ["backbone", "heads", "decoding", "other"]


def test_benchmark_of_the_exported_file(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(memory, "extra_memory", lambda *arguments: None)
    file = tmp_path / "exported.json"
    arguments = ["--config-file", str(run[0] / "config.yaml"), "--people", "3", "--size", "100", "150"]
    arguments += ["--runtimes", "onnxruntime", "--repeats", "2", "--threads", "1", "--json", str(file)]
    assert main(["benchmark", "exported", *arguments, *MODEL]) == 0
    report = json.loads(file.read_text())
    (case,) = report["cases"]
    assert list(case["figures"]) == ["as trained", "optimized", "onnxruntime"]
    assert all(figures["people_found"] == [3] and figures["ms"] > 0 for figures in case["figures"].values())
    assert report["notes"] == []


def test_benchmark_of_training(run, tmp_path, monkeypatch):
    # in a fresh process, as that of the model above
    monkeypatch.setattr(memory, "extra_memory", lambda *arguments: None)
    file = tmp_path / "training.json"
    arguments = ["--config-file", str(run[0] / "config.yaml"), "--people", "2", "--size", "64", "64", "--batch", "1"]
    arguments += ["--repeats", "1", "--parts", "--json", str(file), "--device", "cpu"]
    assert main(["benchmark", "train", *arguments, *MODEL]) == 0
    (config,) = json.loads(file.read_text())["configs"]
    assert config["meta_architecture"] == "CenterPose"
    assert config["loss"] > 0
    assert list(config["parts_ms"]) == ["forward", "backward", "step"]
