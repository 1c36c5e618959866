"""The set-up of a run: its folder is locked, its device is there, and its mistakes are those of all its processes."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from test_training import arguments

from dynpose.config import ConfigError
from dynpose.engine import PoseTrainer, main, setup

pytestmark = pytest.mark.usefixtures("clean_run")


def train(trainer):
    """Takes long."""
    Path(trainer.cfg.OUTPUT_DIR, "has_begun").touch()
    time.sleep(100)


@pytest.fixture
def running(tmp_path):
    """A run that is at its first iteration, in another process: its folder and that process."""
    folder = tmp_path / "run"
    pid = os.fork()
    if pid == 0:
        PoseTrainer.train = train
        try:
            main(arguments(folder, "SEED", 1))
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not (folder / "has_begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield folder, pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_second_run_on_a_folder_ends_at_once(running):
    folder, pid = running
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for eval_only in (False, True):
        with pytest.raises(ConfigError, match=rf"OUTPUT_DIR {folder}: another run is using it \(process {pid} on "):
            main(arguments(folder, "SEED", 2, eval_only=eval_only))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    # the other one's data are not in its way
    setup(arguments(folder.parent / "second", "DATASETS.SYNTHETIC.ROOT", folder / "synthetic"))


def test_a_killed_run_leaves_no_lock(running):
    folder, pid = running
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert (folder / "run.lock").exists()
    main(arguments(folder, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()))
    assert (folder / "model_final.pth").exists()
    assert not (folder / "run.lock").exists()


def test_the_folder_is_free_after_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="NO_SUCH"):
        setup(arguments(tmp_path, "MODEL.META_ARCHITECTURE", "NO_SUCH"))
    assert not (tmp_path / "run.lock").exists()
    # a process that sets up its run again keeps its folder, one that sets up another leaves it
    setup(arguments(tmp_path))
    setup(arguments(tmp_path))
    assert (tmp_path / "run.lock").exists()
    setup(arguments(tmp_path / "other"))
    assert not (tmp_path / "run.lock").exists()


def test_a_config_by_name(tmp_path):
    """The log shows the file that the name means."""
    args = arguments(tmp_path, config="quick/fcpose_synthetic.yaml")
    assert Path(setup(args).OUTPUT_DIR) == tmp_path
    assert args.config_file == "quick/fcpose_synthetic.yaml"
    assert "_BASE_" in (tmp_path / "log.txt").read_text()


def test_a_folder_that_can_not_be_written_to(tmp_path):
    """To the super-user, /proc looks as if it could."""
    folder = "/proc/self/run"
    with pytest.raises(ConfigError, match=f"^OUTPUT_DIR {folder}: .*; (set OUTPUT_DIR to|name) another folder"):
        setup(arguments(tmp_path, "OUTPUT_DIR", folder))


def test_a_log_that_can_not_be_written_to(tmp_path):
    (tmp_path / "log.txt").mkdir()
    message = (
        rf"^OUTPUT_DIR {tmp_path}: {tmp_path}/log.txt can't be written to \(Is a directory\); set OUTPUT_DIR to another"
    )
    with pytest.raises(ConfigError, match=message):
        setup(arguments(tmp_path))


@pytest.mark.parametrize("eval_only", [False, True])
@pytest.mark.parametrize(
    ("device", "num_gpus", "problem"),
    [
        ("cuda", 0, "PyTorch finds no GPU on this machine"),
        ("cuda:2", 2, "PyTorch finds 2 on this machine, counted from 0"),
        ("mps", 0, "PyTorch finds no MPS device on this machine"),
        ("meta", 0, "PyTorch finds no META device on this machine"),
    ],
)
def test_a_device_that_is_missing(tmp_path, monkeypatch, device, num_gpus, problem, eval_only):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    expected = f"^MODEL.DEVICE '{device}': {problem}; set MODEL.DEVICE cpu "
    with pytest.raises(ConfigError, match=expected):
        setup(arguments(tmp_path, "MODEL.DEVICE", device, eval_only=eval_only))
    assert not list(tmp_path.iterdir())
