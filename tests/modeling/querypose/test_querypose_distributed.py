"""Two processes give one process's losses and gradients, although their images have people in unequal numbers."""

import pytest
import torch
from processes import run_in_processes
from querypose_models import tiny_model
from small_models import image, one_person, people

_SECOND = [[60, 20, 100, 90], [10, 30, 50, 110], [80, 80, 120, 120]]


def _batches():
    """Two images with one and three people, one without a labelled keypoint; then two with but one person in both."""
    points = [
        [(70, 30, 2), (90, 50, 2), (65, 50, 1), (0, 0, 0)],
        [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)],
        [(0, 0, 0)] * 4,
    ]
    no_people = image(people([], []), 2)
    return [
        [image(one_person(size=(128, 112)), 0), image(people(_SECOND, points), 1)],
        [no_people, image(one_person(), 0)],
    ]


# of the batch normalisation of several processes, each has its own
_CHOICES = [
    {"keypoint": {"norm": "FrozenBN"}},
    {"keypoint": {"norm": "FrozenBN", "dynamic_mlp": False}, "activation_checkpoint": True},
    {"keypoint": {"norm": "FrozenBN"}, "decode_in_training": "matched", "pipeline": "box_decoder"},
]


def _losses(inputs, choice):
    model = tiny_model(**choice).train()
    losses = model(inputs)
    sum(losses.values()).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters()]
    return {name: loss.item() for name, loss in losses.items()}, torch.cat(gradients)


def _gradients_of_ddp(rank):
    """The gradients of a process after two steps; in the first, one of the processes has no people in its image."""
    results = []
    for checkpointed in (False, True):
        model = tiny_model(activation_checkpoint=checkpointed).train()
        parallel = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        for batch in reversed(_batches()):
            # the second step says so if the first has left a parameter without a gradient
            model.zero_grad()
            sum(parallel([batch[rank]]).values()).backward()
        results.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    return results


def _one_process(rank):
    losses = [_losses([batch[rank]], choice) for batch in _batches() for choice in _CHOICES]
    return losses, _gradients_of_ddp(rank)


def test_two_processes_equal_one(tmp_path):
    (first, first_ddp), (second, second_ddp) = run_in_processes(_one_process, folder=tmp_path)
    whole = [_losses(batch, choice) for batch in _batches() for choice in _CHOICES]
    for (ours, our_grad), (theirs, their_grad), (expected, expected_grad) in zip(first, second, whole):
        assert expected["loss_keypoint"] != 0
        for name, loss in expected.items():
            # DistributedDataParallel averages the gradients of the processes
            assert (ours[name] + theirs[name]) / 2 == pytest.approx(loss, rel=1e-4, abs=1e-6), name
        difference = (our_grad + their_grad) / 2 - expected_grad
        assert difference.norm() < 1e-4 * expected_grad.norm()

    # it does so, and with activation checkpointing, too
    for gradient, other in zip(first_ddp, second_ddp):
        assert gradient.isfinite().all()
        assert gradient.any()
        torch.testing.assert_close(gradient, other)
    torch.testing.assert_close(*first_ddp)
