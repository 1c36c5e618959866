"""Ground truth and predictions are small and synthetic; the values that tests expect are worked out by hand, or are
what pycocotools or detectron2 make of the same files."""

import contextlib
import copy
import io
import json
import logging
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset, print_csv_format, verify_results
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from processes import run_in_processes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_evaluations import coco, evaluate, person, predict

from dynpose.config import add_dynpose_config
from dynpose.data import COCO_PERSON, DEFAULT_SIGMA, DatasetError, KeypointSchema, register_pose_dataset
from dynpose.evaluation import PoseEvaluator

BACKENDS = ("faster", "pycocotools")
KEYPOINT_METRICS = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
BOX_METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def random_people(seed, num_keypoints, num_images=40, num_categories=1, per_image=25):
    """Ground truth of all sizes with crowds and people without keypoints, and predictions from near to far off.

    Scores have two decimals, so that many are equal; coordinates are quarters, which nothing rounds.
    """
    rng = np.random.default_rng(seed)
    annotations, predictions = [], {}
    for image_id in range(1, num_images + 1):
        here = []
        for _ in range(rng.integers(0, 7)):
            corner, size = rng.integers(0, 400, 2), rng.integers(15, 300, 2)
            points = corner + np.round(size * rng.random((num_keypoints, 2)))
            visible = rng.integers(0, 3, num_keypoints) * (rng.random() > 0.2)
            here.append(
                person(
                    np.column_stack([points * (visible[:, None] > 0), visible]),
                    id=len(annotations) + len(here) + 1,
                    image_id=image_id,
                    category_id=int(rng.integers(1, num_categories + 1)),
                    iscrowd=int(rng.random() < 0.1),
                    bbox=[*corner.tolist(), *size.tolist()],
                    area=float(np.prod(size) * rng.uniform(0.3, 1)),
                )
            )
        annotations += here
        if rng.random() < 0.1:
            predictions[image_id] = Instances((480, 640))
            continue
        points, boxes, classes = [], [], []
        for _ in range(per_image):
            if here and rng.random() < 0.7:
                target = here[rng.integers(len(here))]
                spread = rng.choice([1, 5, 20])
                points.append(
                    np.reshape(target["keypoints"], (-1, 3))[:, :2] + rng.normal(0, spread, (num_keypoints, 2))
                )
                box = np.array(target["bbox"]) + rng.normal(0, 5, 4)
                classes.append(target["category_id"] - 1)
            else:
                points.append(rng.uniform(0, 400, (num_keypoints, 2)))
                box = rng.uniform(1, 200, 4)
                classes.append(int(rng.integers(0, num_categories)))
            boxes.append([box[0], box[1], box[0] + max(box[2], 1), box[1] + max(box[3], 1)])
        scores = np.round(rng.random(per_image), 2).tolist()
        predictions[image_id] = predict(np.round(np.array(points) * 4) / 4, scores, np.round(boxes), classes)
    return coco(annotations, num_images, num_categories), predictions


class TestByHand:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        ("offsets", "num_passed"),
        [
            # OKS of a keypoint that is d pixels off: exp(-d^2 / (2 area (2 sigma)^2)) = exp(-d^2 / 200)
            pytest.param([(0, 0), (0, 0)], 10, id="exact: 1"),
            pytest.param([(6, 8), (8, -6)], 3, id="10 pixels: exp(-0.5) = 0.607, above 0.5 0.55 0.6"),
            pytest.param([(0, 0), (6, 8)], 7, id="one of two: (1 + 0.607) / 2 = 0.803"),
            pytest.param([(12, 0), (0, 12)], 0, id="12 pixels: exp(-0.72) = 0.487"),
        ],
    )
    def test_one_person(self, make_dataset, backend, offsets, num_passed):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 1)])]), sigmas=(0.05, 0.05))
        keypoints = np.array([(30, 40), (60, 70)]) + offsets
        metrics = evaluate(name, {1: predict([keypoints])}, backend=backend)["keypoints"]
        assert list(metrics) == KEYPOINT_METRICS
        # 10 thresholds from 0.5 to 0.95; 100 x 100 pixels are "large", which starts at 96 x 96
        for key in ("AP", "APl", "AR", "ARl"):
            assert metrics[key] == pytest.approx(10 * num_passed)
        for key in ("AP50", "AR50"):
            assert metrics[key] == pytest.approx(100 * (num_passed > 0))
        for key in ("AP75", "AR75"):
            assert metrics[key] == pytest.approx(100 * (num_passed > 5))
        assert math.isnan(metrics["APm"])
        assert math.isnan(metrics["ARm"])

    def test_each_keypoint_has_its_sigma(self, make_dataset):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])]), sigmas=(0.05, 0.1))
        # exp(-100 / 200) = 0.607 and exp(-100 / 800) = 0.882: their mean 0.745 passes 5 thresholds
        metrics = evaluate(name, {1: predict([[(40, 40), (70, 70)]])})["keypoints"]
        assert metrics["AP"] == pytest.approx(50)

    def test_unlabelled_keypoints_do_not_count(self, make_dataset):
        name = make_dataset(coco([person([(30, 40, 2), (0, 0, 0)])]))
        assert evaluate(name, {1: predict([[(30, 40), (300, 300)]])})["keypoints"]["AP"] == pytest.approx(100)

    def test_half_a_pixel_matters(self, make_dataset):
        # 2 area (2 sigma)^2 = 0.08: half a pixel off would be exp(-0.25 / 0.08) = 0.04
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])]), sigmas=(0.001, 0.001))
        assert evaluate(name, {1: predict([[(30, 40), (60, 70)]])})["keypoints"]["AP"] == pytest.approx(100)
        assert evaluate(name, {1: predict([[(30.5, 40), (60.5, 70)]])})["keypoints"]["AP"] == 0

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_precision_and_recall(self, make_dataset, backend):
        a, b, nowhere = [(30, 40), (60, 70)], [(230, 240), (260, 270)], [(600, 600), (600, 600)]
        annotations = [person([(*p, 2) for p in points], id=i) for i, points in enumerate((a, b), start=1)]
        # by score: right, wrong, right. Precision is 1 up to recall 0.5 (51 of 101 points), then 2 / 3
        metrics = evaluate(make_dataset(coco(annotations)), {1: predict([a, nowhere, b])}, backend=backend)["keypoints"]
        assert metrics["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
        assert metrics["AR"] == pytest.approx(100)

    def test_box_ap(self, make_dataset):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])]))
        # IoU 100 * 72 / (100 * 100) = 0.72 passes 5 thresholds
        results = evaluate(name, {1: predict([[(30, 40), (60, 70)]], boxes=[[0, 0, 100, 72]])})
        assert list(results) == ["keypoints", "bbox"]
        assert list(results["bbox"]) == BOX_METRICS
        assert results["bbox"]["AP"] == pytest.approx(50)
        assert results["bbox"]["APl"] == pytest.approx(50)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_only_the_first_max_dets_count(self, make_dataset, backend):
        points = [(30, 40), (60, 70)]
        name = make_dataset(coco([person([(*p, 2) for p in points])]))
        found_last = {1: predict([[(600, 600), (600, 600)]] * 20 + [points])}
        assert evaluate(name, found_last, backend=backend)["keypoints"]["AR"] == 0
        metrics = evaluate(name, found_last, backend=backend, max_dets=21)["keypoints"]
        assert metrics["AR"] == pytest.approx(100)
        assert metrics["AP"] == pytest.approx(100 / 21)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_only_the_first_max_dets_boxes_count(self, make_dataset, backend):
        points = [(30, 40), (60, 70)]
        name = make_dataset(coco([person([(*p, 2) for p in points])]))
        found_last = {1: predict([points] * 101, boxes=[[500, 500, 600, 600]] * 100 + [[0, 0, 100, 100]])}
        assert evaluate(name, found_last, backend=backend)["bbox"]["AP"] == 0
        metrics = evaluate(name, found_last, backend=backend, max_dets_boxes=101)["bbox"]
        assert metrics["AP"] == pytest.approx(100 / 101)

    def test_classes(self, make_dataset):
        points = {1: [(30, 40), (60, 70)], 2: [(230, 240), (260, 270)]}
        people = [person([(*p, 2) for p in points[i]], id=i, category_id=i) for i in (1, 2)]
        # the first class has the second category
        name = make_dataset(
            coco(people, categories=3),
            thing_classes=["dog", "cat", "bird"],
            thing_dataset_id_to_contiguous_id={2: 0, 1: 1, 3: 2},
        )
        metrics = evaluate(name, {1: predict([points[2]], classes=[0])})["keypoints"]
        assert metrics["AP-dog"] == pytest.approx(100)
        assert metrics["AP-cat"] == 0
        assert math.isnan(metrics["AP-bird"])
        assert metrics["AP"] == pytest.approx(50)

    def test_chosen_images(self, make_dataset):
        points = [(30, 40), (60, 70)]
        people = [person([(*p, 2) for p in points], id=i, image_id=i) for i in (1, 2)]
        evaluator = PoseEvaluator(make_dataset(coco(people, num_images=2)))
        evaluator.process([{"image_id": 2}], [{"instances": predict([points])}])
        assert evaluator.evaluate()["keypoints"]["AR"] == pytest.approx(50)
        assert evaluator.evaluate(img_ids=[2])["keypoints"]["AR"] == pytest.approx(100)
        assert evaluator.evaluate(img_ids=[1])["keypoints"]["AR"] == 0


class TestAgainstOthers:
    @pytest.mark.parametrize(("num_keypoints", "num_categories"), [(17, 1), (5, 3)])
    def test_backends_and_pycocotools_on_the_results_file(self, make_dataset, tmp_path, num_keypoints, num_categories):
        data, predictions = random_people(3, num_keypoints, num_categories=num_categories)
        sigmas = np.random.default_rng(0).uniform(0.03, 0.1, num_keypoints).tolist()
        name = make_dataset(data, num_keypoints, sigmas)
        faster, reference = (
            evaluate(name, predictions, backend=backend, output_dir=str(tmp_path)) for backend in BACKENDS
        )
        for task in ("keypoints", "bbox"):
            assert np.isfinite(list(reference[task].values())).all()
            assert 1 < reference[task]["AP"] < 99
            assert faster[task] == pytest.approx(reference[task], abs=1e-9)

        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO(MetadataCatalog.get(name).json_file)
            for task, columns in (("keypoints", KEYPOINT_METRICS), ("bbox", BOX_METRICS)):
                evaluation = COCOeval(gt, gt.loadRes(str(tmp_path / "coco_instances_results.json")), task)
                if task == "keypoints":
                    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                expected = dict(zip(columns, evaluation.stats * 100))
                assert faster[task] == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("limit", [3, 60])
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_pycocotools_with_other_limits(self, make_dataset, tmp_path, limit, backend):
        data, predictions = random_people(8, 5, num_images=20, per_image=50)
        name = make_dataset(data, 5, [0.05] * 5)
        limits = {"max_dets": limit, "max_dets_boxes": limit}
        results = evaluate(name, predictions, backend=backend, output_dir=str(tmp_path), **limits)
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO(MetadataCatalog.get(name).json_file)
            for task in ("keypoints", "bbox"):
                evaluation = COCOeval(gt, gt.loadRes(str(tmp_path / "coco_instances_results.json")), task)
                evaluation.params.maxDets = [limit]
                if task == "keypoints":
                    evaluation.params.kpt_oks_sigmas = np.array([0.05] * 5)
                evaluation.evaluate()
                evaluation.accumulate()
                precision = evaluation.eval["precision"]
                # AP of all people, and of the large
                for metric, area in (("AP", 0), ("APl", -1)):
                    expected = precision[:, :, :, area][precision[:, :, :, area] > -1].mean() * 100
                    assert results[task][metric] == pytest.approx(expected, abs=1e-9)
        default = evaluate(name, predictions, backend=backend)
        assert results["keypoints"]["AP"] != pytest.approx(default["keypoints"]["AP"], abs=1e-3)

    def test_predictions_without_boxes(self, make_dataset, tmp_path):
        data, predictions = random_people(4, 17)
        name = make_dataset(data, 17, COCO_PERSON.sigmas)
        for instances in predictions.values():
            if instances.has("pred_boxes"):
                instances.remove("pred_boxes")
        results = evaluate(name, predictions, output_dir=str(tmp_path))
        assert list(results) == ["keypoints"]
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO(MetadataCatalog.get(name).json_file)
            evaluation = COCOeval(gt, gt.loadRes(str(tmp_path / "coco_instances_results.json")), "keypoints")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert list(results["keypoints"].values()) == pytest.approx((evaluation.stats * 100).tolist(), abs=1e-9)

    def test_detectron2_for_17_keypoints(self, make_dataset):
        data, predictions = random_people(5, 17)
        predictions = {image_id: instances for image_id, instances in predictions.items() if instances.get_fields()}
        name = make_dataset(data, 17, COCO_PERSON.sigmas, thing_dataset_id_to_contiguous_id={1: 0})
        theirs = COCOEvaluator(name, tasks=("keypoints", "bbox"), distributed=False, use_fast_impl=False)
        theirs.reset()
        for image_id, instances in copy.deepcopy(predictions).items():
            theirs.process([{"image_id": image_id}], [{"instances": instances}])
        with contextlib.redirect_stdout(io.StringIO()):
            expected = theirs.evaluate()
        results = evaluate(name, predictions)
        for task in ("keypoints", "bbox"):
            assert {key: results[task][key] for key in expected[task]} == pytest.approx(expected[task], abs=1e-9)


class TestMessyGroundTruth:
    POINTS = ((30, 40), (60, 70))

    def make(self):
        annotation = person([(*p, 2) for p in self.POINTS], bbox=[20, 30, 60, 80], area=4800)
        return coco([annotation, {**copy.deepcopy(annotation), "id": 2, "image_id": 2}], num_images=2)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("key", ["area", "iscrowd", "num_keypoints", "id", "category_id"])
    @pytest.mark.parametrize("null", [False, True])
    def test_optional_fields_of_an_annotation(self, make_dataset, backend, key, null):
        # One of the two is found, 5 pixels off: exp(-25 / (2 * 4800 * (2 * 0.05)^2)) = 0.771 passes 6 thresholds
        data = self.make()
        for annotation in data["annotations"]:
            annotation[key] = None
            if not null:
                del annotation[key]
        name = make_dataset(data, sigmas=(0.05, 0.05))
        results = evaluate(
            name, {1: predict([np.add(self.POINTS, (3, 4))], boxes=[[20, 30, 80, 110]])}, backend=backend
        )
        assert results["keypoints"]["AR"] == pytest.approx(50 * 0.6)
        assert results["keypoints"]["ARm"] == pytest.approx(50 * 0.6)
        assert results["bbox"]["AP"] == pytest.approx(100 * 51 / 101)

    def test_the_area_of_the_box_is_warned_of(self, make_dataset, caplog):
        data = self.make()
        del data["annotations"][0]["area"]
        PoseEvaluator(make_dataset(data))
        assert "1 of 2 annotations have no area: replaced by that of the segmentation or, without one," in caplog.text

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_an_id_of_zero_is_found(self, make_dataset, backend):
        # Both libraries take the id 0 of a match for none
        data = self.make()
        data["annotations"][0]["id"] = 0
        metrics = evaluate(make_dataset(data), {1: predict([self.POINTS])}, backend=backend)["keypoints"]
        assert metrics["AR"] == pytest.approx(50)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_string_image_ids(self, make_dataset, tmp_path, backend):
        data = self.make()
        for i, image_id in enumerate(("b/1", "a/2")):
            data["images"][i]["id"] = data["annotations"][i]["image_id"] = image_id
        predictions = {"b/1": predict([self.POINTS]), "a/2": predict([[(600, 600), (600, 600)]])}
        results = evaluate(make_dataset(data), predictions, backend=backend, output_dir=str(tmp_path))
        assert results["keypoints"]["AR"] == pytest.approx(50)
        written = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert [result["image_id"] for result in written] == ["b/1", "a/2"]

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("change", [{"keypoints": None}, {"keypoints": []}, {"iscrowd": 1}])
    def test_who_has_no_keypoints_is_neither_found_nor_missed(self, make_dataset, backend, change):
        data = self.make()
        data["annotations"][1].update(change)
        name = make_dataset(data)
        predictions = {1: predict([self.POINTS], [0.5]), 2: predict([[(600, 600), (600, 600)]], [0.4])}
        assert evaluate(name, predictions, backend=backend)["keypoints"]["AR"] == pytest.approx(100)
        # within the box of the one without keypoints, hence not wrong
        predictions[2] = predict([self.POINTS], [0.9])
        assert evaluate(name, predictions, backend=backend)["keypoints"]["AP"] == pytest.approx(100)

    def test_box_around_the_keypoints(self, make_dataset, caplog):
        data = self.make()
        for annotation in data["annotations"]:
            del annotation["bbox"], annotation["area"]
            annotation["keypoints"] += [500, 500, 0]
        name = make_dataset(data, num_keypoints=3)
        keypoints = [[*self.POINTS, (0, 0)]]
        # 8 pixels on each side, since the size of the image is unknown; the centre of pixel 30 is at 30.5
        results = evaluate(name, {i: predict(keypoints, boxes=[[22.5, 32.5, 68.5, 78.5]]) for i in (1, 2)})
        assert results["keypoints"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)
        assert "2 of 2 annotations have no box" in caplog.text

    def test_other_categories_do_not_count(self, make_dataset):
        data = self.make()
        data["annotations"][1].update(category_id=2, keypoints=[1, 2, 3])
        data["categories"].append({"id": 2, "name": "car"})
        name = make_dataset(data, thing_dataset_id_to_contiguous_id={1: 0})
        assert evaluate(name, {1: predict([self.POINTS])})["keypoints"]["AR"] == pytest.approx(100)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data["annotations"][1].update(keypoints=[1, 2, 2]), "annotation 2: keypoints has 3 numbers"),
            (lambda data: data["annotations"][1].update(keypoints=[math.nan] * 6), "annotation 2: .*not all numbers"),
            (lambda data: data["images"].pop(), "annotation 2 is of image 2, which is not in 'images'"),
            (lambda data: data["annotations"][1].update(bbox=[1, 2, 3]), "annotation 2: bbox is"),
            (lambda data: data["images"][1].pop("id"), "image '2.jpg' has no 'id'"),
            (lambda data: data.pop("images"), "no list 'images'"),
            (lambda data: data.update(categories=[]), "no categories"),
            (
                lambda data: (data["annotations"][0].pop("category_id"), data["categories"].append({"id": 2})),
                "annotation 1 has no 'category_id'",
            ),
        ],
    )
    def test_faults_that_are_not_corrected(self, make_dataset, change, message):
        data = self.make()
        change(data)
        name = make_dataset(data)
        with pytest.raises(DatasetError, match=message) as error:
            PoseEvaluator(name)
        assert f"{name}.json" in str(error.value)

    def test_the_file_is_missing(self, make_dataset):
        name = make_dataset(self.make())
        Path(MetadataCatalog.get(name).json_file).unlink()
        with pytest.raises(DatasetError, match="does not exist"):
            PoseEvaluator(name)

    def test_dicts_without_a_file(self):
        annotation = {
            "bbox": [20, 30, 80, 110],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "keypoints": [30.5, 40.5, 2, 60.5, 70.5, 2],
        }
        dicts = [{"file_name": "a.jpg", "image_id": 7, "height": 480, "width": 640, "annotations": [annotation]}]
        before = copy.deepcopy(dicts)
        DatasetCatalog.register("dicts_without_a_file", lambda: dicts)
        try:
            metadata = MetadataCatalog.get("dicts_without_a_file").set(thing_classes=["person"])
            KeypointSchema(names=("a", "b"), sigmas=(0.001, 0.001)).to_metadata(metadata)
            results = evaluate("dicts_without_a_file", {7: predict([self.POINTS], boxes=[[20, 30, 80, 110]])})
        finally:
            DatasetCatalog.remove("dicts_without_a_file")
            MetadataCatalog.remove("dicts_without_a_file")
        assert results["keypoints"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)
        assert dicts == before


class TestPredictions:
    POINTS = ((30, 40), (60, 70))

    @pytest.fixture
    def name(self, make_dataset):
        people = [person([(*p, 2) for p in self.POINTS], id=i, image_id=i) for i in (1, 2)]
        return make_dataset(coco(people, num_images=2))

    @pytest.mark.parametrize("tasks", [None, ("keypoints", "bbox")])
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_none_at_all(self, name, caplog, tasks, backend):
        results = evaluate(name, {1: Instances((480, 640)), 2: Instances((480, 640))}, tasks=tasks, backend=backend)
        assert list(results) == list(tasks or ("keypoints",))
        for metrics in results.values():
            assert metrics["AP"] == 0
            assert math.isnan(metrics["APm"])
        assert "no person is predicted" in caplog.text

    def test_skipped_images_count_as_missed(self, name, caplog):
        assert evaluate(name, {1: predict([self.POINTS])})["keypoints"]["AR"] == pytest.approx(50)
        assert "1 of 2 images have not been predicted" in caplog.text

    def test_another_number_of_keypoints(self, name):
        with pytest.raises(DatasetError, match=rf"{name}.* has 2 keypoints, but the predictions have 3"):
            evaluate(name, {1: predict([[(1, 1)] * 3])})

    def test_no_keypoints(self, name):
        instances = predict([self.POINTS])
        instances.remove("pred_keypoints")
        with pytest.raises(DatasetError, match="has 2 keypoints, but the predictions have none"):
            evaluate(name, {1: instances})

    @pytest.mark.parametrize("field", ["scores", "pred_keypoints", "pred_boxes"])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nonfinite_predictions_are_skipped(self, name, caplog, field, value):
        instances = predict([[(600, 600), (600, 600)], self.POINTS], boxes=[[0, 0, 100, 100]] * 2)
        tensor = instances.pred_boxes.tensor if field == "pred_boxes" else instances.get(field)
        tensor.view(2, -1)[0, 0] = value
        results = evaluate(name, {1: instances, 2: predict([self.POINTS], boxes=[[0, 0, 100, 100]])})
        assert results["keypoints"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)
        assert "1 predictions with a NaN or infinite" in caplog.text
        assert "in 1 images: 1." in caplog.text

    def test_unknown_image(self, name):
        with pytest.raises(DatasetError, match=rf"{name}\.json has no image 5"):
            evaluate(name, {5: predict([self.POINTS])})

    def test_unknown_class(self, name):
        with pytest.raises(DatasetError, match=r"image 1: predicted classes are 0 to 3, but .* has 1"):
            evaluate(name, {1: predict([self.POINTS] * 2, classes=[0, 3])})

    def test_boxes_are_asked_for_and_missing(self, name):
        with pytest.raises(ValueError, match="1 of 1 predictions have no pred_boxes"):
            evaluate(name, {1: predict([self.POINTS])}, tasks=("keypoints", "bbox"))

    def test_boxes_are_not_asked_for(self, name):
        results = evaluate(name, {1: predict([self.POINTS], boxes=[[0, 0, 1, 1]])}, tasks=("keypoints",))
        assert list(results) == ["keypoints"]

    def test_a_repeated_image_counts_once(self, name):
        evaluator = PoseEvaluator(name)
        for image_id in (1, 2, 1):
            evaluator.process([{"image_id": image_id}], [{"instances": predict([self.POINTS])}])
        # counted twice, the second would be wrong
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100)

    def test_reset_forgets(self, name):
        evaluator = PoseEvaluator(name)
        evaluator.process([{"image_id": 1}], [{"instances": predict([self.POINTS])}])
        evaluator.reset()
        assert evaluator.evaluate()["keypoints"]["AR"] == 0

    def test_instances_are_left_as_they_are(self, name):
        instances = predict([self.POINTS])
        before = instances.pred_keypoints.clone()
        evaluate(name, {1: instances})
        assert torch.equal(instances.pred_keypoints, before)


class TestResultsFile:
    def read(self, folder):
        return json.loads((folder / "coco_instances_results.json").read_text())

    def test_content(self, make_dataset, tmp_path):
        name = make_dataset(coco([], num_images=7), thing_dataset_id_to_contiguous_id={18: 0})
        instances = Instances((480, 640))
        instances.pred_keypoints = torch.tensor([[[10.5, 20.75, 0.25], [100.12345, 0.0, 1e-7]]])
        instances.scores = torch.tensor([1e-7])
        instances.pred_classes = torch.tensor([0])
        instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 11.5, 22.0]]))
        assert evaluate(name, {7: instances}, output_dir=str(tmp_path / "new" / "folder")) == {}
        assert self.read(tmp_path / "new" / "folder") == [
            {
                "image_id": 7,
                "category_id": 18,
                "bbox": [1.0, 2.0, 10.5, 20.0],
                "keypoints": [10.0, 20.25, 0.25, 99.623, -0.5, 0.0],
                "score": pytest.approx(1e-7),
            }
        ]

    def test_keypoints_alone(self, make_dataset, tmp_path):
        name = make_dataset(coco([]), thing_dataset_id_to_contiguous_id={1: 0})
        evaluate(name, {1: predict([[(1, 2), (3, 4)]], scores=[0.5])}, output_dir=str(tmp_path))
        assert self.read(tmp_path) == [
            {"image_id": 1, "category_id": 1, "keypoints": [1.0, 2.0, 0.5, 3.0, 4.0, 0.5], "score": 0.5}
        ]

    @pytest.mark.parametrize("stripped", [True, False])
    def test_data_without_annotation(self, make_dataset, tmp_path, caplog, stripped):
        data = coco([])
        if stripped:
            del data["annotations"]
        name = make_dataset(data)
        with caplog.at_level(logging.INFO):
            assert evaluate(name, {1: predict([[(1, 2), (3, 4)]])}, output_dir=str(tmp_path)) == {}
        assert "has no annotation" in caplog.text
        assert len(self.read(tmp_path)) == 1

    def test_nothing_is_written_without_a_folder(self, make_dataset, tmp_path):
        name = make_dataset(coco([person([(30, 40, 2), (60, 70, 2)])]))
        before = sorted(tmp_path.iterdir())
        evaluate(name, {1: predict([[(1, 2), (3, 4)]])})
        assert sorted(tmp_path.iterdir()) == before


class TestLimits:
    POINTS = ((30, 40), (60, 70))

    def make(self, make_dataset, per_image, **changes):
        people = [
            {**person([(*p, 2) for p in self.POINTS], image_id=image_id), **changes}
            for image_id, number in per_image.items()
            for _ in range(number)
        ]
        return make_dataset(coco([{**one, "id": i} for i, one in enumerate(people, start=1)], num_images=9))

    def warnings(self, caplog):
        return [record.getMessage() for record in caplog.records if "images hold more than" in record.getMessage()]

    def test_images_with_more_people_are_named(self, make_dataset, caplog):
        name = self.make(make_dataset, {1: 21, 2: 20, 5: 22, 7: 101})
        PoseEvaluator(name)
        keypoints, boxes = self.warnings(caplog)
        assert "3 images hold more than 20 people of a class with labelled keypoints: 1, 5, 7." in keypoints
        assert "TEST.MAX_DETS.KEYPOINTS" in keypoints
        assert "1 images hold more than 100 people of a class: 7." in boxes
        assert "TEST.MAX_DETS.BOXES" in boxes

    def test_of_the_tasks_alone(self, make_dataset, caplog):
        name = self.make(make_dataset, {1: 101})
        PoseEvaluator(name, tasks=("bbox",))
        (warning,) = self.warnings(caplog)
        assert "more than 100 people" in warning

    def test_other_limits(self, make_dataset, caplog):
        PoseEvaluator(self.make(make_dataset, {1: 21}), max_dets=21)
        assert not self.warnings(caplog)
        PoseEvaluator(self.make(make_dataset, {1: 21}), max_dets=3, max_dets_boxes=4)
        assert len(self.warnings(caplog)) == 2

    @pytest.mark.parametrize("changes", [{"iscrowd": 1}, {"keypoints": [0] * 6, "num_keypoints": 0}])
    def test_who_does_not_count_is_not_counted(self, make_dataset, caplog, changes):
        PoseEvaluator(self.make(make_dataset, {1: 25}, **changes))
        assert not self.warnings(caplog)

    def test_each_class_has_its_own(self, make_dataset, caplog):
        people = [person([(*p, 2) for p in self.POINTS], id=i, category_id=i % 2 + 1) for i in range(1, 41)]
        PoseEvaluator(make_dataset(coco(people, categories=2)))
        assert not self.warnings(caplog)

    def test_of_the_config(self, make_dataset, caplog):
        cfg = get_cfg()
        add_dynpose_config(cfg)
        cfg.TEST.MAX_DETS.KEYPOINTS, cfg.TEST.MAX_DETS.BOXES = 22, 23
        name = self.make(make_dataset, {1: 24})
        PoseEvaluator.from_config(cfg, name)
        assert ["more than 22" in warning or "more than 23" in warning for warning in self.warnings(caplog)] == [
            True
        ] * 2


class TestWhyNaN:
    POINTS = ((30, 40), (60, 70))

    def reasons(self, caplog, name, predictions, **kwargs):
        with caplog.at_level(logging.INFO):
            results = evaluate(name, predictions, **kwargs)
        said = [record.getMessage() for record in caplog.records if ": NaN since" in record.getMessage()]
        num_nan = sum(math.isnan(value) for metrics in results.values() for value in metrics.values())
        # every metric is in one of the lines
        assert num_nan == sum(len(line.rsplit(": ", 1)[1].split(", ")) for line in said)
        return said

    def test_no_person_labelled(self, make_dataset, caplog):
        name = make_dataset(coco([person([(0, 0, 0)] * 2)]))
        (line,) = self.reasons(caplog, name, {1: predict([self.POINTS])})
        assert line == (
            f"{name}: keypoints: NaN since the ground truth has no person with labelled keypoints among the images "
            f"that are evaluated: {', '.join(KEYPOINT_METRICS)}"
        )
        assert "WARNING" in caplog.text

    def test_only_crowds(self, make_dataset, caplog):
        name = make_dataset(coco([person([(*p, 2) for p in self.POINTS], iscrowd=1)]))
        keypoints, boxes = self.reasons(caplog, name, {1: predict([self.POINTS], boxes=[[0, 0, 9, 9]])})
        assert "the ground truth has no person with labelled keypoints among" in keypoints
        assert "bbox: NaN since the ground truth has no person among" in boxes

    @pytest.mark.parametrize(
        ("area", "keypoints", "boxes"),
        [
            (9000, ["has an area of at least 96² square pixels: APl, ARl"], ["at most 32² square pixels: APs", "APl"]),
            (9217, ["has an area from 32² to 96² square pixels: APm, ARm"], ["APs", "32² to 96² square pixels: APm"]),
            # which is the upper end of small and the lower end of medium
            (1024, ["APl, ARl"], ["APl"]),
            (1000, ["APm, ARm", "APl, ARl"], ["APm", "APl"]),
        ],
    )
    def test_no_person_of_a_size(self, make_dataset, caplog, area, keypoints, boxes):
        name = make_dataset(coco([person([(*p, 2) for p in self.POINTS], area=area)]))
        said = self.reasons(caplog, name, {1: predict([self.POINTS], boxes=[[0, 0, 100, 100]])})
        said = [line.replace(" among the images that are evaluated", "") for line in said]
        assert len(said) == len(keypoints) + len(boxes)
        for line, end in zip(said, keypoints + boxes):
            assert line.endswith(end)
            assert ("no person with labelled keypoints" in line) == ("keypoints:" in line)

    def test_a_class_without_anybody(self, make_dataset, caplog):
        name = make_dataset(
            coco([person([(*p, 2) for p in self.POINTS])], categories=2),
            thing_classes=["dog", "bird"],
            thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        )
        said = self.reasons(caplog, name, {1: predict([self.POINTS])})
        assert said[-1].endswith(
            "no person with labelled keypoints of the class among the images that are evaluated: AP-bird"
        )

    def test_chosen_images(self, make_dataset, caplog):
        name = make_dataset(coco([person([(*p, 2) for p in self.POINTS])], num_images=2))
        evaluator = PoseEvaluator(name)
        evaluator.process([{"image_id": 2}], [{"instances": predict([self.POINTS])}])
        with caplog.at_level(logging.INFO):
            assert math.isnan(evaluator.evaluate(img_ids=[2])["keypoints"]["AP"])
        assert "no person with labelled keypoints among the images that are evaluated: AP, AP50" in caplog.text


class TestSigmas:
    DATA = coco([person([(30, 40, 2), (60, 70, 2)])])
    # 10 pixels off: exp(-100 / 20000 / (2 sigma)^2)
    INSTANCES = predict([[(40, 40), (70, 70)]])

    def test_default_is_said_plainly(self, make_dataset, caplog):
        # default sigma 0.025: exp(-2) = 0.14
        metrics = evaluate(make_dataset(self.DATA), {1: self.INSTANCES})["keypoints"]
        assert metrics["AP"] == 0
        (warning,) = [r.getMessage() for r in caplog.records if "sigmas" in r.getMessage()]
        assert f"default {DEFAULT_SIGMA}" in warning
        assert "TEST.KEYPOINT_OKS_SIGMAS" in warning

    def test_of_the_data_set(self, make_dataset, caplog):
        with caplog.at_level(logging.INFO):
            metrics = evaluate(make_dataset(self.DATA, sigmas=(0.05, 0.05)), {1: self.INSTANCES})["keypoints"]
        assert metrics["AP"] == pytest.approx(30)
        assert "OKS sigmas: point_0 0.05, point_1 0.05" in caplog.text
        assert "default" not in caplog.text

    def test_of_the_config(self, make_dataset, tmp_path, caplog):
        cfg = get_cfg()
        add_dynpose_config(cfg)
        cfg.OUTPUT_DIR, cfg.TEST.KEYPOINT_OKS_SIGMAS = str(tmp_path), [0.1, 0.1]
        name = make_dataset(self.DATA, sigmas=(0.05, 0.05))
        cfg.DATASETS.TEST = (name,)
        evaluator = PoseEvaluator.from_config(cfg, name)
        evaluator.process([{"image_id": 1}], [{"instances": self.INSTANCES}])
        # exp(-1/8) = 0.88
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(80)
        assert "default" not in caplog.text
        assert (tmp_path / "inference" / "coco_instances_results.json").exists()

    def test_several_data_sets_write_to_folders_of_their_own(self, make_dataset, tmp_path):
        cfg = get_cfg()
        names = [make_dataset(self.DATA), make_dataset(self.DATA)]
        cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(tmp_path), tuple(names)
        for name in names:
            PoseEvaluator.from_config(cfg, name).evaluate()
            assert (tmp_path / "inference" / name / "coco_instances_results.json").exists()

    @pytest.mark.parametrize("sigmas", [COCO_PERSON.sigmas, (0.1, 0.0), (0.1, math.nan)])
    def test_bad_ones(self, make_dataset, sigmas):
        name = make_dataset(self.DATA)
        with pytest.raises(DatasetError, match=rf"{name}.*OKS sigma.*the evaluator's argument sigmas"):
            PoseEvaluator(name, sigmas=sigmas)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("segm",)}, "unknown tasks 'segm'"),
        ({"backend": "fast"}, "unknown backend"),
        ({"max_dets": 0}, "must be at least 1, got 0 and 100"),
        ({"max_dets_boxes": -1}, "must be at least 1, got 20 and -1"),
    ],
)
def test_unknown_arguments(make_dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        PoseEvaluator(make_dataset(coco([])), **arguments)


def test_with_detectron2s_evaluation(make_dataset, caplog):
    data, predictions = random_people(6, 5, num_images=12)
    name = make_dataset(data, 5, sigmas=[0.05] * 5)
    loader = [[{"image_id": image_id} for image_id in batch] for batch in ((1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11, 12))]

    def model(inputs):
        return [{"instances": predictions[image["image_id"]]} for image in inputs]

    results = inference_on_dataset(model, loader, [PoseEvaluator(name)])
    assert isinstance(results, OrderedDict)
    assert results == evaluate(name, predictions)
    with caplog.at_level(logging.INFO):
        print_csv_format(results)
    assert f"{results['keypoints']['AP']:.4f}" in caplog.text
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["keypoints", "AP", results["keypoints"]["AP"], 1e-6]]
    assert verify_results(cfg, results)


def _evaluate_in_process(rank, folder, seed):
    data, predictions = random_people(seed, 5, num_images=11)
    json_file = f"{folder}/people.json"
    if rank == 0:
        Path(json_file).write_text(json.dumps(data))
    comm.synchronize()
    metadata = MetadataCatalog.get("distributed").set(json_file=json_file)
    KeypointSchema(names=list("abcde"), sigmas=[0.05] * 5).to_metadata(metadata)
    evaluator = PoseEvaluator("distributed", output_dir=folder)
    # 11 images for 2 processes: the last one starts over, as a padding sampler does
    for image_id in ([1, 3, 5, 7, 9, 11], [2, 4, 6, 8, 10, 1])[rank]:
        evaluator.process([{"image_id": image_id}], [{"instances": predictions[image_id]}])
    return evaluator.evaluate()


def test_two_processes_give_the_same_as_one(make_dataset, tmp_path):
    first, second = run_in_processes(_evaluate_in_process, str(tmp_path), 7, folder=tmp_path)
    data, predictions = random_people(7, 5, num_images=11)
    expected = evaluate(make_dataset(data, 5, sigmas=[0.05] * 5), predictions)
    assert second == {}
    assert expected["keypoints"]["AP"] > 1
    # the images come in another order, which decides between equal scores of one image only
    for task, metrics in expected.items():
        assert first[task] == pytest.approx(metrics, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("folder", ["coco", "crowdpose", "ochuman", "ap10k"])
def test_real_annotation_predicted_exactly(test_data, folder):
    root = test_data / "data" / folder
    name = f"evaluated_{folder}"
    schema = register_pose_dataset(name, root / f"test_{folder}.json", root)
    try:
        predictions = {}
        for record in DatasetCatalog.get(name):
            people = [a for a in record["annotations"] if any(a["keypoints"][2::3]) and not a["iscrowd"]]
            keypoints = np.array([a["keypoints"] for a in people]).reshape(-1, schema.num_keypoints, 3) - (0.5, 0.5, 0)
            boxes = BoxMode.convert(
                np.array([a["bbox"] for a in people]).reshape(-1, 4), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS
            )
            predictions[record["image_id"]] = predict(
                keypoints, boxes=boxes, classes=[a["category_id"] for a in people]
            )
        for backend in BACKENDS:
            metrics = evaluate(name, predictions, backend=backend, tasks=("keypoints",))["keypoints"]
            assert metrics["AP"] == pytest.approx(100)
            assert metrics["AR"] == pytest.approx(100)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
