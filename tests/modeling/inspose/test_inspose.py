"""The InsPose meta-architecture: every design choice trains and predicts, and decoding is worked out by hand."""

from pathlib import Path

import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import ImageList
from small_models import SCHEMA, image, one_person, people, small_config, small_model

from dynpose.config import ConfigError, load_config
from dynpose.data import COCO_PERSON, KeypointSchema, schema_to_cfg
from dynpose.engine import optimize_for_inference
from dynpose.modeling import InsPose
from dynpose.modeling.fcos import detector

PAPER = "configs/InsPose/R_50_36e.yaml"
SMALL = (
    *("MODEL.INSPOSE.NUM_FEATURE_CONVS", 1),
    *("MODEL.INSPOSE.FEATURE_CONVS_DIM", 32),
    *("MODEL.INSPOSE.NUM_OFFSET_CONVS", 2),
    *("MODEL.INSPOSE.OFFSET_CONVS_DIM", 32),
    *("MODEL.INSPOSE.NUM_HEATMAP_CONVS", 1),
    *("MODEL.INSPOSE.HEATMAP_CONVS_DIM", 32),
)
CHOICES = {
    "paper": [],
    "He initialisation": ["MODEL.INSPOSE.INIT_STD", 0.0],
    "no disk offset": ["MODEL.INSPOSE.DISK_OFFSET", False],
    "no heatmap": ["MODEL.INSPOSE.HEATMAP", False],
    "inside the box": ["MODEL.INSPOSE.CENTER_INSIDE_BOX", True],
    "1x1 controller": ["MODEL.INSPOSE.CONTROLLER_KERNEL", 1],
    "coordinates first": ["MODEL.KP_NET.COORDS_POSITION", "first", "MODEL.KP_NET.COORDS_SIGN", -1],
    "depth 1": ["MODEL.KP_NET.DEPTH", 1],
    "depth 4": ["MODEL.KP_NET.DEPTH", 4],
    "1/16": ["MODEL.INSPOSE.MAP_STRIDE", 16],
    "1/4": ["MODEL.INSPOSE.MAP_STRIDE", 4],
    "1/2": ["MODEL.INSPOSE.MAP_STRIDE", 2],
    "boxes": ["MODEL.INSPOSE.BOX_HEAD", True],
    "boxes and centre-ness": ["MODEL.INSPOSE.BOX_HEAD", True, "MODEL.INSPOSE.CENTERNESS", True],
    "two classes": ["MODEL.FCOS.NUM_CLASSES", 2],
}
# every row of the tables; the release is another meta-architecture, and other test-time augmentation is no other model
ROWS = sorted(
    path
    for path in Path("configs/InsPose").rglob("*.yaml")
    if load_config(str(path)).MODEL.META_ARCHITECTURE == "InsPose" and not load_config(str(path)).TEST.AUG.ENABLED
)


def small_inspose(*opts, config=PAPER, **kwargs):
    return small_model(config, *SMALL, *opts, **kwargs)


def losses_of(model, inputs):
    losses = model.train()(inputs)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


def assert_all_gradients(model):
    # frozen normalisation and the frozen stem have no gradient; everything else has
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_trains_and_predicts(choice):
    model = small_inspose(*CHOICES[choice])
    # a person on a fine and one on a coarse level
    large = people([[5, 5, 125, 120]], [[(64, 8, 2), (120, 60, 1), (8, 60, 2), (64, 118, 2)]])
    losses = losses_of(model, [image(one_person(), 0), image(people([], []), 1), image(large, 2)])
    assert all(loss.isfinite() for loss in losses.values())
    expected = {"loss_fcos_cls", "loss_keypoint", "loss_offset", "loss_aux_heatmap"}
    if choice.startswith("no "):
        expected -= {{"no disk offset": "loss_offset", "no heatmap": "loss_aux_heatmap"}[choice]}
    if "boxes" in choice:
        expected |= {"loss_fcos_box"}
    if "centre-ness" in choice:
        expected |= {"loss_fcos_centerness"}
    assert losses.keys() == expected
    assert all(loss > 0 for loss in losses.values())
    assert_all_gradients(model)
    assert model.controller.linear.weight.grad.abs().sum() > 0

    model.eval().detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{**image(one_person()), "height": 64, "width": 256}])
    instances = output["instances"]
    assert 0 < len(instances) <= 100
    assert instances.image_size == (64, 256)
    assert instances.get_fields().keys() == {"pred_boxes", "scores", "pred_classes", "pred_keypoints"}
    assert instances.pred_keypoints.shape == (len(instances), SCHEMA.num_keypoints, 3)
    confidence = instances.pred_keypoints[..., 2]
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert (instances.scores.diff() <= 0).all()


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_every_row_takes_a_step(path):
    model = small_inspose(config=str(path)) if "HRNet" not in path.stem else hrnet_row(path)
    losses = losses_of(model, [image(one_person())])
    assert all(loss.isfinite() for loss in losses.values())
    assert_all_gradients(model)


def hrnet_row(path):
    # without the maps of 256 channels it is quick enough; the width stays
    return small_inspose("MODEL.HRNET.WIDTH", 18, config=str(path))


def test_all_rows_of_the_tables_exist():
    assert {path.stem for path in ROWS} == {
        "Base-InsPose", "R_50_36e", "R_50_100e", "R_101_100e", "HRNet_W32_100e",
        "no_offset_no_heatmap", "no_heatmap", "depth_1", "depth_2", "depth_4",
        "map_stride_16", "map_stride_4", "map_stride_2", "box_head",
    }  # fmt: skip
    assert load_config("configs/InsPose/HRNet_W32_100e.yaml").MODEL.HRNET.WIDTH == 32


def test_disabled_branches_have_no_norm():
    """Their channels may be anything."""
    absent = ["MODEL.INSPOSE.DISK_OFFSET", False, "MODEL.INSPOSE.HEATMAP", False]
    small_inspose(*absent, "MODEL.INSPOSE.OFFSET_CONVS_DIM", 20, "MODEL.INSPOSE.HEATMAP_CONVS_DIM", 20)


def test_all_of_hrnet_is_learned():
    """But the statistics, and the sums of the last stage that only res2, which is not asked for, is made of."""
    body = hrnet_row(Path("configs/InsPose/HRNet_W32_100e.yaml")).backbone.bottom_up.body
    frozen = {name for name, parameter in body.named_parameters() if not parameter.requires_grad}
    assert all(name.startswith("stage4.2.fuse_layers.0.") for name in frozen)
    assert body.conv1.weight.requires_grad


@pytest.mark.parametrize("boxes", [False, True])
def test_no_people_and_no_keypoints(boxes):
    model = small_inspose("MODEL.INSPOSE.BOX_HEAD", boxes)
    no_people = losses_of(model, [image(people([], []))])
    assert all(loss.isfinite() for loss in no_people.values())
    assert no_people["loss_keypoint"] == no_people["loss_offset"] == 0
    assert_all_gradients(model)

    unlabelled = losses_of(model, [image(one_person(visibility=0))])
    assert unlabelled["loss_keypoint"] == unlabelled["loss_offset"] == 0
    assert_all_gradients(model)
    if boxes:
        # its box is learned
        assert unlabelled["loss_fcos_box"] > 0
    else:
        # without boxes such a person is background
        assert unlabelled["loss_fcos_cls"].item() == no_people["loss_fcos_cls"].item()


def test_one_keypoint_is_enough():
    """The rectangle around it has no extent, but its centre region has."""
    single = people([[40, 40, 90, 90]], [[(0, 0, 0), (64, 60, 2), (0, 0, 0), (0, 0, 0)]])
    model = small_inspose()
    losses = losses_of(model, [image(single)])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_keypoint"] > 0
    assert_all_gradients(model)
    # FCOS's rule finds no location inside
    inside = losses_of(small_inspose("MODEL.INSPOSE.CENTER_INSIDE_BOX", True), [image(single)])
    assert inside["loss_keypoint"] == 0
    assert inside["loss_offset"] > 0


def test_assignment_is_by_pseudo_boxes_and_with_a_box_head_by_boxes(monkeypatch):
    seen = []

    def spy(locations, people, **kwargs):
        seen.append((people[0].gt_boxes.tensor.tolist(), kwargs["inside_box"]))
        return assign_targets(locations, people, **kwargs)

    assign_targets = detector.assign_targets
    monkeypatch.setattr(detector, "assign_targets", spy)
    for boxes in (False, True):
        losses_of(small_inspose("MODEL.INSPOSE.BOX_HEAD", boxes), [image(one_person())])
    # one_person has a box of 40 x 60, its keypoints span 30 x 50
    assert seen == [([[49, 39, 79, 89]], False), ([[44, 34, 84, 94]], True)]


def test_every_positive_location_has_a_network(monkeypatch):
    made = []
    generate = InsPose._generate

    def spy(self, p3, tower, locations, index):
        made.append(locations.points[index].tolist())
        return generate(self, p3, tower, locations, index)

    monkeypatch.setattr(InsPose, "_generate", spy)
    # the pseudo-box's centre is (64, 64): at stride 8 the cells 52, 60, 68 and 76 are within 12 pixels, but for those
    # that are exactly 12 away
    losses_of(small_inspose(), [image(one_person())])
    assert made == [[[60, 60], [68, 60], [60, 68], [68, 68]]]


def test_batched_inference_equals_single():
    """The release takes one image at a time."""
    model = small_inspose().eval()
    model.detector.decoder.score_thresh = 0.0
    model.detector.decoder.post_nms_topk = 10
    inputs = [image(one_person(), seed) for seed in range(3)]
    with torch.no_grad():
        together = model(inputs)
        alone = [model([single])[0] for single in inputs]
    for a, b in zip(together, alone):
        a, b = a["instances"], b["instances"]
        assert len(a) == 10
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=1e-3, atol=1e-3)


def test_losses_do_not_depend_on_other_copies_of_the_batch():
    """Doubling the batch leaves the mean losses where they were."""
    model = small_inspose()
    single = losses_of(model, [image(one_person())])
    double = losses_of(model, [image(one_person()), image(one_person())])
    for name in single:
        assert double[name].item() == pytest.approx(single[name].item(), rel=1e-4), name


def test_the_auxiliary_heatmap_is_not_used_in_inference():
    model = small_inspose().eval()
    model.detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (before,) = model([image(one_person())])
        for parameter in model.aux_heatmap.parameters():
            parameter.fill_(float("nan"))
        (after,) = model([image(one_person())])
    for name, values in before["instances"].get_fields().items():
        other = after["instances"].get(name)
        assert torch.equal(getattr(values, "tensor", values), getattr(other, "tensor", other)), name
    # in training they are
    assert losses_of(model, [image(one_person())])["loss_aux_heatmap"].isnan()


def test_a_checkpoint_predicts_the_same_without_the_auxiliary_heatmap():
    """The branch that only training uses can be omitted from the model and from its file."""
    model = small_inspose().eval()
    bare = small_inspose("MODEL.INSPOSE.HEATMAP", False, seed=1).eval()
    missing, unexpected = bare.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert unexpected
    assert all(key.startswith("aux_heatmap.") for key in unexpected)
    model.detector.decoder.score_thresh = bare.detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        whole, pruned = (m([image(one_person())])[0]["instances"] for m in (model, bare))
    assert torch.equal(whole.pred_keypoints, pruned.pred_keypoints)


def set_networks(model, points):
    """Networks whose every map peaks ``point`` pixels from the location, by level: -|dx| - |dy| of two coordinates."""
    spec = model.spec
    assert (spec.depth, spec.width) == (2, 8)
    assert (spec.coords_position, spec.coords_sign) == ("last", 1)
    params = torch.zeros(spec.num_params)
    (w0, b0), (w1, _) = spec.unpack(params[None])
    for row, (axis, sign) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1))):
        w0[0, row, spec.in_channels + axis] = sign
        b0[0, row] = -sign * points[axis]
    w1[0, :, :4] = -50.0
    torch.nn.init.zeros_(model.controller.linear.weight)
    model.controller.linear.bias.data = params


def hand_made(*opts, scores):
    """A model with known networks and offsets, and the people it finds where ``scores`` {(level, v, u): logit} says."""
    model = small_inspose("MODEL.KP_NET.DEPTH", 2, *opts).eval()
    # cell minus location = (-16, 8) pixels at the finest level, in units of 8 strides = 64 pixels
    set_networks(model, (-16 / 64, 8 / 64))
    torch.nn.init.zeros_(model.head.cls_logits.weight)
    if model.disk_offsets is not None:
        torch.nn.init.zeros_(model.disk_offsets.predict.weight)
        # of kind 1, in cells from the cell's corner
        model.disk_offsets.predict.bias.data[2:4] = torch.tensor([0.25, 1.5])
    features = [torch.zeros(1, 64, size, size) for size in (16, 8, 4, 2, 1)]
    predictions = model.head(features)
    for logits in predictions.logits:
        logits.fill_(-20)
    for (level, v, u), logit in scores.items():
        predictions.logits[level][0, 0, v, u] = logit
    images = ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)])
    (instances,) = model.forward_inference(images, features, predictions)
    return instances


def test_equation_3_by_hand():
    # the location (76, 60); 16 to the left and 8 below is the cell (7, 8), whose centre is (60, 68)
    instances = hand_made(scores={(0, 7, 9): 4.0})
    assert len(instances) == 1
    assert instances.scores.tolist() == pytest.approx([torch.tensor(4.0).sigmoid().item()])
    # untrained offsets are 0.5: ((7 + 0.5) * 8, (8 + 0.5) * 8)
    assert instances.pred_keypoints[0, 0, :2].tolist() == [60, 68]
    # ((7 + 0.25) * 8, (8 + 1.5) * 8)
    assert instances.pred_keypoints[0, 1, :2].tolist() == [58, 76]
    # the rectangle of 2 x 8 pixels around both is widened to the 8 pixels of a cell
    assert instances.pred_boxes.tensor.tolist() == [[55, 68, 63, 76]]


def test_without_offsets_a_keypoint_is_its_cells_centre():
    instances = hand_made("MODEL.INSPOSE.DISK_OFFSET", False, scores={(0, 7, 9): 4.0})
    assert (instances.pred_keypoints[0, :, :2] == torch.tensor([60.0, 68.0])).all()


@pytest.mark.parametrize(("map_stride", "expected"), [(16, [52, 88]), (4, [57, 70]), (2, [58.5, 69])])
def test_equation_3_at_other_resolutions(map_stride, expected):
    """The peak moves by no more than its cell, and offsets count in cells of the map."""
    instances = hand_made("MODEL.INSPOSE.MAP_STRIDE", map_stride, scores={(0, 7, 9): 4.0})
    # (60, 68) lies in cell (3, 4) at stride 16. It is the corner of four cells at stride 4 and at 2, and the first,
    # (14, 16) and (29, 33), is found.
    first, second = instances.pred_keypoints[0, :2, :2]
    corner = {16: (3, 4), 4: (14, 16), 2: (29, 33)}[map_stride]
    assert first.tolist() == [(value + 0.5) * map_stride for value in corner]
    assert second.tolist() == expected


def test_coordinates_are_scaled_by_the_locations_level():
    # at stride 16, 8 strides are 128 pixels: from the location (72, 56), twice as far is (40, 72), the corner of
    # four cells at stride 8, of which the first is found
    instances = hand_made(scores={(1, 3, 4): 4.0})
    assert instances.pred_keypoints[0, 0, :2].tolist() == [36, 68]


def test_candidates_threshold_nms_and_limits():
    # 0.1 is the logit -2.197: the last is below. The second's rectangle is the first's, 2 cells further left.
    scores = {(0, 7, 9): 2.0, (0, 7, 7): 1.0, (0, 7, 8): -1.0, (0, 2, 12): -2.2}
    apart = hand_made(scores=scores)
    assert apart.scores.tolist() == pytest.approx(torch.tensor([2.0, 1.0, -1.0]).sigmoid().tolist())
    # every rectangle is 8 pixels wide and high; neighbours of one cell touch, so that none is dropped
    assert [box[0] for box in apart.pred_boxes.tensor.tolist()] == [55, 39, 47]
    # of two levels that find the same pose, the better stays: (1, ...) see the test above
    best = hand_made("MODEL.FCOS.PRE_NMS_TOPK_TEST", 2, scores=scores)
    assert len(best) == 2
    # candidates are counted per image, not per level: an image's best two are at the finest level
    levels = {**scores, (1, 3, 4): 0.5}
    best = hand_made("MODEL.FCOS.PRE_NMS_TOPK_TEST", 2, scores=levels)
    assert best.scores.tolist() == pytest.approx(torch.tensor([2.0, 1.0]).sigmoid().tolist())
    kept = hand_made("MODEL.FCOS.POST_NMS_TOPK_TEST", 1, scores=scores)
    assert kept.scores.tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item()])


def test_nms_compares_the_rectangles_of_the_keypoints():
    """Two locations of which the networks find the same pose are one person."""
    model = small_inspose("MODEL.KP_NET.DEPTH", 1).eval()
    # without relative coordinates all networks are the same
    torch.nn.init.zeros_(model.controller.linear.weight)
    torch.nn.init.zeros_(model.head.cls_logits.weight)
    torch.manual_seed(0)
    params = torch.randn(model.spec.num_params)
    ((weight, _),) = model.spec.unpack(params[None])
    weight[..., -2:] = 0
    model.controller.linear.bias.data = params
    features = [torch.randn(1, 64, size, size) for size in (16, 8, 4, 2, 1)]
    predictions = model.head(features)
    for logits in predictions.logits:
        logits.fill_(-20)
    predictions.logits[0][0, 0, 1, 1] = 1.0
    predictions.logits[2][0, 0, 2, 2] = 2.0
    images = ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)])
    (instances,) = model.forward_inference(images, features, predictions)
    assert instances.scores.tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item()])
    points = instances.pred_keypoints[0, :, :2]
    box = instances.pred_boxes.tensor[0]
    assert box.tolist() == pytest.approx([*points.amin(dim=0).tolist(), *points.amax(dim=0).tolist()])


def test_the_papers_network():
    cfg = load_config(PAPER)
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, COCO_PERSON)
    assert cfg.MODEL.FCOS.SCORE_THRESH_TEST == 0.1
    assert (cfg.MODEL.FCOS.PRE_NMS_TOPK_TEST, cfg.MODEL.FCOS.POST_NMS_TOPK_TEST) == (500, 100)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.WEIGHT_DECAY) == (0.01, 16, 0.0001)
    assert (cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.STEPS_EPOCHS) == (36, [27, 33])
    main = load_config("configs/InsPose/R_101_100e.yaml")
    assert (main.SOLVER.MAX_EPOCHS, main.SOLVER.STEPS_EPOCHS) == (100, [75, 90])

    arguments = InsPose.from_config(cfg)
    spec, features = arguments["kp_net_head"].spec, arguments["keypoint_features"]
    # section 3.2: ((8 + 2) * 8 + 8) + (8 * 8 + 8) + (8 * 17 + 17)
    assert spec.num_params == 313
    assert [conv.weight.shape[:2] for conv in features.tower] == [(128, 256), (128, 128), (128, 128), (128, 128)]
    assert features.project.weight.shape == (8, 128, 1, 1)
    offsets = arguments["disk_offsets"]
    assert [conv.weight.shape[2:] for conv in (*offsets.tower, offsets.predict)] == [(3, 3)] * 3
    assert offsets.predict.out_channels == 34
    heatmap = arguments["aux_heatmap"]
    assert [tuple(conv.weight.shape) for conv in (*heatmap.tower, heatmap.predict)] == [
        (256, 256, 3, 3),
        (256, 256, 3, 3),
        (17, 256, 3, 3),
    ]
    # unused branches do not exist
    head = arguments["head"]
    assert head.box_distances is None
    assert head.centerness is None
    assert len(head.scales) == 0
    # section 4: initialised as in RetinaNet
    assert head.box_tower[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert features.tower[0].weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_one_keypoint_kind():
    """Rectangles around single points must survive detectron2's rescaling."""
    schema = KeypointSchema(names=("nose",), flip_pairs=(), skeleton=(), sigmas=(0.05,))
    model = small_inspose(schema=schema).eval()
    model.detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{**image(one_person()), "height": 32, "width": 32}])
    assert len(output["instances"]) > 0


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["MODEL.INSPOSE.MAP_STRIDE", 12], "MODEL.INSPOSE.MAP_STRIDE"),
        (["MODEL.INSPOSE.NUM_OFFSET_CONVS", 0], "MODEL.INSPOSE.NUM_OFFSET_CONVS"),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64]"], "MODEL.FCOS.SIZES_OF_INTEREST"),
        (["MODEL.FCOS.IN_FEATURES", "['p2', 'p3', 'p4', 'p6', 'p7']"], r"IN_FEATURES .* not p2"),
        (
            ["MODEL.FCOS.SIZES_OF_INTEREST", "[512, 256, 128, 64]"],
            "MODEL.FCOS.SIZES_OF_INTEREST must be strictly increasing",
        ),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[0, 128, 256, 512]"], "MODEL.FCOS.SIZES_OF_INTEREST must be above 0"),
        (["MODEL.FCOS.CENTER_SAMPLING_RADIUS", -1.0], "MODEL.FCOS.CENTER_SAMPLING_RADIUS must be at least 0, got -1.0"),
        (["MODEL.FCOS.PRIOR_PROB", 0.0], "MODEL.FCOS.PRIOR_PROB must be between 0 and 1"),
        (["MODEL.FCOS.PRIOR_PROB", 1.0], "MODEL.FCOS.PRIOR_PROB must be between 0 and 1"),
        (["MODEL.FCOS.PRE_NMS_TOPK_TEST", 0], "MODEL.FCOS.PRE_NMS_TOPK_TEST must be at least 1, got 0"),
        (["MODEL.FCOS.POST_NMS_TOPK_TEST", -1], "MODEL.FCOS.POST_NMS_TOPK_TEST must be at least 1, got -1"),
        (["MODEL.FCOS.NUM_CLASSES", 0], "MODEL.FCOS.NUM_CLASSES must be at least 1"),
        (["MODEL.FCOS.NUM_CLS_CONVS", -1], "MODEL.FCOS.NUM_CLS_CONVS must be at least 0"),
        (["MODEL.FCOS.NORM", "GNN"], "MODEL.FCOS.NORM must be 'GN', .* got 'GNN'"),
        (["MODEL.FPN.OUT_CHANNELS", 20], "MODEL.FCOS.NORM 'GN' does not support layers of 20 channels"),
        (["MODEL.INSPOSE.NORM", "FOO"], "MODEL.INSPOSE.NORM must be 'GN', .* got 'FOO'"),
        (["MODEL.INSPOSE.OFFSET_CONVS_DIM", 20], "MODEL.INSPOSE.NORM 'GN' does not support layers of 20 channels"),
        (["MODEL.INSPOSE.HEATMAP_SIGMA", 0.0], "MODEL.INSPOSE.HEATMAP_SIGMA must be above 0, got 0.0"),
        (["MODEL.INSPOSE.HEATMAP_SIGMA", "1e999"], "MODEL.INSPOSE.HEATMAP_SIGMA must be above 0, got inf"),
        (["MODEL.INSPOSE.COORD_SCALE", -8.0], "MODEL.INSPOSE.COORD_SCALE must be above 0, got -8.0"),
        (["MODEL.INSPOSE.DISK_RADIUS", -1.0], "MODEL.INSPOSE.DISK_RADIUS must be at least 0, got -1.0"),
        (["MODEL.INSPOSE.INIT_STD", -0.1], "MODEL.INSPOSE.INIT_STD must be at least 0"),
        (["MODEL.INSPOSE.CONTROLLER_KERNEL", 2], "MODEL.INSPOSE.CONTROLLER_KERNEL must be odd and at least 1, got 2"),
        (["MODEL.INSPOSE.CONTROLLER_KERNEL", -1], "MODEL.INSPOSE.CONTROLLER_KERNEL must be odd and at least 1"),
        (["MODEL.INSPOSE.NUM_HEATMAP_CONVS", -1], "MODEL.INSPOSE.NUM_HEATMAP_CONVS must be at least 0"),
        (["MODEL.INSPOSE.CENTERNESS", True], "MODEL.INSPOSE.CENTERNESS is True, but .* MODEL.INSPOSE.BOX_HEAD to True"),
    ],
)
def test_wrong_choices_name_their_key(opts, named):
    with pytest.raises(ConfigError, match=named):
        small_inspose(*opts)


# largest distance of a keypoint, pixels, and difference of a score
LIMITS = {"float32": (1e-2, 1e-4), "bfloat16": (0.5, 0.02)}


def assert_faster_ones_agree(model, data):
    """The best person of an image, by a trained model, is the same in each precision that "auto" may choose."""
    model.eval()
    keypoints, score = _best(model, data)
    precisions = ("float32", *model.proven_precisions)
    for precision in precisions:
        distance, difference = LIMITS[precision]
        fast_keypoints, fast_score = _best(optimize_for_inference(model, precision), data)
        assert (fast_keypoints - keypoints).norm(dim=1).max() < distance, precision
        assert fast_score == pytest.approx(score, abs=difference), precision


def _best(model, data):
    with torch.no_grad():
        people = model([data])[0]["instances"]
    best = people[int(people.scores.argmax())]
    return best.pred_keypoints[0, :, :2], best.scores.item()


@pytest.mark.parametrize("boxes", [False, True])
def test_overfits_one_person(boxes):
    """Targets, losses and decoding are consistent: the model overfits one image."""
    model = small_inspose("MODEL.INSPOSE.BOX_HEAD", boxes, "MODEL.INSPOSE.CONTROLLER_KERNEL", 1)
    data = image(one_person(61.3, 66.8))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    model.train()
    for _ in range(80):
        optimizer.zero_grad()
        sum(model([data]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        (output,) = model.eval()([data])
    instances = output["instances"]
    truth = data["instances"]
    assert instances.scores[0] > 0.5
    error = (instances.pred_keypoints[0, :, :2] - truth.gt_keypoints.tensor[0, :, :2]).norm(dim=1)
    assert error.max() < 1.5
    # around the keypoints, 30 x 50, or the annotated 40 x 60
    box = truth.gt_boxes.tensor[0] if boxes else torch.tensor([46.3, 41.8, 76.3, 91.8])
    assert (instances.pred_boxes.tensor[0] - box).abs().max() < (5 if boxes else 1.5)
    assert_faster_ones_agree(model, data)


def test_default_predictor_of_detectron2(tmp_path):
    model = small_inspose()
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    cfg = small_config(PAPER, *SMALL, "MODEL.FCOS.SCORE_THRESH_TEST", 0.0, "INPUT.MIN_SIZE_TEST", 64)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    cfg.DATASETS.TEST = ()
    output = DefaultPredictor(cfg)(torch.zeros(100, 80, 3, dtype=torch.uint8).numpy())
    assert output["instances"].image_size == (100, 80)
    assert output["instances"].has("pred_keypoints")
