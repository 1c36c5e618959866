"""The training step: detectron2's own without accumulation, the whole batch's gradients with it, and the guard."""

import copy
import logging

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from processes import run_in_processes
from tiny_methods import global_batch, tiny_config, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dynpose.config import ConfigError
from dynpose.engine import TrainingStep
from dynpose.engine.accumulation import check_ims_per_process, split_batch
from dynpose.engine.precision import Precision


class Regression(nn.Module):
    """Squared errors of a linear layer, averaged over the batch, and a second loss on its weights."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3, 1)
        self.batch_sizes = []

    def forward(self, batch):
        self.batch_sizes.append(len(batch))
        x, y = map(torch.stack, zip(*batch))
        return {"loss_error": (self.linear(x) - y).square().mean(), "loss_size": self.linear.weight.abs().sum()}


def regression_batches(count, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, size, 4, generator=generator)
    return [[(row[:3], row[3:]) for row in batch] for batch in values]


def run(step, iterations):
    with EventStorage() as storage:
        for step.iter in range(iterations):
            storage.iter = step.iter
            step.run_step()
    return {name: history.values() for name, history in storage.histories().items() if "data_time" not in name}


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9)


@pytest.mark.parametrize(
    ("size", "limit", "sizes"),
    [
        (8, 0, [8]),
        (8, 8, [8]),
        (8, 9, [8]),
        (8, 2, [2, 2, 2, 2]),
        (8, 3, [3, 3, 2]),
        (5, 2, [2, 2, 1]),
        (7, 4, [4, 3]),
        (9, 4, [3, 3, 3]),
        (1, 1, [1]),
    ],
)
def test_split(size, limit, sizes):
    pieces = split_batch(list(range(size)), limit)
    assert [len(piece) for piece, _ in pieces] == sizes
    assert [image for piece, _ in pieces for image in piece] == list(range(size))
    assert [share for _, share in pieces] == [pytest.approx(length / size) for length in sizes]


def test_a_negative_limit():
    with pytest.raises(ConfigError, match=r"SOLVER\.IMS_PER_PROCESS must be .* got -1"):
        check_ims_per_process(tiny_config("FCPose", "SOLVER.IMS_PER_PROCESS", -1))


def test_without_accumulation_it_is_detectron2s_step():
    ours, theirs = Regression(), Regression()
    batches = regression_batches(4, 6)
    metrics = run(TrainingStep(ours, batches, sgd(ours)), 4)
    assert metrics == run(SimpleTrainer(theirs, batches, sgd(theirs)), 4)
    assert set(metrics) >= {"total_loss", "loss_error", "loss_size"}
    assert torch.equal(ours.linear.weight, theirs.linear.weight)
    assert torch.equal(ours.linear.bias, theirs.linear.bias)


@pytest.mark.parametrize(("limit", "sizes"), [(2, [2, 2, 2]), (4, [3, 3]), (5, [3, 3]), (1, [1] * 6)])
def test_accumulated_gradients_are_the_whole_batchs(limit, sizes):
    """Where a loss is a mean over the images, nothing but rounding tells them apart."""
    whole, parts = Regression(), Regression()
    batches = regression_batches(3, 6)
    expected = run(SimpleTrainer(whole, batches, sgd(whole)), 3)
    metrics = run(TrainingStep(parts, batches, sgd(parts), ims_per_pass=limit), 3)
    assert parts.batch_sizes == sizes * 3
    torch.testing.assert_close(parts.linear.weight, whole.linear.weight, rtol=1e-6, atol=1e-7)
    for name, values in expected.items():
        assert [value for value, _ in metrics[name]] == [pytest.approx(value, rel=1e-5) for value, _ in values]


def test_an_uneven_batch_weighs_every_image_the_same():
    whole, parts = Regression(), Regression()
    batches = regression_batches(2, 5)
    run(SimpleTrainer(whole, batches, sgd(whole)), 2)
    run(TrainingStep(parts, batches, sgd(parts), ims_per_pass=3), 2)
    assert parts.batch_sizes == [3, 2] * 2
    torch.testing.assert_close(parts.linear.weight, whole.linear.weight, rtol=1e-6, atol=1e-7)


def test_of_a_model_it_is_the_mean_of_the_micro_batches():
    """Each micro-batch's losses have their own normalisers: docs/clusters.md."""
    model, batch = tiny_model("FCPose"), global_batch()
    reference = copy.deepcopy(model)
    with EventStorage():
        for image in batch:
            (sum(reference([image]).values()) / 2).backward()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    run(TrainingStep(model, [batch], optimizer, ims_per_pass=1), 1)
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters()):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_sync_bn_has_bns_weights_and_is_bn_in_one_process():
    batch, losses, states = global_batch(), [], []
    for norm in ("BN", "SyncBN"):
        model = tiny_model("FCPose", "MODEL.FCPOSE.BASIS.NORM", norm)
        losses.append({name: loss.item() for name, loss in model(batch).items()})
        states.append(model.state_dict())
    assert losses[0] == losses[1]
    assert states[0].keys() == states[1].keys()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def _ddp(rank):
    """Weights after two steps of accumulation, and how often the processes have exchanged gradients."""
    model = Regression()
    parallel = DistributedDataParallel(model)
    exchanges = []

    def exchange(state, bucket):
        exchanges.append(bucket.index())
        return (
            torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
            .get_future()
            .then(lambda done: done.value()[0])
        )

    parallel.register_comm_hook(None, exchange)
    batches = [batch[rank::2] for batch in regression_batches(2, 8)]
    run(TrainingStep(parallel, batches, sgd(model), ims_per_pass=1), 2)
    return model.linear.weight.detach(), len(exchanges)


def test_processes_exchange_gradients_once_a_batch(tmp_path):
    whole = Regression()
    run(SimpleTrainer(whole, regression_batches(2, 8), sgd(whole)), 2)
    for weight, num_exchanges in run_in_processes(_ddp, folder=tmp_path):
        torch.testing.assert_close(weight, whole.linear.weight.detach(), rtol=1e-5, atol=1e-6)
        assert num_exchanges == 2


class Guard:
    """Refuses the given steps, and records its calls."""

    def __init__(self, losses=(), gradients=()):
        self.refused = {"losses": losses, "gradients": gradients}
        self.seen = {"losses": [], "gradients": []}

    def check_losses(self, loss_dict, batch):
        self.seen["losses"].append((sorted(loss_dict), len(batch)))
        return len(self.seen["losses"]) - 1 not in self.refused["losses"]

    def check_gradients(self, model):
        self.seen["gradients"].append(model.linear.weight.grad.clone())
        return len(self.seen["gradients"]) - 1 not in self.refused["gradients"]


def test_a_guard_sees_losses_and_gradients_and_changes_nothing():
    plain, guarded, guard = Regression(), Regression(), Guard()
    batches = regression_batches(2, 4)
    expected = run(TrainingStep(plain, batches, sgd(plain), ims_per_pass=2), 2)
    assert run(TrainingStep(guarded, batches, sgd(guarded), ims_per_pass=2, guard=guard), 2) == expected
    assert torch.equal(plain.linear.weight, guarded.linear.weight)
    assert guard.seen["losses"] == [(["loss_error", "loss_size"], 2)] * 4
    assert torch.equal(guard.seen["gradients"][1], plain.linear.weight.grad)


@pytest.mark.parametrize(
    "guard",
    # the second micro-batch of the second step, or that step's gradients
    [Guard(losses=[3]), Guard(losses=[2]), Guard(gradients=[1])],
    ids=["second micro-batch", "first micro-batch", "gradients"],
)
def test_a_refused_step_is_as_if_it_had_not_been(guard):
    plain, guarded = Regression(), Regression()
    first, second, third = regression_batches(3, 4)
    run(TrainingStep(plain, [first, third], sgd(plain), ims_per_pass=2), 2)
    optimizer = sgd(guarded)
    metrics = run(TrainingStep(guarded, [first, second, third], optimizer, ims_per_pass=2, guard=guard), 3)
    assert torch.equal(plain.linear.weight, guarded.linear.weight)
    refused_late = guard.refused["gradients"]
    assert [iteration for _, iteration in metrics["loss_error"]] == ([0, 1, 2] if refused_late else [0, 2])


def test_without_a_guard_a_loss_that_is_not_finite_ends_the_run(caplog):
    caplog.set_level(logging.CRITICAL)
    model = Regression()
    (batch,) = regression_batches(1, 2)
    batch[0][0][0] = float("nan")
    with pytest.raises(FloatingPointError, match="became infinite or NaN at iteration=0"):
        run(TrainingStep(model, [batch], sgd(model)), 1)


def test_the_iterator_is_made_at_the_first_step():
    class Loader:
        start = 0

        def __iter__(self):
            return iter(regression_batches(3, 2)[self.start :])

    model, loader = Regression(), Loader()
    step = TrainingStep(model, loader, sgd(model))
    loader.start = 1
    run(step, 2)
    other = Regression()
    run(SimpleTrainer(other, regression_batches(3, 2)[1:], sgd(other)), 2)
    assert torch.equal(model.linear.weight, other.linear.weight)
    with pytest.raises(StopIteration):
        run(step, 1)
    step.reset_data_loader(lambda: regression_batches(1, 2))
    run(step, 1)


def test_the_state_holds_optimizer_and_scaler():
    precision = Precision("cpu", torch.float16)
    model, batches = Regression(), regression_batches(2, 2)
    step = TrainingStep(model, batches, sgd(model), precision=precision)
    # at the usual first scale, the first steps are skipped because gradients overflow
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    run(step, 1)
    state = copy.deepcopy(step.state_dict())
    assert state["grad_scaler"]["scale"] == 8.0
    fresh = TrainingStep(model, batches, sgd(model), precision=precision)
    fresh.load_state_dict(state)
    assert fresh.grad_scaler.get_scale() == 8.0
    momentum = [group["momentum_buffer"] for group in fresh.optimizer.state_dict()["state"].values()]
    assert len(momentum) == 2
    assert all(buffer.any() for buffer in momentum)
    # a run in another precision
    full = TrainingStep(model, batches, sgd(model))
    assert "grad_scaler" not in full.state_dict()
    full.load_state_dict(state)
    fresh.load_state_dict(full.state_dict())
