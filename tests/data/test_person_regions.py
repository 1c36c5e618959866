"""Regions around people: by hand, in both routes, with everything in them where it belongs."""

import re

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from small_models import SCHEMA

from dynpose.config import ConfigError, add_dynpose_config
from dynpose.data import (
    COCO_PERSON,
    CROWDPOSE_PERSON,
    HalfBody,
    PersonCrop,
    PersonRegion,
    PoseAugInput,
    PoseDatasetMapper,
    build_pose_augmentation,
    known_schema,
    schema_to_cfg,
)
from dynpose.data.person_regions import upper_body

IMAGE = np.zeros((400, 600, 3), np.uint8)
# the first two keypoints of SCHEMA are the upper half here
POINTS = np.array([[[210, 100, 2], [250, 140, 2], [230, 240, 1], [270, 300, 2]]], float)
BOX = np.array([[200.0, 90, 280, 310]])


def draws(region, number=60, keypoints=POINTS, boxes=BOX):
    np.random.seed(0)
    return [region.draw(IMAGE, boxes, keypoints) for _ in range(number)]


def test_half_bodies_by_hand():
    half_body = HalfBody((0, 1), probability=1.0, upper_probability=0.5, min_keypoints=2, margin=2.0)
    found = {tuple(region) for region in draws(PersonRegion(half_body=half_body))}
    # upper: 40 x 40 around (230, 120), twice as large; lower: 40 x 60 around (250, 270)
    assert found == {(190.0, 80.0, 270.0, 160.0), (210.0, 210.0, 290.0, 330.0)}


def test_both_halves_need_their_keypoints():
    few = POINTS.copy()
    few[0, 3, 2] = 0
    half_body = HalfBody((0, 1), probability=1.0, min_keypoints=2)
    assert draws(PersonRegion(half_body=half_body), keypoints=few) == [None] * 60
    # the box takes its place
    region = PersonRegion(probability=1.0, scale=(1, 1), shift=0.0, half_body=half_body)
    assert {tuple(drawn) for drawn in draws(region, keypoints=few)} == {(185.0, 90.0, 295.0, 310.0)}


def test_jitter_is_in_its_range():
    regions = np.array(draws(PersonRegion(probability=1.0, scale=(1.0, 2.0), shift=0.1), number=300))
    sides = regions[:, 2:] - regions[:, :2]
    centers = (regions[:, 2:] + regions[:, :2]) / 2
    # a box of 80 x 220 is extended to 110 x 220
    assert np.allclose(sides[:, 0] * 2, sides[:, 1])
    assert 220 <= sides[:, 1].min() < 225
    assert 435 < sides[:, 1].max() <= 440
    offsets = (centers - [240, 200]) / [80, 220]
    assert 0.095 < np.abs(offsets).max() <= 0.1
    assert np.abs(offsets.mean(axis=0)).max() < 0.02


def test_shares_and_small_people():
    region = PersonRegion(probability=0.25)
    drawn = draws(region, number=400, boxes=np.array([[100.0, 100, 104, 110]]))
    assert 65 <= sum(one is not None for one in drawn) <= 135
    assert min((one[2:] - one[:2]).min() for one in drawn if one is not None) == pytest.approx(64)
    assert draws(PersonRegion(probability=1.0), boxes=np.zeros((0, 4))) == [None] * 60
    assert draws(PersonRegion(probability=1.0), boxes=np.array([[-50.0, 0, 0.5, 9]])) == [None] * 60


def test_a_crop_stays_inside_the_image():
    crop = PersonCrop(PersonRegion(probability=1.0, scale=(1, 3), shift=0.5))
    np.random.seed(0)
    for box in ([0.0, 0, 90, 90], [500.0, 300, 600, 400], [-40.0, -40, 1.5, 1.5]) * 20:
        transform = crop.get_transform(IMAGE, np.array([box]), POINTS)
        if isinstance(transform, T.CropTransform):
            assert transform.x0 >= 0 <= transform.y0
            assert transform.w >= 1 <= transform.h
            assert transform.apply_image(IMAGE).shape[:2] == (transform.h, transform.w)


def test_keypoints_follow_earlier_transforms():
    aug_input = PoseAugInput(IMAGE, boxes=BOX.copy(), keypoints=POINTS)
    aug_input.transform(T.HFlipTransform(600))
    assert aug_input.keypoints[0, 0].tolist() == [390, 100, 2]
    assert POINTS[0, 0].tolist() == [210, 100, 2]


def config(*opts, schema=SCHEMA):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    schema_to_cfg(cfg, schema)
    cfg.merge_from_list([*("INPUT.MIN_SIZE_TRAIN", (128,)), *("INPUT.AFFINE.SIZE", [128, 128]), *opts])
    return cfg


JITTER = ("INPUT.BOX_JITTER.PROBABILITY", 1.0, "INPUT.BOX_JITTER.SCALE", [1.2, 1.2], "INPUT.BOX_JITTER.SHIFT", 0.0)
HALF = (
    *("INPUT.HALF_BODY.PROBABILITY", 1.0, "INPUT.HALF_BODY.UPPER", ["head", "left_hand", "right_hand"]),
    *("INPUT.HALF_BODY.MIN_KEYPOINTS", 1, "INPUT.HALF_BODY.UPPER_PROBABILITY", 1.0),
)


def person(x, y, category=0):
    """An upright person of 40 x 100 pixels; the keypoints' pixels are white in the image of ``scene``."""
    points = [(x, y - 40, 2), (x + 15, y, 2), (x - 15, y, 2), (x, y + 45, 2)]
    return {
        "bbox": [x - 20, y - 50, 40, 100],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "keypoints": [number for point in points for number in point],
        "iscrowd": 0,
        "area": 4000.0,
    }


@pytest.fixture
def scene(tmp_path):
    """Two people; a disk of 5 pixels at each keypoint."""
    people = [person(150, 150), person(450, 220)]
    image = np.zeros((400, 600, 3), np.uint8)
    v, u = np.mgrid[:400, :600] + 0.5
    for one in people:
        for x, y, _ in np.reshape(one["keypoints"], (-1, 3)):
            image[(u - x) ** 2 + (v - y) ** 2 < 25] = 255
    Image.fromarray(image).save(tmp_path / "scene.png")
    crowd = {**person(450, 220), "iscrowd": 1, "segmentation": [[430, 170, 470, 170, 470, 270, 430, 270]]}
    return {"file_name": str(tmp_path / "scene.png"), "annotations": [*people, crowd]}


@pytest.mark.parametrize("affine", [False, True], ids=["shortest edge", "affine"])
@pytest.mark.parametrize("kind", [JITTER, HALF], ids=["box jitter", "half body"])
def test_everything_stays_together(scene, kind, affine):
    """In either route, keypoints lie on their disks and the mask of a crowd on its person, and people are larger."""
    cfg = config(*kind, "INPUT.AFFINE.ENABLED", affine, "INPUT.IGNORE_MASKS", True, "INPUT.RANDOM_FLIP", "horizontal")
    mapper = PoseDatasetMapper(cfg, is_train=True)
    shown = set()
    for seed in range(8):
        np.random.seed(seed)
        mapped = mapper(scene)
        instances, image = mapped["instances"], mapped["image"][0].numpy()
        assert len(instances) >= 1
        for keypoints, box in zip(instances.gt_keypoints.tensor, instances.gt_boxes.tensor):
            labelled = keypoints[keypoints[:, 2] > 0].numpy()
            assert (image[labelled[:, 1].astype(int), labelled[:, 0].astype(int)] > 200).all()
            # a crop clips boxes
            assert ((labelled[:, :2] >= box[:2].numpy() - 1e-3) & (labelled[:, :2] <= box[2:].numpy() + 1e-3)).all()
            if mapped["ignore_mask"].any():
                on_crowd = mapped["ignore_mask"][labelled[:, 1].astype(int), labelled[:, 0].astype(int)]
                shown.add(bool(on_crowd.all()))
        # 100 pixels in an image of 400 would be 32 in one of 128
        assert instances.gt_areas.max() > 4000 * (1.5 * 128 / 400) ** 2
        if kind is HALF:
            labelled = instances.gt_keypoints.tensor[:, :, 2] > 0
            assert labelled[:, 1:3].any()
    assert True in shown  # the second person was drawn, too


def test_the_affine_warp_shows_the_whole_region(scene):
    cfg = config(*JITTER, "INPUT.AFFINE.ENABLED", True, "INPUT.AFFINE.ROTATION", 0.0, "INPUT.RANDOM_FLIP", "none")
    np.random.seed(0)
    instances = PoseDatasetMapper(cfg, is_train=True)(scene)["instances"]
    # 100 pixels of a person in a region of 120 on 128 pixels, centred
    height = 100 * 128 / 120
    box = instances.gt_boxes.tensor[0].tolist()
    assert box[1::2] == pytest.approx([64 - height / 2, 64 + height / 2], abs=1e-3)


def test_off_by_default_and_reproducible(scene):
    names = [type(augmentation).__name__ for augmentation in build_pose_augmentation(config(), True)]
    assert names == ["ResizeShortestEdge", "RandomFlip"]
    on = [f"INPUT.{name}.PROBABILITY" for name in ("COLOR", "BLUR", "NOISE", "JPEG", "BOX_JITTER", "HALF_BODY")]
    cfg = config(*[word for key in on for word in (key, 0.8)], *HALF[2:])
    mapper = PoseDatasetMapper(cfg, is_train=True)

    def mapped(seed):
        np.random.seed(seed)
        return mapper(scene)["image"].numpy()

    assert np.array_equal(mapped(1), mapped(1))
    assert not np.array_equal(mapped(1), mapped(2))
    assert len(build_pose_augmentation(cfg, True)) == 7
    assert len(build_pose_augmentation(cfg, False)) == 1


def test_upper_halves_of_published_schemas():
    # MMPose's upper_body_ids
    assert upper_body(COCO_PERSON) == tuple(range(11))
    names = [CROWDPOSE_PERSON.names[index] for index in upper_body(CROWDPOSE_PERSON)]
    assert sorted(names) == sorted(
        ["head", "neck", *(f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist"))]
    )
    whole_body = known_schema("coco_wholebody")
    lower = sorted(set(range(133)) - set(upper_body(whole_body)))
    assert lower == [*range(11, 23)]  # hips, knees, ankles and feet


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("INPUT.BOX_JITTER.PROBABILITY", 1.5), "INPUT.BOX_JITTER.PROBABILITY must be from 0 to 1"),
        ((*JITTER, "INPUT.BOX_JITTER.SCALE", [2.0, 1.0]), "INPUT.BOX_JITTER.SCALE: scale: expected a range"),
        ((*JITTER, "INPUT.BOX_JITTER.SHIFT", -0.1), "INPUT.BOX_JITTER.SHIFT must be at least 0"),
        (("INPUT.HALF_BODY.PROBABILITY", 0.5), "INPUT.HALF_BODY.UPPER: the keypoints head, .* have no shoulders"),
        ((*HALF, "INPUT.HALF_BODY.UPPER", ["nose"]), "INPUT.HALF_BODY.UPPER: unknown keypoint 'nose'; known are head"),
        ((*HALF, "INPUT.HALF_BODY.UPPER", ["head", "left_hand"]), "'left_hand' and 'right_hand' are a pair"),
        ((*HALF, "INPUT.HALF_BODY.UPPER", list(SCHEMA.names)), "all keypoints are in the upper half"),
        ((*HALF, "INPUT.HALF_BODY.MIN_KEYPOINTS", 0), "INPUT.HALF_BODY.MIN_KEYPOINTS must be at least 1"),
        (("INPUT.COLOR.PROBABILITY", 1.0, "INPUT.COLOR.HUE", 0.7), "INPUT.COLOR.HUE: hue must be from 0 to 0.5"),
        (("INPUT.BLUR.PROBABILITY", -1.0), "INPUT.BLUR.PROBABILITY must be from 0 to 1"),
        (("INPUT.BLUR.PROBABILITY", 1.0, "INPUT.BLUR.SIGMA", [0.0, 1.0]), "INPUT.BLUR.SIGMA: sigma must be"),
        (("INPUT.NOISE.PROBABILITY", 1.0, "INPUT.NOISE.STD", ["a", 1]), "INPUT.NOISE.STD must be at least 0"),
        (("INPUT.JPEG.PROBABILITY", 1.0, "INPUT.JPEG.QUALITY", [50, 101]), "INPUT.JPEG.QUALITY: quality must be two"),
        (("INPUT.JPEG.PROBABILITY", 1.0, "INPUT.FORMAT", "L"), "needs INPUT.FORMAT 'BGR' or 'RGB', got 'L'"),
    ],
)
def test_invalid_keys(opts, message):
    with pytest.raises(ConfigError, match=message):
        build_pose_augmentation(config(*opts), is_train=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probability": 2}, "probability must be from 0 to 1, got 2"),
        ({"probability": float("nan")}, "probability must be from 0 to 1, got nan"),
        ({"scale": (1.0, float("inf"))}, "scale: expected a range of positive factors"),
        ({"scale": (float("nan"), 2.0)}, "scale: expected a range of positive factors"),
        ({"shift": float("nan")}, "shift must be a number of at least 0, got nan"),
        ({"shift": float("inf")}, "shift must be a number of at least 0, got inf"),
    ],
)
def test_values_that_no_region_can_be_drawn_from(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PersonRegion(**values)
