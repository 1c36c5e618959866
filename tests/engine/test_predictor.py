"""PosePredictor against detectron2's own predictor, and its refusals."""

import math

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.visualizer import Visualizer
from PIL import Image
from small_media import make_animation, make_video
from small_models import SCHEMA, small_config, small_model

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.config import ConfigError
from dynpose.data import COCO_PERSON, DatasetError, PoseDatasetMapper
from dynpose.engine.predictor import PosePredictor, _choose_device
from dynpose.tracking import PoseTracker
from dynpose.utils.finite import finite_instances
from dynpose.video import AnimationReader

BASE = "configs/FCPose/Base-FCPose.yaml"
# an untrained model that finds people everywhere
OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3, "INPUT.MIN_SIZE_TEST", 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    model = small_model(BASE, *OPTS)
    model.head.box_distances.bias.data.fill_(2.0)
    PoseCheckpointer(model, str(folder)).save("model_final")
    return str(folder / "model_final.pth")


@pytest.fixture(scope="module")
def cfg(weights):
    return small_config(BASE, *OPTS, "MODEL.WEIGHTS", weights)


@pytest.fixture(scope="module")
def predictor(cfg):
    return PosePredictor(cfg)


def photo(height=90, width=120, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


# pixels: offsets of untrained networks are of hundreds of them, in float32
ROUNDING = 1e-2


def assert_same(a, b, tolerance=0.0):
    assert a.image_size == b.image_size
    assert len(a) == len(b) == 3
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=tolerance)
    assert a.pred_classes.tolist() == b.pred_classes.tolist()


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_agrees_with_detectron2s_predictor(cfg, image_format):
    cfg = cfg.clone()
    cfg.INPUT.FORMAT = image_format
    image = photo()
    people = PosePredictor(cfg, precision="float32")(image)
    assert people.image_size == (90, 120)
    assert people.pred_keypoints.shape == (3, SCHEMA.num_keypoints, 3)
    # folded batch normalisation rounds differently
    assert_same(people, DefaultPredictor(cfg)(image)["instances"], ROUNDING)


def test_resizes_the_shorter_side(predictor):
    prepared = predictor.prepare(photo(90, 120))
    assert prepared["image"].shape == (3, 64, 85)
    assert (prepared["height"], prepared["width"]) == (90, 120)
    # MAX_SIZE_TEST is 1333
    assert predictor.prepare(photo(10, 400))["image"].shape == (3, 33, 1333)


def test_affine_resize_is_the_mappers(cfg, tmp_path, monkeypatch):
    cfg = cfg.clone()
    cfg.INPUT.AFFINE_RESIZE_TEST = True
    with pytest.raises(ConfigError, match="FCPose does not support the transform back to the original image"):
        PosePredictor(cfg)
    monkeypatch.setattr(META_ARCH_REGISTRY.get("FCPose"), "reads_to_original", True, raising=False)
    image = photo(90, 120)
    Image.fromarray(image[:, :, ::-1]).save(tmp_path / "photo.png")
    prepared = PosePredictor(cfg).prepare(image)
    expected = PoseDatasetMapper(cfg, is_train=False)({"file_name": str(tmp_path / "photo.png")})
    assert prepared["image"].shape == (3, 64, 128)
    assert torch.equal(prepared["image"], expected["image"])
    assert np.array_equal(prepared["to_original"], expected["to_original"])
    cfg.INPUT.AFFINE_RESIZE_TEST = False
    assert "to_original" not in PosePredictor(cfg).prepare(image)


def test_reads_files_and_turns_them_upright(predictor, tmp_path):
    upright = photo(60, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = np.rot90(upright[:, :, ::-1])
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "turned.png", exif=exif)
    assert_same(predictor(tmp_path / "turned.png"), predictor(upright))


def test_images_in_any_form_and_lists_of_them(predictor, tmp_path):
    image = photo(60, 80)
    Image.fromarray(image[:, :, ::-1]).save(tmp_path / "photo.png")
    forms = [image, np.dstack([image, image[:, :, 0]]), Image.fromarray(image[:, :, ::-1]), tmp_path / "photo.png"]
    expected = predictor(image)
    for form, people in zip(forms, predictor(forms), strict=True):
        assert_same(people, expected)
        assert_same(predictor(form), expected)
    grey = image[:, :, 0]
    assert_same(predictor(grey), predictor(np.dstack([grey] * 3)))
    assert_same(next(predictor.predict_all([grey[:, :, None]])), predictor(grey))


def test_a_video_gives_frames_and_tracked_people(predictor, tmp_path):
    path = make_video(tmp_path / "a.mp4", 6)
    tracker = PoseTracker(predictor.schema.sigmas)
    results = list(predictor.predict_video(path, stride=2, batch_size=2, tracker=tracker))
    assert [(frame.index, frame.time) for frame, _ in results] == [(0, 0.0), (2, 0.2), (4, 0.4)]
    for frame, people in results:
        assert people.image_size == (48, 64)
        assert people.track_ids.tolist() == [1, 2, 3]
        alone = predictor(frame.image)
        torch.testing.assert_close(people.pred_keypoints, alone.pred_keypoints, rtol=0, atol=ROUNDING)
    animation = AnimationReader(make_animation(tmp_path / "a.gif", [100, 200]))
    assert [frame.time for frame, _ in predictor.predict_video(animation)] == [0.0, 0.1]


def test_a_batch_of_one_size_is_as_good_as_single_images(predictor):
    images = [photo(seed=1), photo(seed=2)]
    for together, alone in zip(predictor.predict_batch(images), map(predictor, images)):
        assert_same(together, alone, tolerance=ROUNDING)


# resized to a shorter side of 64 pixels, and padded to 64 x 96, 64 x 160, 160 x 64 and 64 x 96
SIZES = [(90, 120), (50, 120), (64, 30), (60, 81)]


def test_a_batch_of_several_sizes_is_as_good_as_single_images(predictor):
    images = [photo(*size) for size in SIZES]
    results = predictor.predict_batch(images)
    assert [people.image_size for people in results] == SIZES
    for together, alone in zip(results, map(predictor, images)):
        assert_same(together, alone, tolerance=ROUNDING)
    assert predictor.predict_batch([]) == []


def test_a_stream_of_several_sizes_is_as_good_as_single_images(predictor, monkeypatch):
    images = [photo(*size, seed) for seed in range(2) for size in SIZES]
    expected = [predictor(image) for image in images]
    batches, infer = [], predictor.infer
    monkeypatch.setattr(predictor, "infer", lambda inputs: batches.append(len(inputs)) or infer(inputs))
    for together, alone in zip(predictor.predict_all(iter(images), batch_size=4), expected, strict=True):
        assert_same(together, alone, tolerance=ROUNDING)
    # four are padded to 64 x 96
    assert batches == [4, 2, 2]


def test_a_stream_gives_the_inputs_back(predictor):
    inputs = [{**predictor.prepare(photo(*size)), "name": str(size)} for size in SIZES]
    given, people = zip(*predictor.infer_all(inputs, batch_size=2, look_ahead=3))
    assert [one["name"] for one in given] == [str(size) for size in SIZES]
    assert [one.image_size for one in people] == SIZES


def test_a_file_that_is_no_image_comes_after_the_people_before_it(predictor, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no image")
    stream = predictor.predict_all([photo(90, 120), photo(50, 120), path, photo()])
    assert [next(stream).image_size for _ in range(2)] == [(90, 120), (50, 120)]
    with pytest.raises(DatasetError, match=r"notes\.png"):
        next(stream)


def test_test_time_augmentation_runs_a_stream_image_by_image(cfg):
    cfg = cfg.clone()
    cfg.TEST.AUG.ENABLED = True
    cfg.TEST.AUG.MIN_SIZES = (64,)
    cfg.TEST.AUG.MAX_SIZE = 1333
    predictor = PosePredictor(cfg)
    images = [photo(*size) for size in SIZES[:2]]
    for together, alone in zip(predictor.predict_all(images), map(predictor, images), strict=True):
        assert torch.equal(together.pred_keypoints, alone.pred_keypoints)
        assert together.image_size == alone.image_size


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"look_ahead": 0}])
def test_refuses_empty_batches(predictor, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        predictor.infer_all([], **arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 2), np.uint8), r"\(5, 5, 2\) uint8"),
        (np.zeros((5, 5, 3), np.float32), "float32"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
    ],
)
def test_refuses_invalid_images(predictor, image, message):
    with pytest.raises(ValueError, match=message):
        predictor(image)


def test_a_strip_keeps_a_pixel_of_its_shorter_side(predictor):
    strip = np.zeros((1, 5000, 3), np.uint8)
    assert predictor.prepare(strip)["image"].shape == (3, 1, 1333)
    assert predictor(strip).image_size == (1, 5000)


def test_metadata_serves_detectron2s_visualizer(predictor):
    image = photo()
    people = predictor(image)
    people.pred_keypoints[..., 2] = 1
    assert predictor.metadata.keypoint_names == SCHEMA.names
    drawn = Visualizer(image[:, :, ::-1], predictor.metadata).draw_instance_predictions(people).get_image()
    assert drawn.shape == image.shape
    assert (drawn != image[:, :, ::-1]).any()


def test_class_names_come_from_a_registered_data_set():
    cfg = small_config(BASE, schema=COCO_PERSON)
    assert not PosePredictor(cfg).metadata.get("thing_classes")
    cfg.DATASETS.TEST = ("keypoints_coco_2017_val",)
    assert PosePredictor(cfg).metadata.thing_classes == ["person"]


def test_class_names_of_the_model_go_first():
    cfg = small_config(BASE, "MODEL.CLASS_NAMES", "['dancer']", schema=COCO_PERSON)
    assert PosePredictor(cfg).metadata.thing_classes == ["dancer"]
    cfg.DATASETS.TEST = ("not_registered", "keypoints_coco_2017_val")
    assert PosePredictor(cfg).metadata.thing_classes == ["dancer"]
    cfg.MODEL.CLASS_NAMES = []
    assert PosePredictor(cfg).metadata.thing_classes == ["person"]


def test_returns_the_predictions_of_a_diverged_model(cfg):
    predictor = PosePredictor(cfg)
    with torch.no_grad():
        predictor.model.head.box_distances.bias.fill_(math.nan)
    people = predictor(photo())
    assert len(people) == 3
    assert people.pred_boxes.tensor.isnan().all()
    assert finite_instances(people).tolist() == [False] * 3


def test_from_files_reads_the_config_of_a_run(cfg, weights, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(cfg.dump())
    opts = ["INPUT.MIN_SIZE_TEST", "32"]
    predictor = PosePredictor.from_files(str(config), tmp_path.joinpath(weights), opts, device="cpu")
    assert predictor.prepare(photo(90, 120))["image"].shape == (3, 32, 43)
    assert predictor.schema == SCHEMA
    assert len(predictor(photo())) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_falls_back_to_the_cpu_unless_a_gpu_is_asked_for(cfg, weights, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(cfg.dump().replace("DEVICE: cpu", "DEVICE: cuda"))
    assert PosePredictor.from_files(str(config), weights).cfg.MODEL.DEVICE == "cpu"
    with pytest.raises(ConfigError, match="'cuda:1': PyTorch finds no GPU"):
        PosePredictor.from_files(str(config), weights, device="cuda:1")
    with pytest.raises(ConfigError, match="'gpu': PyTorch knows no such device"):
        PosePredictor.from_files(str(config), weights, device="gpu")


@pytest.mark.parametrize(
    ("device", "configured", "there", "chosen"),
    [
        (None, "cuda", ("cuda", "mps"), "cuda"),
        (None, "mps", ("mps",), "mps"),
        (None, "cuda", ("mps",), "cpu"),
        (None, "mps", ("cuda",), "cpu"),
        ("cpu", "cuda", ("cuda",), "cpu"),
        (None, "tpu", ("cuda",), r"MODEL.DEVICE 'tpu': PyTorch knows no such device"),
        ("mps", "cuda", ("mps",), "mps"),
        ("mps", "cuda", ("cuda",), r"device 'mps': PyTorch finds no MPS device on this machine; give cpu"),
        ("cuda", "cpu", (), r"device 'cuda': PyTorch finds no GPU on this machine; give cpu"),
        ("cuda:1", "cpu", ("cuda",), r"device 'cuda:1': PyTorch finds 1 on this machine, counted from 0; give cpu"),
        (None, "cuda:1", ("cuda",), r"MODEL.DEVICE 'cuda:1': PyTorch finds 1 on this machine"),
    ],
)
def test_the_device_of_a_machine(monkeypatch, device, configured, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int("cuda" in there))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    if " " in chosen:
        with pytest.raises(ConfigError, match=chosen):
            _choose_device(device, configured)
    else:
        assert _choose_device(device, configured) == chosen


def test_refuses_weights_of_other_keypoints(weights):
    with pytest.raises(CheckpointError, match=r"the checkpoint has 4 keypoints .* the model 17"):
        PosePredictor(small_config(BASE, "MODEL.WEIGHTS", weights, schema=COCO_PERSON))


def test_refuses_weights_of_a_backbone(cfg, tmp_path):
    state = {name: value for name, value in small_model(BASE).state_dict().items() if name.startswith("backbone.")}
    torch.save(state, tmp_path / "backbone.pth")
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = str(tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match=r"backbone.pth: \d+ parameters of the model are not in it"):
        PosePredictor(cfg)


def test_refuses_weights_without_a_note_that_have_another_shape(cfg, tmp_path):
    """A checkpoint that detectron2's own trainer wrote says nothing of its keypoints."""
    torch.save(small_model(BASE, schema=COCO_PERSON).state_dict(), tmp_path / "plain.pth")
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = str(tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match="not in it or of another shape"):
        PosePredictor(cfg)


@pytest.mark.parametrize(("name", "message"), [("nowhere.pth", "nowhere.pth: no such file"), ("", "no weights given")])
def test_refuses_to_predict_without_weights(name, message):
    with pytest.raises(CheckpointError, match=message):
        PosePredictor.from_files(BASE, name)


def test_refuses_an_unknown_channel_order(cfg):
    cfg = cfg.clone()
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT must be"):
        PosePredictor(cfg)
