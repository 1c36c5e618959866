"""Annotations are read chunk by chunk: where a chunk ends changes nothing, and garbage collection is left as it was."""

import gc

import pytest

from dynpose.data import DatasetError, coco_json, load_pose_json, people


@pytest.fixture
def five_people(pose_files):
    """Three of them equal; keypoints of the second are not labelled, one of the fourth's lies outside the image."""
    (template,) = pose_files.data["annotations"]
    keypoints = [
        template["keypoints"],
        None,
        template["keypoints"],
        [41, 8, 2, 0, 0, 0, 0, 0, 0],
        template["keypoints"],
    ]
    pose_files.data["annotations"] = [
        {**template, "id": 11 + i, "keypoints": numbers} for i, numbers in enumerate(keypoints)
    ]
    pose_files.save()
    return pose_files


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4096])
def test_any_chunk_gives_the_same(five_people, monkeypatch, size):
    monkeypatch.setattr(people, "_CHUNK", size)
    monkeypatch.setattr(coco_json, "_CHUNK", size)
    remarks = []
    records = load_pose_json(five_people.json_file, five_people.image_root, on_remarks=remarks.append)
    # the centres of the annotated pixels
    equal = [15.5, 8.5, 2, 12.5, 20.5, 2, 30.5, 21.5, 1]
    nothing, outside = [0.5, 0.5, 0] * 3, [41.5, 8.5, 2, 0.5, 0.5, 0, 0.5, 0.5, 0]
    found = [person["keypoints"] for person in records[1]["annotations"]]
    assert found == [equal, nothing, equal, outside, equal]
    assert all(type(visibility) is int for numbers in found for visibility in numbers[2::3])
    assert remarks[0].counts == {"annotated twice": 2, "not labelled": 1, "outside the image": 1}
    assert remarks[0].examples == {
        "annotated twice": ["annotation 13", "annotation 15"],
        "not labelled": ["annotation 12"],
        "outside the image": ["annotation 14"],
    }


def test_lists_of_people_without_keypoints_are_their_own(five_people):
    for annotation in five_people.data["annotations"]:
        annotation["keypoints"] = None
    five_people.save()
    first, *others = load_pose_json(five_people.json_file, five_people.image_root)[1]["annotations"]
    first["keypoints"][0] = 7
    assert all(person["keypoints"] == [0.5, 0.5, 0] * 3 for person in others)


@pytest.mark.parametrize(
    ("keypoints", "are_fractions"),
    [
        ([0.5, 0.25, 2, 1, 0, 2, 0, 1, 1], True),
        ([0.5, 0.25, 2, 1, 0, 2, 900, 900, 0], False),  # two alone may be what they are
        ([1, 0, 2, 0, 1, 2, 0.5, 0.5, 0], False),  # whole numbers: pixels of the image's corner
        ([0.5, 0.25, 2, 1.5, 0, 2, 0, 0, 0], False),
        ([0.5, -0.25, 2, 1, 0, 2, 0, 0, 0], False),
        ([0, 0, 0] * 3, False),
    ],
)
def test_only_labelled_keypoints_decide_whether_they_are_fractions_of_the_image(pose_files, keypoints, are_fractions):
    pose_files.data["annotations"][0]["keypoints"] = keypoints
    pose_files.save()
    if are_fractions:
        with pytest.raises(DatasetError, match="all 3 labelled keypoints lie between 0 and 1"):
            load_pose_json(pose_files.json_file, pose_files.image_root)
    else:
        assert load_pose_json(pose_files.json_file, pose_files.image_root)


class TestGarbageCollection:
    def test_it_goes_on_afterwards(self, pose_files):
        assert gc.isenabled()
        records = load_pose_json(pose_files.json_file, pose_files.image_root)
        assert gc.isenabled()
        assert gc.get_freeze_count() == 0
        # still looked through: an object that is part of a cycle is found
        assert any(item is records[1]["annotations"] for item in gc.get_objects())

    def test_it_stays_off(self, pose_files):
        gc.disable()
        try:
            load_pose_json(pose_files.json_file, pose_files.image_root)
            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_frozen_objects_stay_frozen(self, pose_files):
        gc.freeze()
        try:
            frozen = gc.get_freeze_count()
            load_pose_json(pose_files.json_file, pose_files.image_root)
            assert 0.9 * frozen < gc.get_freeze_count() <= frozen  # some are no longer needed
        finally:
            gc.unfreeze()

    def test_it_goes_on_after_a_fault(self, pose_files):
        pose_files.data["annotations"][0]["bbox"] = "wide"
        pose_files.save()
        with pytest.raises(DatasetError, match="annotation 11: bbox"):
            load_pose_json(pose_files.json_file, pose_files.image_root)
        assert gc.isenabled()
