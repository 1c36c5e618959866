"""`dynpose benchmark train`: its batches, its iterations against detectron2's trainer, and its output."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from commands import parse, read_tables
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from small_models import SCHEMA, small_config
from test_model_benchmark import CID, CONFIGS, FCPOSE, SMALL_CID, small_keypoint_rcnn

from dynpose.benchmark import clocks, memory
from dynpose.benchmark.configs import PEER_NAME
from dynpose.benchmark.measure import Measurement
from dynpose.benchmark.memory import OUT_OF_MEMORY
from dynpose.benchmark.settings import Settings
from dynpose.benchmark.train import report, run
from dynpose.benchmark.train.case import (
    Training,
    TrainingCase,
    TrainingConfig,
    load_training_configs,
    make_batch,
    time_parts,
)
from dynpose.config import load_config
from dynpose.engine.optimizer import build_optimizer
from dynpose.tools import benchmark
from dynpose.tools.cli import main

CPU = torch.device("cpu")
SIZE = (128, 192)


def keypoint_rcnn():
    """Small, as the command reads it: with dynpose's keys."""
    cfg, small = load_config(), small_keypoint_rcnn()
    for key in ("MODEL", "SOLVER"):
        _merge(cfg[key], small[key])
    return cfg


def _merge(into, other):
    for key, value in other.items():
        if hasattr(value, "items"):
            _merge(into[key], value)
        else:
            into[key] = value


def case_of(*cfgs, num_people=2):
    configs = [TrainingConfig(f"small {index}", cfg) for index, cfg in enumerate(cfgs)]
    return TrainingCase({config.name: config for config in configs}, 2, SIZE, num_people, CPU)


# --- batches ---


def test_ground_truth_is_that_of_the_mapper():
    """Fields, shapes and types of PoseDatasetMapper; people stand in their boxes."""
    batch = Training(small_config(FCPOSE), CPU).ground_truth(make_batch(2, SIZE, 3, 7, CPU))
    assert len(batch) == 2
    for image in batch:
        assert image["image"].dtype == torch.uint8
        assert image["image"].shape == (3, *SIZE)
        people = image["instances"]
        assert people.image_size == SIZE
        boxes, keypoints = people.gt_boxes.tensor, people.gt_keypoints.tensor
        assert boxes.shape == (3, 4)
        assert keypoints.shape == (3, SCHEMA.num_keypoints, 3)
        assert (keypoints[..., 2] == 2).all()
        assert (keypoints[..., :2] >= boxes[:, None, :2]).all()
        assert (keypoints[..., :2] <= boxes[:, None, 2:]).all()
        assert people.gt_classes.tolist() == [0, 0, 0]
        torch.testing.assert_close(people.gt_areas, people.gt_boxes.area() / 2)
        assert "ignore_mask" not in image
    assert not torch.equal(batch[0]["image"], batch[1]["image"])


def test_ground_truth_with_masks_and_without_people():
    network = Training(small_config(CID, *SMALL_CID, "INPUT.IGNORE_MASKS", True), CPU)
    (image,) = network.ground_truth(make_batch(1, SIZE, 0, 0, CPU))
    assert image["ignore_mask"].shape == SIZE
    assert not image["ignore_mask"].any()
    assert image["instances"].gt_keypoints.tensor.shape == (0, SCHEMA.num_keypoints, 3)
    assert torch.isfinite(network.forward([image]))


def test_batches_differ_and_are_the_same_every_time():
    first, second = (make_batch(2, SIZE, 2, seed, CPU) for seed in (0, 1))
    assert torch.equal(first.images, make_batch(2, SIZE, 2, 0, CPU).images)
    assert not torch.equal(first.images, second.images)
    network = Training(small_config(FCPOSE), CPU)
    keypoints = [network.ground_truth(each)[0]["instances"].gt_keypoints.tensor for each in (first, first, second)]
    assert torch.equal(keypoints[0], keypoints[1])
    assert not torch.equal(keypoints[0], keypoints[2])


# --- iterations ---


# without people, detectron2 averages over no keypoints
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered in scalar divide")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_people", [0, 3])
def test_every_model_trains(name, num_people):
    case = case_of(keypoint_rcnn() if name == "Keypoint R-CNN" else CONFIGS[name](), num_people=num_people)
    before = {key: value.clone() for key, value in case["small 0"].model.named_parameters()}
    case.run("small 0", case.make_inputs(CPU, 0))
    assert torch.isfinite(case.losses["small 0"])
    model = case["small 0"].model
    assert model.training
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    # so that all iterations do the same work
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_an_iteration_is_that_of_detectron2s_trainer():
    """The same gradients and the same state of the optimizer, from the same batch."""
    cfg = small_config(FCPOSE, "SOLVER.OPTIMIZER", "ADAMW", "SOLVER.CLIP_GRADIENTS.ENABLED", True)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "full_model", 0.1
    case = case_of(cfg)
    inputs = case.make_inputs(CPU, 3)
    case.run("small 0", inputs)
    ours = case["small 0"]

    other = Training(cfg, CPU)
    optimizer = build_optimizer(cfg, other.model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    trainer = SimpleTrainer(other.model, [other.ground_truth(inputs)], optimizer)
    with EventStorage():
        trainer.run_step()
    compared = 0
    for left, right in zip(ours.model.parameters(), other.model.parameters()):
        assert (left.grad is None) == (right.grad is None)
        if left.grad is not None:
            assert torch.equal(left.grad, right.grad)
            assert torch.equal(ours.optimizer.state[left]["exp_avg_sq"], optimizer.state[right]["exp_avg_sq"])
            compared += 1
    assert compared > 50
    # the clipping is the optimizer's, and took place
    squares = sum(p.grad.square().sum() for p in ours.model.parameters() if p.grad is not None)
    assert squares.sqrt() == pytest.approx(0.1, rel=1e-3)


def test_what_stays_in_memory():
    """Adam keeps two numbers for each trainable one, beside its counter of steps; SGD one."""
    for name, factor in (("ADAMW", 2), ("SGD", 1)):
        case = case_of(small_config(FCPOSE, "SOLVER.OPTIMIZER", name))
        case.run("small 0", case.make_inputs(CPU, 0))
        model, held = case["small 0"].model, case["small 0"].constant_bytes()
        trained = [p for p in model.parameters() if p.grad is not None]
        numbers = sum(p.numel() for p in trained)
        everything = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
        counters = 4 * len(trained) if name == "ADAMW" else 0
        assert held == {
            "weights and buffers": everything,
            "gradients": 4 * numbers,
            "optimizer state": 4 * factor * numbers + counters,
        }


def test_a_case_can_be_sent_to_another_process():
    case = case_of(small_config(FCPOSE))
    case.run("small 0", case.make_inputs(CPU, 1))
    copy = pickle.loads(pickle.dumps(case))
    assert (copy._built, copy.losses) == ({}, {})
    copy.run("small 0", copy.make_inputs(CPU, 1))
    assert torch.equal(copy.losses["small 0"], case.losses["small 0"])


def test_what_runs_out_of_memory_is_dropped(monkeypatch):
    case = case_of(small_config(FCPOSE))
    inputs = case.make_inputs(CPU, 0)

    def fail(network, loss):
        raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")

    assert case["small 0"] is case["small 0"]
    monkeypatch.setattr(Training, "backward", fail)
    assert memory.unless_out_of_memory(case.run, "small 0", inputs) == OUT_OF_MEMORY
    assert case._built == {}


def test_parts_by_hand(monkeypatch):
    """Each part is timed on its own."""

    class Sleeper:
        now = 0.0

        def ground_truth(self, inputs):
            self.now += 0.5
            return inputs

        def forward(self, batch):
            self.now += 1
            return batch

        def backward(self, loss):
            assert loss == "batch"
            self.now += 3

        def update(self):
            self.now += 2

    sleeper = Sleeper()
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: sleeper.now)
    assert time_parts(sleeper, "batch", clocks.make_wall_clock(CPU), rounds=3) == {
        "forward": 1.5,
        "backward": 3,
        "step": 2,
    }


# --- configs ---


def test_variants_of_every_config(small_run):
    variants = ["", "MODEL.KP_NET.WIDTH 4", 'SOLVER.OPTIMIZER ADAMW INPUT.CROP.SIZE "[0.5, 0.5]"', ""]
    configs = load_training_configs([small_run.config], variants, ["MODEL.KP_NET.DEPTH", "2"], peer=True)
    assert [config.name for config in configs] == [
        "FCPose config",
        "FCPose config, WIDTH 4",
        "FCPose config, OPTIMIZER ADAMW, SIZE [0.5, 0.5]",
        "FCPose config (2)",
        PEER_NAME,
    ]
    assert [config.cfg.MODEL.KP_NET.WIDTH for config in configs[:4]] == [8, 4, 8, 8]
    assert {config.cfg.MODEL.KP_NET.DEPTH for config in configs[:4]} == {2}
    assert configs[2].cfg.SOLVER.OPTIMIZER == "ADAMW"
    assert configs[2].cfg.INPUT.CROP.SIZE == [0.5, 0.5]
    assert configs[4].cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    assert configs[4].cfg.MODEL.KEYPOINT_ON
    assert configs[4].cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 17


def test_mixed_precision_is_the_configs_or_everyones(small_run):
    variants = ["", "SOLVER.AMP.ENABLED True"]
    own = load_training_configs([small_run.config], variants, peer=True)
    assert [config.cfg.SOLVER.AMP.ENABLED for config in own] == [False, True, False]
    everyone = load_training_configs([small_run.config], variants, peer=True, amp=True)
    assert [config.cfg.SOLVER.AMP.ENABLED for config in everyone] == [True, True, True]


def test_the_peers_mixed_precision_is_that_of_the_first(small_run):
    options = ["SOLVER.AMP.DTYPE", "bfloat16"]
    configs = load_training_configs([small_run.config], opts=options, peer=True, amp=True)
    assert [config.cfg.SOLVER.AMP.DTYPE for config in configs] == ["bfloat16", "bfloat16"]
    TrainingCase({config.name: config for config in configs}, 1, SIZE, 1, CPU)
    alone = load_training_configs([], peer=True, amp=True)
    assert alone[0].cfg.SOLVER.AMP.DTYPE == "float16"


def test_bfloat16_on_a_cpu_whatever_device_the_config_names(small_run):
    options = ["MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"]
    (config,) = load_training_configs([small_run.config], opts=options)
    training = Training(config.cfg, CPU)
    seen = set()
    for module in training.model.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    training.forward(training.ground_truth(make_batch(1, SIZE, 1, 0, CPU)))
    assert seen == {torch.bfloat16}


# --- the command ---


@pytest.fixture
def quick(monkeypatch):
    """No processes for the memory."""
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: 2**20)


def command(config, *arguments):
    shape = ("--batch", "2", "--size", *map(str, SIZE), "--people", "2", "--device", "cpu", "--repeats", "2")
    return parse("train", "--config-file", str(config), *shape, *arguments)


def test_tables_have_a_row_for_every_config(quick, small_run, tmp_path, capsys):
    data = tmp_path / "figures.json"
    variants = ("--variant", "", "--variant", "SOLVER.OPTIMIZER ADAMW")
    arguments = ("--parts", "--markdown", "--json", str(data), "OUTPUT_DIR", str(tmp_path))
    assert benchmark.run(command(small_run.config, *variants, *arguments)) == 0
    out = capsys.readouterr().out
    tables = read_tables(out)
    setups, time, held, parts = tables.values()
    names = ["FCPose config", "FCPose config, OPTIMIZER ADAMW"]
    for table in tables.values():
        assert [row["config"] for row in table] == names
    assert [(row["variant"], row["optimizer"], row["precision"]) for row in setups] == [
        ("", "SGD", "float32"),
        ("SOLVER.OPTIMIZER ADAMW", "ADAMW", "float32"),
    ]
    ratio = "FCPose config / this"
    assert list(time[0]) == ["config", "iterations/s", "images/s", "ms", ratio]
    assert list(held[0]) == ["config", *report._CONSTANT, "peak", ratio]
    assert list(parts[0]) == ["config", "forward", "backward", "step"]
    assert time[0][ratio] == held[0][ratio] == "1.00"
    for row in time:
        assert float(row["iterations/s"]) * float(row["ms"]) == pytest.approx(1000, rel=0.02)
        assert float(row["images/s"]) == pytest.approx(2 * float(row["iterations/s"]), rel=0.02)
        assert float(row[ratio]) == pytest.approx(float(time[0]["ms"]) / float(row["ms"]), rel=0.02)
    inputs = (2 * 3 * 128 * 192 + 2 * 2 * 4 * 4 + 8) / 2**20
    for row in held:
        constant = sum(float(row[what]) for what in report._CONSTANT)
        assert float(row["peak"]) == pytest.approx(constant + 1 + inputs, rel=0.02)

    header = out.partition("\n")[0]
    assert (
        f"median of 2. 2 images of 128 x 192 pixels, 2 people in each. Overrides: OUTPUT_DIR {tmp_path.name}." in header
    )
    text = data.read_text()
    assert report.tables(json.loads(text), "github") + "\n" == out
    for path in (Path.home(), Path.cwd(), tmp_path, Path(sys.prefix)):
        assert str(path) not in text
    assert os.sep not in text.replace(json.loads(text)["environment"]["device"], "")


def test_memory_is_that_of_the_second_iteration(monkeypatch):
    """In a fresh process, whose arguments are sent as a pickle."""
    runs, readings = [], iter((50, 57))
    call = TrainingCase.run
    monkeypatch.setattr(TrainingCase, "run", lambda *arguments: runs.append(arguments[1]) or call(*arguments))
    monkeypatch.setattr(
        memory,
        "in_fresh_process",
        lambda function, *arguments, environment: function(*pickle.loads(pickle.dumps(arguments))),
    )
    monkeypatch.setattr(memory, "_highest_resident_memory", lambda: next(readings))
    monkeypatch.setattr(Path, "write_text", lambda path, text: len(text))
    assert memory.extra_memory(case_of(small_config(FCPOSE)), "small 0", CPU) == 7
    assert runs == ["small 0"] * 2


def made_up_rows(monkeypatch, **measurements):
    cfg = small_config(FCPOSE)
    case = case_of(*[cfg] * len(measurements))
    monkeypatch.setattr(run, "measure_case", lambda *args: dict(zip(case.configs, measurements.values())))
    for name in case.configs:
        case.run(name, case.make_inputs(CPU, 0))
    return case, lambda: run._rows(case, Settings(CPU, rounds=3), with_parts=False)


def test_ratios_and_cells_without_figures(monkeypatch):
    _, rows = made_up_rows(
        monkeypatch,
        baseline=Measurement(seconds=[0.3, 0.2, 0.4], num_bytes=2**20),
        faster=Measurement(seconds=[0.1], num_bytes=None),
        none=Measurement(status=OUT_OF_MEMORY),
    )
    rows = rows()
    assert [row["ms"] for row in rows] == [pytest.approx(300), pytest.approx(100), None]
    assert rows[0]["images_per_second"] == pytest.approx(2 / 0.3)
    time, held = ([line(row, rows[0]) for row in rows] for line in (report._times, report._memory))
    assert [row["small 0 / this"] for row in time] == ["1.00", "3.00", ""]
    assert [row["ms"] for row in time] == ["300", "100", OUT_OF_MEMORY]
    assert [row["small 0 / this"] for row in held] == ["1.00", "", ""]
    assert held[1]["peak"] == ""


def test_it_is_told_where_a_loss_is_not_finite(monkeypatch):
    case, rows = made_up_rows(monkeypatch, baseline=Measurement(seconds=[0.3]))
    assert run._notes(rows()) == []
    case.losses["small 0"] = torch.tensor(float("nan"))
    (note,) = run._notes(rows())
    assert note.startswith("small 0: the loss is not finite")


def test_mistakes(small_run, tmp_path, capsys):
    (tmp_path / "new.yaml").write_text("MODEL:\n  META_ARCHITECTURE: MyPose\n")
    config = ["--config-file", small_run.config]
    for arguments, message in [
        ([], "nothing to measure: give a --config-file, or --peer"),
        (["--config-file", str(tmp_path / "none.yaml")], "no such config file"),
        (["--config-file", str(tmp_path / "new.yaml")], "'MyPose' is not registered"),
        ([*config, "--variant", "MODEL.KPNET.WIDTH 4"], "MODEL.KPNET"),
        ([*config, "--variant", "MODEL.KP_NET.WIDTH"], "KEY VALUE pairs"),
        ([*config, "--variant", "MODEL.MASK_ON True"], "the synthetic people have no masks"),
        ([*config, "--amp", "--size", "64", "64"], "mixed precision needs a GPU"),
    ]:
        assert main(["benchmark", "train", "--device", "cpu", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--people", "-1"), ("--batch", "0"), ("--plot", "figures.png")])
def test_mistakes_are_told_before_anything_is_measured(arguments):
    with pytest.raises(SystemExit):
        parse("train", *arguments)


def test_defaults():
    args = parse("train", "--config-file", "a.yaml", "--variant", "A 1", "--variant", "")
    assert (args.config_file, args.variant) == (["a.yaml"], ["A 1", ""])
    assert (args.batch, tuple(args.size), args.people) == (2, (800, 1333), 5)
    assert not args.peer
    assert not args.amp
