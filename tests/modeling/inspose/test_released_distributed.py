"""The released InsPose's losses and gradients in two processes are those of one with the whole batch."""

import pytest
from processes import run_in_processes
from small_models import image, one_person
from test_released import TWO, released_model


def _batch():
    return [image(one_person(), 0), image(TWO, 1)]


def _losses(inputs):
    model = released_model().train()
    losses = model(inputs)
    sum(losses.values()).backward()
    layers = (model.controller.linear, model.head.keypoint_offsets, model.aux_branch.tags, model.aux_branch.heatmaps)
    return {name: loss.item() for name, loss in losses.items()}, [layer.weight.grad for layer in layers]


def _one_process(rank):
    return _losses([_batch()[rank]])


def test_two_processes_equal_one(tmp_path):
    (first, first_grads), (second, second_grads) = run_in_processes(_one_process, folder=tmp_path)
    whole, whole_grads = _losses(_batch())
    for name, loss in whole.items():
        # DistributedDataParallel averages the gradients of the processes
        assert (first[name] + second[name]) / 2 == pytest.approx(loss, rel=1e-4), name
    for first_grad, second_grad, whole_grad in zip(first_grads, second_grads, whole_grads):
        # as a whole, since rounding that differs between batch sizes moves single ReLUs across zero
        difference = (first_grad + second_grad) / 2 - whole_grad
        assert difference.norm() < 1e-3 * whole_grad.norm()
