"""How train_net.py ends: errors in the input are one line and exit code 2, with several processes too."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog
from test_training import CONFIG, TINY
from torch.utils.data import DataLoader

from dynpose.config import ConfigError, load_config
from dynpose.data import DatasetError
from dynpose.data.synthetic import register_synthetic_pose_from_cfg
from dynpose.tools.ending import exit_code

ROOT = Path(__file__).parents[2]
INSTALLER = "dynpose/tools/install_detectron2.py"
# what an import finds where it is not installed
HIDE = """
import runpy, sys
class Hide:
    def find_spec(name, path, target=None):
        if name == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name=name)
sys.meta_path.insert(0, Hide)
"""


def run(*words, command=(sys.executable,)):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def train_net(monkeypatch):
    """train_net.py in this process: its exit code for some words."""
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("train_net")

    def start(*words):
        monkeypatch.setattr(sys, "argv", ["train_net.py", *map(str, words)])
        return exit_code("train_net.py", module.run, is_run=True)

    return start


@pytest.mark.usefixtures("catalogs")
def test_the_processes_of_a_run_report_an_error_once(tmp_path, script_command):
    """The first one alone looks at the images; the second one waits for it."""
    opts = [*TINY, "OUTPUT_DIR", str(tmp_path / "run")]
    register_synthetic_pose_from_cfg(load_config(CONFIG, opts))
    broken = Path(DatasetCatalog.get("synthetic_pose_train")[2]["file_name"])
    broken.write_bytes(broken.read_bytes()[:-400])
    words = (ROOT / "train_net.py", "--config-file", CONFIG, "--num-gpus", 2, *opts)
    done = run(*words, command=script_command)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if broken.name in line]
    assert line.startswith("train_net.py: error: 1 of 4 images can't be read: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "run.lock").exists()


def test_mistakes_of_one_process(train_net, tmp_path, capsys, monkeypatch):
    assert train_net("--config-file", "nowhere.yaml") == 2
    assert capsys.readouterr().err.startswith("train_net.py: error: nowhere.yaml: no such config file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_net("--config-file", CONFIG, *TINY, "MODEL.DEVICE", "cuda", "OUTPUT_DIR", tmp_path) == 2
    assert capsys.readouterr().err == (
        "train_net.py: error: MODEL.DEVICE 'cuda': PyTorch finds no GPU on this machine; set MODEL.DEVICE cpu (at the "
        "end of the command)\n"
    )
    assert train_net("--config-file", CONFIG, "--num-gpus", 8, *TINY, "MODEL.DEVICE", "cuda") == 2
    assert capsys.readouterr().err.startswith(
        "train_net.py: error: --num-gpus 8 with MODEL.DEVICE 'cuda': PyTorch finds no GPU on this machine; "
    )


def test_a_bug_keeps_its_traceback(train_net, monkeypatch):
    monkeypatch.setattr("dynpose.engine.main", lambda args: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        train_net("--config-file", CONFIG, *TINY)


def test_without_detectron2(tmp_path):
    """Nothing of it can be imported; the file to run is named."""
    done = run("-c", f"{HIDE}\nrunpy.run_path('train_net.py', run_name='__main__')")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("train_net.py: error: detectron2 is not installed: run python ")
    assert done.stderr.rstrip().endswith(INSTALLER)

    commands = [
        ["train", "--config-file", "x"],
        ["evaluate", "--config-file", "x", "--weights", "x"],
        ["predict", "--config-file", "x", "--weights", "x", "--input", "x", "--output", str(tmp_path)],
        ["check-data", "--config-file", "x"],
        ["convert-weights", "--input", "x", "--output", "x"],
        ["model-info", "--config-file", "x"],
        ["benchmark", "predict", "--config-file", "x", "--weights", "x"],
    ]
    done = run("-c", f"{HIDE}\nfrom dynpose.tools.cli import main\nfor one in {commands}: print(main(one))")
    assert done.stdout.split() == ["2"] * len(commands), done.stderr
    assert done.stderr.count("dynpose: error: detectron2 is not installed: run python ") == len(commands)


class _Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DatasetError("a.jpg: is broken;\ncopy it again")


def test_the_error_of_a_data_worker(capsys):
    """PyTorch raises it with the worker's traceback as its text."""
    loader = DataLoader(_Broken(), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(DatasetError, match="Traceback"):
        next(iter(loader))
    assert exit_code("train_net.py", lambda: next(iter(loader))) == 2
    assert capsys.readouterr().err == "train_net.py: error: a.jpg: is broken; copy it again\n"


def test_who_says_it(monkeypatch, capsys):
    def says(message, **environment):
        for name in ("LOCAL_RANK", "SLURM_LOCALID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        def fail():
            raise ConfigError(message)

        assert exit_code("train_net.py", fail, is_run=True) == 2
        return capsys.readouterr().err

    line = "train_net.py: error: a\n"
    # before they have met, the first of each machine
    assert [says("a"), says("a", LOCAL_RANK="0"), says("a", SLURM_LOCALID="0")] == [line] * 3
    assert [says("a", LOCAL_RANK="3"), says("a", SLURM_LOCALID="3")] == [""] * 2
    # then whoever is the first
    store = dist.HashStore()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    assert [says("a", LOCAL_RANK="3"), says("a", LOCAL_RANK="0"), says("a")] == [line, "", ""]
    assert says("b") == line.replace("a\n", "b\n")
