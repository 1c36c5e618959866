"""The released keypoint loss shrinks with the number of GPUs; ours is that of one process with the whole batch."""

import pytest
from processes import run_in_processes
from small_models import image, one_person, people, small_model

# statistics of the batch and the limit of samples are per process by design
_OPTS = ("MODEL.FCPOSE.BASIS.NORM", "", "MODEL.FCPOSE.MAX_SAMPLES", 0)
_SECOND = [[60, 20, 100, 90], [10, 30, 50, 110]]


def _batch():
    points = [[(70, 30, 2), (90, 50, 2), (65, 50, 1), (80, 85, 2)], [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)]]
    return [image(one_person(), 0), image(people(_SECOND, points), 1)]


def _losses(config, inputs):
    model = small_model(config, *_OPTS).train()
    losses = model(inputs)
    sum(losses.values()).backward()
    return {name: loss.item() for name, loss in losses.items()}, model.controller.linear.weight.grad


def _one_process(rank, config):
    return _losses(config, [_batch()[rank]])


@pytest.mark.parametrize("config", ["configs/FCPose/R_50_3x.yaml", "configs/FCPose/R_50_3x_release.yaml"])
def test_two_processes_equal_one(tmp_path, config):
    (first, first_grad), (second, second_grad) = run_in_processes(_one_process, config, folder=tmp_path)
    whole, whole_grad = _losses(config, _batch())
    for name, loss in whole.items():
        # DistributedDataParallel averages the gradients of the processes
        assert (first[name] + second[name]) / 2 == pytest.approx(loss, rel=1e-4), name
    # as a whole, since rounding that differs between batch sizes moves single ReLUs across zero
    difference = (first_grad + second_grad) / 2 - whole_grad
    assert difference.norm() < 1e-3 * whole_grad.norm()
