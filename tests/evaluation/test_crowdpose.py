"""CrowdPose's protocol against an OKS AP written here from COCO's definition, and against faster-coco-eval alone."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from faster_coco_eval import COCO, COCOeval_faster

from dynpose.data import CROWDPOSE_PERSON, DatasetError, KeypointSchema
from dynpose.evaluation import PoseEvaluator
from dynpose.evaluation.crowdpose import group_by_crowding

BACKENDS = ("faster", "pycocotools")
METRICS = ["AP", "AP50", "AP75", "AR", "AR50", "AR75", "APeasy", "APmedium", "APhard"]
MAX_DETS = 20
# As the paper's protocol prints them
SIGMAS = [0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079]


@pytest.fixture
def register(tmp_path):
    """Writes an annotation file and registers its metadata with CrowdPose's protocol."""
    registered = []

    def register(data, schema=CROWDPOSE_PERSON):
        name = f"crowded_{len(registered)}"
        json_file = tmp_path / f"{name}.json"
        json_file.write_text(json.dumps(data))
        metadata = MetadataCatalog.get(name).set(json_file=str(json_file), keypoint_protocol="crowdpose")
        schema.to_metadata(metadata)
        registered.append(name)
        return name

    yield register
    for name in registered:
        MetadataCatalog.remove(name)


def crowded_people(seed, num_images=70, most_detections=30):
    """A file as messy as CrowdPose's, and per image (score, 14 x 2 pixel indices) of more people than count.

    Nobody has an area. Some are crowds, some have no labelled keypoint; scores have two decimals, so that many are
    equal; coordinates are quarters, which nothing rounds.
    """
    rng = np.random.default_rng(seed)
    num_keypoints = len(SIGMAS)
    images, annotations, detections = [], [], {}
    for image_id in range(100000, 100000 + num_images):
        index = rng.choice([0.2, 0.8, 0.05, 0.1, 0.4, 0.6, 0.9, 1.0, 1.71, 3.02])
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "crowdIndex": float(index)})
        here = []
        for _ in range(rng.integers(1, 7)):
            corner, size = rng.integers(0, 300, 2), rng.integers(20, 300, 2)
            visible = rng.integers(0, 3, num_keypoints) * (rng.random() > 0.15)
            points = (corner + np.round(size * rng.random((num_keypoints, 2)))) * (visible[:, None] > 0)
            here.append(
                {
                    "id": 500 + len(annotations) + len(here),
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": int(rng.random() < 0.1),
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "num_keypoints": int((visible > 0).sum()),
                    "keypoints": np.column_stack([points, visible]).astype(float).ravel().tolist(),
                }
            )
        annotations += here
        detections[image_id] = []
        for _ in range(int(rng.integers(0, most_detections))):
            target = here[rng.integers(len(here))]
            points = np.reshape(target["keypoints"], (-1, 3))[:, :2]
            if rng.random() < 0.3:
                points = rng.uniform(0, 400, points.shape)
            points = points + rng.normal(0, rng.choice([1, 5, 25]), points.shape)
            detections[image_id].append((round(float(rng.random()), 2), np.round(points * 4) / 4))
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}, detections


def to_instances(detections):
    instances = Instances((480, 640))
    if not detections:
        return instances
    points = np.array([points for _, points in detections]).reshape(len(detections), -1, 2) + 0.5
    confidence = np.full((*points.shape[:2], 1), 0.5)
    instances.pred_keypoints = torch.as_tensor(np.concatenate([points, confidence], axis=2), dtype=torch.float32)
    instances.scores = torch.tensor([score for score, _ in detections], dtype=torch.float64)
    instances.pred_classes = torch.zeros(len(detections), dtype=torch.int64)
    return instances


def evaluate(name, detections, img_ids=None, **kwargs):
    evaluator = PoseEvaluator(name, tasks=("keypoints",), **kwargs)
    for image_id, people in detections.items():
        evaluator.process([{"image_id": image_id}], [{"instances": to_instances(people)}])
    return evaluator.evaluate(img_ids)["keypoints"]


# An OKS AP written from https://cocodataset.org/#keypoints-eval and CrowdPose's paper, without other code.


_known = {}


def object_keypoint_similarity(points, person):
    """As below, worked out once for each pair."""
    key = points.tobytes(), tuple(person["bbox"]), tuple(person["keypoints"])
    if key not in _known:
        _known[key] = _similarity(points, person)
    return _known[key]


def _similarity(points, person):
    """Of a predicted pose with an annotated person; of an unlabelled one, the pose's nearness to the doubled box."""
    x, y, width, height = person["bbox"]
    total, count = 0.0, 0
    for i, (px, py) in enumerate(points):
        gx, gy, visibility = person["keypoints"][3 * i : 3 * i + 3]
        if person["num_keypoints"] == 0:
            dx = max(0, x - width - px, px - (x + 2 * width))
            dy = max(0, y - height - py, py - (y + 2 * height))
        elif visibility > 0:
            dx, dy = px - gx, py - gy
        else:
            continue
        total += math.exp(-(dx**2 + dy**2) / (2 * 0.53 * width * height * (2 * SIGMAS[i]) ** 2))
        count += 1
    return total / count


def match(detections, people, threshold):
    """[(score, right?)] of the detections of an image that count, best first, and how many people are to be found."""
    free = [dict(person, real=not person["iscrowd"] and person["num_keypoints"] > 0) for person in people]
    outcome = []
    for score, points in sorted(detections, key=lambda detection: -detection[0])[:MAX_DETS]:
        near = [(object_keypoint_similarity(points, person), i) for i, person in enumerate(free)]
        near = [(similarity, i) for similarity, i in near if similarity >= threshold]
        # a person that is to be found goes before one that is to be ignored, however much nearer that is
        chosen = max([pair for pair in near if free[pair[1]]["real"]] or near, default=None)
        if chosen is None:
            outcome.append((score, False))
            continue
        person = free[chosen[1]]
        if person["real"]:
            outcome.append((score, True))
        if not person["iscrowd"]:  # a crowd takes any number
            del free[chosen[1]]
    return outcome, sum(not person["iscrowd"] and person["num_keypoints"] > 0 for person in people)


def match_images(data, detections, threshold):
    """Of each image, by its id, what `match` gives."""
    people = {}
    for person in data["annotations"]:
        people.setdefault(person["image_id"], []).append(person)
    return {
        image_id: match(detections[image_id], people.get(image_id, []), threshold) for image_id in sorted(detections)
    }


def precision_and_recall(matched, image_ids):
    """Average precision over 101 recalls, and the highest recall, of some of the matched images."""
    outcomes, num_people = [], 0
    for image_id in sorted(image_ids):
        outcome, num = matched[image_id]
        outcomes += outcome
        num_people += num
    outcomes.sort(key=lambda pair: -pair[0])
    points, num_right = [], 0
    for i, (_, right) in enumerate(outcomes, start=1):
        num_right += right
        points.append((num_right / num_people, num_right / i))
    recalls, precisions = np.array(points).reshape(-1, 2).T
    # recalls do not decrease: from the first that is reached on
    best = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0.0)
    total = best[np.searchsorted(recalls, np.linspace(0, 1, 101))].sum()
    return 100 * total / 101, 100 * num_right / num_people


def by_hand(data, detections):
    thresholds = [0.5 + 0.05 * i for i in range(10)]
    index = {image["id"]: image["crowdIndex"] for image in data["images"]}
    groups = {
        "all": list(index),
        "easy": [i for i, c in index.items() if c < 0.2],
        "medium": [i for i, c in index.items() if 0.2 <= c < 0.8],
        "hard": [i for i, c in index.items() if c >= 0.8],
    }
    matched = [match_images(data, detections, threshold) for threshold in thresholds]
    scores = {
        group: np.array([precision_and_recall(images, ids) for images in matched]) for group, ids in groups.items()
    }
    (ap, ar), (ap50, ar50), (ap75, ar75) = scores["all"].mean(axis=0), scores["all"][0], scores["all"][5]
    result = {"AP": ap, "AP50": ap50, "AP75": ap75, "AR": ar, "AR50": ar50, "AR75": ar75}
    return {**result, **{f"AP{group}": scores[group][:, 0].mean() for group in ("easy", "medium", "hard")}}


class TestAgainstOthers:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_an_average_precision_written_by_hand(self, register, seed):
        data, detections = crowded_people(seed)
        assert len(data["annotations"]) >= 200
        assert max(map(len, detections.values())) > MAX_DETS
        name, expected = register(data), by_hand(data, detections)
        assert all(1 < value < 99 for value in expected.values())
        # the groups differ, or mixing them up would not show
        assert len({round(expected[f"AP{group}"], 1) for group in ("easy", "medium", "hard")}) == 3
        for backend in BACKENDS:
            metrics = evaluate(name, detections, backend=backend)
            assert list(metrics) == METRICS
            assert metrics == pytest.approx(expected, abs=1e-9)

    def test_the_make_up_of_the_authors_file(self, register):
        """crowdpose_val.json has 2,000 images, 96 of them with a crowdIndex above 1, up to 3.02."""
        data, detections = crowded_people(4, num_images=2000, most_detections=4)
        rng = np.random.default_rng(4)
        indices = np.concatenate([rng.uniform(0, 1, 1904), rng.uniform(1, 3, 95), [3.02]])
        for image, index in zip(data["images"], rng.permutation(indices).round(2).tolist()):
            image["crowdIndex"] = index
        assert max(image["crowdIndex"] for image in data["images"]) == 3.02
        expected = by_hand(data, detections)
        metrics = evaluate(register(data), detections)
        assert metrics == pytest.approx(expected, abs=1e-9)

    def test_faster_coco_eval_on_the_results_file(self, register, tmp_path):
        data, detections = crowded_people(2)
        name = register(data)
        metrics = evaluate(name, detections, output_dir=str(tmp_path))
        gt = COCO(MetadataCatalog.get(name).json_file)
        theirs = COCOeval_faster(
            gt,
            gt.loadRes(str(tmp_path / "coco_instances_results.json")),
            "keypoints_crowd",
            kpt_oks_sigmas=SIGMAS,
            use_area=False,
        )
        theirs.run()
        *overall, easy, medium, hard = (100 * theirs.all_stats).tolist()
        assert [metrics[key] for key in METRICS[:6]] == pytest.approx(overall, abs=1e-9)
        # rounded by them to 4 decimals of 1
        assert [metrics[key] for key in METRICS[6:]] == pytest.approx([easy, medium, hard], abs=0.0051)

        groups = group_by_crowding({image["id"]: image["crowdIndex"] for image in data["images"]})
        assert list(groups.values()) == list(theirs.split(MetadataCatalog.get(name).json_file, 0.2, 0.8))

    def test_the_area_of_the_annotation_does_not_count(self, register):
        data, detections = crowded_people(3, num_images=20)
        expected = evaluate(register(data), detections)
        for annotation in data["annotations"]:
            annotation["area"] = 1.0
        assert evaluate(register(data), detections) == expected


def person(points, **fields):
    return {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [0, 0, 100, 100],
        "num_keypoints": len(points),
        "keypoints": [float(v) for x, y in points for v in (x, y, 2)],
        **fields,
    }


class TestByHand:
    ONE = KeypointSchema(names=("dot",), sigmas=(0.05,))

    def data(self, *crowd_indices):
        ids = range(1, len(crowd_indices) + 1)
        return {
            "images": [{"id": i, "crowdIndex": c} for i, c in zip(ids, crowd_indices)],
            "annotations": [person([(30, 40)], id=i, image_id=i) for i in ids],
            "categories": [{"id": 1, "name": "person"}],
        }

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_one_keypoint(self, register, backend):
        # 5 pixels off: exp(-25 / (2 * 0.53 * 10000 * 0.01)) = 0.790 passes 6 thresholds; of the whole box 0.882, 8
        name = register(self.data(0.3), self.ONE)
        metrics = evaluate(name, {1: [(0.5, np.array([(33, 44)]))]}, backend=backend)
        for key in ("AP", "AR", "APmedium"):
            assert metrics[key] == pytest.approx(60)
        # no image is of these groups
        assert math.isnan(metrics["APeasy"])
        assert math.isnan(metrics["APhard"])

    @pytest.mark.parametrize(
        ("crowd_index", "group"),
        [(0, "easy"), (0.19, "easy"), (0.2, "medium"), (0.79, "medium"), (0.8, "hard"), (1, "hard"), (3.02, "hard")],
    )
    def test_bounds_of_the_groups(self, crowd_index, group):
        assert {name for name, ids in group_by_crowding({7: crowd_index}).items() if ids} == {group}

    def test_groups_are_evaluated_alone(self, register):
        name = register(self.data(0.1, 0.5), self.ONE)
        # the wrong one of the hard image outscores the right one of the easy image
        metrics = evaluate(name, {1: [(0.5, np.array([(30, 40)]))], 2: [(0.9, np.array([(300, 400)]))]})
        assert metrics["APeasy"] == pytest.approx(100)
        assert metrics["APmedium"] == 0
        # half of the people found, at precision 1 / 2
        assert metrics["AP"] == pytest.approx(50 * 51 / 101)

    def test_chosen_images(self, register):
        evaluator = PoseEvaluator(register(self.data(0.1, 0.1, 0.9), self.ONE))
        evaluator.process([{"image_id": 2}], [{"instances": to_instances([(0.5, np.array([(30, 40)]))])}])
        metrics = evaluator.evaluate(img_ids=[2, 3])["keypoints"]
        assert metrics["APeasy"] == pytest.approx(100)
        assert metrics["AR"] == pytest.approx(50)
        assert metrics["APhard"] == 0
        assert math.isnan(metrics["APmedium"])

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_no_person_predicted(self, register, backend):
        metrics = evaluate(register(self.data(0.1, 0.9), self.ONE), {1: [], 2: []}, backend=backend)
        assert metrics["AP"] == metrics["APeasy"] == metrics["APhard"] == 0

    def test_no_person_annotated_in_a_group(self, register):
        data = self.data(0.1, 0.9)
        del data["annotations"][1]
        metrics = evaluate(register(data, self.ONE), {1: [], 2: []})
        assert metrics["APeasy"] == 0
        assert math.isnan(metrics["APhard"])


class TestFaults:
    @pytest.mark.parametrize("value", [None, "0.3", math.nan, math.inf, -0.1, True])
    def test_an_image_without_crowd_index(self, register, value):
        data, _ = crowded_people(0, num_images=3)
        data["images"][1]["crowdIndex"] = value
        name = register(data)
        with pytest.raises(
            DatasetError, match=rf"{name}\.json: image 100001: crowdIndex is .*; write .*protocol: coco"
        ):
            PoseEvaluator(name)

    def test_dicts_without_a_file(self):
        """A data set of dicts has the protocol if they carry the crowd index."""
        annotation = {"bbox": [0, 0, 100, 100], "bbox_mode": 1, "category_id": 0, "keypoints": [30.5, 40.5, 2]}
        dicts = [{"image_id": 1, "crowdIndex": 0.9, "annotations": [annotation]}]
        DatasetCatalog.register("crowded_dicts", lambda: dicts)
        try:
            metadata = MetadataCatalog.get("crowded_dicts").set(thing_classes=["p"], keypoint_protocol="crowdpose")
            TestByHand.ONE.to_metadata(metadata)
            metrics = evaluate("crowded_dicts", {1: [(0.5, np.array([(33, 44)]))]})
            assert metrics["APhard"] == pytest.approx(60)
            del dicts[0]["crowdIndex"]
            with pytest.raises(DatasetError, match="'crowded_dicts': image 1: crowdIndex is None"):
                PoseEvaluator("crowded_dicts")
        finally:
            DatasetCatalog.remove("crowded_dicts")
            MetadataCatalog.remove("crowded_dicts")

    def test_another_number_of_keypoints(self, register):
        data, _ = crowded_people(0, num_images=3)
        data["annotations"][0]["keypoints"] += [0, 0, 0]
        with pytest.raises(DatasetError, match="annotation 500: keypoints has 45 numbers where its category's 14"):
            PoseEvaluator(register(data))
