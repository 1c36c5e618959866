"""The InsPoseReleased meta-architecture: it trains and predicts with any keypoints; the release's faults stay away."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.engine import DefaultPredictor
from small_models import SCHEMA, image, one_person, people, small_config, small_model

from dynpose.config import ConfigError, load_config
from dynpose.data import KeypointSchema
from dynpose.layers import KPNets, KPNetSpec
from dynpose.modeling.inspose.released import locate_keypoints
from dynpose.modeling.inspose.released_head import AuxBranch, ReleasedHead, StarConv, scale_gradient
from dynpose.modeling.inspose.released_losses import disk_offset_loss
from dynpose.modeling.keypoint_maps import keypoint_cells

RELEASE = "configs/InsPose/R_50_3x_release.yaml"
RELEASED = "MODEL.INSPOSE_RELEASED."
SMALL = [
    *(RELEASED + "STAR_KEYPOINTS", "[0, 1, 2, 3, 0, 1, 2, 3, 0]"),
    *(RELEASED + "REGRESSION_CONVS_DIM", 64),
    *(RELEASED + "NUM_REGRESSION_CONVS", 1),
    *(RELEASED + "FEATURE_CONVS_DIM", 64),
    *(RELEASED + "NUM_FEATURE_CONVS", 1),
    *(RELEASED + "AUX_CONVS_DIM", 64),
    *(RELEASED + "NUM_AUX_CONVS", 2),
    # a batch of two noisy images is no basis for statistics
    *("MODEL.RESNETS.NORM", "FrozenBN"),
]
# two people in one image, the second with keypoints that are not labelled
TWO = people(
    [[60, 20, 100, 90], [10, 30, 50, 110]],
    [[(70, 30, 2), (90, 50, 2), (65, 50, 1), (80, 85, 2)], [(20, 40, 2), (0, 0, 0), (15, 70, 2), (30, 100, 1)]],
)


def released_model(*opts, **kwargs):
    return small_model(RELEASE, *SMALL, *opts, **kwargs)


def losses_of(model, inputs):
    losses = model.train()(inputs)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize(
    "opts",
    [
        [],
        [RELEASED + "QUALITY", "oks", RELEASED + "TAG_CELL", "cell", RELEASED + "NMS_METHOD", "gaussian"],
        [RELEASED + "INDEX_COORDINATES", False, "MODEL.FCOS.NUM_CLASSES", 2, "MODEL.FCOS.NORM", ""],
    ],
)
def test_it_trains_and_predicts(opts):
    model = released_model(*opts)
    losses = losses_of(model, [image(TWO, 0), image(people([], []), 1)])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    for layer in (model.controller.linear, model.head.cls_star, model.aux_branch.tags):
        assert layer.weight.grad.abs().sum() > 0

    model.eval().detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{**image(one_person()), "height": 64, "width": 256}])
    instances = output["instances"]
    assert 0 < len(instances) <= 100
    assert instances.image_size == (64, 256)
    assert instances.pred_keypoints.shape == (len(instances), SCHEMA.num_keypoints, 3)
    confidence = instances.pred_keypoints[..., 2]
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert (instances.scores.diff() <= 0).all()


def test_no_people_and_no_keypoints():
    model = released_model()
    no_people = losses_of(model, [image(people([], []))])
    assert all(loss.isfinite() for loss in no_people.values())
    for name in ("keypoint", "keypoint_reg", "ae_pull", "ae_push", "heatmap_offset"):
        assert no_people[f"loss_{name}"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)

    # such a person stays in training by its box
    unlabelled = losses_of(model, [image(one_person(visibility=0))])
    assert unlabelled["loss_keypoint"] == unlabelled["loss_keypoint_reg"] == 0
    assert unlabelled["loss_cls"] > 0
    model.options = replace(model.options, unlabelled_quality=1.0)
    assert losses_of(model, [image(one_person(visibility=0))])["loss_cls"] > unlabelled["loss_cls"]


def test_no_person_is_detected():
    model = released_model().eval()
    model.detector.decoder.score_thresh = 1.0
    with torch.no_grad():
        outputs = model([image(one_person()), image(one_person())])
    for output in outputs:
        assert output["instances"].pred_keypoints.shape == (0, SCHEMA.num_keypoints, 3)


def test_batched_inference_equals_single():
    """The release reads the offsets of the first image for every one."""
    model = released_model().eval()
    model.detector.decoder.score_thresh = 0.0
    model.detector.decoder.post_nms_topk = 10
    torch.nn.init.normal_(model.aux_branch.disk_offsets.weight, std=1.0)
    inputs = [image(one_person(), seed) for seed in range(3)]
    with torch.no_grad():
        together = model(inputs)
        alone = [model([single])[0] for single in inputs]
    for a, b in zip(together, alone):
        a, b = a["instances"], b["instances"]
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=1e-3, atol=1e-3)


def test_training_leaves_the_ground_truth_alone():
    """The release divides the annotated boxes by four in place."""
    data = image(TWO)
    before = [TWO.gt_boxes.tensor.clone(), TWO.gt_keypoints.tensor.clone()]
    losses_of(released_model(), [data])
    assert torch.equal(TWO.gt_boxes.tensor, before[0])
    assert torch.equal(TWO.gt_keypoints.tensor, before[1])


def test_losses_do_not_depend_on_other_copies_of_the_batch():
    model = released_model()
    single = losses_of(model, [image(TWO)])
    double = losses_of(model, [image(TWO), image(TWO)])
    for name in single:
        assert double[name].item() == pytest.approx(single[name].item(), rel=1e-4), name


def test_areas_count():
    """The area of the mask, where it is given, takes the place of a part of the box's."""
    model = released_model()
    with_areas = people(TWO.gt_boxes.tensor.tolist(), TWO.gt_keypoints.tensor.tolist())
    with_areas.gt_areas = with_areas.gt_boxes.area() * 0.53
    same = losses_of(model, [image(with_areas)])["loss_cls"].item()
    assert same == pytest.approx(losses_of(model, [image(TWO)])["loss_cls"].item(), rel=1e-6)
    with_areas.gt_areas /= 100
    assert losses_of(model, [image(with_areas)])["loss_cls"].item() < same


def test_index_coordinates_are_those_of_the_file():
    """In inference half a pixel of the original image is added to the network's keypoints."""
    model = released_model().eval()
    model.detector.decoder.score_thresh = 0.0
    data = [{**image(one_person()), "height": 64, "width": 256}]
    with torch.no_grad():
        shifted = model(data)[0]["instances"].pred_keypoints
        model.options = replace(model.options, index_coordinates=False)
        plain = model(data)[0]["instances"].pred_keypoints
    torch.testing.assert_close(shifted[..., :2], plain[..., :2] + 0.5)


def test_star_convolution_of_the_regular_grid_is_a_convolution():
    torch.manual_seed(0)
    star = StarConv(32, "")
    torch.nn.init.normal_(star.weight)
    maps = torch.randn(2, 32, 6, 7)
    # x and y of the nine neighbours, row by row
    grid = torch.tensor([[x, y] for y in (-1.0, 0, 1) for x in (-1.0, 0, 1)])
    regular = grid[None, :, :, None, None].expand(2, -1, -1, 6, 7)
    expected = F.relu(F.conv2d(maps, star.weight, padding=1))
    torch.testing.assert_close(star(maps, regular), expected, rtol=1e-4, atol=1e-4)
    # all samples two cells to the right
    moved = regular + torch.tensor([2.0, 0.0])[:, None, None]
    torch.testing.assert_close(star(maps, moved)[..., :-3], expected[..., 2:-1], rtol=1e-4, atol=1e-4)


def test_the_stars_hand_on_a_part_of_the_gradient():
    values = torch.tensor([2.0], requires_grad=True)
    scaled = scale_gradient(values, 0.1)
    scaled.backward()
    assert scaled.item() == pytest.approx(2.0)
    assert values.grad.item() == pytest.approx(0.1)


def test_the_stars_lie_on_their_keypoints(monkeypatch):
    head = ReleasedHead(
        in_channels=64, num_keypoints=3, star_keypoints=[2, 0, 1, 0, 0, 0, 0, 0, 2], regression_channels=64
    )
    torch.nn.init.zeros_(head.keypoint_offsets.weight)
    head.keypoint_offsets.bias.data = torch.arange(6.0)
    seen = []
    monkeypatch.setattr(StarConv, "forward", lambda self, maps, star: seen.append(star) or maps)
    head([torch.zeros(1, 64, 4, 4)])
    assert seen[0][0, :3, :, 2, 2].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert seen[0][0, 8, :, 0, 0].tolist() == [4, 5]


def test_peaks_are_those_of_bicubic_maps_with_the_offset_there():
    spec = KPNetSpec(in_channels=2, width=8, depth=1, num_keypoints=2, coords_position="last", coords_sign=1)
    # a network that hands its two features on
    params = torch.zeros(2, spec.num_params)
    ((weight, _),) = spec.unpack(params)
    weight[:, 0, 0] = weight[:, 1, 1] = 10.0
    features = torch.zeros(2, 2, 6, 8)
    features[0, 0, 2, 3] = features[0, 1, 5, 7] = 1.0
    # beside a cell of 1, a cell of 0.9: the maximum moves towards it
    features[1, 0, 2, 3], features[1, 0, 2, 4], features[1, 1, 0, 0] = 1.0, 0.9, 1.0
    nets = KPNets(
        features=features, params=params, image_index=torch.tensor([1, 0]),
        locations=torch.zeros(2, 2), coord_scale=torch.ones(2), spec=spec, stride=8,
    )  # fmt: skip
    offsets = torch.zeros(2, 2, 2, 12, 16)
    # of the second image's first kind, at row 4, column 7
    offsets[1, 0, :, 4, 7] = torch.tensor([0.5, -0.25])
    keypoints = locate_keypoints(nets, offsets, factor=2)
    assert keypoints[0, 0, :2].tolist() == [(7 + 0.5) * 4, (4 - 0.25) * 4]
    # a cell alone becomes four equal ones, of which the first is taken; at the border the edge is repeated
    assert keypoints[1, :, :2].tolist() == [[6 * 4, 4 * 4], [15 * 4, 11 * 4]]
    fine = F.interpolate(features[1:, :1] * 10, scale_factor=2, mode="bicubic").flatten()
    assert keypoints[0, 0, 2].item() == pytest.approx(fine.softmax(0).max().item(), rel=1e-5)


def test_the_auxiliary_maps_are_not_computed_in_inference(monkeypatch):
    model = released_model().eval()
    for name in ("heatmaps", "tags"):
        monkeypatch.setattr(getattr(model.aux_branch, name), "forward", lambda features: pytest.fail("was computed"))
    with torch.no_grad():
        assert len(model([image(one_person())])) == 1


def test_the_last_convolution_of_the_auxiliary_branch_is_at_twice_the_resolution():
    branch = AuxBranch(in_channels=8, channels=32, num_convs=1, num_keypoints=3)
    assert branch.offsets(branch.features(torch.zeros(1, 8, 4, 5))).shape == (1, 3, 2, 8, 10)


FIVE = KeypointSchema(names=("a", "b", "c", "d", "e"), sigmas=(0.05,) * 5)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            [RELEASED + "STAR_KEYPOINTS", "[0, 1, 2]"],
            "MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS: star_keypoints: expected 9 indices.*got 3",
        ),
        ([RELEASED + "STAR_KEYPOINTS", "[0, 1, 2, 3, 4, 5, 6, 7, -1]"], r"STAR_KEYPOINTS: .* has \[5, 6, 7, -1\]"),
        ([RELEASED + "QUALITY", "iou"], "MODEL.INSPOSE_RELEASED.QUALITY must be one of 'released', 'oks'"),
        ([RELEASED + "TAG_CELL", "here"], "MODEL.INSPOSE_RELEASED.TAG_CELL must be one of 'released', 'cell'"),
        ([RELEASED + "NMS_METHOD", "hard"], "MODEL.INSPOSE_RELEASED.NMS_METHOD must be one of 'linear', 'gaussian'"),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64]"], "MODEL.FCOS.SIZES_OF_INTEREST"),
        (["MODEL.FCOS.PRIOR_PROB", 1.5], "MODEL.FCOS.PRIOR_PROB must be between 0 and 1"),
        ([RELEASED + "COORD_SCALE", 0.0], "MODEL.INSPOSE_RELEASED.COORD_SCALE must be above 0, got 0.0"),
        ([RELEASED + "AREA_OF_BOX", -1.0], "MODEL.INSPOSE_RELEASED.AREA_OF_BOX must be above 0, got -1.0"),
        ([RELEASED + "MAX_RADIUS", -1], "MODEL.INSPOSE_RELEASED.MAX_RADIUS must be at least 0, got -1"),
        ([RELEASED + "RADIUS_MIN_OVERLAP", 2.0], "MODEL.INSPOSE_RELEASED.RADIUS_MIN_OVERLAP must be between 0 and 1"),
        ([RELEASED + "NMS_SIGMA", 0.0], "MODEL.INSPOSE_RELEASED.NMS_SIGMA must be above 0, got 0.0"),
        ([RELEASED + "NMS_MIN_SCORE", -0.1], "MODEL.INSPOSE_RELEASED.NMS_MIN_SCORE must be at least 0, got -0.1"),
        ([RELEASED + "NUM_AUX_CONVS", 0], "MODEL.INSPOSE_RELEASED.NUM_AUX_CONVS must be at least 1, got 0"),
        ([RELEASED + "AUX_CONVS_DIM", 20], "MODEL.FCOS.NORM 'GN' does not support layers of 20 channels"),
        (["INPUT.CROP.ENABLED", True], "INPUT.CROP.ENABLED is True, but with MODEL.INSPOSE_RELEASED.INDEX_COORDINATES"),
        (["INPUT.AFFINE.ENABLED", True], "INPUT.AFFINE.ENABLED is True, but with .*INDEX_COORDINATES"),
    ],
)
def test_wrong_choices_name_their_key(opts, message):
    with pytest.raises(ConfigError, match=message):
        small_model(RELEASE, *SMALL, *opts, schema=FIVE)


def test_continuous_coordinates_may_be_cropped_and_warped():
    opts = [RELEASED + "INDEX_COORDINATES", False, "INPUT.CROP.ENABLED", True, "INPUT.AFFINE.ENABLED", True]
    small_model(RELEASE, *SMALL, *opts, schema=FIVE)


def test_cocos_star_does_not_fit_four_keypoints():
    with pytest.raises(ValueError, match="the model's keypoints are 0 to 3"):
        small_model(RELEASE)


def test_default_predictor_of_detectron2(tmp_path):
    model = released_model()
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    cfg = small_config(RELEASE, *SMALL, "MODEL.FCOS.SCORE_THRESH_TEST", 0.0, "INPUT.MIN_SIZE_TEST", 64)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    output = DefaultPredictor(cfg)(torch.zeros(100, 80, 3, dtype=torch.uint8).numpy())
    assert output["instances"].image_size == (100, 80)
    assert output["instances"].has("pred_keypoints")


def test_config_is_the_releases():
    cfg = load_config(RELEASE)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_EPOCHS) == (0.02, 32, 36)
    assert (cfg.SOLVER.STEPS_EPOCHS, cfg.SOLVER.WARMUP_ITERS) == ([27, 33], 2000)
    assert (cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE) == ("full_model", 35.0)
    assert cfg.MODEL.FCOS.NMS_THRESH_TEST == 0.3
    assert cfg.MODEL.FCOS.SCORE_THRESH_TEST == 0.05
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert not cfg.INPUT.CROP.ENABLED
    spec = KPNetSpec(
        in_channels=cfg.MODEL.KP_NET.IN_CHANNELS, width=cfg.MODEL.KP_NET.WIDTH, depth=cfg.MODEL.KP_NET.DEPTH,
        num_keypoints=17,
    )  # fmt: skip
    assert spec.num_params == 313


def test_perfect_maps_give_the_keypoint_back():
    """Targets and decoding have the same idea of a cell and of an offset."""
    point = torch.tensor([37.3, 18.9])
    keypoints = torch.cat([point, torch.tensor([2.0])]).view(1, 1, 3)
    size, factor = (6, 8), 2
    spec = KPNetSpec(in_channels=1, width=8, depth=1, num_keypoints=1, coords_position="last", coords_sign=1)
    params = torch.zeros(1, spec.num_params)
    spec.unpack(params)[0][0][:, 0, 0] = 100.0
    # F is the cross-entropy's own target
    cell = keypoint_cells(keypoints, 8, size)
    features = torch.zeros(1, 1, *size)
    features.view(-1)[cell.item()] = 1.0
    nets = KPNets(
        features=features, params=params, image_index=torch.tensor([0]),
        locations=torch.zeros(1, 2), coord_scale=torch.ones(1), spec=spec, stride=8,
    )  # fmt: skip
    assert nets.cross_entropy(cell).item() < 1e-5
    # and the offsets have no loss where they are supervised
    columns, rows = torch.arange(16.0).expand(12, 16), torch.arange(12.0)[:, None].expand(12, 16)
    offsets = (point / 4)[:, None, None] - torch.stack([columns, rows])
    offsets = offsets.view(1, 1, 2, 12, 16)
    assert disk_offset_loss(offsets, keypoints, torch.tensor([0]), torch.tensor([1]), stride=4).item() < 1e-5
    located = locate_keypoints(nets, offsets, factor)
    torch.testing.assert_close(located[0, 0, :2], point)
