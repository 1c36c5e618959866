"""Planted faults are found, and named first."""

import dataclasses
import math

import numpy as np
import pytest
from made_predictions import SCHEMA, annotation, changed, ground_truth, people_and_predictions, prediction

from dynpose.evaluation.analysis import analyse_predictions
from dynpose.evaluation.analysis.arrays import pose_arrays
from dynpose.evaluation.analysis.calibration import calibration
from dynpose.evaluation.analysis.data_summary import flip_pair_faults
from dynpose.evaluation.analysis.matching import PoseMatcher

NUM_IMAGES = 30
PEOPLE, GOOD = people_and_predictions(NUM_IMAGES)
# half a pixel is less than the standard error of the others
_, EXACT = people_and_predictions(NUM_IMAGES, noise=0.7)
SIZES = dict.fromkeys(range(1, NUM_IMAGES + 1), (640, 480))


def analysis(predictions, people=PEOPLE, schema=SCHEMA):
    return analyse_predictions(ground_truth(people, NUM_IMAGES), predictions, schema, image_sizes=SIZES)


def with_scores(score):
    return [{**each, "score": float(score(each))} for each in GOOD]


def of_image(predictions, factor):
    """Predictions whose coordinates have the factor of their image."""
    return [changed([each], lambda points, each=each: points * factor(each["image_id"]))[0] for each in predictions]


def background():
    random = np.random.default_rng(1)
    small = [np.reshape(each["keypoints"], (-1, 3))[:, :2] * 0.1 + random.uniform(500, 600, 2) for each in GOOD]
    return [prediction(each["image_id"], points, random.random()) for each, points in zip(GOOD, small)]


def sometimes(order):
    """Every second prediction in another order of its keypoints."""
    return [changed([each], lambda points: points[order])[0] if i % 2 else each for i, each in enumerate(GOOD)]


def rejected():
    """Half as many wrong predictions, with scores that say nothing."""
    random = np.random.default_rng(2)
    shifted = changed(GOOD[::2], lambda points: points + np.array((40, 10)))
    return [{**each, "score": random.random()} for each in [*GOOD, *shifted]]


FLIPPED = [0, 2, 1, 4, 3, 5]
FAULTS = [
    ("exchanged_left_right", "Left and right are exchanged", changed(GOOD, lambda points: points[FLIPPED])),
    (
        "exchanged_left_right",
        "Left and right of left_hand / right_hand are exchanged",
        changed(GOOD, lambda points: points[[0, 2, 1, 3, 4, 5]]),
    ),
    (
        "exchanged_keypoints",
        "The keypoints nose, tail are exchanged",
        changed(GOOD, lambda points: points[[5, 1, 2, 3, 4, 0]]),
    ),
    ("confused_keypoints", "The model confuses left and right", sometimes(FLIPPED)),
    ("confused_keypoints", "The model confuses keypoints", sometimes([0, 3, 2, 1, 4, 5])),
    ("offset", "shifted by 0.", changed(EXACT, lambda points: points + 0.55)),
    ("offset", "pixels to the left and 1", changed(GOOD, lambda points: points - (7, 12))),
    ("scale", "x is 1.5 and y 1.5", changed(GOOD, lambda points: points * 1.5)),
    ("scale", "x is 2 and y 0.7", changed(GOOD, lambda points: points * (2, 0.75))),
    ("scale", "differ between the images", of_image(GOOD, lambda image: 0.6 + 0.05 * image)),
    ("fractions", "fractions of the image", changed(GOOD, lambda points: points / (640, 480))),
    ("exchanged_axes", "x and y are exchanged", changed(GOOD, lambda points: points[:, ::-1])),
    ("scores", "All predictions have the same score, 0.5", with_scores(lambda each: 0.5)),
    ("scores", "The scores say little", rejected()),
    ("scores", "The scores are reversed", with_scores(lambda each: 1 - each["score"])),
    ("background", "60 of 120 predictions show nobody", GOOD + background()),
    (
        "duplicates",
        "60 of 120 predictions are duplicates",
        GOOD + changed(GOOD, lambda points: points + np.array((1, -1))),
    ),
    ("missed_people", "30 of 60 people have no prediction", GOOD[::2]),
]


@pytest.mark.parametrize(
    ("kind", "words", "predictions"), FAULTS, ids=[f"{kind}-{i}" for i, (kind, *_) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_named_first(kind, words, predictions):
    verdict = analysis(predictions)["verdict"]
    assert verdict["findings"][0]["kind"] == kind
    assert words in verdict["headline"]
    assert verdict["headline"].startswith(verdict["findings"][0]["title"])


@pytest.mark.parametrize(("factor", "word"), [(1.1, "belong"), (0.97, "may belong")])
def test_a_small_factor_may_be_the_bias_of_a_model(factor, word):
    (finding, *_) = analysis(changed(GOOD, lambda points: points * factor))["verdict"]["findings"]
    assert finding["title"].startswith(f"The predicted coordinates {word} to another image size")
    assert ("not trained enough" in finding["text"]) == (word == "may belong")


def test_the_gain_is_that_of_the_correction():
    good = analysis(GOOD)
    flipped = analysis(changed(GOOD, lambda points: points[FLIPPED]))
    assert good["verdict"]["findings"] == []
    assert good["verdict"]["headline"].startswith("No systematic fault was found.")
    (finding,) = flipped["verdict"]["findings"]
    assert finding["ap_gain"] == pytest.approx(good["metrics"]["AP"] - flipped["metrics"]["AP"])


def test_two_faults_are_found_one_behind_the_other():
    both = changed(GOOD, lambda points: points[FLIPPED] + (9, 0))
    verdict = analysis(both)["verdict"]
    assert [finding["kind"] for finding in verdict["findings"]] == ["exchanged_left_right", "offset"]
    assert "Correcting it and the other faults" in verdict["headline"]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ((("left_hand", "right_hand"), ("left_foot", "right_foot")), []),
        ((("left_hand", "left_foot"), ("right_hand", "right_foot")), ["by their names", "above the other"]),
        (
            (("left_hand", "right_hand"), ("nose", "tail")),
            ["Left_foot and right_foot: left and right", "nose / tail is"],
        ),
        ((("left_hand", "right_hand"),), ["no flip pairs"]),
    ],
)
def test_flip_pairs(pairs, words):
    schema = dataclasses.replace(SCHEMA, flip_pairs=pairs)
    arrays = pose_arrays(ground_truth(PEOPLE, NUM_IMAGES), [], schema.sigmas, max_dets=20)
    faults = " ".join(flip_pair_faults(arrays, schema))
    assert bool(faults) == bool(words)
    assert all(word in faults for word in words)
    kinds = [finding["kind"] for finding in analysis(GOOD, schema=schema)["verdict"]["findings"]]
    assert kinds[:1] == (["flip_pairs"] if words else [])


def test_pairs_that_contradict_the_names_come_before_what_they_may_cause():
    schema = dataclasses.replace(SCHEMA, flip_pairs=(("left_hand", "left_foot"), ("right_hand", "right_foot")))
    found = analysis(GOOD[::2], schema=schema)["verdict"]
    assert [finding["kind"] for finding in found["findings"]][:3] == ["flip_pairs", "flip_pairs", "missed_people"]
    assert found["headline"].startswith("The flip pairs of the data are doubtful: left_hand / left_foot")


def test_the_numbers_are_the_evaluators():
    result = analysis(GOOD)
    curves = result["precision_recall"]["curves"]
    assert [curve["oks"] for curve in curves][::9] == [0.5, 0.95]
    assert np.mean([curve["ap"] for curve in curves]) == pytest.approx(result["metrics"]["AP"])
    assert 100 * np.mean(curves[0]["precision"]) == pytest.approx(result["metrics"]["AP50"])
    assert {row["group"]: row["ap"] for row in result["groups"]["size"]}["large"] == pytest.approx(
        result["metrics"]["APl"], nan_ok=True
    )
    assert result["errors"]["ap"] == result["metrics"]["AP"]


def test_no_predictions_and_nobody():
    nothing = analysis([])
    assert nothing["verdict"]["headline"].startswith("There are no predictions")
    assert nothing["metrics"]["AP"] == 0
    assert math.isnan(nothing["calibration"]["auroc"])
    nobody = analysis(GOOD, people=[annotation(1, np.zeros((6, 2)), visibility=0)])
    assert nobody["verdict"]["headline"].startswith("Nobody in the annotation")
    assert math.isnan(nobody["metrics"]["AP"])


def test_calibration_by_hand():
    points = np.array([(0, 0), (100, 100)], dtype=float)
    people = [annotation(1, points), annotation(2, points)]
    far = points + 300
    predictions = [
        prediction(1, points, 0.95),
        prediction(2, points, 0.45),
        prediction(1, far, 0.55),
        prediction(2, far, 0.15),
    ]
    arrays = pose_arrays(ground_truth(people, 2), predictions, (0.05, 0.05), max_dets=20)
    result = calibration(PoseMatcher(arrays))
    # of the four pairs of a correct and a wrong prediction, one is in the wrong order
    assert result["auroc"] == 0.75
    assert [each["predictions"] for each in result["bins"]] == [0, 1, 0, 0, 1, 1, 0, 0, 0, 1]
    assert result["error_correct"] == pytest.approx((0.05 + 0.55 + 0.55 + 0.15) / 4)
    assert result["error_oks"] == pytest.approx((0.05 + 0.55 + 0.55 + 0.15) / 4)
    # all down to 0.45: two of three correct, both people found
    assert (result["best_threshold"], result["precision"], result["recall"]) == (0.45, pytest.approx(2 / 3), 1)
    assert result["best_f1"] == pytest.approx(0.8)
