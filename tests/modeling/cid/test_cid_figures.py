"""CID's intermediate results, against its equations written out, and its figures."""

import pytest
import torch
import torch.nn.functional as F
from cid_models import tiny_model
from scenes import drawn, scene_of

from dynpose.methods import get_method
from dynpose.modeling.cid.figures import of_people

FIGURES = {figure.name: figure for figure in get_method("CID").figures}
# many peaks, close to each other, of which OKS-NMS drops some
FINDING = {"iia": {"score_thresh": 0.0, "max_proposals": 7}, "oks_nms_thresh": 0.9}


def people_model(**changes):
    model = tiny_model(**{**FINDING, **changes}).eval()
    # differences between people, in masks and channels
    for name, parameter in model.gfd.named_parameters():
        if name.endswith("weight") and "heatmaps" not in name:
            parameter.data.mul_(2)
    return model


@pytest.fixture(scope="module", params=[32, 2])
def scene(request):
    """With chunks of all people at once, and of two."""
    return scene_of(people_model(max_instances_per_chunk=request.param))


def test_the_values_are_those_of_the_people(scene):
    number = len(scene.people.scores)
    assert 1 < number < 7
    maps, keypoints = of_people(scene, "heatmaps"), scene.people.keypoints
    assert maps.shape == (number, 4, 24, 32)
    # the keypoint is a quarter of a cell from the highest cell of the map, averaged with its mean over 3 x 3 cells
    smooth = (maps + F.avg_pool2d(maps, 3, stride=1, padding=1)) / 2
    peaks = smooth.flatten(2).argmax(dim=2)
    cells = torch.stack([peaks % 32, peaks // 32], dim=2)
    stride, center = scene.value("grid").tolist()
    assert (stride, center) == (4, 2)
    shift = (keypoints[..., :2] - (cells * stride + center)).abs()
    assert set(shift.flatten().tolist()) <= {0.0, 1.0}
    # the third value is that of the cell times the centre's
    centers = scene.value("centers")[0]
    u, v = of_people(scene, "center_cells").unbind(dim=1)
    around = (centers + F.avg_pool2d(centers[None], 3, stride=1, padding=1)[0]) / 2
    expected = smooth.amax(dim=(2, 3)) * around[v, u][:, None]
    torch.testing.assert_close(keypoints[..., 2], expected)


def test_equations_9_to_12(scene):
    """With the layers' outputs, and the relative coordinates from cells to the person's."""
    model, gfd = scene.model, scene.model.gfd
    image = torch.from_numpy(scene.image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([{"image": image}]).tensor)["patches"]
        reduced = gfd.reduce(features)[0]
        cells = of_people(scene, "center_cells")
        weights = gfd.channel_weights(features[0, :, cells[:, 1], cells[:, 0]].T)
        torch.testing.assert_close(of_people(scene, "channel_weights"), weights)
        similar = gfd.similarity_weights(features[0, :, cells[:, 1], cells[:, 0]].T)
        rows, columns = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
        for person, (u, v) in enumerate(cells):
            similarity = (similar[person, :, None, None] * reduced).sum(dim=0)
            inputs = torch.stack([similarity, (u - columns) / 32, (v - rows) / 32])
            mask = gfd.mask(inputs[None])[0].sigmoid()
            torch.testing.assert_close(of_people(scene, "masks")[person], mask[0], rtol=1e-4, atol=1e-5)
            both = torch.cat([reduced * weights[person, :, None, None], mask * reduced])
            expected = gfd.fuse(both[None])[0].relu()
            torch.testing.assert_close(of_people(scene, "instance_features")[person], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FIGURES)
def test_figures(scene, name):
    assert not FIGURES[name].missing(scene.model)
    drawn(FIGURES[name], scene)


def test_one_recalibration():
    spatial = scene_of(people_model(gfd={"recalibration": ("spatial",)}))
    assert "channel_weights" not in spatial.values
    assert "'channel'" in FIGURES["channels"].missing(spatial.model)
    assert not FIGURES["recalibration"].missing(spatial.model)
    channel = scene_of(people_model(gfd={"recalibration": ("channel",)}))
    assert "masks" not in channel.values
    # a column less
    wide, narrow = (drawn(FIGURES["recalibration"], each).shape[1] for each in (spatial, channel))
    assert wide > narrow


def test_an_image_without_people():
    scene = scene_of(tiny_model(iia={"score_thresh": 1.0}).eval())
    assert len(scene.people.scores) == 0
    assert not FIGURES["centers"].needs_person
    drawn(FIGURES["centers"], scene)


def test_cells_in_pixel_indices():
    scene = scene_of(people_model(index_coordinates=True))
    assert scene.value("grid").tolist() == [4, 2.5]
