"""Predictions of other tools, as their files are."""

import json
import math

import pytest

from dynpose.data import DatasetError
from dynpose.evaluation.ground_truth import GroundTruth
from dynpose.report.results_files import read_results

NAMES = ("nose", "left_hand", "right_hand")
TRUTH = GroundTruth(
    "people.json",
    [7, 785, 9],
    [3],
    [],
    image_files={7: ("a/street.png", 640, 480), 785: ("000000000785.jpg", 640, 425), 9: ("b/street.png", 64, 48)},
)
KEYPOINTS = [10, 20, 2, 30, 40, 1, 50, 60, 0.5]


def read(tmp_path, data, truth=TRUTH, class_names=("person",), class_of=None):
    path = tmp_path / "predictions.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_results(path, truth, NAMES, class_names=class_names, class_of=class_of or {3: 0})


def record(**fields):
    return {"image_id": 7, "category_id": 3, "keypoints": KEYPOINTS, "score": 0.5, **fields}


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        *((785, 785), (785.0, 785), ("785", 785), ("000000000785", 785), ("000000000785.jpg", 785)),
        *(("a/street.png", 7), ("b/street.png", 9), ("a\\street.png", 7)),
    ],
)
def test_images_by_id_name_and_stem(tmp_path, image_id, expected):
    """Ultralytics writes the stem where it is no number, and the number otherwise."""
    (detection,) = read(tmp_path, [record(image_id=image_id)]).detections
    assert detection["image_id"] == expected


def test_files_of_three_tools(tmp_path):
    detectron2 = record(bbox=[1.5, 2.5, 10, 20])
    mmpose = record(center=[5, 5], scale=[1, 1])
    ultralytics = record(image_id=785, file_name="000000000785.jpg", bbox=[1, 2, 3, 4], keypoints=[1, 2, 3, 4, 5, 6])
    results = read(tmp_path, [detectron2, mmpose, ultralytics])
    assert [each.get("bbox") for each in results.detections] == [[1.5, 2.5, 10, 20], None, [1, 2, 3, 4]]
    assert results.detections[0]["keypoints"] == KEYPOINTS
    # x and y alone: keypoints without visibility
    assert results.detections[2]["keypoints"] == [1, 2, 1, 3, 4, 1, 5, 6, 1]
    assert results.remarks == []


def predicted(keypoint_names=NAMES, **person):
    points = [[1, 2, 0.1], [3, 4, 0.2], [5, 6, 0.3]]
    person = {
        "category": 0,
        "category_name": "person",
        "bbox": [0, 0, 9, 9],
        "score": 0.9,
        "keypoints": points,
    } | person
    return {
        "info": {"keypoint_names": list(keypoint_names)},
        "images": [{"file_name": "a/street.png", "width": 640, "height": 480, "instances": [person]}],
        "skipped": [],
    }


def test_predictions_of_dynpose(tmp_path):
    (detection,) = read(tmp_path, predicted()).detections
    assert detection == {
        "image_id": 7,
        "category_id": 3,
        "keypoints": [1, 2, 0.1, 3, 4, 0.2, 5, 6, 0.3],
        "score": 0.9,
        "bbox": [0, 0, 9, 9],
    }


def test_keypoints_are_matched_by_name(tmp_path):
    results = read(tmp_path, predicted(("RHand", "Tail", "LHand")))
    assert results.detections[0]["keypoints"] == [0, 0, 0, 5, 6, 0.3, 1, 2, 0.1]
    assert results.missing_keypoints == [0]
    assert "lack nose" in results.remarks[0]


def test_a_class_is_found_by_its_name(tmp_path):
    truth = GroundTruth("x.json", [7], [3, 5], [], image_files=TRUTH.image_files)
    options = {"truth": truth, "class_names": ("cat", "dog"), "class_of": {3: 0, 5: 1}}
    (detection,) = read(tmp_path, predicted(category=0, category_name="dog"), **options).detections
    assert detection["category_id"] == 5


def test_predictions_that_do_not_fit_are_skipped_and_counted(tmp_path):
    data = [record(), record(image_id="other"), record(category_id=1), record(score=None), record(score=math.inf)]
    data[3]["score"] = math.nan
    results = read(tmp_path, data)
    assert len(results.detections) == 1
    assert [remark.split(".")[0] for remark in results.remarks] == [
        "2 predictions with a NaN or infinite number are skipped: the model may have diverged",
        "1 predictions are skipped: the annotation has no image 'other'",
        "1 predictions are skipped: the annotation has no category 1",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("[", "no valid JSON"),
        ('{"annotations": []}', "holds no predictions"),
        ([1], "predictions[0] is 1"),
        ([record(), {"image_id": 7, "bbox": [1, 2, 3, 4], "score": 1}], "predictions[1] has no 'keypoints'"),
        ([record(keypoints=[1, 2, 3])], "keypoints has 3 numbers, but the annotation's 3 keypoints make 9"),
        ([record(keypoints=["a"] * 9)], "keypoints has 'a' where a number belongs"),
        ([record(bbox=[1, 2])], "bbox is [1, 2]"),
        ([record(image_id="none")], "no prediction is of an image of the annotation"),
        ([record(category_id=1)], "no prediction is of a category of the annotation (it has 3): 1"),
        ([record(image_id="street")], "image 'street' may be any of 2 images"),
        (predicted(("paw", "tail", "ear")), "no name in common"),
        ({"info": {}, "images": []}, "info: there are no keypoint_names"),
        ({"info": {"keypoint_names": list(NAMES)}, "images": [{}]}, "images[0]: there is no 'file_name'"),
        (predicted(keypoints=[[1, 2, 3]]), "a person has 1 keypoints"),
        (predicted(keypoints=[[1, 2]] * 3), "keypoints is [[1, 2], [1, 2], [1, 2]]"),
        (predicted(keypoints=7), "image 'a/street.png': a person: keypoints is 7"),
        (predicted(category="person"), "image 'a/street.png': category is 'person'"),
        (predicted(category=-1, category_name=None), "image 'a/street.png': category -1"),
        (predicted(category_name=["person"]), "category_name ['person']"),
        (predicted(([], "tail", "ear")), "keypoint_names is [[], 'tail', 'ear']"),
        ({"info": {"keypoint_names": list(NAMES)}, "images": ["a.png"]}, "images[0] is 'a.png', not an object"),
        ({"info": {"keypoint_names": list(NAMES)}, "images": [{"file_name": "x", "instances": 1}]}, "instances is 1"),
        # x, y and confidence of two keypoints, not x and y of three
        ([record(keypoints=[10, 20, 0.9, 30, 40, 0.8])], "x, y and confidence of 2 keypoints"),
    ],
)
def test_faults(tmp_path, data, words):
    with pytest.raises(DatasetError) as error:
        read(tmp_path, data)
    assert words in str(error.value)
    assert str(tmp_path / "predictions.json") in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        read_results(tmp_path / "gone.json", TRUTH, NAMES, class_names=("person",), class_of={3: 0})


def test_ids_of_other_types(tmp_path):
    """Digits of a category as text are its id; True, a list and numbers of any length are of no image or category."""
    digits = "9" * 5000
    data = [record(category_id="3"), record(category_id=3.0), record(image_id="0007")]
    strange = [record(image_id=value) for value in (True, [7], {"id": 7}, digits)]
    strange += [record(category_id=value) for value in (True, [3], "x", digits)]
    results = read(tmp_path, data + strange)
    assert [detection["category_id"] for detection in results.detections] == [3, 3, 3]
    assert [int(remark.split()[0]) for remark in results.remarks] == [4, 4]


def test_numbers_beyond_those_of_floating_point(tmp_path):
    results = read(tmp_path, [record(), record(score=10**400), record(keypoints=[10**400] * 9)])
    assert len(results.detections) == 1
    assert results.remarks[0].startswith("2 predictions with a NaN or infinite number")


def test_coordinates_alone_of_a_count_that_three_divides(tmp_path):
    """Six numbers for three keypoints are x and y, unless each third one is a confidence."""
    (detection,) = read(tmp_path, [record(keypoints=[10, 20, 30, 40, 50, 60])]).detections
    assert detection["keypoints"] == [10, 20, 1, 30, 40, 1, 50, 60, 1]
