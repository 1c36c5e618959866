"""Checkpoints that are damaged, deleted, set back or too many."""

import json
import os
import zipfile

import pytest
import torch
from small_files import small_files
from torch import nn

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.engine.checkpointing import TrainingCheckpointer, find_damage, keep_weights
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
    """The checkpoint that a run resumes from, and its checkpointer."""
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


def some_other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("holiday.txt", "sun")


def empty_zip(path):
    zipfile.ZipFile(path, "w").close()


def zip_of_an_empty_pickle(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", "")
        file.writestr("archive/version", "3")


def _change(path, **values):
    checkpoint = {**torch.load(path, weights_only=True), **values}
    torch.save({key: value for key, value in checkpoint.items() if value is not None}, path)


def without_iteration(path):
    _change(path, iteration=None)


def negative_iteration(path):
    _change(path, iteration=-5)


def true_iteration(path):
    _change(path, iteration=True)


def nothing_of_the_trainer(path):
    _change(path, trainer={})


def no_state_of_the_trainer(path):
    _change(path, trainer=[1])


def weights_alone(path):
    keep_weights(nn.Linear(2, 1), path.parent, path.stem, (), iteration=2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "it is incomplete (File is not a zip file)"),
        (empty, "it is incomplete (File is not a zip file)"),
        (flip_a_bit, "the checksum of archive/data/0 is wrong"),
        (delete, "it does not exist"),
        (some_other_zip, "it is not a checkpoint ("),
        (empty_zip, "it is an empty archive"),
        (zip_of_an_empty_pickle, "it is not a checkpoint ("),
        (without_iteration, "it has no iteration"),
        (negative_iteration, "it has no iteration"),
        (true_iteration, "it has no iteration"),
        (nothing_of_the_trainer, "it has weights, but no state of the trainer"),
        (no_state_of_the_trainer, "it has weights, but no state of the trainer"),
        (weights_alone, "it has weights, but no state of the trainer"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(damage, reason, tmp_path, caplog):
    save(tmp_path)
    assert resume(tmp_path)[0] == 2
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    damage(tmp_path / "model_0000029.pth")
    number, resumed = resume(tmp_path)
    assert number == 1
    assert f"The newest checkpoint can't be used (model_0000029.pth: {reason}" in caplog.text
    assert "): resuming from model_0000019.pth" in caplog.text
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


def test_a_run_that_is_set_back_ignores_later_checkpoints(tmp_path):
    save(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000019.pth")
    assert resume(tmp_path)[0] == 1
    cut(tmp_path / "model_0000019.pth")
    assert resume(tmp_path)[0] == 0


def test_only_the_newest_are_kept(tmp_path):
    # of another program
    (tmp_path / "model_0000001.pth").write_bytes(b"x")
    save(tmp_path, [*NAMES, "model_final"], kept=2)
    kept = ["model_0000001.pth", "model_0000019.pth", "model_0000029.pth", "model_final.pth"]
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == kept
    # the count continues in a resumed run
    resumed = checkpointer(tmp_path, kept=2)
    resumed.resume_or_load("", resume=True)
    resumed.save("model_0000039")
    assert not (tmp_path / "model_0000019.pth").exists()
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == ["model_0000029.pth", "model_0000039.pth"]
    with pytest.raises(ConfigError, match=r"CHECKPOINTS_KEPT must be .*, got -1"):
        checkpointer(tmp_path, kept=-1)


@pytest.mark.parametrize("place", ["last_checkpoint", "checkpoints.json"])
def test_a_run_that_is_killed_before_it_has_deleted_the_oldest(place, tmp_path):
    """After its last checkpoint, too: the list and the files are those of a run left alone."""
    saving, replace, left = save(tmp_path, NAMES[:2], kept=2), os.replace, [2 if place == "checkpoints.json" else 1]

    def kill(source, target):
        if os.path.basename(target) == place:
            left[0] -= 1
            if not left[0]:
                os._exit(9)
        replace(source, target)

    pid = os.fork()
    if not pid:
        os.replace = kill
        saving.save(NAMES[2], iteration=2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    loading = checkpointer(tmp_path, kept=2)
    if loading.resume_or_load("", resume=True)["iteration"] == 1:
        loading.save(NAMES[2], iteration=2)
    names = [f"{name}.pth" for name in NAMES[1:]]
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints.json", "last_checkpoint", *names]


def missing(path):
    path.unlink()


def a_folder(path):
    path.unlink()
    (path / "deeper").mkdir(parents=True)


def not_text(path):
    path.write_bytes(bytes(range(256)))


def other_text(path):
    path.write_text("<html>\nNot found\n</html>")


def nothing(path):
    path.write_text("")


def a_file_that_is_not_there(path):
    path.write_text("model_0000999.pth")


@pytest.mark.parametrize("has_list", [True, False])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (missing, "last_checkpoint is missing"),
        (a_folder, "last_checkpoint is a folder, which was renamed to last_checkpoint.moved"),
        (not_text, "last_checkpoint can't be read"),
        (other_text, "last_checkpoint names no checkpoint"),
        (nothing, "last_checkpoint names no checkpoint"),
        (a_file_that_is_not_there, "model_0000999.pth: it does not exist"),
    ],
)
def test_numbered_checkpoints_are_found_without_the_note_of_the_last(damage, reason, has_list, tmp_path, caplog):
    save(tmp_path)
    damage(tmp_path / "last_checkpoint")
    if not has_list:
        (tmp_path / "checkpoints.json").unlink()
    number, resumed = resume(tmp_path)
    assert number == 2
    assert reason in caplog.text
    assert "resuming from model_0000029.pth" in caplog.text
    # the note is right again at once: a run that has ended saves nothing more
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000029.pth"
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == [f"{name}.pth" for name in NAMES]
    resumed.save("model_0000039", iteration=3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000039.pth"
    assert json.loads((tmp_path / "checkpoints.json").read_text()) == [
        *(f"{name}.pth" for name in NAMES),
        "model_0000039.pth",
    ]


def test_unlisted_checkpoints_are_of_another_run(tmp_path):
    save(tmp_path)
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "checkpoints.json").write_text('["model_0000019.pth"]')
    assert resume(tmp_path)[0] == 1


def test_a_folder_in_the_place_of_the_list(tmp_path):
    (tmp_path / "checkpoints.json").mkdir()
    message = (
        r"checkpoints\.json: can't be written \(Is a directory\)\. .*; make the folder writable and remove any folder"
    )
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path)


@pytest.mark.parametrize(
    "content", ["[" * 100000, "{", '{"a": 1}', "[3]", "null", '["../model_0000019.pth"]', '"model_0000019.pth"']
)
def test_a_list_of_checkpoints_that_is_none(content, tmp_path, caplog):
    save(tmp_path)
    (tmp_path / "checkpoints.json").write_text(content)
    delete(tmp_path / "model_0000029.pth")
    assert resume(tmp_path)[0] == 1
    assert "checkpoints.json: " in caplog.text


def test_weights_alone_are_not_gone_on_from(tmp_path):
    """The numbered checkpoints of a finished run were deleted: it must not start at 0 and overwrite its weights."""
    weights_alone(tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match=r"model_final\.pth: it has weights, but no state of the trainer"):
        resume(tmp_path)
    # a file of an earlier dynpose or of detectron2 has all
    save(tmp_path, ["model_final"])
    (tmp_path / "last_checkpoint").unlink()
    assert resume(tmp_path)[0] == 0


def test_a_folder_in_the_way_that_cannot_be_moved(tmp_path):
    save(tmp_path)
    a_folder(tmp_path / "last_checkpoint")
    (tmp_path / "last_checkpoint.moved").write_text("a file")
    with pytest.raises(CheckpointError, match="last_checkpoint: is a folder that can't be renamed"):
        resume(tmp_path)


def test_partial_checkpoints_of_a_killed_run_are_deleted(tmp_path):
    save(tmp_path)
    (tmp_path / "model_0000031.pth.tmp").write_bytes(b"half")
    (tmp_path / "somebodys.tmp").write_bytes(b"all")
    resume(tmp_path)
    assert [path.name for path in tmp_path.glob("*.tmp")] == ["somebodys.tmp"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """The system refuses to write more than half of the file."""
    saving = save(tmp_path)
    size = (tmp_path / "model_0000029.pth").stat().st_size
    with (
        small_files(size // 2),
        pytest.raises(CheckpointError, match=r"model_0000029\.pth: can't be written \(File too large\).* MB are free"),
    ):
        saving.save("model_0000029")
    assert not list(tmp_path.glob("*.tmp"))
    assert resume(tmp_path)[0] == 2
    with small_files(3), pytest.raises(CheckpointError, match=r"checkpoints\.json: can't be written"):
        saving.tag_last_checkpoint("model_0000029.pth")
    assert resume(tmp_path)[0] == 2


def test_weights_are_written_once(tmp_path):
    model = nn.Linear(2, 1)
    keep_weights(model, tmp_path / "ema", "model_final", ["person"], iteration=4)
    path = tmp_path / "ema/model_final.pth"
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == {"model", "dynpose", "iteration"}
    assert saved["dynpose"]["classes"] == ["person"]
    assert not (tmp_path / "ema/last_checkpoint").exists()
    before = path.stat().st_ino
    keep_weights(model, tmp_path / "ema", "model_final", ["person"], iteration=4)
    assert path.stat().st_ino == before
    # of other weights, of another iteration, or damaged: it is written
    for change in (lambda: nn.init.zeros_(model.weight), lambda: cut(path), lambda: without_iteration(path)):
        change()
        keep_weights(model, tmp_path / "ema", "model_final", ["person"], iteration=4)
        assert find_damage(path) is None
        assert torch.equal(torch.load(path, weights_only=True)["model"]["weight"], model.weight)


def test_without_a_checkpoint_a_run_starts(tmp_path, caplog):
    assert checkpointer(tmp_path).resume_or_load("", resume=True) == {}
    # the weights of another run are not resumed from, whatever else is in their file
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
