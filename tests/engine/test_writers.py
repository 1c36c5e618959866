"""EVENT_WRITERS: the example of docs/training.md with a fake tracker, and what is refused."""

import logging
import re
import sys
import types
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage, EventWriter

from dynpose.config import ConfigError, add_dynpose_config
from dynpose.engine.writers import build_event_writers, find_event_writers

DOCS = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def config(*names):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.EVENT_WRITERS = list(names)
    return cfg


@pytest.fixture
def module(monkeypatch):
    """A module of the user that is imported by name."""
    module = types.ModuleType("my_trackers")
    monkeypatch.setitem(sys.modules, "my_trackers", module)
    return module


class FakeRun:
    """What the example uses of a run of Weights & Biases."""

    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, metrics, step):
        self.logged.append((step, dict(metrics)))

    def finish(self):
        self.finished = True


def test_the_documented_example_writes_each_metric_once(module, monkeypatch):
    run, started = FakeRun(), {}
    fake = types.SimpleNamespace(init=lambda **options: started.update(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "EventWriter" in block)
    exec(example, vars(module))
    cfg = config("my_trackers.WandbWriter")
    cfg.OUTPUT_DIR = "output/run7"
    (writer,) = build_event_writers(cfg)
    assert started["id"] == "run7"
    assert started["config"]["SOLVER"]["BASE_LR"] == cfg.SOLVER.BASE_LR
    with EventStorage(0) as storage:
        storage.put_scalar("total_loss", 2.0)
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        writer.write()
        writer.write()
        storage.step()
        storage.put_scalar("keypoints/AP", 55.0, smoothing_hint=False)
        writer.write()
        writer.close()
    assert run.logged == [(0, {"total_loss": 2.0, "lr": 0.1}), (1, {"keypoints/AP": 55.0})]
    assert run.finished


def test_a_failing_tracker_does_not_end_the_training(module, caplog):
    class Failing(EventWriter):
        def __init__(self, cfg):
            self.calls = 0

        def write(self):
            self.calls += 1
            raise ConnectionError("no route to host")

    module.Failing = Failing
    (writer,) = build_event_writers(config("my_trackers.Failing"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            writer.write()
        writer.close()
    assert writer.writer.calls == 3
    assert [record.getMessage() for record in caplog.records] == [
        "EVENT_WRITERS: my_trackers.Failing fails; training continues without it"
    ]


def test_the_trainer_has_them_beside_detectron2s(module, tmp_path):
    from types import SimpleNamespace

    from dynpose.engine import PoseTrainer

    class Silent(EventWriter):
        def __init__(self, cfg):
            pass

    module.Silent = Silent
    cfg = config("my_trackers.Silent")
    cfg.OUTPUT_DIR = str(tmp_path)
    # build_writers reads these two attributes alone
    trainer = PoseTrainer.__new__(PoseTrainer)
    vars(trainer).update(SimpleNamespace(cfg=cfg, max_iter=9).__dict__)
    names = [type(getattr(writer, "writer", writer)).__name__ for writer in trainer.build_writers()]
    assert names == ["CommonMetricPrinter", "JSONWriter", "TensorboardXWriter", "Silent"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.Writer", "EVENT_WRITERS: 'no_such_module.Writer' can't be imported"),
        ("my_trackers.missing", "EVENT_WRITERS: 'my_trackers.missing' can't be imported"),
        ("my_trackers.number", "EVENT_WRITERS: 'my_trackers.number' is a int, not a class or a function"),
        (
            "my_trackers.nothing",
            "EVENT_WRITERS: 'my_trackers.nothing' returned a NoneType, not a detectron2 EventWriter",
        ),
    ],
)
def test_invalid_names(module, name, message):
    module.number, module.nothing = 3, lambda cfg: None
    with pytest.raises(ConfigError, match=message):
        build_event_writers(config(name))
    assert find_event_writers(config()) == {}
