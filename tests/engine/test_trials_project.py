"""Tables of trainings with several seeds: their configs, the runs and the table."""

import importlib.util
import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from dynpose.config import load_config
from dynpose.engine import main

PROJECT = Path("projects/trials").resolve()
TRIALS = sorted(path.name for path in PROJECT.glob("*.yaml"))


@pytest.fixture
def trials():
    spec = importlib.util.spec_from_file_location("trials", PROJECT / "trials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TRIALS)
def test_rows_differ_in_what_they_state(trials, name):
    """With the same images, batches and length."""
    trial = trials.read_trial(PROJECT / name)
    assert len(trial["rows"]) > 1
    of_rows = []
    for row in trial["rows"].values():
        _, config, *options = trials.arguments(trial, row, 7)
        cfg = load_config(config, options)
        assert (cfg.SEED, cfg.MODEL.TIMM.NAME) == (7, "test_resnet")
        of_rows.append((cfg.DATASETS.dump(), cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.WARMUP_ITERS))
    assert of_rows.count(of_rows[0]) == len(of_rows)


@pytest.mark.usefixtures("clean_run")
def test_a_run_is_trained_once_and_tabulated(trials, tmp_path, monkeypatch, capsys):
    trained = []

    def train(words, printed):
        trained.append(printed.parent)
        main(default_argument_parser().parse_args(words))

    monkeypatch.setattr(trials, "train", train)
    options = {"SYNTHETIC.NUM_TRAIN": 8, "SYNTHETIC.NUM_VAL": 4, "SYNTHETIC.IMAGE_SIZE": [64, 64]}
    common = {f"DATASETS.{key}": value for key, value in options.items()}
    common |= {"INPUT.MIN_SIZE_TRAIN": [64], "INPUT.MIN_SIZE_TEST": 64, "DATALOADER.NUM_WORKERS": 0}
    common |= {"SOLVER.MAX_ITER": 1, "SOLVER.IMS_PER_BATCH": 4, "SOLVER.WARMUP_ITERS": 0}
    file = tmp_path / "trial.yaml"
    file.write_text(json.dumps({"common": common, "rows": {"only": {"config": "quick/fcpose_synthetic.yaml"}}}))
    monkeypatch.setattr("sys.argv", ["trials.py", str(file), "--output", str(tmp_path), "--seeds", "5"])
    for _ in range(2):
        trials.main()
    assert trained == [tmp_path / "only/seed_5"]
    assert (tmp_path / "images/train").is_dir()
    [result] = trials.results(tmp_path / "only", [4, 5])
    assert result.keys() == set(trials.COLUMNS)
    # among 4 images, a group may have no people
    assert all(math.isnan(value) or 0 <= value <= 100 for value in result.values())
    assert capsys.readouterr().out.splitlines()[-1].startswith("| only | 1 | ")
    # a result of other options is not taken for this row's
    file.write_text(file.read_text().replace('"SOLVER.MAX_ITER": 1', '"SOLVER.MAX_ITER": 2'))
    with pytest.raises(SystemExit, match="seed_5 has a training with other options"):
        trials.main()


def runs_instead(monkeypatch, trials, code):
    popen = trials.subprocess.Popen
    monkeypatch.setattr(
        trials.subprocess, "Popen", lambda words, **options: popen([sys.executable, "-S", "-c", code], **options)
    )


def test_a_failed_training_is_named(trials, tmp_path, monkeypatch):
    runs_instead(monkeypatch, trials, "import sys; print('the reason'); sys.exit(3)")
    with pytest.raises(SystemExit, match=r"the training ended with exit code 3: .*output\.txt has its output"):
        trials.train([], tmp_path / "output.txt")
    assert (tmp_path / "output.txt").read_text() == "the reason\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_a_training_ends_with_the_trial(trials, tmp_path, monkeypatch):
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); print('here', flush=True); time.sleep(60)"
    runs_instead(monkeypatch, trials, code)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="ended by SIGTERM"):
        trials.train([], tmp_path / "output.txt")
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_table_has_mean_and_range(trials):
    one, two = (dict.fromkeys(trials.COLUMNS, value) for value in (10, 13))
    assert trials.table({"row": [one, two], "none yet": []}).splitlines()[2:] == [
        "| row | 2 |" + " 11.5 (10.0 to 13.0) |" * 6,
        "| none yet | 0 |" + "  |" * 6,
    ]
