"""A run that is killed, damaged or signalled ends with the numbers of an undisturbed one."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from comparing_runs import find_difference, flat_state, read_metrics
from tiny_methods import METHODS

from dynpose.engine.signals import RESUMABLE_EXIT_CODE

_DATA = [
    *("DATASETS.TRAIN", "('synthetic_pose_train',)", "DATASETS.TEST", "()"),
    *("DATASETS.SYNTHETIC.NUM_TRAIN", "5", "DATASETS.SYNTHETIC.NUM_VAL", "2", "INPUT.MIN_SIZE_TEST", "64"),
    *("DATASETS.SYNTHETIC.IMAGE_SIZE", "[64,64]"),
    *("INPUT.MIN_SIZE_TRAIN", "(48,64)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice"),
    *("INPUT.AFFINE.SIZE", "[64,64]", "INPUT.RANDOM_FLIP", "horizontal"),
]
_SMALL = [
    *("MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.RESNETS.NORM", "BN", "MODEL.FPN.OUT_CHANNELS", "64"),
    *("MODEL.QUERYPOSE.NUM_STAGES", "2", "MODEL.QUERYPOSE.FEEDFORWARD_DIM", "32"),
    *("MODEL.QUERYPOSE.PART_FEEDFORWARD_DIM", "32"),
]
# Five iterations, a checkpoint after every other one and the last
_RUN = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "3", "SEED", "7"),
    *("SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "2"),
]
_EVALUATED = ["DATASETS.TEST", "('synthetic_pose_val',)"]
# Everything with a state besides the model, and all evaluations and saved files
MORE = [
    *("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", "0.5", "SOLVER.BEST_METRIC", "keypoints_EMA/AP"),
    *("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "1", "TEST.EVAL_PERIOD", "2"),
]
TTA = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False"]
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def options(method, images, output, *opts):
    config, own = METHODS[method]
    folders = ["OUTPUT_DIR", output, "DATASETS.SYNTHETIC.ROOT", images]
    return config, [str(word) for word in (*_SMALL, *own, *_DATA, *_RUN, *folders, *opts)]


def evaluated_options(method, images, output, *opts):
    """Of a run with evaluations."""
    return options(method, images, output, *_EVALUATED, *opts)


@pytest.fixture(scope="module")
def run_all(tmp_path_factory, script_command):
    """Give a function of runs, see restarting_runs.py, that gives how they ended."""
    log = tmp_path_factory.mktemp("log") / "log.txt"
    with open(log, "w") as stderr:
        process = subprocess.Popen(
            [*script_command, str(Path(__file__).with_name("restarting_runs.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

        def run_all(runs):
            process.stdin.write(json.dumps(runs) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, log.read_text()
            # shown where a test fails
            print(log.read_text()[-3000:])
            return json.loads(answer)

        yield run_all
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        same = torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
        assert same, key


def assert_same_files(folder, expected, *, failed=False):
    assert find_difference(folder, expected, failed=failed) is None


# Where a run is killed, one start after the other: before the first checkpoint, ...
_BETWEEN = {"backward": 2, "workers": 2}
# ... in the middle of the second one's file, ...
_WITHIN = {"write": 2}
# ... before it, the list of checkpoints and last_checkpoint take their names, ...
_AROUND = [{"rename": name} for name in ("model_0000003.pth", "checkpoints.json", "last_checkpoint")]
# ... and after it.
_AFTER = {"backward": 3, "workers": 2}
# In the middle of the last evaluation, with the last checkpoint and the final weights in place
_EVALUATING = {"evaluate": 2}


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_time_it_ends_bit_equal(method, images, tmp_path, run_all):
    # more of everything for the first one
    is_first = method == "FCPose"
    more = MORE if is_first else ()
    config, opts = evaluated_options(method, images, tmp_path / "killed", *more)
    _, alone = evaluated_options(method, images, tmp_path / "alone", *more)
    kills = [_BETWEEN, _WITHIN, *_AROUND, _AFTER] if is_first else [{**_WITHIN, "workers": 2}, _EVALUATING]
    run = {"config": config, "resume": True, "scored": is_first}
    runs = [{**run, "opts": [*alone, "DATALOADER.NUM_WORKERS", "0"]}]
    for kill in [*kills, {}]:
        kill = dict(kill)
        workers = ["DATALOADER.NUM_WORKERS", str(kill.pop("workers", 0))]
        runs.append({**run, "opts": [*opts, *workers], **kill})
    assert run_all(runs) == [0, *[KILLED] * len(kills), 0]
    state = flat_state(tmp_path / "alone/model_0000004.pth")
    for key in ("_trainer/optimizer", "hooks/LRScheduler", *(["ema/model"] if more else [])):
        assert any(name.startswith(f"/trainer/{key}") for name in state), key
    assert_same_files(tmp_path / "killed", tmp_path / "alone")
    # nothing half-written is left
    numbered = ["model_0000001.pth", "model_0000003.pth", "model_0000004.pth"]
    names = sorted(path.name for path in (tmp_path / "killed").glob("*.p*"))
    assert names == [*numbered, *(["model_best.pth"] if more else []), "model_final.pth"]
    assert_metrics_are_complete(tmp_path / "killed/metrics.json")


def assert_metrics_are_complete(path):
    """The last iteration has the losses, and the last evaluation follows it."""
    lines = read_metrics(path)
    assert "total_loss" in lines[4]
    assert "keypoints/AP" in lines[5]


# From the last iteration's checkpoint on: on a full disk, and without last_checkpoint; then in the middle of the final
# weights, which the averaged ones come before, on a full disk, and before they have their name; and in the last
# evaluation, before its results are kept, and in its second part
_LAST = [
    *({"full": 1}, {"rename": "last_checkpoint"}, {"write": 3}, {"full": 1}, {"rename": "model_final.pth"}),
    *({"rename": "evaluations.json"}, {"evaluate": 4}),
]


def test_killed_at_its_end_or_on_a_full_disk_it_ends_bit_equal(images, tmp_path, run_all):
    config, opts = evaluated_options("CID", images, tmp_path / "killed", *MORE, *TTA)
    _, alone = evaluated_options("CID", images, tmp_path / "alone", *MORE, *TTA)
    run = {"config": config, "resume": True, "scored": True}
    first = {**run, "opts": opts, "backward": 5}
    kills = [{**run, "opts": opts, **kill} for kill in _LAST]
    ends = [1 if "full" in kill else KILLED for kill in _LAST]
    codes = run_all([{**run, "opts": alone}, first, *kills, {**run, "opts": opts}])
    assert codes == [0, KILLED, *ends, 0]
    assert_same_files(tmp_path / "killed", tmp_path / "alone", failed=True)
    assert_metrics_are_complete(tmp_path / "killed/metrics.json")


def test_a_signal_saves_and_ends_with_the_resumable_code(images, tmp_path, run_all):
    """It reaches the data workers too, as under SLURM."""
    config, opts = options("CID", images, tmp_path / "run", "DATALOADER.NUM_WORKERS", 1)
    _, alone = options("CID", images, tmp_path / "alone", "DATALOADER.NUM_WORKERS", 0)
    run, last = {"config": config, "opts": opts, "resume": True}, tmp_path / "run/last_checkpoint"
    # in the third iteration: it is saved, although checkpoints are due after even ones
    assert run_all([{**run, "backward": 3, "signal": signal.SIGUSR1}]) == [RESUMABLE_EXIT_CODE]
    assert last.read_text() == "model_0000002.pth"
    # and in the one after that
    assert run_all([{**run, "backward": 1, "signal": signal.SIGTERM}]) == [RESUMABLE_EXIT_CODE]
    assert last.read_text() == "model_0000003.pth"
    assert run_all([run, {**run, "opts": alone}]) == [0, 0]
    # it has one checkpoint more, that of the signal
    last = "model_0000004.pth"
    assert_same(flat_state(tmp_path / "run" / last), flat_state(tmp_path / "alone" / last))
    assert_same(flat_state(tmp_path / "run/model_final.pth"), flat_state(tmp_path / "alone/model_final.pth"))


def test_two_processes_stop_together_and_resume(images, tmp_path, run_all):
    """One of them is signalled; each has separate random numbers and statistics."""
    short = ["DATALOADER.NUM_WORKERS", 0, "SOLVER.MAX_ITER", 3]
    config, opts = options("FCPose", images, tmp_path / "run", *short)
    _, alone = options("FCPose", images, tmp_path / "alone", *short)
    run = {"config": config, "opts": opts, "resume": True, "processes": 2, "store": str(tmp_path / "store_1")}
    assert run_all([{**run, "backward": 1, "signal": signal.SIGUSR1}]) == [RESUMABLE_EXIT_CODE] * 2
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000000.pth"
    resumed = {**run, "store": str(tmp_path / "store_2")}
    whole = {**run, "opts": alone, "store": str(tmp_path / "store_3")}
    assert run_all([resumed, whole]) == [0] * 4
    state = flat_state(tmp_path / "alone/model_0000002.pth")
    assert_same(flat_state(tmp_path / "run/model_0000002.pth"), state)
    assert not torch.equal(state["/processes/0/rng/torch"], state["/processes/1/rng/torch"])
    statistics = "/processes/{}/buffers/backbone.bottom_up.stem.conv1.norm.running_mean"
    assert not torch.equal(state[statistics.format(0)], state[statistics.format(1)])


def test_another_seed_gives_other_weights(images, tmp_path, run_all):
    """That the same seed gives the same is what every other test here is built on."""
    runs = []
    for seed in (1, 2):
        config, opts = options("FCPose", images, tmp_path / str(seed), "SEED", seed, "SOLVER.MAX_ITER", 1)
        runs.append({"config": config, "opts": [*opts, "DATALOADER.NUM_WORKERS", "0"], "resume": False})
    assert run_all(runs) == [0, 0]
    key = "/model/backbone.bottom_up.stem.conv1.weight"
    assert not torch.equal(*(flat_state(tmp_path / f"{seed}/model_final.pth")[key] for seed in (1, 2)))
