"""What a run's folder says about how it was made, and the seed that it finds there again."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from small_files import small_files
from test_training import arguments

from dynpose.checkpoint import CheckpointError
from dynpose.config import load_config
from dynpose.engine import main, setup
from dynpose.engine.records import fingerprint, write_records
from dynpose.engine.trainer import PoseTrainer

pytestmark = pytest.mark.usefixtures("clean_run")

SHORT = ["DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", "1", "SEED", "-1"]


def test_a_data_set_without_files():
    DatasetCatalog.register("by_function", lambda: [{}, {}])
    assert fingerprint("by_function") == {"images": 2, "sha256": {}}
    missing = {"images": None, "sha256": {"nowhere/a.json": None}}
    MetadataCatalog.get("by_function").json_file = "nowhere/a.json"
    assert fingerprint("by_function") == missing


def test_a_run_records_its_provenance_and_resumes_with_its_seed(tmp_path, caplog):
    main(arguments(tmp_path, *SHORT, "SOLVER.MAX_ITER", "1"))
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    annotations = tmp_path / "synthetic/train.json"
    digest = hashlib.sha256(annotations.read_bytes()).hexdigest()
    assert start["datasets"] == {"synthetic_pose_train": {"images": 4, "sha256": {str(annotations): digest}}}
    assert start["environment"]["torch"] == torch.__version__
    assert start["environment"]["processes"] == 1
    assert start["start_iteration"] == 0
    seed = load_config(str(tmp_path / "config.yaml")).SEED
    assert start["seed"] == seed >= 0

    # entries that a user has added to the file are ignored
    (tmp_path / "run.json").write_text(json.dumps({"starts": [5, start]}))
    caplog.clear()
    annotations.write_text(annotations.read_text() + "\n")
    main(arguments(tmp_path, *SHORT, "SOLVER.MAX_ITER", "2", resume=True))
    first, second = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert first == start
    assert (second["start_iteration"], second["seed"]) == (1, seed)
    assert "the data sets changed since the start of the run" in caplog.text
    assert torch.load(tmp_path / "model_0000001.pth")["data"]["seed"] == seed
    # a new run draws another, and one that finds no seed too
    (tmp_path / "config.yaml").write_bytes(b"SEED: \xff")
    assert setup(arguments(tmp_path, *SHORT, resume=True)).SEED >= 0
    drawn = setup(arguments(tmp_path, *SHORT)).SEED
    assert drawn != seed


def test_an_evaluation_takes_no_random_numbers_from_training(tmp_path, monkeypatch):
    cfg = setup(arguments(tmp_path))
    expected = torch.get_rng_state()

    def noisy(*_, **__):
        torch.rand(3)
        return {}

    monkeypatch.setattr("detectron2.engine.defaults.inference_on_dataset", noisy)
    PoseTrainer.test(cfg, SimpleNamespace())
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("seed", [3, 0])
def test_a_seed_that_is_given_stays(seed, tmp_path):
    cfg = setup(arguments(tmp_path, "SEED", seed))
    assert seed == cfg.SEED


def test_a_full_disk(tmp_path):
    cfg = load_config(opts=["OUTPUT_DIR", str(tmp_path), "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"])
    with small_files(100), pytest.raises(CheckpointError, match=r"run\.json: can't be written \(File too large\)"):
        write_records(cfg, 0)
    assert not list(tmp_path.iterdir())
