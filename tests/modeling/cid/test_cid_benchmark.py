"""The alternatives of CID's part benchmark: GFD and the variants of RoIAlign of Figure 5b."""

import pytest
import torch
from cid_models import tiny_model
from detectron2 import model_zoo
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from dynpose.methods import get_method
from dynpose.modeling.cid import benchmark
from dynpose.modeling.cid.abstraction import People, own_cells
from dynpose.modeling.injection import replaced

SIZE = (96, 160)
# two people in a map of 24 x 40 cells of 4 pixels
BOXES = torch.tensor([[10.0, 8, 66, 88], [90, 20, 150, 76]])


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture(scope="module")
def inputs(model):
    return benchmark.make_inputs(model, BOXES, SIZE, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def results(model, inputs):
    """The results of each alternative, one person at a time."""
    with torch.no_grad(), replaced(model, people_at_once=lambda features: 1):
        return {name: list(call(*inputs)) for name, call in benchmark.alternatives(model).items()}


def test_inputs(model, inputs):
    features, cells, boxes = inputs
    assert features.shape == (1, model.gfd.reduce.in_channels, 24, 40)
    # the centres (38, 48) and (120, 48)
    assert cells.tolist() == [[9, 12], [30, 12]]
    assert boxes is BOXES
    assert get_method("CID").part_benchmark is benchmark.PART_BENCHMARK


def test_every_alternative_goes_through_the_people_in_chunks(model, results):
    channels, keypoints = model.gfd.reduce.in_channels, model.schema.num_keypoints
    reduced = model.gfd.reduce.out_channels
    assert len({channels, keypoints, reduced}) == 3
    assert {name: [tuple(chunk.shape) for chunk in chunks] for name, chunks in results.items()} == {
        "GFD": [(1, reduced, 24, 40)] * 2,
        "RoIAlign+": [(1, channels, 56, 56)] * 2,
        "RoIAlign*": [(1, channels, 56, 56)] * 2,
        "RoIAlign+ of F-hat": [(1, reduced, 56, 56)] * 2,
        "RoIAlign* of F-hat": [(1, reduced, 56, 56)] * 2,
        "RoIAlign+ and keypoint head": [(1, keypoints, 56, 56)] * 2,
    }


def test_the_heatmaps_of_gfds_features_are_the_models(model, inputs, results):
    features, cells, _ = inputs
    people = People.at(features, torch.zeros(2, dtype=torch.int64), cells)
    own = own_cells(torch.tensor([[24, 40]]), features)
    # with gradients, masks are convolved for each person
    expected = model.gfd(features, people, own)
    actual = model.gfd.heatmaps(torch.cat(results["GFD"])).sigmoid().clamp(1e-4, 1 - 1e-4)
    torch.testing.assert_close(actual, expected.detach(), atol=1e-5, rtol=0)


def test_pooled_cells_by_hand(model):
    """On a map that holds the cells' columns, a pooled cell is its column, in cells, of the box."""
    columns = torch.arange(40.0).expand(1, model.gfd.reduce.in_channels, 24, 40)
    with torch.no_grad():
        pooled = {
            name: next(iter(call(columns, None, BOXES)))
            for name, call in benchmark.alternatives(model).items()
            if name[-1] in "+*"
        }
    # 10 to 66 pixels are 56 columns of a quarter of a cell each, and the centre of a cell is at a half
    fine = (10 + torch.arange(56) + 0.5) / 4 - 0.5
    torch.testing.assert_close(pooled["RoIAlign*"][0, 0, 20], fine, atol=1e-4, rtol=0)
    # up-sampling by four is linear between the centres of the coarse columns, and constant outside
    coarse = (10 + 4 * torch.arange(14) + 2) / 4 - 0.5
    torch.testing.assert_close(
        pooled["RoIAlign+"][0, 0, 20], fine.clamp(coarse[0].item(), coarse[-1].item()), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("variant", ["RoIAlign+", "RoIAlign*"])
def test_pooling_and_reducing_commute(model, results, variant):
    """Both are linear, and the weights of interpolation within the map sum to one."""
    for whole, reduced in zip(results[variant], results[f"{variant} of F-hat"]):
        torch.testing.assert_close(model.gfd.reduce(whole).detach(), reduced, atol=1e-4, rtol=0)


def test_pooling_and_head_are_those_of_keypoint_rcnn():
    cfg = model_zoo.get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml").MODEL.ROI_KEYPOINT_HEAD
    assert (cfg.POOLER_TYPE, cfg.POOLER_SAMPLING_RATIO, cfg.POOLER_RESOLUTION) == (
        "ROIAlignV2",
        0,
        benchmark._POOLED_SIZE,
    )
    assert list(cfg.CONV_DIMS) == [benchmark._CONV_CHANNELS] * benchmark._NUM_CONVS


def test_the_head_runs_all_its_layers(model, inputs):
    seen = []

    def watch(module, args, output):
        if isinstance(module, nn.Conv2d):
            seen.append((module.in_channels, module.out_channels, tuple(output.shape[2:])))

    call = benchmark.alternatives(model)["RoIAlign+ and keypoint head"]
    with torch.no_grad(), register_module_forward_hook(watch):
        next(iter(call(*inputs)))
    channels = model.gfd.reduce.in_channels
    assert seen == [(channels, 512, (14, 14))] + [(512, 512, (14, 14))] * 7
