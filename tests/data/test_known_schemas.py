"""Expected values come from the data sets' own pages and evaluation code, the sums by adding up the printed lists."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON, DEFAULT_SIGMA, DatasetError, KeypointSchema
from dynpose.data.known_schemas import KNOWN_SCHEMAS, keypoint_groups, known_schema, schema_by_keypoints


def twins(schema):
    """Index -> index of its twin."""
    return {i: int(j) for i, j in enumerate(schema.flip_indices) if i != j}


@pytest.mark.parametrize(
    ("name", "num_keypoints", "num_pairs", "sum_of_sigmas"),
    [
        ("coco", 17, 8, 1.138),
        ("crowdpose", 14, 6, 1.150),
        # body 1.138, feet 0.480, face 1.137, hands 0.553 each
        ("coco_wholebody", 133, 8 + 3 + 29 + 21, 3.861),
        # COCO's, three of 0.08, six of 0.089
        ("halpe26", 26, 8 + 3, 1.912),
        # and 110 of 0.015
        ("halpe136", 136, 8 + 3 + 29 + 21, 3.562),
        ("mpii", 16, 6, None),
        ("aic", 14, 6, 0.30056158),
        ("posetrack18", 17, 7, None),
        ("jhmdb", 15, 6, None),
        ("hand21", 21, 0, None),
        ("300w", 68, 29, None),
        ("wflw", 98, 44, None),
        ("cofw", 29, 11, None),
        ("aflw", 19, 8, None),
        ("lapa", 106, 48, None),
        ("ap10k", 17, 7, 1.138),
        ("animalpose", 20, 8, None),
        ("animal_kingdom", 23, 8, None),
        ("atrw", 15, 6, 0.624425),
    ],
)
def test_size_pairs_and_sigmas(name, num_keypoints, num_pairs, sum_of_sigmas):
    schema = known_schema(name)
    assert schema.num_keypoints == num_keypoints
    assert len(schema.flip_pairs) == num_pairs
    assert schema.sigmas_are_default == (sum_of_sigmas is None)
    assert sum(schema.sigmas) == pytest.approx(sum_of_sigmas or DEFAULT_SIGMA * num_keypoints, abs=1e-6)


def test_all_are_tested_and_differ():
    marks = test_size_pairs_and_sigmas.pytestmark[0].args[1]
    assert [name for name, *_ in marks] == list(KNOWN_SCHEMAS)
    assert len({known_schema(name).names for name in KNOWN_SCHEMAS}) == len(KNOWN_SCHEMAS)


@pytest.mark.parametrize("name", KNOWN_SCHEMAS)
def test_limbs_mirror_onto_limbs(name):
    """A limb of the left side without its counterpart, or a limb across, is a slip of the pen."""
    schema = known_schema(name)
    limbs = set(map(frozenset, schema.skeleton))
    assert len(limbs) == len(schema.skeleton)
    assert {frozenset(int(schema.flip_indices[i]) for i in limb) for limb in limbs} == limbs


@pytest.mark.parametrize("name", sorted(set(KNOWN_SCHEMAS) - {"ap10k"}))
def test_mirrored_sigmas_are_equal(name):
    """Except where the authors measured them one by one (AIC, ATRW, the face and feet of COCO-WholeBody)."""
    schema = known_schema(name)
    apart = [i for i, j in twins(schema).items() if schema.sigmas[i] != schema.sigmas[j]]
    assert not apart or name in ("aic", "atrw", "coco_wholebody")
    if name == "coco_wholebody":
        assert set(apart) <= set(range(17, 91))


@pytest.mark.parametrize("spelling", ["coco_wholebody", "COCO-WholeBody", "coco wholebody", "CocoWholeBody"])
def test_spelling_of_the_name(spelling):
    assert known_schema(spelling) == known_schema("coco_wholebody")


@pytest.mark.parametrize("name", ["coco18", "", None, 17])
def test_unknown_name(name):
    with pytest.raises(
        DatasetError, match=rf"keypoint schema {name!r} is not known; known are coco, crowdpose, .*atrw"
    ):
        known_schema(name)


def test_coco_and_crowdpose_are_the_constants():
    assert known_schema("coco") == COCO_PERSON
    assert known_schema("crowdpose") == CROWDPOSE_PERSON


def test_wholebody():
    """https://github.com/jin-s13/COCO-WholeBody: 17 of the body, 6 of the feet, 68 of the face, 21 of either hand."""
    schema = known_schema("coco_wholebody")
    assert schema.names[:17] == COCO_PERSON.names
    assert schema.names[17:23] == (
        "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    )  # fmt: skip
    np.testing.assert_allclose(schema.sigmas[:17], Params("keypoints").kpt_oks_sigmas, rtol=1e-12)
    sigma = dict(zip(schema.names, schema.sigmas))
    assert (sigma["left_big_toe"], sigma["right_heel"]) == (0.068, 0.094)
    assert (sigma["face-0"], sigma["face-8"], sigma["face-47"], sigma["face-67"]) == (0.042, 0.020, 0.034, 0.008)
    assert (sigma["left_hand_root"], sigma["left_thumb4"], sigma["right_pinky_finger4"]) == (0.029, 0.047, 0.031)
    twin = twins(schema)
    assert twin[17] == 20  # big toes
    assert twin[23 + 36] == 23 + 45  # outer corners of the eyes
    assert twin[91] == 112  # roots of the hands
    assert 23 + 30 not in twin  # the tip of the nose


def test_halpe():
    """https://github.com/Fang-Haoshu/Halpe-FullBody#keypoints-format"""
    schema = known_schema("halpe136")
    assert schema.names[17:26] == (
        "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel",
        "right_heel",
    )  # fmt: skip
    assert known_schema("halpe26").names == schema.names[:26]
    assert (schema.names[26], schema.names[93]) == ("face-0", "face-67")
    assert (schema.names[94], schema.names[115]) == ("left_hand_root", "right_hand_root")
    # AlphaPose's joint_pairs (alphapose/datasets/halpe_136.py)
    pairs = [
        (20, 21),
        (24, 25),
        (26, 42),
        (43, 52),
        (62, 71),
        (67, 72),
        (57, 61),
        (87, 89),
        (93, 91),
        (85, 81),
        (94, 115),
    ]
    twin = twins(schema)
    assert all(twin[a] == b and twin[b] == a for a, b in pairs)


def test_mirror_tables_of_faces():
    """Pairs of HRNet-Facial-Landmark-Detection's tables; its 300W, COFW and AFLW count from 1."""
    for name, pairs in {
        "300w": [(1, 17), (8, 10), (18, 27), (22, 23), (32, 36), (37, 46), (41, 48), (49, 55), (61, 65), (68, 66)],
        "cofw": [(1, 2), (5, 7), (3, 4), (13, 15), (14, 16), (23, 24)],
        "aflw": [(1, 6), (9, 10), (13, 15), (16, 18)],
    }.items():  # fmt: skip
        twin = twins(known_schema(name))
        assert all(twin[a - 1] == b - 1 for a, b in pairs), name
    twin = twins(known_schema("wflw"))
    # chin's neighbours, brows, outer and inner corners of the eyes, lids, mouth, pupils
    for a, b in [(15, 17), (33, 46), (38, 50), (60, 72), (64, 68), (62, 70), (67, 73), (76, 82), (95, 93), (96, 97)]:
        assert twin[a] == b
    # chin, bridge and tip of the nose, middle of the lips
    assert not {16, 51, 52, 53, 54, 57, 79, 85, 90, 94} & set(twin)


def test_atrw():
    """The evaluation has squared sigmas, times 10,000: 5.8 for the first, 52.2 for the nose."""
    schema = known_schema("atrw")
    assert schema.sigmas[0] == pytest.approx(0.0240832, abs=1e-7)
    assert schema.sigmas[schema.names.index("nose")] == pytest.approx(0.0722496, abs=1e-7)


@pytest.mark.skipif("DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data")
@pytest.mark.parametrize("name", ["coco", "ap10k"])
def test_categories_of_the_data_sets_own_files(name):
    path = Path(os.environ["DYNPOSE_TEST_DATA"]) / f"data/{name}/test_{name}.json"
    read = KeypointSchema.from_category(json.loads(path.read_text())["categories"][0])
    schema = known_schema(name)
    assert read.has_same_keypoints(schema)
    assert read.sigmas == schema.sigmas
    assert set(map(frozenset, read.skeleton)) == set(map(frozenset, schema.skeleton))


@pytest.mark.parametrize("name", KNOWN_SCHEMAS)
def test_found_by_keypoints(name):
    schema = known_schema(name)
    assert schema_by_keypoints(list(schema.names)) == schema
    assert schema_by_keypoints(schema.names[::-1]) is None
    assert schema_by_keypoints(schema.names[:-1]) is None


@pytest.mark.parametrize("name", KNOWN_SCHEMAS)
def test_a_file_with_the_names_has_pairs_and_sigmas(name):
    schema = known_schema(name)
    read = KeypointSchema.from_category({"name": "x", "keypoints": list(schema.names)})
    assert read.sigmas == schema.sigmas
    assert read.sigmas_are_default == schema.sigmas_are_default
    assert read.has_same_keypoints(schema)


class TestGroups:
    def test_wholebody(self):
        groups = keypoint_groups(known_schema("coco_wholebody").names)
        assert {group: (indices[0], indices[-1], len(indices)) for group, indices in groups.items()} == {
            "body": (0, 16, 17),
            "feet": (17, 22, 6),
            "face": (23, 90, 68),
            "left_hand": (91, 111, 21),
            "right_hand": (112, 132, 21),
        }

    def test_halpe(self):
        """halpecocotools/cocoeval.py: body_kpnum 20, foot_kpnum 6, face_kpnum 68, and the hands."""
        groups = keypoint_groups(known_schema("halpe136").names)
        assert {group: (indices[0], indices[-1], len(indices)) for group, indices in groups.items()} == {
            "body": (0, 19, 20),
            "feet": (20, 25, 6),
            "face": (26, 93, 68),
            "left_hand": (94, 114, 21),
            "right_hand": (115, 135, 21),
        }

    def test_another_order(self):
        names = known_schema("coco_wholebody").names
        groups = keypoint_groups(names[::-1])
        assert groups["body"] == tuple(range(132, 115, -1))
        assert [names[::-1][i] for i in groups["feet"]] == list(names[17:23])

    @pytest.mark.parametrize("names", [(), ("a",), COCO_PERSON.names, known_schema("coco_wholebody").names[:-1]])
    def test_none(self, names):
        assert keypoint_groups(names) == {}
