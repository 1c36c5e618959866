"""The QueryPose meta-architecture: training and inference on batches, decoded queries, configs and their errors."""

import math
from dataclasses import replace

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from querypose_models import DIM, KEYS, NUM_QUERIES, NUM_STAGES, Pyramid, tiny_model
from small_models import SCHEMA, image, one_person, people
from torch import nn

from dynpose.config import ConfigError, add_dynpose_config
from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON, KeypointSchema, schema_to_cfg
from dynpose.modeling.querypose import QueryPose, querypose
from dynpose.modeling.querypose.aux_heatmap import AuxHeatmap

FROZEN = {"norm": "FrozenBN"}
LIGHT = {"dynamic_mlp": False}


def schema_of(num_keypoints):
    return KeypointSchema(
        names=tuple(f"k{i}" for i in range(num_keypoints)), flip_pairs=(), skeleton=(), sigmas=(0.1,) * num_keypoints
    )


def picture(height, width, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "height": height, "width": width, **more}


def crowd(count, size=(128, 128)):
    """People of 60 pixels, whose keypoints are near the middle of their boxes."""
    positions = [(32 + 21 * (i % 4), 32 + 21 * (i // 4)) for i in range(count)]
    boxes = [[x - 30, y - 30, x + 30, y + 30] for x, y in positions]
    points = [[(x, y - 8, 2), (x + 8, y, 2), (x - 8, y, i % 3), (x, y + 8, 1)] for i, (x, y) in enumerate(positions)]
    return image(people(boxes, points, size), seed=count)


@torch.no_grad()
def predict(model, inputs):
    return [output["instances"] for output in model.eval()(inputs)]


def losses_and_gradients(model, inputs):
    losses = model.train()(inputs)
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


# Inference


def test_inference_gives_detectron2s_format():
    (result,) = predict(tiny_model(), [picture(90, 130)])
    assert len(result) == NUM_QUERIES
    assert sorted(result.get_fields()) == ["pred_boxes", "pred_classes", "pred_keypoints", "scores"]
    assert result.image_size == (90, 130)
    assert result.pred_classes.tolist() == [0] * NUM_QUERIES
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    assert result.pred_keypoints.shape == (NUM_QUERIES, 4, 3)
    assert ((result.pred_keypoints[..., 2] > 0) & (result.pred_keypoints[..., 2] < 1)).all()
    boxes = result.pred_boxes.tensor
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([130, 90, 130, 90])).all()


def test_selection_by_hand():
    model = tiny_model(max_detections=3)
    logit = math.log(0.8 / 0.2)
    logits = torch.tensor([[[-logit], [logit], [0.0], [-20]]])
    boxes = torch.tensor([[[10.0, 20, 30, 60], [-10, 0, 30, 60], [0, 0, 8, 8], [0, 0, 8, 8]]])
    keypoints = torch.zeros(1, 4, 4, 2)
    keypoints[0, 0] = torch.tensor([[-0.5, -0.5], [0.5, 0.5], [0, 0.25], [1, 0]])
    sigmas = torch.full((1, 4, 4, 2), 0.5)
    # means over x and y of 0.2, 0.4, 0.6 and 0.8
    sigmas[0, 1] = torch.tensor([[0.1, 0.3], [0.5, 0.3], [0.6, 0.6], [0.7, 0.9]])
    result = model.select(logits, boxes, keypoints, sigmas, torch.tensor([[50, 100]]))
    torch.testing.assert_close(result.scores, torch.tensor([0.8 * 0.5, 0.5 * 0.5, 0.2 * 0.5]))
    assert result.image.tolist() == [0, 0, 0]
    # clipped; the keypoints are those of the whole box
    assert result.boxes.tolist() == [[0, 0, 30, 50], [0, 0, 8, 8], [10, 20, 30, 50]]
    torch.testing.assert_close(result.keypoints[0, :, 2], torch.tensor([0.8, 0.6, 0.4, 0.2]))
    assert result.keypoints[0, :, :2].tolist() == [[10, 30]] * 4
    assert result.keypoints[2, :, :2].tolist() == [[10, 20], [30, 60], [20, 50], [40, 40]]


def test_keypoints_end_a_margin_outside_of_the_image():
    """In the pixels of the network: 32 beyond the image, wherever a box of thousands of pixels puts them."""
    logits = torch.zeros(1, 1, 1)
    boxes = torch.tensor([[[-100.0, -1000, 300, 1020]]])
    keypoints = torch.tensor([[[[-0.5, -0.5], [0.5, 0.5], [0.1, 0.02], [math.nan, math.inf]]]])
    sigmas = torch.full((1, 1, 4, 2), 0.5)
    result = tiny_model().select(logits, boxes, keypoints, sigmas, torch.tensor([[20, 200]]))
    expected = torch.tensor([[-32.0, -32], [232, 52], [140, 50.4], [math.nan, math.inf]])
    torch.testing.assert_close(result.keypoints[0, :, :2], expected, equal_nan=True)
    assert result.boxes.tolist() == [[0, 0, 200, 20]]


def test_selection_with_several_classes():
    """A query may be two people of different classes, as in detectron2."""
    logits = torch.tensor([[[3.0, -9], [2, 1]]])
    boxes = torch.tensor([[[0.0, 0, 8, 8], [4, 4, 9, 9]]])
    values = torch.full((1, 2, 4, 2), 0.25)
    result = tiny_model(max_detections=3).select(logits, boxes, values, values, torch.tensor([[50, 50]]))
    assert result.classes.tolist() == [0, 0, 1]
    assert result.boxes[:, 0].tolist() == [0, 4, 4]
    torch.testing.assert_close(result.scores, torch.tensor([3.0, 2, 1]).sigmoid() * 0.75)


def test_results_are_resized():
    (plain,) = predict(tiny_model(), [picture(64, 96)])
    (resized,) = predict(tiny_model(), [{**picture(64, 96), "height": 128, "width": 288}])
    assert resized.image_size == (128, 288)
    torch.testing.assert_close(resized.pred_boxes.tensor, plain.pred_boxes.tensor * torch.tensor([3.0, 2, 3, 2]))
    torch.testing.assert_close(resized.pred_keypoints, plain.pred_keypoints * torch.tensor([3.0, 2, 1]))


def test_a_batch_of_unequal_sizes_gives_what_each_image_alone_gives():
    model = tiny_model()
    # all are padded to 64 x 96: RoIs that reach beyond the image see how far the padding goes
    inputs = [picture(64, 96, 0), picture(33, 65, 1), picture(50, 90, 2)]
    for result, one in zip(predict(model, inputs), inputs):
        (alone,) = predict(model, [one])
        assert len(result) == len(alone) > 0
        torch.testing.assert_close(result.pred_keypoints, alone.pred_keypoints, rtol=0, atol=1e-3)
        torch.testing.assert_close(result.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=1e-3)
        torch.testing.assert_close(result.scores, alone.scores)


def test_boxes_start_from_the_image():
    model = QueryPose(
        backbone=Pyramid(),
        box_stages=tiny_model().box_stages,
        keypoint_stages=tiny_model().keypoint_stages,
        flow=tiny_model().flow,
        schema=SCHEMA,
        num_queries=2,
        hidden_dim=DIM,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
    assert model.initial_boxes(torch.tensor([[60, 80], [128, 40]])).tolist() == [
        [[0, 0, 80, 60]] * 2,
        [[0, 0, 40, 128]] * 2,
    ]
    with torch.no_grad():
        # options of training
        model.proposal_boxes.weight[1] = torch.tensor([0.5, 0.25, -0.1, 0])
    boxes = model.initial_boxes(torch.tensor([[60, 80]]))[0]
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_gradients_do_not_pass_boxes_from_stage_to_stage():
    model = tiny_model()
    features = model.extract_features(model.preprocess_image([picture(64, 64)]).tensor)
    stages = list(model.find_people(features, torch.tensor([[64, 64]])))
    (gradient,) = torch.autograd.grad(stages[1].boxes.sum(), model.proposal_boxes.weight, allow_unused=True)
    assert gradient is None
    (gradient,) = torch.autograd.grad(stages[0].boxes.sum(), model.proposal_boxes.weight, retain_graph=True)
    assert gradient.any()


@pytest.mark.parametrize(("keypoint", "differ"), [({}, True), (LIGHT, False)])
@torch.no_grad()
def test_pipelines(keypoint, differ):
    """Figure 3: the keypoint decoder has a say in the next boxes in (b) only, and in its light version in neither."""
    both, boxes_only = tiny_model(keypoint=keypoint), tiny_model(keypoint=keypoint, pipeline="box_decoder")
    features = both.extract_features(both.preprocess_image([picture(64, 64)]).tensor)
    first, second = (list(model.find_people(features, torch.tensor([[64, 64]]))) for model in (both, boxes_only))
    assert torch.equal(first[0].boxes, second[0].boxes)
    assert torch.equal(first[1].boxes, second[1].boxes) != differ
    for model in (both, boxes_only):
        for parameter in model.keypoint_stages.parameters():
            parameter.mul_(0.5)
    changed, same = (list(model.find_people(features, torch.tensor([[64, 64]]))) for model in (both, boxes_only))
    assert torch.equal(changed[1].boxes, first[1].boxes) != differ
    assert torch.equal(same[1].boxes, second[1].boxes)


@pytest.mark.parametrize("schema", [schema_of(1), CROWDPOSE_PERSON, COCO_PERSON, schema_of(133)])
def test_any_number_of_keypoints(schema):
    num_keypoints = schema.num_keypoints
    model = tiny_model(schema=schema)
    (result,) = predict(model, [picture(64, 80)])
    assert result.pred_keypoints.shape == (NUM_QUERIES, num_keypoints, 3)
    instances = one_person()
    instances.gt_keypoints.tensor = torch.tensor([50.0, 60, 2]).repeat(1, num_keypoints, 1)
    losses = model.train()([image(instances)])
    assert all(loss.isfinite() for loss in losses.values())


# Training


def test_every_stage_has_its_losses():
    losses, gradients = losses_and_gradients(tiny_model(), [crowd(3), crowd(2)])
    assert list(losses) == [f"{key}{suffix}" for suffix in ("_0", "_1", "") for key in KEYS]
    assert all(loss.isfinite() and loss != 0 for loss in losses.values())
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    without = [name for name, gradient in gradients.items() if not gradient.any()]
    assert not without


NO_PEOPLE = image(people([], []))
BATCHES = {
    "no-people": [NO_PEOPLE],
    "no-people-in-either": [NO_PEOPLE, image(people([], [], size=(96, 64)))],
    "no-people-in-one": [NO_PEOPLE, crowd(2)],
    "no-labelled-keypoints": [image(people([[10, 10, 90, 90]], [[(0, 0, 0)] * 4]))],
    "more-people-than-queries": [crowd(NUM_QUERIES + 3)],
    "box-without-extent": [image(people([[30, 30, 30, 30], [10, 10, 90, 90]], [[(30, 30, 2)] * 4] * 2))],
    "keypoints-far-outside": [image(people([[10, 10, 90, 90]], [[(1e5, -1e5, 2)] * 4]))],
}


@pytest.mark.parametrize("keypoint", [{}, LIGHT], ids=["full", "light"])
@pytest.mark.parametrize("choices", [{}, {"decode_in_training": "matched"}, {"activation_checkpoint": True}], ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_losses_and_gradients_are_finite(batch, choices, keypoint):
    model = tiny_model(keypoint=keypoint, **choices)
    losses, gradients = losses_and_gradients(model, BATCHES[batch])
    assert len(losses) == len(KEYS) * NUM_STAGES
    assert all(loss.isfinite() for loss in losses.values())
    # DistributedDataParallel waits for a gradient of every parameter
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    assert losses["loss_class"] > 0
    if batch.startswith("no-people") and not batch.endswith("one"):
        assert losses["loss_l1"] == losses["loss_giou"] == losses["loss_keypoint"] == 0
    if batch in ("no-labelled-keypoints", "keypoints-far-outside"):
        assert losses["loss_keypoint"] == 0
        assert losses["loss_l1"] > 0


def test_annotations_without_keypoints():
    instances = one_person()
    instances.remove("gt_keypoints")
    losses, _ = losses_and_gradients(tiny_model(), [image(instances)])
    assert losses["loss_keypoint"] == 0
    assert losses["loss_l1"] > 0


def test_losses_are_weighted():
    """Equal weights for the matching, so that it stays as it is."""
    ones = dict.fromkeys(["class", "l1", "giou", "keypoint"], 1.0)
    model = tiny_model()
    model.options = replace(model.options, loss_weights=ones)
    once, _ = losses_and_gradients(model, [crowd(3)])
    model = tiny_model()
    model.options = replace(model.options, loss_weights={"class": 3.0, "l1": 3.0, "giou": 3.0, "keypoint": 0.5})
    weighted, _ = losses_and_gradients(model, [crowd(3)])
    for name, loss in once.items():
        torch.testing.assert_close(weighted[name], loss * (0.5 if "keypoint" in name else 3.0))


def decoded_per_stage(model, monkeypatch):
    """The number of rows that each call of a keypoint stage's two steps gets."""
    calls = {"update_instances": [], "decode": []}
    for stage in model.keypoint_stages:
        for name in calls:
            method = getattr(stage, name)

            def counting(features, *rest, name=name, method=method):
                calls[name].append(len(features))
                return method(features, *rest)

            monkeypatch.setattr(stage, name, counting)
    return calls


@pytest.mark.parametrize(
    ("choices", "updated_all"),
    [
        ({}, True),
        ({"pipeline": "box_decoder"}, False),
        ({"keypoint": LIGHT}, False),
    ],
    ids=["full", "box-decoder", "light"],
)
def test_nothing_is_decoded_for_unmatched_queries(choices, updated_all, monkeypatch):
    model = tiny_model(**choices, num_queries=12, decode_in_training="matched")
    calls = decoded_per_stage(model, monkeypatch)
    matched = []
    match = querypose.match_stages

    def recording(*args, **kwargs):
        matched[:] = match(*args, **kwargs)
        return matched

    monkeypatch.setattr(querypose, "match_stages", recording)
    model.train()([crowd(2), NO_PEOPLE, crowd(1)])
    everyone = {query for queries, _ in matched for query in queries.tolist()}
    assert 3 <= len(everyone) <= 3 * NUM_STAGES
    assert calls["decode"] == [len(everyone)] * NUM_STAGES
    assert calls["update_instances"] == [36 if updated_all else len(everyone)] * NUM_STAGES

    for of_step in calls.values():
        of_step.clear()
    model.train()([NO_PEOPLE, NO_PEOPLE])
    assert calls["decode"] == [0] * NUM_STAGES


@pytest.mark.parametrize("keypoint", [FROZEN, {**FROZEN, **LIGHT}], ids=["full", "light"])
@pytest.mark.parametrize("pipeline", ["keypoint_decoder", "box_decoder"])
def test_decoding_matched_queries_alone_changes_no_loss(keypoint, pipeline):
    """Provided that batch normalisation takes its running statistics: its own would be those of other queries."""
    inputs = [crowd(4), NO_PEOPLE, crowd(2)]
    losses, gradients = losses_and_gradients(
        tiny_model(keypoint=keypoint, pipeline=pipeline, decode_in_training="matched"), inputs
    )
    expected, expected_gradients = losses_and_gradients(tiny_model(keypoint=keypoint, pipeline=pipeline), inputs)
    assert losses.keys() == expected.keys()
    assert all(losses[f"loss_keypoint{suffix}"] != 0 for suffix in ("_0", "_1", ""))
    torch.testing.assert_close(losses, expected)
    for name, gradient in gradients.items():
        expected = expected_gradients[name]
        assert (gradient - expected).norm() <= 1e-3 * expected.norm() + 1e-4, name


def test_a_query_that_changes_hands_takes_its_part_queries_along():
    """Stage 1 matches the queries the other way round than stage 0: each one's part queries are still its own."""
    inputs = [crowd(2)]
    model = tiny_model(keypoint=FROZEN, num_stages=2).train()
    matched = []
    match = querypose.match_stages

    def swapped(*args, **kwargs):
        first, second = match(*args, **kwargs)
        second = second._replace(queries=first.queries, people=first.people.flip(0))
        matched[:] = [first, second]
        return matched

    results = []
    for decode_in_training in ("matched", "all"):
        model.options = replace(model.options, decode_in_training=decode_in_training)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(querypose, "match_stages", swapped)
            results.append({name: loss.detach() for name, loss in model(inputs).items()})
    torch.testing.assert_close(*results)
    assert matched[0].people.tolist() != matched[1].people.tolist()


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("pipeline", ["keypoint_decoder", "box_decoder"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_changes_nothing(norm, pipeline, dropout):
    """Losses, gradients and running statistics; the second of two steps starts from the state after the first."""
    results = []
    for checkpointed in (False, True):
        model = tiny_model(
            keypoint={"norm": norm, "dropout": dropout},
            box={"dropout": dropout},
            pipeline=pipeline,
            activation_checkpoint=checkpointed,
        )
        torch.manual_seed(0)
        for inputs in ([crowd(4), crowd(1)], [crowd(2), NO_PEOPLE]):
            losses, gradients = losses_and_gradients(model, inputs)
        results.append((losses, gradients, dict(model.named_buffers())))
    torch.testing.assert_close(*results)
    statistics = results[0][2]["keypoint_stages.0.interaction.norm.running_mean"]
    assert statistics.any() == (norm == "BN")


def test_activation_checkpointing_keeps_less():
    """Bytes that the graph holds on to, of a model that is larger inside than between its stages."""
    kept = []
    for checkpointed in (False, True):
        inside = {"keypoint": {"conv_dim": 64, "num_convs": 4}, "num_queries": 50}
        model = tiny_model(activation_checkpoint=checkpointed, **inside).train()
        tensors = {}

        def pack(tensor, tensors=tensors):
            tensors[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = model([crowd(4), crowd(6)])
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept.append(sum(tensor.untyped_storage().nbytes() for key, tensor in tensors.items() if key not in own))
        assert losses["loss_class"].isfinite()
    assert kept[1] < 0.3 * kept[0]


def test_lower_precision():
    """Under autocast, losses and results are in float32, and RoIs are pooled there."""
    model = tiny_model()
    pooled = []
    model.box_pooler.register_forward_hook(lambda module, inputs, output: pooled.append((inputs[0][0], output)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.train()([crowd(3)])
        (result,) = predict(model, [picture(64, 64)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert result.pred_keypoints.dtype == result.scores.dtype == result.pred_boxes.tensor.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for pair in pooled for tensor in pair)


def test_it_learns():
    """Steps on two images bring every loss of the last stage down, and the people's keypoints to their places."""
    torch.manual_seed(0)
    model = tiny_model(num_stages=2)
    inputs = [image(one_person(50, 60), 0), image(one_person(80, 70), 1)]
    optimizer = torch.optim.AdamW(model.parameters())
    # the rate ends near 0, so that the result does not depend on how a CPU rounds
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=200, pct_start=0.1)
    history = []
    for _ in range(200):
        losses = model.train()(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert history[-1]["loss_l1"] < 0.3 * history[0]["loss_l1"]
    assert history[-1]["loss_giou"] < 0.3 * history[0]["loss_giou"]
    assert history[-1]["loss_class"] < 0.5 * history[0]["loss_class"]
    assert history[-1]["loss_keypoint"] < history[0]["loss_keypoint"] - 1
    for result, one in zip(predict(model, [{**one, "height": 128, "width": 128} for one in inputs]), inputs):
        error = (result.pred_keypoints[0, :, :2] - one["instances"].gt_keypoints.tensor[0, :, :2]).norm(dim=1)
        assert error.max() < 5
        # one of the queries has found the person; the others are not suppressed
        assert result.scores[0] > 1.5 * result.scores[1]


# Configs


@BACKBONE_REGISTRY.register()
def build_pyramid_of_a_user(cfg, input_shape):
    return Pyramid()


def config(**keys):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "QueryPose"
    cfg.MODEL.BACKBONE.NAME = "build_pyramid_of_a_user"
    schema_to_cfg(cfg, SCHEMA)
    small = {"HIDDEN_DIM": DIM, "NUM_HEADS": 2, "PART_DIM": 8, "NUM_STAGES": 2, "KEYPOINT_CONV_DIM": 8}
    for key, value in {**small, **keys}.items():
        assert key in cfg.MODEL.QUERYPOSE
        cfg.MODEL.QUERYPOSE[key] = value
    return cfg


def test_a_users_backbone_plugs_in_by_config_alone():
    torch.manual_seed(0)
    cfg = config(
        NUM_QUERIES=5,
        NUM_CLASSES=2,
        POOLER_RESOLUTION=4,
        KEYPOINT_POOLER_RESOLUTION=6,
        IN_FEATURES=["p3", "p4"],
        KEYPOINT_IN_FEATURE="p3",
        NUM_CLS_LAYERS=2,
        PIPELINE="box_decoder",
        DECODE_IN_TRAINING="matched",
        ACTIVATION_CHECKPOINT=True,
        KEYPOINT_LOSS_WEIGHT=0.5,
    )
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    model = build_model(cfg)
    assert isinstance(model, QueryPose)
    assert model.instance_queries.weight.shape == (5, DIM)
    # four parts, one a keypoint
    assert model.part_queries.weight.shape == (4, 8)
    assert len(model.box_stages) == len(model.keypoint_stages) == 2
    assert model.options.loss_weights == {"class": 2.0, "l1": 5.0, "giou": 2.0, "keypoint": 0.5}
    losses, _ = losses_and_gradients(model, [crowd(2)])
    assert all(loss.isfinite() for loss in losses.values())
    (result,) = predict(model, [picture(64, 64)])
    # of five queries and two classes; those outside of the image are dropped
    assert 0 < len(result) <= 7
    assert model.options.max_detections == 7


def test_the_defaults_are_the_papers():
    querypose_cfg = config().MODEL.QUERYPOSE
    fresh = get_cfg()
    add_dynpose_config(fresh)
    defaults = fresh.MODEL.QUERYPOSE
    assert (defaults.NUM_QUERIES, defaults.NUM_STAGES, defaults.HIDDEN_DIM) == (100, 6, 256)
    assert (defaults.POOLER_RESOLUTION, defaults.KEYPOINT_POOLER_RESOLUTION) == (7, 14)
    assert (defaults.CLASS_LOSS_WEIGHT, defaults.L1_LOSS_WEIGHT, defaults.GIOU_LOSS_WEIGHT) == (2, 5, 2)
    assert defaults.PIPELINE == querypose_cfg.PIPELINE == "keypoint_decoder"
    model = build_model(config())
    assert model.options.decode_in_training == "all"
    assert not model.options.activation_checkpoint
    assert model.options.max_detections == 100


def test_without_part_queries():
    """Table 1's instance-level query."""
    model = build_model(config(QUERY="instance", ITERATION="none"))
    assert model.part_queries is None
    losses, gradients = losses_and_gradients(model, [crowd(2)])
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient is not None for gradient in gradients.values())
    assert len(predict(model, [picture(64, 64)])[0]) > 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NUM_QUERIES", 0, "MODEL.QUERYPOSE.NUM_QUERIES must be at least 1, got 0"),
        ("NUM_STAGES", 0, "MODEL.QUERYPOSE.NUM_STAGES must be at least 1, got 0"),
        ("PIPELINE", "paper", "PIPELINE must be one of 'keypoint_decoder', 'box_decoder', got 'paper'"),
        ("DECODE_IN_TRAINING", "some", "DECODE_IN_TRAINING must be one of 'all', 'matched', got 'some'"),
        (
            "IN_FEATURES",
            ["p2", "p9"],
            r"QUERYPOSE.IN_FEATURES: .* outputs of the backbone, of \['p2', .*\], got \['p2', 'p9'\]",
        ),
        ("IN_FEATURES", [], r"QUERYPOSE.IN_FEATURES: .* outputs of the backbone, .* got \[\]"),
        (
            "KEYPOINT_IN_FEATURE",
            "res2",
            r"QUERYPOSE.KEYPOINT_IN_FEATURE: .* outputs of the backbone, .* got \['res2'\]",
        ),
        ("HIDDEN_DIM", 32, "HIDDEN_DIM, MODEL.FPN.OUT_CHANNELS: hidden_dim: .* the backbone's 'p2', 16, got 32"),
    ],
)
def test_refuses(key, value, message):
    with pytest.raises(ConfigError, match=message):
        build_model(config(**{key: value}))


def test_refuses_stages_without_their_other_half():
    whole = tiny_model()
    parts = {
        "flow": whole.flow,
        "schema": SCHEMA,
        "pixel_mean": [0.0] * 3,
        "pixel_std": [1.0] * 3,
    }
    with pytest.raises(ValueError, match="box_stages and keypoint_stages must be equally many, got 2 and 3"):
        QueryPose(
            backbone=whole.backbone, box_stages=whole.box_stages[:2], keypoint_stages=whole.keypoint_stages, **parts
        )


def test_the_baseline_of_table_2b_has_no_layer_without_gradient():
    """Its keypoints do not depend on the queries, which the next box decoder alone reads."""
    cfg = config(QUERY="instance", INTERACTION="pool", ITERATION="none")
    model = build_model(cfg)
    assert [stage.dynamic_mlp for stage in model.keypoint_stages] == [True, False]
    _, gradients = losses_and_gradients(model, [crowd(2)])
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert len(predict(model, [picture(64, 96)])[0])


def test_the_auxiliary_heatmap_is_trained_only():
    """Section 4.3. A map of zero logits and one keypoint: each cell's loss is by hand."""
    torch.manual_seed(0)
    model = build_model(config(AUX_HEATMAP=True, AUX_HEATMAP_LOSS_WEIGHT=0.25))
    nn.init.zeros_(model.aux_heatmap.predict.weight)
    nn.init.zeros_(model.aux_heatmap.predict.bias)
    person = image(people([[40, 20, 60, 40]], [[(50, 30, 2), (0, 0, 0), (0, 0, 0), (0, 0, 0)]], size=(96, 128)))
    losses, gradients = losses_and_gradients(model, [person])
    # p = 1/2 everywhere: 1/4 log 2 at the keypoint's cell (7, 12) of stride 4, reduced by (1 - Gaussian)^4 near it.
    # A box of 20 x 20 pixels has the radius floor(-28 + sqrt(784 + 0.84 * 400)) = 5 cells, sigma = 11 / 6
    down, across = torch.arange(24)[:, None] - 7.0, torch.arange(32) - 12.0
    gaussian = torch.exp(-(down**2 + across**2) / (2 * (11 / 6) ** 2))
    gaussian[(down.abs() > 5) | (across.abs() > 5)] = 0
    negatives = (1 - gaussian) ** 4
    expected = 0.25 * math.log(2) * (1 + negatives.sum() + 3 * 24 * 32)
    torch.testing.assert_close(losses["loss_aux_heatmap"], 0.25 * expected)
    assert gradients["aux_heatmap.predict.weight"].any()
    model.aux_heatmap = None
    assert "loss_aux_heatmap" not in losses_and_gradients(model, [person])[0]


def test_the_auxiliary_heatmap_is_the_released_one():
    """A 3x3 and a 1x1 convolution, initial probabilities of 0.1, loss weight 0.5."""
    model = build_model(config(AUX_HEATMAP=True))
    dim, head = model.instance_queries.weight.shape[1], model.aux_heatmap
    shapes = {name: tuple(parameter.shape) for name, parameter in head.named_parameters()}
    assert shapes == {
        "conv.weight": (dim, dim, 3, 3),
        "conv.bias": (dim,),
        "predict.weight": (4, dim, 1, 1),
        "predict.bias": (4,),
    }
    assert head(torch.zeros(1, dim, 3, 5)).shape == (1, 4, 3, 5)
    assert head.predict.bias.sigmoid().tolist() == pytest.approx([0.1] * 4, rel=0.01)
    assert model.options.aux_heatmap_weight == querypose.QueryPoseOptions().aux_heatmap_weight == 0.5


def test_the_auxiliary_heatmap_by_hand():
    """A ReLU between the convolutions."""
    head = AuxHeatmap(in_channels=1, num_keypoints=1)
    with torch.no_grad():
        for conv in (head.conv, head.predict):
            conv.weight.fill_(2.0)
            conv.bias.fill_(1.0)
    logits = head(torch.tensor([[[[3.0, -4.0, 0.0, 1.0]]]]))
    # sums of three neighbours -1, -1, -3, 1: times 2 plus 1, -1, -1, -5, 3
    assert logits.flatten().tolist() == [1.0, 1.0, 1.0, 7.0]


def test_a_config_with_the_earlier_key_of_the_auxiliary_heatmap_is_read():
    cfg = config()
    cfg.merge_from_list(["MODEL.QUERYPOSE.AUX_HEATMAP_SIGMA", "2.0"])
    assert "AUX_HEATMAP_SIGMA" not in cfg.MODEL.QUERYPOSE


def test_an_empty_batch_has_a_finite_auxiliary_loss():
    losses, gradients = losses_and_gradients(build_model(config(AUX_HEATMAP=True)), [NO_PEOPLE])
    assert losses["loss_aux_heatmap"].isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
