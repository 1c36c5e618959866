"""The released variant against outputs recorded from the authors' code (reference/fcpose)."""

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
from dynpose.modeling.fcos import Locations, assign_targets, flatten_levels, sample_positives
from dynpose.modeling.keypoint_maps import gaussian_heatmaps

LEVELS = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
EVAL_IMAGES = ImageList(torch.zeros(1, 3, 128, 192), [(120, 180)])
TRAIN_IMAGES = ImageList(torch.zeros(2, 3, 128, 192), [(120, 180), (128, 192)])


@pytest.fixture(scope="module")
def outputs(test_data):
    return np.load(test_data / "reference/fcpose/outputs.npz")


@pytest.fixture(scope="module")
def make_model(test_data):
    folder = test_data / "reference/fcpose"
    shapes = json.loads((folder / "keys.json").read_text())
    config = json.loads((folder / "config.json").read_text())

    def make(overrides="overrides", **changes):
        cfg = load_config("configs/FCPose/R_50_3x_release.yaml")
        cfg.MODEL.DEVICE = "cpu"
        schema_to_cfg(cfg, COCO_PERSON)
        for key, value in changes.items():
            cfg.MODEL.FCPOSE[key] = value
        model = build_model(cfg)
        constants = {"proposal_generator.fcpose_head.sizes_of_interest": [64, 128, 256, 512, 1333]}
        released = rule_state_dict(shapes, {**constants, **config[overrides]})
        converted, unknown = convert_released(released, detect_released(released))
        assert not unknown
        loaded = model.load_state_dict(converted, strict=False)
        assert not loaded.unexpected_keys
        assert all(key.startswith("backbone.") for key in loaded.missing_keys)
        return model

    return make


def eval_features():
    return [rule_input(101 + i, (1, 256, *size)) for i, size in enumerate(LEVELS)]


def train_features():
    return [rule_input(201 + i, (2, 256, *size)) for i, size in enumerate(LEVELS)]


def train_instances(outputs):
    instances = []
    for i, size in enumerate(TRAIN_IMAGES.image_sizes):
        people = Instances(size)
        people.gt_boxes = Boxes(torch.from_numpy(outputs[f"train/gt{i}/boxes"]))
        people.gt_keypoints = Keypoints(torch.from_numpy(outputs[f"train/gt{i}/keypoints"]))
        people.gt_classes = torch.zeros(len(people.gt_boxes), dtype=torch.int64)
        instances.append(people)
    return instances


@torch.no_grad()
def test_head_outputs(make_model, outputs):
    model = make_model().eval()
    features = eval_features()
    predictions = model.head(features)
    for level in range(5):
        assert_matches(predictions.logits[level], outputs, f"eval/p{level + 3}/cls_logits", rel=1e-4)
        assert_matches(predictions.distances[level], outputs, f"eval/p{level + 3}/reg", rel=1e-4)
        assert_matches(predictions.centerness[level], outputs, f"eval/p{level + 3}/ctrness", rel=1e-4)
    merged, projected = model.basis(features[:3])
    assert_matches(projected, outputs, "eval/basis_out_66ch", rel=1e-4)
    _, coarse = model.aux_heatmaps(merged)
    assert_matches(coarse, outputs, "eval/basis_seg", rel=1e-4)


@torch.no_grad()
def test_generated_networks(make_model, outputs):
    model = make_model().eval()
    features = eval_features()
    predictions = model.head(features)
    locations = Locations.of(features, model.detector.strides)
    index = model.detector.decoder(predictions, locations)[0].index
    assert torch.equal(locations.points[index], torch.from_numpy(outputs["eval/locations"]))
    assert torch.equal(locations.level[index], torch.from_numpy(outputs["eval/fpn_levels"]))

    _, maps, _ = model._maps(features)
    nets, _ = model._generate(maps, predictions.box_tower, locations, index)
    assert_matches(nets.params, outputs, "eval/params", rel=1e-4)
    assert_matches(nets.params[:3], outputs, "eval/params_first3", rel=1e-4)
    logits = nets.heatmaps()
    assert_matches(logits, outputs, "eval/logits_s8", rel=1e-4)
    assert_matches(logits[0], outputs, "eval/logits_s8_det0", rel=1e-4)
    assert_matches(nets.peaks().values, {"peaks": outputs["eval/keypoints"][..., 2]}, "peaks", rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("overrides", "record"), [("overrides", "eval"), ("overrides_of_eval_nms", "eval_nms")])
def test_detections(make_model, outputs, overrides, record):
    model = make_model(overrides).eval()
    features = eval_features()
    (instances,) = model.forward_inference(EVAL_IMAGES, features, model.head(features))
    assert_matches(instances.pred_boxes.tensor, outputs, f"{record}/boxes", abs=1e-3)
    assert_matches(instances.scores, outputs, f"{record}/scores", abs=1e-3)
    recorded = {"points": outputs[f"{record}/keypoints"][..., :2]}
    assert_matches(instances.pred_keypoints[..., :2], recorded, "points", abs=1e-3)


@torch.no_grad()
def test_detections_kept_and_thresholded(make_model, outputs):
    model = make_model("overrides_of_eval_nms").eval()
    features = eval_features()
    predictions = model.head(features)
    locations = Locations.of(features, model.detector.strides)

    model.detector.decoder.post_nms_topk = 1000
    found, _ = model.detector.decoder(predictions, locations)
    assert len(found.index) == outputs["eval_nms/num_candidates_and_after_nms"][1]
    model.detector.decoder.post_nms_topk = 20
    found, _ = model.detector.decoder(predictions, locations)
    assert_matches(found.scores, outputs, "eval_nms_top20/scores", abs=1e-3)
    assert torch.equal(locations.points[found.index], torch.from_numpy(outputs["eval_nms_top20/locations"]))
    model.detector.decoder.post_nms_topk = 100
    model.detector.decoder.thresh_with_centerness = True
    found, _ = model.detector.decoder(predictions, locations)
    assert_matches(found.scores, outputs, "eval_nms_thresh_with_ctr/scores", abs=1e-3)


@torch.no_grad()
def test_postprocessed(make_model, outputs):
    model = make_model().eval()
    features = eval_features()
    model.backbone.forward = lambda images: dict(zip(model.head_in_features, features))
    (result,) = model([{"image": torch.zeros(3, 120, 180), "height": 240, "width": 450}])
    result = result["instances"]
    assert_matches(result.pred_boxes.tensor, outputs, "eval/post_240x450/boxes", abs=1e-3)
    assert_matches(result.scores, outputs, "eval/post_240x450/scores", abs=1e-3)
    recorded = {"points": outputs["eval/post_240x450/keypoints"][..., :2]}
    assert_matches(result.pred_keypoints[..., :2], recorded, "points", abs=1e-3)


def test_training_targets(make_model, outputs):
    model = make_model()
    features = train_features()
    locations = Locations.of(features, model.detector.strides)
    instances = train_instances(outputs)
    targets = assign_targets(
        locations, instances, sizes_of_interest=[64, 128, 256, 512], num_classes=1, center_sampling_radius=1.5
    )
    positives = targets.positives
    assert positives.tolist() == outputs["train/pos_inds"].tolist()
    assert targets.matched[positives].tolist() == outputs["train/pos_gt_inds"].tolist()
    assert locations.level[positives].tolist() == outputs["train/pos_levels"].tolist()
    assert locations.image[positives].tolist() == outputs["train/pos_im_inds"].tolist()
    assert_matches(targets.distances[positives], outputs, "train/pos_reg_targets", abs=1e-5)
    assert_matches(targets.centerness, outputs, "train/pos_ctr_targets", abs=1e-6)

    with torch.no_grad():
        predictions = model.head(features)
    scores = (flatten_levels(predictions.logits).sigmoid() * flatten_levels(predictions.centerness).sigmoid())[
        positives
    ]
    for cap, record in ((70, "train"), (20, "train_maxprop20")):
        chosen = positives[sample_positives(targets.matched[positives], scores.squeeze(1), cap)]
        points = [tuple(point) for point in locations.points[chosen].tolist()]
        people = targets.matched[chosen].tolist()
        recorded = [tuple(point) for point in outputs[f"{record}/sel_locations"].tolist()]
        assert sorted(zip(people, points)) == sorted(zip(outputs[f"{record}/sel_gt_inds"].tolist(), recorded))


def test_gaussian_targets(outputs):
    for i in range(2):
        keypoints = torch.from_numpy(outputs[f"train/gt{i}/keypoints"])
        alone = torch.arange(len(keypoints))
        fine = gaussian_heatmaps(keypoints, alone, num_images=len(alone), size=(64, 96), stride=2, sigma=1.8)
        coarse = gaussian_heatmaps(keypoints, alone, num_images=len(alone), size=(16, 24), stride=8, sigma=0.9)
        assert_matches(fine, outputs, f"train/gt{i}/keypoint_heatmap", rel=1e-5)
        sums = {"sums": outputs[f"train/gt{i}/keypoint_heatmap_sum_per_kpt"]}
        assert_matches(fine.sum(dim=(2, 3)), sums, "sums", rel=1e-5)
        assert_matches(coarse, outputs, f"train/gt{i}/p3_output_list", rel=1e-5)


@pytest.mark.parametrize(("max_samples", "record"), [(70, "train"), (20, "train_maxprop20")])
def test_losses(make_model, outputs, max_samples, record):
    model = make_model(MAX_SAMPLES=max_samples).train()
    features = train_features()
    losses = model.forward_training(TRAIN_IMAGES, features, model.head(features), train_instances(outputs))
    names = {
        "loss_fcos_cls": "loss_fcos_cls",
        "loss_fcos_box": "loss_fcos_loc",
        "loss_fcos_centerness": "loss_fcos_ctr",
        "loss_heatmap": "loss_keypoint",
        "loss_offset": "loss_direction",
        "loss_aux_fine": "p1_loss",
        "loss_aux_coarse": "p3_loss",
    }
    assert losses.keys() == names.keys()
    for name, recorded in names.items():
        assert losses[name].item() == pytest.approx(outputs[f"{record}/loss/{recorded}"].item(), rel=1e-4), name


def test_gradients_and_running_statistics(make_model, outputs):
    model = make_model().train()
    features = train_features()
    features[0].requires_grad_()
    losses = model.forward_training(TRAIN_IMAGES, features, model.head(features), train_instances(outputs))
    sum(losses.values()).backward()
    gradients = {
        "bbox_tower.0.weight": model.head.box_tower[0].weight,
        "cls_logits.weight": model.head.cls_logits.weight,
        "atten_producer.weight": model.controller.linear.weight,
        "tower.4.weight": model.basis.project.weight,
        "upsampler.0.weight": model.aux_heatmaps.upsample.weight,
        "refine.0.0.weight": model.basis.lateral[0].weight,
        "train/grad_input_p3": features[0],
    }
    for ending, parameter in gradients.items():
        (record,) = (key for key in outputs.files if key.startswith("train/grad_") and key.endswith(ending))
        gradient = parameter.grad.double()
        norm, total = outputs[record]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4), ending
        # a sum of either sign is as exact as the gradient: convolutions are rounded otherwise on other processors
        assert gradient.sum().item() == pytest.approx(total, rel=1e-4, abs=3e-4 * norm), ending
    prefix = "train/after/proposal_generator.basis_module."
    assert_matches(model.basis.lateral[0].norm.running_mean, outputs, prefix + "refine.0.1.running_mean", rel=1e-4)
    assert_matches(model.basis.tower[0].norm.running_var, outputs, prefix + "tower.0.1.running_var", rel=1e-4)
