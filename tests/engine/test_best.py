"""The best weights by a metric, and the end of a run that gets no better; interrupted or not."""

import json
import math

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from test_training import arguments

from dynpose.config import ConfigError, load_config
from dynpose.engine import PoseTrainer, main
from dynpose.engine.best import BestHook, StoppedEarly, check_best_checkpoint
from dynpose.engine.evaluating import EvaluationHook, Evaluations

nan = math.nan


class Killed(BaseException):
    pass


class Kill(HookBase):
    """Ends a run where it is, in an evaluation or before an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            raise Killed


class Trainer(TrainerBase):
    """Evaluates every second iteration, with the given values; records its calls."""

    def __init__(self, folder, values, *, metric="keypoints/AP", patience=0, kill=None):
        super().__init__()
        self.values, self.steps, self.evaluated, self.best, self.saved = values, 0, [], [], []
        evaluations = Evaluations(str(folder), load_config())
        self.register_hooks(
            [
                EvaluationHook(2, evaluations, {"weights": self.evaluate}, {}, self.keep),
                BestHook(metric, patience, evaluations, lambda *best: self.best.append(best), self.save),
                Kill(kill),
            ]
        )
        self.metric = metric

    def evaluate(self):
        done = min(self.storage.iter + 1, self.max_iter)
        self.evaluated.append(done)
        task, name = self.metric.split("/")
        return {task: {name: self.values[done // 2 - 1]}}

    def keep(self, results):
        self.results = results

    def save(self):
        self.saved.append(self.iter + 1)

    def run_step(self):
        self.steps += 1

    def run(self, start=0, end=12):
        try:
            self.train(start, end)
        except (StoppedEarly, Killed) as error:
            self.ended_by = type(error)
        return self


VALUES = [10.0, 30.0, 20.0, 30.0, 25.0, 40.0]


def test_the_best_are_kept(tmp_path):
    """Equal is not better."""
    trainer = Trainer(tmp_path, VALUES).run()
    assert trainer.best == [(2, 10.0), (4, 30.0), (12, 40.0)]
    assert trainer.evaluated == [2, 4, 6, 8, 10, 12]
    assert trainer.results == {"keypoints": {"AP": 40.0}}


def test_patience_ends_the_run(tmp_path):
    """After 4 iterations it was best, after 6 and 8 not better."""
    trainer = Trainer(tmp_path, VALUES, patience=2).run()
    assert trainer.ended_by is StoppedEarly
    assert (trainer.steps, trainer.iter, trainer.max_iter) == (8, 8, 8)
    assert trainer.saved == [8]
    assert trainer.best == [(2, 10.0), (4, 30.0)]
    # the evaluation after 8 iterations is the last one, too
    assert trainer.evaluated == [2, 4, 6, 8]
    assert trainer.results == {"keypoints": {"AP": 30.0}}


@pytest.mark.parametrize(
    ("values", "best", "steps"),
    [
        ([nan, nan, 5.0, nan, 4.0, 3.0], [], 4),
        ([5.0, nan, 6.0, nan, nan, 9.0], [(2, 5.0), (6, 6.0)], 10),
    ],
)
def test_nan_is_never_better(values, best, steps, tmp_path):
    trainer = Trainer(tmp_path, values, patience=2).run()
    assert (trainer.best, trainer.steps) == (best, steps)


def test_of_an_error_less_is_better(tmp_path):
    trainer = Trainer(tmp_path, VALUES, metric="pck/NME").run()
    assert trainer.best == [(2, 10.0)]
    trainer = Trainer(tmp_path / "of_a_keypoint", VALUES[::-1], metric="pck/NME-nose").run()
    assert trainer.best == [(2, 40.0), (4, 25.0), (8, 20.0), (12, 10.0)]


@pytest.mark.parametrize("kill", range(1, 9))
def test_a_run_that_is_killed_remembers(kill, tmp_path):
    """It resumes from a checkpoint of that iteration or an earlier one, or after its end, and stops where it would."""
    for start in (kill, max(kill - 1, 1), max(kill - 3, 1)):
        folder = tmp_path / str(start)
        assert Trainer(folder, VALUES, patience=2, kill=kill).run().ended_by in (Killed, StoppedEarly)
        resumed = Trainer(folder, VALUES, patience=2).run(start)
        assert resumed.ended_by is StoppedEarly
        assert (resumed.steps, resumed.max_iter) == (8 - start, 8)
        assert resumed.results == {"keypoints": {"AP": 30.0}}
        # evaluations after the checkpoint are repeated, earlier ones are not
        assert resumed.evaluated == [done for done in (2, 4, 6, 8) if done > start]
        # the weights may have been lost between the evaluation and their file
        assert resumed.best == [best for best in ((2, 10.0), (4, 30.0)) if best[0] >= start]


def test_a_run_that_is_killed_in_an_evaluation_makes_up_for_it(tmp_path):
    class InEvaluation(Trainer):
        def evaluate(self):
            if self.iter == 5:
                raise Killed
            return super().evaluate()

    killed = InEvaluation(tmp_path, VALUES, patience=2).run()
    assert killed.evaluated == [2, 4]
    resumed = Trainer(tmp_path, VALUES, patience=2).run(6)
    assert resumed.evaluated == [6, 8]
    assert resumed.steps == 2


class Evaluator:
    has_annotation = True

    def metric_names(self):
        return {"keypoints": ("AP", "AR"), "pck": ("NME",)}


class OwnEvaluator:
    """A user's own."""


def check(*opts, evaluator=Evaluator):
    cfg = load_config(opts=["DATASETS.TEST", "('a',)", *opts])
    check_best_checkpoint(cfg, lambda cfg, name: evaluator())


def test_metrics_that_there_are():
    check()
    check("SOLVER.BEST_METRIC", "pck/NME")
    check("SOLVER.BEST_METRIC", "keypoints_EMA/AP", "SOLVER.EMA.ENABLED", "True")
    check("SOLVER.BEST_METRIC", "b/keypoints/AP", "DATASETS.TEST", "('a','b')")
    check("SOLVER.BEST_METRIC", "b_EMA/keypoints/AP", "DATASETS.TEST", "('a','b')", "SOLVER.EMA.ENABLED", "True")
    check("SOLVER.BEST_METRIC", "mine", evaluator=OwnEvaluator)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BEST_METRIC", "AP"], r"'AP' is not a metric .*, which reports keypoints/AP, keypoints/AR, pck/NME"),
        (["SOLVER.BEST_METRIC", "keypoints_EMA/AP"], "which reports keypoints/AP, keypoints/AR, pck/NME$"),
        (["SOLVER.BEST_METRIC", "keypoints/AP", "DATASETS.TEST", "('a','b')"], "which reports a/keypoints/AP, "),
        (["SOLVER.BEST_METRIC", "keypoints/AP", "DATASETS.TEST", "()"], "which reports none"),
        (["SOLVER.EARLY_STOPPING_PATIENCE", "2"], "needs a SOLVER.BEST_METRIC"),
        (["SOLVER.EARLY_STOPPING_PATIENCE", "-1"], "must be a number of evaluations, or 0, got -1"),
        (
            ["SOLVER.EARLY_STOPPING_PATIENCE", "2", "SOLVER.BEST_METRIC", "keypoints/AP", "TEST.EVAL_PERIOD", "0"],
            r"set TEST\.EVAL_PERIOD",
        ),
    ],
)
def test_faults_of_the_keys(opts, message):
    with pytest.raises(ConfigError, match=message):
        check(*opts)


def test_an_unknown_metric_is_found_before_training(tmp_path, clean_run):
    with pytest.raises(ConfigError, match=r"SOLVER\.BEST_METRIC 'keypoints/mAP' is not a metric .* keypoints/AP, "):
        main(arguments(tmp_path, "SOLVER.BEST_METRIC", "keypoints/mAP"))
    assert not (tmp_path / "metrics.json").exists()


def test_a_run_keeps_its_best_and_ends_early(tmp_path, monkeypatch, clean_run):
    """Its weights are best after two iterations, the average's after three."""
    tested = []
    test = PoseTrainer.test.__func__

    def scripted(cls, cfg, model, *args):
        results = test(cls, cfg, model, *args)
        tested.append({name: value.clone() for name, value in model.state_dict().items()})
        results["keypoints"]["AP"] = [10.0, 1.0, 20.0, 2.0, 15.0, 3.0, 14.0, 2.5][len(tested) - 1]
        return results

    monkeypatch.setattr(PoseTrainer, "test", classmethod(scripted))
    opts = [
        *("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5, "TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 9),
        *("SOLVER.BEST_METRIC", "keypoints/AP", "SOLVER.EARLY_STOPPING_PATIENCE", 2),
    ]
    results = main(arguments(tmp_path, *opts))
    # weights and average in turn: 10, 20, 15 and 14 are of the weights
    assert len(tested) == 8
    assert results["keypoints"]["AP"] == 14.0
    assert results["keypoints_EMA"]["AP"] == 2.5
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert best.keys() == {"model", "dynpose", "iteration", "best"}
    assert (best["iteration"], best["best"]) == (1, {"keypoints/AP": 20.0})
    assert all(torch.equal(value, tested[2][name]) for name, value in best["model"].items())
    # the end is that of a run of four iterations
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 3
    assert all(torch.equal(value, tested[6][name]) for name, value in final["model"].items())
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["keypoints/AP"] for line in lines if line["iteration"] == 4] == [14.0]

    # it has ended, and stays so
    assert main(arguments(tmp_path, *opts, resume=True))["keypoints"]["AP"] == 14.0
    assert len(tested) == 8
    # the average's own: 1, 2, 3, 2.5; the second run is given the same numbers again
    tested.clear()
    opts[opts.index("keypoints/AP")] = "keypoints_EMA/AP"
    main(arguments(tmp_path / "average", *opts, "SOLVER.MAX_ITER", 4))
    best = torch.load(tmp_path / "average/model_best.pth", weights_only=True)
    assert (best["iteration"], best["best"]) == (2, {"keypoints_EMA/AP": 3.0})
    assert all(torch.equal(value, tested[5][name]) for name, value in best["model"].items())
