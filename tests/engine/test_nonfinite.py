"""The guard: steps with numbers that are not finite leave no trace but a report, and can be computed again."""

import logging
import math
import re

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import HookBase, SimpleTrainer
from processes import run_in_processes
from small_files import small_files
from tiny_methods import METHODS, global_batch, tiny_config, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dynpose.config import ConfigError
from dynpose.engine import NonFiniteError, NonFiniteGuard, PoseTrainer, TrainingStep, replay

GOOD, BAD_LOSS, BAD_GRADIENT = 1.0, math.nan, 0.0


class Toy(nn.Module):
    """Batch statistics, dropout, a loss that is NaN for an image of NaN, and one whose gradient is, for one of 0."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.root = nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Parameter(torch.ones(1))

    def forward(self, batch):
        x = torch.stack([image["image"] for image in batch])
        y = self.linear(nn.functional.dropout(self.norm(x)))
        weight = torch.stack([image["weight"] for image in batch]).mean()
        return {"loss_a": y.square().mean(), "loss_b": (weight * self.root.square()).sqrt().sum()}


def toy(seed=0):
    torch.manual_seed(seed)
    return Toy().train()


def batch(index, weight=GOOD):
    pixels = torch.randn(4, 3, generator=torch.Generator().manual_seed(index))
    return [
        {"image": row, "weight": torch.tensor(weight), "file_name": f"images/{index}_{i}.jpg"}
        for i, row in enumerate(pixels)
    ]


class Seeding(HookBase):
    def before_step(self):
        torch.manual_seed(0)


def train(model, batches, guard=None, **options):
    """The model after a step for each batch, all with the same random numbers."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if guard is None:
        trainer = SimpleTrainer(model, list(batches), optimizer)
    else:
        trainer = TrainingStep(model, batches, optimizer, guard=guard, **options)
    trainer.register_hooks([Seeding(), guard])
    trainer.train(0, len(batches))
    return model


def assert_same(model, other):
    for (name, value), expected in zip(model.state_dict().items(), other.state_dict().values()):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("bad", [BAD_LOSS, BAD_GRADIENT])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_as_if_the_batch_had_not_been(tmp_path, bad, at):
    """detectron2's own trainer, on the good batches alone, has the same weights and running statistics, bit for bit."""
    good = [batch(i) for i in range(3)]
    expected = train(toy(), good)
    model = toy()
    guarded = train(model, [*good[:at], batch(9, bad), *good[at:]], NonFiniteGuard(model, tmp_path, 1))
    assert_same(guarded, expected)


def test_a_good_run_is_not_touched(tmp_path):
    good, model = [batch(i) for i in range(3)], toy()
    assert_same(train(model, good, NonFiniteGuard(model, tmp_path, 0)), train(toy(), good))
    assert not (tmp_path / "nonfinite").exists()


def test_large_gradients_are_finite(tmp_path):
    """Their squares are not."""
    model = toy()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)
    assert NonFiniteGuard(model, str(tmp_path), 0).check_gradients(model)


def test_a_later_micro_batch(tmp_path):
    """The gradients of the first half are discarded too."""
    model = toy()
    mixed = [*batch(0)[:2], *batch(0, BAD_LOSS)[2:]]
    before = toy()
    assert_same(train(model, [mixed], NonFiniteGuard(model, tmp_path, 1), ims_per_pass=2), before)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (BAD_LOSS, r"iteration 1: losses that are not finite: loss_b = nan, with images images/9_0\.jpg, images/9_1"),
        (BAD_GRADIENT, r"iteration 1: gradients that are not finite: root, with images images/9_0\.jpg"),
    ],
)  # fmt: skip
def test_the_report_names_the_non_finite_values(tmp_path, caplog, bad, message):
    model = toy()
    with caplog.at_level(logging.WARNING):
        train(model, [batch(0), batch(9, bad)], NonFiniteGuard(model, tmp_path, 1))
    (record,) = [record for record in caplog.records if record.name == "dynpose.engine.nonfinite"]
    record = record.getMessage()
    assert re.search(message, record)
    assert f"saved: {tmp_path}/nonfinite/iteration_0000001_rank0.pth" in record
    assert "skipped (1 in a row)" in record
    assert "images/0_0.jpg" not in record


def test_it_stops_after_too_many_in_a_row(tmp_path):
    bad, good = batch(9, BAD_LOSS), batch(0)
    model = toy()
    train(model, [bad, bad, good, bad, bad, good], NonFiniteGuard(model, tmp_path, 2))
    with pytest.raises(
        NonFiniteError, match=r"iteration 3: .*loss_b = nan.* 3 steps in a row, .*NONFINITE_STEPS \(2\)"
    ):
        train(model, [good, bad, bad, bad, good], NonFiniteGuard(model, tmp_path, 2))
    with pytest.raises(NonFiniteError, match="iteration 0"):
        train(model, [bad], NonFiniteGuard(model, tmp_path, 0))
    with pytest.raises(ConfigError, match="MAX_NONFINITE_STEPS must be"):
        NonFiniteGuard(model, tmp_path, -1)


def test_a_resumed_run_continues_counting(tmp_path):
    bad, model = batch(9, BAD_LOSS), toy()
    guard = NonFiniteGuard(model, tmp_path, 2)
    train(model, [bad, bad], guard)
    resumed = NonFiniteGuard(model, tmp_path, 2)
    resumed.load_state_dict(guard.state_dict())
    with pytest.raises(NonFiniteError, match="iteration 0"):
        train(model, [bad], resumed)


def test_few_cases_are_kept(tmp_path):
    model = toy()
    train(model, [batch(9, BAD_LOSS)] * 9, NonFiniteGuard(model, tmp_path, 9))
    assert len(list((tmp_path / "nonfinite").iterdir())) == 5


def test_a_full_disk_does_not_end_the_run(tmp_path, caplog):
    """torch.save turns the system's error into a RuntimeError."""
    model = toy()
    with small_files(500):
        train(model, [batch(9, BAD_LOSS), batch(0)], NonFiniteGuard(model, tmp_path, 1))
    assert "iteration_0000000_rank0.pth: can't be written (File too large)" in caplog.text
    assert not list((tmp_path / "nonfinite").iterdir())
    assert_same(model, train(toy(), [batch(0)]))


def test_a_folder_that_cannot_be_made_does_not_end_the_run(tmp_path, caplog):
    model = toy()
    (tmp_path / "nonfinite").write_text("a file")
    train(model, [batch(9, BAD_LOSS), batch(0)], NonFiniteGuard(model, tmp_path, 1))
    assert "The case is not saved" in caplog.text


def test_replay_gives_the_same_numbers(tmp_path):
    """Batch statistics and dropout included, from the file alone."""
    model, seen = toy(), []
    model.register_forward_hook(lambda module, inputs, losses: seen.append(losses["loss_a"].item()))
    train(model, [batch(0), batch(9, BAD_LOSS), batch(1)], NonFiniteGuard(model, tmp_path, 1))
    other = toy(seed=5)
    state = torch.get_rng_state()
    losses = replay(other, str(tmp_path / "nonfinite/iteration_0000001_rank0.pth"))
    assert math.isnan(losses["loss_b"])
    assert losses["loss_a"].item() == seen[1]
    # whoever replays is not disturbed
    assert torch.equal(torch.get_rng_state(), state)


def _train_in_process(rank, folder, accumulate):
    model = DistributedDataParallel(toy())
    guard = NonFiniteGuard(model, folder, 1)
    halves = [[batch(2 * i + rank) for i in range(3)], batch(50 + rank)]
    good, bad = halves
    if rank == 1:
        bad = [*bad[:3], *batch(9, BAD_LOSS)[3:]]
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("dynpose.engine.nonfinite").addHandler(handler)
    train(model, [good[0], bad, *good[1:]], guard, ims_per_pass=accumulate)
    guarded = {name: value.clone() for name, value in model.module.state_dict().items()}
    expected = DistributedDataParallel(toy())
    train(expected, good, NonFiniteGuard(expected, folder, 0), ims_per_pass=accumulate)
    dist.barrier()
    same = all(torch.equal(value, expected.module.state_dict()[name]) for name, value in guarded.items())
    return same, messages


@pytest.mark.parametrize("accumulate", [0, 2])
def test_all_processes_leave_the_step_out(tmp_path, accumulate):
    results = run_in_processes(_train_in_process, str(tmp_path / "run"), accumulate, folder=tmp_path)
    for same, messages in results:
        assert same
        (message,) = messages
        assert "process 1, loss_b = nan, with images images/51_0.jpg" in message
        assert "process 0" not in message
    assert [path.name for path in (tmp_path / "run/nonfinite").iterdir()] == ["iteration_0000001_rank1.pth"]


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    def test_step_and_replay(self, method, tmp_path):
        """An image of NaN; its losses come again from the file."""
        model = tiny_model(method)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        bad = global_batch()
        bad[0]["image"] = bad[0]["image"].float()
        bad[0]["image"][:] = math.nan
        guard = NonFiniteGuard(model, tmp_path, 1)
        trainer = TrainingStep(model, [bad], torch.optim.SGD(model.parameters(), lr=0.1), guard=guard)
        trainer.register_hooks([guard])
        seen = []
        model.register_forward_hook(lambda module, inputs, losses: seen.append(losses))
        trainer.train(0, 1)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        losses = replay(tiny_model(method), str(tmp_path / "nonfinite/iteration_0000000_rank0.pth"))
        assert any(math.isnan(loss) for loss in losses.values())
        for name, loss in losses.items():
            assert loss.item() == seen[0][name].item() or math.isnan(loss) == math.isnan(seen[0][name]), name

    def test_in_the_trainer(self, tmp_path):
        class Trainer(PoseTrainer):
            @classmethod
            def build_train_loader(cls, cfg):
                bad = global_batch()
                bad[0]["image"] = bad[0]["image"] * math.inf
                return [bad] * 3

        cfg = tiny_config("CID", "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 3, "SOLVER.MAX_NONFINITE_STEPS", 1)
        trainer = Trainer(cfg)
        with pytest.raises(NonFiniteError, match=r"iteration 1: .*MAX_NONFINITE_STEPS \(1\)"):
            trainer.train()
