"""The affine warps against CID's recorded ones, drawn dots, OpenCV and hand computation."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from pycocotools import mask as mask_util

from dynpose.data import AffineResize, AffineTransform, RandomAffine
from dynpose.data.affine import affine_matrix, composed_matrix, index_to_continuous, matrix_to_original

IDENTITY = np.eye(2, 3)


@pytest.fixture(scope="module")
def recorded():
    if "DYNPOSE_TEST_DATA" not in os.environ:
        pytest.skip("DYNPOSE_TEST_DATA names no folder of fixtures")
    return np.load(Path(os.environ["DYNPOSE_TEST_DATA"]) / "reference/cid/outputs.npz")


def make_image(height, width, seed=0, channels=(3,)):
    return np.random.RandomState(seed).randint(0, 256, (height, width, *channels)).astype(np.uint8)


def draw(augmentation, height=480, width=640, seed=0):
    np.random.seed(seed)
    return augmentation.get_transform(np.zeros((height, width, 3), np.uint8))


def index_matrix(transform):
    """What the transform does to pixel indices: continuous pixels are half a pixel more, before and after."""
    points = transform.apply_coords(np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])) - 0.5
    return np.column_stack([points[1] - points[0], points[2] - points[0], points[0]])


class TestRelease:
    """Recorded for an image of 640 x 480, with points and a box in pixel indices."""

    POINTS = np.array([[10.0, 20.0], [100.0, 200.0], [320.0, 240.0]])
    CORNERS = np.array([[10.0, 20.0], [110.0, 20.0], [10.0, 220.0], [110.0, 220.0]])
    # What each seed draws: scale (in 200 pixels, of a shorter side of 480), degrees, translation
    DRAWS = (
        (2.4 * 1.1616101279454936, 12.911361982345168, (-44, 84)),
        (2.4 * 1.0627665035269305, 13.219469606529486, (35, 101)),
        (2.4 * 1.0769961766065028, -28.44442609032652, (-81, -60)),
    )

    @pytest.mark.parametrize("seed", range(3))
    def test_matrix(self, recorded, seed):
        """The points lie on the map of 128 x 128, the area is that on the network's input of 512 x 512."""
        matrix = affine_matrix((320, 240), *self.DRAWS[seed], (128, 128))
        for points, name in ((self.POINTS, "joints"), (self.CORNERS, "bbox")):
            expected = recorded[f"affine/seed{seed}/{name}"][0, :, :2]
            np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], expected, rtol=0, atol=1e-9)
        matrix = affine_matrix((320, 240), *self.DRAWS[seed], (512, 512))
        area = 100 * 200 * np.linalg.det(matrix[:, :2])
        np.testing.assert_allclose(area, recorded[f"affine/seed{seed}/area"].item(), rtol=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_augmentation_draws_the_same(self, recorded, seed):
        """The half pixel comes in before the warp and goes out after it; index 4 i of 512 is index i of 128."""
        transform = draw(RandomAffine(512), seed=seed)
        for points, name in ((self.POINTS, "joints"), (self.CORNERS, "bbox")):
            result = transform.apply_coords(points + 0.5) - 0.5
            np.testing.assert_allclose(result / 4, recorded[f"affine/seed{seed}/{name}"][0, :, :2], rtol=0, atol=1e-9)
        scale = np.linalg.det(composed_matrix(T.TransformList([transform]))[:, :2])
        np.testing.assert_allclose(100 * 200 * scale, recorded[f"affine/seed{seed}/area"].item(), rtol=1e-12)

    def test_every_row_of_the_resize_table(self, recorded):
        table = recorded["test_resize_table"]
        assert len(table) == 6
        for height, width, out_width, out_height, x, y, scale_x, scale_y, *matrix in table:
            transform = draw(AffineResize(512), int(height), int(width))
            assert transform.output_size == (out_width, out_height)
            expected = np.reshape(matrix, (2, 3))
            np.testing.assert_allclose(index_matrix(transform), expected, rtol=0, atol=1e-9)
            result = affine_matrix((x, y), min(scale_x, scale_y), 0, (0, 0), (out_width, out_height))
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)

    def test_image_is_the_one_that_the_release_makes(self, recorded):
        for height, width, out_width, out_height, *_, a, b, c, d, e, f in recorded["test_resize_table"]:
            image = make_image(int(height), int(width))
            matrix = np.array([[a, b, c], [d, e, f]])
            expected = cv2.warpAffine(image, matrix, (int(out_width), int(out_height)), flags=cv2.INTER_LINEAR)
            result = AffineResize(512).get_transform(image).apply_image(image)
            assert result.shape == expected.shape
            difference = np.abs(result.astype(int) - expected)
            # Roundings of the matrix in the 16th digit move some pixels to another 32nd of a pixel
            assert difference.max() <= 10
            assert (difference > 0).mean() < 0.01

    @pytest.mark.parametrize("name", ["eval", "eval_flip"])
    def test_way_back_to_the_original_image(self, recorded, name):
        transform = draw(AffineResize(128), 300, 420)
        assert transform.output_size == (192, 128)
        back = matrix_to_original(T.TransformList([transform]))
        poses = recorded[f"{name}/poses"][..., :2].astype(np.float64)
        result = (poses + 0.5) @ back[:, :2].T + back[:, 2] - 0.5
        expected = recorded[f"{name}/mapped_300x420_poses"][..., :2]
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def random_warps():
    """Zooming in and out, turning both ways, onto other sizes."""
    for seed in range(8):
        yield draw(RandomAffine((200, 150), scale=(0.4, 2.0)), 120, 160, seed=seed)
    yield draw(AffineResize(96, 32), 120, 160)
    yield draw(AffineResize(200), 120, 160)


def dot_image(point, height=120, width=160, deviation=3.0):
    """A soft dot at ``point``, continuous pixels, whose centre of mass is there to a millionth of a pixel."""
    x, y = np.arange(width) + 0.5 - point[0], np.arange(height)[:, None] + 0.5 - point[1]
    return np.exp(-(x**2 + y**2) / (2 * deviation**2)).astype(np.float32)


def center_of_mass(image):
    height, width = image.shape
    image = image.astype(np.float64)
    total = image.sum()
    return np.array([(image * (np.arange(width) + 0.5)).sum(), (image.T * (np.arange(height) + 0.5)).sum()]) / total


class TestConsistency:
    def test_dots_land_where_the_points_do(self):
        """Near the image's middle, which every warp shows whole."""
        for transform in random_warps():
            for point in ((80.0, 60.0), (71.3, 55.9)):
                image = dot_image(point)
                np.testing.assert_allclose(center_of_mass(image), point, rtol=0, atol=1e-6)
                result = center_of_mass(transform.apply_image(image))
                np.testing.assert_allclose(result, transform.apply_coords(np.array([point]))[0], rtol=0, atol=5e-3)

    def test_dots_show_half_a_pixel(self):
        """What the test above is for: without the shift, zooming by 2 is off by half a pixel."""
        matrix = affine_matrix((80, 60), 120 / 200, 0, (0, 0), (240, 240))
        image = dot_image((80.0, 60.0))
        right = AffineTransform(index_to_continuous(matrix), (160, 120), (240, 240))
        wrong = AffineTransform(matrix, (160, 120), (240, 240))
        np.testing.assert_allclose(center_of_mass(right.apply_image(image)), [119.5, 119.5], rtol=0, atol=5e-3)
        np.testing.assert_allclose(right.apply_coords(np.array([[80.0, 60.0]])), [[119.5, 119.5]], rtol=0, atol=1e-9)
        np.testing.assert_allclose(center_of_mass(wrong.apply_image(image)), [120, 120], rtol=0, atol=5e-3)
        np.testing.assert_allclose(wrong.apply_coords(np.array([[79.5, 59.5]])), [[119, 119]], rtol=0, atol=1e-9)

    def test_masks_follow_their_polygons(self):
        polygon = np.array([[40.0, 30.0], [110.0, 25.0], [120.0, 90.0], [70.0, 70.0], [35.0, 95.0]])
        mask = rasterise(polygon, 120, 160)
        for transform in random_warps():
            width, height = transform.output_size
            (warped_polygon,) = transform.apply_polygons([polygon])
            expected = rasterise(warped_polygon, height, width)
            for dtype in (np.uint8, bool):
                result = transform.apply_segmentation(mask.astype(dtype))
                assert result.dtype == dtype
                assert result.shape == (height, width)
                both, either = (result & expected.astype(dtype)).sum(), (result | expected.astype(dtype)).sum()
                assert both / either > 0.97

    def test_inverse(self):
        points = np.array([[0.0, 0.0], [160.0, 0.0], [-30.0, 400.5], [80.0, 60.0]])
        # Smooth, because interpolating twice blurs
        image = cv2.GaussianBlur(make_image(120, 160), (0, 0), 4)
        for transform in random_warps():
            inverse = transform.inverse()
            assert (inverse.input_size, inverse.output_size) == (transform.output_size, transform.input_size)
            np.testing.assert_allclose(inverse.apply_coords(transform.apply_coords(points)), points, atol=1e-9)
            back = inverse.apply_image(transform.apply_image(image))[55:65, 75:85].astype(int)
            assert np.abs(back - image[55:65, 75:85]).max() <= 8


def rasterise(polygon, height, width):
    (rle,) = mask_util.frPyObjects([polygon.reshape(-1).tolist()], height, width)
    return mask_util.decode(rle)


class TestTransform:
    def test_coordinates(self):
        transform = AffineTransform([[2, 0, 5], [0, 3, -1]], (10, 10), (30, 30))
        points = np.array([[0, 0], [1, 2]])
        assert transform.apply_coords(points).tolist() == [[5, -1], [7, 5]]
        assert points.tolist() == [[0, 0], [1, 2]]
        assert transform.apply_coords(np.zeros((0, 2))).shape == (0, 2)

    def test_boxes_are_those_around_the_turned_corners(self):
        """A square of side 2 turned by 45 degrees about its middle is 2 sqrt(2) wide."""
        transform = AffineTransform(affine_matrix((5, 5), 10 / 200, 45, (0, 0), (10, 10)), (10, 10), (10, 10))
        half = np.sqrt(2)
        expected = [[5 - half, 5 - half, 5 + half, 5 + half]]
        np.testing.assert_allclose(transform.apply_box(np.array([[4.0, 4.0, 6.0, 6.0]])), expected)

    def test_turns_counter_clockwise(self):
        transform = AffineTransform(affine_matrix((5, 5), 10 / 200, 90, (0, 0), (10, 10)), (10, 10), (10, 10))
        # The part right of the middle is moved above it, where y is smaller
        np.testing.assert_allclose(transform.apply_coords(np.array([[8.0, 5.0]])), [[5.0, 2.0]], atol=1e-12)
        image = make_image(10, 10)
        assert np.array_equal(transform.apply_image(image), np.rot90(image))

    @pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_identity(self, channels, dtype):
        image = make_image(6, 9, channels=channels).astype(dtype)
        result = AffineTransform(IDENTITY, (9, 6), (9, 6)).apply_image(image)
        assert result.dtype == dtype
        assert np.array_equal(result, image)

    def test_views_with_negative_strides(self):
        image = make_image(6, 9)[:, :, ::-1]
        assert np.array_equal(AffineTransform(IDENTITY, (9, 6), (9, 6)).apply_image(image), image)

    @pytest.mark.parametrize(
        ("fill", "color"), [(0, (0, 0, 0)), (7, (7, 7, 7)), ((1, 2, 3), (1, 2, 3)), (np.float64(9), (9, 9, 9))]
    )
    def test_fill(self, fill, color):
        transform = AffineTransform([[1, 0, 2], [0, 1, 0]], (4, 4), (6, 5), fill=fill)
        image = make_image(4, 4)
        result = transform.apply_image(image)
        assert result.shape == (5, 6, 3)
        assert np.array_equal(result[:4, 2:], image)
        assert (result[:, :2] == color).all()
        assert (result[4] == color).all()
        assert transform.apply_segmentation(np.ones((4, 4), bool))[:, :2].sum() == 0

    def test_masks_are_set_above_one_half(self):
        """Moved by 0.4 and by 0.6 pixels: the left edge's share is 0.6 and 0.4, the right edge's 0.4 and 0.6."""
        mask = np.array([[0, 0, 1, 1, 0, 0]] * 3, np.uint8)
        for distance, expected in ((0.4, [0, 0, 1, 1, 0, 0]), (0.6, [0, 0, 0, 1, 1, 0])):
            transform = AffineTransform([[1, 0, distance], [0, 1, 0]], (6, 3), (6, 3))
            assert transform.apply_segmentation(mask)[1].tolist() == expected

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
    def test_labels_are_not_mixed(self, dtype):
        labels = np.zeros((40, 40), dtype)
        labels[5:25, 5:25], labels[10:30, 20:35] = 200, 3
        transform = draw(RandomAffine(64), 40, 40)
        result = transform.apply_segmentation(labels)
        assert result.dtype == dtype
        assert set(np.unique(result)) == {0, 3, 200}

    def test_large_labels_survive(self):
        labels = np.full((4, 4), 2**40 + 1)
        assert np.array_equal(AffineTransform(IDENTITY, (4, 4), (4, 4)).apply_segmentation(labels), labels)

    def test_image_of_another_size(self):
        with pytest.raises(ValueError, match="for images of 9 x 6 pixels, got one of 6 x 9"):
            AffineTransform(IDENTITY, (9, 6), (9, 6)).apply_image(make_image(9, 6))

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (np.eye(3), "2 x 3 finite numbers"),
            (np.full((2, 3), np.nan), "2 x 3 finite numbers"),
            ([[-1, 0, 9], [0, 1, 0]], "mirrors or flattens .* RandomFlip"),
            ([[1, 1, 0], [1, 1, 0]], "mirrors or flattens"),
        ],
    )
    def test_faulty_matrix(self, matrix, message):
        with pytest.raises(ValueError, match=message):
            AffineTransform(matrix, (9, 6), (9, 6))


class TestRandomAffine:
    @pytest.mark.parametrize("scale_type", ["short", "long"])
    def test_draws_fill_their_ranges(self, scale_type):
        augmentation = RandomAffine((300, 200), scale_type=scale_type)
        side = {"short": 100, "long": 400}[scale_type]
        angles, scales, moved = [], [], []
        for seed in range(300):
            transform = draw(augmentation, 100, 400, seed=seed)
            matrix = index_matrix(transform)
            zoom = np.hypot(*matrix[0, :2])
            scales.append(200 / (zoom * side))  # the result's shorter side is 200
            angles.append(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])))
            middle = np.linalg.solve(matrix[:, :2], [150, 100] - matrix[:, 2])
            moved.append((middle - [200, 50]) / (scales[-1] * side / 200))
        moved = np.array(moved)
        assert -30 <= min(angles) < -28
        assert 28 < max(angles) <= 30
        assert 0.75 <= min(scales) < 0.77
        assert 1.48 < max(scales) <= 1.5
        assert (np.abs(moved) <= 40 + 1e-6).all()
        assert (np.abs(moved).max(axis=0) > 37).all()
        assert np.array_equal(np.sign([moved.min(), moved.max()]), [-1, 1])

    def test_nothing_to_draw_is_a_plain_resize(self):
        transform = draw(RandomAffine([64], rotation=0, scale=(1, 1), translation=0), 100, 100)
        np.testing.assert_allclose(index_matrix(transform), [[0.64, 0, 0], [0, 0.64, 0]], atol=1e-12)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (2, 500)])
    def test_tiny_images(self, height, width):
        image = make_image(height, width)
        for seed in range(5):
            np.random.seed(seed)
            aug_input = T.AugInput(image)
            RandomAffine((32, 16))(aug_input)
            assert aug_input.image.shape == (16, 32, 3)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"size": 0}, "size: expected one or two whole numbers"),
            ({"size": (512.5, 512)}, "size: expected one or two whole numbers"),
            ({"scale": (1.5, 0.75)}, "the smaller one first"),
            ({"scale": (0, 1)}, "positive factors"),
            ({"rotation": -30}, "can't be negative, got -30"),
            ({"translation": -1}, "can't be negative"),
            ({"scale_type": "both"}, "scale_type: expected one of 'short', 'long', got 'both'"),
        ],
    )
    def test_faulty_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RandomAffine(**arguments)

    def test_repr(self):
        assert "rotation=15" in repr(RandomAffine(256, rotation=15))


class TestAffineResize:
    @pytest.mark.parametrize(
        ("size", "shape", "expected"),
        [
            (512, (480, 720), (768, 512)),  # 768 pixels
            (512, (333, 500), (768, 512)),  # 768.8
            (512, (480, 721), (832, 512)),  # 769.1
            (500, (100, 100), (512, 512)),
            (513, (100, 100), (576, 576)),
            (640, (640, 480), (640, 896)),
        ],
    )
    def test_size(self, size, shape, expected):
        assert draw(AffineResize(size), *shape).output_size == expected

    def test_margins_are_equal(self):
        """640 pixels become 682.67 of 704: 10.67 on either side.

        To half a pixel times 512 / 480 - 1, that is: in pixel indices the middle of 640 pixels is 320, not 319.5.
        """
        transform = draw(AffineResize(512), 480, 640)
        corners = transform.apply_coords(np.array([[0.0, 0.0], [640.0, 480.0]]))
        shift = 0.5 * (512 / 480 - 1)
        expected = [[32 / 3 - shift, -shift], [704 - 32 / 3 - shift, 512 - shift]]
        np.testing.assert_allclose(corners, expected, rtol=0, atol=1e-9)

    def test_longest_side(self):
        """A panorama of 10 : 1 fits 1333 as 1280, and its 128 rows are two times 64."""
        transform = draw(AffineResize(512, max_size=1333), 300, 3000)
        assert transform.output_size == (1280, 128)
        np.testing.assert_allclose(index_matrix(transform), [[0.4267, 0, 0], [0, 0.4267, 0]], atol=1e-4)
        # 3000 x 310 needs a third 64, and has 59.7 rows of margin
        transform = draw(AffineResize(512, max_size=1333), 3000, 310)
        assert transform.output_size == (192, 1280)
        x = transform.apply_coords(np.array([[0.0, 0.0], [310.0, 0.0]]))[:, 0]
        np.testing.assert_allclose(x, [29.9, 162.1], atol=0.5)
        assert draw(AffineResize(512, max_size=1333), 1, 5000).output_size == (1280, 64)
        assert draw(AffineResize(512, max_size=1333), 480, 640).output_size == (704, 512)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0,), "size and multiple must be positive"),
            ((512, 0), "must be positive"),
            ((512, 64, 63), r"max_size \(63\) must be at least multiple \(64\)"),
        ],
    )
    def test_faulty_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            AffineResize(*arguments)


class TestComposition:
    def test_none_where_the_sizes_say_it(self):
        transforms = T.TransformList([T.ResizeTransform(10, 20, 30, 40), T.HFlipTransform(40)])
        assert matrix_to_original(transforms) is None
        assert composed_matrix(transforms).tolist() == [[-2, 0, 40], [0, 3, 0]]

    def test_with_others_around_it(self):
        affine = draw(AffineResize(64), 30, 40)
        width = affine.output_size[0]
        transforms = T.TransformList([T.ResizeTransform(15, 20, 30, 40), affine, T.HFlipTransform(width)])
        back = matrix_to_original(transforms)
        assert back.dtype == np.float64
        points = np.array([[3.0, 4.0], [19.5, 0.0]])
        there = transforms.apply_coords(points.copy())
        np.testing.assert_allclose(there @ back[:, :2].T + back[:, 2], points, atol=1e-9)
