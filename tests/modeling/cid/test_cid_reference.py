"""CID against outputs recorded from the authors' code (reference/cid)."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints
from reference_rule import assert_matches, rule_input, rule_state_dict

from dynpose.checkpoint import convert_released, detect_released
from dynpose.config import add_dynpose_config
from dynpose.data import COCO_PERSON, AffineResize, schema_to_cfg
from dynpose.data.affine import matrix_to_original
from dynpose.evaluation.predictions import collect_predictions, to_coco_results
from dynpose.layers.oks_nms import oks_nms
from dynpose.modeling.cid import People, targets
from dynpose.modeling.cid.abstraction import own_cells
from dynpose.modeling.cid.cid import to_result_size
from dynpose.modeling.test_time_augmentation import PoseTTA, ViewMaps, views

SIZES = torch.tensor([(32, 40)])
TRAIN_SIZES = torch.tensor([(32, 32)] * 2)


@pytest.fixture(scope="module")
def outputs(test_data):
    return np.load(test_data / "reference/cid/outputs.npz")


@pytest.fixture(scope="module")
def config(test_data):
    return json.loads((test_data / "reference/cid/config.json").read_text())


@pytest.fixture(scope="module")
def model(test_data):
    keys = json.loads((test_data / "reference/cid/keys.json").read_text())
    state = rule_state_dict(keys, {})
    # the fixture's override
    state["iia.keypoint_center_conv.bias"][-1] = -6.5
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CID"
    cfg.MODEL.BACKBONE.NAME = "build_hrnet_concat_backbone"
    # nothing is frozen: its norms would have no parameters
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.CID.HEATMAP_LOSS_NORM = "pooled"
    schema_to_cfg(cfg, COCO_PERSON)
    model = build_model(cfg)
    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    model.load_state_dict(converted)
    return model.eval()


def features_of(num_images):
    return rule_input(310, (num_images, 480, 32, 40))


def recorded(outputs, name, index):
    return {name: outputs[name][..., index]}


def test_parameter_counts(model, config):
    counts = config["param_counts"]
    ours = {"backbone": model.backbone, "iia": model.iia, "gfd": model.gfd, "total": model}
    for name, module in ours.items():
        assert sum(parameter.numel() for parameter in module.parameters()) == counts[name], name
    assert counts["total"] == 29_363_087


@torch.no_grad()
def test_backbone(model, outputs):
    maps = model.backbone(rule_input(300, (1, 3, 64, 64)))["concat"]
    assert_matches(maps, outputs, "backbone/out_64x64", rel=1e-4)


@torch.no_grad()
def test_people(model, outputs):
    features = features_of(1)
    assert_matches(model.iia(features), outputs, "eval/multi_heatmap", rel=1e-5)
    assert_matches(model.iia.centers(features)[0], outputs, "eval/center_map_img0", rel=1e-5)
    people = model.iia.find_people(features, SIZES)
    assert people.image_index.tolist() == outputs["eval/instance_imgid"].tolist()
    assert people.cells.flip(1).tolist() == outputs["eval/center_coord_yx"].tolist()
    assert_matches(people.scores, outputs, "eval/center_scores", rel=1e-5)
    assert_matches(people.features, outputs, "eval/instance_param", rel=1e-6)


@torch.no_grad()
def test_heatmaps_of_the_people(model, outputs):
    features = features_of(1)
    people = model.iia.find_people(features, SIZES)
    own = own_cells(SIZES, features)
    reduced = model.gfd.reduce(features)
    shared = model.gfd.prepare(features, own)
    logits = model.gfd.mask_logits(shared, people)
    assert_matches(logits, outputs, "eval/mask_logit", rel=1e-5)
    assert_matches(logits[0], outputs, "eval/mask_logit_inst0", rel=1e-5)
    # F_s and F_c, which the model itself never makes
    assert_matches(model.gfd.masks(shared, people) * reduced, outputs, "eval/s_attn", rel=1e-5)
    weights = model.gfd.channel_weights(people.features)[..., None, None]
    assert_matches(reduced * weights, outputs, "eval/c_attn", rel=1e-5)
    heatmaps = model.gfd(features, people, own)
    assert_matches(heatmaps, outputs, "eval/instance_heatmaps", rel=1e-5)
    assert_matches(heatmaps[0, :4], outputs, "eval/instance_heatmaps_inst0_k0to3", rel=1e-5)


def assert_poses(poses, outputs, name):
    """Positions in pixels, scores relative."""
    expected = outputs[name]
    assert_matches(poses[..., :2], {name: expected[..., :2]}, name, abs=1e-3)
    assert_matches(poses[..., 2], {name: expected[..., 2]}, name, rel=1e-4)


@torch.no_grad()
def test_poses(model, outputs):
    features = features_of(1)
    people = model.iia.find_people(features, SIZES)
    poses = model.locate(features, people, SIZES)
    assert_poses(poses, outputs, "eval/poses")
    assert_matches(poses[..., 2].mean(dim=1), outputs, "eval/scores", rel=1e-4)


def to_original(outputs, name):
    """The released test's geometry: the map of cells times four (width, height) onto the middle of the image."""
    width, _, center_x, center_y, *_ = outputs[f"{name}/mapped_300x420_base"]
    assert outputs[f"{name}/mapped_300x420_base"].tolist() == [192, 128, 210, 150, *_]
    scale = 300 / 128
    return np.array([[scale, 0, center_x - scale * width / 2], [0, scale, center_y - scale * 64]])


@pytest.fixture
def fed(model, monkeypatch):
    """Feed features to the model in place of the backbone's."""

    def feed(features):
        monkeypatch.setattr(model.backbone, "forward", lambda images: {"concat": features})
        return model

    return feed


@torch.no_grad()
def test_whole_inference(fed, outputs):
    """From the features to the results, resized to the original image, in the order of OKS-NMS."""
    inputs = {"image": torch.zeros(3, 128, 160), "height": 300, "width": 420}
    (result,) = fed(features_of(1))([inputs])
    result = result["instances"]
    kept = outputs["eval/oks_nms_keep"]
    assert len(result) == len(kept)
    poses = result.pred_keypoints / torch.tensor([420 / 160, 300 / 128, 1])
    assert_poses(poses, {"poses": outputs["eval/poses"][kept]}, "poses")
    assert_matches(result.scores, {"scores": outputs["eval/scores"][kept]}, "scores", rel=1e-4)
    assert result.image_size == (300, 420)
    corners = torch.cat([result.pred_keypoints.amin(dim=1)[:, :2], result.pred_keypoints.amax(dim=1)[:, :2]], dim=1)
    torch.testing.assert_close(result.pred_boxes.tensor, corners)


@pytest.mark.parametrize("name", ["eval", "eval_flip"])
def test_mapped_to_the_original_image(outputs, name):
    instances = Instances((128, 192))
    instances.pred_keypoints = torch.from_numpy(outputs[f"{name}/poses"])
    instances.pred_boxes = Boxes(torch.tensor([10.0, 10, 100, 100]).repeat(len(instances.pred_keypoints), 1))
    inputs = {"height": 300, "width": 420, "to_original": to_original(outputs, name)}
    mapped = to_result_size(instances, inputs).pred_keypoints
    assert_poses(mapped, outputs, f"{name}/mapped_300x420_poses")
    scores = torch.from_numpy(outputs[f"{name}/scores"])
    kept = oks_nms(mapped, scores, COCO_PERSON.sigmas, 0.8)
    assert kept.tolist() == outputs[f"{name}/oks_nms_keep"].tolist()


def in_results_file(instances):
    """(N, K, 3) keypoints as COCO's results file has them."""
    results = to_coco_results(collect_predictions(1, instances, 17, "coco"), [1], "coco")
    return np.reshape([result["keypoints"] for result in results], (-1, 17, 3))


# an image of 300 x 420 pixels becomes one of 128 x 192: half a pixel of it is 300 / 128 / 2 of the image
HALF_A_PIXEL = 150 / 128


@torch.no_grad()
@pytest.mark.parametrize(("index_coordinates", "error"), [(True, 0), (False, -HALF_A_PIXEL)])
@pytest.mark.parametrize("name", ["eval", "eval_flip"])
def test_the_results_file_is_the_releases(fed, outputs, monkeypatch, name, index_coordinates, error):
    """The released code writes its mapped poses as they are: COCO's pixel indices."""
    model = fed(features_of(1))
    monkeypatch.setattr(model, "origin", 0.5 if index_coordinates else 0.0)
    # as from the mapper, in continuous pixels
    transforms = T.AugmentationList([AffineResize(128)])(T.AugInput(np.zeros((300, 420, 3), np.uint8)))
    pixels = {"height": 300, "width": 420, "to_original": matrix_to_original(transforms)}
    inputs = [{"image": torch.zeros(3, 128, 160), **pixels}]
    (result,) = model(inputs) if name == "eval" else model.tta_decode(flipped_maps(model), inputs, [False, True])
    written = in_results_file(result["instances"])
    expected = outputs[f"{name}/mapped_300x420_poses"][outputs[f"{name}/oks_nms_keep"]]
    assert written.shape == expected.shape
    np.testing.assert_allclose(written[..., :2] - expected[..., :2], error, rtol=0, atol=2e-3)
    np.testing.assert_allclose(written[..., 2], expected[..., 2], rtol=1e-4, atol=1e-6)


def flipped_maps(model):
    """What PoseTTA hands to ``tta_decode``: nothing is mirrored any more but the joints of the second view."""
    features = features_of(2)
    features[1] = features[1].flip(-1)
    centers = model.iia.centers(features).mean(dim=0)[None, None]
    return {"features": ViewMaps(features, 4, "stack"), "centers": ViewMaps(centers, 4, "mean")}


@torch.no_grad()
def test_flipped_views(model, outputs):
    # the recorded multi-person maps are those of the mirrored-back features
    maps = flipped_maps(model)
    features = maps["features"].values
    assert_matches(model.iia(features), outputs, "eval_flip/multi_heatmap", rel=1e-5)
    _, cells, scores = model.iia.peaks(maps["centers"].values[:, 0], SIZES)
    assert_matches(scores, outputs, "eval_flip/center_scores", rel=1e-5)
    assert cells.repeat(2, 1).flip(1).tolist() == outputs["eval_flip/center_coord_yx"].tolist()
    views = torch.arange(2).repeat_interleave(len(cells))
    assert views.tolist() == outputs["eval_flip/instance_imgid"].tolist()
    people = People.at(features, views, cells.repeat(2, 1))
    assert_matches(people.features, outputs, "eval_flip/instance_param", rel=1e-6)
    own = own_cells(SIZES.repeat(2, 1), features)
    assert_matches(model.gfd(features, people, own), outputs, "eval_flip/instance_heatmaps", rel=1e-5)

    (result,) = model.tta_decode(maps, [{"image": torch.zeros(3, 128, 160)}], [False, True])
    result = result["instances"]
    kept = outputs["eval_flip/oks_nms_keep"]
    assert_poses(result.pred_keypoints, {"poses": outputs["eval_flip/poses"][kept]}, "poses")
    assert_matches(result.scores, {"scores": outputs["eval_flip/scores"][kept]}, "scores", rel=1e-4)


@torch.no_grad()
def test_flip_testing_of_an_image(fed, outputs, monkeypatch):
    """An image of 256 x 320 pixels at half its size, whose features and those of its mirror image are the recorded."""
    seen = []

    def backbone(images):
        seen.append(images)
        return {"concat": features_of(2)}

    model = fed(None)
    monkeypatch.setattr(model.backbone, "forward", backbone)
    # 160 pixels are no multiple of 64
    monkeypatch.setattr(views, "AffineResize", partial(AffineResize, multiple=32))
    predictor = PoseTTA(model, schema=COCO_PERSON, min_sizes=(128,), max_size=1000, merge="maps", affine_resize=True)
    pixels = torch.randint(0, 256, (3, 256, 320), generator=torch.manual_seed(0), dtype=torch.uint8)
    result = predictor([{"image": pixels}])[0]["instances"]
    (images,) = seen
    assert images.shape == (2, 3, 128, 160)
    assert torch.equal(images[1], images[0].flip(-1))
    kept = outputs["eval_flip/oks_nms_keep"]
    # the warp takes pixel index i of the image to i / 2, and continuous pixel x to x / 2 + 0.25
    poses = torch.cat([result.pred_keypoints[..., :2] / 2 + 0.25, result.pred_keypoints[..., 2:]], dim=2)
    assert_poses(poses, {"poses": outputs["eval_flip/poses"][kept]}, "poses")
    assert_matches(result.scores, {"scores": outputs["eval_flip/scores"][kept]}, "scores", rel=1e-4)


# Training


def train_instances(outputs):
    instances = []
    for image in range(2):
        people = Instances((128, 128))
        x, y, width, height = torch.from_numpy(outputs[f"train/tgt{image}/bbox_xywh"]).float().unbind(dim=1)
        left, top, right, bottom = 4 * x, 4 * y, 4 * (x + width), 4 * (y + height)
        people.gt_boxes = Boxes(torch.stack([left, top, right, bottom], dim=1))
        # one reaches beyond the image; the dataset mapper clips
        people.gt_boxes.clip(people.image_size)
        corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
        people.gt_box_corners = torch.stack([torch.stack(point, dim=1) for point in corners], dim=1)
        keypoints = torch.from_numpy(outputs[f"train/tgt{image}/keypoints"]).float()
        keypoints[..., :2] *= 4
        people.gt_keypoints = Keypoints(keypoints)
        people.gt_classes = torch.zeros(len(keypoints), dtype=torch.int64)
        instances.append(people)
    return instances


# x then y of each person who is kept, in every image anew, from small to large; here in the order of annotation
JITTER = torch.tensor([[0, 0], [-1, 0], [0, 1], [-1, 0], [0, 1]])


@pytest.fixture
def recorded_areas(outputs, monkeypatch):
    """The recorded areas, which are not those of the recorded boxes: they tell people apart by their order."""
    areas = torch.cat([torch.from_numpy(outputs[f"train/tgt{image}/area"]).float() for image in range(2)])
    monkeypatch.setattr(targets, "_areas", lambda corners: areas)


def ignore_mask():
    mask = torch.zeros(128, 128, dtype=torch.uint8)
    mask[27 * 4 :, : 5 * 4] = 1
    return mask


@pytest.mark.usefixtures("recorded_areas")
def test_targets(outputs):
    multi, people = targets.build_targets(
        train_instances(outputs), num_keypoints=17, size=(32, 32), sizes=TRAIN_SIZES, stride=4, jitter=JITTER
    )
    for image in range(2):
        name = f"train/tgt{image}"
        own = people[people.image_index == image]
        assert own.cells.flip(1).tolist() == outputs[f"{name}/instance_coord_yx"].tolist()
        assert own.labelled.float().tolist() == outputs[f"{name}/instance_mask"].tolist()
        heatmaps = own.heatmaps((32, 32))
        assert_matches(heatmaps, outputs, f"{name}/instance_heatmap", rel=1e-6)
        assert_matches(heatmaps.sum(dim=(2, 3)), outputs, f"{name}/instance_heatmap_sum", rel=1e-6)
        assert_matches(heatmaps[0, 0], outputs, f"{name}/instance_heatmap_p0k0", abs=1e-6)
        assert_matches(multi[image], outputs, f"{name}/multi_heatmap", rel=1e-6)
        assert_matches(multi[image].sum(dim=(1, 2)), outputs, f"{name}/multi_heatmap_sum_per_ch", rel=1e-6)
        assert_matches(multi[image, -1], outputs, f"{name}/center_heatmap", abs=1e-6)
        learnt = targets.learnt_cells([ignore_mask()] * 2, TRAIN_SIZES, multi, 4)
        assert (~learnt[image]).sum() == outputs[f"{name}/multi_mask_zero_count"]


def test_radii(outputs):
    table = torch.from_numpy(outputs["train/radius_examples_ceil_h_w_radius"])
    signs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    corners = signs * table[:, None, [1, 0]]
    assert targets.gaussian_radii(corners).tolist() == table[:, 2].tolist()
    # sides are rounded up to cells
    assert targets.gaussian_radii(corners - 0.75 * signs).tolist() == table[:, 2].tolist()
    # of a box at an angle, by its own sides
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    assert targets.gaussian_radii(corners.float() @ turn).tolist() == table[:, 2].tolist()


@pytest.mark.usefixtures("recorded_areas")
@pytest.mark.parametrize("chunk", [32, 3, 1])
def test_losses_and_gradients(model, outputs, chunk, monkeypatch):
    monkeypatch.setattr(model, "options", replace(model.options, max_instances_per_chunk=chunk))
    features = rule_input(320, (2, 480, 32, 32), 0.4) + rule_input(321, (1, 480, 1, 1), 1.2)
    features.requires_grad_()
    losses = model.losses(features, TRAIN_SIZES, train_instances(outputs), [ignore_mask()] * 2, JITTER)
    assert list(losses) == ["loss_multi_heatmap", "loss_contrastive", "loss_single_heatmap"]
    for name, loss in losses.items():
        released = f"train/loss/{name.removeprefix('loss_')}_loss"
        assert loss.item() == pytest.approx(outputs[released].item(), rel=1e-5), name
    total = sum(losses.values())
    assert total.item() == pytest.approx(outputs["train/loss/total"].item(), rel=1e-5)

    model.zero_grad()
    total.backward()
    parameters = {
        "iia.keypoint_center_conv.weight": model.iia.heatmaps.weight,
        "gfd.conv_down.weight": model.gfd.reduce.weight,
        "gfd.c_attn.atn.weight": model.gfd.channel_weights.weight,
        "gfd.s_attn.atn.weight": model.gfd.similarity_weights.weight,
        "gfd.s_attn.conv.weight": model.gfd.mask.weight,
        "gfd.heatmap_conv.weight": model.gfd.heatmaps.weight,
        "gfd.fuse_attn.weight": model.gfd.fuse.weight,
        "features": features,
    }
    assert {f"train/grad_{name}" for name in parameters} == {
        name for name in outputs.files if name.startswith("train/grad_")
    }
    for name, parameter in parameters.items():
        norm, total = outputs[f"train/grad_{name}"]
        gradient = parameter.grad.double()
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4), name
        # a sum of terms that cancel: measured against their size
        assert gradient.sum().item() == pytest.approx(total, rel=1e-4, abs=1e-5 * gradient.abs().sum().item()), name
