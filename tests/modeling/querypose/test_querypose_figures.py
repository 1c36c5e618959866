"""QueryPose's intermediate results, against its result and distributions of a known form, and its figures."""

import math

import pytest
import torch
from querypose_models import NUM_QUERIES, NUM_STAGES, tiny_model
from scenes import drawn, scene_of

from dynpose.methods import get_method
from dynpose.modeling.querypose.figures import _CELLS, _density_in_image, _limit, flow_densities
from dynpose.modeling.querypose.flow import RealNVP

FIGURES = {figure.name: figure for figure in get_method("QueryPose").figures}


@pytest.fixture(scope="module")
def scene():
    return scene_of(tiny_model(max_detections=4).eval())


def test_the_last_stage_is_the_result(scene):
    queries = scene.values["queries"][0][0]
    assert queries.shape == (4,)
    assert [len(scene.values[name]) for name in ("boxes", "keypoints", "sigmas", "attention")] == [NUM_STAGES] * 4
    keypoints, sigmas = scene.values["keypoints"][-1][queries], scene.values["sigmas"][-1][queries]
    # the result is clipped to 32 pixels outside of the image
    limits = torch.tensor([128.0, 96]) + 32
    torch.testing.assert_close(scene.people.keypoints[..., :2], keypoints.clamp(min=-32).minimum(limits))
    torch.testing.assert_close(scene.people.keypoints[..., 2], 1 - sigmas.mean(dim=2))
    boxes = scene.values["boxes"][-1][queries].clamp(min=0).minimum(torch.tensor([128.0, 96, 128, 96]))
    torch.testing.assert_close(scene.people.boxes, boxes)


def test_the_stages_are_different_and_begin_with_the_learned_boxes(scene):
    proposals = scene.model.proposal_boxes.weight.detach()
    sizes = torch.tensor([128.0, 96])
    centers, extents = proposals[:, :2] * sizes, proposals[:, 2:] * sizes
    expected = torch.cat([centers - extents / 2, centers + extents / 2], dim=1)
    torch.testing.assert_close(scene.value("initial_boxes"), expected)
    stages = [scene.value("initial_boxes"), *scene.values["boxes"]]
    assert all(not torch.allclose(before, after) for before, after in zip(stages, stages[1:]))


def test_attention_sums_to_one(scene):
    for maps in scene.values["attention"]:
        assert maps.shape == (NUM_QUERIES, 4, 8, 8)
        assert (maps >= 0).all()
        torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(NUM_QUERIES, 4))


def test_the_density_of_a_flow_without_couplings_is_normal():
    densities = flow_densities(RealNVP(num_couplings=0), limit=4.0, cells=80)
    steps = (torch.arange(80) + 0.5) / 10 - 4
    squares = steps[:, None].square() + steps.square()
    torch.testing.assert_close(densities["flow"], torch.exp(-squares / 2) / (2 * math.pi))
    # Eq. 4 as in the release: the joint density counts for each coordinate, and each is Laplace distributed
    distances = (steps[:, None].abs() + steps.abs()) / math.sqrt(2)
    likelihood = torch.exp(-squares - distances)
    torch.testing.assert_close(densities["likelihood"], likelihood / likelihood.max(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("scale", "expected"), [(1, 4), (0.3, 1), (0.05, 0.25)])
def test_a_narrow_density_is_drawn_larger(scale, expected):
    """99 % of a normal distribution are within 2.8 deviations in both coordinates."""
    flow = RealNVP(num_couplings=0)
    log_prob = flow.log_prob
    flow.log_prob = lambda errors: log_prob(errors / scale) - 2 * math.log(scale)
    assert _limit(flow) == expected


def test_the_density_of_any_flow_has_an_integral_of_one():
    torch.manual_seed(0)
    densities = flow_densities(RealNVP(), limit=8.0, cells=160)
    assert float(densities["flow"].sum()) * 0.1**2 == pytest.approx(1, abs=0.01)
    assert float(densities["likelihood"].max()) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_figures(scene, name):
    assert not FIGURES[name].missing(scene.model)
    drawn(FIGURES[name], scene)


@pytest.mark.parametrize("interaction", ["spatial_attention", "mhsa"])
def test_other_interactions(interaction):
    scene = scene_of(tiny_model(num_stages=2, keypoint={"interaction": interaction}).eval())
    missing = FIGURES["attention"].missing(scene.model)
    if interaction == "mhsa":
        assert "MODEL.QUERYPOSE.INTERACTION" in missing
        assert "attention" not in scene.values
    else:
        # one map for all parts
        assert scene.values["attention"][0].shape == (NUM_QUERIES, 1, 8, 8)
        drawn(FIGURES["attention"], scene)


def test_the_likelihood_in_the_image_is_highest_at_the_keypoints_of_a_normal_flow():
    model = tiny_model(num_queries=1).eval()
    model.flow = RealNVP(num_couplings=0)
    scene = scene_of(model)
    around = scene.around_person(0)
    heat, checked = _density_in_image(scene, around), 0
    for x, y in scene.values["keypoints"][-1][0].tolist():
        column, row = ((value - low) / (around[2] - around[0]) * _CELLS for value, low in zip((x, y), around))
        if 1 <= column < _CELLS - 1 and 1 <= row < _CELLS - 1:
            near = heat[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2]
            assert near.max() > 0.9
            checked += 1
    assert checked
