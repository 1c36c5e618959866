"""The rules by which annotations are read, one by one, with values worked out by hand.

The sound file of ``pose_files`` has image 7 (40 x 30) with one person, annotation 11, and image 3 (20 x 50) without.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from dynpose.data import DatasetError, load_pose_json, register_pose_dataset
from dynpose.data.coco_json import read_coco_json, read_pose_file
from dynpose.data.dataset_dicts import correct_dataset_dicts, load_dataset_dicts
from dynpose.data.datasets import read_schema
from dynpose.data.rules import RULES, Remarks, boxes_from_keypoints, implausible_areas
from dynpose.evaluation.ground_truth import read_ground_truth

LABELLED = [15, 8, 2, 12, 20, 2, 30, 21, 1]
SQUARE = [[10, 5, 30, 5, 30, 15, 10, 15]]  # 20 x 10 pixels


def load(pose_files, **options):
    """The people of image 7, and the names of the rules that were met."""
    pose_files.save()
    remarks = Remarks()
    records = load_pose_json(pose_files.json_file, pose_files.image_root, on_remarks=remarks.merge, **options)
    return records[1]["annotations"], remarks.counts


def change(pose_files, **fields):
    pose_files.data["annotations"][0].update(fields)


class TestAreas:
    """The box of the sound annotation is 24 x 20 = 480 square pixels."""

    @pytest.mark.parametrize("area", [0, 0.0, 1, 1.0, -5, -1, 0.4, 40 * 30, 526, float("inf")])
    def test_impossible_area(self, pose_files, area):
        change(pose_files, area=area)
        (person,), rules = load(pose_files)
        assert person["area"] == 480
        assert rules == {"missing area" if area == float("inf") else "implausible area": 1}

    @pytest.mark.parametrize("area", [2, 1.5, 300, 480, 525])
    def test_possible_area(self, pose_files, area):
        # up to (24 + 1) * (20 + 1) = 525: both sides may be rounded
        change(pose_files, area=area)
        assert load(pose_files) == ([{**load(pose_files)[0][0], "area": area}], {})

    @pytest.mark.parametrize("area", [None, "300", True, [300], float("nan"), 10**400])
    def test_none_at_all(self, pose_files, area):
        change(pose_files, area=area)
        assert (load(pose_files)[0][0]["area"], load(pose_files)[1]) == (480, {"missing area": 1})

    @pytest.mark.parametrize("area", [None, 0, 1, -5, 1200])
    def test_the_segmentation_goes_before_the_box(self, pose_files, area):
        change(pose_files, area=area, segmentation=SQUARE)
        assert load(pose_files)[0][0]["area"] == 200

    @pytest.mark.parametrize(
        ("area", "segmentation"),
        [
            (1, [[10, 5, 11, 5, 11, 6, 10, 6]]),
            (0.4, [[10, 5, 11, 5, 11, 5.4, 10, 5.4]]),
            (0, [[10, 5, 10, 5, 10.5, 5]]),
            (700, [[0, 0, 35, 0, 35, 20, 0, 20]]),
        ],
    )
    def test_a_segmentation_of_that_area_confirms_it(self, pose_files, area, segmentation):
        """Tiny segments in large boxes, of which COCO has some, and boxes that are tighter than the segment."""
        change(pose_files, area=area, segmentation=segmentation)
        assert load(pose_files) == ([{**load(pose_files)[0][0], "area": area}], {})

    def test_areas_below_a_pixel_in_boxes_as_small(self, pose_files):
        change(pose_files, area=0.54, bbox=[15, 8, 0.9, 1.2])
        assert load(pose_files)[0][0]["area"] == 0.54

    def test_a_box_that_was_made_up_refutes_nothing_but_the_image(self, pose_files):
        for area, expected in ((900, 900), (1199, 1199), (1200, None), (0, None)):
            change(pose_files, area=area, bbox=None)
            (person,), _ = load(pose_files)
            assert person["area"] == (expected or person["bbox"][2] * person["bbox"][3])

    def test_the_rule_touches_nothing_of_coco(self):
        """The make-up of its 150,000 people: any share of the box down to slivers, areas as small as their boxes."""
        rng = np.random.default_rng(0)
        boxes = np.concatenate([rng.uniform(0, 300, (20000, 2)), np.exp(rng.uniform(-1, 6, (20000, 2)))], axis=1)
        box_areas = boxes[:, 2:].prod(axis=1)
        areas = box_areas * np.exp(rng.uniform(-3, 0, 20000))
        areas[:5000] = np.minimum(box_areas, rng.uniform(1.01, 30, 20000))[:5000]
        own, sizes = np.ones(20000, dtype=bool), np.full((20000, 2), 640.0)
        touched = implausible_areas(areas, boxes, own, sizes)
        assert not touched[areas != 1].any() or (areas[touched] < 1).all()
        # those below a pixel are touched in boxes of more than 100 square pixels alone
        assert (box_areas[touched] > 100).all()


class TestBoxes:
    @pytest.mark.parametrize(
        "bbox", [None, [], [0, 0, 0, 0], [12, 8, 18, 0], [12, 8, 0, 13], "missing"],
    )  # fmt: skip
    def test_around_the_keypoints(self, pose_files, bbox):
        """x from 12.5 to 30.5, y from 8.5 to 21.5; a tenth of 18 pixels on each side is more than a fortieth of 40."""
        change(pose_files, bbox=bbox)
        if bbox == "missing":
            del pose_files.data["annotations"][0]["bbox"]
        (person,), rules = load(pose_files)
        assert person["bbox"] == pytest.approx([10.7, 6.7, 21.6, 16.6])
        assert rules == {"box": 1}

    def test_one_keypoint_and_two_on_a_line(self):
        points = np.zeros((3, 2, 3))
        points[0, 0] = 100, 50, 2
        points[1] = [[100, 50, 2], [300, 50, 1]]
        points[2] = [[2, 479, 2], [999, 999, 0]]
        expected = [
            [84, 34, 32, 32],  # 640 / 40 = 16 pixels on each side
            [80, 30, 240, 40],  # a tenth of 200
            [0, 463, 18, 17],  # cut at the image's edges
        ]
        boxes = boxes_from_keypoints(points, np.array([[640.0, 480.0]] * 3))
        np.testing.assert_allclose(boxes, expected)

    def test_a_keypoint_outside_the_image_is_in_it(self):
        (box,) = boxes_from_keypoints(np.array([[[-30.0, 50, 2], [10, 50, 2]]]), np.array([[640.0, 480.0]]))
        np.testing.assert_allclose(box, [-46, 34, 72, 32])

    def test_no_person_has_keypoints(self, pose_files):
        """A box without extent stays; a missing one is the segmentation's; a person with neither is skipped."""
        person = {**pose_files.data["annotations"][0], "keypoints": [0] * 9}
        pose_files.data["annotations"] += [
            {**person, "id": 12, "bbox": [1, 2, 0, 3]},
            {**person, "id": 13, "bbox": None, "segmentation": SQUARE},
            {**person, "id": 14, "bbox": None},
        ]
        people, rules = load(pose_files)
        assert [person["bbox"] for person in people[1:]] == [[1, 2, 0, 3], [10, 5, 20, 10]]
        assert rules["box from segmentation"] == rules["nothing annotated"] == 1

    @pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0], [4, 3, 16, 0]])
    @pytest.mark.parametrize("iscrowd", [0, 1])
    def test_the_box_of_a_mask_without_labelled_keypoints(self, pose_files, bbox, iscrowd):
        mask = np.zeros((30, 40), np.uint8, order="F")
        mask[3:9, 4:20] = 1
        rle = {"size": [30, 40], "counts": mask_util.encode(mask)["counts"].decode()}
        change(pose_files, bbox=bbox, iscrowd=iscrowd, keypoints=[0] * 9, segmentation=rle, area=96, num_keypoints=0)
        (person,), rules = load(pose_files)
        assert person["bbox"] == [4, 3, 16, 6]
        assert person["segmentation"] == rle
        assert rules["box from segmentation"] == 1
        assert "implausible area" not in rules

    def test_a_line_but_for_rounding_has_no_extent(self, pose_files):
        change(pose_files, bbox=[12, 8, 1.8e-15, 13], area=2e-14)
        people, rules = load(pose_files)
        assert people[0]["bbox"] == pytest.approx([10.7, 6.7, 21.6, 16.6])
        assert people[0]["area"] == pytest.approx(21.6 * 16.6)
        assert rules == {"box": 1, "implausible area": 1}


class TestKeypoints:
    @pytest.mark.parametrize(
        ("keypoints", "rule"),
        [
            ([[15, 8, 2], [12, 20, 2], [30, 21, 1]], None),
            ([15.0, 8.0, 2.0, 12.0, 20.0, 2.0, 30.0, 21.0, 1.0], None),
        ],
    )
    def test_read_as_they_are_meant(self, pose_files, keypoints, rule):
        change(pose_files, keypoints=keypoints)
        assert load(pose_files)[0][0]["keypoints"] == [15.5, 8.5, 2, 12.5, 20.5, 2, 30.5, 21.5, 1]
        assert list(load(pose_files)[1]) == ([rule] if rule else [])

    @pytest.mark.parametrize("keypoints", [[15, 8, 0, 0, 30, 21], [[15, 8], [0, 0], [30, 21]]])
    def test_x_and_y_alone(self, pose_files, keypoints):
        change(pose_files, keypoints=keypoints)
        people, rules = load(pose_files)
        assert people[0]["keypoints"] == [15.5, 8.5, 2, 0.5, 0.5, 0, 30.5, 21.5, 2]
        assert rules == {"x and y alone": 1}

    def test_x_and_y_that_may_be_two_keypoints(self, pose_files):
        change(pose_files, keypoints=[15, 8, 2, 12, 20, 1])
        with pytest.raises(DatasetError, match="keypoints has 6 numbers where its category's 3 keypoints make 9"):
            load(pose_files)
        change(pose_files, keypoints=[15, 8, 0.9, 12, 20, 0.8])  # confidences
        with pytest.raises(DatasetError, match="keypoints has 6 numbers"):
            load(pose_files)

    @pytest.mark.parametrize("hole", [None, float("nan")])
    def test_coordinates_that_are_missing_where_nothing_is_labelled(self, pose_files, hole):
        change(pose_files, keypoints=[15, 8, 2, hole, hole, 0, 30, 21, 1])
        people, rules = load(pose_files)
        assert people[0]["keypoints"] == [15.5, 8.5, 2, 0.5, 0.5, 0, 30.5, 21.5, 1]
        assert rules == {"missing coordinates": 1}

    @pytest.mark.parametrize(("number", "rules"), [(0, 1), (5, 1), (3, 0), (3.0, 0), (None, 0)])
    def test_the_flags_decide_how_many_there_are(self, pose_files, number, rules):
        change(pose_files, num_keypoints=number)
        assert load(pose_files)[1].get("num_keypoints", 0) == rules

    def test_shares_of_the_image(self, pose_files):
        change(pose_files, keypoints=[0.4, 0.3, 2, 0.3, 0.7, 2, 0.75, 0.7, 1])
        with pytest.raises(
            DatasetError, match=r"all 3 labelled keypoints lie between 0 and 1: they are fractions .*multiply"
        ):
            load(pose_files)

    def test_corners(self, pose_files):
        change(pose_files, bbox=[12, 5, 34, 25])  # 12 + 34 > 40 * 1.1
        assert load(pose_files)[1] == {"leaves the image": 1}
        pose_files.data["annotations"].append({**pose_files.data["annotations"][0], "id": 12})
        message = r"2 of 2 boxes leave their image if they are \[x, y, width, height\], .* corners .*; subtract"
        with pytest.raises(DatasetError, match=message):
            load(pose_files)

    def test_a_box_that_reaches_out_around_its_keypoints_is_none(self, pose_files):
        change(pose_files, bbox=[10, 5, 34, 25], keypoints=[15, 8, 2, 12, 20, 2, 38, 28, 1])
        assert load(pose_files)[0][0]["bbox"] == [10, 5, 34, 25]

    def test_wholebody_in_five_fields(self, pose_files):
        """Body, feet, face, left hand, right hand; COCO-WholeBody's category names the body alone."""
        fields = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
        points = {key: [v for i in range(n) for v in (i % 30, j, 2)] for j, (key, n) in enumerate(fields.items(), 1)}
        body = [v for i in range(17) for v in (i, 0, 1)]
        pose_files.data["categories"][0]["keypoints"] = [f"body {i}" for i in range(17)]
        change(pose_files, keypoints=body, num_keypoints=17, bbox=[0, 0, 39, 29], **points)
        people, rules = load(pose_files)
        assert len(people[0]["keypoints"]) == 51
        assert "unread fields" in rules
        schema = register_pose_dataset(
            "test_whole", pose_files.json_file, pose_files.image_root, schema="coco_wholebody"
        )
        try:
            keypoints = np.reshape(load_dataset_dicts("test_whole")[1]["annotations"][0]["keypoints"], (133, 3))
        finally:
            DatasetCatalog.remove("test_whole")
            MetadataCatalog.remove("test_whole")
        assert schema.num_keypoints == 133
        assert keypoints[:, 1].tolist() == [0.5] * 17 + [1.5] * 6 + [2.5] * 68 + [3.5] * 21 + [4.5] * 21
        assert keypoints[22].tolist() == [5.5, 1.5, 2]


class TestRemarks:
    @pytest.mark.parametrize(
        ("rule", "fields"),
        [
            ("outside the image", {"keypoints": [45, 8, 2, *LABELLED[3:]], "bbox": [10, 5, 36, 20]}),
            ("far from the box", {"keypoints": [1, 1, 2, *LABELLED[3:]], "bbox": [20, 15, 11, 8], "area": 80}),
            ("not labelled", {"keypoints": [0] * 9}),
            ("less than a pixel", {"bbox": [39.5, 5, 24, 20]}),
            ("box from (0, 0)", {"bbox": [0, 0, 34, 25]}),
            ("point at (0, 0)", {"keypoints": [0, 0, 1, *LABELLED[3:]]}),
        ],
    )
    def test_oddities(self, pose_files, rule, fields):
        change(pose_files, **fields)
        people, rules = load(pose_files)
        assert rules.get(rule) == 1
        assert people[0]["bbox"] == fields.get("bbox", [10, 5, 24, 20])

    def test_a_person_twice(self, pose_files):
        pose_files.data["annotations"].append({**pose_files.data["annotations"][0], "id": 12, "bbox": [9, 5, 25, 20]})
        assert load(pose_files)[1] == {"annotated twice": 1}

    def test_an_image_twice(self, pose_files):
        pose_files.data["images"].append({**pose_files.data["images"][0], "id": 8})
        assert load(pose_files)[1] == {"images twice": 1}

    def test_a_sound_file_has_none(self, pose_files):
        assert load(pose_files)[1] == {}

    def test_they_are_logged_once(self, pose_files, caplog):
        change(pose_files, area=0)
        pose_files.save()
        with caplog.at_level("INFO"):
            for _ in range(3):
                load_pose_json(pose_files.json_file, pose_files.image_root)
        line = "1 of 1 annotations have an area that a region of their box cannot have"
        assert caplog.text.count(line) == 1
        assert f"{pose_files.json_file}: {line}" in caplog.text

    def test_all_rules_are_in_the_docs(self):
        """One table for the code and its readers."""
        docs = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
        missing = [rule for rule in RULES if f"| {rule} |" not in docs]
        assert missing == []


class TestFiles:
    def test_ids_and_sizes_as_whole_floats(self, pose_files):
        text = json.dumps(pose_files.data)
        for number in ('"id": 7', '"id": 3', '"id": 5', '"id": 11', '"image_id": 7', '"category_id": 5', '"iscrowd": 0',
                       '"width": 40', '"height": 30', '"width": 20', '"height": 50'):  # fmt: skip
            text = text.replace(f"{number},", f"{number}.0,").replace(f"{number}}}", f"{number}.0}}")
        assert text.count(".0") >= 11
        expected = load_pose_json(pose_files.json_file, pose_files.image_root)
        Path(pose_files.json_file).write_text(text)
        records = load_pose_json(pose_files.json_file, pose_files.image_root)
        assert records == expected
        assert all(type(record[key]) is int for record in records for key in ("image_id", "height", "width"))

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    def test_encodings(self, pose_files, encoding):
        pose_files.data["categories"][0]["name"] = "människa"
        Path(pose_files.json_file).write_bytes(json.dumps(pose_files.data, ensure_ascii=False).encode(encoding))
        assert read_coco_json(pose_files.json_file) == pose_files.data

    def test_the_home_folder(self, pose_files, monkeypatch):
        monkeypatch.setenv("HOME", str(Path(pose_files.json_file).parent))
        records = load_pose_json("~/people.json", "~/images")
        assert records[1]["file_name"] == str(Path(pose_files.image_root, "a.png"))

    def test_backslashes(self, pose_files):
        folder = Path(pose_files.image_root, "night")
        folder.mkdir()
        Path(pose_files.image_root, "a.png").rename(folder / "a.png")
        pose_files.data["images"][0]["file_name"] = "night\\a.png"
        assert load(pose_files)[1] == {"backslashes": 1}
        pose_files.data["images"][0]["file_name"] = "..\\people.json"
        with pytest.raises(DatasetError, match="not a path inside the image folder"):
            load(pose_files)

    @pytest.mark.parametrize(
        ("root", "name", "hint"),
        [
            ("images", "images/a.png", "the images are in "),
            ("images/sub", "a.png", "are in .*images"),
        ],
    )
    def test_a_folder_too_many(self, pose_files, root, name, hint):
        base = Path(pose_files.json_file).parent
        (base / "images" / "sub").mkdir()
        pose_files.data["images"] = [{**pose_files.data["images"][0], "file_name": name}]
        pose_files.save()
        with pytest.raises(DatasetError, match=f"1 of its 1 images are missing: .*{hint}"):
            load_pose_json(pose_files.json_file, str(base / root))

    def test_an_id_that_is_text_elsewhere(self, pose_files):
        change(pose_files, image_id="7")
        with pytest.raises(DatasetError, match=r"is of image '7', which is not in 'images' \(but 7 is: write both"):
            load(pose_files)

    def test_ids_of_annotations_count_for_nothing(self, pose_files):
        person = pose_files.data["annotations"][0]
        pose_files.data["annotations"] = [person, {**person, "keypoints": LABELLED}]
        del person["id"]
        pose_files.data["annotations"][1]["keypoints"] = [1, 9, 2, *LABELLED[3:]]
        assert load(pose_files)[1] == {"annotation ids": 1}


class TestCategories:
    def add(self, pose_files, *categories):
        keypoints = pose_files.data["categories"][0]["keypoints"]
        person = pose_files.data["annotations"][0]
        for i, (name, has_keypoints) in enumerate(categories, 6):
            category = {
                "id": i,
                "name": name,
                "supercategory": "animal",
                **({"keypoints": keypoints} if has_keypoints else {}),
            }
            pose_files.data["categories"].append(category)
            shifted = [person["keypoints"][0] + i, *person["keypoints"][1:]]
            pose_files.data["annotations"].append({**person, "id": 11 + i, "category_id": i, "keypoints": shifted})

    def test_of_one_name(self, pose_files):
        self.add(pose_files, ("person", True))
        people, rules = load(pose_files)
        assert [person["category_id"] for person in people] == [0, 0]
        assert rules == {}

    @pytest.mark.parametrize("category", [None, "person", "all as one"])
    def test_of_one_name_of_which_one_has_no_keypoints(self, pose_files, category):
        self.add(pose_files, ("person", False))
        with pytest.raises(
            DatasetError, match="two categories are called 'person', id 5 with keypoints and id 6 without"
        ):
            load(pose_files, category=category)

    def test_of_one_name_with_other_keypoints(self, pose_files):
        self.add(pose_files, ("person", True))
        pose_files.data["categories"][1]["keypoints"] = ["tail"]
        with pytest.raises(DatasetError, match=r"two categories are called 'person', ids 5 and 6, with different"):
            load(pose_files)

    def test_skipped_categories_are_named(self, pose_files, caplog):
        self.add(pose_files, ("car", False), ("tree", False))
        pose_files.data["annotations"].append({**pose_files.data["annotations"][1], "id": 30})
        pose_files.save()
        load_pose_json(pose_files.json_file, pose_files.image_root)
        line = "3 of 4 annotations are of categories that have no keypoints or are not selected"
        assert f"{line} (2 of 'car', 1 of 'tree')" in caplog.text

    @pytest.mark.parametrize(
        ("category", "classes", "numbers"),
        [
            (None, ["person", "cat", "dog"], [0, 1, 2]),
            (["cat", "dog"], ["animal"], [0, 0]),
            (["dog", "person"], ["object"], [0, 0]),
            ("all as one", ["object"], [0, 0, 0]),
            ("dog", ["dog"], [0]),
        ],
    )
    @pytest.mark.usefixtures("catalogs")
    def test_several_as_one(self, pose_files, category, classes, numbers):
        self.add(pose_files, ("cat", True), ("dog", True))
        pose_files.save()
        register_pose_dataset("test_some", pose_files.json_file, pose_files.image_root, category=category)
        people = DatasetCatalog.get("test_some")[1]["annotations"]
        assert MetadataCatalog.get("test_some").thing_classes == classes
        assert [person["category_id"] for person in people] == numbers

    @pytest.mark.usefixtures("catalogs")
    def test_classes_in_an_order(self, pose_files):
        self.add(pose_files, ("cat", True), ("dog", True))
        pose_files.save()
        register_pose_dataset(
            "test_some", pose_files.json_file, pose_files.image_root, classes=["dog", "zebra", "person"]
        )
        assert MetadataCatalog.get("test_some").thing_classes == ["dog", "zebra", "person"]
        assert MetadataCatalog.get("test_some").thing_dataset_id_to_contiguous_id == {7: 0, 5: 2}
        people = DatasetCatalog.get("test_some")[1]["annotations"]
        assert [person["category_id"] for person in people] == [2, 0]

    def test_a_missing_category_id(self, pose_files):
        del pose_files.data["annotations"][0]["category_id"]
        assert load(pose_files)[1] == {"missing category": 1}
        pose_files.data["categories"].append({"id": 6, "name": "car"})
        with pytest.raises(DatasetError, match="annotation 11 has no 'category_id', and the file has 2 categories"):
            load(pose_files)

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"keypoints": ["a", "b", "c"]}, ("a", "b", "c")),
            ({"keypoints": ("nose", "tail", "ear")}, ("nose", "tail", "ear")),
        ],
    )
    @pytest.mark.usefixtures("catalogs")
    def test_names_that_the_file_lacks(self, pose_files, options, names):
        del pose_files.data["categories"][0]["keypoints"], pose_files.data["categories"][0]["skeleton"]
        pose_files.save()
        with pytest.raises(DatasetError, match=r"none of its categories has keypoints .*keypoints: or schema:"):
            register_pose_dataset("test_names", pose_files.json_file, pose_files.image_root)
        schema = register_pose_dataset(
            "test_names", pose_files.json_file, pose_files.image_root, skeleton=[[1, 2]], **options
        )
        assert schema.names == names
        assert schema.skeleton == ((0, 1),)
        assert DatasetCatalog.get("test_names")[1]["annotations"][0]["keypoints"][:3] == [15.5, 8.5, 2]

    def test_names_for_the_category_that_has_annotated_keypoints(self, pose_files):
        self.add(pose_files, ("car", False))
        for category in pose_files.data["categories"]:
            category.pop("keypoints", None)
        del pose_files.data["annotations"][1]["keypoints"]
        people, rules = load(pose_files, keypoints=["a", "b", "c"])
        assert len(people) == 1
        assert rules == {"other categories": 1}

    def test_the_schema_of_a_file(self, pose_files):
        assert read_schema(pose_files.json_file).flip_pairs == (("left_wrist", "right_wrist"),)


class TestMemory:
    """A second start reads the cache of the first."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DYNPOSE_CACHE", str(tmp_path / "cache"))

    def test_the_same_is_read(self, pose_files):
        mask = np.zeros((30, 40), np.uint8, order="F")
        mask[3:9, 4:20] = 1
        person = pose_files.data["annotations"][0]
        uncompressed = {"size": [30, 40], "counts": [123, 6, *([24, 6] * 15), 621]}
        pose_files.data["annotations"] += [
            {**person, "id": 12, "keypoints": [0] * 9, "segmentation": SQUARE},
            {**person, "id": 13, "iscrowd": 1, "segmentation": uncompressed},
            {**person, "id": 14, "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": mask_util.encode(mask)["counts"].decode()}},
            {**person, "id": 15, "area": 0, "keypoints": [1, 9, 2, *LABELLED[3:]]},
        ]  # fmt: skip
        first = load(pose_files)
        assert len(list(Path(pose_files.json_file).parent.glob("cache/*.npz"))) == 1
        assert load(pose_files) == first
        segmentations = [person.get("segmentation") for person in first[0]]
        assert [type(s["counts"]) for s in segmentations if isinstance(s, dict)] == [bytes, str]

    def test_a_changed_file_is_read_again(self, pose_files):
        load(pose_files)
        change(pose_files, area=123)
        assert load(pose_files)[0][0]["area"] == 123

    def test_a_faulty_file_is_not_cached(self, pose_files):
        change(pose_files, bbox=[1, 2, 3])
        for _ in range(2):
            with pytest.raises(DatasetError, match=r"bbox is \[1, 2, 3\]"):
                load(pose_files)

    def test_a_replaced_file_of_the_same_size_and_time_is_read_again(self, pose_files):
        load(pose_files)
        path = Path(pose_files.json_file)
        status = path.stat()
        new = path.with_name("new.json")
        new.write_text(path.read_text().replace("15, 8, 2", "16, 8, 2"))
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(new, path)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        people = load_pose_json(pose_files.json_file, pose_files.image_root)[1]["annotations"]
        assert people[0]["keypoints"][0] == 16.5

    def test_a_damaged_entry_is_passed_over(self, pose_files, caplog):
        first = load(pose_files)
        (entry,) = Path(pose_files.json_file).parent.glob("cache/*.npz")
        with np.load(entry) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name != "_others"}
        np.savez(entry, **kept)
        assert load(pose_files) == first
        np.savez(entry, **kept, _others=np.frombuffer(b"[", np.uint8))
        assert load(pose_files) == first
        assert len(load(pose_files)[0]) == 1

    def test_values_outside_json_are_cached_unchanged(self, pose_files):
        for image in pose_files.data["images"]:
            image["crowdIndex"] = float("nan")
        pose_files.save()
        for _ in range(2):
            values = read_pose_file(pose_files.json_file).crowd_indices
            assert all(value != value for value in values)

    def test_the_options_count(self, pose_files):
        TestCategories().add(pose_files, ("cat", True))
        assert len(load(pose_files)[0]) == 2
        assert len(load(pose_files, category="cat")[0]) == 1
        assert len(load(pose_files)[0]) == 2

    def test_missing_images_are_found_all_the_same(self, pose_files):
        load(pose_files)
        Path(pose_files.image_root, "a.png").unlink()
        with pytest.raises(DatasetError, match="1 of its 2 images are missing"):
            load(pose_files)

    def test_one_without_annotations_is_no_training_set(self, pose_files):
        pose_files.data = {key: pose_files.data[key] for key in ("images", "categories")}
        pose_files.save()
        assert read_pose_file(pose_files.json_file, annotated=None).people is None
        with pytest.raises(DatasetError, match="no list 'annotations'"):
            load(pose_files)


@pytest.mark.usefixtures("catalogs")
def test_data_sets_of_register_coco_instances_are_read_from_their_file(pose_files, caplog):
    """detectron2's dicts have no areas: training took the box's where evaluation took the file's."""
    register_coco_instances("test_instances", {}, pose_files.json_file, pose_files.image_root)
    schema = read_schema(pose_files.json_file)
    schema.to_metadata(MetadataCatalog.get("test_instances"))
    for _ in range(2):  # the second time detectron2 has written its metadata
        records = load_dataset_dicts("test_instances")
        assert [person["area"] for record in records for person in record["annotations"]] == [300.0]
        assert [a["area"] for a in read_ground_truth("test_instances", 3).annotations] == [300.0]
        DatasetCatalog.get("test_instances")
    assert "area" not in caplog.text
    # a mapper of the user's own gets all that detectron2 gives
    change(pose_files, segmentation=SQUARE)
    pose_files.save()
    (person,) = load_dataset_dicts("test_instances", as_registered=True)[1]["annotations"]
    assert person["segmentation"] == SQUARE


class TestDicts:
    """The dicts of a custom function."""

    def dicts(self, **fields):
        person = {
            "bbox": np.array([10.0, 5, 34, 25]),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": np.int64(0),
            "keypoints": np.array([15.5, 8.5, 2, 12.5, 20.5, 2, 30.5, 21.5, 1]),
            "mark": "kept",
            **fields,
        }
        return [{"file_name": "a.png", "image_id": np.int64(7), "height": 30, "width": 40, "annotations": [person]}]

    def correct(self, dicts):
        remarks = Remarks()
        records = correct_dataset_dicts(dicts, 3, "mine", on_remarks=remarks.merge)
        return records[0]["annotations"], remarks.counts

    def test_arrays(self):
        dicts = self.dicts()
        (person,), rules = self.correct(dicts)
        assert person["bbox"] == [10, 5, 24, 20]
        assert person["bbox_mode"] == BoxMode.XYWH_ABS
        assert person["keypoints"] == [15.5, 8.5, 2, 12.5, 20.5, 2, 30.5, 21.5, 1]
        assert (person["area"], person["mark"]) == (480, "kept")
        assert rules == {"missing area": 1}
        assert isinstance(dicts[0]["annotations"][0]["bbox"], np.ndarray)

    def test_the_rules_are_the_same(self):
        (person,), rules = self.correct(self.dicts(bbox=[0, 0, 0, 0], area=0))
        assert person["bbox"] == pytest.approx([10.7, 6.7, 21.6, 16.6])
        assert set(rules) == {"box", "implausible area"}

    def test_records_without_annotations_and_masks(self):
        mask = np.zeros((30, 40), bool)
        mask[3:9, 4:20] = True
        dicts = self.dicts(segmentation=mask, keypoints=np.reshape(LABELLED, (3, 3)) + np.array([0.5, 0.5, 0]))
        dicts += [{**dicts[0], "annotations": None}, {k: v for k, v in dicts[0].items() if k != "annotations"}]
        records = correct_dataset_dicts(dicts, 3, "mine")
        assert [len(record["annotations"]) for record in records] == [1, 0, 0]
        assert records[0]["annotations"][0]["area"] == 96

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"iscrowd": "0"}, "annotation '0 of a.png': iscrowd is '0'; write 0 or 1"),
            ({"keypoints": np.zeros(6)}, "annotation '0 of a.png': keypoints has 6 numbers"),
            ({"bbox": [1, 2, 3]}, r"annotation '0 of a.png': bbox is \[1, 2, 3\]"),
            ({"category_id": None}, "annotation '0 of a.png' has no 'category_id'"),
            ({"bbox_mode": BoxMode.XYXY_REL}, "annotation '0 of a.png' is not in detectron2's format"),
        ],
    )
    def test_faults(self, fields, message):
        with pytest.raises(DatasetError, match=f"mine: {message}"):
            correct_dataset_dicts(self.dicts(**fields), 3, "mine")
