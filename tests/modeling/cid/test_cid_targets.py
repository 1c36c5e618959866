"""CID's targets by hand-worked numbers."""

import math

import pytest
import torch
from small_models import SCHEMA, one_person, people

from dynpose.modeling.cid.decoding import decode_keypoints
from dynpose.modeling.cid.targets import build_targets, gaussian_radii, learnt_cells
from dynpose.modeling.keypoint_maps import gaussians, multi_person_heatmaps

SIZE = (32, 32)


def make(gt_instances, size=SIZE, sizes=None, jitter="none", **kwargs):
    """Targets of images of 128 x 128 pixels at stride 4, without jitter."""
    count = sum(len(instances) for instances in gt_instances)
    return build_targets(
        gt_instances,
        num_keypoints=kwargs.pop("num_keypoints", SCHEMA.num_keypoints),
        size=size,
        sizes=torch.tensor(sizes or [size] * len(gt_instances)),
        stride=4,
        jitter=torch.zeros(count, 2, dtype=torch.int64) if jitter == "none" else jitter,
        **kwargs,
    )


def box(x, y, side):
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def diamond(x, y, reach=8, visibility=(2, 2, 2, 2)):
    points = [(x, y - reach), (x + reach, y), (x - reach, y), (x, y + reach)]
    return [(*point, v) for point, v in zip(points, visibility)]


def test_the_center_is_the_mean_of_the_labelled_keypoints():
    # labelled: (60, 52) and (68, 60); without the third and the fourth the mean is (64, 56), cell (16, 14)
    multi, found = make([people([box(60, 60, 40)], [diamond(60, 60, visibility=(1, 2, 0, 0))])])
    assert found.cells.tolist() == [[16, 14]]
    assert found.labelled.tolist() == [[True, True, False, False]]
    assert found.keypoint_cells[0, :2].tolist() == [[15, 13], [17, 15]]
    peaks = (multi[0] == 1).nonzero().tolist()
    assert peaks == [[0, 13, 15], [1, 15, 17], [4, 14, 16]]
    assert multi[0, 2:4].sum() == 0


def test_gaussians_by_hand():
    # a box of 40 pixels is one of 10 x 10 cells: r = floor(-14 + sqrt(196 + 0.84 * 100)) = 2, sigma = 5 / 6
    multi, found = make([people([box(60, 60, 40)], [diamond(60, 60)])])
    assert found.radii.tolist() == [2]
    row = multi[0, 0, 13, 11:20]
    ends, beside = math.exp(-4 / (2 * 25 / 36)), math.exp(-1 / (2 * 25 / 36))
    torch.testing.assert_close(row, torch.tensor([0, 0, ends, beside, 1, beside, ends, 0, 0]))
    torch.testing.assert_close(multi[0, 0, 12, 14], torch.tensor(beside**2))
    torch.testing.assert_close(multi[0, :4], found.heatmaps(SIZE)[0])


def test_gaussians_at_the_border_are_cut_off():
    cells = torch.tensor([[[0, 0], [3, 2]]])
    maps = gaussians(cells, torch.tensor([[True, True]]), torch.tensor([1]), (3, 4))
    beside = math.exp(-1 / (2 * 0.25))
    corner = [[1, beside, 0, 0], [beside, beside**2, 0, 0], [0] * 4]
    torch.testing.assert_close(maps[0, 0], torch.tensor(corner))
    torch.testing.assert_close(maps[0, 1], torch.tensor(corner).flip(0, 1))


def test_a_large_gaussian_is_one_in_its_own_cell_alone():
    maps = gaussians(torch.tensor([[[80, 80]]]), torch.tensor([[True]]), torch.tensor([100]), (160, 160))
    assert (maps == 1).sum() == 1


@pytest.mark.parametrize("count", [1, 16, 37])
def test_people_are_merged_by_the_maximum(count):
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 20, (count, 3, 2), generator=generator)
    labelled = torch.rand(count, 3, generator=generator) < 0.7
    radii = torch.randint(0, 6, (count,), generator=generator)
    image = torch.randint(0, 2, (count,), generator=generator)
    maps = multi_person_heatmaps(cells, labelled, radii, image, num_images=3, size=(20, 20))
    expected = torch.zeros(3, 3, 20, 20)
    for i in range(count):
        for k in range(3):
            if labelled[i, k]:
                r, (u, v) = radii[i].item(), cells[i, k].tolist()
                for y in range(max(0, v - r), min(20, v + r + 1)):
                    for x in range(max(0, u - r), min(20, u + r + 1)):
                        value = math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * ((2 * r + 1) / 6) ** 2))
                        expected[image[i], k, y, x] = max(expected[image[i], k, y, x].item(), value)
    torch.testing.assert_close(maps, expected)


def corners_of(boxes):
    """Upper left, upper right, lower left and lower right corners (G, 4, 2) of XYXY boxes."""
    left, top, right, bottom = torch.tensor(boxes, dtype=torch.float32).unbind(dim=1)
    points = [(left, top), (right, top), (left, bottom), (right, bottom)]
    return torch.stack([torch.stack(point, dim=1) for point in points], dim=1)


def test_radius_of_a_box_without_extent():
    assert gaussian_radii(corners_of([[3, 3, 3, 3], [3, 3, 3, 90]])).tolist() == [0, 0]


def turned(points, degrees, center):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (points - center) @ torch.tensor([[cos, sin], [-sin, cos]]) + center


@pytest.mark.parametrize("degrees", [0, 30, 90, 171, 230])
def test_gaussians_have_the_size_of_the_rotated_box(degrees):
    # 60 x 160 pixels are 15 x 40 cells: floor(-0.7 * 55 + sqrt((0.7 * 55)^2 + 0.84 * 600)) = 6
    upright = corners_of([[98, 48, 158, 208]])
    gt = people([[40, 40, 216, 216]], [diamond(128, 128)], size=(256, 256))
    gt.gt_box_corners = turned(upright, degrees, 128.0)
    assert make([gt], size=(64, 64), min_box_area=60 * 160 - 1)[1].radii.tolist() == [6]
    assert len(make([gt], size=(64, 64), min_box_area=60 * 160 + 1)[1]) == 0


def test_corners_are_moved_into_the_image():
    gt = people([[0, 0, 104, 104]], [diamond(50, 40)], size=(104, 104))
    gt.gt_box_corners = corners_of([[-400, 0, 900, 104]])
    # 26 x 26 cells: 7.1; as indices up to that of the last cell, 25 x 25: 6.8
    assert make([gt], size=(26, 26))[1].radii.tolist() == [7]
    assert make([gt], size=(26, 26), origin=0.5)[1].radii.tolist() == [6]
    # the padding of a smaller image is outside; 26 x 15 cells: 5.2
    assert make([gt], size=(26, 26), sizes=[(15, 26)])[1].radii.tolist() == [5]


def test_small_people_stay_in_the_multi_person_maps():
    gt = [people([box(30, 30, 31.9), box(90, 90, 32)], [diamond(30, 30), diamond(90, 90)])]
    multi, found = make(gt)
    assert found.cells.tolist() == [[22, 22]]
    assert (multi[0] == 1).sum(dim=(1, 2)).tolist() == [2, 2, 2, 2, 1]
    _, everyone = make(gt, min_box_area=0)
    assert everyone.cells.tolist() == [[7, 7], [22, 22]]


def test_people_without_labelled_keypoints_are_not_there():
    gt = [people([box(30, 30, 50)], [diamond(30, 30, visibility=(0, 0, 0, 0))])]
    multi, found = make(gt)
    assert len(found) == 0
    assert multi.sum() == 0
    assert found.heatmaps(SIZE).shape == (0, 4, 32, 32)


@pytest.mark.parametrize(
    ("index", "cell_of_index", "cell_of_continuous"),
    # index i is i + 0.5 in continuous pixels; the release computes int(i / 4)
    [
        (7, 1, 1),
        (7.4, 1, 1),
        (7.5, 1, 2),
        (7.9, 1, 2),
        (8, 2, 2),
        (0, 0, 0),
        (-0.5, 0, 0),
        (127, 31, 31),
        (127.4, 31, 31),
    ],
)
def test_cells_of_pixel_indices(index, cell_of_index, cell_of_continuous):
    x = index + 0.5
    gt = [people([box(60, 60, 40)], [[(x, 60.5, 2), (60.5, x, 2), (60.5, 60.5, 0), (60.5, 60.5, 0)]])]
    for origin, cell in ((0.5, cell_of_index), (0.0, cell_of_continuous)):
        multi, found = make(gt, origin=origin)
        assert found.labelled.tolist() == [[True, True, False, False]]
        assert found.keypoint_cells[0, :2].tolist() == [[cell, 15], [15, cell]]
        assert (multi[0, :2] == 1).nonzero().tolist() == [[0, 15, cell], [1, cell, 15]]


def only(x, y):
    """A person of whose keypoints the first alone is labelled, which is the centre then, at a point of any image."""
    points = [(x, y, 2), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    gt = people([box(64, 64, 40)], [[(0, 0, 0)] * 4])
    gt.gt_uncropped_keypoints = torch.tensor([points], dtype=torch.float32)
    return gt


def test_centers_of_pixel_indices():
    # means of 63.75 and 64.25 in continuous pixels, of 63.25 and 63.75 as indices
    points = [(59.75, 60.25, 2), (67.75, 68.25, 2), (0, 0, 0), (0, 0, 0)]
    gt = [people([box(64, 64, 40)], [points])]
    assert make(gt)[1].cells.tolist() == [[15, 16]]
    assert make(gt, origin=0.5)[1].cells.tolist() == [[15, 15]]
    assert make([only(64.5, 0.25)], origin=0.5)[1].cells.tolist() == [[16, 0]]
    # int() of the release truncates towards 0, keypoints too
    gt = [only(-3.25, 64.5)]
    multi, found = make(gt, origin=0.5)
    assert found.cells.tolist() == found.keypoint_cells[:, 0].tolist() == [[0, 16]]
    assert (multi[0] == 1).nonzero().tolist() == [[0, 16, 0], [4, 16, 0]]
    assert len(make(gt)[1]) == 0
    assert len(make([only(64.5, -3.75)], origin=0.5)[1]) == 0


@pytest.mark.parametrize("origin", [0.0, 0.5])
def test_what_is_learnt_is_decoded_without_bias(origin):
    """Targets of keypoints spread evenly over a cell are decoded, on average, to their mean."""
    x = torch.arange(400) / 100 + 40 + origin
    points = torch.stack([x, x.flip(0), torch.full_like(x, 2)], dim=-1)[:, None].expand(-1, 4, -1)
    gt = people([box(42, 42, 40)] * 400, points.tolist())
    _, found = make([gt], origin=origin)
    # all are in the cell of the first, and of several people with the same cell one is decoupled
    heatmaps = gaussians(found.keypoint_cells, found.labelled, found.radii, SIZE)
    decoded = decode_keypoints(heatmaps, torch.tensor([SIZE]), torch.ones(1), 4, origin=origin)
    torch.testing.assert_close(decoded[0, 0, :2], points[:, 0, :2].mean(dim=0), rtol=0, atol=0.006)


def test_the_map_of_a_keypoint_outside_of_the_image_is_empty():
    points = [(-1, 20, 2), (20, 20, 2), (128, 20, 1), (0, 0, 0)]
    gt = people([box(30, 30, 50)], [[(0, 0, 0), (20, 20, 2), (0, 0, 0), (0, 0, 0)]])
    gt.gt_uncropped_keypoints = torch.tensor([points], dtype=torch.float32)
    multi, found = make([gt])
    assert found.labelled.tolist() == [[True, True, True, False]]
    assert found.inside.tolist() == [[False, True, False, False]]
    assert found.heatmaps(SIZE)[0, [0, 2, 3]].sum() == 0
    assert (multi[0] == 1).nonzero().tolist() == [[1, 5, 5], [4, 5, 12]]
    # they count for the centre, (-1 + 20 + 128) / 3 = 49
    assert found.cells.tolist() == [[12, 5]]


def test_keypoints_of_a_custom_mapper():
    """Without the uncropped ones, what has no label is unknown."""
    nan = float("nan")
    gt = people([box(30, 30, 50)], [[(12, 20, 2), (20, 20, 2), (nan, nan, 0), (1e30, -1e30, 0)]])
    multi, found = make([gt])
    assert found.labelled.tolist() == found.inside.tolist() == [[True, True, False, False]]
    assert found.cells.tolist() == [[4, 5]]
    assert multi.isfinite().all()


def test_keypoints_in_the_padding_are_outside():
    gt = only(100, 20)
    multi, found = make([gt], sizes=[(32, 25)])
    assert len(found) == 0
    assert multi.sum() == 0
    gt.gt_uncropped_keypoints[0, 1] = torch.tensor([20, 20, 2])
    multi, found = make([gt], sizes=[(32, 25)])
    assert found.labelled.tolist() == [[True, True, False, False]]
    assert found.inside.tolist() == [[False, True, False, False]]


def test_what_the_mapper_keeps_comes_first():
    """The keypoints before those outside were zeroed, and the boxes before they were turned and clipped."""
    instances = people([box(x, 60, 40) for x in (20, 50, 80, 110)], [diamond(x, 60) for x in (20, 50, 80, 110)])
    nothing = [(0, 0, 0)] * 3
    centers = [(100.0, 40.0, 2), (-1.0, 60.0, 2), (40.0, 127.9, 2), (0, 0, 0)]
    instances.gt_uncropped_keypoints = torch.tensor([[center, *nothing] for center in centers], dtype=torch.float32)
    areas = [3000, 2000, 1024, 2000]
    instances.gt_box_corners = corners_of([[40, 60, 72, 60 + area / 32] for area in areas])
    # of an image without them
    others = people([box(90, 30, 31.9), box(30, 90, 32)], [diamond(90, 30), diamond(30, 90)])
    multi, found = make([instances, others])
    # without a centre in the image, people are not decoupled; the rest come from small to large
    assert found.image_index.tolist() == [0, 0, 1]
    assert found.cells.tolist() == [[10, 31], [25, 10], [7, 22]]
    assert (multi[0] == 1).nonzero().tolist() == [[0, 10, 25], [0, 31, 10], [4, 10, 25], [4, 31, 10]]
    # 8 x 8, 8 x 17 (68 of 93.75 pixels are in the image) and 8 x 8 cells
    assert found.radii.tolist() == [2, 3, 2]
    instances.gt_box_corners = corners_of([[40, 60, 72, 60 + area / 32] for area in [3000, 2000, 1023.9, 2000]])
    assert make([instances])[1].cells.tolist() == [[25, 10]]


def test_a_center_on_the_right_edge_is_outside():
    multi, found = make([only(128.0, 64.0)])
    assert len(found) == 0
    assert not multi[0, -1].any()


def test_people_come_by_image_then_from_small_to_large():
    large, small = [box(80, 80, 60), box(30, 30, 40)], [diamond(80, 80), diamond(30, 30)]
    _, found = make([people(large, small), people([], []), people(large[:1], small[:1])])
    assert found.image_index.tolist() == [0, 0, 2]
    assert found.cells.tolist() == [[7, 7], [20, 20], [20, 20]]


def test_the_smallest_of_those_with_the_same_cell_is_decoupled():
    boxes = [box(64, 64, 60), box(64, 64, 40), box(64, 64, 50), box(20, 20, 40)]
    points = [diamond(64, 64, reach) for reach in (4, 12, 16)] + [diamond(20, 20)]
    multi, found = make([people(boxes, points)])
    assert found.cells.tolist() == [[16, 16], [5, 5]]
    assert found.keypoint_cells[0, 0].tolist() == [16, 13]
    # jitter that tells them apart: x of the first person, y of the third
    jitter = torch.tensor([[1, 0], [0, 0], [0, -1], [0, 0]])
    multi, found = make([people(boxes, points)], jitter=jitter)
    assert found.cells.tolist() == [[16, 16], [5, 5], [16, 15], [17, 16]]
    # the centre map does not move
    assert (multi[0, -1] == 1).nonzero().tolist() == [[5, 5], [16, 16]]


def test_jitter_stays_within_a_cell_and_inside_the_image():
    torch.manual_seed(0)
    corner = people([box(20, 20, 40)], [[(1, 1, 2), (0, 0, 0), (0, 0, 0), (0, 0, 0)]])
    middle = people([box(64, 64, 60)], [diamond(64, 64)])
    seen = {0: set(), 1: set()}
    for _ in range(60):
        _, found = make([corner, middle], jitter=None)
        for image, cell in zip(found.image_index.tolist(), found.cells.tolist()):
            seen[image].add(tuple(cell))
    # where one coordinate would be outside, neither is moved
    assert seen[0] == {(u, v) for u in (0, 1) for v in (0, 1)}
    assert seen[1] == {(u, v) for u in (15, 16, 17) for v in (15, 16, 17)}
    # the padding of a smaller image is outside, too
    edge = people([box(20, 20, 40)], [[(23, 23, 2), (0, 0, 0), (0, 0, 0), (0, 0, 0)]], size=(24, 24))
    for jitter, cell in (((1, -1), (5, 5)), ((-1, 1), (5, 5)), ((0, -1), (5, 4)), ((-1, -1), (4, 4))):
        _, found = make([edge], sizes=[(6, 6)], jitter=torch.tensor([jitter]))
        assert found.cells.tolist() == [list(cell)]


def test_no_more_people_than_allowed():
    torch.manual_seed(0)
    positions = [(10 + 20 * (i % 6), 10 + 20 * (i // 6)) for i in range(36)]
    gt = [people([box(x, y, 40) for x, y in positions], [diamond(x, y, 4) for x, y in positions])] * 2
    chosen = []
    for _ in range(2):
        multi, found = make(gt, max_instances=10)
        assert len(found) == 10
        assert found.image_index.tolist() == sorted(found.image_index.tolist())
        assert (multi[:, -1] == 1).sum() == 72
        chosen.append(found.cells.tolist())
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("num_keypoints", [1, 14, 133])
def test_any_number_of_keypoints(num_keypoints):
    instances = one_person()
    instances.gt_keypoints.tensor = torch.tensor([50.0, 60, 2]).repeat(1, num_keypoints, 1)
    multi, found = make([instances], num_keypoints=num_keypoints)
    assert multi.shape == (1, num_keypoints + 1, 32, 32)
    assert found.labelled.shape == (1, num_keypoints)
    assert found.cells.tolist() == [[12, 15]]
    instances.remove("gt_keypoints")
    assert len(make([instances], num_keypoints=num_keypoints)[1]) == 0


def test_learnt_cells_by_hand():
    # 2 x 3 cells of 4 pixels, in a batch of 3 x 4; the last column of cells has 2 columns of pixels
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[:4, :2] = True
    mask[2, 2] = True
    mask[4:, 4:6] = True
    mask[4:, 8:] = True
    learnt = learnt_cells([mask, None], torch.tensor([(2, 3), (3, 4)]), torch.zeros(2, 7, 3, 4), 4)
    # 9 of 16 pixels are more than half; 8 of 16 are not, nor are the two columns of the last
    assert learnt[0, 0].tolist() == [[False, True, True, False], [True, True, True, False], [False] * 4]
    assert learnt[1].all()


def test_learnt_cells_refuses_a_mask_of_another_size():
    with pytest.raises(ValueError, match="ignore_mask of image 1 of the batch has 40 x 64 pixels, 10 x 16 cells, but"):
        learnt_cells([None, torch.zeros(40, 64)], torch.tensor([(16, 16)] * 2), torch.zeros(2, 1, 16, 16), 4)
