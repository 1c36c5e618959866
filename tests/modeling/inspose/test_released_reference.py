"""InsPose's released variant against outputs recorded from the authors' code (reference/inspose)."""

import json

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances, Keypoints
from reference_rule import assert_matches, rule_input, rule_state_dict

from dynpose.checkpoint import convert_released, detect_released
from dynpose.config import load_config
from dynpose.data import COCO_PERSON, schema_to_cfg
from dynpose.layers.nms import soft_nms
from dynpose.modeling.fcos import FCOSPredictions, Locations, assign_targets
from dynpose.modeling.inspose import released
from dynpose.modeling.inspose.released_losses import gaussian_radii, gaussian_targets, keypoint_qualities
from dynpose.modeling.keypoint_maps import gather_keypoints

LEVELS = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
EVAL_IMAGES = ImageList(torch.zeros(1, 3, 128, 192), [(120, 180)])
TRAIN_IMAGES = ImageList(torch.zeros(2, 3, 128, 192), [(128, 192), (128, 192)])


@pytest.fixture(scope="module")
def outputs(test_data):
    return np.load(test_data / "reference/inspose/outputs.npz")


@pytest.fixture(scope="module")
def model(test_data):
    folder = test_data / "reference/inspose"
    shapes = json.loads((folder / "keys.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    cfg = load_config("configs/InsPose/R_50_3x_release.yaml", ["MODEL.DEVICE", "cpu"])
    schema_to_cfg(cfg, COCO_PERSON)
    model = build_model(cfg)
    state = rule_state_dict(shapes, config["overrides"])
    converted, unknown = convert_released(state, detect_released(state))
    assert not unknown
    loaded = model.load_state_dict(converted, strict=False)
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if not key.startswith("backbone.")]
    return model


@pytest.fixture(scope="module")
def eval_features():
    return [rule_input(501 + i, (1, 256, *size)) for i, size in enumerate(LEVELS)]


@pytest.fixture(scope="module")
def eval_predictions(model, eval_features):
    with torch.no_grad():
        return model.head(eval_features)


def train_features():
    return [rule_input(521 + i, (2, 256, *size)) for i, size in enumerate(LEVELS)]


def train_instances(outputs):
    instances = []
    for i, size in enumerate(TRAIN_IMAGES.image_sizes):
        people = Instances(size)
        people.gt_keypoints = Keypoints(torch.from_numpy(outputs[f"train/gt{i}/keypoints"]))
        # the model makes its own boxes around the keypoints
        people.gt_boxes = Boxes(torch.tensor([0.0, 0, 192, 128]).repeat(len(people.gt_keypoints), 1))
        people.gt_classes = torch.zeros(len(people.gt_boxes), dtype=torch.int64)
        people.gt_areas = torch.from_numpy(outputs[f"train/gt{i}/mask_area"].astype(np.float32))
        instances.append(people)
    return instances


@torch.no_grad()
def test_head_outputs(model, outputs, eval_features, eval_predictions):
    locations = Locations.of(eval_features, model.detector.strides)
    params = model.controller(eval_predictions.controller_maps, locations, torch.arange(len(locations)))
    for level in range(5):
        assert_matches(eval_predictions.logits[level], outputs, f"eval/l{level}/cls", rel=1e-4)
        assert_matches(eval_predictions.offsets[level], outputs, f"eval/l{level}/offset", rel=1e-4)
        dense = params[locations.level == level].T.reshape(1, -1, *LEVELS[level])
        assert_matches(dense, outputs, f"eval/l{level}/controller", rel=1e-4)


@torch.no_grad()
def test_branches_on_p3(model, outputs, eval_features):
    keypoint_features = model.keypoint_features(eval_features[0])
    assert_matches(keypoint_features, outputs, "eval/shared_feat", rel=1e-4)
    assert_matches(keypoint_features[0, 0], outputs, "eval/shared_feat_ch0", rel=1e-4)
    features = model.aux_branch.features(eval_features[0])
    offsets = model.aux_branch.offsets(features)
    assert_matches(model.aux_branch.heatmaps(features), outputs, "eval/hm_logit_s4", rel=1e-4)
    assert_matches(model.aux_branch.tags(features), outputs, "eval/ae_s4", rel=1e-4)
    assert_matches(offsets.flatten(1, 2), outputs, "eval/hm_offset_s4", rel=1e-4)
    assert_matches(offsets[0, 0], outputs, "eval/hm_offset_s4_k0", rel=1e-4)


@torch.no_grad()
def test_generated_networks(model, outputs, eval_features, eval_predictions):
    locations = Locations.of(eval_features, model.detector.strides)
    candidates = model.detector.decoder.candidates(FCOSPredictions(eval_predictions.logits, [], [], []), locations)
    assert len(candidates.index) == outputs["eval/num_candidates_over_thr"]
    sizes = torch.tensor(EVAL_IMAGES.image_sizes)
    boxes = model._regressed_boxes(eval_predictions, locations, candidates.index, sizes)
    found, _ = model._select(candidates, boxes, num_images=1)
    nets = model._generate(eval_features, eval_predictions, locations, found.index)
    assert nets.spec.num_params == 313
    logits = nets.heatmaps()
    assert_matches(logits, outputs, "eval/kpnet_logits_s8", rel=1e-4)
    assert_matches(logits[0], outputs, "eval/kpnet_logits_s8_det0", rel=1e-4)
    coords = nets[:1].cell_inputs(torch.arange(16 * 24)[None])[0, :, -2:]
    assert_matches(coords.T.reshape(2, 16, 24), outputs, "eval/relcoord_det0", abs=1e-6)


@torch.no_grad()
def test_detections(model, outputs, eval_features, eval_predictions):
    (instances,) = model.forward_inference(EVAL_IMAGES, eval_features, eval_predictions)
    detections = torch.cat([instances.pred_boxes.tensor, instances.scores[:, None]], dim=1)
    assert_matches(detections[:, :4], {"boxes": outputs["eval/det_boxes_scores"][:, :4]}, "boxes", abs=1e-2)
    assert_matches(detections[:, 4], {"scores": outputs["eval/det_boxes_scores"][:, 4]}, "scores", abs=1e-5)
    points = {"points": outputs["eval/det_keypoints"][..., :2]}
    assert_matches(instances.pred_keypoints[..., :2], points, "points", abs=1e-2)


@torch.no_grad()
def test_postprocessed(model, outputs, eval_features, monkeypatch):
    """At half the size; detectron2's continuous coordinates are half a pixel more than COCO's indices."""
    named = dict(zip(model.head_in_features, eval_features))
    monkeypatch.setattr(model.backbone, "forward", lambda images: named)
    model.eval()
    (result,) = model([{"image": torch.zeros(3, 120, 180), "height": 60, "width": 90}])
    result = result["instances"]
    boxes = np.clip(outputs["eval_rescale2/det_boxes_scores"][:, :4] + 0.5, 0, [90, 60, 90, 60])
    assert_matches(result.pred_boxes.tensor, {"boxes": boxes}, "boxes", abs=1e-2)
    points = {"points": outputs["eval_rescale2/det_keypoints"][..., :2] + 0.5}
    assert_matches(result.pred_keypoints[..., :2], points, "points", abs=1e-2)


def test_training_targets(model, outputs):
    features = train_features()
    locations = Locations.of(features, model.detector.strides)
    instances = train_instances(outputs)
    keypoints, image_index = gather_keypoints(instances, 17)
    pseudo = [released.with_pseudo_boxes(people) for people in instances]
    boxes = torch.cat([people.gt_boxes.tensor for people in pseudo])
    recorded = np.concatenate([outputs[f"train/gt{i}/pseudo_boxes"] for i in range(2)])
    assert_matches(boxes, {"boxes": recorded}, "boxes", abs=1e-4)

    targets = assign_targets(locations, pseudo, sizes_of_interest=[64, 128, 256, 512], num_classes=1)
    index, person = targets.positives, targets.matched[targets.positives]
    assert index.tolist() == outputs["train/pos_inds"].tolist()
    assert locations.image[index].tolist() == outputs["train/pos_img_inds"].tolist()
    first_of_image = torch.tensor([0, 3])
    assert (person - first_of_image[image_index[person]]).tolist() == outputs["train/pos_ins_inds"].tolist()

    with torch.no_grad():
        nets = model._generate(features, model.head(features), locations, index)
        areas = torch.cat([people.gt_areas for people in instances])[person]
        qualities = keypoint_qualities(
            nets.peaks().indices, keypoints[person], areas, COCO_PERSON.sigmas, stride=8, width=24
        )
    for image in range(2):
        assert_matches(qualities[locations.image[index] == image], outputs, f"train/oks_img{image}", abs=1e-5)

    radii = gaussian_radii(boxes, stride=4)
    maps = gaussian_targets(keypoints, image_index, radii, num_images=2, size=(32, 48), stride=4)
    assert_matches(maps, outputs, "train/hm_target", rel=1e-5)
    assert_matches(maps.sum(dim=(2, 3)), outputs, "train/hm_target_sum_per_img_kpt", rel=1e-5)
    assert_matches(maps[0, 0], outputs, "train/hm_target_img0_k0", rel=1e-5)


def test_gaussian_radii(outputs):
    table = torch.from_numpy(outputs["train/radius_table_h_w_hm_offset"])
    boxes = torch.cat([torch.zeros(len(table), 2), table[:, [1, 0]].float()], dim=1)
    radii = gaussian_radii(boxes, stride=1)
    assert radii.tolist() == table[:, 2].tolist() == table[:, 3].tolist()


def test_losses_and_gradients(model, outputs):
    model.train()
    features = train_features()
    features[0].requires_grad_()
    losses = model.forward_training(TRAIN_IMAGES, features, model.head(features), train_instances(outputs))
    names = ("cls", "keypoint", "keypoint_reg", "heatmap", "ae_pull", "ae_push", "heatmap_offset")
    assert list(losses) == [f"loss_{name}" for name in names]
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(outputs[f"train/loss/{name}"].item(), rel=1e-4), name
    total = sum(losses.values())
    assert total.item() == pytest.approx(outputs["train/loss/total"].item(), rel=1e-4)

    total.backward()
    gradients = {
        "controller.weight": model.controller.linear.weight,
        "kpt_offset.weight": model.head.keypoint_offsets.weight,
        "cls_star_conv.weight": model.head.cls_star.weight,
        "ctr_star_conv.weight": model.head.controller_star.weight,
        "conv_cls.weight": model.head.cls_logits.weight,
        "shared_convs.4.conv.weight": model.keypoint_features.project.weight,
        "hm_offset.weight": model.aux_branch.disk_offsets.weight,
        "hm_pred.weight": model.aux_branch.heatmaps.weight,
        "ae_pred.weight": model.aux_branch.tags.weight,
        "kpt_convs.0.conv.weight": model.head.regression_tower[0].weight,
        "p3": features[0],
    }
    assert {f"train/grad_{name}" for name in gradients} == {
        name for name in outputs.files if name.startswith("train/grad_")
    }
    for name, parameter in gradients.items():
        norm, total = outputs[f"train/grad_{name}"]
        gradient = parameter.grad.double()
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), name
        # a sum of terms that cancel: measured against their size
        assert gradient.sum().item() == pytest.approx(total, rel=1e-3, abs=1e-4 * gradient.abs().sum().item()), name


def test_soft_nms(outputs):
    boxes, scores = (torch.from_numpy(outputs[f"soft_nms/{name}"]) for name in ("boxes", "scores"))
    kept, lowered = soft_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64))
    assert kept.tolist() == outputs["soft_nms/keep"].tolist()
    assert_matches(torch.cat([boxes[kept], lowered[:, None]], dim=1), outputs, "soft_nms/dets", abs=1e-5)


def test_parameter_counts(model, test_data):
    counts = json.loads((test_data / "reference/inspose/config.json").read_text())["param_counts"]
    ours = {
        "cls_convs": model.head.cls_tower,
        "ctrl_convs": model.head.controller_tower,
        "shared_convs": model.keypoint_features,
        "kpt_convs": model.head.regression_tower,
        "conv_cls": model.head.cls_logits,
        "controller": model.controller,
        "kpt_offset": model.head.keypoint_offsets,
        "hm_pred": model.aux_branch.heatmaps,
        "ae_pred": model.aux_branch.tags,
        "hm_offset": model.aux_branch.disk_offsets,
    }
    for name, module in ours.items():
        assert sum(p.numel() for p in module.parameters()) == counts[name], name
    total = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("backbone."))
    assert total == counts["total"]
