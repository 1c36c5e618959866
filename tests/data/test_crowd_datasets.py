"""CrowdPose and OCHuman: built-in names, the layout of their files, and the real images of the test data."""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, BoxMode, Instances

from dynpose.config import add_dynpose_config
from dynpose.data import (
    COCO_PERSON,
    CROWDPOSE_PERSON,
    DatasetError,
    KeypointSchema,
    check_dataset_files,
    crowd_datasets,
    register_datasets_from_cfg,
    register_pose_dataset,
    schema_from_cfg,
)
from dynpose.evaluation import PoseEvaluator
from dynpose.utils.drawing import draw_poses

CROWDPOSE = tuple(f"crowdpose_{split}" for split in ("train", "val", "trainval", "test"))
OCHUMAN = ("ochuman_val", "ochuman_test")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder that the built-in names look in; empty at first."""

    def register_again():
        for name in CROWDPOSE + OCHUMAN:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        importlib.reload(crowd_datasets)

    with monkeypatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path))
        register_again()
    yield tmp_path
    register_again()


def crowdpose_file(root, split):
    return root / "crowdpose" / "json" / f"crowdpose_{split}.json"


def ochuman_file(root, split):
    return root / "ochuman" / "annotations" / f"ochuman_coco_format_{split}_range_0.00_1.00.json"


@pytest.fixture
def crowdpose(root, test_data):
    """The two real images of CrowdPose, one in train, one in val and both in test; returns (root, file content)."""
    folder = test_data / "data" / "crowdpose"
    shutil.copytree(folder, root / "crowdpose" / "images", ignore=shutil.ignore_patterns("*.json"))
    data = json.loads((folder / "test_crowdpose.json").read_text())
    (root / "crowdpose" / "json").mkdir()
    for split, images in (("train", data["images"][:1]), ("val", data["images"][1:]), ("test", data["images"])):
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in data["annotations"] if annotation["image_id"] in ids]
        write(crowdpose_file(root, split), {**data, "images": images, "annotations": annotations})
    return root, data


@pytest.fixture
def ochuman(root, test_data):
    """The three real images of OCHuman, in val."""
    folder = test_data / "data" / "ochuman"
    shutil.copytree(folder, root / "ochuman" / "images", ignore=shutil.ignore_patterns("*.json"))
    ochuman_file(root, "val").parent.mkdir()
    shutil.copy(folder / "test_ochuman.json", ochuman_file(root, "val"))
    return root


def write(path, data):
    path.write_text(json.dumps(data))


def make_cfg(**datasets):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    for key, value in datasets.items():
        setattr(cfg.DATASETS, key, value)
    return cfg


class TestCrowdPosePerson:
    def test_joints_of_coco_have_cocos_sigmas_and_pairs(self):
        coco = dict(zip(COCO_PERSON.names, COCO_PERSON.sigmas))
        assert CROWDPOSE_PERSON.num_keypoints == 14
        assert not CROWDPOSE_PERSON.sigmas_are_default
        for name, sigma in zip(CROWDPOSE_PERSON.names, CROWDPOSE_PERSON.sigmas):
            assert sigma == coco.get(name, 0.079)
        assert set(CROWDPOSE_PERSON.names) - set(coco) == {"head", "neck"}
        assert set(CROWDPOSE_PERSON.flip_pairs) == {pair for pair in COCO_PERSON.flip_pairs if pair[0] in coco} - {
            ("left_eye", "right_eye"),
            ("left_ear", "right_ear"),
        }

    def test_limbs_are_a_body(self):
        """Those that COCO has, but from the shoulders to the neck instead of across, and the head on it."""

        def limbs(schema):
            return {frozenset((schema.names[a], schema.names[b])) for a, b in schema.skeleton}

        ours = limbs(CROWDPOSE_PERSON)
        of_coco = {limb for limb in limbs(COCO_PERSON) if limb <= set(CROWDPOSE_PERSON.names)}
        assert of_coco - ours == {frozenset(("left_shoulder", "right_shoulder"))}
        assert ours - of_coco == {
            frozenset(("head", "neck")),
            frozenset(("neck", "left_shoulder")),
            frozenset(("neck", "right_shoulder")),
        }
        assert len(CROWDPOSE_PERSON.skeleton) == len(ours)

    def test_names_are_those_of_the_file(self, crowdpose):
        assert tuple(crowdpose[1]["categories"][0]["keypoints"]) == CROWDPOSE_PERSON.names


class TestNames:
    @pytest.mark.parametrize("name", CROWDPOSE + OCHUMAN)
    def test_metadata_without_files(self, root, name):
        metadata = MetadataCatalog.get(name)
        of_crowdpose = name in CROWDPOSE
        assert KeypointSchema.from_metadata(metadata) == (CROWDPOSE_PERSON if of_crowdpose else COCO_PERSON)
        assert metadata.keypoint_protocol == ("crowdpose" if of_crowdpose else "coco")
        assert metadata.evaluator_type == "pose"
        assert metadata.thing_classes == ["person"]
        split = name.split("_")[1]
        expected = crowdpose_file(root, split) if of_crowdpose else ochuman_file(root, split)
        assert metadata.json_file == str(expected)
        assert metadata.image_root == str(expected.parents[1] / "images")

    def test_a_model_for_them_needs_no_file(self, root):
        cfg = make_cfg(TRAIN=("crowdpose_trainval",), TEST=("crowdpose_test",))
        assert schema_from_cfg(cfg) == CROWDPOSE_PERSON
        assert list(root.iterdir()) == []

    def test_a_model_of_coco_is_evaluated_on_ochuman(self, root):
        cfg = make_cfg(TRAIN=("keypoints_coco_2017_train",), TEST=OCHUMAN)
        assert schema_from_cfg(cfg).has_same_keypoints(COCO_PERSON)
        with pytest.raises(DatasetError, match="has 17 keypoints, data set 'crowdpose_test' has 14"):
            schema_from_cfg(make_cfg(TRAIN=("ochuman_val",), TEST=("crowdpose_test",)))


class TestMissingFiles:
    @pytest.mark.parametrize("name", ["crowdpose_train", "crowdpose_test", *OCHUMAN])
    def test_the_annotation(self, root, name):
        json_file = MetadataCatalog.get(name).json_file
        site = "Jeff-sjtu/CrowdPose" if name in CROWDPOSE else "liruilong940607/OCHumanApi"
        for use in (check_dataset_files, DatasetCatalog.get, PoseEvaluator):
            with pytest.raises(DatasetError, match=rf"'{name}': .*{site}.*DETECTRON2_DATASETS") as error:
                use(name)
            assert f"{json_file} does not exist" in str(error.value)

    def test_the_images(self, crowdpose):
        root, data = crowdpose
        (root / "crowdpose" / "images" / data["images"][1]["file_name"]).unlink()
        check_dataset_files("crowdpose_test")
        with pytest.raises(DatasetError, match=rf"1 of its 2 images are missing: .*{data['images'][1]['file_name']}"):
            DatasetCatalog.get("crowdpose_test")
        PoseEvaluator("crowdpose_test")  # results can be evaluated without the images
        shutil.rmtree(root / "crowdpose" / "images")
        with pytest.raises(DatasetError, match="crowdpose/images does not exist; download"):
            check_dataset_files("crowdpose_test")

    def test_a_relative_path_is_given_whole(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        MetadataCatalog.get("somewhere").set(json_file="datasets/people.json")
        try:
            with pytest.raises(DatasetError, match=f"{tmp_path}/datasets/people.json does not exist"):
                check_dataset_files("somewhere")
        finally:
            MetadataCatalog.remove("somewhere")


class TestTrainval:
    def test_train_and_val_make_it_up(self, crowdpose):
        _, data = crowdpose
        check_dataset_files("crowdpose_trainval")
        records = DatasetCatalog.get("crowdpose_trainval")
        assert [record["image_id"] for record in records] == [image["id"] for image in data["images"]]
        assert records == DatasetCatalog.get("crowdpose_train") + DatasetCatalog.get("crowdpose_val")
        assert evaluate_the_annotation("crowdpose_trainval")["AR"] == pytest.approx(100)

    def test_its_own_file_goes_first(self, crowdpose):
        root, _ = crowdpose
        shutil.copy(crowdpose_file(root, "val"), crowdpose_file(root, "trainval"))
        assert DatasetCatalog.get("crowdpose_trainval") == DatasetCatalog.get("crowdpose_val")

    @pytest.mark.parametrize("missing", ["train", "val"])
    def test_one_of_them_is_missing(self, crowdpose, missing):
        root, _ = crowdpose
        crowdpose_file(root, missing).unlink()
        with pytest.raises(DatasetError, match="'crowdpose_trainval'") as error:
            DatasetCatalog.get("crowdpose_trainval")
        for split in (missing, "trainval"):
            assert str(crowdpose_file(root, split)) in str(error.value)


def people_of(record):
    """The labelled people of a dataset dict as a model would predict them."""
    people = [person for person in record["annotations"] if any(person["keypoints"][2::3])]
    instances = Instances((record["height"], record["width"]))
    if not people:
        return instances
    instances.pred_keypoints = torch.tensor([person["keypoints"] for person in people]).reshape(len(people), -1, 3)
    boxes = torch.tensor([person["bbox"] for person in people], dtype=torch.float32)
    instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
    instances.scores = torch.linspace(0.9, 0.8, len(people))
    instances.pred_classes = torch.zeros(len(people), dtype=torch.int64)
    return instances


def evaluate_the_annotation(name, **kwargs):
    """Metrics of the ground truth fed back as predictions."""
    evaluator = PoseEvaluator(name, **kwargs)
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"instances": people_of(record)}])
    return evaluator.evaluate()["keypoints"]


class TestRealFiles:
    @pytest.mark.parametrize("backend", ["faster", "pycocotools"])
    def test_crowdpose_predicted_exactly(self, crowdpose, backend):
        metrics = evaluate_the_annotation("crowdpose_test", backend=backend)
        # crowd indices 0.33 and 0.39
        for key in ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "APmedium"):
            assert metrics[key] == pytest.approx(100)
        assert np.isnan([metrics["APeasy"], metrics["APhard"]]).all()

    @pytest.mark.parametrize("backend", ["faster", "pycocotools"])
    def test_ochuman_predicted_exactly(self, ochuman, backend):
        metrics = evaluate_the_annotation("ochuman_val", backend=backend)
        for key in ("AP", "AP50", "AP75", "APl", "AR"):
            assert metrics[key] == pytest.approx(100)

    def test_ochuman_counts_the_area_of_its_file(self, ochuman, caplog):
        PoseEvaluator("ochuman_val")
        assert "area" not in caplog.text
        data = json.loads(ochuman_file(ochuman, "val").read_text())
        # which is that of the box, not of the segment
        assert all(person["area"] == person["bbox"][2] * person["bbox"][3] for person in data["annotations"])

    def test_labels_lie_in_the_image(self, crowdpose, ochuman):
        records = DatasetCatalog.get("crowdpose_test") + DatasetCatalog.get("ochuman_val")
        assert len(records) == 5
        for record in records:
            assert record["annotations"]
            for person in record["annotations"]:
                keypoints = np.reshape(person["keypoints"], (-1, 3))
                labelled = keypoints[keypoints[:, 2] > 0, :2]
                assert ((labelled >= 0) & (labelled <= (record["width"], record["height"]))).all()

    def test_drawing(self, crowdpose, ochuman):
        colors = {(86, 180, 233), (230, 159, 0), (0, 158, 115)}
        for name in ("crowdpose_test", "ochuman_val"):
            schema = KeypointSchema.from_metadata(MetadataCatalog.get(name))
            hits = []
            for record in DatasetCatalog.get(name):
                image, people = read_image(record["file_name"], "RGB"), people_of(record)
                drawn = draw_poses(image, people, schema, show_boxes=False, show_scores=False)
                scale = drawn.shape[0] / image.shape[0]
                for x, y, visibility in people.pred_keypoints.reshape(-1, 3).tolist():
                    if visibility > 0:
                        hits.append(tuple(drawn[int(y * scale), int(x * scale)].tolist()) in colors)
            # each keypoint is in the middle of a disc of its side's colour, unless an outline runs across it
            assert np.mean(hits) > 0.9


class TestFaults:
    def change(self, crowdpose, change):
        root, data = crowdpose
        change(data)
        write(crowdpose_file(root, "test"), data)
        return crowdpose_file(root, "test")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda data: data["categories"][0].update(keypoints=list(COCO_PERSON.names)),
                "14 keypoints left_shoulder, .* with the 17 keypoints nose, .*DATASETS.POSE",
            ),
            (lambda data: data["categories"][0]["keypoints"].reverse(), "14 keypoints neck, head, .*DATASETS.POSE"),
            (lambda data: data["categories"][0].update(id=2), "category of id 1 .* has category id 2 .*DATASETS.POSE"),
            (lambda data: data["annotations"][2]["keypoints"].pop(), "annotation 147481: keypoints has 41 numbers"),
        ],
    )
    def test_another_file_than_the_name_says(self, crowdpose, change, message):
        json_file = self.change(crowdpose, change)
        with pytest.raises(DatasetError, match=message) as error:
            DatasetCatalog.get("crowdpose_test")
        assert str(error.value).startswith(f"{json_file}: ")

    def test_an_image_without_crowd_index(self, crowdpose):
        json_file = self.change(crowdpose, lambda data: data["images"][1].pop("crowdIndex"))
        with pytest.raises(DatasetError, match="image 103319: crowdIndex is None") as error:
            PoseEvaluator("crowdpose_test")
        assert str(error.value).startswith(f"{json_file}: ")


@pytest.mark.usefixtures("catalogs")
class TestOwnFilesWithTheProtocol:
    def register(self, crowdpose, **kwargs):
        root, _ = crowdpose
        return register_pose_dataset(
            "test_crowded", crowdpose_file(root, "test"), root / "crowdpose" / "images", protocol="crowdpose", **kwargs
        )

    def test_as_the_built_in(self, crowdpose, caplog):
        with caplog.at_level(logging.WARNING):
            assert self.register(crowdpose) == CROWDPOSE_PERSON
        assert "limbs" not in caplog.text
        assert evaluate_the_annotation("test_crowded")["APmedium"] == pytest.approx(100)

    def test_sigmas_that_are_given_count(self, crowdpose):
        assert self.register(crowdpose, sigmas=[0.1] * 14).sigmas == (0.1,) * 14
        assert MetadataCatalog.get("test_crowded").keypoint_connection_rules[0][:2] == ("head", "neck")

    def test_other_keypoints(self, pose_files):
        for image in pose_files.data["images"]:
            image["crowdIndex"] = 0.5
        pose_files.save()
        schema = register_pose_dataset(
            "test_crowded", pose_files.json_file, pose_files.image_root, protocol="crowdpose"
        )
        assert schema.names == ("nose", "left_wrist", "right_wrist")
        assert evaluate_the_annotation("test_crowded")["APmedium"] == pytest.approx(100)

    def test_from_config(self, pose_files):
        entry = {"name": "test_crowded", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        with pytest.raises(DatasetError, match=r"people\.json: image 7: crowdIndex is None, .*; write"):
            register_datasets_from_cfg(make_cfg(POSE=[{**entry, "protocol": "crowdpose"}]))
        assert "test_crowded" not in DatasetCatalog
        with pytest.raises(
            DatasetError, match="'test_crowded': unknown protocol 'CrowdPose'; known are coco, crowdpose"
        ):
            register_datasets_from_cfg(make_cfg(POSE=[{**entry, "protocol": "CrowdPose"}]))
        register_datasets_from_cfg(make_cfg(POSE=[{**entry, "protocol": "coco"}]))
        assert MetadataCatalog.get("test_crowded").keypoint_protocol == "coco"


def test_default_root():
    expected = os.path.join(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")), "crowdpose", "images")
    assert MetadataCatalog.get("crowdpose_test").image_root == expected


def test_they_are_registered_whatever_is_imported_first():
    """dynpose.data imports detectron2 on first use only; a script that never uses it still finds the names."""
    script = "import dynpose.data; from detectron2.data import DatasetCatalog; print('ochuman_val' in DatasetCatalog)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
