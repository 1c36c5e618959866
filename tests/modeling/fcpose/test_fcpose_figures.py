"""FCPose's intermediate results, against what they were computed from, and its figures."""

import pytest
import torch
from scenes import drawn, scene_of
from small_models import small_model

from dynpose.methods import get_method
from dynpose.modeling.figures import Scene

FIGURES = {figure.name: figure for figure in get_method("FCPose").figures}
OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3)


def model_with(refinement, *opts):
    opts = (*OPTS, "MODEL.FCPOSE.REFINEMENT", refinement, *opts)
    model = small_model("configs/FCPose/Base-FCPose.yaml", *opts).eval()
    model.head.box_distances.bias.data.fill_(2.0)
    # offsets of several pixels
    for layer in filter(None, [getattr(model.refinement, "conv", None)]):
        layer.weight.data.mul_(30)
    return model


@pytest.fixture(scope="module")
def model():
    return model_with("shared", "MODEL.FCPOSE.OFFSET_RADIUS", 1)


@pytest.fixture(scope="module")
def scene(model):
    return scene_of(model)


def test_the_heatmaps_of_the_people_that_are_found(scene):
    maps, keypoints = scene.value("heatmaps"), scene.people.keypoints
    assert maps.shape == (3, 4, 12, 16)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(3, 4))
    torch.testing.assert_close(maps.amax(dim=(2, 3)), keypoints[..., 2])
    assert scene.value("peaks").equal(maps.flatten(2).argmax(dim=2))


def test_the_offsets_are_those_of_the_shared_map(model, scene):
    """Eq. of section 3.2: (i + dx, j + dy), with the map that the convolution on P3 gives."""
    outputs = []
    hook = model.refinement.conv.register_forward_hook(lambda module, inputs, output: outputs.append(output[0]))
    again = scene_of(model)
    hook.remove()
    offsets = outputs[0] * model.refinement.scale
    starts, ends = again.value("offset_starts"), again.value("offset_ends")
    checked = 0
    for person in range(3):
        for kind in range(4):
            v, u = divmod(int(scene.value("peaks")[person, kind]), 16)
            for step in range(25):
                row, column = v + step // 5 - 2, u + step % 5 - 2
                if not (0 <= row < 12 and 0 <= column < 16):
                    assert ends[person, kind, step].isnan().all()
                    continue
                center = torch.tensor([column * 8.0 + 4, row * 8.0 + 4])
                assert starts[person, kind, step].equal(center)
                shift = offsets[2 * kind : 2 * kind + 2, row, column]
                torch.testing.assert_close(ends[person, kind, step], center + shift)
                checked += 1
    assert checked > 100
    assert (ends - starts).nan_to_num().abs().max() > 1
    # the arrow of the peak's cell ends at the keypoint
    torch.testing.assert_close(ends[:, :, 12], again.people.keypoints[..., :2])
    assert scene.value("grid").tolist() == [8, 4]
    assert float(scene.values["offset_radius"][0]) == 8


@pytest.mark.parametrize(
    ("radius", "said"), [(0, "the offset of the keypoint's cell alone"), (1, "Dotted circle: the 8 pixels around it")]
)
def test_the_caption_says_where_offsets_are_supervised(radius, said, monkeypatch):
    captions = []
    monkeypatch.setattr(Scene, "caption", lambda self, source, text: captions.append(text) or text)
    drawn(FIGURES["offsets"], scene_of(model_with("shared", "MODEL.FCPOSE.OFFSET_RADIUS", radius)))
    assert said in captions[0]


@pytest.mark.parametrize("refinement", ["none", "instance", "deconv"])
def test_other_refinements(refinement):
    scene = scene_of(model_with(refinement))
    maps, (stride, center) = scene.value("heatmaps"), scene.value("grid").tolist()
    peaks = scene.value("peaks")
    cells = torch.stack([peaks % maps.shape[3], peaks // maps.shape[3]], dim=2) * stride + center
    missing = FIGURES["offsets"].missing(scene.model)
    if refinement == "instance":
        assert not missing
        torch.testing.assert_close(scene.value("offset_ends")[:, :, 12], scene.people.keypoints[..., :2])
        drawn(FIGURES["offsets"], scene)
    else:
        assert "MODEL.FCPOSE.REFINEMENT" in missing
        # without offsets, the cell's centre is the keypoint; a transposed convolution divides the cells by four
        torch.testing.assert_close(cells, scene.people.keypoints[..., :2])
        assert stride == (2 if refinement == "deconv" else 8)


@pytest.mark.parametrize("name", FIGURES)
def test_figures(scene, name):
    drawn(FIGURES[name], scene)
