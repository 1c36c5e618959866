"""Two processes give one process's losses and gradients, although their images have people in unequal numbers."""

import pytest
from processes import run_in_processes
from small_models import image, one_person, people, small_model

_OPTS = (
    *("MODEL.INSPOSE.NUM_FEATURE_CONVS", 1),
    *("MODEL.INSPOSE.FEATURE_CONVS_DIM", 32),
    *("MODEL.INSPOSE.OFFSET_CONVS_DIM", 32),
    *("MODEL.INSPOSE.HEATMAP_CONVS_DIM", 32),
)
_SECOND = [[60, 20, 100, 90], [10, 30, 50, 110], [80, 80, 120, 120]]


def _batch():
    points = [
        [(70, 30, 2), (90, 50, 2), (65, 50, 1), (80, 85, 2)],
        [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)],
        [(0, 0, 0)] * 4,
    ]
    return [image(one_person(), 0), image(people(_SECOND, points), 1)]


def _losses(inputs):
    """Losses and the controller's gradient, without a box head and with it."""
    results = []
    for boxes in (False, True):
        model = small_model("configs/InsPose/Base-InsPose.yaml", *_OPTS, "MODEL.INSPOSE.BOX_HEAD", boxes).train()
        losses = model(inputs)
        sum(losses.values()).backward()
        losses = {name: loss.item() for name, loss in losses.items()}
        results.append((losses, model.controller.linear.weight.grad))
    return results


def _one_process(rank):
    return _losses([_batch()[rank]])


def test_two_processes_equal_one(tmp_path):
    processes = run_in_processes(_one_process, folder=tmp_path)
    for (first, first_grad), (second, second_grad), (whole, whole_grad) in zip(*processes, _losses(_batch())):
        assert whole.keys() >= {"loss_fcos_cls", "loss_keypoint", "loss_offset", "loss_aux_heatmap"}
        for name, loss in whole.items():
            # DistributedDataParallel averages the gradients of the processes
            assert (first[name] + second[name]) / 2 == pytest.approx(loss, rel=1e-4), name
        # as a whole, since rounding that differs between batch sizes moves single ReLUs across zero
        difference = (first_grad + second_grad) / 2 - whole_grad
        assert difference.norm() < 1e-3 * whole_grad.norm()
