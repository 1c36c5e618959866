"""metrics.json of a run that is resumed: repeated lines are removed, and metrics continue unchanged."""

import json

import pytest
from detectron2.engine import TrainerBase, hooks
from detectron2.utils.events import EventStorage, JSONWriter

from dynpose.engine.metrics_file import MetricsHook, cut_metrics, load_storage_state, storage_state


def lines(*iterations):
    return "".join(json.dumps({"iteration": iteration, "loss": 0.5}) + "\n" for iteration in iterations)


@pytest.mark.parametrize(
    ("content", "start", "expected", "last"),
    [
        (lines(19, 39, 59), 50, lines(19, 39), 39),
        (lines(19, 39, 59), 60, lines(19, 39, 59), 59),
        (lines(19, 39, 59), 10, "", -1),
        # an evaluation's line may come after a later iteration's
        (lines(19, 39, 30, 40), 40, lines(19, 39, 30), 39),
        (lines(19, 39, 30), 39, lines(19, 30), 30),
        # a kill or a power failure has left a part of a line
        (lines(19) + '{"iteration": 39, "lo', 50, lines(19), 19),
        (lines(19) + '{"iteration": 39}', 50, lines(19), 19),
        (lines(19) + "[1]\n" + lines(39), 50, lines(19, 39), 39),
        ("", 5, "", -1),
    ],
)
def test_lines_that_will_be_written_again_are_cut_off(content, start, expected, last, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with open(path, "a") as writer:
        assert cut_metrics(str(path), start) == last
        writer.write(lines(100))
    assert path.read_text() == expected + lines(100)


def test_files_that_cannot_be_cut(tmp_path, caplog):
    assert cut_metrics(str(tmp_path / "nowhere.json"), 5) == -1
    assert cut_metrics(str(tmp_path), 5) == -1
    assert "repeated iterations can't be removed" in caplog.text


def test_smoothed_metrics_continue():
    """The median of 20 values, half of them of before; measured times start from scratch."""
    whole, first, second = EventStorage(0), EventStorage(0), EventStorage(15)
    for i in range(30):
        storage = first if i < 15 else second
        if i == 15:
            load_storage_state(second, storage_state(first))
            assert second.iter == 15
        for each in (whole, storage):
            each.iter = i
            each.put_scalar("loss", (7 * i) % 11)
            each.put_scalar("time", i)
            if i == 9:
                each.put_scalar("keypoints/AP", 40.0, smoothing_hint=False)
    assert second.latest_with_smoothing_hint()["loss"] == whole.latest_with_smoothing_hint()["loss"]
    assert second.latest()["keypoints/AP"] == (40.0, 9)
    assert len(second.history("time").values()) == 15


class LastEvaluation(hooks.HookBase):
    def after_train(self):
        if self.trainer.iter >= self.trainer.max_iter == 41:
            self.trainer.storage.put_scalar("AP", 41.0, smoothing_hint=False)


class Trainer(TrainerBase):
    """Its loss is the iteration. It is evaluated after some, and at the end."""

    def __init__(self, folder, state=None):
        super().__init__()
        self.metrics = MetricsHook(str(folder))
        self.metrics.resumes, self.metrics.state = state is not None, state or {}
        writer = hooks.PeriodicWriter([JSONWriter(str(folder / "metrics.json"))])
        self.register_hooks([self.metrics, LastEvaluation(), writer])

    def run_step(self):
        self.storage.put_scalar("loss", float(self.iter))
        if self.iter % 13 == 1:
            self.storage.put_scalar("AP", float(self.iter), smoothing_hint=False)
        self.saved = storage_state(self.storage)

    def before_train(self):
        super().before_train()
        if self.start_iter == self.max_iter:
            self.iter -= 1  # as ResumeHook does


@pytest.mark.parametrize(("stop", "left"), [(20, 19), (20, 0), (25, 19), (40, 39), (40, 19), (41, 40), (41, 39)])
def test_no_line_is_lost_or_there_twice(stop, left, tmp_path):
    """A run of 41 iterations is killed after the checkpoint of an iteration, before or after its line is written."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    Trainer(tmp_path / "whole").train(0, 41)
    first, path = Trainer(tmp_path / "killed"), tmp_path / "killed/metrics.json"
    first.train(0, stop)
    written = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in written if json.loads(line)["iteration"] <= left))
    Trainer(tmp_path / "killed", first.saved).train(stop, 41)
    assert path.read_text() == (tmp_path / "whole/metrics.json").read_text()
