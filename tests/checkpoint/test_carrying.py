"""What two models of other keypoints or classes share is transferred: the shared keypoints' outputs stay the same."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from detectron2.structures import ImageList
from small_models import SCHEMA, small_model

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.checkpoint.carrying import carry_rows
from dynpose.data import KeypointSchema
from dynpose.layers import KPNetSpec
from dynpose.modeling.fcos import Locations
from dynpose.modeling.inspose.released import locate_keypoints

for folder in ("cid", "querypose"):
    sys.path.append(str(Path(__file__).parents[1] / "modeling" / folder))
import cid_models  # noqa: E402
import querypose_models  # noqa: E402


def schema(*names):
    return KeypointSchema(names=names, sigmas=(0.05,) * len(names))


# SCHEMA is head, left_hand, right_hand, foot
OTHERS = {
    "permutation": schema("foot", "right_hand", "head", "left_hand"),
    "subset": schema("foot", "head"),
    "superset": schema("right_hand", "tail", "foot", "head", "left_hand", "wing"),
}


# --- rows by hand ---


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_rows_by_hand():
    """Two rows a keypoint after one shared row: keypoint 0 is theirs 2, keypoint 1 is new, keypoint 2 is theirs 0."""
    weights = {"w": column(-1, 0, 1, 10, 11, 20, 21), "other": column(5)}
    state = {"w": column(7, 7, 7, 8, 8, 9, 9), "other": column(6)}
    owners = [(), (0,), (0,), (1,), (1,), (2,), (2,)]
    carried = carry_rows(weights, state, [{"w": owners}], [{"w": owners}], [2, None, 0])
    assert weights["w"].flatten().tolist() == [-1, 20, 21, 8, 8, 0, 1]
    assert weights["other"].tolist() == [[5]]
    assert state["w"].flatten().tolist() == [7, 7, 7, 8, 8, 9, 9]
    assert (carried.changed, carried.unknown, carried.exact) == (["w"], [], False)


def test_a_keypoint_may_move_to_another_parameter():
    weights = {"part0": column(1, 2), "part1": column(3), "part2": column(4)}
    state = {"part0": column(0), "part1": column(0, 0)}
    ours = [{"part0": [(0,)], "part1": [(1,), (2,)]}]
    theirs = [{"part0": [(0,), (1,)], "part1": [(2,)], "part2": [(3,)]}]
    carried = carry_rows(weights, state, ours, theirs, [3, 0, 2])
    assert {name: value.flatten().tolist() for name, value in weights.items()} == {"part0": [4], "part1": [1, 3]}
    assert carried.exact


@pytest.mark.parametrize(
    ("ours", "theirs", "match", "expected"),
    [
        pytest.param([(0,), (1,)], [(0, 1), (2,)], [1, 0], [10, 10], id="two parts of one"),
        pytest.param([(0, 1, 2)], [(0,), (1, 2)], [0, 1, 2], [20], id="the part with most of them"),
        pytest.param([(0, 1)], [(0,), (1,)], [1, 0], [10], id="the first of equals"),
        pytest.param([(0, 1), (2,)], [(0, 1, 2), (3,)], [None, None, 3], [10, 20], id="a head of others, in its place"),
        pytest.param([(0, 1), (2,), (3,)], [(0, 1), (2,)], [None, None, 2, None], [-1, 20, -1], id="not as many parts"),
        pytest.param([(0,), (1,)], [(0,), (1,)], [None, 1], [-1, 20], id="a keypoint of another name"),
        pytest.param([(0, 1), (2, 3)], [(0, 1), (2, 3)], [None, None, 0, 1], [-1, 10], id="its place is another's"),
    ],
)
def test_parts(ours, theirs, match, expected):
    weights = {"w": column(*(10 * (index + 1) for index in range(len(theirs))))}
    carry_rows(weights, {"w": column(*([-1] * len(ours)))}, [{"w": ours}], [{"w": theirs}], match)
    assert weights["w"].flatten().tolist() == expected


@pytest.mark.parametrize(
    "weights", [{}, {"w": column(1, 2, 3)}, {"w": torch.zeros(2, 2)}], ids=["missing", "rows", "columns"]
)
def test_weights_that_are_not_as_described_stay(weights):
    before = dict(weights)
    owners = [{"w": [(0,), (1,)]}]
    carried = carry_rows(weights, {"w": column(0, 0)}, owners, owners, [1, 0])
    assert weights == before
    assert (carried.changed, carried.unknown, carried.exact) == ([], ["w"], False)


def test_packing_of_a_kp_net():
    """FCPose's: (34 * 32 + 32) + (32 * 32 + 32) shared, then 17 weights of 32 and 17 biases."""
    keypoints = KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17).param_keypoints
    assert keypoints[: 1120 + 1056] == (None,) * 2176
    assert keypoints[2176 : 2176 + 33] == (0,) * 32 + (1,)
    assert keypoints[-17:] == tuple(range(17))
    assert len(keypoints) == 2737
    # without hidden layers, the coordinates' weights are the keypoint's too
    assert KPNetSpec(in_channels=1, width=1, depth=1, num_keypoints=2).param_keypoints == (0, 0, 0, 1, 1, 1, 0, 1)


# --- every method: maps and keypoints of one image ---

PAPER, RELEASE = "configs/FCPose/R_50_3x.yaml", "configs/FCPose/R_50_3x_release.yaml"
INSPOSE, INSPOSE_RELEASE = "configs/InsPose/Base-InsPose.yaml", "configs/InsPose/R_50_3x_release.yaml"
STARS = ("head", "foot")


def released_inspose(schema, seed):
    """Its stars at the same keypoints, whatever their places."""
    stars = [schema.names.index(STARS[i % 2]) for i in range(9)]
    opts = ["STAR_KEYPOINTS", stars, "REGRESSION_CONVS_DIM", 64, "NUM_REGRESSION_CONVS", 1, "FEATURE_CONVS_DIM", 64]
    opts += ["NUM_FEATURE_CONVS", 1, "AUX_CONVS_DIM", 64, "NUM_AUX_CONVS", 2]
    opts = [word if i % 2 else f"MODEL.INSPOSE_RELEASED.{word}" for i, word in enumerate(opts)]
    return small_model(INSPOSE_RELEASE, *opts, schema=schema, seed=seed)


def from_config(config, *opts):
    return lambda schema, seed: small_model(config, *opts, schema=schema, seed=seed)


def querypose(**keypoint):
    """In two parts, which keep one keypoint at least, so that attention sees the same parts."""

    def build(schema, seed):
        arms = [i for i, name in enumerate(schema.names) if name in ("left_hand", "head", "wing")]
        parts = [arms, [i for i in range(len(schema.names)) if i not in arms]]
        return querypose_models.tiny_model(schema=schema, seed=seed, keypoint={"parts": parts, **keypoint})

    return build


def cid(schema, seed):
    return cid_models.tiny_model(schema=schema, seed=seed)


def locations_of(model, images):
    """The pyramid, the predictions of the head, its locations, and twelve of these, of all levels."""
    features = model.backbone(images.tensor)
    features = [features[name] for name in model.head_in_features]
    locations = Locations.of(features, model.detector.strides)
    return features, model.head(features), locations, torch.arange(0, len(locations.points), 28)


def fcpose_outputs(model, images):
    features, predictions, locations, index = locations_of(model, images)
    merged, maps, offsets = model._maps(features)
    nets, params = model._generate(maps, predictions.box_tower, locations, index)
    outputs = {"heatmaps": nets.heatmaps(), "keypoints": model.refinement.locate(nets, params, offsets)}
    if offsets is not None:
        outputs["offsets"] = offsets.unflatten(1, (-1, 2))
    if model.aux_heatmaps is not None:
        outputs["coarse"] = model.aux_heatmaps(merged)[1]
    return outputs


def inspose_outputs(model, images):
    features, predictions, locations, index = locations_of(model, images)
    return {
        "heatmaps": model._generate(features[0], predictions.box_tower, locations, index).heatmaps(),
        "keypoints": model._locate(features[0], predictions.box_tower, locations, index),
        "offsets": model._offsets(features[0]).unflatten(1, (-1, 2)),
        "aux": model.aux_heatmap(features[0]),
    }


def released_inspose_outputs(model, images):
    features, predictions, locations, index = locations_of(model, images)
    nets = model._generate(features, predictions, locations, index)
    aux = model.aux_branch.features(features[0])
    offsets = model.aux_branch.offsets(aux)
    return {
        "regressed": predictions.offsets[0].unflatten(1, (-1, 2)),
        "heatmaps": nets.heatmaps(),
        "keypoints": locate_keypoints(nets, offsets, model.aux_branch.factor),
        "aux": model.aux_branch.heatmaps(aux),
        "tags": model.aux_branch.tags(aux),
        "offsets": offsets,
    }


def cid_outputs(model, images):
    features = model.backbone(images.tensor)[model.in_feature]
    sizes = model.map_sizes(torch.tensor(images.image_sizes))
    people = model.iia.find_people(features, sizes)
    maps = model.iia(features)
    assert len(people) > 1
    torch.testing.assert_close(maps[:, -1], model.iia.centers(features), rtol=0, atol=1e-6)
    return {
        "multi-person heatmaps": maps[:, :-1],
        "heatmaps": model.gfd(features, people, torch.ones_like(maps[:, 0]).bool()),
        "keypoints": model.locate(features, people, sizes),
    }


def querypose_outputs(model, images):
    features = model.extract_features(images.tensor)
    all_queries = model.all_queries(len(images))
    part_queries = model.initial_part_queries(all_queries)
    outputs = {}
    for index, stage in enumerate(model.find_people(features, torch.tensor(images.image_sizes))):
        located = model.locate(index, features, stage, all_queries, part_queries)
        part_queries = located.part_queries
        outputs |= {f"keypoints {index}": located.keypoints, f"sigmas {index}": located.sigmas}
    return outputs


FCPOSE_REFINEMENT = "MODEL.FCPOSE.REFINEMENT"
METHODS = {
    "FCPose": (from_config(PAPER), fcpose_outputs),
    "FCPose, released": (from_config(RELEASE), fcpose_outputs),
    "FCPose, depth 1": (from_config(PAPER, "MODEL.KP_NET.DEPTH", 1), fcpose_outputs),
    "FCPose, no refinement": (from_config(PAPER, FCPOSE_REFINEMENT, "none"), fcpose_outputs),
    "FCPose, offsets per instance": (from_config(PAPER, FCPOSE_REFINEMENT, "instance"), fcpose_outputs),
    "FCPose, deconvolution": (from_config(PAPER, FCPOSE_REFINEMENT, "deconv"), fcpose_outputs),
    "InsPose": (from_config(INSPOSE), inspose_outputs),
    "InsPoseReleased": (released_inspose, released_inspose_outputs),
    "CID": (cid, cid_outputs),
    "QueryPose": (querypose(), querypose_outputs),
    "QueryPose, light": (querypose(dynamic_mlp=False), querypose_outputs),
    "QueryPose, one attention map": (querypose(interaction="spatial_attention"), querypose_outputs),
    "QueryPose, one query": (querypose(query="instance", iteration="none"), querypose_outputs),
}


def randomised(model, seed):
    """Every parameter far from its first value, also those that start as zero or equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def one_image():
    pixels = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return ImageList.from_tensors([pixels], 32)


def save(model, folder, **kwargs):
    PoseCheckpointer(model, str(folder), **kwargs).save("weights")
    return str(folder / "weights.pth")


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_shared_keypoints_give_the_same_outputs(method, other, tmp_path, caplog):
    build, outputs_of = METHODS[method]
    trained = randomised(build(SCHEMA, 1), 1)
    model = randomised(build(OTHERS[other], 2), 2)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))

    expected, found = outputs_of(trained, one_image()), outputs_of(model, one_image())
    assert found.keys() == expected.keys()
    shared = [name for name in OTHERS[other].names if name in SCHEMA.names]
    ours, theirs = ([names.index(name) for name in shared] for names in (OTHERS[other].names, SCHEMA.names))
    for name, values in expected.items():
        scale = values.abs().max().item()
        torch.testing.assert_close(found[name][:, ours], values[:, theirs], rtol=0, atol=1e-6 * max(1, scale), msg=name)
        assert values.std() > 1e-4, name

    fresh = [name for name in OTHERS[other].names if name not in SCHEMA.names]
    if other == "permutation":
        assert (
            "the same keypoints in another order, put in the model's: foot, right_hand, head, left_hand" in caplog.text
        )
    else:
        [message] = [line for line in caplog.messages if "Other keypoints than" in line]
        carried = f"transferred: {', '.join(shared)}; initialised from scratch: {', '.join(fresh) or 'none'} (in "
        assert carried in message


@torch.no_grad()
def test_new_keypoints_keep_their_initialisation(tmp_path):
    """FCPose's controller, by hand: 8 channels and 2 coordinates, two hidden layers of 8, then K rows of 8, K biases.

    In the superset, "tail" is keypoint 1 and "foot" keypoint 2, which is keypoint 3 of the weights.
    """
    trained, model = small_model(PAPER, seed=1), small_model(PAPER, schema=OTHERS["superset"], seed=2)
    (own, theirs), hidden = (one.controller.linear.weight.clone() for one in (model, trained)), 10 * 8 + 8 + 8 * 8 + 8
    PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))
    carried = model.controller.linear.weight
    assert torch.equal(carried[:hidden], theirs[:hidden])
    assert torch.equal(carried[hidden + 8 : hidden + 16], own[hidden + 8 : hidden + 16])
    assert torch.equal(carried[hidden + 16 : hidden + 24], theirs[hidden + 24 : hidden + 32])
    assert torch.equal(carried[hidden + 48 + 1], own[hidden + 48 + 1])
    assert torch.equal(carried[hidden + 48 + 2], theirs[hidden + 32 + 3])


EXACT = [method for method in METHODS if method != "InsPoseReleased"]


@pytest.mark.parametrize("method", EXACT)
@torch.no_grad()
def test_another_order_is_evaluated(method, tmp_path):
    build, outputs_of = METHODS[method]
    trained = randomised(build(SCHEMA, 1), 1)
    model = build(OTHERS["permutation"], 2).eval()
    PoseCheckpointer(model, complete=True).load(save(trained, tmp_path))
    order = [SCHEMA.names.index(name) for name in OTHERS["permutation"].names]
    expected, found = outputs_of(trained, one_image()), outputs_of(model, one_image())
    for name, values in expected.items():
        atol = 1e-6 * max(1, values.abs().max().item())
        torch.testing.assert_close(found[name], values[:, order], rtol=0, atol=atol, msg=name)


def test_released_inspose_is_not_evaluated_in_another_order(tmp_path, caplog):
    """Its config names keypoints by index, which may be right or wrong."""
    path = save(released_inspose(SCHEMA, 1), tmp_path)
    model = released_inspose(OTHERS["permutation"], 2)
    message = "InsPoseReleased can't use them, since its star-shaped convolutions sample .*STAR_KEYPOINTS"
    with pytest.raises(CheckpointError, match=message):
        PoseCheckpointer(model, complete=True).load(path)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(path)
    assert "STAR_KEYPOINTS names by index; let it name the same keypoints" in caplog.text


@pytest.mark.parametrize("other", ["subset", "superset"])
@pytest.mark.parametrize("method", ["FCPose", "CID", "QueryPose"])
def test_other_keypoints_are_not_evaluated(method, other, tmp_path):
    build, _ = METHODS[method]
    path = save(build(SCHEMA, 1), tmp_path)
    with pytest.raises(CheckpointError, match=r"the checkpoint has 4 keypoints .* to learn other keypoints, train"):
        PoseCheckpointer(build(OTHERS[other], 2), complete=True).load(path)


# --- names ---


def test_renamed_keypoints_take_all_over(tmp_path, caplog):
    trained = small_model(PAPER, seed=1)
    model = small_model(PAPER, schema=schema("a", "b", "c", "d"), seed=2)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))
    assert "the model's number of keypoints under other names; all layers are loaded" in caplog.text
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in trained.state_dict().items())


def test_as_many_keypoints_of_which_some_are_shared(tmp_path, caplog):
    """The hands are where they were; "head" was at the place that "snout" has now."""
    trained, model = small_model(PAPER, seed=1), small_model(PAPER, schema=schema("snout", *SCHEMA.names[1:]), seed=2)
    own = model.refinement.conv.weight.clone()
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))
    assert "transferred: left_hand, right_hand, foot; initialised from scratch: snout (in 4 parameters: " in caplog.text
    assert torch.equal(model.refinement.conv.weight[:2], own[:2])
    assert torch.equal(model.refinement.conv.weight[2:], trained.refinement.conv.weight[2:])


def test_names_are_spelled_in_many_ways(tmp_path):
    """To be learned, it does not matter; to be evaluated, the names must be equal."""
    trained = small_model(PAPER, seed=1)
    model = small_model(PAPER, schema=schema("Tail", "RHand", "LHand", "Foot"), seed=2)
    path = save(trained, tmp_path)
    with pytest.raises(CheckpointError, match="the checkpoint has 4 keypoints"):
        PoseCheckpointer(model, complete=True).load(path)
    PoseCheckpointer(model, new_keypoints=True).load(path)
    assert torch.equal(model.refinement.conv.weight[2:], trained.refinement.conv.weight[[4, 5, 2, 3, 6, 7]])


def test_unknown_parameters_of_another_network_start_from_scratch(tmp_path, caplog):
    """Half the width: the controller's rows are others, the offsets' are the same."""
    trained, model = small_model(PAPER, seed=1), small_model(
        PAPER, "MODEL.KP_NET.WIDTH", 4, schema=OTHERS["subset"], seed=2
    )  # fmt: skip
    before = model.controller.linear.weight.clone()
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))
    assert torch.equal(model.controller.linear.weight, before)
    assert torch.equal(model.refinement.conv.weight[2:], trained.refinement.conv.weight[:2])
    message = "trained with another config: these can't be transferred by name: controller.linear.weight, controller"
    assert message in caplog.text
    assert "initialised from scratch: controller.linear.weight, controller.linear.bias" in caplog.text


def test_a_model_that_says_nothing_of_its_rows(tmp_path, caplog):
    """A custom method: as many keypoints in another order are refused; for fine-tuning, all layers are loaded."""

    class Plain(torch.nn.Linear):
        pass

    def plain(schema):
        model = Plain(2, schema.num_keypoints)
        model.schema = schema
        return model

    trained, model = plain(SCHEMA), plain(OTHERS["permutation"])
    path = save(trained, tmp_path)
    with pytest.raises(CheckpointError, match="Plain can't use them, since it does not map its parameters"):
        PoseCheckpointer(model, complete=True).load(path)
    PoseCheckpointer(model, new_keypoints=True).load(path)
    assert torch.equal(model.weight, trained.weight)
    other = plain(OTHERS["subset"])
    with (
        caplog.at_level(logging.WARNING, logger="dynpose"),
        pytest.raises(CheckpointError, match="none of its weights fit"),
    ):
        PoseCheckpointer(other, new_keypoints=True).load(path)


def test_a_run_is_not_resumed_with_other_keypoints(tmp_path):
    trained, model = small_model(PAPER, seed=1), small_model(PAPER, schema=OTHERS["permutation"], seed=2)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (trained, model)]
    path = save(trained, tmp_path, optimizer=optimizers[0])
    checkpointer = PoseCheckpointer(model, new_keypoints=True, optimizer=optimizers[1])
    with pytest.raises(CheckpointError, match="A run continues with the keypoints and parts that it started with"):
        checkpointer.load(path)
    checkpointer.load(path, checkpointables=[])


# --- QueryPose's parts ---


def parts_model(parts, seed, names=SCHEMA.names):
    return querypose_models.tiny_model(schema=schema(*names), seed=seed, keypoint={"parts": parts})


def test_checkpoints_note_the_parts(tmp_path):
    path = save(parts_model([(0, 3), (2, 1)], seed=1), tmp_path)
    assert torch.load(path)["dynpose"]["parts"] == [["head", "foot"], ["right_hand", "left_hand"]]
    # the same division, counted from the other end
    model = parts_model([(1, 2), (3, 0)], seed=2)
    PoseCheckpointer(model, complete=True).load(path)


def test_other_parts_of_the_same_sizes_are_not_evaluated(tmp_path):
    path = save(parts_model([(0, 3), (1, 2)], seed=1), tmp_path)
    with pytest.raises(CheckpointError, match=r"in another order or in other parts, .* use the config\.yaml"):
        PoseCheckpointer(parts_model([(0, 1), (2, 3)], seed=2), complete=True).load(path)


def test_other_parts_start_from_those_with_the_same_keypoints(tmp_path):
    trained, model = parts_model([(0, 3), (1, 2)], seed=1), parts_model([(2,), (1,), (0,), (3,)], seed=2)
    PoseCheckpointer(model, new_keypoints=True).load(save(trained, tmp_path))
    assert torch.equal(model.part_queries.weight, trained.part_queries.weight[[1, 1, 0, 0]])
    ours, theirs = model.keypoint_stages[2], trained.keypoint_stages[2]
    assert torch.equal(ours.coord_heads[0].weight, theirs.coord_heads[1].weight[2:])
    assert torch.equal(ours.sigma_heads[3].bias, theirs.sigma_heads[0].bias[2:])
    assert torch.equal(ours.instance_residuals[1].weight, theirs.instance_residuals[1].weight)
    assert torch.equal(ours.interaction.attention.bias, theirs.interaction.attention.bias[[1, 1, 0, 0]])


# --- classes ---

ANIMALS = ("cat", "dog", "hen")
CLASSES = {
    "FCPose": (from_config(PAPER, "MODEL.FCOS.NUM_CLASSES", 3), ["head.cls_logits"]),
    "InsPose": (from_config(INSPOSE, "MODEL.FCOS.NUM_CLASSES", 3), ["head.cls_logits"]),
    "QueryPose": (
        lambda schema, seed: querypose_models.tiny_model(schema=schema, seed=seed, box={"num_classes": 3}),
        [f"box_stages.{index}.class_logits" for index in range(3)],
    ),
}


def differing(model, trained):
    state = model.state_dict()
    return {name for name, value in trained.state_dict().items() if not torch.equal(value, state[name])}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("method", CLASSES)
def test_classes_in_another_order(method, complete, tmp_path, caplog):
    build, layers = CLASSES[method]
    trained, model = randomised(build(SCHEMA, 1), 1), build(SCHEMA, 2)
    path = save(trained, tmp_path, class_names=ANIMALS)
    assert torch.load(path)["dynpose"]["classes"] == ["cat", "dog", "hen"]
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model, complete=complete, class_names=("hen", "cat", "dog")).load(path)
    for layer in layers:
        ours, theirs = model.get_submodule(layer), trained.get_submodule(layer)
        assert torch.equal(ours.weight, theirs.weight[[2, 0, 1]])
        assert torch.equal(ours.bias, theirs.bias[[2, 0, 1]])
    assert differing(model, trained) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert "the same classes in another order, put in the model's: hen, cat, dog" in caplog.text


def test_other_classes_keep_the_shared_ones(tmp_path, caplog):
    trained, model = small_model(PAPER, "MODEL.FCOS.NUM_CLASSES", 3), small_model(
        PAPER, "MODEL.FCOS.NUM_CLASSES", 2, seed=2
    )  # fmt: skip
    path = save(trained, tmp_path, class_names=ANIMALS)
    own = model.head.cls_logits.weight.clone()
    with pytest.raises(CheckpointError, match="the checkpoint has the classes cat, dog, hen, the model cow, dog"):
        PoseCheckpointer(model, complete=True, class_names=("cow", "dog")).load(path)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, new_keypoints=True, class_names=("cow", "dog")).load(path)
    assert torch.equal(model.head.cls_logits.weight[0], own[0])
    assert torch.equal(model.head.cls_logits.weight[1], trained.head.cls_logits.weight[1])
    assert (
        f"Other classes than in {path}: transferred: dog; initialised from scratch: cow (in 2 parameters" in caplog.text
    )


def test_a_class_of_another_name_is_loaded(tmp_path, caplog):
    trained, model = small_model(PAPER, seed=1), small_model(PAPER, seed=2)
    path = save(trained, tmp_path, class_names=("person",))
    with pytest.raises(CheckpointError, match="has the classes person, the model worker"):
        PoseCheckpointer(model, complete=True, class_names=("worker",)).load(path)
    with caplog.at_level(logging.WARNING, logger="dynpose"):
        PoseCheckpointer(model, class_names=("worker",)).load(path)
    assert not differing(model, trained)
    assert "the model worker: the same number under other names; all layers are loaded" in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours"), [((), ANIMALS), (ANIMALS, ()), (ANIMALS, ANIMALS)], ids=["old", "unknown", "equal"]
)
def test_unknown_and_equal_classes_are_loaded_unchanged(theirs, ours, tmp_path, caplog):
    build, _ = CLASSES["FCPose"]
    trained, model = build(SCHEMA, 1), build(SCHEMA, 2)
    path = save(trained, tmp_path, class_names=theirs)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        PoseCheckpointer(model, complete=True, class_names=ours).load(path)
    assert not differing(model, trained)
    assert "classes" not in caplog.text


def test_class_names_of_the_model_itself(tmp_path):
    model = small_model(PAPER)
    model.class_names = ("person",)
    assert torch.load(save(model, tmp_path))["dynpose"]["classes"] == ["person"]
    assert torch.load(save(model, tmp_path, class_names=["worker"]))["dynpose"]["classes"] == ["worker"]


def test_a_run_is_not_resumed_with_classes_in_another_order(tmp_path):
    build, _ = CLASSES["FCPose"]
    trained, model = build(SCHEMA, 1), build(SCHEMA, 2)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (trained, model)]
    path = save(trained, tmp_path, class_names=ANIMALS, optimizer=optimizers[0])
    with pytest.raises(CheckpointError, match="A run continues with the classes that it started with"):
        PoseCheckpointer(model, class_names=ANIMALS[::-1], optimizer=optimizers[1]).load(path)


# --- checkpoints of before ---


def as_of_before(path):
    """A checkpoint that notes no classes and no parts."""
    checkpoint = torch.load(path)
    for key in ("classes", "parts"):
        checkpoint["dynpose"].pop(key, None)
    assert checkpoint["dynpose"].keys() == {"method", "keypoints"}
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_old_checkpoints_load(method, tmp_path):
    build, _ = METHODS[method]
    trained, model = build(SCHEMA, 1), build(SCHEMA, 2)
    PoseCheckpointer(model, complete=True, class_names=("person",)).load(as_of_before(save(trained, tmp_path)))
    assert not differing(model, trained)


def test_old_checkpoints_are_fine_tuned(tmp_path):
    """A part a keypoint, which is QueryPose's default for other names than COCO's and CrowdPose's."""
    trained = querypose_models.tiny_model(seed=1)
    model = querypose_models.tiny_model(schema=OTHERS["superset"], seed=2)
    own = model.part_queries.weight.clone()
    PoseCheckpointer(model, new_keypoints=True).load(as_of_before(save(trained, tmp_path)))
    theirs = trained.part_queries.weight
    expected = [theirs[2], own[1], theirs[3], theirs[0], theirs[1], own[5]]
    assert torch.equal(model.part_queries.weight, torch.stack(expected))


def test_parts_that_an_old_checkpoint_does_not_note(tmp_path):
    """They may be any; the same order needs no knowledge of them."""
    path = as_of_before(save(parts_model([(0, 3), (2, 1)], seed=1), tmp_path))
    PoseCheckpointer(parts_model([(0, 3), (2, 1)], seed=2), complete=True).load(path)
    model = parts_model([(2, 0), (1, 3)], seed=2, names=OTHERS["permutation"].names)
    with pytest.raises(CheckpointError, match="QueryPose can't use them, since the weights do not record the parts"):
        PoseCheckpointer(model, complete=True).load(path)
