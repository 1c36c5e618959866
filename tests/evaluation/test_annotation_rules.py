"""The rules of reading in an evaluation: a valid file gives pycocotools' figures, a corrected one hand-made ones."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_evaluations import coco, evaluate, person, predict

from dynpose.data.rules import RULES

HEIGHT, WIDTH = 480, 640
SIGMAS = (0.05, 0.06, 0.07)


def sound_people(seed, make_up, num_images=60):
    """People as COCO, CrowdPose and OCHuman annotate them, and predictions from near to far off."""
    rng = np.random.default_rng(seed)
    annotations, predictions = [], {}
    for image_id in range(1, num_images + 1):
        here = [make_up(rng, image_id) for _ in range(rng.integers(1, 6))]
        annotations += here
        points = [np.reshape(here[rng.integers(len(here))]["keypoints"], (-1, 3))[:, :2] for _ in range(8)]
        points = np.array([p + rng.normal(0, rng.choice([0.5, 3, 12]), p.shape) for p in points])
        low, high = points.min(axis=1), points.max(axis=1)
        boxes = np.concatenate([low, high + 1], axis=1)
        predictions[image_id] = predict(np.round(points * 4) / 4, rng.random(8).round(2).tolist(), np.round(boxes))
    data = coco([{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)], num_images)
    for image in data["images"]:
        image.update(height=HEIGHT, width=WIDTH)
    return data, predictions


def some_keypoints(rng, box):
    corner, size = np.array(box[:2]), np.array(box[2:])
    visible = rng.integers(0, 3, 3) * (rng.random() > 0.25)
    points = np.round(corner + size * rng.random((3, 2))) * (visible[:, None] > 0)
    return np.column_stack([points, visible])


def as_coco(rng, image_id):
    """Segments from slivers in large boxes to whole boxes, down to below a pixel; RLE crowds."""
    kind = rng.integers(5)
    size = np.exp(rng.uniform(1, 5.5, 2)) if kind < 4 else rng.uniform(0.4, 1.6, 2)
    corner = rng.uniform(0, [WIDTH - 250, HEIGHT - 250])
    box = [round(float(v), 2) for v in (*corner, *size)]
    x, y, w, h = box
    sliver = min(1.0, float(rng.choice([0.05, 1e-3])))
    fill = 1.0 if kind in (0, 4) else sliver if kind == 1 else float(rng.uniform(0.2, 0.9))
    # two triangles at opposite corners reach all four sides, however small they are
    side = math.sqrt(fill)
    polygons = [
        [x, y, x + w * side, y, x, y + h * side],
        [x + w, y + h, x + w - w * side, y + h, x + w, y + h - h * side],
    ]
    area = sum(abs((p[2] - p[0]) * (p[5] - p[1]) - (p[4] - p[0]) * (p[3] - p[1])) / 2 for p in polygons)
    fields = {"bbox": box, "area": area, "segmentation": polygons, "image_id": image_id}
    if rng.random() < 0.1:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = 1
        rle = mask_util.encode(mask)
        fields |= {
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
            "area": float(mask_util.area(rle)),
            "bbox": mask_util.toBbox(rle).tolist(),
        }
        return person(np.zeros((3, 3)), **fields)
    return person(some_keypoints(rng, box), **fields)


def as_ochuman(rng, image_id):
    """Whole boxes for areas, and no person without keypoints."""
    box = [*rng.integers(0, 200, 2).tolist(), *rng.integers(30, 280, 2).tolist()]
    return person(some_keypoints(rng, box), bbox=box, area=box[2] * box[3], image_id=image_id)


def as_rounded(rng, image_id):
    """Boxes cut to whole pixels, areas of what they were before."""
    size = rng.uniform(20, 200, 2)
    box = [*rng.integers(0, 200, 2).tolist(), *map(int, size)]
    return person(some_keypoints(rng, box), bbox=box, area=float(size.prod()), image_id=image_id)


@pytest.mark.parametrize("make_up", [as_coco, as_ochuman, as_rounded])
@pytest.mark.parametrize("backend", ["faster", "pycocotools"])
def test_a_sound_file_gives_pycocotools_figures(make_dataset, tmp_path, make_up, backend, caplog):
    data, predictions = sound_people(5, make_up)
    name = make_dataset(data, num_keypoints=3, sigmas=SIGMAS)
    results = evaluate(name, predictions, output_dir=str(tmp_path), backend=backend)
    assert not any(RULES[rule].text in caplog.text for rule in RULES if RULES[rule].decision == "corrected")
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(MetadataCatalog.get(name).json_file)
        dt = gt.loadRes(str(tmp_path / "coco_instances_results.json"))
        # the results' areas are those of their boxes; loadRes takes the keypoints' extent
        written = json.loads((tmp_path / "coco_instances_results.json").read_text())
        for annotation, result in zip(dt.dataset["annotations"], written):
            annotation["bbox"] = result["bbox"]
            annotation["area"] = result["bbox"][2] * result["bbox"][3]
        dt.createIndex()
        for task, keys in (
            ("keypoints", ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]),
            ("bbox", ["AP", "AP50", "AP75", "APs", "APm", "APl"]),
        ):
            evaluation = COCOeval(gt, dt, task)
            if task == "keypoints":
                evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected = [100 * value if value > -1 else math.nan for value in evaluation.stats[: len(keys)]]
            assert [results[task][key] for key in keys] == pytest.approx(expected, abs=1e-9, nan_ok=True)


class TestMended:
    """A box of 80 x 60 and both keypoints 3, 4 pixels off: exp(-25 / (2 * 4800 * 0.1^2)) = 0.771 passes 6 of 10."""

    POINTS = ((30, 40), (60, 70))

    def average(self, make_dataset, **fields):
        annotation = person([(*p, 2) for p in self.POINTS], bbox=[20, 30, 80, 60], area=4800)
        data = coco([{**annotation, **fields}])
        data["images"][0].update(height=HEIGHT, width=WIDTH)
        name = make_dataset(data, sigmas=(0.05, 0.05))
        return evaluate(name, {1: predict([np.add(self.POINTS, (3, 4))])}, tasks=("keypoints",))["keypoints"]["AP"]

    def test_a_sound_one(self, make_dataset):
        assert self.average(make_dataset) == pytest.approx(60)
        # exp(-25 / (2 * 2000 * 0.01)) = 0.535 passes one
        assert self.average(make_dataset, area=2000) == pytest.approx(10)

    @pytest.mark.parametrize("area", [0, 1, -1, -4800, WIDTH * HEIGHT, None, 5000, 1e400])
    def test_areas_that_the_box_cannot_have(self, make_dataset, area):
        assert self.average(make_dataset, area=area) == pytest.approx(60)

    @pytest.mark.parametrize("number", [0, 1, 5, 17, None])
    def test_the_flags_decide_who_is_to_be_found(self, make_dataset, number):
        assert self.average(make_dataset, num_keypoints=number) == pytest.approx(60)
        assert math.isnan(self.average(make_dataset, num_keypoints=number, keypoints=[0] * 6))

    @pytest.mark.parametrize("bbox", [[0, 0, 0, 0], [30, 40, 0, 30], [], None])
    def test_a_box_that_is_none(self, make_dataset, bbox):
        """Around 30 x 30 pixels, with 16 (640 / 40) on each side: 62 x 62, so exp(-25 / 76.88) = 0.722 passes 5."""
        assert self.average(make_dataset, bbox=bbox, area=None) == pytest.approx(50)
        assert self.average(make_dataset, bbox=bbox, area=0) == pytest.approx(50)

    def test_one_keypoint_alone(self, make_dataset):
        """In 32 x 32 pixels, 3 off: exp(-9 / (2 * 1024 * 0.01)) = 0.644 passes 3, which was 0 with an area of 0."""
        annotation = person([(300, 200, 2), (0, 0, 0)], bbox=[300, 200, 0, 0], area=0)
        data = coco([annotation])
        data["images"][0].update(height=HEIGHT, width=WIDTH)
        name = make_dataset(data, sigmas=(0.05, 0.05))
        metrics = evaluate(name, {1: predict([[(303, 200), (0, 0)]])}, tasks=("keypoints",))["keypoints"]
        assert metrics["AP"] == pytest.approx(30)

    def test_a_keypoint_outside_the_image_counts(self, make_dataset):
        """As in pycocotools: half of the similarity is lost where it is missed."""
        annotation = person([(30, 40, 2), (-10, 40, 2)], bbox=[0, 0, 80, 60], area=4800)
        data = coco([annotation])
        data["images"][0].update(height=HEIGHT, width=WIDTH)
        name = make_dataset(data, sigmas=(0.05, 0.05))
        found, missed = ([(30, 40), (x, 40)] for x in (-10, 600))
        assert evaluate(name, {1: predict([found])}, tasks=("keypoints",))["keypoints"]["AP"] == pytest.approx(100)
        assert evaluate(name, {1: predict([missed])}, tasks=("keypoints",))["keypoints"]["AP"] == pytest.approx(10)
