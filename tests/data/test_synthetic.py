"""Synthetic people: geometry against values worked out by hand, visibility flags, and the files on disk."""

import contextlib
import io
import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dynpose.config import add_dynpose_config
from dynpose.data import COCO_PERSON, DatasetError, KeypointSchema
from dynpose.data.synthetic import (
    SyntheticPose,
    register_synthetic_pose,
    register_synthetic_pose_from_cfg,
    write_synthetic_pose,
)
from dynpose.data.synthetic.figure import Figure
from dynpose.data.synthetic.looks import Body, Outfit
from dynpose.data.synthetic.painting import PlacedFigure, keypoint_visibility, paint_people, part_map, silhouette
from dynpose.data.synthetic.poses import Arm, Leg, Pose

SMALL = {"image_size": (96, 128)}
ACCENT = (64, 224, 208)
OUTFIT = Outfit(
    skin=(232, 184, 146),
    hair=(58, 40, 32),
    hair_style="short",
    shirt=(198, 58, 52),
    shirt_pattern="plain",
    trim=(232, 228, 218),
    sleeves=1.0,
    bottom=(52, 54, 62),
    bottom_style="trousers",
    shoes=(40, 38, 42),
    accent=ACCENT,
)
# Nothing hides the hands or the face of a person in this pose
OPEN = Pose(left_arm=Arm(0, 45, 0, 0), right_arm=Arm(0, 45, 0, 0), left_leg=Leg(0, 10, 0), right_leg=Leg(0, 10, 0))


def make_figure(pose=OPEN, yaw=0.0, pitch=0.0):
    return Figure(body=Body(), outfit=OUTFIT, pose=pose, yaw=yaw, pitch=pitch)


def place(figure, x=100.0, y=190.0, height=180.0):
    return PlacedFigure(figure, x, y, height)


def flags_of(person, shape=(200, 200), hidden=None):
    hidden = np.zeros(shape, bool) if hidden is None else hidden
    return keypoint_visibility(person, part_map(person, shape), hidden)


def by_name(annotation):
    keypoints = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
    return dict(zip(COCO_PERSON.names, keypoints))


# Geometry


def test_rest_pose_is_one_body_height_and_joints_are_where_the_lengths_say():
    straight = Leg(0, 0, 0)
    keypoints = make_figure(Pose(left_leg=straight, right_leg=straight, left_arm=Arm(0, 90, 0, 0))).keypoints
    body = Body()
    assert keypoints["left_ankle"] == pytest.approx((body.hip, body.ankle), abs=2e-3)
    assert keypoints["left_knee"] - keypoints["left_ankle"] == pytest.approx((0, body.leg))
    assert keypoints["right_hip"] == pytest.approx((-body.hip, body.ankle + 2 * body.leg), abs=2e-3)
    # The left arm is stretched out to the side, so to the right of the image
    reach = keypoints["left_wrist"] - keypoints["left_shoulder"]
    assert reach == pytest.approx((1.92 * body.arm, 0))
    _, bottom, _, top = make_figure(Pose(left_leg=straight, right_leg=straight)).bounds
    assert (bottom, top) == pytest.approx((0, 1), abs=0.02)


def test_limb_towards_the_camera_is_foreshortened():
    pose = Pose(left_arm=Arm(90, 0, 0, 0), right_arm=Arm(60, 0, 0, 0))
    keypoints = make_figure(pose).keypoints
    assert keypoints["left_wrist"] == pytest.approx(keypoints["left_shoulder"])
    down = keypoints["right_shoulder"] - keypoints["right_wrist"]
    assert down == pytest.approx((0, 1.92 * Body().arm * 0.5))


@pytest.mark.parametrize(("yaw", "sign"), [(0, 1), (30, 1), (180, -1), (-150, -1)])
def test_left_is_on_the_right_of_the_image_from_the_front_and_on_its_left_from_behind(yaw, sign):
    keypoints = make_figure(yaw=yaw).keypoints
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert sign * (keypoints[f"left_{joint}"][0] - keypoints[f"right_{joint}"][0]) > 0, joint


@pytest.mark.parametrize(("yaw", "sign"), [(90, 1), (-90, -1)])
def test_profile_faces_the_side_that_it_says(yaw, sign):
    keypoints = make_figure(yaw=yaw).keypoints
    assert sign * (keypoints["nose"][0] - keypoints["left_ear"][0]) > 0.05


@pytest.mark.parametrize(("yaw", "columns"), [(0, np.s_[100:]), (180, np.s_[:100])])
def test_accent_is_worn_on_the_left_only(yaw, columns):
    image = paint_people(np.full((200, 200, 3), 128, np.uint8), [place(make_figure(yaw=yaw))])
    # Turquoise: no other colour of the outfit has so much less red than blue
    marked = image[..., 2].astype(int) - image[..., 0] > 60
    assert marked[:, columns].sum() > 200
    assert marked[:, columns].sum() == marked.sum()


def test_part_map_covers_the_painted_pixels():
    person = place(make_figure())
    painted = (paint_people(np.full((200, 200, 3), 255, np.uint8), [person]) < 250).any(axis=-1)
    mask = silhouette(part_map(person, (200, 200)))
    assert not (mask & ~painted).any()
    # Outside the silhouette there is the contour line, of less than a pixel
    assert not (painted & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)).any()


# Visibility


def test_everything_is_visible_from_the_front():
    assert set(flags_of(place(make_figure())).values()) == {2}


def test_profile_hides_the_far_side():
    ahead = Arm(90, 0, 0, 0)
    flags = flags_of(place(make_figure(Pose(left_arm=ahead, right_arm=ahead), yaw=90)))
    for joint in ("eye", "ear", "shoulder", "hip"):
        assert (flags[f"left_{joint}"], flags[f"right_{joint}"]) == (1, 2), joint
    assert flags["nose"] == 2


def test_back_hides_the_face_but_not_the_shoulders():
    flags = flags_of(place(make_figure(yaw=180)))
    hidden = {name for name, flag in flags.items() if flag == 1}
    assert hidden == {"nose", "left_eye", "right_eye"}


def test_arm_behind_the_trunk_is_hidden_by_the_own_body():
    # Stretched to the front, and seen from behind
    flags = flags_of(place(make_figure(Pose(left_arm=Arm(45, 0, 25, 75)), yaw=180)))
    assert flags["left_wrist"] == 1
    assert flags["right_wrist"] == 2


def test_keypoints_outside_the_image_are_0():
    # The ground is 70 px below the border and the knees are at 180 * 0.275 = 50 px
    person = place(make_figure(), y=270.0)
    flags = flags_of(person)
    assert {name for name, flag in flags.items() if flag == 0} == {
        f"{side}_{joint}" for side in ("left", "right") for joint in ("knee", "ankle")
    }


def test_nearer_person_hides_those_behind():
    far = place(make_figure(), x=100.0)
    near = place(make_figure(Pose()), x=145.0)
    hidden = part_map(near, (200, 200)) > 0
    flags = flags_of(far, hidden=hidden)
    pixels = {name: np.floor(far.to_pixels(point)).astype(int) for name, point in far.figure.keypoints.items()}
    covered = {name for name, (x, y) in pixels.items() if hidden[y - 2 : y + 3, x - 2 : x + 3].all()}
    clear = {name for name, (x, y) in pixels.items() if not hidden[y - 2 : y + 3, x - 2 : x + 3].any()}
    assert {"left_wrist"} <= covered
    assert {"nose", "right_wrist", "right_ankle"} <= clear
    assert {flags[name] for name in covered} == {1}
    assert {flags[name] for name in clear} == {2}


# Images


def test_render_is_deterministic_and_independent_of_other_images():
    generator = SyntheticPose(seed=3, **SMALL)
    generator.render(0)
    image, annotations = generator.render(7)
    again, annotations_again = SyntheticPose(seed=3, **SMALL).render(7)
    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, again)
    assert annotations == annotations_again
    for other in (generator.render(8), generator.render(7, "val"), SyntheticPose(seed=4, **SMALL).render(7)):
        assert (other[0] != image).any()
        assert other[1] != annotations


def test_annotations_are_fair_and_consistent():
    height, width = 128, 160
    generator = SyntheticPose(image_size=(height, width), people=(1, 4), crowding=0.6, truncation=0.5)
    flags = set()
    for index in range(40):
        for annotation in generator.render(index)[1]:
            x, y, w, h = annotation["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + w <= width
            assert y + h <= height
            assert 0 < annotation["area"] <= w * h
            keypoints = np.array(list(by_name(annotation).values()))
            flags |= set(keypoints[:, 2])
            labelled = keypoints[keypoints[:, 2] > 0, :2] + 0.5
            assert annotation["num_keypoints"] == len(labelled)
            assert (keypoints[:, 2] == 2).sum() >= 5
            assert (keypoints[keypoints[:, 2] == 0] == 0).all()
            # A pixel for rounding
            assert (labelled >= (x - 1, y - 1)).all()
            assert (labelled <= (x + w + 1, y + h + 1)).all()
    assert flags == {0, 1, 2}


def test_number_of_people():
    assert SyntheticPose(people=(0, 0), **SMALL).render(0)[1] == []
    generator = SyntheticPose(people=(2, 2), crowding=0, **SMALL)
    counts = [len(generator.render(index)[1]) for index in range(20)]
    assert max(counts) == 2
    assert np.mean(counts) > 1.9


def test_scale_is_the_height_of_a_person():
    generator = SyntheticPose(image_size=(200, 200), people=(1, 1), scale=(0.6, 0.6), truncation=0)
    heights = [generator.render(index)[1][0]["bbox"][3] for index in range(20)]
    # Sitting people are smaller and raised arms larger, but not by more than that
    assert 0.5 * 120 < min(heights) < 1.02 * 120
    assert max(heights) < 1.4 * 120
    assert np.median(heights) == pytest.approx(120, rel=0.08)


def test_crowding_raises_overlap():
    def mean_iou(crowding):
        generator = SyntheticPose(
            image_size=(96, 160), people=(3, 3), crowding=crowding, scale=(0.5, 0.7), truncation=0
        )
        return np.mean([_box_iou(generator.render(index)[1]) for index in range(25)])

    apart, between, crowded = (mean_iou(crowding) for crowding in (0, 0.5, 1))
    assert apart < 0.05
    assert apart < between < crowded
    assert crowded > 0.15


def _box_iou(annotations):
    """Mean IoU of all pairs of boxes."""
    ious = []
    for a, b in itertools.combinations([annotation["bbox"] for annotation in annotations], 2):
        w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        ious.append(inter / (a[2] * a[3] + b[2] * b[3] - inter))
    return np.mean(ious) if ious else 0.0


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"image_size": 256}, "image_size"),
        ({"image_size": (16, 256)}, "image_size"),
        ({"people": (3, 1)}, "people"),
        ({"people": [1, 2, 3]}, "people"),
        ({"crowding": 1.5}, "crowding"),
        ({"scale": (0, 0.9)}, "scale"),
        ({"truncation": -0.1}, "truncation"),
    ],
)
def test_bad_parameters_are_named(params, named):
    with pytest.raises(DatasetError, match=f"{named} is .*, but must be"):
        SyntheticPose(**params)


# Files


@pytest.fixture
def rendered(monkeypatch):
    """The (split, index) of every image that is rendered."""
    calls = []
    render = SyntheticPose.render

    def count(self, index, split="train"):
        calls.append((split, index))
        return render(self, index, split)

    monkeypatch.setattr(SyntheticPose, "render", count)
    return calls


def test_file_is_read_and_evaluated_by_pycocotools(tmp_path):
    json_file, image_root = write_synthetic_pose(tmp_path, "val", 6, SyntheticPose(**SMALL))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(json_file)
        annotations = truth.loadAnns(truth.getAnnIds())
        results = truth.loadRes([{**a, "score": 1.0} for a in annotations])
        evaluation = COCOeval(truth, results, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    category = truth.loadCats(1)[0]
    assert category["keypoints"] == list(COCO_PERSON.names)
    assert KeypointSchema.from_category(category) == COCO_PERSON
    assert len(truth.imgs) == 6
    for image in truth.loadImgs(truth.getImgIds()):
        pixels = cv2.imread(str(Path(image_root) / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def test_images_on_disk_are_the_rendered_ones(tmp_path):
    params = SyntheticPose(**SMALL)
    json_file, image_root = write_synthetic_pose(tmp_path, "train", 3, params)
    data = json.loads(Path(json_file).read_text())
    image, annotations = params.render(2, "train")
    written = cv2.imread(str(Path(image_root) / data["images"][2]["file_name"]))[:, :, ::-1]
    assert np.abs(written.astype(int) - image).mean() < 4
    image_id = data["images"][2]["id"]
    of_image = [a for a in data["annotations"] if a["image_id"] == image_id]
    assert [{k: v for k, v in a.items() if k not in ("id", "image_id")} for a in of_image] == annotations


def test_same_parameters_are_reused_and_others_rewritten(tmp_path, rendered):
    params = SyntheticPose(**SMALL)
    json_file, image_root = write_synthetic_pose(tmp_path, "train", 4, params)
    first = Path(json_file).read_text()
    assert rendered == [("train", index) for index in range(4)]
    rendered.clear()
    write_synthetic_pose(str(tmp_path), "train", 4, SyntheticPose(image_size=list(SMALL["image_size"])))
    assert rendered == []

    write_synthetic_pose(tmp_path, "train", 2, params)
    assert len(rendered) == 2
    assert len(list(Path(image_root).iterdir())) == 2
    shorter = json.loads(Path(json_file).read_text())
    assert shorter["images"] == json.loads(first)["images"][:2]

    write_synthetic_pose(tmp_path, "train", 2, SyntheticPose(seed=1, **SMALL))
    assert len(rendered) == 4
    assert json.loads(Path(json_file).read_text())["annotations"] != shorter["annotations"]


def test_missing_image_is_rewritten(tmp_path, rendered):
    params = SyntheticPose(**SMALL)
    _, image_root = write_synthetic_pose(tmp_path, "train", 3, params)
    victim = next(Path(image_root).iterdir())
    victim.unlink()
    rendered.clear()
    write_synthetic_pose(tmp_path, "train", 3, params)
    assert len(rendered) == 3
    assert victim.exists()


def test_interrupted_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    params = SyntheticPose(**SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(SyntheticPose, "render", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_synthetic_pose(tmp_path, "train", 3, params)
    assert not (tmp_path / "train.json").exists()
    _, image_root = write_synthetic_pose(tmp_path, "train", 3, params)
    assert len(list(Path(image_root).iterdir())) == 3
    assert not list(tmp_path.glob("*.partial"))


def test_other_peoples_files_are_not_replaced(tmp_path):
    mine = tmp_path / "train.json"
    mine.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DatasetError, match=r"train\.json.*is not replaced"):
        write_synthetic_pose(tmp_path, "train", 1, SyntheticPose(**SMALL))
    assert "generator" not in mine.read_text()
    (tmp_path / "val").mkdir()
    with pytest.raises(DatasetError, match="val: the folder exists"):
        write_synthetic_pose(tmp_path, "val", 1, SyntheticPose(**SMALL))
    with pytest.raises(DatasetError, match="split is 'test'"):
        write_synthetic_pose(tmp_path, "test", 1, SyntheticPose(**SMALL))


def test_only_one_of_several_writes(tmp_path, rendered):
    params = SyntheticPose(**SMALL)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(write_synthetic_pose(tmp_path, "train", 5, params)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rendered) == 5
    assert len(results) == 4
    assert len(set(results)) == 1


def start_writing(root, params, event=None, number=1):
    """Write in a forked process, which is killed at the n-th of Python's audit events of a name, if one is given."""
    pid = os.fork()
    if pid:
        return pid
    left = [number]

    def hear(name, arguments):
        if name == event:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)
    try:
        write_synthetic_pose(root, "train", 3, params)
    finally:
        os._exit(0)


def ended_by(pid):
    return -os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """The files of an uninterrupted run."""
    root = tmp_path_factory.mktemp("left_alone")
    write_synthetic_pose(root, "train", 3, SyntheticPose(**SMALL))
    return contents(root)


@pytest.mark.parametrize(
    ("earlier", "event", "number"),
    [
        # the images, and the annotation, get their names
        (False, "os.rename", 1),
        (False, "os.rename", 2),
        (True, "os.rename", 1),
        (True, "os.rename", 2),
        # of what had other parameters, the first image, the last one and the annotation are removed
        (True, "os.remove", 1),
        (True, "os.remove", 3),
        (True, "os.remove", 4),
    ],
)
def test_unfinished_files_of_a_killed_process_are_completed(tmp_path, left_alone, earlier, event, number):
    if earlier:
        assert ended_by(start_writing(tmp_path, SyntheticPose(seed=1, **SMALL))) == 0
    params = SyntheticPose(**SMALL)
    assert ended_by(start_writing(tmp_path, params, event, number)) == signal.SIGKILL
    write_synthetic_pose(tmp_path, "train", 3, params)
    assert contents(tmp_path) == left_alone


def test_a_killed_process_that_had_other_parameters(tmp_path, left_alone):
    pid = start_writing(tmp_path, SyntheticPose(seed=1, **SMALL), "os.rename", 2)
    assert ended_by(pid) == signal.SIGKILL
    names = ["train", "train.json.lock", "train.json.partial", "train.json.users"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    write_synthetic_pose(tmp_path, "train", 3, SyntheticPose(**SMALL))
    assert contents(tmp_path) == left_alone


def test_images_are_not_rendered_again_for_the_name_of_the_annotation(tmp_path, rendered):
    params = SyntheticPose(**SMALL)
    assert ended_by(start_writing(tmp_path, params, "os.rename", 2)) == signal.SIGKILL
    write_synthetic_pose(tmp_path, "train", 3, params)
    assert rendered == []


def test_images_in_use_by_another_process_are_not_replaced(tmp_path):
    write_synthetic_pose(tmp_path, "train", 3, SyntheticPose(seed=1, **SMALL))
    written = contents(tmp_path)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(DatasetError):
            write_synthetic_pose(tmp_path, "train", 3, SyntheticPose(**SMALL))
        try:
            write_synthetic_pose(tmp_path, "train", 2, SyntheticPose(seed=1, **SMALL))
        except DatasetError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        message = file.read()
    assert ended_by(pid) == 0
    assert "train.json: another process uses these images, which were written with other parameters" in message
    assert "wait until it ends, or set DATASETS.SYNTHETIC.ROOT to another folder" in message
    assert contents(tmp_path) == written
    # this process may replace images that only it uses
    write_synthetic_pose(tmp_path, "train", 2, SyntheticPose(seed=1, **SMALL))
    assert contents(tmp_path) != written


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"file: the folder cannot be created.*; set DATASETS\.SYNTHETIC\.ROOT"):
        write_synthetic_pose(tmp_path / "file", "train", 1, SyntheticPose(**SMALL))


def test_processes_wait_for_each_other(tmp_path, left_alone):
    params = SyntheticPose(**SMALL)
    pids = [start_writing(tmp_path, params) for _ in range(3)]
    assert [ended_by(pid) for pid in pids] == [0, 0, 0]
    assert contents(tmp_path) == left_alone


# Registration


def test_registering_writes_at_first_use(tmp_path, catalogs, rendered):
    register_synthetic_pose(tmp_path / "people", num_train=3, num_val=2, **SMALL)
    metadata = MetadataCatalog.get("synthetic_pose_val")
    assert KeypointSchema.from_metadata(metadata) == COCO_PERSON
    assert metadata.thing_classes == ["person"]
    assert not (tmp_path / "people").exists()

    dicts = DatasetCatalog.get("synthetic_pose_val")
    assert rendered == [("val", 0), ("val", 1)]
    assert len(dicts) == 2
    assert Path(metadata.json_file).exists()
    # COCO's pixel indices have become continuous pixels
    raw = json.loads(Path(metadata.json_file).read_text())["annotations"][0]["keypoints"]
    labelled = [i for i in range(0, len(raw), 3) if raw[i + 2]]
    loaded = dicts[0]["annotations"][0]["keypoints"]
    assert [loaded[i] for i in labelled] == pytest.approx([raw[i] + 0.5 for i in labelled])
    DatasetCatalog.get("synthetic_pose_val")
    assert len(rendered) == 2


def test_registering_again_replaces_only_its_own(tmp_path, catalogs):
    register_synthetic_pose(tmp_path / "a", num_train=2, num_val=1, **SMALL)
    DatasetCatalog.get("synthetic_pose_val")
    register_synthetic_pose(tmp_path / "a", num_train=2, num_val=1, **SMALL)
    assert MetadataCatalog.get("synthetic_pose_val").json_file == str(tmp_path / "a" / "val.json")
    register_synthetic_pose(tmp_path / "b", num_train=2, num_val=3, **SMALL)
    assert len(DatasetCatalog.get("synthetic_pose_val")) == 3
    assert MetadataCatalog.get("synthetic_pose_val").json_file == str(tmp_path / "b" / "val.json")

    DatasetCatalog.remove("synthetic_pose_train")
    DatasetCatalog.register("synthetic_pose_train", list)
    with pytest.raises(DatasetError, match="already registered"):
        register_synthetic_pose(tmp_path / "c", num_train=2, num_val=1)


def test_registering_from_cfg(tmp_path, catalogs):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.DATASETS.SYNTHETIC.NUM_TRAIN = 2
    cfg.DATASETS.SYNTHETIC.IMAGE_SIZE = [64, 96]
    cfg.DATASETS.SYNTHETIC.SEED = 5
    register_synthetic_pose_from_cfg(cfg)
    dicts = DatasetCatalog.get("synthetic_pose_train")
    assert [(d["height"], d["width"]) for d in dicts] == [(64, 96)] * 2
    info = json.loads((tmp_path / "synthetic" / "train.json").read_text())["info"]
    expected = {"seed": 5, "image_size": [64, 96], "people": [1, 3], "crowding": 0.3, "scale": [0.4, 0.9]}
    assert {key: info["parameters"][key] for key in expected} == expected
