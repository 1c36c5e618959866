import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from pycocotools.cocoeval import Params

from dynpose.config import add_dynpose_config
from dynpose.data import (
    COCO_PERSON,
    DEFAULT_SIGMA,
    DatasetError,
    KeypointSchema,
    register_pose_dataset,
    schema_from_cfg,
    schema_to_cfg,
)


def make_cfg(**datasets):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    for key, value in datasets.items():
        setattr(cfg.DATASETS, key, value)
    return cfg


def test_coco_person_is_cocos():
    builtin = MetadataCatalog.get("keypoints_coco_2017_val")
    assert COCO_PERSON.names == builtin.keypoint_names
    assert COCO_PERSON.flip_pairs == builtin.keypoint_flip_map
    np.testing.assert_allclose(COCO_PERSON.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-12)
    assert not COCO_PERSON.sigmas_are_default
    assert COCO_PERSON.num_keypoints == 17


@pytest.mark.skipif("DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data")
def test_coco_person_is_the_category_of_cocos_file():
    path = Path(os.environ["DYNPOSE_TEST_DATA"]) / "data/coco/test_coco.json"
    category = json.loads(path.read_text())["categories"][0]
    assert KeypointSchema.from_category(category) == COCO_PERSON


def test_flip_indices_exchange_left_and_right():
    schema = KeypointSchema(names=("tail", "r_ear", "l_ear", "nose"), flip_pairs=[["l_ear", "r_ear"]])
    assert schema.flip_indices.tolist() == [0, 2, 1, 3]
    np.testing.assert_array_equal(COCO_PERSON.flip_indices, create_keypoint_hflip_indices("keypoints_coco_2017_val"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ()}, "at least one"),
        ({"names": ("a", "b", "a")}, "more than once: a"),
        ({"flip_pairs": [("a", "z")]}, "unknown keypoint 'z'"),
        ({"flip_pairs": [("a", "a")]}, "not two different"),
        ({"flip_pairs": [("a", "b"), ("b", "c")]}, "'b' is in more than one flip pair"),
        ({"skeleton": [(0, 3)]}, r"edge \(0, 3\) is not two 0-based indices of the 3"),
        ({"sigmas": (0.1, 0.1)}, "2 OKS sigmas for 3 keypoints"),
        ({"sigmas": (0.1, 0.0, 0.1)}, "OKS sigma 0.0 of keypoint 'b'"),
        ({"sigmas": (0.1, 0.1, float("nan"))}, "OKS sigma nan of keypoint 'c'"),
    ],
)
def test_impossible_schema(change, message):
    with pytest.raises(DatasetError, match=message):
        KeypointSchema(**{"names": ("a", "b", "c"), **change})


def test_category_with_skeleton_of_other_keypoints(caplog):
    category = {
        "name": "person",
        "keypoints": ["head", "left_hip", "right_hip"],
        "skeleton": [[16, 14], [1, 2], [0, 3]],
    }
    schema = KeypointSchema.from_category(category, source="people.json")
    assert schema.skeleton == ((0, 1),)
    assert schema.flip_pairs == (("left_hip", "right_hip"),)
    assert "[16, 14], [0, 3]" in caplog.text
    assert "'person' of people.json" in caplog.text


KEYPOINTS = ["head", "left_hip", "right_hip", "tail"]


@pytest.mark.parametrize(
    ("skeleton", "limbs"),
    [
        ([[1, 2], [3, 4]], ((0, 1), (2, 3))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),  # 0-based: a 0, and no 4
        ([[0, 1]], ((0, 1),)),
        ([[1, 2], [2, 3]], ((0, 1), (1, 2))),  # could be either, and is read as COCO's
        ([[1.0, 2.0]], ((0, 1),)),
        ([[0.0, 3]], ((0, 3),)),
        ([["head", "left_hip"], ["tail", "right_hip"]], ((0, 1), (3, 2))),
        ([["head", 2]], ((0, 1),)),
        ([], ()),
        (None, ()),
    ],
)
def test_skeletons(skeleton, limbs, caplog):
    with caplog.at_level(logging.INFO):
        schema = KeypointSchema.from_category(
            {"name": "x", "keypoints": KEYPOINTS, "skeleton": skeleton}, source="a.json"
        )
        given = KeypointSchema.from_category({"name": "x", "keypoints": KEYPOINTS}, skeleton=skeleton)
    assert schema.skeleton == given.skeleton == limbs
    said = [record for record in caplog.records if "0-based" in record.getMessage()]
    assert len(said) == (2 if skeleton and skeleton[0][0] == 0 else 0)
    assert all(record.levelno == logging.INFO for record in said)
    assert len(caplog.records) == len(said)


def test_0_based_skeleton_of_a_benchmark():
    """The tigers of ATRW have limbs such as [0, 2], left ear to nose, and [12, 11], the left hind paw to the knee."""
    category = {
        "name": "tiger",
        "keypoints": ["left_ear", "right_ear", "nose", "right_shoulder", "right_front_paw", "left_shoulder",
                      "left_front_paw", "right_hip", "right_knee", "right_back_paw", "left_hip", "left_knee",
                      "left_back_paw", "tail", "center"],
        "skeleton": [[0, 2], [1, 2], [2, 14], [12, 11]],
    }  # fmt: skip
    schema = KeypointSchema.from_category(category)
    limbs = [(schema.names[a], schema.names[b]) for a, b in schema.skeleton]
    assert limbs == [("left_ear", "nose"), ("right_ear", "nose"), ("nose", "center"), ("left_back_paw", "left_knee")]


def test_skeleton_that_fits_no_reading():
    category = {"name": "x", "keypoints": KEYPOINTS, "skeleton": [[0, 1], [3, 4]]}
    with pytest.raises(
        DatasetError,
        match=r"category 'x' of a\.json: its skeleton has limbs with 0 and with 4, .* 1 to 4, 0-based ones 0 to 3",
    ):
        KeypointSchema.from_category(category, source="a.json")
    assert KeypointSchema.from_category(category, skeleton=[["head", "tail"]]).skeleton == ((0, 3),)


@pytest.mark.parametrize(
    ("skeleton", "skipped"),
    [
        ([[1, 5], [1, 2]], "[1, 5]"),
        ([[1, 2], [1, 2, 3]], "[1, 2, 3]"),
        ([[1, 2], "ab"], "ab"),
        ([[1, 2], ["head", "neck"]], "['head', 'neck']"),
        ([[1, 2], [1.5, 2]], "[1.5, 2]"),
        ([[1, 2], [True, 2]], "[True, 2]"),
        ([[1, 2], [None, 2]], "[None, 2]"),
        ([[1, 2], [-1, 2]], "[-1, 2]"),
    ],
)
def test_limbs_that_are_none(skeleton, skipped, caplog):
    category = {"name": "x", "keypoints": KEYPOINTS, "skeleton": skeleton}
    assert KeypointSchema.from_category(category).skeleton == ((0, 1),)
    assert f"limbs {skipped} of its skeleton are not pairs of its keypoints 1 to 4" in caplog.text
    with pytest.raises(
        DatasetError, match="is not a pair of its keypoints: give two numbers from 1 to 4, or two names of head"
    ):
        KeypointSchema.from_category({"name": "x", "keypoints": KEYPOINTS}, skeleton=skeleton)


def test_skeleton_that_is_no_list():
    with pytest.raises(DatasetError, match="category 'x': skeleton is 'head-tail': write pairs"):
        KeypointSchema.from_category({"name": "x", "keypoints": KEYPOINTS, "skeleton": "head-tail"})


class TestGivenNames:
    @pytest.mark.parametrize("keypoints", [None, [], ""])
    def test_for_a_file_without(self, keypoints):
        category = {"name": "hand", "keypoints": keypoints, "skeleton": [[1, 2]]}
        schema = KeypointSchema.from_category(category, names=["left_hand", "right_hand"])
        assert schema.names == ("left_hand", "right_hand")
        assert schema.flip_pairs == (("left_hand", "right_hand"),)
        assert schema.skeleton == ((0, 1),)

    def test_in_place_of_the_files(self):
        """The file's limbs have the file's names."""
        category = {"name": "x", "keypoints": ["1", "2", "3"], "skeleton": [["1", "3"]]}
        schema = KeypointSchema.from_category(
            category, names=("nose", "left_eye", "right_eye"), sigmas=(0.026, 0.025, 0.025)
        )
        assert schema.names == ("nose", "left_eye", "right_eye")
        assert schema.flip_indices.tolist() == [0, 2, 1]
        assert schema.skeleton == ((0, 2),)
        assert schema.sigmas == (0.026, 0.025, 0.025)

    def test_of_a_known_schema(self):
        schema = KeypointSchema.from_category({"name": "person"}, names=COCO_PERSON.names)
        assert schema.sigmas == COCO_PERSON.sigmas
        assert schema.flip_pairs == COCO_PERSON.flip_pairs

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["a", "b"], "2 names are given for its 3 keypoints: give one for each"),
            ("abc", "keypoint names are 'abc': give a list"),
            (["a", "b", "b"], "more than once: b"),
            (["a", "b", 3], "keypoint name 3 is not a string"),
            (["a", ["b"], "c"], r"keypoint name \['b'\] is not a string"),
        ],
    )
    def test_faults(self, names, message):
        with pytest.raises(DatasetError, match=rf"category 'x' of a\.json: .*{message}"):
            KeypointSchema.from_category({"name": "x", "keypoints": ["1", "2", "3"]}, names=names, source="a.json")


def test_default_sigmas_are_strict():
    schema = KeypointSchema.from_category({"name": "hand", "keypoints": ["wrist", "thumb"]})
    assert schema.sigmas == (DEFAULT_SIGMA, DEFAULT_SIGMA)
    assert schema.sigmas_are_default
    assert min(Params("keypoints").kpt_oks_sigmas) == DEFAULT_SIGMA


PAIRS_BY_NAME = (("left_eye", "right_eye"),)


@pytest.mark.parametrize(
    ("pairs", "read", "is_said"),
    [
        ([["nose", "left_eye"]], (("nose", "left_eye"),), False),
        ([], (), False),
        (None, PAIRS_BY_NAME, False),
        ([["nose", "tail"]], PAIRS_BY_NAME, True),
        ([["nose", "nose"]], PAIRS_BY_NAME, True),
        ([[0, 1]], PAIRS_BY_NAME, True),
        ("left_eye", PAIRS_BY_NAME, True),
    ],
)
def test_pairs_of_a_file(pairs, read, is_said, caplog):
    """Those that convert-data writes are read; others, of a key that COCO does not define, are not."""
    category = {"name": "person", "keypoints": ["nose", "left_eye", "right_eye"], "flip_pairs": pairs}
    assert KeypointSchema.from_category(category).flip_pairs == read
    assert ("are no pairs of its keypoints; those by name are used" in caplog.text) == is_said
    assert KeypointSchema.from_category(category, flip_pairs=()).flip_pairs == ()


def test_category_can_be_overridden():
    category = {"name": "x", "keypoints": ["left_a", "right_a", "b"]}
    schema = KeypointSchema.from_category(category, flip_pairs=[["left_a", "b"]], sigmas=[0.1, 0.2, 0.3])
    assert schema.flip_pairs == (("left_a", "b"),)
    assert schema.sigmas == (0.1, 0.2, 0.3)
    assert not schema.sigmas_are_default
    assert KeypointSchema.from_category(category, flip_pairs=[]).flip_pairs == ()


@pytest.mark.parametrize("keypoints", [None, [], "nose"])
def test_category_without_keypoints(keypoints):
    with pytest.raises(DatasetError, match=r"category 'car' of a\.json has no keypoints: give it"):
        KeypointSchema.from_category({"name": "car", "keypoints": keypoints}, source="a.json")


def test_fault_of_a_category_names_it():
    with pytest.raises(DatasetError, match=r"category 'x' of a\.json: keypoint names occur more than once: b"):
        KeypointSchema.from_category({"name": "x", "keypoints": ["b", "b"]}, source="a.json")


@pytest.mark.usefixtures("catalogs")
def test_metadata_round_trip():
    schema = KeypointSchema(
        names=("nose", "left_hand", "right_hand"),
        flip_pairs=(("left_hand", "right_hand"),),
        skeleton=((0, 1), (0, 2), (1, 2)),
    )
    metadata = MetadataCatalog.get("test_schema")
    schema.to_metadata(metadata)
    schema.to_metadata(metadata)  # detectron2 takes the same values again, and no others
    assert KeypointSchema.from_metadata(metadata) == schema
    assert create_keypoint_hflip_indices("test_schema") == [0, 2, 1]

    limbs = {(a, b): color for a, b, color in metadata.keypoint_connection_rules}
    assert set(limbs) == {("nose", "left_hand"), ("nose", "right_hand"), ("left_hand", "right_hand")}
    assert len(set(limbs.values())) == 3  # left, right, both
    assert all(0 <= channel <= 255 for color in limbs.values() for channel in color)


def test_metadata_of_detectron2s_coco():
    schema = KeypointSchema.from_metadata(MetadataCatalog.get("keypoints_coco_2017_train"))
    assert schema.has_same_keypoints(COCO_PERSON)
    assert schema.sigmas == COCO_PERSON.sigmas
    assert not schema.sigmas_are_default
    assert (1, 0) in schema.skeleton


@pytest.mark.usefixtures("catalogs")
def test_metadata_that_names_keypoints_only():
    metadata = MetadataCatalog.get("test_schema").set(keypoint_names=["left_a", "right_a"])
    schema = KeypointSchema.from_metadata(metadata)
    assert schema.flip_indices.tolist() == [1, 0]
    assert schema.sigmas_are_default

    metadata.set(keypoint_connection_rules=[("left_a", "b", (0, 0, 0))])
    with pytest.raises(DatasetError, match=r"'test_schema': skeleton edge \(0, 'b'\)"):
        KeypointSchema.from_metadata(metadata)


def test_metadata_without_keypoints():
    with pytest.raises(DatasetError, match="'coco_2017_val' has no keypoints"):
        KeypointSchema.from_metadata(MetadataCatalog.get("coco_2017_val"))


@pytest.mark.parametrize(
    "schema",
    [COCO_PERSON, KeypointSchema(names=("left_a", "right_a"), flip_pairs=(("left_a", "right_a"),), skeleton=((0, 1),))],
)
def test_config_round_trip_through_yaml(schema, tmp_path):
    cfg = make_cfg()
    schema_to_cfg(cfg, schema)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    read = make_cfg()
    read.merge_from_file(str(tmp_path / "config.yaml"))
    assert schema_from_cfg(read) == schema


@pytest.mark.usefixtures("catalogs")
class TestSchemaFromConfig:
    def test_comes_from_the_data_set(self, pose_files):
        entry = {"name": "test_people", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry], TRAIN=("test_people",))
        assert schema_from_cfg(cfg).names == ("nose", "left_wrist", "right_wrist")

    def test_comes_from_detectron2s_coco(self):
        assert schema_from_cfg(make_cfg(TEST=("keypoints_coco_2017_val",))).has_same_keypoints(COCO_PERSON)

    def test_config_needs_no_data_set(self):
        cfg = make_cfg(POSE=[{"name": "gone", "json_file": "gone.json", "image_root": "gone"}], TRAIN=("gone",))
        schema_to_cfg(cfg, COCO_PERSON)
        assert schema_from_cfg(cfg) == COCO_PERSON

    def test_data_sets_differ(self, pose_files):
        register_pose_dataset("test_people", pose_files.json_file, pose_files.image_root)
        cfg = make_cfg(TRAIN=("keypoints_coco_2017_train",), TEST=("test_people",))
        with pytest.raises(
            DatasetError,
            match=r"'keypoints_coco_2017_train' has 17 keypoints, data set 'test_people' has 3 .*1 is 'left_eye'",
        ):
            schema_from_cfg(cfg)

    def test_flip_pairs_differ(self, pose_files):
        register_pose_dataset("test_a", pose_files.json_file, pose_files.image_root)
        register_pose_dataset("test_b", pose_files.json_file, pose_files.image_root, flip_pairs=[])
        with pytest.raises(DatasetError, match="flip pairs differ"):
            schema_from_cfg(make_cfg(TRAIN=("test_a", "test_b")))

    def test_data_set_differs_from_config(self, pose_files):
        register_pose_dataset("test_people", pose_files.json_file, pose_files.image_root)
        cfg = make_cfg(TRAIN=("test_people",))
        schema_to_cfg(cfg, COCO_PERSON)
        with pytest.raises(DatasetError, match=r"KEYPOINT_SCHEMA of the config has 17 .*'test_people' has 3"):
            schema_from_cfg(cfg)

    def test_nothing_is_named(self):
        with pytest.raises(DatasetError, match=r"set DATASETS\.TRAIN"):
            schema_from_cfg(make_cfg())

    def test_data_set_is_unknown(self):
        with pytest.raises(DatasetError, match=r"'nobody' is not registered \(DATASETS\.POSE has: none\): add it to"):
            schema_from_cfg(make_cfg(TRAIN=("nobody",)))

    def test_fault_of_the_config_is_named(self):
        cfg = make_cfg()
        cfg.MODEL.KEYPOINT_SCHEMA.NAMES = ["a", "b"]
        cfg.MODEL.KEYPOINT_SCHEMA.SIGMAS = [0.1]
        with pytest.raises(DatasetError, match=r"MODEL\.KEYPOINT_SCHEMA of the config: 1 OKS sigmas for 2"):
            schema_from_cfg(cfg)

    def test_config_without_flip_pairs_is_warned_of(self, caplog):
        cfg = make_cfg()
        cfg.MODEL.KEYPOINT_SCHEMA.NAMES = ["left_a", "right_a"]
        with caplog.at_level(logging.WARNING):
            assert schema_from_cfg(cfg).flip_pairs == ()
        assert "no FLIP_PAIRS" in caplog.text
