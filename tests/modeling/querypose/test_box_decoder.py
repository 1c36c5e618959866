"""QueryPose's box decoder against torch.nn, detectron2 and hand-made numbers."""

import json
import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import nn

from dynpose.modeling.querypose.box_decoder import (
    BoxStage,
    DynamicInteraction,
    apply_box_deltas,
    boxes_from_centers,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dynamic_interaction_is_two_layers_of_the_querys_own():
    """One query after the other, with its weights in nn.functional's layers."""
    torch.manual_seed(0)
    module = DynamicInteraction(6, dynamic_dim=4, resolution=3)
    for norm in (module.norm1, module.norm2, module.norm3):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    features, queries = random(5, 6, 3, 3), random(5, 6, seed=1)
    outputs = module(features, queries)
    for roi, query, output in zip(features, queries, outputs):
        weights = module.dynamic_layer(query)
        first, second = weights[:24].view(6, 4), weights[24:].view(4, 6)
        cells = torch.stack([roi[:, y, x] for y in range(3) for x in range(3)])
        cells = module.norm1(nn.functional.linear(cells, first.T)).relu()
        cells = module.norm2(nn.functional.linear(cells, second.T)).relu()
        expected = module.norm3(module.out_layer(torch.cat(list(cells)))).relu()
        torch.testing.assert_close(output, expected)


def test_parameter_counts(test_data):
    counts = json.loads((test_data / "reference/querypose_first/config.json").read_text())["param_counts"]["full"]

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(BoxStage()) == counts["box_head_per_stage"]
    assert count(BoxStage().interaction) == counts["box_head_dynamic_mlp(inst_interact)"]
    # "over 10 M" in the paper
    assert count(DynamicInteraction(resolution=14)) == counts["pose_head_dynamic_mlp (pose_decoder_inst_interact)"]


def small_stage(**kwargs):
    torch.manual_seed(0)
    return BoxStage(8, **{"num_heads": 2, "feedforward_dim": 12, "dynamic_dim": 4, "resolution": 3, **kwargs})


BOXES = torch.tensor([[[10.0, 20, 40, 80], [0, 0, 100, 50], [5, 5, 15, 25]]])


def test_stage_shapes_and_start():
    stage = small_stage(num_classes=3, prior_prob=0.2, num_cls_layers=2, num_reg_layers=0)
    logits, boxes, queries = stage(random(6, 8, 3, 3), BOXES.repeat(2, 1, 1), random(2, 3, 8, seed=1))
    assert logits.shape == (2, 3, 3)
    assert boxes.shape == (2, 3, 4)
    assert queries.shape == (2, 3, 8)
    torch.testing.assert_close(stage.class_logits.bias.sigmoid(), torch.full((3,), 0.2))
    assert [type(layer).__name__ for layer in stage.cls_layers] == ["Linear", "LayerNorm", "ReLU"] * 2
    assert len(stage.reg_layers) == 0


def test_queries_attend_within_their_image_only():
    stage = small_stage().eval()
    features, boxes, queries = random(6, 8, 3, 3), BOXES.repeat(2, 1, 1), random(2, 3, 8, seed=1)
    together = stage(features, boxes, queries)
    for image in range(2):
        alone = stage(features[3 * image : 3 * image + 3], boxes[image : image + 1], queries[image : image + 1])
        for one, both in zip(alone, together):
            # products of another size are rounded otherwise; boxes are in pixels
            torch.testing.assert_close(one[0], both[image], rtol=1e-5, atol=1e-4)
    # and those of an image do attend to one another
    queries[0, 2] += random(8, seed=5)
    changed = stage(features, boxes, queries)
    assert not torch.allclose(changed[2][0, 0], together[2][0, 0], atol=1e-4)
    torch.testing.assert_close(changed[2][1], together[2][1])


def test_deltas_are_detectron2s():
    deltas = random(3, 4)
    boxes = BOXES[0]
    expected = Box2BoxTransform((2.0, 2.0, 1.0, 1.0), math.log(100000.0 / 16)).apply_deltas(deltas, boxes)
    torch.testing.assert_close(apply_box_deltas(deltas, boxes), expected)


def test_deltas_by_hand():
    box = torch.tensor([10.0, 20, 30, 60])
    assert apply_box_deltas(torch.zeros(4), box).tolist() == [10, 20, 30, 60]
    # one moves by half a box
    assert apply_box_deltas(torch.tensor([1.0, -1, 0, 0]), box).tolist() == [20, 0, 40, 40]
    doubled = apply_box_deltas(torch.tensor([0, 0, math.log(2), math.log(0.5)]), box)
    torch.testing.assert_close(doubled, torch.tensor([0.0, 30, 40, 50]))
    # the clamp: 6250 times 10 pixels, in one stage
    scaled = apply_box_deltas(torch.tensor([0, 0, 50.0, 0]), torch.tensor([0.0, 0, 10, 10]))
    assert (scaled[2] - scaled[0]).item() == pytest.approx(62500, rel=1e-5)


@pytest.mark.parametrize("delta", [1e4, -1e4, 80.0, -80.0])
def test_boxes_stay_boxes_through_any_number_of_stages(delta):
    boxes = BOXES.clone()
    for _ in range(8):
        boxes = apply_box_deltas(torch.full_like(boxes, delta), boxes)
    sides = boxes[..., 2:] - boxes[..., :2]
    assert boxes.isfinite().all()
    assert (sides > 0).all()
    # areas and their sums are numbers
    assert sides.prod(dim=-1).max() <= 1.001e10


def test_boxes_without_extent_get_one():
    boxes = boxes_from_centers(
        torch.tensor([[50.0, 50], [1e5, -1e5], [1333, 0]]), torch.tensor([[0.0, -3], [0, 0], [0, 7]])
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides > 0).all()
    assert sides.max().item() == 7
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, torch.tensor([[50.0, 50], [1e5, -1e5], [1333, 0]]))


def test_lower_precision():
    """Under autocast, boxes are computed in float32 from the same features: they are not rounded to bfloat16."""
    stage = small_stage().eval()
    features, queries = random(3, 8, 3, 3), random(1, 3, 8, seed=1)
    seen = {}
    stage.reg_layers.register_forward_hook(lambda module, inputs, output: seen.update(features=output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, boxes, _ = stage(features, BOXES, queries)
    assert logits.dtype == boxes.dtype == torch.float32
    expected = apply_box_deltas(stage.box_deltas(seen["features"].float()), BOXES)
    torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-4)
    assert not torch.equal(boxes, boxes.bfloat16().float())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": 3}, "hidden_dim: expected a multiple of num_heads, 3, got 8"),
        ({"prior_prob": 0.0}, "prior_prob: expected a number between 0 and 1, got 0.0"),
        ({"prior_prob": 1.5}, "prior_prob: expected a number between 0 and 1, got 1.5"),
    ],
)
def test_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small_stage(**kwargs)
