"""Checkpoints that are damaged, deleted, set back or too many."""

import json
import os

import pytest
import torch
from torch import nn

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.engine.checkpointing import TrainingCheckpointer
from dynpose.utils.atomic import atomic_open

NAMES = [f"model_{iteration:07d}" for iteration in (9, 19, 29)]


class Counter:
    """Something with a state."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def checkpointer(folder, **kwargs):
    return TrainingCheckpointer(nn.Linear(2, 1), str(folder), trainer=Counter(), **kwargs)


def save(folder, names=NAMES, **kwargs):
    """Checkpoints whose weights and trainer say which they are."""
    os.makedirs(folder, exist_ok=True)
    saving = checkpointer(folder, **kwargs)
    for i, name in enumerate(names):
        nn.init.constant_(saving.model.weight, i)
        saving.checkpointables["trainer"].value = i
        saving.save(name, iteration=i)
    return saving


def resume(folder):
    """Which checkpoint a run goes on from, and its checkpointer."""
    loading = checkpointer(folder)
    extra = loading.resume_or_load("", resume=True)
    number = loading.checkpointables["trainer"].value
    assert loading.model.weight.tolist() == [[number, number]]
    assert extra["iteration"] == number
    return number, loading


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    """In a weight, where torch.load does not notice it."""
    content = bytearray(path.read_bytes())
    place = content.index(torch.full((2,), 2.0).numpy().tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path)["model"]["weight"].tolist() != [[2, 2]]


def delete(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "it is incomplete (File is not a zip file)"),
        (empty, "it is incomplete (File is not a zip file)"),
        (flip_a_bit, "the checksum of archive/data/0 is wrong"),
        (delete, "it does not exist"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(damage, reason, tmp_path, caplog):
    save(tmp_path)
    assert resume(tmp_path)[0] == 2
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    damage(tmp_path / "model_0000029.pth")
    number, resumed = resume(tmp_path)
    assert number == 1
    message = f"The newest checkpoint is damaged (model_0000029.pth: {reason}): going on from model_0000019.pth"
    assert message in caplog.text
    # it is saved again when the run comes there
    resumed.save("model_0000029")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000029.pth"
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == [f"{name}.pth" for name in NAMES]

    for name in NAMES:
        (tmp_path / f"{name}.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"no checkpoint of the run .* model_0000019\.pth.* model_0000009\.pth"):
        resume(tmp_path)


def test_the_final_one_falls_back_to_a_numbered_one(tmp_path):
    save(tmp_path, [*NAMES, "model_final"])
    assert resume(tmp_path)[0] == 3
    cut(tmp_path / "model_final.pth")
    assert resume(tmp_path)[0] == 2


def test_a_run_that_is_set_back_forgets_what_came_after(tmp_path):
    save(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000019.pth")
    assert resume(tmp_path)[0] == 1
    cut(tmp_path / "model_0000019.pth")
    assert resume(tmp_path)[0] == 0


def test_only_the_newest_are_kept(tmp_path):
    # of somebody else
    (tmp_path / "model_0000001.pth").write_bytes(b"x")
    save(tmp_path, [*NAMES, "model_final"], kept=2)
    kept = ["model_0000001.pth", "model_0000019.pth", "model_0000029.pth", "model_final.pth"]
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == kept
    # the count goes on in a resumed run
    resumed = checkpointer(tmp_path, kept=2)
    resumed.resume_or_load("", resume=True)
    resumed.save("model_0000039")
    assert not (tmp_path / "model_0000019.pth").exists()
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == ["model_0000029.pth", "model_0000039.pth"]
    with pytest.raises(ConfigError, match=r"CHECKPOINTS_KEPT must be .*, got -1"):
        checkpointer(tmp_path, kept=-1)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    saving = save(tmp_path)

    def full(data, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        saving.save("model_0000029")
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp"))
    assert resume(tmp_path)[0] == 2


def test_without_a_checkpoint_a_run_starts(tmp_path, caplog):
    assert checkpointer(tmp_path).resume_or_load("", resume=True) == {}
    # the weights of another run are not the place to go on from, whatever else is in their file
    save(tmp_path / "other", NAMES[:2])
    fine_tuned = checkpointer(tmp_path)
    assert fine_tuned.resume_or_load(str(tmp_path / "other/model_0000019.pth"), resume=True) == {}
    assert fine_tuned.model.weight.tolist() == [[1, 1]]
    assert fine_tuned.checkpointables["trainer"].value == 0
    save(tmp_path)
    fresh = checkpointer(tmp_path)
    fresh.resume_or_load("", resume=False)
    assert fresh.checkpointables["trainer"].value == 0
    assert "holds the checkpoints of an earlier run" in caplog.text


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with atomic_open(path) as f:
        f.write("old")

    def interrupted():
        with atomic_open(path) as f:
            f.write("new")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
