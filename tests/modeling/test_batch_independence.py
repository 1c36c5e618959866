"""What a model predicts for an image does not depend on the images beside it in the batch."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import ImageList

from dynpose.modeling import base_models
from dynpose.modeling.batching import padded_size, predict_by_padded_size

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import METHODS, tiny_config

# as docs/evaluation.md states
PIXELS, SCORE = 1e-3, 1e-4

# untrained scores are those of the prior probability
_FOUND = [
    *("MODEL.FCOS.PRIOR_PROB", 0.3, "MODEL.FCOS.POST_NMS_TOPK_TEST", 4),
    *("MODEL.CID.PRIOR_PROB", 0.3, "MODEL.CID.INIT_STD", 0.01, "MODEL.CID.MAX_PROPOSALS", 4),
]
CASES = {
    **{method: (method, []) for method in METHODS},
    "FCPose, GroupNorm in the basis": ("FCPose", ["MODEL.FCPOSE.BASIS.NORM", "GN"]),
    "FCPose, released": ("FCPose", ["MODEL.FCPOSE.OFFSET_SOURCE", "basis", "MODEL.FCPOSE.CONTROLLER_KERNEL", 3]),
    "InsPose with boxes": ("InsPose", ["MODEL.INSPOSE.BOX_HEAD", True]),
}


def picture(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, 3, 6, 6), generator=generator).float()
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)[0]
    return {"image": pixels.to(torch.uint8), "height": 2 * height, "width": 2 * width}


def grey(height, width):
    return {"image": torch.full((3, height, width), 128, dtype=torch.uint8), "height": height, "width": width}


@pytest.fixture(scope="module", params=CASES)
def model(request):
    method, opts = CASES[request.param]
    torch.manual_seed(0)
    model = build_model(tiny_config(method, *_FOUND, *opts)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # heatmaps of untrained networks are flat, and which of their cells is the highest is a matter of rounding
            if name.startswith("controller."):
                parameter *= 3
            if name == "iia.heatmaps.weight":
                parameter *= 10
            if name == "head.box_distances.bias":
                parameter += 2
    return model


@torch.no_grad()
def predict(model, inputs):
    return [output["instances"] for output in model(inputs)]


def assert_as_alone(model, inputs, positions):
    together = predict(model, inputs)
    for position in positions:
        (alone,) = predict(model, [inputs[position]])
        result = together[position]
        assert result.image_size == alone.image_size
        assert len(result) == len(alone) > 0
        torch.testing.assert_close(result.scores, alone.scores, rtol=0, atol=SCORE)
        torch.testing.assert_close(result.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=PIXELS)
        torch.testing.assert_close(result.pred_keypoints[..., :2], alone.pred_keypoints[..., :2], rtol=0, atol=PIXELS)
        torch.testing.assert_close(result.pred_keypoints[..., 2], alone.pred_keypoints[..., 2], rtol=0, atol=SCORE)


def test_beside_a_grey_image_of_another_shape(model):
    assert_as_alone(model, [grey(130, 40), picture(64, 90, 0), grey(33, 170)], [1])


def test_beside_others_of_its_shape(model):
    assert_as_alone(model, [picture(64, 90, seed) for seed in range(3)], range(3))


def test_beside_others_that_are_padded_to_its_size(model):
    assert_as_alone(model, [picture(64, 90, 0), picture(40, 70, 1)], range(2))


def test_padding_to_the_size_of_others_would_change_the_answer(model, monkeypatch):
    """What the tests above are for: without the groups, the grey image's size reaches the people."""
    inputs = [picture(64, 90, 0), grey(130, 170)]
    (alone,) = predict(model, inputs[:1])
    monkeypatch.setattr(base_models, "predict_by_padded_size", lambda predict, inputs, divisibility: predict(inputs))
    padded, _ = predict(model, inputs)
    assert len(padded) != len(alone) or (padded.pred_keypoints - alone.pred_keypoints).abs().max() > 10 * PIXELS


def test_images_of_one_padded_size_share_a_batch_and_results_keep_the_order():
    batches = []

    def name_all(inputs):
        batches.append([one["name"] for one in inputs])
        return [one["name"].upper() for one in inputs]

    sizes = {"a": (32, 64), "b": (33, 64), "c": (1, 33), "d": (64, 64), "e": (32, 65)}
    inputs = [{"name": name, "image": torch.zeros(3, *size)} for name, size in sizes.items()]
    assert predict_by_padded_size(name_all, inputs, 32) == list("ABCDE")
    assert batches == [["a", "c"], ["b", "d"], ["e"]]
    batches.clear()
    # without padding, all are of different sizes
    assert predict_by_padded_size(name_all, inputs, 0) == list("ABCDE")
    assert batches == [["a"], ["b"], ["c"], ["d"], ["e"]]


@pytest.mark.parametrize(("size", "divisibility"), [((33, 64), 32), ((1, 1), 32), ((50, 90), 64), ((50, 90), 0)])
def test_padded_size_is_detectron2s(size, divisibility):
    image = torch.zeros(3, *size)
    expected = ImageList.from_tensors([image], divisibility).tensor.shape[-2:]
    assert padded_size(image, divisibility) == tuple(expected)
