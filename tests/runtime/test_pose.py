"""Prediction with an exported file, against detectron2's post-processing and numbers by hand."""

import json
import pickle

import cv2
import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from exported_files import CLASSES, METADATA, SCORES, expected_inputs, write_exported, write_openvino
from PIL import Image

from dynpose.checkpoint import CheckpointError
from dynpose.data import DatasetError
from dynpose.modeling.cid.cid import to_result_size
from dynpose.modeling.unchecked_boxes import UncheckedBoxes
from dynpose.runtime import People, Pose
from dynpose.runtime.people import shifted, to_original_size
from dynpose.tracking import PoseTracker
from dynpose.video import VideoWriter


def instances(pixels, size, boxes=Boxes):
    """The network's people as detectron2's Instances, in pixels of the input."""
    found, keypoints = expected_inputs(pixels, size)
    return Instances(
        pixels.shape[1:],
        pred_boxes=boxes(torch.from_numpy(found)),
        scores=torch.from_numpy(SCORES[:3]),
        pred_classes=torch.from_numpy(CLASSES[:3]),
        pred_keypoints=torch.from_numpy(keypoints),
    )


def assert_equals(people, expected, atol=1e-4):
    assert people.image_size == expected.image_size
    np.testing.assert_allclose(people.pred_boxes, expected.pred_boxes.tensor, atol=atol)
    np.testing.assert_allclose(people.pred_keypoints, expected.pred_keypoints, atol=atol)
    assert people.scores.tolist() == expected.scores.tolist()
    assert people.pred_classes.tolist() == expected.pred_classes.tolist()
    assert [people.pred_boxes.dtype, people.scores.dtype, people.pred_classes.dtype, people.pred_keypoints.dtype] == [
        *(np.float32, np.float32),
        *(np.int64, np.float32),
    ]


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_agrees_with_detectron2s_post_processing(channels, photo, tmp_path):
    """60 x 80 pixels are resized to 64 x 85, in an input of 64 x 96."""
    pose = Pose(write_exported(tmp_path / "pose.onnx", input={**METADATA["input"], "channels": channels}))
    pixels = np.asarray(Image.fromarray(photo).resize((85, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    pixels = pixels[::-1] if channels == "RGB" else pixels
    people = pose(photo)
    # the person outside the image is dropped
    assert len(people) == 2
    assert_equals(people, detector_postprocess(instances(pixels, (64, 96)), 60, 80))
    # by hand: the second box, from 0.5 and -0.2 to 1.3 and 0.7 of the image
    np.testing.assert_allclose(people.pred_boxes[1], [40, 0, 80, 42], atol=1e-3)


def test_an_affine_resize_is_undone_as_by_the_model(photo, tmp_path):
    rule = {**METADATA["input"], "min_size": 64, "max_size": 256, "rule": {"name": "affine", "multiple": 64}}
    pose = Pose(write_exported(tmp_path / "pose.onnx", input=rule))
    one = pose.prepare(photo)
    assert one["image"].shape == (3, 64, 128)
    found = instances(one["image"], (64, 128), UncheckedBoxes)
    assert_equals(pose(photo), to_result_size(found, one))


def test_results_are_shifted_at_the_scale_of_the_original_image(pose, photo, tmp_path):
    """Models in pixel indices add half a pixel there, whatever the resize; boxes stay within the image."""
    people = Pose(write_exported(tmp_path / "pose.onnx", original_shift=0.5))(photo)
    unshifted = pose(photo)
    np.testing.assert_allclose(people.pred_keypoints[..., :2], unshifted.pred_keypoints[..., :2] + 0.5, atol=1e-5)
    assert (people.pred_keypoints[..., 2] == unshifted.pred_keypoints[..., 2]).all()
    # by hand: the second box, from 0.5 and -0.2 to 1.3 and 0.7 of 60 x 80 pixels, clipped before and after
    np.testing.assert_allclose(people.pred_boxes[1], [40.5, 0.5, 80, 42.5], atol=1e-3)
    assert people.image_size == (60, 80)


def test_a_shift_keeps_boxes_that_are_not_finite():
    boxes = np.array([[1, 2, 3, 4], [np.nan, 2, 9, 4]], dtype=np.float32)
    people = People((5, 5), boxes, np.ones(2, np.float32), np.zeros(2, np.int64), np.zeros((2, 1, 3), np.float32))
    moved = shifted(people, 2.0)
    np.testing.assert_array_equal(moved.pred_boxes, [[3, 4, 5, 5], [np.nan, 4, 11, 6]])
    assert moved.pred_keypoints[0].tolist() == [[2, 2, 0]]
    # the given people are unchanged
    assert people.pred_boxes[0].tolist() == [1, 2, 3, 4]
    assert not people.pred_keypoints.any()


def test_a_file_in_openvino_gives_the_same_people(openvino_file, exported, pose, photo):
    for other in (Pose(openvino_file), Pose(exported, runtime="openvino")):
        assert other.runtime == "openvino"
        assert other.metadata == pose.metadata
        for image in (photo, photo[:33]):
            assert_equals(other(image), _as_instances(pose(image)))


def _as_instances(people):
    return Instances(
        people.image_size,
        pred_boxes=Boxes(torch.from_numpy(people.pred_boxes)),
        scores=torch.from_numpy(people.scores),
        pred_classes=torch.from_numpy(people.pred_classes),
        pred_keypoints=torch.from_numpy(people.pred_keypoints),
    )


def test_the_metadata_are_all_that_is_needed(pose):
    assert pose.schema.names == ("head", "left_hand", "right_hand")
    assert pose.schema.flip_pairs == (("left_hand", "right_hand"),)
    assert pose.schema.skeleton == ((0, 1), (0, 2))
    assert pose.class_names == ("person", "dog")
    assert (pose.metadata.max_people, pose.metadata.precision) == (4, "float32")


def test_a_batch_of_several_sizes_equals_single_images(pose, photo):
    images = [photo, photo[:, :60], photo[:50], np.zeros_like(photo), photo]
    singles = [pose(image) for image in images]
    assert [len(people) for people in singles] == [2, 2, 2, 0, 2]
    assert singles[3].pred_keypoints.shape == (0, 3, 3)
    for results in (pose(images), pose.predict_batch(images), pose.predict_all(iter(images), batch_size=3)):
        for people, single in zip(results, singles, strict=True):
            assert_equals(people, _as_instances(single), atol=1e-6)
    assert pose([]) == []


def test_images_in_any_form(pose, photo, photo_file):
    expected = _as_instances(pose(photo))
    for image in (photo_file, str(photo_file), Image.fromarray(photo[:, :, ::-1])):
        assert_equals(pose(image), expected)


def test_the_score_threshold(exported, photo):
    assert Pose(exported, score_threshold=0.7)(photo).scores.tolist() == [np.float32(0.9)]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_size(batch, photo, tmp_path, pose):
    fixed = Pose(write_exported(tmp_path / "pose.onnx", batch=batch))
    assert fixed.max_batch_size == batch
    for people in (*fixed.predict_batch([photo] * 3), *fixed.predict_all([photo] * 3)):
        assert_equals(people, _as_instances(pose(photo)))


def test_a_fixed_input_size(photo, tmp_path, pose):
    fixed = Pose(write_exported(tmp_path / "pose.onnx", height=96, width=128))
    # coordinates do not depend on the padding; this network's confidence does
    np.testing.assert_allclose(fixed(photo).pred_boxes, pose(photo).pred_boxes, atol=1e-4)
    narrow = Pose(write_exported(tmp_path / "narrow.onnx", height=64, width=64))
    with pytest.raises(ValueError, match=r"fixed to 64 x 64 pixels .*, and the resized image has 64 x 85; export"):
        narrow(photo)


def test_the_device_in_capitals(exported, openvino_file):
    assert Pose(exported, device="CPU")._session.device == "CPUExecutionProvider"
    assert Pose(openvino_file, device="CPU")._session.device == "CPU"


def test_a_copy_loads_the_file_again(exported, photo, tmp_path, monkeypatch):
    """Sessions can't be copied, and multiprocessing copies what it sends to another process."""
    monkeypatch.chdir(exported.parent)
    pose = Pose(exported.name, threads=1, runtime="openvino", score_threshold=0.7)
    monkeypatch.chdir(tmp_path)
    copied = pickle.loads(pickle.dumps(pose))
    assert (copied.runtime, copied.score_threshold) == ("openvino", 0.7)
    assert_equals(copied(photo), _as_instances(pose(photo)))


def test_people_are_selected_like_instances(pose, photo):
    people = pose(photo)
    people.track_ids = np.array([7, 8])
    assert [person.track_ids.tolist() for person in people] == [[7], [8]]
    assert people[people.scores < 0.7].track_ids.tolist() == [8]
    assert people[-1].pred_keypoints.shape == (1, 3, 3)
    with pytest.raises(IndexError, match="person 2 of 2"):
        people[2]


def test_boxes_that_are_not_finite_are_kept():
    nan = float("nan")
    boxes = np.array([[nan, 0, 5, 5], [-5, -5, 30, 30], [0, 0, 0, 5]], dtype=np.float32)
    people = People((10, 20), boxes, np.ones(3, np.float32), np.zeros(3, np.int64), np.zeros((3, 1, 3), np.float32))
    kept = to_original_size(people, 20, 20)
    np.testing.assert_array_equal(kept.pred_boxes, [[nan, 0, 5, 10], [0, 0, 20, 20]])


def test_a_video_with_tracking(pose, tmp_path):
    scene = np.random.default_rng(1).integers(1, 256, (96, 128, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "walk.mp4", 10.0) as writer:
        for index in range(4):
            writer.write(np.roll(scene, index, axis=1), index / 10, 1 / 10)
    tracker = PoseTracker(pose.schema.sigmas)
    results = list(pose.predict_video(tmp_path / "walk.mp4", batch_size=2, tracker=tracker))
    assert [frame.index for frame, _ in results] == [0, 1, 2, 3]
    for frame, people in results:
        assert people.track_ids.tolist() == [1, 2]
        assert_equals(people, _as_instances(pose(frame.image)))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), ValueError, r"8 bits per channel \(uint8\), got \(8, 8, 3\) float32"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, "transpose an image whose channels come first"),
        (torch.zeros(8, 8, 3), TypeError, "got Tensor; give tensor"),
        (7, TypeError, "a file name or a URL, got int"),
        ("missing.jpg", DatasetError, "missing.jpg: the image does not exist"),
    ],
)
def test_images_of_another_type(pose, image, error, message):
    with pytest.raises(error, match=message):
        pose(image)


def test_grey_images_are_read_as_colour(pose, photo):
    grey = photo[:, :, 0]
    assert_equals(pose(grey), _as_instances(pose(np.dstack([grey] * 3))))


def test_a_file_that_is_missing_or_of_another_kind(tmp_path):
    for name, message in [
        ("pose.onnx", r"pose\.onnx: there is no such file; write one with dynpose export"),
        ("model.pth", r"model\.pth: exported files for this runtime end with \.onnx or \.xml; this is a checkpoint"),
        ("pose.pt2", r"pose\.pt2: .*write one with dynpose export --format onnx or openvino"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            Pose(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": None}, r"pose\.onnx: it is not a dynpose export .*; write one with dynpose export"),
        ({"format": 2, "dynpose": "9.1"}, r"pose\.onnx: dynpose 9\.1 wrote its metadata, of format 2; .*--upgrade"),
        ({"sigmas": None}, r"pose\.onnx: its metadata property 'dynpose' is damaged \('sigmas' is missing\); export"),
        ({"sigmas": [1.0]}, r"pose\.onnx: .*1 OKS sigmas for 3 keypoints"),
        ({"input": {**METADATA["input"], "rule": "squash"}}, r"its resize 'squash' is none of shortest_edge, affine"),
        ({"outputs": ["boxes", "scores", "labels", "keypoints", "counts"]}, r"it lacks .* labels that its metadata"),
    ],
)
def test_files_with_other_metadata(changes, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        Pose(write_exported(tmp_path / "pose.onnx", **changes))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_damaged_files(runtime, exported, tmp_path):
    pytest.importorskip(runtime)
    for name, content in [("half", exported.read_bytes()[:1500]), ("empty", b""), ("text", b"<html>Log in</html>")]:
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.onnx: it is (damaged|not a dynpose export)"):
            Pose(tmp_path / f"{name}.onnx", runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_missing_external_data(runtime, exported, tmp_path):
    pytest.importorskip(runtime)
    model = onnx.load(exported)
    # the tables of people, but not the few numbers that shapes are computed from
    options = {"save_as_external_data": True, "location": "pose.onnx.data", "size_threshold": 90}
    onnx.save(model, tmp_path / "pose.onnx", **options)
    assert Pose(tmp_path / "pose.onnx", runtime=runtime).runtime == runtime
    (tmp_path / "pose.onnx.data").unlink()
    with pytest.raises(CheckpointError, match=r"pose\.onnx: its weights are in a second file that is missing"):
        Pose(tmp_path / "pose.onnx", runtime=runtime)


def test_an_openvino_file_without_its_weights(openvino_file, tmp_path):
    (tmp_path / "pose.xml").write_bytes(openvino_file.read_bytes())
    with pytest.raises(CheckpointError, match=r"pose\.xml: its weights pose\.bin are missing; copy both files"):
        Pose(tmp_path / "pose.xml")
    (tmp_path / "pose.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pose\.xml: it is damaged"):
        Pose(tmp_path / "pose.xml")


def test_a_missing_runtime(exported, openvino_file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert Pose(exported).runtime == "openvino"
    with pytest.raises(CheckpointError, match=r"onnxruntime is not installed, which runs it; pip install onnxruntime$"):
        Pose(exported, runtime="onnxruntime")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    message = r"pose\.onnx: onnxruntime is not installed.*; pip install onnxruntime or pip install openvino$"
    with pytest.raises(CheckpointError, match=message):
        Pose(exported)
    with pytest.raises(CheckpointError, match=r"pose\.xml: openvino is not installed.*; pip install openvino$"):
        Pose(openvino_file)


def test_an_affine_resize_without_opencv(tmp_path, monkeypatch):
    rule = {**METADATA["input"], "min_size": 64, "max_size": 256, "rule": {"name": "affine", "multiple": 64}}
    file = write_exported(tmp_path / "pose.onnx", input=rule)
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(CheckpointError, match=r"affine warp, which needs OpenCV; pip install opencv-python-headless$"):
        Pose(file)


@pytest.mark.parametrize(
    "arguments", [{"device": 0}, {"device": None}, {"threads": "2"}, {"threads": 1.5}, {"score_threshold": "0.3"}]
)
def test_arguments_of_another_type(exported, arguments):
    with pytest.raises(TypeError, match=rf"{next(iter(arguments))} must be .*, got"):
        Pose(exported, **arguments)


def test_arguments_out_of_range(exported, openvino_file):
    with pytest.raises(ValueError, match="score_threshold must be a number or None, got nan"):
        Pose(exported, score_threshold=float("nan"))
    with pytest.raises(CheckpointError, match=r"no device 'cuda', only .*CPUExecutionProvider.*pip install onnx"):
        Pose(exported, device="cuda")
    with pytest.raises(CheckpointError, match="OpenVINO has no device 'cuda' here, only CPU"):
        Pose(openvino_file, device="cuda")
    for threads in (0, 10**6):
        with pytest.raises(ValueError, match=f"threads must be from 1 to 1024, got {threads}"):
            Pose(exported, threads=threads)
    with pytest.raises(ValueError, match="runtime must be one of onnxruntime, openvino, got 'tensorrt'"):
        Pose(exported, runtime="tensorrt")
    with pytest.raises(CheckpointError, match=r"onnxruntime does not read \.xml"):
        Pose(openvino_file, runtime="onnxruntime")


def test_openvino_computes_float32_files_in_float32(openvino_file, tmp_path):
    """Its default on a CPU with bfloat16 is bfloat16, which only a file of that precision gets."""
    compiled = Pose(openvino_file)._session._model
    assert compiled.get_property("EXECUTION_MODE_HINT").name == "ACCURACY"
    compiled = Pose(write_openvino(tmp_path, precision="bfloat16"))._session._model
    assert compiled.get_property("EXECUTION_MODE_HINT").name == "PERFORMANCE"


def test_the_metadata_of_both_formats_are_the_same_text(exported):
    (text,) = [entry.value for entry in onnx.load(exported).metadata_props if entry.key == "dynpose"]
    assert json.loads(text) == METADATA


def test_an_image_that_opencv_reads(pose, photo_file):
    assert_equals(pose(cv2.imread(str(photo_file))), _as_instances(pose(photo_file)))
