"""The division of the keypoints into parts, against figure 4 written out by hand."""

import json

import pytest
from detectron2.config import get_cfg

from dynpose.config import add_dynpose_config
from dynpose.data.schema import COCO_PERSON, CROWDPOSE_PERSON, KeypointSchema
from dynpose.modeling.querypose.parts import divide_into_parts

HORSE = KeypointSchema(names=("nose", "left_hoof", "right_hoof", "tail"))

# COCO: 0-4 face, 5/6 shoulders, 7/8 elbows, 9/10 wrists, 11/12 hips, 13/14 knees, 15/16 ankles
COCO_PARTS = {
    "a": [[k] for k in range(17)],
    "b": [[0, 1, 2, 3, 4], [5], [6], [7], [8], [9], [10], [11], [12], [13], [14], [15], [16]],
    "c": [[0, 1, 2, 3, 4], [5, 6], [7, 9], [8, 10], [11, 12], [13, 15], [14, 16]],
    "d": [[0, 1, 2, 3, 4], [5, 7, 9], [6, 8, 10], [11, 13, 15], [12, 14, 16]],
}
# CrowdPose: the same joints from 0 on, then 12 head and 13 neck
CROWDPOSE_PARTS = {
    "a": [[k] for k in range(14)],
    "b": [[12, 13], [0], [1], [2], [3], [4], [5], [6], [7], [8], [9], [10], [11]],
    "c": [[12, 13], [0, 1], [2, 4], [3, 5], [6, 7], [8, 10], [9, 11]],
    "d": [[12, 13], [0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]],
}


@pytest.mark.parametrize("scheme", "abcd")
@pytest.mark.parametrize(("schema", "parts"), [(COCO_PERSON, COCO_PARTS), (CROWDPOSE_PERSON, CROWDPOSE_PARTS)])
def test_schemes_of_figure_4(schema, parts, scheme):
    assert [list(part) for part in divide_into_parts(schema, scheme)] == parts[scheme]


@pytest.mark.parametrize(("scheme", "num_parts"), [("a", 17), ("b", 13), ("c", 7), ("d", 5)])
def test_numbers_of_parts_of_table_2d(scheme, num_parts):
    assert len(divide_into_parts(COCO_PERSON, scheme)) == num_parts


@pytest.mark.parametrize("automatic", [None, "auto"])
@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (COCO_PERSON, COCO_PARTS["c"]),
        (CROWDPOSE_PERSON, CROWDPOSE_PARTS["c"]),
        (HORSE, [[0], [1], [2], [3]]),
        (KeypointSchema(names=("nose",)), [[0]]),
        (KeypointSchema(names=tuple(f"point_{k}" for k in range(133))), [[k] for k in range(133)]),
    ],
)
def test_automatic(schema, expected, automatic):
    assert [list(part) for part in divide_into_parts(schema, automatic)] == expected


def test_release_has_as_many_keypoints_in_each_part(test_data):
    shapes = json.loads((test_data / "reference/querypose_first/keys.json").read_text())
    released = [shapes[f"head.pose_head_series.0.fc_coord.{part}.linear.weight"][0] for part in range(7)]
    assert [2 * len(part) for part in divide_into_parts(COCO_PERSON)] == released


def test_schemes_go_by_names():
    """Keypoints in another order are in the same parts."""
    schema = KeypointSchema(names=COCO_PERSON.names[::-1])
    for scheme, parts in COCO_PARTS.items():
        if scheme != "a":
            expected = [[16 - k for k in part] for part in parts]
            assert [list(part) for part in divide_into_parts(schema, scheme)] == expected


def test_keypoints_one_by_one():
    for scheme in ("a", "keypoints"):
        assert divide_into_parts(HORSE, scheme) == ((0,), (1,), (2,), (3,))


def test_names_of_the_users_own():
    assert divide_into_parts(HORSE, [["tail"], ["right_hoof", "nose", "left_hoof"]]) == ((3,), (2, 0, 1))


@pytest.mark.parametrize(
    ("division", "message"),
    [
        ("e", r"division: expected .* or a list of lists of keypoint names, got 'e'"),
        ("c", r"scheme 'c' needs the keypoints of COCO or CrowdPose, but the schema has nose, left_hoof"),
        ([["nose", "left_hoof"], ["tail"]], r"division: keypoints in no part: right_hoof; put each"),
        ([["nose", "left_hoof"], ["tail", "nose", "right_hoof"]], r"'nose' is in part 0 and again in part 1"),
        ([["nose", "nose"]], r"'nose' is in part 0 and again in part 0"),
        ([["nose", "mane"]], r"part 0 names an unknown keypoint 'mane'; known are nose, left_hoof"),
        ([["nose"], []], r"part 1: expected a list of at least one keypoint name, got \[\]"),
        (["nose", "tail"], r"part 0: expected a list of at least one keypoint name, got 'nose'"),
        ([], r"in no part: nose, left_hoof, right_hoof, tail"),
    ],
)
def test_faulty_divisions(division, message):
    with pytest.raises(ValueError, match=message):
        divide_into_parts(HORSE, division)


@pytest.mark.parametrize("value", ["b", "auto", [["nose", "tail"], ["left_hoof", "right_hoof"]]])
def test_config_takes_schemes_and_lists(value, tmp_path):
    """The key has no fixed type, so that a file can set either."""
    cfg = get_cfg()
    add_dynpose_config(cfg)
    assert cfg.MODEL.QUERYPOSE.PARTS is None
    cfg.merge_from_list(["MODEL.QUERYPOSE.PARTS", value])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    add_dynpose_config(again)
    again.merge_from_file(str(tmp_path / "config.yaml"))
    merged = again.MODEL.QUERYPOSE.PARTS
    assert merged == value
