"""`dynpose predict`: which images, what is written, and what happens when something is broken."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from PIL import Image

from dynpose.data import KeypointSchema
from dynpose.engine.predictor import PosePredictor
from dynpose.tools.cli import main
from dynpose.tools.predict import find_images
from dynpose.utils import draw_poses


def save_photo(path, size=(60, 80), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Three images, two of which have the same name in two folders."""
    for index, name in enumerate(("a/x.png", "b/x.png", "b/deep/y.jpg")):
        save_photo(tmp_path / "photos" / name, seed=index)
    return tmp_path / "photos"


@pytest.fixture
def run(small_run, tmp_path):
    """Call the command on some inputs; gives the exit code and predictions.json."""

    def call(inputs, *more, output="out"):
        code = main(
            [
                *("predict", "--config-file", small_run.config, "--weights", small_run.weights, "--device", "cpu"),
                *("--input", *map(str, inputs), "--output", str(tmp_path / output), *more),
            ]
        )
        file = tmp_path / output / "predictions.json"
        return code, json.loads(file.read_text()) if file.exists() else None

    return call


def names(record):
    return [image["file_name"] for image in record["images"]]


def test_writes_a_picture_for_every_image_and_all_numbers(run, photos, tmp_path, capsys):
    code, record = run([photos])
    assert code == 0
    assert names(record) == ["a/x.png", "b/deep/y.jpg", "b/x.png"]
    for name in names(record):
        # enlarged for drawing
        assert Image.open(tmp_path / "out" / name).size == (640, 480)
    assert record["skipped"] == []
    assert capsys.readouterr().out.startswith("3 images, 9 people with a score of at least 0.3 (9 in all)")


def test_numbers_are_the_predictors_in_cocos_convention(run, photos, small_run):
    _, record = run([photos / "a" / "x.png"], "--no-pictures")
    (image,) = record["images"]
    assert (image["file_name"], image["width"], image["height"]) == ("x.png", 80, 60)
    people = PosePredictor.from_files(small_run.config, small_run.weights)(photos / "a" / "x.png")
    assert len(image["instances"]) == len(people) == 3
    for index, person in enumerate(image["instances"]):
        x0, y0, x1, y1 = people.pred_boxes.tensor[index].tolist()
        assert person["category"] == 0
        assert person["score"] == pytest.approx(people.scores[index].item(), abs=1e-4)
        assert person["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-2)
        expected = people.pred_keypoints[index].numpy() - [0.5, 0.5, 0]
        np.testing.assert_allclose(person["keypoints"], expected, atol=1e-2)


def test_the_file_says_what_its_numbers_mean(run, photos):
    _, record = run([photos], "--no-pictures", "--limit", "1")
    info = record["info"]
    assert info["keypoint_names"] == ["head", "left_hand", "right_hand", "foot"]
    assert info["skeleton"] == [[0, 1], [0, 2], [0, 3]]
    assert "COCO" in info["coordinates"]
    assert info["complete"] is True


def test_the_threshold_is_for_the_pictures_only(run, photos, tmp_path):
    """Pictures that nobody is drawn on are the images: these need no enlargement."""
    original = save_photo(tmp_path / "large.png", size=(480, 500))
    _, everybody = run([original], "--score-threshold", "0", output="all")
    _, nobody = run([original], "--score-threshold", "1", output="none")
    assert everybody["images"] == nobody["images"]
    assert len(nobody["images"][0]["instances"]) == 3
    assert np.array_equal(read_image(str(tmp_path / "none" / "large.png")), read_image(str(original)))
    assert not np.array_equal(read_image(str(tmp_path / "all" / "large.png")), read_image(str(original)))


def test_class_names_are_those_of_the_config(run, photos):
    _, record = run([photos], "--no-pictures", "MODEL.CLASS_NAMES", "['dancer']")
    assert record["info"]["category_names"] == ["dancer"]
    people = [person for image in record["images"] for person in image["instances"]]
    assert len(people) == 9
    assert {(person["category"], person["category_name"]) for person in people} == {(0, "dancer")}
    _, record = run([photos], "--no-pictures")
    assert record["info"]["category_names"] == []
    assert not any("category_name" in person for image in record["images"] for person in image["instances"])


# --- a model that has diverged ---


def strict(text):
    """JSON as other programs read it: NaN and Infinity are Python's own."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def diverged(small_run, tmp_path):
    """Weights that are NaN, in a file."""
    checkpoint = torch.load(small_run.weights, weights_only=False)
    checkpoint["model"]["head.box_distances.bias"].fill_(math.nan)
    torch.save(checkpoint, tmp_path / "diverged.pth")
    return str(tmp_path / "diverged.pth")


@pytest.mark.parametrize("options", [[], ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)"]])
def test_a_diverged_model_is_named(small_run, diverged, photos, tmp_path, options, capsys):
    command = ["predict", "--config-file", small_run.config, "--weights", diverged, "--device", "cpu"]
    assert main([*command, "--input", str(photos), "--output", str(tmp_path / "out"), "--limit", "2", *options]) == 1
    record = strict((tmp_path / "out" / "predictions.json").read_text())
    # three people in two images, and with augmentation in two views
    of_each = 6 if options else 3
    assert [(image["instances"], image["not_finite"]) for image in record["images"]] == [([], of_each)] * 2
    # nobody is drawn
    picture = read_image(str(tmp_path / "out" / "a" / "x.png"))
    enlarged = draw_poses(read_image(str(photos / "a" / "x.png"), "RGB"), people_of(0), KeypointSchema(names=("a",)))
    assert np.array_equal(picture, enlarged)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert line.startswith(f"{2 * of_each} predictions with a NaN or infinite number left out, in 2 images (not_finite")
    assert f"the training of {diverged} may have diverged" in line


def people_of(number):
    boxes = Boxes(torch.zeros(number, 4))
    keypoints = torch.zeros(number, 1, 3)
    return Instances((60, 80), pred_boxes=boxes, scores=torch.zeros(number), pred_keypoints=keypoints)


def test_only_what_is_not_finite_is_left_out(run, photos, tmp_path, monkeypatch):
    """Of three people each: a score, a box, a confidence, a coordinate; nothing in the last image."""
    infer, calls = PosePredictor.infer, []

    def poisoned(self, inputs):
        (people,) = infer(self, inputs)
        calls.append(people)
        if len(calls) == 1:
            people.scores[0], people.pred_boxes.tensor[2, 1] = math.nan, -math.inf
        if len(calls) == 2:
            people.pred_keypoints[1, 2, 2], people.pred_keypoints[2, 0, 0] = math.nan, math.inf
        return [people]

    _, sound = run([photos], output="sound")
    monkeypatch.setattr(PosePredictor, "infer", poisoned)
    code, record = run([photos])
    assert code == 1
    assert [image["not_finite"] for image in sound["images"]] == [0, 0, 0]
    assert [image["not_finite"] for image in record["images"]] == [2, 2, 0]
    expected = [image["instances"] for image in sound["images"]]
    assert [image["instances"] for image in record["images"]] == [expected[0][1:2], expected[1][:1], expected[2]]
    strict((tmp_path / "out" / "predictions.json").read_text())
    # the predictor itself hands them on
    assert [len(people) for people in calls] == [3, 3, 3]


def test_limit_and_no_pictures(run, photos, tmp_path):
    code, record = run([photos], "--limit", "2", "--no-pictures")
    assert code == 0
    assert names(record) == ["a/x.png", "b/deep/y.jpg"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_broken_images_are_reported_and_the_rest_is_done(run, photos, tmp_path, batch_size, capsys):
    (photos / "a" / "text.jpg").write_text("no image")
    whole = (photos / "b" / "x.png").read_bytes()
    (photos / "b" / "z.png").write_bytes(whole[: len(whole) // 2])
    save_photo(photos / "b" / "strip.png", size=(1, 5000))
    code, record = run([photos], "--batch-size", str(batch_size))
    assert code == 1
    assert names(record) == ["a/x.png", "b/deep/y.jpg", "b/strip.png", "b/x.png"]
    assert [item["file_name"] for item in record["skipped"]] == ["a/text.jpg", "b/z.png"]
    assert "cannot identify image file" in record["skipped"][0]["reason"]
    assert record["info"]["complete"] is True
    captured = capsys.readouterr()
    assert f"skipped {photos}/a/text.jpg: " in captured.err
    assert "2 images skipped" in captured.err


def test_batches_give_what_single_images_give(run, photos):
    _, single = run([photos], "--no-pictures", output="single")
    _, batched = run([photos], "--no-pictures", "--batch-size", "2", output="batched")
    assert names(single) == names(batched)
    for a, b in zip(single["images"], batched["images"]):
        assert [person["score"] for person in a["instances"]] == pytest.approx(
            [person["score"] for person in b["instances"]], abs=1e-3
        )


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (FileNotFoundError("gone"), 2)])
def test_what_was_done_is_kept_when_the_run_stops(run, photos, monkeypatch, error, code, capsys):
    infer = PosePredictor.infer
    calls = []

    def stop_at_the_third(self, inputs):
        calls.append(inputs)
        if len(calls) == 3:
            raise error
        return infer(self, inputs)

    monkeypatch.setattr(PosePredictor, "infer", stop_at_the_third)
    returned, record = run([photos])
    assert returned == code
    assert names(record) == ["a/x.png", "b/deep/y.jpg"]
    assert record["info"]["complete"] is False
    assert "holds 2 of 3 images" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file_whole(run, photos, monkeypatch, tmp_path):
    _, before = run([photos], "--no-pictures", "--limit", "1")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    code, after = run([photos], "--no-pictures")
    assert code == 2
    assert after == before


def test_a_second_run_does_not_take_the_first_ones_pictures(run, photos):
    first = run([photos], output="photos/out")
    assert run([photos], output="photos/out") == first


def test_the_output_may_be_a_folder_above_the_images(run, photos):
    first = run([photos / "b"], output="photos")
    assert names(first[1]) == ["deep/y.jpg", "x.png"]
    assert run([photos / "b"], output="photos") == first


@pytest.mark.parametrize("item", ["a/x.png", "a"])
def test_never_overwrites_an_image(run, photos, item, capsys):
    before = (photos / "a" / "x.png").read_bytes()
    code, record = run([photos / item], output="photos/a")
    assert (code, record) == (2, None)
    assert "x.png would overwrite an image" in capsys.readouterr().err
    assert (photos / "a" / "x.png").read_bytes() == before


def test_weights_are_needed(small_run, photos, tmp_path, capsys):
    arguments = ["predict", "--config-file", small_run.config, "--input", str(photos), "--output", str(tmp_path / "o")]
    assert main([*arguments, "--weights", ""]) == 2
    assert "no weights given" in capsys.readouterr().err


class TestFindImages:
    def found(self, *inputs, **options):
        return [name for name, _ in find_images([str(item) for item in inputs], **options)]

    def test_a_file_has_its_own_name(self, photos):
        assert find_images([str(photos / "a" / "x.png")]) == [("x.png", photos / "a" / "x.png")]

    def test_a_folders_names_start_below_it(self, photos):
        assert self.found(photos / "b") == ["deep/y.jpg", "x.png"]

    def test_names_of_several_inputs_start_below_their_common_folder(self, photos):
        assert self.found(photos / "b", photos / "a") == ["b/deep/y.jpg", "b/x.png", "a/x.png"]
        assert self.found(photos / "a/x.png", photos / "b/x.png") == ["a/x.png", "b/x.png"]

    def test_globs(self, photos):
        assert self.found(photos / "*/x.png") == ["a/x.png", "b/x.png"]
        assert self.found(photos / "**/*.jpg") == ["b/deep/y.jpg"]

    def test_an_image_that_is_given_twice_is_taken_once(self, photos):
        assert self.found(photos / "a/x.png", photos / "a", photos / "a/*.png") == ["x.png"]

    def test_relative_inputs(self, photos, monkeypatch):
        monkeypatch.chdir(photos / "b")
        assert self.found(".") == ["deep/y.jpg", "x.png"]
        assert self.found("deep/y.jpg", "../a") == ["b/deep/y.jpg", "a/x.png"]

    def test_other_files_in_a_folder_are_passed_over(self, photos):
        (photos / "a" / "notes.txt").write_text("")
        assert self.found(photos / "a") == ["x.png"]

    def test_a_name_with_glob_characters_is_a_file_first(self, photos):
        save_photo(photos / "a" / "z[1].png")
        assert self.found(photos / "a" / "z[1].png") == ["z[1].png"]

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ("c", "c: no such image or folder"),
            ("a/none*", "no images there; images end in .bmp"),
            ("empty", "no images there"),
            ("a/notes.txt", "no images there"),
        ],
    )
    def test_nothing_found(self, photos, item, message):
        (photos / "empty").mkdir()
        (photos / "a" / "notes.txt").write_text("")
        with pytest.raises(FileNotFoundError, match=message):
            find_images([str(photos / item)])
