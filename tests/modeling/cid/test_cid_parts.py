"""IIA, GFD and the decoding: by hand, and against the paper's equations written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynpose.modeling.cid import FeatureDecoupling, InstanceAbstraction, People
from dynpose.modeling.cid.abstraction import _smooth_in_graph, own_cells, smooth
from dynpose.modeling.cid.decoding import decode_keypoints


def abstraction(**kwargs):
    return InstanceAbstraction(6, 4, **kwargs)


def test_heatmaps_start_at_the_prior():
    torch.manual_seed(0)
    iia = abstraction(prior_prob=0.2)
    maps = iia(torch.zeros(1, 6, 3, 3))
    torch.testing.assert_close(maps, torch.full((1, 5, 3, 3), 0.2))
    features = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(iia.centers(features), iia(features)[:, -1])


def test_probabilities_keep_away_from_zero_and_one():
    iia = abstraction()
    torch.nn.init.constant_(iia.heatmaps.bias, 100.0)
    assert iia(torch.zeros(1, 6, 2, 2)).max().item() == pytest.approx(1 - 1e-4)
    torch.nn.init.constant_(iia.heatmaps.bias, -100.0)
    assert iia(torch.zeros(1, 6, 2, 2)).min().item() == pytest.approx(1e-4)


def test_smoothing_has_zeros_around():
    maps = torch.zeros(1, 3, 3)
    maps[0, 0, 0] = 9.0
    assert smooth(maps)[0].tolist() == [[5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]]


@pytest.mark.parametrize("window", [1, 3, 11])
@pytest.mark.parametrize("size", [(1, 1), (3, 20), (16, 9)])
def test_smoothing_is_average_pooling_in_a_graph_and_outside(window, size):
    maps = torch.rand(2, 3, *size, generator=torch.manual_seed(0))
    expected = (maps + F.avg_pool2d(maps, window, stride=1, padding=window // 2)) / 2
    before = maps.clone()
    smoothed = smooth(maps, window)
    torch.testing.assert_close(smoothed, expected, rtol=0, atol=1e-6)
    assert torch.equal(_smooth_in_graph(maps, window), smoothed)
    assert torch.equal(maps, before)


def test_peaks_are_ranked_and_cut():
    centers = torch.zeros(2, 9, 9)
    centers[0, 1, 1], centers[0, 5, 7], centers[0, 7, 2] = 0.9, 0.36, 0.018
    centers[1, 4, 4] = 0.72
    image, cells, scores = abstraction(score_thresh=0.01).peaks(centers, torch.tensor([(9, 9)] * 2))
    # a lone cell keeps 10 / 18 of its value
    assert image.tolist() == [0, 0, 1]
    assert cells.tolist() == [[1, 1], [7, 5], [4, 4]]
    assert scores.tolist() == pytest.approx([0.5, 0.2, 0.4])
    # the third is just at the threshold
    image, *_ = abstraction(score_thresh=0.0099).peaks(centers, torch.tensor([(9, 9)] * 2))
    assert image.tolist() == [0, 0, 0, 1]
    image, cells, _ = abstraction(max_proposals=1).peaks(centers, torch.tensor([(9, 9)] * 2))
    assert cells.tolist() == [[1, 1], [4, 4]]


def test_the_window_follows_the_images_size():
    sizes = torch.tensor([(10, 10), (200, 200), (200, 201), (100, 500), (300, 300), (1, 600)])
    assert abstraction().windows(sizes).tolist() == [3, 3, 5, 5, 5, 7]


def test_each_image_has_its_own_window():
    centers = torch.zeros(2, 12, 12)
    # two columns apart: within a window of 5, not of 3
    centers[:, 3, 2], centers[:, 3, 4] = 0.5, 0.45
    small, large = (6, 8), (12, 12)
    image, cells, _ = abstraction(window_thresholds=(8, 100)).peaks(centers, torch.tensor([small, large]))
    assert cells[image == 0].tolist() == [[2, 3], [4, 3]]
    assert cells[image == 1].tolist() == [[2, 3]]


def test_padding_has_no_peak():
    centers = torch.full((1, 6, 8), 0.9)
    centers[0, :4, :5] = 0.05
    centers[0, 2, 3] = 0.1
    _, cells, scores = abstraction().peaks(centers, torch.tensor([(4, 5)]))
    _, alone_cells, alone_scores = abstraction().peaks(centers[:, :4, :5], torch.tensor([(4, 5)]))
    assert cells.tolist() == alone_cells.tolist()
    assert [3, 2] in cells.tolist()
    torch.testing.assert_close(scores, alone_scores)


def test_cells_that_are_nan_are_peaks_and_change_no_other_image():
    centers = torch.zeros(2, 9, 9)
    centers[0, 1, 1], centers[0, 7, 2], centers[1, 4, 4] = 0.9, math.nan, 0.72
    image, cells, scores = abstraction(score_thresh=0.3).peaks(centers, torch.tensor([(8, 9), (9, 9)]))
    # smoothing makes all nine cells around it NaN, of which the last row is padding
    assert image.tolist() == [0] * 7 + [1]
    assert sorted(cells[:6].tolist()) == [[u, v] for u in (1, 2, 3) for v in (6, 7)]
    assert scores[:6].isnan().all()
    assert cells[6:].tolist() == [[1, 1], [4, 4]]
    assert scores[6:].tolist() == pytest.approx([0.5, 0.4])
    # as many as there may be people
    image, _, scores = abstraction().peaks(torch.full((1, 9, 9), math.nan), torch.tensor([(9, 9)]))
    assert len(image) == 30
    assert scores.isnan().all()


def test_features_are_read_at_the_centers():
    features = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    people = People.at(features, torch.tensor([0, 1]), torch.tensor([[4, 1], [0, 3]]))
    assert people.features.tolist() == [[9, 29, 49], [75, 95, 115]]
    assert people[1:].features.tolist() == [[75, 95, 115]]


def by_the_paper(gfd, features, people, own):
    """Eq. 9 to 12, one person at a time, with all their maps."""
    height, width = features.shape[-2:]
    heatmaps = []
    for i in range(len(people)):
        image, f = people.image_index[i], people.features[i]
        reduced = gfd.reduce(features[image : image + 1])
        in_reduced = gfd.reduce(f[None, :, None, None]).flatten()
        recalibrated = []
        if gfd.channel:
            weights = gfd.channel_weights(f) if gfd.channel_weights else in_reduced
            recalibrated.append(reduced * weights[None, :, None, None])
        if gfd.spatial:
            weights = gfd.similarity_weights(f) if gfd.similarity_weights else in_reduced
            maps = torch.zeros(1, 3, height, width)
            for v in range(height):
                for u in range(width):
                    if own[image, v, u]:
                        maps[0, 0, v, u] = (weights * reduced[0, :, v, u]).sum()
                        maps[0, 1:, v, u] = (people.cells[i] - torch.tensor([u, v])) / gfd.coord_scale
            recalibrated.append(gfd.mask(maps).sigmoid() * reduced)
        heatmaps.append(gfd.heatmaps(gfd.fuse(torch.cat(recalibrated, dim=1)).relu()).sigmoid())
    return torch.cat(heatmaps)


@pytest.mark.parametrize("channel_weights", ["linear", "feature"])
@pytest.mark.parametrize("recalibration", [["spatial"], ["channel"], ["channel", "spatial"]])
@pytest.mark.parametrize("num_images", [1, 2])
@torch.no_grad()
def test_decoupling_is_that_of_the_paper(recalibration, channel_weights, num_images):
    torch.manual_seed(0)
    gfd = FeatureDecoupling(
        10,
        3,
        channels=5,
        recalibration=recalibration,
        channel_weights=channel_weights,
        coord_scale=8.0,
        prior_prob=0.5,
        init_std=0,
    )
    nn.init.normal_(gfd.heatmaps.weight)
    features = torch.randn(num_images, 10, 6, 7)
    images = torch.tensor([0, 0, num_images - 1])
    people = People.at(features, images, torch.tensor([[0, 0], [6, 2], [3, 3]]))
    own = own_cells(torch.tensor([(6, 7), (4, 5)][-num_images:]), features)
    expected = by_the_paper(gfd, features, people, own)
    assert expected.std() > 0.01
    torch.testing.assert_close(gfd(features, people, own), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channel_weights", ["linear", "feature"])
def test_masks_are_the_same_with_gradients_and_without(channel_weights):
    """Each person's own convolution, and the sum of shared ones."""
    torch.manual_seed(0)
    gfd = FeatureDecoupling(10, 3, channels=5, channel_weights=channel_weights, init_std=0)
    features = torch.randn(2, 10, 9, 400)
    people = People.at(features, torch.tensor([0, 0, 1]), torch.tensor([[0, 0], [390, 2], [3, 8]]))
    own = own_cells(torch.tensor([(9, 400), (6, 311)]), features)
    with_gradients = gfd(features, people, own)
    assert gfd.prepare(features, own).masks is None
    with torch.no_grad():
        assert gfd.prepare(features, own).masks is not None
        torch.testing.assert_close(gfd(features, people, own), with_gradients.detach(), rtol=1e-5, atol=1e-6)


def test_all_layers_start_small():
    """As released: weights of 0.001, no bias, and heatmaps at the prior."""
    torch.manual_seed(0)
    gfd = FeatureDecoupling(480, 17, prior_prob=0.2)
    layers = {name: layer for name, layer in gfd.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    assert len(layers) == 6
    for name, layer in layers.items():
        assert layer.weight.std().item() == pytest.approx(0.001, rel=0.25), name
        if name != "heatmaps":
            assert not layer.bias.any(), name
    torch.testing.assert_close(gfd.heatmaps.bias.sigmoid(), torch.full((17,), 0.2))


def test_layers_can_start_as_in_pytorch():
    torch.manual_seed(0)
    gfd = FeatureDecoupling(480, 17, init_std=0)
    torch.manual_seed(0)
    assert torch.equal(gfd.reduce.weight, nn.Conv2d(480, 32, kernel_size=1).weight)
    assert gfd.reduce.bias.any()
    assert gfd.heatmaps.weight.std().item() == pytest.approx(0.001, rel=0.25)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_relative_coordinates_in_half_precision(dtype):
    """Of a wide map, whose columns are too many for bfloat16's 8 bits and whose differences near a person are not."""
    gfd = FeatureDecoupling(4, 2, channels=3)
    nn.init.zeros_(gfd.mask.weight)
    gfd.mask.weight[0, 1, 2, 2] = 1.0
    features = torch.zeros(1, 4, 2, 600)
    people = People.at(features, torch.tensor([0]), torch.tensor([[497, 1]]))
    with torch.autocast("cpu", dtype=dtype):
        shared = gfd.prepare(features, own_cells(torch.tensor([(2, 600)]), features))
        logits = gfd.mask_logits(shared, people)
    columns = torch.arange(480, 510)
    assert logits[0, 0, 1, columns].float().tolist() == ((497 - columns) / 32).tolist()


def test_the_centre_map_is_smoothed_over_a_window():
    centers = torch.zeros(1, 13, 13)
    centers[0, 6, 6] = 0.9
    _, cells, scores = abstraction(smoothing=11, score_thresh=0.4).peaks(centers, torch.tensor([(13, 13)]))
    assert cells.tolist() == [[6, 6]]
    assert scores.tolist() == pytest.approx([0.9 * (1 + 1 / 121) / 2])


def test_table_1_has_no_parts_that_are_not_used():
    spatial = FeatureDecoupling(480, 17, recalibration=["spatial"])
    channel = FeatureDecoupling(480, 17, recalibration=["channel"])
    assert spatial.channel_weights is None
    assert channel.similarity_weights is None
    assert channel.mask is None
    paper = FeatureDecoupling(480, 17, channel_weights="feature")
    # without the two linear layers of 480 x 32 and 32 biases
    whole = sum(parameter.numel() for parameter in FeatureDecoupling(480, 17).parameters())
    assert sum(parameter.numel() for parameter in paper.parameters()) == whole - 2 * (480 * 32 + 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recalibration": []}, r"recalibration: expected 'spatial', 'channel' or both, got \[\]"),
        ({"recalibration": ["temporal"]}, "recalibration: expected .*'temporal'"),
        ({"channel_weights": "f"}, "channel_weights: expected one of 'linear', 'feature', got 'f'"),
    ],
)
def test_decoupling_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureDecoupling(8, 4, **arguments)


def decode(heatmaps, size=None, stride=4, score=0.5, **kwargs):
    heatmaps = torch.as_tensor(heatmaps)
    sizes = torch.tensor([size or heatmaps.shape[-2:]] * len(heatmaps))
    return decode_keypoints(heatmaps, sizes, torch.full((len(heatmaps),), score), stride, **kwargs)


def test_decoding_by_hand():
    heatmaps = torch.full((1, 2, 7, 9), 1e-4)
    # a peak whose right and upper neighbours are the higher ones
    heatmaps[0, 0, 3, 4], heatmaps[0, 0, 3, 5], heatmaps[0, 0, 2, 4] = 0.9, 0.6, 0.3
    # one without any difference
    heatmaps[0, 1] = 0
    heatmaps[0, 1, 4, 2] = 0.9
    keypoints = decode(heatmaps)[0]
    assert keypoints[0, :2].tolist() == [(4 + 0.25) * 4 + 2, (3 - 0.25) * 4 + 2]
    mean = (0.9 + 0.6 + 0.3 + 6 * 1e-4) / 9
    assert keypoints[0, 2].item() == pytest.approx((0.9 + mean) / 2 * 0.5)
    assert keypoints[1, :2].tolist() == [2 * 4 + 2, 4 * 4 + 2]
    # cells of pixel indices: index 4 u + 2 is half a pixel more in continuous pixels
    indices = decode(heatmaps, origin=0.5)[0]
    assert indices[:, :2].tolist() == [[4 * 4.25 + 2.5, 4 * 2.75 + 2.5], [2 * 4 + 2.5, 4 * 4 + 2.5]]
    assert torch.equal(indices[:, 2], keypoints[:, 2])
    # cell centres of a map of pixels, stride 1, are their indices
    torch.testing.assert_close(decode(heatmaps, stride=1)[0, 0, :2], torch.tensor([4.25, 2.75]))


def test_keypoints_are_smoothed_over_a_window():
    # one high cell against a plateau that is as wide as the window
    heatmaps = torch.zeros(1, 1, 20, 20)
    heatmaps[0, 0, 3, 15] = 0.9
    heatmaps[0, 0, 8:19, 1:12] = 0.49
    # (0.9 + 0.9 / 9) / 2 is more than 0.49; (0.9 + 0.9 / 121) / 2 is less
    assert decode(heatmaps)[0, 0].tolist() == pytest.approx([15 * 4 + 2, 3 * 4 + 2, 0.5 * 0.5])
    assert decode(heatmaps, smoothing=11)[0, 0].tolist() == pytest.approx([6 * 4 + 2, 13 * 4 + 2, 0.49 * 0.5])


def test_no_shift_across_the_border_of_the_image():
    heatmaps = torch.full((1, 4, 6, 6), 1e-4)
    for kind, (u, v) in enumerate([(0, 0), (3, 0), (0, 2), (3, 2)]):
        heatmaps[0, kind, v, u] = 0.9
        for neighbour, value in (((u + 1, v), 0.5), ((u, v + 1), 0.5)):
            heatmaps[0, kind, neighbour[1], neighbour[0]] = value
    # an image of 3 rows and 4 columns
    keypoints = decode(heatmaps, size=(3, 4), stride=4)
    assert keypoints[0, :, :2].tolist() == [[2, 2], [14, 2], [2, 10], [14, 10]]


def test_padding_has_no_keypoint():
    torch.manual_seed(0)
    heatmaps = torch.rand(3, 4, 8, 9)
    heatmaps[:, :, 5:] = 0.999
    heatmaps[:, :, :, 6:] = 0.999
    alone = decode(heatmaps[:, :, :5, :6].contiguous())
    torch.testing.assert_close(decode(heatmaps, size=(5, 6)), alone)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_maps_of_one_row_or_column(size):
    heatmaps = torch.full((2, 3, *size), 0.5)
    keypoints = decode(heatmaps)
    assert keypoints.shape == (2, 3, 3)
    assert keypoints.isfinite().all()


def test_peaks_agree_with_a_search_of_every_cell():
    torch.manual_seed(0)
    centers = torch.rand(1, 20, 30)
    _, cells, scores = abstraction(max_proposals=1000, score_thresh=0.0).peaks(centers, torch.tensor([(20, 30)]))
    smoothed = (centers + F.avg_pool2d(centers[:, None], 3, 1, 1)[:, 0]) / 2
    expected = {}
    for v in range(20):
        for u in range(30):
            around = smoothed[0, max(0, v - 1) : v + 2, max(0, u - 1) : u + 2]
            if smoothed[0, v, u] == around.max():
                expected[u, v] = smoothed[0, v, u].item()
    assert {tuple(cell): score for cell, score in zip(cells.tolist(), scores.tolist())} == pytest.approx(expected)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
