"""`dynpose predict`: its files, and its end when an input is corrupt, the run is killed or the disk is full."""

import io
import json
import math
import os
import resource
import signal
import sys
import traceback
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from PIL import Image

from dynpose.data import KeypointSchema
from dynpose.engine import fast_inference, prediction_record
from dynpose.engine.predictor import PosePredictor
from dynpose.tools.cli import main
from dynpose.utils import draw_poses
from dynpose.utils.locking import locked


def save_photo(path, size=(60, 80), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_photos(folder):
    for index, name in enumerate(("a/x.png", "b/x.png", "b/deep/y.jpg")):
        save_photo(folder / name, seed=index)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Three images, two of which have the same name in two folders."""
    return save_photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def whole(small_run, tmp_path_factory):
    """``folder`` and ``record``, predictions.json, of an uninterrupted run on such images."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(words(small_run, [save_photos(folder / "photos")], folder / "out")) == 0
    record = strict((folder / "out" / "predictions.json").read_text())
    return SimpleNamespace(folder=folder / "out", record=record)


def words(small_run, inputs, output, *more, weights=None):
    """The command line."""
    return [
        *("predict", "--config-file", small_run.config, "--weights", weights or small_run.weights, "--device", "cpu"),
        *("--input", *map(str, inputs), "--output", str(output), *more),
    ]


@pytest.fixture
def command(small_run, tmp_path):
    """The command line with an output of the test."""
    return lambda inputs, *more, output="out", **options: words(small_run, inputs, tmp_path / output, *more, **options)


@pytest.fixture
def run(command, tmp_path):
    """Call the command on some inputs; gives the exit code and predictions.json."""

    def call(inputs, *more, output="out", **options):
        code = main(command(inputs, *more, output=output, **options))
        file = tmp_path / output / "predictions.json"
        return code, strict(file.read_text()) if file.exists() else None

    return call


def strict(text):
    """JSON as other programs read it: NaN and Infinity are Python's own."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


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


@pytest.mark.parametrize("native", [True, False])
def test_a_lower_precision_is_said(run, photos, monkeypatch, capsys, native):
    """By a device that is faster in bfloat16, unless it is asked for."""
    monkeypatch.setattr(fast_inference, "_has_bfloat16", lambda device: native)
    _, record = run([photos], "--no-pictures", "--limit", "1")
    assert record["info"]["precision"] == ("bfloat16" if native else "float32")
    assert ("the network runs in bfloat16" in capsys.readouterr().err) == native
    _, record = run([photos], "--no-pictures", "--limit", "1", "--precision", "float32", output="float32")
    assert record["info"]["precision"] == "float32"
    assert "the network runs in" not in capsys.readouterr().err


def test_the_file_describes_its_numbers(run, photos):
    _, record = run([photos], "--no-pictures", "--limit", "1")
    info = record["info"]
    assert info["keypoint_names"] == ["head", "left_hand", "right_hand", "foot"]
    assert info["skeleton"] == [[0, 1], [0, 2], [0, 3]]
    assert "COCO" in info["coordinates"]
    assert info["complete"] is True


def test_the_threshold_is_for_the_pictures_only(run, photos, tmp_path):
    """Pictures without a drawn person are the images: these need no enlargement."""
    original = save_photo(tmp_path / "large.png", size=(480, 500))
    _, everybody = run([original], "--score-threshold", "0", output="all")
    _, without = run([original], "--score-threshold", "1", output="none")
    assert everybody["images"] == without["images"]
    assert len(without["images"][0]["instances"]) == 3
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
    # no person is drawn
    picture = read_image(str(tmp_path / "out" / "a" / "x.png"))
    enlarged = draw_poses(read_image(str(photos / "a" / "x.png"), "RGB"), people_of(0), KeypointSchema(names=("a",)))
    assert np.array_equal(picture, enlarged)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert line.startswith(f"{2 * of_each} predictions with a NaN or infinite number omitted, in 2 images (not_finite")
    assert f"the training of {diverged} may have diverged" in line


def people_of(number):
    boxes = Boxes(torch.zeros(number, 4))
    keypoints = torch.zeros(number, 1, 3)
    return Instances((60, 80), pred_boxes=boxes, scores=torch.zeros(number), pred_keypoints=keypoints)


def test_only_non_finite_predictions_are_omitted(run, photos, tmp_path, monkeypatch):
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
    assert record["info"]["images_beyond_limit"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.json", "predictions.jsonl"]


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
    assert "2 inputs can't be read" in captured.err
    assert [item["is_failure"] for item in record["skipped"]] == [True, True]


def test_batches_give_the_results_of_single_images(run, photos):
    _, single = run([photos], "--no-pictures", output="single")
    _, batched = run([photos], "--no-pictures", "--batch-size", "2", output="batched")
    assert names(single) == names(batched)
    for a, b in zip(single["images"], batched["images"]):
        assert [person["score"] for person in a["instances"]] == pytest.approx(
            [person["score"] for person in b["instances"]], abs=1e-3
        )


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (FileNotFoundError("gone"), 2)])
def test_results_are_kept_when_the_run_stops(run, photos, monkeypatch, error, code, capsys):
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


# --- runs that are killed, and resume ---


def call_in_child(prepare, words):
    """Call the command in a forked process, after something that makes it end; gives its exit code or -signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            prepare()
            code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_third_inference(action):
    infer, calls = PosePredictor.infer, []

    def counting(self, inputs):
        calls.append(inputs)
        if len(calls) == 3:
            action()
        return infer(self, inputs)

    PosePredictor.infer = counting


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_third_picture():
    """The pictures are drawn after their results are recorded."""
    save, calls = Image.Image.save, []

    def counting(self, path, *options, **more):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a picture")
            die()
        save(self, path, *options, **more)

    Image.Image.save = counting


def die_in_third_line_of_an_image():
    class Half(io.FileIO):
        lines = 0

        def write(self, data):
            self.lines += b'"instances"' in bytes(data[:100])
            if self.lines < 3:
                return super().write(data)
            super().write(data[: len(data) // 2])
            return die()

    def open_half(path, mode, **options):
        return Half(path, mode) if mode == "r+b" else open(path, mode, **options)

    prediction_record.open = open_half


def die_before_the_end():
    def hear(event, arguments):
        if event == "os.rename" and str(arguments[1]).endswith("predictions.json"):
            die()

    sys.addaudithook(hear)


def lines_of(folder):
    return (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("predictions.json")
    }


@pytest.fixture
def inferred(monkeypatch):
    """Number of images in each forward pass."""
    infer, sizes = PosePredictor.infer, []

    def counting(self, inputs):
        sizes.append(len(inputs))
        return infer(self, inputs)

    monkeypatch.setattr(PosePredictor, "infer", counting)
    return sizes


@pytest.mark.parametrize(
    ("end", "done"),
    [
        (lambda: at_third_inference(die), 2),
        (die_in_third_picture, 3),
        (die_in_third_line_of_an_image, 2),
        (die_before_the_end, 3),
    ],
    ids=["inference", "picture", "line", "end"],
)
def test_a_killed_run_resumes_as_if_uninterrupted(run, command, photos, whole, tmp_path, inferred, end, done, capfd):
    assert call_in_child(end, command([photos])) == -signal.SIGKILL
    # the header and images; of the last one perhaps half
    lines = lines_of(tmp_path / "out")
    assert len(lines) == 1 + done + (end is die_in_third_line_of_an_image)
    assert not (tmp_path / "out" / "predictions.json").exists()
    inferred.clear()
    assert run([photos], "--resume") == (0, whole.record)
    assert inferred == [1] * (3 - done)
    assert files_in(tmp_path / "out") == files_in(whole.folder)
    assert f"{done} of 3 images are in {tmp_path}/out/predictions.jsonl already" in capfd.readouterr().err
    assert len(lines_of(tmp_path / "out")) == len(lines_of(whole.folder))


def test_sigterm_ends_like_ctrl_c(run, command, photos, whole, tmp_path, capfd):
    code = call_in_child(lambda: at_third_inference(lambda: os.kill(os.getpid(), signal.SIGTERM)), command([photos]))
    assert code == 143
    errors = capfd.readouterr().err
    assert f"stopped: {tmp_path}/out holds 2 of 3 images; --resume continues" in errors
    assert errors.endswith("dynpose: terminated\n")
    record = strict((tmp_path / "out" / "predictions.json").read_text())
    assert record["info"]["complete"] is False
    assert record["images"] == whole.record["images"][:2]
    assert run([photos], "--resume") == (0, whole.record)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_results_do_not_wait_for_older_images(run, tmp_path, monkeypatch):
    """Of images a to d, b and d are of one shape and c, alone in its shape, ends the run."""
    for name, size in (("a", (60, 80)), ("b", (80, 60)), ("c", (60, 200)), ("d", (80, 60))):
        save_photo(tmp_path / "photos" / f"{name}.png", size=size, seed=ord(name))
    _, whole = run([tmp_path / "photos"], "--no-pictures", output="whole")
    infer, calls = PosePredictor.infer, []

    def once(self, inputs):
        calls.append(inputs)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return infer(self, inputs)

    options = ("--no-pictures", "--batch-size", "2")
    with monkeypatch.context() as patch:
        patch.setattr(PosePredictor, "infer", once)
        code, record = run([tmp_path / "photos"], *options)
    assert (code, names(record)) == (143, ["b.png", "d.png"])
    _, resumed = run([tmp_path / "photos"], *options, "--resume")
    assert names(resumed) == ["a.png", "b.png", "c.png", "d.png"]
    for ours, theirs in zip(resumed["images"], whole["images"]):
        for person, expected in zip(ours["instances"], theirs["instances"], strict=True):
            assert person["score"] == pytest.approx(expected["score"], abs=1e-4)
            np.testing.assert_allclose(person["keypoints"], expected["keypoints"], atol=2e-3)


def test_the_results_of_an_unfinished_run_are_not_overwritten(run, command, photos, tmp_path, inferred, capfd):
    call_in_child(lambda: at_third_inference(die), command([photos], "--no-pictures"))
    before = lines_of(tmp_path / "out")
    assert run([photos], "--no-pictures") == (2, None)
    assert "holds 2 images of an unfinished run; continue with --resume, delete the file" in capfd.readouterr().err
    assert lines_of(tmp_path / "out") == before
    assert inferred == []


def test_a_finished_run_resumes_with_new_images(run, photos, tmp_path, inferred):
    first = run([photos], "--no-pictures", "--resume")
    assert inferred == [1, 1, 1]
    # Another run writes the same file, without predicting
    assert run([photos], "--no-pictures", "--resume") == first
    assert inferred == [1, 1, 1]
    save_photo(photos / "b" / "new.png", seed=7)
    save_photo(photos / "b" / "x.png", seed=8)
    _, resumed = run([photos], "--no-pictures", "--resume")
    assert inferred == [1] * 5
    assert resumed == run([photos], "--no-pictures", output="fresh")[1]
    assert names(resumed) == ["a/x.png", "b/deep/y.jpg", "b/new.png", "b/x.png"]


def test_other_weights_and_configs_are_not_mixed(run, photos, tmp_path, diverged, small_run, capsys):
    run([photos], "--no-pictures", "--limit", "1")
    before = lines_of(tmp_path / "out")
    options = ("--no-pictures", "--resume")
    assert run([photos], *options, weights=diverged)[0] == 2
    error = capsys.readouterr().err
    assert f"{diverged} (" in error
    assert f"was started with, {small_run.weights} (" in error
    assert "give these, or another --output" in error
    assert run([photos], *options, "TEST.DETECTIONS_PER_IMAGE", "7", "MODEL.CLASS_NAMES", "['dancer']")[0] == 2
    error = capsys.readouterr().err
    assert "MODEL.CLASS_NAMES is ['dancer'], was []" in error
    assert "TEST.DETECTIONS_PER_IMAGE is 7, was 100" in error
    assert lines_of(tmp_path / "out") == before
    # what no prediction depends on
    assert run([photos], *options, "SOLVER.BASE_LR", "1.0", "OUTPUT_DIR", "elsewhere")[0] == 0


def test_two_runs_do_not_share_a_folder(run, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with locked(str(tmp_path / "out" / "predictions.json.lock")):
        assert run([photos], "--no-pictures") == (2, None)
    assert f"--output {tmp_path}/out: in use by process {os.getpid()} on " in capsys.readouterr().err


# --- full disks, and pictures that can't be written ---


@pytest.fixture
def file_size_limit():
    """Let the system refuse to write more than so many bytes to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_run_with_the_results_so_far(
    run, photos, whole, tmp_path, file_size_limit, inferred, capsys
):
    header, first, second, third, _ = lines_of(whole.folder)
    file_size_limit(len(header + first + second) + len(third) // 2)
    code, record = run([photos], "--no-pictures")
    assert code == 2
    assert names(record) == ["a/x.png", "b/deep/y.jpg"]
    error = capsys.readouterr().err
    assert f"dynpose: error: {tmp_path}/out/predictions.jsonl: can't be written (File too large); " in error
    assert "free disk space, and continue with --resume" in error
    # nothing of the third line is left
    assert list(map(len, lines_of(tmp_path / "out"))) == list(map(len, (header, first, second)))
    file_size_limit(resource.RLIM_INFINITY)
    inferred.clear()
    assert run([photos], "--no-pictures", "--resume") == (0, whole.record)
    assert inferred == [1]


def test_pictures_that_do_not_fit_on_the_disk_cost_no_numbers(run, photos, whole, tmp_path, file_size_limit, capsys):
    file_size_limit(len(b"".join(lines_of(whole.folder))) + 10_000)
    code, record = run([photos])
    assert code == 1
    assert "3 pictures not written" in capsys.readouterr().err
    errors = [image.pop("picture_error") for image in record["images"]]
    assert ["File too large" in error for error in errors] == [True] * 3
    assert record == whole.record
    assert files_in(tmp_path / "out") == {}


def test_one_picture_that_can_not_be_written_is_listed(run, photos, whole, tmp_path, inferred, capsys):
    (tmp_path / "out" / "b" / "deep" / "y.jpg").mkdir(parents=True)
    code, record = run([photos])
    assert code == 1
    assert ["picture_error" in image for image in record["images"]] == [False, True, False]
    assert "Is a directory" in record["images"][1]["picture_error"]
    captured = capsys.readouterr().err
    assert f"no picture of {photos}/b/deep/y.jpg: " in captured
    assert "1 picture not written (picture_error in predictions.json)" in captured
    # it is drawn from the numbers once it can be
    (tmp_path / "out" / "b" / "deep" / "y.jpg").rmdir()
    inferred.clear()
    assert run([photos], "--resume") == (0, whole.record)
    assert inferred == []
    assert files_in(tmp_path / "out") == files_in(whole.folder)


def test_pictures_are_drawn_of_earlier_results(run, photos, whole, tmp_path, inferred):
    run([photos], "--no-pictures")
    inferred.clear()
    run([photos], "--resume")
    assert inferred == []
    assert files_in(tmp_path / "out") == files_in(whole.folder)


# --- files that are not one image of 8 bits ---


def test_the_first_of_several_pages_is_used_and_reported(run, tmp_path, capsys):
    folder = tmp_path / "photos"
    frames = [Image.open(save_photo(folder / f"{index}.bmp", seed=index)) for index in range(3)]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    for single in frames[1:]:
        os.remove(single.filename)
    code, record = run([folder], "--no-pictures")
    assert code == 0
    assert {image["file_name"]: image.get("note") for image in record["images"]} == {
        "0.bmp": None,
        "pages.tif": "the first of 3 pages",
    }
    alone, *others = [image["instances"] for image in record["images"]]
    assert len(alone) == 3
    assert others == [alone]
    assert "1 image with several frames or pages: the first is used" in capsys.readouterr().err


def test_all_other_files_are_accounted_for(run, photos, monkeypatch, capsys):
    Image.open(photos / "a" / "x.png").save(photos / "phone.jfif", "JPEG")
    cv2.imwrite(str(photos / "deep.png"), np.full((60, 80, 3), 40000, np.uint16))
    (photos / "film.mp4").write_bytes(b"")
    (photos / "closed").mkdir()
    scandir = os.scandir

    def refuse(folder="."):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    # root may read everything
    monkeypatch.setattr(os, "scandir", refuse)
    code, record = run([photos], "--no-pictures")
    assert code == 1
    assert names(record) == ["a/x.png", "b/deep/y.jpg", "b/x.png", "phone.jfif"]
    skipped = {item["file_name"]: (item["reason"], item["is_failure"]) for item in record["skipped"]}
    assert skipped.keys() == {"closed/", "deep.png", "film.mp4"}
    assert skipped["closed/"] == ("the folder can't be read (Permission denied)", True)
    reason, is_failure = skipped["film.mp4"]
    assert is_failure
    assert "it can't be opened as a video (Invalid data found when processing input)" in reason
    assert "more than 8 bits per channel" in skipped["deep.png"][0]
    error = capsys.readouterr().err
    assert "3 inputs can't be read" in error


def test_files_that_are_no_images_are_no_failure(run, photos):
    (photos / "notes.txt").write_text("")
    code, record = run([photos], "--no-pictures")
    assert code == 0
    assert [item["file_name"] for item in record["skipped"]] == ["notes.txt"]
