"""`dynpose benchmark model` on small models: injected detections, counted FLOPs, and the output of the command."""

import json
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import parse, read_tables
from detectron2 import model_zoo
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from small_models import SCHEMA, small_config, small_model
from torch import nn
from torchvision.ops import box_iou, deform_conv2d

from dynpose.benchmark import clocks, configs, memory
from dynpose.benchmark.configs import PEER_NAME, SETTLING_SIZE
from dynpose.benchmark.measure import Measurement
from dynpose.benchmark.memory import OUT_OF_MEMORY
from dynpose.benchmark.model import case as models
from dynpose.benchmark.model import parts, plot, report, run
from dynpose.benchmark.model.case import BuiltModels, ModelCase, PoseModel
from dynpose.benchmark.settings import Settings
from dynpose.config import ConfigError
from dynpose.methods import get_method
from dynpose.modeling.fcos import FCOSDecoder, FCOSPredictions, Locations
from dynpose.modeling.fcos.injection import corner_offsets, fcos_predictions
from dynpose.modeling.kp_net import FLOPS_BILINEAR
from dynpose.profiling.flops import _deformable_flops, count_flops, count_flops_with_people, count_networks
from dynpose.profiling.inject_detections import inject_detections, require_method, spread_boxes
from dynpose.tools import benchmark
from dynpose.tools.cli import main

CPU = torch.device("cpu")
SIZE = (128, 192)
FCPOSE = "configs/FCPose/Base-FCPose.yaml"
INSPOSE = "configs/InsPose/Base-InsPose.yaml"
SMALL_INSPOSE = [
    *("MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.INSPOSE.FEATURE_CONVS_DIM", 32),
    *("MODEL.INSPOSE.OFFSET_CONVS_DIM", 32),
    *("MODEL.INSPOSE.HEATMAP_CONVS_DIM", 32),
]
SMALL_RELEASE = [
    *("MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.INSPOSE_RELEASED.FEATURE_CONVS_DIM", 32),
    *("MODEL.INSPOSE_RELEASED.AUX_CONVS_DIM", 32),
    *("MODEL.INSPOSE_RELEASED.REGRESSION_CONVS_DIM", 32),
    *("MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS", [0, 1, 2, 3, 0, 1, 2, 3, 0]),
]


def small_keypoint_rcnn():
    """Config of a Keypoint R-CNN with 50 proposals, four keypoints and few channels."""
    cfg = model_zoo.get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml", trained=False)
    cfg.merge_from_list([
        *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""),
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
        *("MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.FPN.OUT_CHANNELS", 8),
        *("MODEL.RPN.POST_NMS_TOPK_TEST", 50, "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
        *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (12,), "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 4),
    ])  # fmt: skip
    return cfg


CID = "configs/CID/Base-CID.yaml"
SMALL_CID = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.CID.IN_FEATURES", ["p2"], "MODEL.CID.CHANNELS", 8),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
]

QUERYPOSE = "configs/QueryPose/Base-QueryPose.yaml"
SMALL_QUERYPOSE = [
    *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.QUERYPOSE.HIDDEN_DIM", 16, "MODEL.QUERYPOSE.NUM_QUERIES", 8),
    *("MODEL.QUERYPOSE.NUM_STAGES", 2, "MODEL.QUERYPOSE.NUM_HEADS", 2, "MODEL.QUERYPOSE.FEEDFORWARD_DIM", 8),
    *("MODEL.QUERYPOSE.DYNAMIC_DIM", 4, "MODEL.QUERYPOSE.PART_DIM", 8, "MODEL.QUERYPOSE.PART_FEEDFORWARD_DIM", 8),
    *("MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS", 2, "MODEL.QUERYPOSE.KEYPOINT_CONV_DIM", 8),
]

CONFIGS = {
    "FCPose": lambda: small_config(FCPOSE),
    "InsPose": lambda: small_config(INSPOSE, *SMALL_INSPOSE),
    "InsPose with boxes": lambda: small_config(INSPOSE, *SMALL_INSPOSE, "MODEL.INSPOSE.BOX_HEAD", True),
    "InsPose released": lambda: small_config("configs/InsPose/R_50_3x_release.yaml", *SMALL_RELEASE),
    "CID": lambda: small_config(CID, *SMALL_CID),
    "QueryPose": lambda: small_config(QUERYPOSE, *SMALL_QUERYPOSE),
    "Keypoint R-CNN": small_keypoint_rcnn,
}


@pytest.fixture(scope="module")
def built():
    """A small model of each kind."""
    return BuiltModels([PoseModel(name, make()) for name, make in CONFIGS.items()], CPU, SIZE)


def settings(rounds):
    return Settings(CPU, rounds=rounds)


def images(number=1):
    return [{"image": models._noise(SIZE, seed)} for seed in range(number)]


# --- where people stand ---


@pytest.mark.parametrize(
    ("num_people", "size", "boxes"),
    [
        (0, (100, 200), []),
        # one cell; 80 of 100 pixels high, and 32 wide
        (1, (100, 200), [[84, 10, 116, 90]]),
        # ceil(sqrt(3 * 100 / 150 / 2.5)) = 1 row; 50 x 100 cells would allow a height of 125
        (3, (100, 150), [[9, 10, 41, 90], [59, 10, 91, 90], [109, 10, 141, 90]]),
        # 2 rows of 30 x 50 pixels with an empty cell; 80 % of 50
        (5, (100, 90), [[7, 5, 23, 45], [37, 5, 53, 45], [67, 5, 83, 45], [7, 55, 23, 95], [37, 55, 53, 95]]),
    ],
)
def test_people_stand_in_the_cells_of_a_grid(num_people, size, boxes):
    expected = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    torch.testing.assert_close(spread_boxes(num_people, size), expected)


@pytest.mark.parametrize("num_people", [2, 7, 20, 50, 100])
@pytest.mark.parametrize("size", [(800, 1333), (1333, 800), (512, 512)])
def test_people_do_not_overlap_and_are_within_the_image(num_people, size):
    boxes = spread_boxes(num_people, size)
    assert torch.equal(box_iou(boxes, boxes) > 0, torch.eye(num_people, dtype=torch.bool))
    assert boxes.min() > 0
    assert (boxes[:, 2:] < torch.tensor([size[1], size[0]])).all()


# --- FCOS predictions ---

LEVELS = {"sizes": ((4, 4), (2, 2)), "strides": (8, 16), "sizes_of_interest": [12.0]}


@pytest.mark.parametrize(("file", "opts"), [(FCPOSE, []), (INSPOSE, SMALL_INSPOSE)])
def test_people_are_injected_into_a_compiled_head(file, opts):
    model = small_model(file, *opts).eval()
    # the tracing alone, without a compiler
    model.head.compile(backend="eager", dynamic=True)
    with inject_detections(model, 2, SIZE), torch.no_grad():
        [result] = model(images())
    assert len(result["instances"]) == 2


def test_fcos_predictions_by_hand():
    """The middle (12, 16) lies in column 1, row 2, whose centre is (12, 20); of its neighbours only the one above is
    within the box and not on its edge."""
    injected = fcos_predictions(torch.tensor([[4.0, 4, 20, 28]]), **LEVELS, num_classes=2)
    fine, coarse = injected["logits"]
    assert fine.shape == (1, 2, 4, 4)
    assert (fine > 0).nonzero().tolist() == [[0, 0, 1, 1], [0, 0, 2, 1]]
    assert fine[0, 0, 2, 1] > fine[0, 0, 1, 1]
    assert (coarse < -10).all()
    assert injected["distances"][0][0, :, 2, 1].tolist() == [1, 2, 1, 1]
    assert injected["distances"][0][0, :, 1, 1].tolist() == [1, 1, 1, 2]
    assert injected["boxes"][0][0, :, 1, 1].tolist() == [4, 4, 20, 28]
    assert injected["centerness"][0][0, 0, 2, 1] > injected["centerness"][0][0, 0, 1, 1] > 0
    assert injected["distances"][1].abs().max() == 0


def test_large_people_are_on_a_coarse_level():
    injected = fcos_predictions(torch.tensor([[2.0, 4, 18, 30]]), **LEVELS)
    assert (injected["logits"][0] < 0).all()
    # 10, 17 is in column 0, row 1: its centre is (8, 24)
    assert injected["distances"][1][0, :, 1, 0].tolist() == [6 / 16, 20 / 16, 10 / 16, 6 / 16]


@pytest.mark.parametrize("thresh_with_centerness", [False, True])
def test_fcos_predictions_decode_to_the_boxes(thresh_with_centerness):
    boxes = spread_boxes(7, (256, 256))
    injected = fcos_predictions(boxes, ((32, 32), (16, 16), (8, 8)), (8, 16, 32), [32, 64])
    assert sum((level > 0).sum() for level in injected["logits"]) > 3 * 7
    predictions = FCOSPredictions(injected["logits"], injected["distances"], injected["centerness"], [])
    locations = Locations.of(injected["logits"], (8, 16, 32))
    decoder = FCOSDecoder(score_thresh=0.3, thresh_with_centerness=thresh_with_centerness)
    _, decoded = decoder(predictions, locations)
    assert_same_boxes(decoded, boxes)


def assert_same_boxes(actual, expected, pixels=0.01):
    actual, expected = (boxes[(boxes[:, 1].round() * 10000 + boxes[:, 0]).argsort()] for boxes in (actual, expected))
    torch.testing.assert_close(actual, expected, atol=pixels, rtol=0)


def test_people_without_a_location_of_their_own():
    with pytest.raises(ConfigError, match="2 people do not fit into an image of about 32 x 32 pixels"):
        fcos_predictions(torch.tensor([[3.0, 2, 5, 6], [3, 7, 5, 9]]), **LEVELS)


@pytest.mark.parametrize("num_keypoints", [3, 4])
def test_regressed_keypoints_are_corners_in_turn(num_keypoints):
    distances = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    expected = [-1, -2, 3, 4, -1, -2, 3, 4][: 2 * num_keypoints]
    assert corner_offsets(distances, num_keypoints).flatten().tolist() == expected


# --- injected detections ---


@pytest.mark.parametrize("num_people", [0, 1, 6])
@pytest.mark.parametrize("name", CONFIGS)
def test_exactly_so_many_people_come_out_of_every_image(built, name, num_people):
    model = built.with_people(name, num_people)
    with torch.no_grad():
        outputs = model(images(2))
    boxes = spread_boxes(num_people, SIZE)
    for output in outputs:
        people = output["instances"]
        assert people.pred_keypoints.shape == (num_people, SCHEMA.num_keypoints, 3)
        assert torch.isfinite(people.pred_keypoints).all()
        # the released InsPose counts from a pixel's centre, and detectron2 from its corner
        assert_same_boxes(people.pred_boxes.tensor, boxes, pixels=0.51 if name == "InsPose released" else 0.01)
        assert (people.pred_classes == 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_number_can_be_changed_and_the_model_is_left_as_it_was(built, name):
    def found(model):
        with torch.no_grad():
            return model(images())[0]["instances"]

    def attributes(model):
        parts = [vars(part) for part in (model, *model.modules(), getattr(model, "decoder", model))]
        return [(set(each), len(each.get("_forward_hooks", ()))) for each in parts]

    model = built[name]
    before, its_own = attributes(model), found(model)
    assert [len(found(built.with_people(name, number))) for number in (2, 3, 3, 0)] == [2, 3, 3, 0]
    assert attributes(built[name]) == before
    assert len(found(model)) == len(its_own)


def test_keypoints_depend_on_the_image(built):
    """The network is run, not replaced."""
    model = built.with_people("FCPose", 3)
    with torch.no_grad():
        first, second = model(images(2))
    assert not torch.equal(first["instances"].pred_keypoints, second["instances"].pred_keypoints)


def test_inspose_runs_the_networks_of_all_candidates(built):
    """Two people on levels where 3 x 3 locations are within their boxes."""
    assert count_networks(built["InsPose"], SIZE, 2) == 18
    assert count_networks(built["InsPose with boxes"], SIZE, 2) == 2
    assert count_networks(built["FCPose"], SIZE, 2) == 2


def test_an_rcnn_proposes_as_much_as_it_may(built):
    model, proposed = built.with_people("Keypoint R-CNN", 1), []
    handle = model.proposal_generator.register_forward_hook(
        lambda module, inputs, output: proposed.append(len(output[0][0]))
    )
    with torch.no_grad():
        model(images())
    handle.remove()
    assert proposed == [50]


def test_more_people_than_queries(built):
    too_many = pytest.raises(ConfigError, match=r"9 people exceed the 8 queries .* MODEL.QUERYPOSE.NUM_QUERIES")
    with too_many, inject_detections(built["QueryPose"], 9, SIZE):
        pass


def test_querypose_decodes_all_queries_whoever_is_there(built):
    """So that its FLOPs do not depend on the people; and with several classes each person is still output once."""
    counted = built.count_flops("QueryPose", (0, 1, 6))
    assert counted[0] == counted[1] == counted[6] > 0
    model = build_model(small_config(QUERYPOSE, *SMALL_QUERYPOSE, "MODEL.QUERYPOSE.NUM_CLASSES", 3)).eval()
    with torch.no_grad(), inject_detections(model, 6, SIZE):
        (output,) = model(images())
    assert len(output["instances"]) == 6
    assert_same_boxes(output["instances"].pred_boxes.tensor, spread_boxes(6, SIZE))


def test_a_meta_architecture_that_is_no_method(tmp_path, capsys):
    (tmp_path / "retina.yaml").write_text("MODEL:\n  META_ARCHITECTURE: RetinaNet\n")
    assert main(["benchmark", "model", "--config-file", str(tmp_path / "retina.yaml"), "--no-peer"]) == 2
    error = capsys.readouterr().err
    assert "MODEL.META_ARCHITECTURE RetinaNet: no method of that name is registered" in error
    assert "dynpose.methods.register_method" in error
    assert "FCPose, GeneralizedRCNN, InsPose" in error


def test_an_unregistered_meta_architecture(tmp_path, capsys):
    (tmp_path / "new.yaml").write_text("MODEL:\n  META_ARCHITECTURE: MyPose\n")
    assert main(["benchmark", "model", "--config-file", str(tmp_path / "new.yaml"), "--no-peer"]) == 2
    assert "'MyPose' is not registered" in capsys.readouterr().err


def test_an_rcnn_without_an_rpn():
    model = build_model(small_keypoint_rcnn())
    model.proposal_generator = nn.Identity()
    message = pytest.raises(ConfigError, match=r"PROPOSAL_GENERATOR.NAME Identity: .* with an RPN only")
    with message, inject_detections(model, 1, SIZE):
        pass


def test_a_method_serves_subclasses():
    class MyFCPose(META_ARCH_REGISTRY.get("FCPose")):
        pass

    assert require_method(MyFCPose) is get_method("FCPose")
    assert get_method("MyFCPose") is None
    with pytest.raises(ConfigError, match="Linear"):
        require_method(nn.Linear)


# --- models ---


def test_statistics_of_normalisation_are_those_of_its_input():
    torch.manual_seed(0)
    model = build_model(small_keypoint_rcnn()).eval()
    # detectron2's initial weights let activations grow: its Keypoint R-CNN stops on an assertion
    models.settle_norms(model)
    seen = []
    for norm in (model.backbone.bottom_up.stem.conv1.norm, model.backbone.bottom_up.res5[2].conv3.norm):
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))  # a ReLU is in place
    model([{"image": models._noise(SETTLING_SIZE, 0)}])
    for maps in seen:
        # a channel that ReLUs have silenced stays at zero
        deviation = maps.std(dim=(0, 2, 3), unbiased=False)
        assert maps.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        assert deviation[deviation > 0].sub(1).abs().median() < 0.01
    assert len(seen) == 2


def test_a_model_is_the_same_every_time_and_in_another_process():
    model = PoseModel("small", small_config(FCPOSE))
    case = ModelCase(BuiltModels([model], CPU, SIZE), 3, SIZE)
    inputs = case.make_inputs(CPU, 1)
    keypoints = case.run("small", inputs).pred_keypoints
    copy = pickle.loads(pickle.dumps(case))
    assert copy.models._built == {}
    assert torch.equal(copy.run("small", inputs).pred_keypoints, keypoints)
    assert case.people_found == {"small": {3}}


def test_weights_are_loaded(small_run):
    (model,) = models.load_models([small_run.config], [small_run.weights], peer=False)
    expected = torch.load(small_run.weights, weights_only=False)["model"]["head.box_distances.bias"]
    assert torch.equal(model.build(CPU).head.box_distances.bias.detach(), torch.as_tensor(expected))


def test_configs_of_one_name_are_told_apart(small_run):
    names = [model.name for model in models.load_models([small_run.config] * 3)]
    assert names == ["FCPose config", "FCPose config (2)", "FCPose config (3)", PEER_NAME]


def test_the_peer_is_detectron2s_keypoint_rcnn():
    cfg = configs.peer_config()
    assert cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    assert cfg.MODEL.KEYPOINT_ON
    assert cfg.MODEL.RESNETS.DEPTH == 50
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST == 1000


# --- FLOPs ---


def test_flops_of_generated_networks(built):
    counted = built.count_flops("FCPose", (0, 5))
    model = small_model(FCPOSE, "MODEL.FCOS.SCORE_THRESH_TEST", 1.0).eval()
    assert counted[0] == sum(count_flops(model, SIZE).values())
    # 10 -> 8 -> 8 -> 4 on 16 x 24 cells, and the controller
    per_person = 16 * 24 * (10 * 8 + 8 * 8 + 8 * 4) + model.controller.linear.weight.numel()
    assert counted[5] - counted[0] == 5 * per_person


@pytest.mark.parametrize("name", CONFIGS)
def test_model_info_counts_the_same(built, name):
    """Its parts make the total, whatever the people add."""
    numbers = (2, 4)
    counted = count_flops_with_people(built[name], SIZE, numbers)
    assert {number: flops.total for number, flops in counted.items()} == built.count_flops(name, numbers)
    for flops in (counted[2], counted[4]):
        parts = sum(flops.static.values()) + flops.number * sum(flops.added.values())
        assert parts == pytest.approx(flops.total, rel=1e-12)
    assert counted[4].unit == ("person" if name in ("CID", "QueryPose", "Keypoint R-CNN") else "generated network")
    assert counted[2].number == (18 if name == "InsPose" else 2)


@pytest.mark.parametrize(("map_stride", "of_network", "of_image"), [(2, 16, 16), (4, 4, 4), (8, 0, 0), (16, 0, 0)])
def test_flops_of_inspose_at_other_resolutions(map_stride, of_network, of_image):
    """Table 3: up-sampling costs four FLOPs a value, of 4 maps of each network and of 8 maps of offsets."""
    flops = {}
    for stride in (8, map_stride):
        model = build_model(small_config(INSPOSE, *SMALL_INSPOSE, "MODEL.INSPOSE.MAP_STRIDE", stride)).eval()
        flops[stride] = count_flops_with_people(model, SIZE, [2])[2]
    added = flops[map_stride].total - flops[8].total
    cells = 16 * 24
    assert added == 4 * cells * (18 * 4 * of_network + 8 * of_image)
    assert flops[map_stride].added.get("up-sampling", 0) == 4 * 4 * cells * of_network


def test_interpolation_is_counted_as_by_fvcore():
    from fvcore.nn import FlopCountAnalysis

    class Upsample(nn.Module):
        def forward(self, maps):
            return nn.functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)

    assert FlopCountAnalysis(Upsample(), torch.zeros(1, 3, 5, 7)).total() == FLOPS_BILINEAR * 3 * 10 * 14


def test_flops_of_an_rcnn_by_hand(built):
    counted = built.count_flops("Keypoint R-CNN", (5,))
    # 3x3 convolution, 8 -> 12 channels at 14 x 14; 4x4 deconvolution to 4 keypoints; up-sampling to 56 x 56 for 4 each
    per_person = 14 * 14 * (9 * 8 * 12 + 16 * 12 * 4) + 4 * 4 * 56 * 56
    # the outputs of the proposals are no longer needed, but are counted
    with inject_detections(built["Keypoint R-CNN"], 0, SIZE):
        flops = count_flops(built["Keypoint R-CNN"], SIZE)
    assert flops["roi_heads"] == 50 * (8 * 49 * 16 + 16 * 16 + 16 * 2 + 16 * 4)
    assert counted[5] == sum(flops.values()) + 5 * per_person


def test_deformable_convolutions_are_counted_like_others():
    from fvcore.nn import FlopCountAnalysis

    class Deformable(nn.Module):
        def forward(self, maps, offset, weight):
            return deform_conv2d(maps, offset, weight, padding=1)

    inputs = torch.zeros(1, 6, 5, 7), torch.zeros(1, 18, 5, 7), torch.zeros(4, 6, 3, 3)
    analysis = FlopCountAnalysis(Deformable(), inputs)
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable_flops)
    assert analysis.total() == 5 * 7 * 4 * 6 * 9


# --- the command ---


@pytest.fixture
def quick(monkeypatch):
    """A small peer, and no processes for the memory."""
    monkeypatch.setattr(configs, "peer_config", small_keypoint_rcnn)
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: case.num_people * 2**20)


def command(config, *arguments):
    size = ("--size", *map(str, SIZE))
    return parse("model", "--config-file", str(config), "--device", "cpu", "--repeats", "2", *size, *arguments)


def test_tables_have_a_row_for_every_number_and_a_column_for_every_model(quick, small_run, capsys):
    arguments = ("--people", "5", "1", "--markdown", "MODEL.KP_NET.WIDTH", "4")
    assert benchmark.run(command(small_run.config, *arguments)) == 0
    out = capsys.readouterr().out
    tables = read_tables(out)
    names = ["FCPose config", PEER_NAME]
    sizes, time, memory, flops = tables.values()
    assert list(sizes[0]) == [
        "model", "meta-architecture", "weights", "precision", "parameters", "weights, MiB", "GFLOPs without people",
    ]  # fmt: skip
    assert [(row["model"], row["meta-architecture"], row["weights"]) for row in sizes] == [
        ("FCPose config", "FCPose", "random"),
        (PEER_NAME, "GeneralizedRCNN", "random"),
    ]
    parameters = sum(p.numel() for p in small_model(FCPOSE, "MODEL.KP_NET.WIDTH", 4).parameters())
    assert sizes[0]["parameters"] == f"{parameters:,}"

    assert list(time[0]) == ["people", *names, f"{PEER_NAME} / FCPose config"]
    assert [row["people"] for row in time] == ["1", "5"]
    for row in time:
        ratio = float(row[PEER_NAME]) / float(row["FCPose config"])
        assert float(row[f"{PEER_NAME} / FCPose config"]) == pytest.approx(ratio, rel=0.02)
    assert [[row[name] for name in names] for row in memory] == [["1.00"] * 2, ["5.00"] * 2]
    assert [row["people"] for row in flops] == ["0", "1", "5"]
    assert flops[0]["FCPose config"] == sizes[0]["GFLOPs without people"]

    header = out.partition("\n")[0]
    assert f"torch {torch.__version__}" in header
    assert "median of 2. One image of 128 x 192 pixels. Overrides: MODEL.KP_NET.WIDTH 4." in header


def test_optimized_models_are_measured_beside_the_others(quick, small_run, capsys):
    assert (
        benchmark.run(command(small_run.config, "--people", "2", "--precision", "float32", "--no-flops", "--markdown"))
        == 0
    )
    sizes, time, *_ = read_tables(capsys.readouterr().out).values()
    names = ["FCPose config", PEER_NAME]
    fast = [f"{name}, float32" for name in names]
    assert [(row["model"], row["precision"]) for row in sizes] == [
        *((name, "as trained") for name in names),
        *((name, "float32") for name in fast),
    ]
    assert {f"{name} / {faster}" for name, faster in zip(names, fast)} < time[0].keys()


def test_the_precision_that_auto_stands_for_is_named(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    model = PoseModel("small", small_config(FCPOSE))
    assert run._precision(model, CPU) == "as trained"
    assert run._precision(model.optimized("float16", False), CPU) == "float16"
    assert run._precision(model.optimized("auto", False), CPU) == "auto: bfloat16"
    not_proven = PoseModel("small", small_config(CID, *SMALL_CID)).optimized("auto", False)
    assert run._precision(not_proven, CPU) == "auto: float32"


def test_file_and_plot_are_written_and_the_file_holds_no_path(quick, small_run, tmp_path, capsys):
    data, image = tmp_path / "figures.json", tmp_path / "figures.png"
    outputs = ("--json", str(data), "--plot", str(image))
    arguments = ("--no-peer", "--people", "1", "2", "--weights", small_run.weights, *outputs)
    benchmark.run(command(small_run.config, *arguments, "OUTPUT_DIR", str(tmp_path)))
    text = data.read_text()
    read = json.loads(text)
    assert report.tables(read, "simple") + "\n" == capsys.readouterr().out
    assert [(row["model"], row["weights"]) for row in read["models"]] == [("FCPose config", "given")]
    assert list(read["models"][0]["gflops"]) == ["0", "1", "2"]
    for case, number in zip(read["cases"], (1, 2)):
        assert case["people"] == number
        for each in case["models"].values():
            assert each["people_found"] == [number]
            assert each["rounds"] == 2
            assert 0 < each["ms_quartiles"][0] <= each["ms"] <= each["ms_quartiles"][1]
    assert read["settings"]["image_size"] == list(SIZE)
    for path in (Path.home(), Path.cwd(), tmp_path, Path(sys.prefix)):
        assert str(path) not in text
    assert os.sep not in text.replace(read["environment"]["device"], "")
    assert image.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_every_model_runs_once_in_a_round_on_changing_images(built, monkeypatch):
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: 0)
    calls, call = [], ModelCase.run

    def watched(case, name, inputs):
        calls.append((name, inputs.image[0, 0, :4].tolist()))
        return call(case, name, inputs)

    monkeypatch.setattr(ModelCase, "run", watched)
    names = ["FCPose", "Keypoint R-CNN"]
    built = BuiltModels([PoseModel(name, CONFIGS[name]()) for name in names], CPU, SIZE)
    row = run._case_row(ModelCase(built, 2, SIZE), settings(3), with_parts=False)
    timed = calls[len(names) :]
    assert [name for name, _ in timed] == names * 5
    assert all(first != second for (_, first), (_, second) in zip(timed, timed[1:]))
    assert [each["rounds"] for each in row["models"].values()] == [3, 3]


def test_it_is_told_where_others_than_injected_come_out(quick, small_run, capsys):
    benchmark.run(command(small_run.config, "--people", "5", "--no-peer", "MODEL.FCOS.POST_NMS_TOPK_TEST", "3"))
    assert "FCPose config: of 5 injected people, 3 were detected" in capsys.readouterr().out.splitlines()[-1]


def test_mistakes(small_run, tmp_path, capsys):
    config = ["--config-file", small_run.config]
    for arguments, message in [
        (["--no-peer"], "nothing to measure"),
        ([*config, *config, "--weights", small_run.weights], "1 --weights for 2 --config-file"),
        ([*config, "--weights", str(tmp_path / "none.pth")], "none.pth: no such file"),
        (["--config-file", str(tmp_path / "none.yaml")], "no such config file"),
        ([*config, "--people", "1", "--repeats", "1", "MODEL.KPNET.WIDTH", "4"], "MODEL.KPNET"),
        ([*config, "--no-peer", "--size", "64", "64", "--people", "90"], "90 people do not fit into an image of about"),
    ]:
        assert main(["benchmark", "model", "--device", "cpu", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--people", "0"), ("--size", "800"), ("--plot", "figures.txt")])
def test_mistakes_are_told_before_anything_is_measured(arguments):
    with pytest.raises(SystemExit):
        parse("model", *arguments)


def test_defaults():
    args = parse("model", "--config-file", "a.yaml", "--config-file", "b.yaml")
    assert args.config_file == ["a.yaml", "b.yaml"]
    assert list(args.people) == [1, 2, 5, 10, 20, 50, 100]
    assert tuple(args.size) == (800, 1333)
    assert args.peer


def test_the_wall_clock_waits_for_the_device_before_and_after(monkeypatch):
    happened = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("wait"))
    seconds = iter((10.0, 12.5))
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(seconds))
    clock = clocks.make_wall_clock(torch.device("cuda", 0))
    assert clock(lambda: happened.append("call")) == (2.5, None)
    assert happened == ["wait", "call", "wait"]


def test_cpu_time_leaves_out_what_others_take(quick, small_run, capsys):
    assert clocks.make_cpu_clock()(lambda: time.sleep(0.3))[0] < 0.15
    arguments = ("--no-peer", "--no-flops", "--people", "1", "--parts", "--cpu-time")
    args = command(small_run.config, *arguments)
    benchmark.run(args)
    assert "float32, CPU time of all threads, " in capsys.readouterr().out.partition("\n")[0]
    clock = Settings.from_args(args).make_clock()
    assert clock(lambda: time.sleep(0.3))[0] < 0.15
    args.device = "cuda:0"
    with pytest.raises(ConfigError, match=r"--cpu-time: .* add --device cpu"):
        Settings.from_args(args)


# --- the time of parts ---


class FakeClock:
    """A clock that advances only where work is done."""

    now = 0.0

    def perf_counter(self):
        return self.now


class GeneralizedRCNN(nn.Module):
    """Named like detectron2's; its parts take 3, 2 and 1 (called twice) seconds, the rest 4."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.backbone, self.roi_heads = Works(clock, 3), Works(clock, 1)
        self.fail = False

    def proposal_generator(self, images):
        self.clock.now += 2

    def forward(self, images):
        self.backbone(images)
        self.proposal_generator(images)
        self.clock.now += 4
        self.roi_heads(images)
        if self.fail:
            raise RuntimeError
        self.roi_heads(images)


class Works(nn.Module):
    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, images):
        self.clock.now += self.seconds


def test_parts_by_hand(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(clocks, "time", clock)
    model = GeneralizedRCNN(clock)
    timed = parts.time_parts(model, lambda: model(None), clocks.make_wall_clock(CPU), rounds=3)
    assert timed == {"backbone": 3, "RPN": 2, "RoI heads": 2, "other": 4}
    # and the model is as it was, after a failure too
    model.fail = True
    with pytest.raises(RuntimeError):
        parts.time_parts(model, lambda: model(None), clocks.make_wall_clock(CPU), rounds=3)
    assert "proposal_generator" not in vars(model)
    assert "forward" not in vars(model.backbone)
    assert parts.time_parts(nn.Linear(1, 1), None, clocks.make_wall_clock(CPU), rounds=3) == {}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_has_its_parts(built, name):
    model = built.with_people(name, 2)
    timed = parts.time_parts(model, lambda: model(images()), clocks.make_wall_clock(CPU), rounds=1)
    assert next(iter(timed)) == "backbone"
    assert len(timed) >= 3
    assert min(timed.values()) > 0


def test_a_table_of_parts(quick, small_run, capsys):
    assert benchmark.run(command(small_run.config, "--people", "1", "2", "--parts", "--markdown")) == 0
    tables = read_tables(capsys.readouterr().out)
    rows = tables["Parts of FCPose config, ms"]
    assert [row["people"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == ["people", *get_method("FCPose").parts, "other"]
    assert f"Parts of {PEER_NAME}, ms" in tables


# --- report and plot of made-up figures ---


def made_up_report(monkeypatch):
    """Times of 20 ms and of 30 + N ms for the peer, which has no memory for 100 people."""

    def measure(case, names, device, clock, rounds):
        times = {"FCPose a": 0.02, "FCPose b": 0.025, PEER_NAME: 0.03 + 0.001 * case.num_people}
        measurements = {name: Measurement(seconds=[time], num_bytes=2**20) for name, time in times.items()}
        if case.num_people == 100:
            measurements[PEER_NAME] = Measurement(status=OUT_OF_MEMORY)
        return measurements

    monkeypatch.setattr(run, "measure_case", measure)
    names = ["FCPose a", "FCPose b", PEER_NAME]
    built = BuiltModels([PoseModel(name, small_config(FCPOSE)) for name in names], CPU, (800, 1333))
    cases = [run._case_row(ModelCase(built, n, (800, 1333)), settings(50), with_parts=False) for n in (1, 10, 100)]
    chosen = {"device": "cuda", "dtype": "float32", "tf32": True, "cudnn_benchmark": False, "deterministic": False}
    return {
        "cases": cases,
        "models": [{"model": name} for name in names],
        "peer": PEER_NAME,
        "environment": {"device": "Some GPU"},
        "settings": {**chosen, "image_size": [800, 1333]},
    }


def test_plot_has_a_line_for_each_model(monkeypatch):
    (axes,) = plot.draw(made_up_report(monkeypatch)).axes
    assert axes.get_title(loc="left") == "One image of 800 x 1333 pixels: Some GPU, float32 with TF32"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("people in the image", "time of one image, ms")
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylim()[0]) == ("linear", "linear", 0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["FCPose a", "FCPose b", PEER_NAME]
    first, _, peer = axes.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 10, 100], [20, 20, 20])
    assert (list(peer.get_xdata()), list(peer.get_ydata())) == ([1, 10], [31, 40])
    assert len({line.get_color() for line in axes.lines}) == len({line.get_marker() for line in axes.lines}) == 3


def test_plot_of_parts(monkeypatch):
    """As in Figure 5a of the CID paper: a panel for each model whose parts were timed."""
    figures = made_up_report(monkeypatch)
    for case in figures["cases"]:
        for name in ("FCPose a", "FCPose b"):
            case["models"][name]["parts_ms"] = {"backbone": 12.0, "head": 3.0 + case["people"], "other": 1.0}
    _, first, second = plot.draw(figures).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["Parts of FCPose a", "Parts of FCPose b"]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["backbone", "head", "other"]
    assert list(first.lines[1].get_ydata()) == [4, 13, 103]
    assert (first.get_xlabel(), first.get_ylabel()) == ("people in the image", "time of one image, ms")


def test_an_earlier_file_is_printed_and_drawn(monkeypatch, tmp_path, capsys):
    """--from measures nothing."""
    figures, path = made_up_report(monkeypatch), tmp_path / "figures.json"
    monkeypatch.setattr(run, "measure", None)
    monkeypatch.setattr(report, "tables", lambda read, style: f"{len(read['cases'])} cases")
    path.write_text(json.dumps({**figures, "optimized": {}, "notes": []}))
    words = ["model", "--from", str(path), "--plot", str(tmp_path / "figures.png")]
    assert main(["benchmark", *words]) == 0
    assert capsys.readouterr().out == "3 cases\n"
    assert (tmp_path / "figures.png").stat().st_size > 1000
    for text, message in (("{", "can't be read as JSON"), ("[]", "it lacks environment, settings"), ("{}", "it lacks")):
        path.write_text(text)
        assert main(["benchmark", *words]) == 2
        error = capsys.readouterr().err
        assert f"--from {path}: " in error
        assert message in error


def test_ratios_and_cells_without_figures(monkeypatch):
    optimized = {"FCPose b": "FCPose a"}
    rows = [report._times(row, PEER_NAME, optimized) for row in made_up_report(monkeypatch)["cases"]]
    ratio = f"{PEER_NAME} / FCPose a"
    assert [row[ratio] for row in rows] == ["1.55", "2.00", ""]
    assert [row[f"{PEER_NAME} / FCPose b"] for row in rows] == ["1.24", "1.60", ""]
    assert [row["FCPose a / FCPose b"] for row in rows] == ["0.8"] * 3
    assert rows[2][PEER_NAME] == OUT_OF_MEMORY
