"""InsPose's intermediate results, of the paper's model and the released one, and its figures."""

import pytest
import torch
import torch.nn.functional as F
from scenes import drawn, scene_of
from small_models import small_model

from dynpose.methods import get_method

OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3)
PAPER = ("configs/InsPose/Base-InsPose.yaml", *OPTS)
RELEASED = (
    *("configs/InsPose/R_50_3x_release.yaml", *OPTS),
    *("MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS", [0, 1, 2, 3, 0, 1, 2, 3, 0]),
)
MODELS = {
    "paper": PAPER,
    "box head": (*PAPER, "MODEL.INSPOSE.BOX_HEAD", True),
    "stride 4": (*PAPER, "MODEL.INSPOSE.MAP_STRIDE", 4),
    "released": RELEASED,
    "released, continuous": (*RELEASED, "MODEL.INSPOSE_RELEASED.INDEX_COORDINATES", False),
}
# stride of the maps, and the centre of the first cell
GRIDS = {
    "paper": [8, 4],
    "box head": [8, 4],
    "stride 4": [4, 2],
    "released": [4, 1.5],
    "released, continuous": [4, 2],
}


def figures_of(model):
    return {figure.name: figure for figure in get_method(type(model).__name__).figures}


@pytest.fixture(scope="module", params=MODELS)
def scene(request):
    model = small_model(*MODELS[request.param]).eval()
    # offsets of some cells, and networks that differ
    branch = model.disk_offsets.predict if hasattr(model, "disk_offsets") else model.aux_branch.disk_offsets
    branch.weight.data.mul_(30)
    model.controller.linear.weight.data.mul_(10)
    maps = []
    hook = branch.register_forward_hook(lambda module, inputs, output: maps.append(output[0]))
    scene = scene_of(model)
    hook.remove()
    return scene, maps[0], request.param


def test_the_maps_of_the_people_that_are_found(scene):
    """Without a box head, the networks of all candidates run: the maps are those of the people after NMS."""
    scene, _, variant = scene
    maps, keypoints = scene.value("heatmaps"), scene.people.keypoints
    assert len(maps) == 3
    torch.testing.assert_close(maps.amax(dim=(2, 3)), keypoints[..., 2])
    assert scene.value("peaks").equal(maps.flatten(2).argmax(dim=2))
    torch.testing.assert_close(scene.value("offset_ends")[:, :, 12], keypoints[..., :2])
    assert scene.value("grid").tolist() == GRIDS[variant]


def test_the_disk_offsets_lead_from_the_corner_of_a_cell(scene):
    """Eq. 3: stride times (cell + offset), with the map that the branch gives at the stride of the heatmaps."""
    scene, offsets, variant = scene
    if variant == "stride 4":
        # bilinear, as in Table 3
        offsets = F.interpolate(offsets[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    stride, (height, width) = GRIDS[variant][0], offsets.shape[-2:]
    ends, checked = scene.value("offset_ends"), 0
    for person in range(3):
        for kind in range(4):
            v, u = divmod(int(scene.value("peaks")[person, kind]), width)
            for step in range(25):
                row, column = v + step // 5 - 2, u + step % 5 - 2
                if 0 <= row < height and 0 <= column < width:
                    shift = offsets[2 * kind : 2 * kind + 2, row, column]
                    end = (torch.tensor([column, row]) + shift) * stride
                    torch.testing.assert_close(ends[person, kind, step], end)
                    checked += 1
                else:
                    assert ends[person, kind, step].isnan().all()
    assert checked > 100


def test_figures(scene):
    scene, *_ = scene
    for figure in figures_of(scene.model).values():
        assert not figure.missing(scene.model)
        drawn(figure, scene)


def test_without_disk_offsets():
    model = small_model(*PAPER, "MODEL.INSPOSE.DISK_OFFSET", False).eval()
    figures, scene = figures_of(model), scene_of(model)
    assert "offset_ends" not in scene.values
    assert "MODEL.INSPOSE.DISK_OFFSET" in figures["disk_offsets"].missing(model)
    drawn(figures["heatmaps"], scene)
