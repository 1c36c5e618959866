"""Two processes give one process's losses and gradients, although their images have people in unequal numbers."""

import pytest
import torch
from cid_models import tiny_model
from processes import run_in_processes
from small_models import image, one_person, people

_SECOND = [[60, 20, 100, 90], [10, 30, 50, 110], [80, 80, 120, 120]]


def _batches():
    """Two images whose people have 4 and 3 + 3 labelled keypoints, then two with but one person in both."""
    points = [
        [(70, 30, 2), (90, 50, 2), (65, 50, 1), (0, 0, 0)],
        [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)],
        [(0, 0, 0)] * 4,
    ]
    masked = image(people(_SECOND, points), 1)
    masked["ignore_mask"] = torch.zeros(128, 128, dtype=torch.bool)
    masked["ignore_mask"][90:, 50:] = True
    no_people = image(people([], []), 2)
    return [[image(one_person(size=(128, 112)), 0), masked], [no_people, image(one_person(), 0)]]


def _losses(inputs, norm):
    model = tiny_model(heatmap_loss_norm=norm).train()
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)[model.in_feature]
    instances = [one["instances"] for one in inputs]
    # random numbers would differ between the processes and the whole
    jitter = torch.zeros(sum(map(len, instances)), 2, dtype=torch.int64)
    masks = [one.get("ignore_mask") for one in inputs]
    losses = model.losses(features, model.map_sizes(torch.tensor(images.image_sizes)), instances, masks, jitter)
    sum(losses.values()).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters()]
    return {name: loss.item() for name, loss in losses.items()}, torch.cat(gradients)


def _one_process(rank):
    return [_losses([batch[rank]], norm) for batch in _batches() for norm in ("pooled", "person")]


def test_two_processes_equal_one(tmp_path):
    processes = run_in_processes(_one_process, folder=tmp_path)
    whole = [_losses(batch, norm) for batch in _batches() for norm in ("pooled", "person")]
    for (first, first_grad), (second, second_grad), (expected, expected_grad) in zip(*processes, whole):
        assert expected.keys() == {"loss_multi_heatmap", "loss_contrastive", "loss_single_heatmap"}
        for name, loss in expected.items():
            # DistributedDataParallel averages the gradients of the processes
            assert (first[name] + second[name]) / 2 == pytest.approx(loss, rel=1e-4, abs=1e-9), name
        difference = (first_grad + second_grad) / 2 - expected_grad
        assert difference.norm() < 1e-4 * expected_grad.norm()
