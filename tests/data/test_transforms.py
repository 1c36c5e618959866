import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from dynpose.config import add_dynpose_config
from dynpose.data import AffineResize, RandomAffine, RandomCropKeepingPeople, build_pose_augmentation

HEIGHT, WIDTH = 60, 100
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def crops_of(boxes, *, crop_size=(0.4, 0.4), num_draws=400, augmentation=RandomCropKeepingPeople):
    crop = augmentation("relative_range", crop_size)
    boxes = None if boxes is None else np.asarray(boxes, np.float32).reshape(-1, 4)
    np.random.seed(0)
    return [crop(T.AugInput(IMAGE, boxes=boxes)) for _ in range(num_draws)]


def contains(crop, x, y):
    return crop.x0 <= x <= crop.x0 + crop.w and crop.y0 <= y <= crop.y0 + crop.h


@pytest.mark.parametrize(
    ("box", "center"),
    [
        ((80, 40, 100, 60), (90, 50)),
        ((0, 0, 4, 4), (2, 2)),
        ((48.3, 20.1, 50.5, 30.4), (49.4, 25.25)),
        # the centre of the part that is in the image
        ((-30, -30, 10, 10), (5, 5)),
        ((90, 50, 300, 300), (95, 55)),
        ((0, 0, 100, 60), (50, 30)),
    ],
)
def test_crop_contains_the_person(box, center):
    crops = crops_of([box])
    assert all(contains(crop, *center) for crop in crops)
    for crop in crops:
        assert 0.4 * WIDTH - 1 <= crop.w <= WIDTH
        assert 0.4 * HEIGHT - 1 <= crop.h <= HEIGHT
        assert 0 <= crop.x0 <= WIDTH - crop.w
        assert 0 <= crop.y0 <= HEIGHT - crop.h


def test_plain_crop_loses_the_person():
    """What the class is for: the test above is none if this holds."""
    crops = crops_of([(80, 40, 100, 60)], augmentation=T.RandomCrop)
    assert not all(contains(crop, 90, 50) for crop in crops)


def test_every_person_gets_a_turn_and_every_place():
    boxes = [(0, 0, 10, 10), (90, 50, 100, 60)]
    crops = crops_of(boxes, num_draws=400)
    first = sum(contains(crop, 5, 5) and not contains(crop, 95, 55) for crop in crops)
    second = sum(contains(crop, 95, 55) and not contains(crop, 5, 5) for crop in crops)
    assert abs(first - second) < 80  # 4 standard deviations of 400 fair draws
    assert min(first, second) > 100
    # (50, 30) can be anywhere in a crop of 0.4: the first and the last place that contain it are both drawn
    starts = {crop.x0 for crop in crops_of([(45, 25, 55, 35)], crop_size=(0.4, 0.4)) if crop.w <= 45}
    assert min(starts) < 15
    assert max(starts) > 45


@pytest.mark.parametrize("boxes", [None, [], [(-20, -20, -5, -5), (10, 10, 10, 30)]])
def test_without_people_it_is_the_plain_crop(boxes):
    plain = crops_of(boxes, augmentation=T.RandomCrop, num_draws=20)
    crops = crops_of(boxes, num_draws=20)
    assert [(c.x0, c.y0, c.w, c.h) for c in crops] == [(c.x0, c.y0, c.w, c.h) for c in plain]


def make_cfg():
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (30, 60)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = [0.4, 0.4]
    return cfg


def test_augmentation_of_a_config():
    crop, resize, flip = build_pose_augmentation(make_cfg(), is_train=True)
    assert isinstance(crop, RandomCropKeepingPeople)
    assert isinstance(resize, T.ResizeShortestEdge)
    assert resize.short_edge_length == (30, 60)
    assert isinstance(flip, T.RandomFlip)
    assert flip.horizontal


def test_augmentation_for_inference_is_the_resize():
    (resize,) = build_pose_augmentation(make_cfg(), is_train=False)
    assert resize.short_edge_length == (800, 800)
    assert resize.max_size == 1333


def test_switched_off():
    cfg = make_cfg()
    cfg.INPUT.CROP.ENABLED = False
    cfg.INPUT.RANDOM_FLIP = "none"
    (resize,) = build_pose_augmentation(cfg, is_train=True)
    assert isinstance(resize, T.ResizeShortestEdge)


def test_affine_warp_takes_the_place_of_crop_and_resize():
    cfg = make_cfg()
    cfg.INPUT.AFFINE.ENABLED = True
    affine, flip = build_pose_augmentation(cfg, is_train=True)
    assert isinstance(affine, RandomAffine)
    assert (affine.size, affine.rotation, affine.translation) == ((512, 512), 30.0, 40.0)  # CID section 4.2
    assert (affine.scale, affine.scale_type) == ([0.75, 1.5], "short")
    assert isinstance(flip, T.RandomFlip)
    (resize,) = build_pose_augmentation(cfg, is_train=False)
    assert isinstance(resize, T.ResizeShortestEdge)

    cfg.merge_from_list(
        ["INPUT.AFFINE.SIZE", "[320]", "INPUT.AFFINE.ROTATION", 10.0, "INPUT.AFFINE.SCALE_TYPE", "long"]
    )
    cfg.merge_from_list(["INPUT.AFFINE.SCALE", "(1.0, 2.0)", "INPUT.AFFINE.TRANSLATION", 0.0])
    affine, _ = build_pose_augmentation(cfg, is_train=True)
    assert (affine.size, affine.rotation, affine.translation) == ((320, 320), 10.0, 0.0)
    assert (list(affine.scale), affine.scale_type) == ([1.0, 2.0], "long")


def test_affine_resize():
    cfg = make_cfg()
    cfg.INPUT.AFFINE_RESIZE_TEST = True
    (resize,) = build_pose_augmentation(cfg, is_train=False)
    assert isinstance(resize, AffineResize)
    assert (resize.size, resize.multiple, resize.max_size) == (800, 64, 1333)
    assert len(build_pose_augmentation(cfg, is_train=True)) == 3
    # Test-time augmentation asks for the original images so
    cfg.INPUT.MIN_SIZE_TEST = 0
    aug_input = T.AugInput(IMAGE)
    T.AugmentationList(build_pose_augmentation(cfg, is_train=False))(aug_input)
    assert aug_input.image is IMAGE


def test_vertical_flip_is_refused():
    cfg = make_cfg()
    cfg.INPUT.RANDOM_FLIP = "vertical"
    with pytest.raises(ValueError, match="set it to 'horizontal'"):
        build_pose_augmentation(cfg, is_train=True)
