import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from dynpose.config import ConfigError, add_dynpose_config
from dynpose.data import (
    AffineResize,
    RandomAffine,
    RandomCropKeepingPeople,
    ResizeShortestEdge,
    build_pose_augmentation,
)

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
    with pytest.raises(ConfigError, match="set it to 'horizontal'"):
        build_pose_augmentation(cfg, is_train=True)


@pytest.mark.parametrize("after_resize", [False, True])
@pytest.mark.parametrize(
    ("crop_type", "size", "message"),
    [
        *(
            (
                "relative_range",
                size,
                r"INPUT.CROP.SIZE must be two numbers above 0 and up to 1, of height and width, got",
            )
            for size in (
                [384, 600],
                [0.0, 0.9],
                [0.9, -0.1],
                [0.9, 1.1],
                [float("nan"), 0.5],
                [0.9],
                [0.9, 0.9, 0.9],
                [],
            )
        ),
        ("relative", [384, 600], r"got \[384, 600\]: with INPUT.CROP.TYPE 'relative' they are fractions"),
        ("relative", [1.0, 0.0], "INPUT.CROP.SIZE must be two numbers above 0"),
        *(
            ("absolute", size, "INPUT.CROP.SIZE must be two whole numbers of at least 1, height and width, got")
            for size in ([0.9, 0.9], [0, 300], [300, -1], [300.5, 300], [300])
        ),
        ("absolute_range", [0.4, 0.4], r"the shortest and the longest side, got \[0.4, 0.4\]: .* they are pixels"),
        ("absolute_range", [600, 384], r"must be the shortest and then the longest side of the crop, got \[600, 384\]"),
        ("square", [0.9, 0.9], "INPUT.CROP.TYPE must be one of 'relative', 'relative_range', .*, got 'square'"),
    ],
)
def test_mistakes_of_the_crop(crop_type, size, message, after_resize):
    """They would be errors in a worker, or crops of one pixel."""
    cfg = make_cfg()
    cfg.INPUT.CROP_AFTER_RESIZE = after_resize
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = crop_type, size
    with pytest.raises(ConfigError, match=message):
        build_pose_augmentation(cfg, is_train=True)
    # where there is no crop, its keys do not matter
    assert len(build_pose_augmentation(cfg, is_train=False)) == 1
    cfg.INPUT.CROP.ENABLED = False
    assert len(build_pose_augmentation(cfg, is_train=True)) == 2


@pytest.mark.parametrize(
    ("crop_type", "size", "expected"),
    [
        # of an image of 60 x 100 pixels, by detectron2's description of its RandomCrop
        ("relative", [0.5, 0.4], {(30, 40)}),
        ("relative", [1.0, 1], {(60, 100)}),
        ("relative_range", [1, 1.0], {(60, 100)}),
        ("absolute", [20, 1], {(20, 1)}),
        ("absolute", [400, 70], {(60, 70)}),
        ("absolute_range", [50, 50], {(50, 50)}),
        ("absolute_range", [300, 300], {(60, 100)}),
        ("absolute_range", [1, 2], {(1, 1), (1, 2), (2, 1), (2, 2)}),
    ],
)
def test_sizes_of_crops(crop_type, size, expected):
    cfg = make_cfg()
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = crop_type, size
    crop = build_pose_augmentation(cfg, is_train=True)[0]
    np.random.seed(0)
    crops = [crop(T.AugInput(IMAGE)) for _ in range(60)]
    assert {(one.h, one.w) for one in crops} == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SCALE", [1.5, 0.75], "INPUT.AFFINE.SCALE: scale: expected a range of positive factors"),
        ("SIZE", [0, 512], r"INPUT.AFFINE.SIZE must be at least 1, got \[0, 512\]"),
        ("ROTATION", -1.0, "INPUT.AFFINE.ROTATION must be at least 0, got -1.0"),
        ("SCALE_TYPE", "middle", "INPUT.AFFINE.SCALE_TYPE must be one of 'short', 'long', got 'middle'"),
    ],
)
def test_mistakes_of_the_affine_warp(key, value, message):
    cfg = make_cfg()
    cfg.INPUT.AFFINE.ENABLED = True
    cfg.INPUT.AFFINE[key] = value
    with pytest.raises(ConfigError, match=message):
        build_pose_augmentation(cfg, is_train=True)


def test_mistakes_of_the_affine_resize():
    cfg = make_cfg()
    cfg.INPUT.AFFINE_RESIZE_TEST = True
    cfg.INPUT.MAX_SIZE_TEST = 63
    with pytest.raises(ConfigError, match=r"INPUT.MAX_SIZE_TEST: max_size \(63\) must be at least multiple \(64\)"):
        build_pose_augmentation(cfg, is_train=False)


# --- the crop of DETR, Sparse R-CNN and QueryPose ---


def make_cfg_of_querypose(*opts):
    cfg = make_cfg()
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute_range", [384, 600]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (480, 512, 544), "choice"
    cfg.INPUT.CROP_AFTER_RESIZE = True
    cfg.merge_from_list(list(opts))
    return cfg


def draw(cfg, image, boxes, num_draws, seed=0):
    """Augmented inputs, each with its transforms."""
    augmentation = T.AugmentationList(build_pose_augmentation(cfg, is_train=True))
    np.random.seed(seed)
    drawn = []
    for _ in range(num_draws):
        aug_input = T.AugInput(image, boxes=None if boxes is None else np.array(boxes, np.float32))
        drawn.append((augmentation(aug_input), aug_input))
    return drawn


def flat(transforms):
    """Transforms within lists within lists, in order, without those that do nothing."""
    for transform in transforms.transforms:
        if isinstance(transform, T.TransformList):
            yield from flat(transform)
        elif not isinstance(transform, T.NoOpTransform):
            yield transform


def test_crop_after_resize():
    """By the paper: half of the images cropped, which is then resized as the others are."""
    sizes, crops = set(), []
    image = np.zeros((240, 320, 3), np.uint8)
    for transforms, aug_input in draw(make_cfg_of_querypose("INPUT.RANDOM_FLIP", "none"), image, None, num_draws=100):
        *crop, resize = flat(transforms)
        assert isinstance(resize, T.ResizeTransform)
        height, width = aug_input.image.shape[:2]
        assert min(height, width) in (480, 512, 544)
        assert (height, width) == (resize.new_h, resize.new_w)
        if not crop:
            assert (resize.h, resize.w) == (240, 320)
            continue
        first, crop = crop
        assert first.new_h * 4 == pytest.approx(first.new_w * 3, abs=4)
        sizes.add(first.new_h)
        crops.append(crop)
        assert (resize.h, resize.w) == (crop.h, crop.w)
        assert min(384, first.new_h) <= crop.h <= min(600, first.new_h)
        assert 384 <= crop.w <= 600
    assert sizes == {400, 500, 600}
    assert 30 <= len(crops) <= 70  # four standard deviations of 100 fair draws
    assert len({(crop.x0, crop.y0) for crop in crops}) > len(crops) / 2


def test_crop_after_flip_and_resize_keeps_the_person():
    """A person of ten pixels in the upper left corner: 85 % of the crops that may be anywhere lose it or its mirror."""
    image = np.zeros((300, 900, 3), np.uint8)
    cfg = make_cfg_of_querypose("INPUT.CROP_PROBABILITY", 1.0)
    flips = 0
    for transforms, aug_input in draw(cfg, image, [(0, 0, 10, 10)], num_draws=60):
        flips += any(isinstance(transform, T.HFlipTransform) for transform in flat(transforms))
        height, width = aug_input.image.shape[:2]
        x, y = transforms.apply_coords(np.array([[5.0, 5.0]]))[0]
        # the middle may be on the edge of the crop
        assert -0.01 <= x <= width + 0.01
        assert -0.01 <= y <= height + 0.01
        # the boxes went the same way as the image
        (box,) = aug_input.boxes
        assert (box[0] + box[2]) / 2 == pytest.approx(x, abs=1e-3)
    assert 15 < flips < 45
    # the flip is outermost: detectron2 looks there for it when it exchanges left and right keypoints
    flip, *_ = build_pose_augmentation(cfg, is_train=True)
    assert isinstance(flip, T.RandomFlip)


def test_crop_after_resize_switched_off():
    for opts in (("INPUT.CROP.ENABLED", False), ("INPUT.CROP_PROBABILITY", 0.0)):
        for transforms, _ in draw(make_cfg_of_querypose(*opts), IMAGE, [(0, 0, 10, 10)], num_draws=20):
            assert not any(isinstance(transform, T.CropTransform) for transform in flat(transforms))
    (resize,) = build_pose_augmentation(make_cfg_of_querypose(), is_train=False)
    assert isinstance(resize, T.ResizeShortestEdge)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.CROP_PROBABILITY", 1.5, "INPUT.CROP_PROBABILITY must be from 0 to 1, got 1.5"),
        ("INPUT.CROP_MIN_SIZES", [], "INPUT.CROP_MIN_SIZES must be lengths in pixels"),
        ("INPUT.CROP_MIN_SIZES", [0, 400], "INPUT.CROP_MIN_SIZES must be lengths in pixels"),
    ],
)
def test_mistakes_of_the_crop_after_resize(key, value, message):
    with pytest.raises(ConfigError, match=message):
        build_pose_augmentation(make_cfg_of_querypose(key, value), is_train=True)


@pytest.mark.parametrize("size", [(64, 90), (33, 47), (150, 211), (90, 120)])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_the_quick_resize_is_pillows_within_a_grey_level(size, order):
    image = cv2.GaussianBlur(np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 1)
    image.flags.writeable = False
    image = image[:, :, order]
    exact, quick = (
        ResizeShortestEdge((size[0], size[0]), 1000, exact=exact).get_transform(image).apply_image(image)
        for exact in (True, False)
    )
    assert exact.shape == quick.shape == (size[0], round(size[0] * 120 / 90), 3)
    difference = np.abs(exact.astype(int) - quick)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def test_masks_and_grey_images_are_resized_as_in_detectron2():
    grey = np.random.RandomState(0).randint(0, 256, (40, 60)).astype(np.uint8)
    exact, quick = (ResizeShortestEdge((30, 30), 100, exact=exact).get_transform(grey) for exact in (True, False))
    assert np.array_equal(exact.apply_image(grey), quick.apply_image(grey))
    assert np.array_equal(exact.apply_segmentation(grey), quick.apply_segmentation(grey))
