"""The CID meta-architecture: training and inference on batches, flip testing, configs and their failures."""

import numpy as np
import pytest
import torch
from cid_models import CHANNELS, Patches, tiny_model
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.structures import Boxes, Instances, Keypoints
from small_models import SCHEMA, image, one_person, people

from dynpose.config import ConfigError, add_dynpose_config, load_config
from dynpose.data import AffineResize, KeypointSchema, schema_to_cfg
from dynpose.data.affine import matrix_to_original
from dynpose.modeling.cid import CID, InstanceAbstraction
from dynpose.modeling.cid.cid import to_result_size
from dynpose.modeling.test_time_augmentation import PoseTTA, SupportsMapTTA, ViewMaps

# whoever is a local peak is found
FIND_ALL = {"score_thresh": 0.0}


def schema_of(num_keypoints):
    return KeypointSchema(
        names=tuple(f"k{i}" for i in range(num_keypoints)), flip_pairs=(), skeleton=(), sigmas=(0.1,) * num_keypoints
    )


def picture(height, width, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "height": height, "width": width, **more}


@torch.no_grad()
def predict(model, inputs):
    return [output["instances"] for output in model.eval()(inputs)]


def assert_same(a, b, atol=1e-3):
    assert a.image_size == b.image_size
    assert len(a) == len(b)
    torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=0, atol=atol)
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=atol)
    torch.testing.assert_close(a.scores, b.scores)


def test_inference_gives_detectron2s_format():
    (result,) = predict(tiny_model(iia=FIND_ALL), [picture(90, 130)])
    assert len(result) > 3
    assert sorted(result.get_fields()) == ["pred_boxes", "pred_classes", "pred_keypoints", "scores"]
    assert result.image_size == (90, 130)
    assert result.pred_classes.tolist() == [0] * len(result)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    keypoints = result.pred_keypoints
    assert keypoints.shape == (len(result), 4, 3)
    assert ((keypoints[..., 2] > 0) & (keypoints[..., 2] < 1)).all()
    torch.testing.assert_close(result.scores, keypoints[..., 2].mean(dim=1))
    # 23 x 33 cells, the last ones partly outside of the image
    assert (keypoints[..., :2] > 0).all()
    assert keypoints[..., 0].max() <= 33 * 4
    assert keypoints[..., 1].max() <= 23 * 4


def test_a_batch_of_unequal_sizes_gives_what_each_image_alone_gives():
    model = tiny_model(iia=FIND_ALL)
    inputs = [picture(64, 64, 0), picture(50, 97, 1), picture(96, 33, 2), picture(8, 8, 3)]
    together = predict(model, inputs)
    for result, one in zip(together, inputs):
        (alone,) = predict(model, [one])
        assert_same(result, alone)
    assert [len(result) > 0 for result in together] == [True] * 4


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_make_no_difference_in_inference(chunk):
    inputs = [picture(64, 80, 0), picture(50, 97, 1)]
    whole = predict(tiny_model(iia=FIND_ALL), inputs)
    for result, expected in zip(predict(tiny_model(iia=FIND_ALL, max_instances_per_chunk=chunk), inputs), whole):
        assert_same(result, expected)


def test_no_people_are_found():
    results = predict(tiny_model(iia={"score_thresh": 1.0}), [picture(64, 80), picture(40, 40)])
    for result in results:
        assert len(result) == 0
        assert result.pred_keypoints.shape == (0, 4, 3)
        assert result.pred_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("num_keypoints", [1, 14, 133])
def test_any_number_of_keypoints(num_keypoints):
    model = tiny_model(schema=schema_of(num_keypoints), iia=FIND_ALL)
    (result,) = predict(model, [picture(64, 80)])
    assert len(result) > 0
    assert result.pred_keypoints.shape[1:] == (num_keypoints, 3)
    # that of one keypoint is a cell wide and high, cut off by the image
    assert (result.pred_boxes.tensor[:, 2:] > result.pred_boxes.tensor[:, :2]).all()
    instances = one_person()
    instances.gt_keypoints.tensor = torch.tensor([50.0, 60, 2]).repeat(1, num_keypoints, 1)
    losses = model.train()([image(instances)])
    assert all(loss.isfinite() for loss in losses.values())


def test_the_stride_is_the_backbones():
    model = tiny_model(stride=8, iia=FIND_ALL)
    (result,) = predict(model, [picture(64, 80)])
    # cell centres, and a quarter of a cell of 8 pixels beside them
    assert set((result.pred_keypoints[..., :2] % 8).unique().tolist()) <= {2.0, 4.0, 6.0}
    assert model.train()([image(one_person())])["loss_single_heatmap"].isfinite()


def test_heatmaps_are_smoothed_over_a_window():
    inputs = [picture(64, 80)]
    results = [predict(tiny_model(iia=FIND_ALL, smoothing=smoothing), inputs)[0] for smoothing in (3, 11)]
    assert not torch.equal(*(result.pred_keypoints[:1] for result in results))


def test_poses_of_the_same_person_are_dropped():
    inputs = [picture(64, 80)]
    (everyone,) = predict(tiny_model(iia=FIND_ALL, oks_nms_thresh=1.0), inputs)
    (fewer,) = predict(tiny_model(iia=FIND_ALL, oks_nms_thresh=0.01), inputs)
    assert 0 < len(fewer) < len(everyone)
    assert fewer.scores[0] == everyone.scores[0]


def test_cells_of_pixel_indices_are_half_an_input_pixel_further():
    inputs = [{**picture(64, 80), "height": 320, "width": 240}]
    (plain,) = predict(tiny_model(iia=FIND_ALL), inputs)
    (moved,) = predict(tiny_model(iia=FIND_ALL, index_coordinates=True), inputs)
    # 3 and 5 pixels of the result are one of the input
    expected = plain.pred_keypoints + torch.tensor([1.5, 2.5, 0])
    torch.testing.assert_close(moved.pred_keypoints, expected, rtol=0, atol=1e-4)
    assert torch.equal(moved.scores, plain.scores)


# Result size


def found():
    instances = Instances((100, 200))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 20, 50, 60], [150, 10, 190, 90]]))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_keypoints = torch.tensor([[[10.0, 20, 0.5], [50, 60, 0.25]], [[150, 10, 0.75], [190, 90, 0.5]]])
    return instances


def test_results_are_resized_as_detectron2_does():
    result = to_result_size(found(), {"height": 50, "width": 400})
    assert result.pred_keypoints[0].tolist() == [[20, 10, 0.5], [100, 30, 0.25]]
    assert result.pred_boxes.tensor[1].tolist() == [300, 5, 380, 45]
    assert to_result_size(found(), {}).image_size == (100, 200)


def test_an_affine_map_takes_the_place_of_the_resize():
    as_resized = to_result_size(found(), {"height": 50, "width": 400})
    affine = {"height": 50, "width": 400, "to_original": torch.tensor([[2.0, 0, 0], [0, 0.5, 0]])}
    assert_same(to_result_size(found(), affine), as_resized)

    # a letterbox: the second person is outside of the image, the first one's box is cut off by it
    letterbox = {"height": 50, "width": 60, "to_original": [[1.0, 0, -20], [0, 1, -20]]}
    result = to_result_size(found(), letterbox)
    assert result.image_size == (50, 60)
    assert result.scores.tolist() == pytest.approx([0.9])
    assert result.pred_keypoints[0].tolist() == [[-10, 0, 0.5], [30, 40, 0.25]]
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 30, 40]]

    # a quarter turn, (x, y) -> (100 - y, x)
    turned = to_result_size(found(), {"height": 200, "width": 100, "to_original": [[0.0, -1, 100], [1, 0, 0]]})
    assert turned.pred_keypoints[0, :, :2].tolist() == [[80, 10], [40, 50]]
    assert turned.pred_boxes.tensor.tolist() == [[40, 10, 80, 50], [10, 150, 90, 190]]
    # the inputs are unchanged
    assert found().pred_boxes.tensor.tolist() == [[10, 20, 50, 60], [150, 10, 190, 90]]


def test_the_model_uses_the_affine_map():
    model = tiny_model(iia=FIND_ALL)
    (plain,) = predict(model, [picture(64, 80)])
    inputs = {**picture(64, 80), "height": 200, "width": 300, "to_original": [[2.0, 0, 30], [0, 2, 20]]}
    (mapped,) = predict(model, [inputs])
    expected = plain.pred_keypoints * torch.tensor([2, 2, 1]) + torch.tensor([30, 20, 0])
    torch.testing.assert_close(mapped.pred_keypoints, expected)


# Training


@pytest.fixture
def without_jitter(monkeypatch):
    monkeypatch.setattr(torch, "randint", _zeros_for(torch.randint))


def _zeros_for(randint):
    """The random numbers that targets draw, -1, 0 and 1, become 0; all others stay."""

    def draw(low, high, size, **kwargs):
        return torch.zeros(size, dtype=torch.int64) if (low, high) == (-1, 2) else randint(low, high, size, **kwargs)

    return draw


def crowd(count, size=(128, 128)):
    positions = [(12 + 20 * (i % 6), 12 + 20 * (i // 6)) for i in range(count)]
    boxes = [[x - 17, y - 17, x + 17, y + 17] for x, y in positions]
    points = [[(x, y - 8, 2), (x + 8, y, 2), (x - 8, y, i % 3), (x, y + 8, 1)] for i, (x, y) in enumerate(positions)]
    return image(people(boxes, points, size), seed=count)


def losses_and_gradients(model, inputs):
    losses = model.train()(inputs)
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


@pytest.mark.usefixtures("without_jitter")
def test_training_with_pixel_indices_is_training_with_moved_keypoints():
    inputs = crowd(5)
    moved = {**inputs, "instances": Instances((128, 128), **inputs["instances"].get_fields())}
    moved["instances"].gt_keypoints = Keypoints(inputs["instances"].gt_keypoints.tensor + torch.tensor([0.5, 0.5, 0]))
    plain, _ = losses_and_gradients(tiny_model(), [inputs])
    assert losses_and_gradients(tiny_model(index_coordinates=True), [moved])[0] == plain
    # keypoints that the model was given stay as they are
    indices, _ = losses_and_gradients(tiny_model(index_coordinates=True), [inputs])
    assert indices != plain
    assert losses_and_gradients(tiny_model(), [inputs])[0] == plain


@pytest.mark.usefixtures("without_jitter")
@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_make_no_difference_in_training(chunk):
    inputs = [crowd(9), crowd(4)]
    whole, whole_gradients = losses_and_gradients(tiny_model(), inputs)
    chunked, gradients = losses_and_gradients(tiny_model(max_instances_per_chunk=chunk), inputs)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(gradients, whole_gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "instances",
    [
        pytest.param(people([], []), id="no-people"),
        pytest.param(people([[10, 10, 90, 90]], [[(0, 0, 0)] * 4]), id="no-labelled-keypoints"),
        pytest.param(people([[10, 10, 20, 20]], [[(15, 15, 2)] * 4]), id="too-small"),
    ],
)
def test_without_anybody_to_decouple(instances):
    losses, gradients = losses_and_gradients(tiny_model(), [image(instances)])
    assert list(losses) == ["loss_multi_heatmap", "loss_contrastive", "loss_single_heatmap"]
    assert losses["loss_multi_heatmap"] > 0
    assert losses["loss_contrastive"] == losses["loss_single_heatmap"] == 0
    # DistributedDataParallel waits for a gradient of every parameter
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())


def test_annotations_without_keypoints():
    instances = one_person()
    instances.remove("gt_keypoints")
    losses, _ = losses_and_gradients(tiny_model(), [image(instances)])
    assert losses["loss_single_heatmap"] == 0


def test_the_contrastive_loss_can_be_left_out():
    losses, _ = losses_and_gradients(tiny_model(loss_weights={"contrastive": 0.0}), [crowd(3)])
    assert list(losses) == ["loss_multi_heatmap", "loss_single_heatmap"]


@pytest.mark.usefixtures("without_jitter")
def test_losses_are_weighted():
    inputs = [crowd(5)]
    once, _ = losses_and_gradients(tiny_model(loss_weights={"single_heatmap": 1.0}), inputs)
    weights = {"multi_heatmap": 2.0, "contrastive": 3.0, "single_heatmap": 5.0}
    weighted, _ = losses_and_gradients(tiny_model(loss_weights=weights), inputs)
    for name, weight in weights.items():
        torch.testing.assert_close(weighted[f"loss_{name}"], once[f"loss_{name}"] * weight)


@pytest.mark.usefixtures("without_jitter")
def test_ignored_regions_are_not_learnt():
    inputs = crowd(2)
    model = tiny_model()
    # background that costs something
    torch.nn.init.zeros_(model.iia.heatmaps.bias)
    plain, _ = losses_and_gradients(model, [inputs])
    nothing = {**inputs, "ignore_mask": torch.zeros(128, 128, dtype=torch.uint8)}
    assert losses_and_gradients(model, [nothing])[0] == plain
    # the lower half has no people: as many peaks, half of the background
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[64:] = True
    half, _ = losses_and_gradients(model, [{**inputs, "ignore_mask": mask}])
    assert 0.3 < half["loss_multi_heatmap"] / plain["loss_multi_heatmap"] < 0.7
    assert half["loss_single_heatmap"] == plain["loss_single_heatmap"]
    # with everything ignored, nothing is left
    everything = {**inputs, "ignore_mask": torch.ones(128, 128, dtype=torch.bool)}
    assert losses_and_gradients(model, [everything])[0]["loss_multi_heatmap"] == 0


@pytest.mark.usefixtures("without_jitter")
def test_padding_is_not_learnt():
    """A batch of unequal sizes has the sums of its images' losses over the sums of their counts."""
    model = tiny_model(loss_weights={"single_heatmap": 1.0})
    small, large = image(one_person(30, 32, size=(64, 60))), crowd(3)
    (first, _), (second, _), (both, _) = (
        losses_and_gradients(model, batch) for batch in ([small], [large], [small, large])
    )
    # small: 4 keypoints and a centre; large: 3 people with 4 keypoints, one unlabelled, and 3 centres
    counts = {"loss_multi_heatmap": (5, 14), "loss_contrastive": (1, 3), "loss_single_heatmap": (1, 3)}
    for name, (a, b) in counts.items():
        torch.testing.assert_close(both[name], (first[name] * a + second[name] * b) / (a + b))


@pytest.mark.usefixtures("without_jitter")
def test_the_papers_norm_weights_people_equally():
    inputs = [crowd(3)]
    pooled, _ = losses_and_gradients(tiny_model(heatmap_loss_norm="pooled"), inputs)
    person, _ = losses_and_gradients(tiny_model(), inputs)
    assert person["loss_single_heatmap"] != pooled["loss_single_heatmap"]
    assert person["loss_multi_heatmap"] == pooled["loss_multi_heatmap"]
    # of one person, both are the same
    pooled, _ = losses_and_gradients(tiny_model(heatmap_loss_norm="pooled"), [crowd(1)])
    person, _ = losses_and_gradients(tiny_model(), [crowd(1)])
    torch.testing.assert_close(person, pooled)


def test_it_learns():
    """A few steps on one image bring every loss down, and the person's keypoints to their cells."""
    torch.manual_seed(0)
    model = tiny_model(gfd={"channels": 16})
    inputs = [image(one_person())]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = None
    for _ in range(60):
        losses = model.train()(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        first = first or {name: loss.item() for name, loss in losses.items()}
    assert losses["loss_multi_heatmap"].item() < 0.5 * first["loss_multi_heatmap"]
    assert losses["loss_single_heatmap"].item() < 0.5 * first["loss_single_heatmap"]


@pytest.mark.parametrize("recalibration", [["spatial"], ["channel"], ["spatial", "channel"]])
@pytest.mark.parametrize("channel_weights", ["linear", "feature"])
def test_every_choice_learns_all_its_parameters(recalibration, channel_weights):
    model = tiny_model(gfd={"recalibration": recalibration, "channel_weights": channel_weights})
    _, gradients = losses_and_gradients(model, [crowd(3)])
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_lower_precision():
    """Under autocast, losses and results are in float32."""
    model = tiny_model(iia=FIND_ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.train()([crowd(3)])
        (result,) = predict(model, [picture(64, 64)])
        # a large image, whose margins are half a pixel off
        inputs = {**picture(64, 64), "height": 960, "width": 1280, "to_original": [[15.1, 0, 31.7], [0, 14.3, 21.9]]}
        (mapped,) = predict(model, [inputs])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    for found_people in (result, mapped):
        assert found_people.pred_keypoints.dtype == found_people.scores.dtype == torch.float32
    expected = result.pred_keypoints * torch.tensor([15.1, 14.3, 1]) + torch.tensor([31.7, 21.9, 0])
    assert expected[..., :2].max() > 800
    torch.testing.assert_close(mapped.pred_keypoints, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_way_back_is_computed_in_float32(dtype):
    inputs = {"height": 200, "width": 300, "to_original": np.array([[0.9375, 0.01, -10.3], [-0.01, 0.9375, 0.2]])}
    expected = to_result_size(found(), inputs)
    with torch.autocast("cpu", dtype=dtype):
        result = to_result_size(found(), inputs)
    assert_same(result, expected, atol=0)


# Test-time augmentation


def flip_testing(model, **kwargs):
    kwargs = {"min_sizes": (64,), "max_size": 1000, "flip": True, **kwargs}
    return PoseTTA(model.eval(), schema=SCHEMA, merge="maps", **kwargs)


def symmetric_model():
    """A model whose features of a mirrored image are the mirrored features; all keypoints are of one kind."""
    model = tiny_model(iia=FIND_ALL)
    weight = model.backbone.conv.weight.data
    weight.copy_((weight + weight.flip(-1)) / 2)
    if model.gfd.mask is not None:
        # the relative x changes its sign
        mask = model.gfd.mask.weight.data
        mask[:, [0, 2]] = (mask + mask.flip(-1))[:, [0, 2]] / 2
        mask[:, 1] = (mask[:, 1] - mask[:, 1].flip(-1)) / 2
    for parameter in (model.gfd.heatmaps.weight.data, model.gfd.heatmaps.bias.data):
        # left_hand and right_hand
        parameter[2] = parameter[1]
    return model


def affine_input(pixels, size=96):
    """What plain testing with INPUT.AFFINE_RESIZE_TEST gives the model of an image (3, H, W)."""
    augmented = T.AugInput(pixels.permute(1, 2, 0).numpy())
    transforms = T.AugmentationList([AffineResize(size)])(augmented)
    view = torch.as_tensor(augmented.image.transpose(2, 0, 1).copy())
    height, width = pixels.shape[1:]
    return {"image": view, "height": height, "width": width, "to_original": matrix_to_original(transforms)}


@pytest.mark.parametrize("size", [(90, 130), (131, 90), (64, 65)])
@pytest.mark.parametrize("merge", ["maps", "poses"])
def test_an_affine_view_is_plain_testing_exactly(size, merge):
    model = tiny_model(iia=FIND_ALL)
    inputs = picture(*size)
    (plain,) = predict(model, [affine_input(inputs["image"])])
    # the image as resized by detectron2 has other people
    other = PoseTTA(model.eval(), schema=SCHEMA, merge=merge, min_sizes=(96,), max_size=1000, flip=False)
    assert other([inputs])[0]["instances"].pred_keypoints.shape != plain.pred_keypoints.shape
    predictor = PoseTTA(
        model.eval(), schema=SCHEMA, merge=merge, min_sizes=(96,), max_size=1000, flip=False, affine_resize=True
    )
    result = predictor([inputs])[0]["instances"]
    assert result.image_size == plain.image_size
    for name in ("scores", "pred_keypoints"):
        assert torch.equal(result.get(name), plain.get(name)), name
    assert torch.equal(result.pred_boxes.tensor, plain.pred_boxes.tensor)


def test_affine_views_are_flipped_exactly():
    """Flip testing is the model on the view's features and on those of its mirror image, flipped back."""
    model = tiny_model(iia=FIND_ALL).eval()
    pixels = picture(90, 130)["image"]
    view = affine_input(pixels)
    mirrored = {**view, "image": view["image"].flip(-1)}
    with torch.no_grad():
        maps = model.tta_maps([view, mirrored])
        features, centers = maps["features"].values, maps["centers"].values
        features = torch.stack([features[0], features[1].flip(-1)])
        centers = (centers[:1] + centers[1:].flip(-1)) / 2
        maps = {"features": ViewMaps(features, 4, "stack"), "centers": ViewMaps(centers, 4, "mean")}
        expected = model.tta_decode(maps, [view], [False, True])[0]["instances"]
    result = flip_testing(model, min_sizes=(96,), affine_resize=True)([{"image": pixels}])[0]["instances"]
    assert len(result) > 3
    assert torch.equal(result.pred_keypoints, expected.pred_keypoints)
    assert torch.equal(result.scores, expected.scores)


def test_it_offers_maps():
    assert isinstance(tiny_model(), SupportsMapTTA)


def test_flip_testing_of_a_symmetric_model_changes_nothing():
    model = symmetric_model()
    inputs = picture(64, 80)
    (plain,) = predict(model, [inputs])
    augmented = flip_testing(model)([inputs])[0]["instances"]
    assert_same(augmented, plain)
    # the model is not one whose results are the same whatever it sees
    (other,) = predict(model, [picture(64, 80, seed=5)])
    assert len(other) != len(plain) or not torch.equal(other.pred_keypoints, plain.pred_keypoints)


@pytest.mark.parametrize("index_coordinates", [False, True])
def test_one_view_is_the_model_itself(index_coordinates):
    model = tiny_model(iia=FIND_ALL, index_coordinates=index_coordinates)
    inputs = picture(64, 80)
    (plain,) = predict(model, [inputs])
    assert_same(flip_testing(model, flip=False)([inputs])[0]["instances"], plain)


def test_a_mirrored_image_gives_mirrored_results():
    """An image and its mirror image have the same views: the poses are mirrored, with left and right swapped."""
    # a mask is convolved after the features have been mirrored back, as released: the mirrored views' is another
    predictor = flip_testing(tiny_model(iia=FIND_ALL, oks_nms_thresh=1.0, gfd={"recalibration": ["channel"]}))
    inputs = picture(64, 80)
    result = predictor([inputs])[0]["instances"]
    mirrored = predictor([{**inputs, "image": inputs["image"].flip(-1)}])[0]["instances"]
    assert len(result) == len(mirrored) > 3
    torch.testing.assert_close(mirrored.scores, result.scores)
    back = mirrored.pred_keypoints[:, list(SCHEMA.flip_indices)]
    back[..., 0] = 80 - back[..., 0]
    torch.testing.assert_close(back, result.pred_keypoints, rtol=0, atol=1e-3)


def test_several_sizes_and_a_partial_cell():
    predictor = flip_testing(tiny_model(iia=FIND_ALL), min_sizes=(48, 64, 90))
    result = predictor([picture(70, 97)])[0]["instances"]
    assert result.image_size == (70, 97)
    assert len(result) > 0
    assert result.pred_keypoints.isfinite().all()
    no_people = flip_testing(tiny_model(iia={"score_thresh": 1.0}))([picture(70, 97)])[0]["instances"]
    assert len(no_people) == 0


# Configs


@BACKBONE_REGISTRY.register()
def build_patches_of_a_user(cfg, input_shape):
    return Patches(8)


def config(**keys):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CID"
    cfg.MODEL.BACKBONE.NAME = "build_patches_of_a_user"
    cfg.MODEL.CID.IN_FEATURES = ["patches"]
    schema_to_cfg(cfg, SCHEMA)
    for key, value in keys.items():
        assert key in cfg.MODEL.CID
        cfg.MODEL.CID[key] = value
    return cfg


def test_a_users_backbone_plugs_in_by_config_alone():
    model = build_model(config(CHANNELS=16, RECALIBRATION=["channel"], HEATMAP_LOSS_NORM="pooled"))
    assert isinstance(model, CID)
    assert model.stride == 8
    assert model.gfd.reduce.weight.shape == (16, CHANNELS, 1, 1)
    assert not model.gfd.spatial
    assert model.options.heatmap_loss_norm == "pooled"
    assert model.iia.heatmaps.weight.shape == (5, CHANNELS, 1, 1)
    assert model.train()([crowd(2)])["loss_single_heatmap"] > 0


def test_defaults():
    """Those of the paper, and of the release where the paper is silent or does not learn (Eq. 11)."""
    model = build_model(config())
    assert model.options.heatmap_loss_norm == "person"
    assert model.options.loss_weights == {"multi_heatmap": 1.0, "contrastive": 1.0, "single_heatmap": 4.0}
    assert (model.options.temperature, model.options.oks_nms_thresh, model.options.min_box_area) == (0.05, 0.8, 32**2)
    assert (model.iia.max_proposals, model.iia.score_thresh) == (30, 0.01)
    assert (model.options.smoothing, model.iia.smoothing) == (3, 3)
    assert model.gfd.spatial
    assert model.gfd.channel
    assert model.gfd.channel_weights is not None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "IN_FEATURES",
            ["concat"],
            r"IN_FEATURES: in_features: expected one output of the backbone, of \['patches'\], got",
        ),
        ("IN_FEATURES", ["patches", "patches"], "IN_FEATURES: in_features: expected one output"),
        ("RECALIBRATION", ["both"], "RECALIBRATION must name"),
        ("CHANNEL_WEIGHTS", "paper", "CHANNEL_WEIGHTS must be one of 'linear', 'feature', got 'paper'"),
        ("HEATMAP_LOSS_NORM", "image", "HEATMAP_LOSS_NORM must be one of 'pooled', 'person', got 'image'"),
        ("PRIOR_PROB", 1.0, "PRIOR_PROB must be between 0 and 1, both excluded, got 1.0"),
        ("MAX_INSTANCES", 0, "MAX_INSTANCES must be at least 1, got 0"),
        ("MAX_INSTANCES_PER_CHUNK", 0, "MAX_INSTANCES_PER_CHUNK must be at least 1, got 0"),
        ("MAX_PROPOSALS", 0, "MAX_PROPOSALS must be at least 1, got 0"),
        ("CHANNELS", 0, "CHANNELS must be at least 1, got 0"),
        ("TEMPERATURE", 0.0, "TEMPERATURE must be above 0, got 0.0"),
        ("TEMPERATURE", float("nan"), "TEMPERATURE must be above 0, got nan"),
        ("COORD_SCALE", -1.0, "COORD_SCALE must be above 0, got -1.0"),
        ("RADIUS_MIN_OVERLAP", 0.0, "RADIUS_MIN_OVERLAP must be between 0 and 1, both excluded, got 0.0"),
        ("RADIUS_MIN_OVERLAP", 1.5, "RADIUS_MIN_OVERLAP must be between 0 and 1, both excluded, got 1.5"),
        ("SCORE_THRESH", 2.0, "SCORE_THRESH must be from 0 to 1, got 2.0"),
        ("OKS_NMS_THRESH", -0.1, "OKS_NMS_THRESH must be from 0 to 1, got -0.1"),
        ("MIN_BOX_AREA", -5.0, "MIN_BOX_AREA must be at least 0, got -5.0"),
        ("WINDOW_THRESHOLDS", [200, -1], r"WINDOW_THRESHOLDS must be at least 0, got \[200, -1\]"),
        ("MULTI_HEATMAP_LOSS_WEIGHT", -1.0, "MULTI_HEATMAP_LOSS_WEIGHT must be at least 0, got -1.0"),
        ("CONTRASTIVE_LOSS_WEIGHT", -1.0, "CONTRASTIVE_LOSS_WEIGHT must be at least 0, got -1.0"),
        ("SINGLE_HEATMAP_LOSS_WEIGHT", -1.0, "SINGLE_HEATMAP_LOSS_WEIGHT must be at least 0, got -1.0"),
        ("SMOOTHING", 4, "SMOOTHING must be odd and at least 1, got 4"),
    ],
)
def test_refuses(key, value, message):
    with pytest.raises(ConfigError, match=message):
        build_model(config(**{key: value}))


def test_index_coordinates_of_a_config():
    assert build_model(config()).origin == 0.0
    assert build_model(config(INDEX_COORDINATES=True)).origin == 0.5


@pytest.mark.parametrize("width", [32, 48])
def test_ochuman_is_tested_as_released(width):
    for name, thresh, smoothing in (("140e_coco_to_ochuman", 0.7, 11), ("140e_ochuman", 0.7, 3), ("140e", 0.8, 3)):
        keys = load_config(f"configs/CID/HRNet_W{width}_{name}.yaml").MODEL.CID
        found_keys = (keys.OKS_NMS_THRESH, keys.SMOOTHING)
        assert found_keys == (thresh, smoothing)
    model = build_model(config(SMOOTHING=11))
    assert (model.options.smoothing, model.iia.smoothing) == (11, 11)


def test_parts_can_be_timed_apart():
    """The parts, run one after another, give the same result as the model."""
    model = tiny_model(iia=FIND_ALL, oks_nms_thresh=1.0).eval()
    assert isinstance(model.iia, InstanceAbstraction)
    inputs = [picture(64, 80)]
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)[model.in_feature]
        sizes = model.map_sizes(torch.tensor(images.image_sizes))
        found = model.iia.find_people(features, sizes)
        keypoints = model.locate(features, found, sizes)
    (result,) = predict(model, inputs)
    order = keypoints[..., 2].mean(dim=1).argsort(descending=True)
    torch.testing.assert_close(keypoints[order], result.pred_keypoints)
