import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import get_detection_dataset_dicts
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

from dynpose.config import add_dynpose_config
from dynpose.data import (
    COCO_PERSON,
    DatasetError,
    KeypointSchema,
    check_dataset_files,
    load_pose_json,
    register_datasets_from_cfg,
    register_pose_dataset,
)
from dynpose.evaluation.ground_truth import read_ground_truth

needs_real_data = pytest.mark.skipif(
    "DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data"
)


def real_files(name):
    folder = Path(os.environ["DYNPOSE_TEST_DATA"]) / "data" / name
    return str(folder / f"test_{name}.json"), str(folder)


def make_cfg(**datasets):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    for key, value in datasets.items():
        setattr(cfg.DATASETS, key, value)
    return cfg


class TestLoad:
    def test_dataset_dicts(self, pose_files):
        empty, record = load_pose_json(pose_files.json_file, pose_files.image_root)
        assert empty["image_id"] == 3
        assert empty["annotations"] == []
        assert record == {
            "file_name": os.path.join(pose_files.image_root, "a.png"),
            "height": 30,
            "width": 40,
            "image_id": 7,
            "annotations": [
                {
                    "iscrowd": 0,
                    "bbox": [10, 5, 24, 20],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 0,
                    # the centres of the annotated pixels
                    "keypoints": [15.5, 8.5, 2, 12.5, 20.5, 2, 30.5, 21.5, 1],
                    "area": 300.0,
                }
            ],
        }

    def test_optional_fields_of_an_annotation(self, pose_files):
        annotation = pose_files.data["annotations"][0]
        for key in ("area", "keypoints", "iscrowd"):
            del annotation[key]
        pose_files.save()
        (person,) = load_pose_json(pose_files.json_file, pose_files.image_root)[1]["annotations"]
        assert person["area"] == 24 * 20
        assert person["keypoints"][2::3] == [0, 0, 0]
        assert person["iscrowd"] == 0

    def test_other_categories_are_skipped(self, pose_files):
        pose_files.data["categories"].append({"id": 2, "name": "car"})
        pose_files.data["annotations"].append({"id": 12, "image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1]})
        pose_files.save()
        assert len(load_pose_json(pose_files.json_file, pose_files.image_root)[1]["annotations"]) == 1

    def test_categories_with_the_same_keypoints_are_classes(self, pose_files):
        keypoints = pose_files.data["categories"][0]["keypoints"]
        pose_files.data["categories"].append({"id": 2, "name": "statue", "keypoints": keypoints})
        pose_files.data["annotations"].append({**pose_files.data["annotations"][0], "id": 12, "category_id": 2})
        pose_files.save()
        record = load_pose_json(pose_files.json_file, pose_files.image_root)[1]
        assert [person["category_id"] for person in record["annotations"]] == [1, 0]
        record = load_pose_json(pose_files.json_file, pose_files.image_root, category="person")[1]
        assert [person["category_id"] for person in record["annotations"]] == [0]

    def test_segmentation_is_kept_where_nothing_is_to_be_learnt(self, pose_files):
        annotation = pose_files.data["annotations"][0]
        triangle = [[1, 1, 9, 1, 9, 9]]
        pose_files.data["annotations"] = [
            {**annotation, "id": i, "segmentation": triangle, **changes}
            for i, changes in enumerate(
                [
                    {},
                    {"segmentation": "of the labelled, not checked"},
                    {"iscrowd": 1},
                    {"keypoints": [0] * 9},
                    {"keypoints": [], "segmentation": [*triangle, [1, 1, 2, 2]]},
                    {"iscrowd": 1, "segmentation": None},
                ]
            )
        ]
        pose_files.save()
        people = load_pose_json(pose_files.json_file, pose_files.image_root)[1]["annotations"]
        assert [person.get("segmentation") for person in people] == [None, None, triangle, triangle, triangle, None]
        assert ["segmentation" in person for person in people] == [False, False, True, True, True, False]

    def test_images_in_folders(self, pose_files):
        root = Path(pose_files.image_root)
        (root / "night").mkdir()
        (root / "b.png").rename(root / "night" / "b.png")
        pose_files.data["images"][1]["file_name"] = "night/b.png"
        pose_files.save()
        record = load_pose_json(pose_files.json_file, pose_files.image_root)[0]
        assert record["file_name"] == os.path.join(pose_files.image_root, "night/b.png")

    def test_list_of_images(self, pose_files):
        pose_files.data = {"images": pose_files.data["images"], "categories": [{"id": 1, "name": "person"}]}
        pose_files.save()
        records = load_pose_json(pose_files.json_file, pose_files.image_root, annotated=False)
        assert [record["image_id"] for record in records] == [3, 7]

    @needs_real_data
    @pytest.mark.parametrize("name", ["coco", "ochuman"])
    def test_same_as_detectron2(self, name):
        records, expected = load_pose_json(*real_files(name)), load_coco_json(*real_files(name))
        for annotation in (person for record in expected for person in record["annotations"]):
            annotation["category_id"] -= 1
            if any(annotation["keypoints"][2::3]):
                del annotation["segmentation"]
        for annotation in (person for record in records for person in record["annotations"]):
            del annotation["area"]
        assert records == expected

    @needs_real_data
    @pytest.mark.parametrize(
        ("name", "num_keypoints", "num_limbs"),
        [("coco", 17, 19), ("crowdpose", 14, 9), ("ochuman", 17, 19), ("ap10k", 17, 17)],
    )
    @pytest.mark.usefixtures("catalogs")
    def test_real_files(self, name, num_keypoints, num_limbs):
        schema = register_pose_dataset("test_real", *real_files(name))
        assert schema.num_keypoints == num_keypoints
        assert len(schema.skeleton) == num_limbs
        assert not schema.sigmas_are_default

        coco = COCO(real_files(name)[0])
        records = DatasetCatalog.get("test_real")
        assert [record["image_id"] for record in records] == sorted(coco.imgs)
        for record in records:
            annotations = coco.imgToAnns[record["image_id"]]
            assert len(record["annotations"]) == len(annotations)
            for person, annotation in zip(record["annotations"], annotations):
                keypoints = np.reshape(annotation["keypoints"], (num_keypoints, 3)) + np.array([0.5, 0.5, 0])
                assert person["keypoints"] == keypoints.reshape(-1).tolist()
                assert person["bbox"] == annotation["bbox"]


def _set(path, value):
    """Set one item of the file, found by its keys."""

    def change(data):
        *keys, last = path
        for key in keys:
            data = data[key]
        data[last] = value

    return change


def _delete(path):
    def change(data):
        *keys, last = path
        for key in keys:
            data = data[key]
        del data[last]

    return change


def _repeat(key):
    return lambda data: data[key].append(data[key][0])


PERSON = ("annotations", 0)


def _ignored(segmentation):
    """A crowd with this segmentation."""
    return lambda data: data["annotations"][0].update(iscrowd=1, segmentation=segmentation)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (_delete(["images"]), "no list 'images' of objects; see"),
            (_delete(["annotations"]), "no list 'annotations' of objects; see"),
            (_set(["categories"], {"1": "person"}), "no list 'categories' of objects; see"),
            (_set(["annotations"], [1]), "no list 'annotations' of objects; see"),
            (_set(["categories", 0, "keypoints"], []), "none of its categories has keypoints .*'person'.*; give"),
            (_delete(["categories", 0, "name"]), "category 5 lacks 'id' or 'name'; add it"),
            (_repeat("categories"), "category id 5 occurs more than once; give"),
            (_repeat("images"), "image id 7 occurs more than once; give"),
            (_delete(["images", 1, "id"]), "image 'b.png' has no 'id'; give"),
            (_delete(["images", 1, "file_name"]), "image 3 has no 'file_name'; add"),
            (_delete(["images", 1, "width"]), "image 3: width is None; write"),
            (_set(["images", 1, "height"], 0), "image 3: height is 0; write"),
            (_set([*PERSON, "image_id"], 8), "annotation 11 is of image 8, which is not in 'images'; add"),
            (_set([*PERSON, "category_id"], 1), "annotation 11 is of category 1, which is not in 'categories' .*; add"),
            (_set([*PERSON, "keypoints"], [1, 2, 2]), "annotation 11: keypoints has 3 numbers .* make 9; write"),
            (_set([*PERSON, "keypoints"], [None] * 9), "annotation 11: keypoints are not all numbers"),
            (_set([*PERSON, "keypoints"], [1, 1, 0.9] * 3), "annotation 11: .*visibility of 0, 1 or 2; write"),
            (_set([*PERSON, "keypoints"], [float("nan"), 1, 2] * 3), "annotation 11: keypoints are not all numbers"),
            (_set([*PERSON, "bbox"], [1, 2, 3]), r"annotation 11: bbox is \[1, 2, 3\]; write"),
            (_set([*PERSON, "bbox"], [1, 2, float("nan"), 3]), r"annotation 11: bbox is \[1, 2, nan, 3\]; write"),
            (_set([*PERSON, "bbox"], [1, 2, "3", 4]), "annotation 11: bbox is .*'3'.*; write"),
            (_set([*PERSON, "bbox"], [1, 2, [3], 4]), "annotation 11: bbox is"),
            (_set([*PERSON, "bbox"], [30, 20, -10, 5]), "annotation 11: bbox is .*-10.*; write"),
            (_ignored([[1, 2, 3, 4, 5, 6, 7]]), "annotation 11: segmentation has a polygon .*; write"),
            (_ignored({"size": [40, 30], "counts": [1200]}), r"annotation 11: segmentation .*\[40, 30\].*; write"),
            (_ignored({"size": [30, 40], "counts": [1199]}), "annotation 11: segmentation .* do not make .*; write"),
        ],
    )  # fmt: skip
    def test_fault_names_file_item_and_remedy(self, pose_files, change, message):
        change(pose_files.data)
        pose_files.save()
        with pytest.raises(DatasetError, match=message) as error:
            load_pose_json(pose_files.json_file, pose_files.image_root)
        assert str(error.value).startswith(pose_files.json_file + ": ")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"images": [', "not valid JSON .*; it may be cut off"),
            (b"\xff\xd8\xff\xe0", "not valid JSON .*; it may be cut off"),
            (b"[]", "not in COCO's format"),
            (b"<annotations/>", "not valid JSON .*; a file of an annotation tool is converted by dynpose convert-data"),
        ],
    )
    def test_broken_file(self, pose_files, content, message):
        Path(pose_files.json_file).write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            load_pose_json(pose_files.json_file, pose_files.image_root)

    def test_missing_file(self, tmp_path):
        with pytest.raises(DatasetError, match=r"gone\.json: the file does not exist; correct its path"):
            load_pose_json(tmp_path / "gone.json", tmp_path)

    def test_unreadable_file(self, tmp_path):
        with pytest.raises(DatasetError, match="cannot be read"):
            load_pose_json(str(tmp_path), str(tmp_path))  # a folder

    def test_missing_images(self, pose_files):
        extra = [{"id": 100 + i, "file_name": f"gone{i}.jpg", "width": 4, "height": 4} for i in range(5)]
        pose_files.data["images"] += extra
        pose_files.save()
        with pytest.raises(
            DatasetError,
            match=r"5 of its 7 images are missing: .*gone0\.jpg.*gone2\.jpg, \.\.\.; correct the image f",
        ) as error:
            load_pose_json(pose_files.json_file, pose_files.image_root)
        assert pose_files.image_root in str(error.value)

    def test_missing_image_folder(self, pose_files):
        with pytest.raises(DatasetError, match="2 of its 2 images are missing"):
            load_pose_json(pose_files.json_file, pose_files.image_root + "_gone")

    def test_unknown_category(self, pose_files):
        with pytest.raises(DatasetError, match=r"no category 'dog' \(it has: 'person'\)"):
            load_pose_json(pose_files.json_file, pose_files.image_root, category="dog")

    def test_category_without_keypoints(self, pose_files):
        pose_files.data["categories"].append({"id": 2, "name": "car"})
        pose_files.save()
        with pytest.raises(DatasetError, match="category 'car' has no keypoints; give"):
            load_pose_json(pose_files.json_file, pose_files.image_root, category="car")

    def test_categories_with_different_keypoints(self, pose_files):
        pose_files.data["categories"].append({"id": 2, "name": "dog", "keypoints": ["tail"]})
        pose_files.save()
        with pytest.raises(DatasetError, match=r"'dog' and 'person' have different keypoints \(1 and 3\); choose"):
            load_pose_json(pose_files.json_file, pose_files.image_root)


@pytest.mark.usefixtures("catalogs")
class TestRegister:
    def test_metadata(self, pose_files):
        schema = register_pose_dataset(
            "test_people", pose_files.json_file, pose_files.image_root, sigmas=[0.1, 0.2, 0.2]
        )
        metadata = MetadataCatalog.get("test_people")
        assert metadata.evaluator_type == "pose"
        assert metadata.json_file == pose_files.json_file
        assert metadata.image_root == pose_files.image_root
        assert metadata.thing_classes == ["person"]
        assert metadata.thing_dataset_id_to_contiguous_id == {5: 0}
        assert KeypointSchema.from_metadata(metadata) == schema
        assert schema.sigmas == (0.1, 0.2, 0.2)
        assert len(DatasetCatalog.get("test_people")) == 2

    def test_metadata_of_two_classes(self, pose_files):
        keypoints = pose_files.data["categories"][0]["keypoints"]
        pose_files.data["categories"].append({"id": 2, "name": "statue", "keypoints": keypoints})
        pose_files.save()
        register_pose_dataset("test_people", pose_files.json_file, pose_files.image_root)
        metadata = MetadataCatalog.get("test_people")
        assert metadata.thing_classes == ["statue", "person"]
        assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 5: 1}

    def test_classes_of_several_sets_are_the_models(self, pose_files, tmp_path):
        """The second file has the same two classes, its ids the other way round."""
        category, person = pose_files.data["categories"][0], pose_files.data["annotations"][0]
        entries = []
        for name, ids in (("test_first", {"cat": 1, "dog": 2}), ("test_second", {"cat": 9, "dog": 4})):
            data = {
                **pose_files.data,
                "categories": [{**category, "id": i, "name": animal} for animal, i in ids.items()],
                "annotations": [{**person, "category_id": ids["dog"]}],
            }
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(data))
            entries.append({"name": name, "json_file": str(path), "image_root": pose_files.image_root})
        cfg = make_cfg(POSE=entries, TRAIN=("test_first",), TEST=("test_second",))
        for _ in range(2):
            register_datasets_from_cfg(cfg)
        for name in ("test_first", "test_second"):
            assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
            assert DatasetCatalog.get(name)[1]["annotations"][0]["category_id"] == 1
        assert read_ground_truth("test_second", 3).category_ids == [9, 4]

        # the second alone, and as a config of an earlier run has it
        cfg.DATASETS.TRAIN = ()
        register_datasets_from_cfg(cfg)
        assert MetadataCatalog.get("test_second").thing_classes == ["dog", "cat"]
        cfg.MODEL.CLASS_NAMES = ["cat", "dog"]
        register_datasets_from_cfg(cfg)
        assert MetadataCatalog.get("test_second").thing_classes == ["cat", "dog"]

    def test_one_class_of_another_name(self, pose_files, caplog):
        entry = {"name": "test_one", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry], TEST=("test_one",))
        cfg.MODEL.CLASS_NAMES = ["pedestrian"]
        register_datasets_from_cfg(cfg)
        assert "'test_one' calls its one class 'person', the model 'pedestrian': they are treated" in caplog.text
        assert MetadataCatalog.get("test_one").thing_classes == ["pedestrian"]

    def test_other_classes_stay_for_the_comparison(self, pose_files):
        pose_files.data["categories"].append({**pose_files.data["categories"][0], "id": 6, "name": "statue"})
        pose_files.save()
        entry = {"name": "test_two", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry], TEST=("test_two",))
        cfg.MODEL.CLASS_NAMES = ["person", "tree"]
        register_datasets_from_cfg(cfg)
        assert MetadataCatalog.get("test_two").thing_classes == ["person", "statue"]

    def test_again(self, pose_files):
        arguments = {"json_file": pose_files.json_file, "image_root": pose_files.image_root}
        first = register_pose_dataset("test_people", **arguments, flip_pairs=[["left_wrist", "right_wrist"]])
        again = register_pose_dataset("test_people", **arguments, flip_pairs=(("left_wrist", "right_wrist"),))
        assert again == first
        with pytest.raises(DatasetError, match="'test_people' is already registered"):
            register_pose_dataset("test_people", **arguments)
        with pytest.raises(DatasetError, match="'keypoints_coco_2017_val' is already registered"):
            register_pose_dataset("keypoints_coco_2017_val", **arguments)

    def test_failure_leaves_no_trace(self, pose_files):
        pose_files.data["categories"][0]["keypoints"] = []
        pose_files.save()
        with pytest.raises(DatasetError, match="none of its categories has keypoints"):
            register_pose_dataset("test_people", pose_files.json_file, pose_files.image_root)
        assert "test_people" not in DatasetCatalog
        assert "test_people" not in MetadataCatalog

    def test_filter_of_detectron2(self, pose_files):
        """Images without people, or without labelled keypoints, are kept out of training and in evaluation."""
        pose_files.data["images"].append({**pose_files.data["images"][0], "id": 9})
        pose_files.data["annotations"].append(
            {"id": 12, "image_id": 9, "category_id": 5, "bbox": [1, 1, 9, 9], "keypoints": [0] * 9}
        )
        pose_files.save()
        register_pose_dataset("test_people", Path(pose_files.json_file), Path(pose_files.image_root))

        def image_ids(**filters):
            return [record["image_id"] for record in get_detection_dataset_dicts("test_people", **filters)]

        assert image_ids(filter_empty=False) == [3, 7, 9]
        assert image_ids(filter_empty=True) == [7, 9]
        assert image_ids(filter_empty=True, min_keypoints=1) == [7]

    def test_from_config(self, pose_files):
        entry = {"name": "test_people", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry])
        register_datasets_from_cfg(cfg)
        register_datasets_from_cfg(cfg)
        assert len(DatasetCatalog.get("test_people")) == 2

    def test_from_yaml(self, pose_files, tmp_path):
        (tmp_path / "c.yaml").write_text(
            json.dumps(
                {
                    "DATASETS": {
                        "POSE": [
                            {
                                "name": "test_people",
                                "json_file": pose_files.json_file,
                                "image_root": pose_files.image_root,
                                "sigmas": [0.1, 0.1, 0.1],
                            }
                        ]
                    }
                }
            )
        )
        cfg = make_cfg()
        cfg.merge_from_file(str(tmp_path / "c.yaml"))
        register_datasets_from_cfg(cfg)
        assert MetadataCatalog.get("test_people").keypoint_sigmas == (0.1, 0.1, 0.1)

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            (
                {"name": "x", "json": "a", "image_root": "b"},
                r"POSE\[0\] has unknown keys 'json'; allowed are name, json_file",
            ),
            ({"name": "x", "image_root": "b"}, r"POSE\[0\] \(x\) lacks json_file; add it"),
            ("people.json", r"POSE\[0\] is 'people.json': write a mapping"),
        ],
    )
    def test_faulty_entry(self, entry, message):
        with pytest.raises(DatasetError, match=message):
            register_datasets_from_cfg(make_cfg(POSE=[entry]))

    def test_synthetic_people_only_where_named(self, monkeypatch):
        calls = []
        synthetic = types.ModuleType("dynpose.data.synthetic")
        synthetic.register_synthetic_pose_from_cfg = calls.append
        monkeypatch.setitem(sys.modules, "dynpose.data.synthetic", synthetic)
        register_datasets_from_cfg(make_cfg(TRAIN=("keypoints_coco_2017_train",)))
        assert calls == []
        cfg = make_cfg(TEST=("synthetic_pose_val",))
        register_datasets_from_cfg(cfg)
        assert calls == [cfg]


class TestCoco:
    def test_detectron2s_sets_have_sigmas(self):
        for name in ("keypoints_coco_2017_train", "keypoints_coco_2017_val"):
            assert MetadataCatalog.get(name).keypoint_sigmas == COCO_PERSON.sigmas

    def test_test_dev_is_registered(self):
        val, test_dev = (MetadataCatalog.get(f"keypoints_coco_2017_{split}") for split in ("val", "test-dev"))
        folder = os.path.dirname(os.path.dirname(val.json_file))
        assert test_dev.json_file == os.path.join(folder, "annotations", "image_info_test-dev2017.json")
        assert test_dev.image_root == os.path.join(folder, "test2017")
        assert test_dev.evaluator_type == "pose"
        assert test_dev.thing_dataset_id_to_contiguous_id == {1: 0}
        assert KeypointSchema.from_metadata(test_dev) == KeypointSchema.from_metadata(val)
        assert "keypoints_coco_2017_test-dev" in DatasetCatalog

    @pytest.mark.usefixtures("catalogs")
    def test_missing_files(self, tmp_path):
        metadata = MetadataCatalog.get("keypoints_coco_test").set(json_file=str(tmp_path / "gone.json"))
        with pytest.raises(DatasetError, match=r"gone\.json does not exist; download COCO .*DETECTRON2_DATASETS"):
            check_dataset_files("keypoints_coco_test")
        Path(metadata.json_file).touch()
        metadata.image_root = str(tmp_path / "images")
        with pytest.raises(DatasetError, match="images does not exist"):
            check_dataset_files("keypoints_coco_test")
        Path(metadata.image_root).mkdir()
        check_dataset_files("keypoints_coco_test")
