"""Test-time augmentation on models whose answer is known, by hand-worked numbers, and on real (untrained) networks."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from PIL import Image
from small_models import SCHEMA, SMALL, small_config, small_model
from torch import nn
from torch.nn import functional as F

from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, add_dynpose_config
from dynpose.data import COCO_PERSON, AffineResize, DatasetError, KeypointSchema
from dynpose.data.affine import matrix_to_original
from dynpose.engine import PosePredictor, main
from dynpose.modeling.test_time_augmentation import PoseTTA, ViewMaps, merge_poses, mirror_poses, resample_map
from dynpose.utils.finite import finite_instances

SIZE = (120, 160)
# head, left hand, right hand, foot of up to three people, who face the camera: their left is on the image's right
PEOPLE = [
    [(40.0, 20.0), (55.0, 62.0), (22.0, 58.0), (44.0, 100.0)],
    [(90.0, 25.0), (108.0, 55.0), (75.0, 66.0), (84.0, 95.0)],
    [(135.0, 18.0), (146.0, 60.0), (126.0, 60.0), (134.0, 104.0)],
]
SCORES = [0.9, 0.8, 0.7]


def picture(people=PEOPLE, size=SIZE):
    """uint8 (3, H, W): a colour channel for each person, a soft dot at each keypoint."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    image = torch.zeros(3, *size)
    for channel, person in enumerate(people):
        for px, py in person:
            image[channel] += 200 * torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2))
    return image.round().to(torch.uint8)


class DotReader(nn.Module):
    """Reads the keypoints out of the picture, whatever its size; the left hand is the one on the right.

    Args:
        bias (float): added to every x, pixels of the image that it sees.
        blind (callable): of an image (3, H, W) -> whether no person is found in it.
        hands (tuple[float, float]): confidence of the left and the right one.
    """

    def __init__(self, bias=0.0, blind=lambda image: False, hands=(0.6, 0.6)):
        super().__init__()
        self.bias, self.blind, self.hands = bias, blind, hands
        self.seen = []

    def forward(self, batched_inputs):
        self.seen.append([tuple(inputs["image"].shape[1:]) for inputs in batched_inputs])
        return [{"instances": self._read(inputs)} for inputs in batched_inputs]

    def _read(self, inputs):
        image = inputs["image"].double()
        height, width = image.shape[1:]
        poses, scores = [], []
        for dots, score in zip(image, SCORES):
            if dots.max() > 50 and not self.blind(image):
                poses.append(self._pose(dots))
                scores.append(score)
        instances = Instances((height, width))
        keypoints = torch.tensor(poses, dtype=torch.float32).reshape(-1, 4, 3)
        keypoints[..., 0] += self.bias
        points = keypoints[..., :2] if len(poses) else torch.zeros(0, 1, 2)
        instances.pred_boxes = Boxes(torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=1))
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.zeros(len(poses), dtype=torch.int64)
        instances.pred_keypoints = keypoints
        instances.extra = torch.zeros(len(poses))
        return detector_postprocess(instances, inputs["height"], inputs["width"])

    def _pose(self, dots):
        height, width = dots.shape
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")

        def center(mask):
            weight = dots * mask
            return [float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())]

        middle = (y > height / 3) & (y < height * 2 / 3)
        between = center(middle)[0]
        return [
            [*center(y < height / 3), 0.5],
            [*center(middle & (x > between)), self.hands[0]],
            [*center(middle & (x < between)), self.hands[1]],
            [*center(y > height * 2 / 3), 0.8],
        ]


def inputs(image=None, **more):
    image = picture() if image is None else image
    return {"image": image, "height": image.shape[1], "width": image.shape[2], **more}


def tta(model=None, schema=SCHEMA, min_sizes=(120,), max_size=1000, **kwargs):
    return PoseTTA(model or DotReader().eval(), schema=schema, min_sizes=min_sizes, max_size=max_size, **kwargs)


def found(*poses, scores, size=(100, 100), classes=None, boxes=None):
    """Instances of poses (K triples each)."""
    instances = Instances(size)
    if boxes is not None:
        instances.pred_boxes = Boxes(torch.tensor(boxes))
    instances.scores = torch.tensor(scores)
    instances.pred_classes = torch.tensor(classes or [0] * len(poses))
    instances.pred_keypoints = torch.tensor(poses)
    return instances


def assert_same(a, b, atol=0.0):
    assert a.image_size == b.image_size
    assert len(a) == len(b) > 0
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=atol)
    torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=0, atol=atol)
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=atol)
    assert a.pred_classes.tolist() == b.pred_classes.tolist()


def test_a_symmetric_and_scale_consistent_model_gives_the_same():
    model = DotReader().eval()
    plain = model([inputs()])[0]["instances"]
    torch.testing.assert_close(plain.pred_keypoints[..., :2], torch.tensor(PEOPLE), rtol=0, atol=0.1)
    augmented = tta(model, min_sizes=(80, 120, 200, 240))([inputs()])[0]["instances"]
    # the effect of resizing on round numbers of uint8 pixels
    assert_same(augmented, plain, atol=0.1)
    assert augmented.scores.tolist() == pytest.approx(SCORES)
    assert sorted(augmented.get_fields()) == ["pred_boxes", "pred_classes", "pred_keypoints", "scores"]
    flipped = tta(model)([inputs()])[0]["instances"]
    assert_same(flipped, plain, atol=1e-4)


def test_flipping_corrects_a_bias():
    model = DotReader(bias=2.0).eval()
    truth = DotReader().eval()([inputs()])[0]["instances"]
    biased = model([inputs()])[0]["instances"].pred_keypoints - truth.pred_keypoints
    torch.testing.assert_close(biased[..., 0], torch.full((3, 4), 2.0), rtol=0, atol=1e-4)
    assert_same(tta(model, match_oks=0.5)([inputs()])[0]["instances"], truth, atol=1e-4)
    # at half the size, the same two pixels are four; without the twins their mean is three
    both = tta(model, min_sizes=(120, 60), flip=False, match_oks=0.5)([inputs()])[0]["instances"].pred_keypoints
    torch.testing.assert_close((both - truth.pred_keypoints)[..., 0], torch.full((3, 4), 3.0), rtol=0, atol=0.2)


def test_one_view_is_the_model_itself():
    model = DotReader(bias=1.0).eval()
    assert_same(tta(model, flip=False)([inputs()])[0]["instances"], model([inputs()])[0]["instances"])


def test_views_are_made_once_each_with_its_twin():
    model = DotReader().eval()
    # 60 and 61 are one size once the longer side is capped
    tta(model, min_sizes=(120, 60, 61), max_size=80)([inputs()])
    assert model.seen == [[(60, 80), (60, 80)]]
    assert tta(min_sizes=(30, 60), max_size=1000).view_sizes(120, 160) == [(30, 40), (60, 80)]


def test_the_result_is_of_the_given_height_and_width():
    """A test loader gives resized images with their original size."""
    smaller = tta(min_sizes=(120, 60))([inputs() | {"height": 60, "width": 80}])[0]["instances"]
    assert smaller.image_size == (60, 80)
    expected = torch.tensor(PEOPLE) / 2
    torch.testing.assert_close(smaller.pred_keypoints[..., :2], expected, rtol=0, atol=0.1)


def test_images_of_several_sizes_and_without_people():
    images = [picture(), picture(PEOPLE[:1], (120, 80)), picture([], (50, 90))]
    results = [output["instances"] for output in tta(min_sizes=(120, 100))([inputs(image) for image in images])]
    assert [people.image_size for people in results] == [SIZE, (120, 80), (50, 90)]
    assert [len(people) for people in results] == [3, 1, 0]
    assert results[2].pred_keypoints.shape == (0, 4, 3)
    assert tta()([]) == []


def test_a_person_in_few_views_scores_less():
    # the mirrored views, where the right half is the darker one
    model = DotReader(blind=lambda image: image[..., :40].sum() < image[..., -40:].sum()).eval()
    image = picture(PEOPLE[:1])
    assert [len(model([inputs(view)])[0]["instances"]) for view in (image, image.flip(-1))] == [1, 0]
    people = tta(model)([inputs(image)])[0]["instances"]
    assert people.scores.tolist() == pytest.approx([0.45])
    torch.testing.assert_close(people.pred_keypoints[..., :2], torch.tensor(PEOPLE[:1]), rtol=0, atol=0.1)


def test_keeps_the_best():
    people = tta(max_detections=2)([inputs()])[0]["instances"]
    assert people.scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_files_and_float_images_are_the_same_image(tmp_path, kind):
    image = picture()
    Image.fromarray(image.flip(0).permute(1, 2, 0).numpy()).save(tmp_path / "image.png")  # PNG is RGB
    model = tta(min_sizes=(120, 77))
    from_file = model([{"file_name": str(tmp_path / "image.png")}])[0]["instances"]
    assert_same(from_file, model([inputs(image.to(kind))])[0]["instances"])


def test_files_that_would_lose_bits_are_refused(tmp_path):
    Image.fromarray(np.full(SIZE, 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DatasetError, match=r"deep\.png: .* more than 8 bits"):
        tta()([{"file_name": str(tmp_path / "deep.png")}])


def test_images_that_are_no_bytes_are_resized_too():
    people = tta(min_sizes=(240,), flip=False)([inputs(picture() / 255 * 250.5)])[0]["instances"]
    torch.testing.assert_close(people.pred_keypoints[..., :2], torch.tensor(PEOPLE), rtol=0, atol=0.1)


def test_inputs_stay_as_they_are_and_ground_truth_is_not_passed_on():
    class NoTruth(DotReader):
        def forward(self, batched_inputs):
            assert all("instances" not in view and view["image_id"] == 7 for view in batched_inputs)
            return super().forward(batched_inputs)

    given = inputs(image_id=7, instances="ground truth")
    before = dict(given)
    tta(NoTruth().eval())([given])
    assert given == before


def test_a_schema_with_other_pairs_is_noticed():
    unpaired = replace(SCHEMA, flip_pairs=())
    with pytest.raises(ValueError, match="would average 'left_hand' with 'right_hand': 1 left/right pairs by name"):
        tta(schema=unpaired)
    assert len(tta(schema=unpaired, flip=False)([inputs()])[0]["instances"]) == 3


def test_keypoints_without_a_twin_keep_their_place():
    # the hands are exchanged by the model, but by no name: their mean lies between them
    schema = KeypointSchema(names=("a", "b", "c", "d"), sigmas=SCHEMA.sigmas)
    plain = DotReader().eval()([inputs()])[0]["instances"].pred_keypoints
    people = tta(schema=schema, match_oks=0.01)([inputs()])[0]["instances"].pred_keypoints
    torch.testing.assert_close(people[:, [0, 3]], plain[:, [0, 3]], rtol=0, atol=1e-4)
    between = plain[:, 1:3].mean(dim=1)
    torch.testing.assert_close(people[:, 1], between, rtol=0, atol=1e-4)
    torch.testing.assert_close(people[:, 2], between, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_sizes": ()}, "min_sizes and max_size: expected one or more lengths"),
        ({"min_sizes": (0, 100)}, "min_sizes and max_size: expected one or more lengths"),
        ({"merge": "boxes"}, "merge: expected one of 'poses', 'maps', got 'boxes'"),
        ({"merge": "maps"}, "merge: DotReader provides no maps .* set it to 'poses'"),
        ({"affine_resize": True}, "affine_resize: expected False for DotReader, which does not read to_original"),
        ({"match_oks": 0.0}, r"match_oks: expected a number above 0 and at most 1, got 0\.0"),
        ({"confidence": "heat"}, "confidence: expected one of 'positive', 'logit', got 'heat'"),
    ],
)
def test_refuses_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tta(**arguments)


def test_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="160 x 1 pixels is too narrow"):
        tta(min_sizes=(10,), max_size=20)([inputs(torch.zeros(3, 1, 160, dtype=torch.uint8))])
    with pytest.raises(ValueError, match="proposals, which are of one view: remove them from the inputs"):
        tta()([inputs(proposals=None)])
    with pytest.raises(ValueError, match=r"has been resized by an affine warp \(to_original\): pass the image before"):
        tta()([inputs(to_original=np.eye(2, 3))])
    with pytest.raises(ValueError, match="the model predicts 4 keypoints of 3 numbers, the schema has 17"):
        tta(schema=COCO_PERSON)([inputs()])

    class WithoutKeypoints(DotReader):
        def _read(self, inputs):
            instances = super()._read(inputs)
            instances.remove("pred_keypoints")
            return instances

    with pytest.raises(ValueError, match="WithoutKeypoints predicts no pred_keypoints"):
        tta(WithoutKeypoints().eval())([inputs()])


class LogitReader(DotReader):
    """Its confidences are logits."""

    def _read(self, inputs):
        instances = super()._read(inputs)
        instances.pred_keypoints[..., 2] -= 3
        return instances


def test_logits_weight_keypoints_if_they_are_said_to_be():
    with pytest.raises(ValueError, match=r"LogitReader predicts negative keypoint confidences.*confidence='logit'"):
        tta(LogitReader().eval())([inputs()])
    a, b = [[0.0, 0.0, 0.0], [30.0, 30.0, 2.0]], [[4.0, 0.0, 1.0], [30.0, 30.0, 1.0]]
    merged = merge_poses([found(a, scores=[0.5]), found(b, scores=[0.5])], [0.1, 0.1], weight_of=torch.sigmoid)
    right = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(merged.pred_keypoints[0, 0], torch.tensor([4 * right / (right + 0.5), 0.0, 0.5]))
    people = tta(LogitReader().eval(), confidence="logit")([inputs()])[0]["instances"]
    assert_same(people, LogitReader().eval()([inputs()])[0]["instances"], atol=1e-4)


def test_confidences_of_the_hands_are_averaged():
    confidence = tta(DotReader(hands=(0.6, 0.7)).eval())([inputs()])[0]["instances"].pred_keypoints[0, :, 2]
    assert confidence.tolist() == pytest.approx([0.5, 0.65, 0.65, 0.8])


def test_warns_of_a_model_that_has_seen_no_mirrored_image(caplog):
    cfg = small_config()
    PoseTTA(cfg, DotReader())
    assert not caplog.text
    cfg.INPUT.RANDOM_FLIP = "none"
    PoseTTA(cfg, DotReader())
    assert "INPUT.RANDOM_FLIP is 'none'" in caplog.text
    caplog.clear()
    cfg.TEST.AUG.FLIP = False
    PoseTTA(cfg, DotReader())
    assert not caplog.text


def test_training_mode_is_the_models():
    assert not tta(DotReader().eval()).training
    assert tta(DotReader().train()).training


def test_merges_by_hand():
    # two people of 30 x 30 pixels, K = 2; the first in both views, the second in one
    a = [[10.0, 10.0, 0.5], [40.0, 40.0, 0.2]]
    a_again = [[13.0, 10.0, 0.25], [40.0, 42.0, 0.4]]
    b = [[60.0, 60.0, 0.9], [90.0, 90.0, 0.9]]
    views = [
        found(b, a, scores=[0.9, 0.8], boxes=[[60.0, 60.0, 90.0, 90.0], [10.0, 10.0, 40.0, 40.0]]),
        found(a_again, scores=[0.4], boxes=[[13.0, 10.0, 43.0, 43.0]]),
    ]
    merged = merge_poses(views, [0.1, 0.1])
    assert merged.image_size == (100, 100)
    assert merged.scores.tolist() == pytest.approx([(0.8 + 0.4) / 2, 0.9 / 2])
    # weights 0.8 * 0.5 and 0.4 * 0.25 = 4 : 1, then 0.8 * 0.2 and 0.4 * 0.4 = 1 : 1
    expected = [[10.6, 10.0, (0.8 * 0.5 + 0.4 * 0.25) / 1.2], [40.0, 41.0, (0.8 * 0.2 + 0.4 * 0.4) / 1.2]]
    torch.testing.assert_close(merged.pred_keypoints, torch.tensor([expected, b]))
    # weights 2 : 1
    torch.testing.assert_close(merged.pred_boxes.tensor[0], torch.tensor([11.0, 10.0, 41.0, 41.0]))
    torch.testing.assert_close(merged.pred_boxes.tensor[1], torch.tensor([60.0, 60.0, 90.0, 90.0]))


def test_merges_without_boxes_and_without_confidence():
    a, b = [[0.0, 0.0, 0.0], [30.0, 30.0, 0.0]], [[3.0, 0.0, 0.0], [30.0, 30.0, 0.5]]
    merged = merge_poses([found(a, scores=[0.2]), found(b, scores=[0.1])], [0.1, 0.1])
    assert not merged.has("pred_boxes")
    # no confidence in the first keypoint: by the scores alone, 2 : 1; of the second, only one view is sure
    expected = [[[1.0, 0.0, 0.0], [30.0, 30.0, 0.5 / 3]]]
    torch.testing.assert_close(merged.pred_keypoints, torch.tensor(expected))
    # scores of 0 leave the plain mean
    merged = merge_poses([found(a, scores=[0.0]), found(b, scores=[0.0]), found(b, scores=[0.0])], [0.1, 0.1])
    assert merged.pred_keypoints[0, 0].tolist() == [2.0, 0.0, 0.0]
    assert merged.scores.tolist() == [0.0]


def test_merges_within_a_class():
    pose = [[0.0, 0.0, 1.0], [30.0, 30.0, 1.0]]
    merged = merge_poses([found(pose, scores=[0.6], classes=[1]), found(pose, scores=[0.8], classes=[2])], [0.1, 0.1])
    assert merged.pred_classes.tolist() == [2, 1]
    assert merged.scores.tolist() == pytest.approx([0.4, 0.3])


def test_merges_views_without_fields():
    pose = [[0.0, 0.0, 1.0], [30.0, 30.0, 1.0]]
    empty = Instances((100, 100))
    merged = merge_poses([empty, found(pose, scores=[0.6])], [0.1, 0.1])
    assert merged.scores.tolist() == pytest.approx([0.3])
    assert not merge_poses([empty, empty], [0.1, 0.1]).get_fields()


class Diverged(DotReader):
    """The view's size determines which value of the first person is not finite; the second has an infinite keypoint."""

    def _read(self, inputs):
        instances = super()._read(inputs)
        if inputs["image"].shape[1] == 240:
            instances.scores[0] = math.nan
        else:
            instances.pred_boxes.tensor[0, 3] = math.inf
        instances.pred_keypoints[1, 2, 1] = -math.inf
        return instances


def test_what_is_not_finite_takes_no_part_in_the_merging_and_comes_last():
    views = {"min_sizes": (120, 240), "flip": True}
    people = tta(Diverged().eval(), **views)([inputs()])[0]["instances"]
    third = picture()
    third[:2] = 0
    assert_same(people[:1], tta(DotReader().eval(), **views)([inputs(third)])[0]["instances"][:1])
    # two people in each of four views
    assert finite_instances(people).tolist() == [True] + [False] * 8
    assert people.scores.isnan().sum() == 2
    assert people.pred_boxes.tensor.isinf().any(dim=1).sum() == 2
    assert (people.pred_keypoints[:, 1:3, 1] == -math.inf).any(dim=1).sum() == 4


def test_no_finite_predictions():
    class Lost(DotReader):
        def _read(self, inputs):
            instances = super()._read(inputs)
            instances.scores[:] = math.nan
            return instances

    people = tta(Lost().eval())([inputs()])[0]["instances"]
    assert len(people) == 6
    assert people.scores.isnan().all()
    assert not finite_instances(people).any()


def test_mirrors_by_hand():
    pose = [[10.0, 1.0, 0.1], [20.0, 2.0, 0.2], [30.0, 3.0, 0.3]]
    instances = found(pose, scores=[0.5], boxes=[[10.0, 1.0, 30.0, 3.0]])
    mirrored = mirror_poses(instances, torch.tensor([0, 2, 1]))
    expected = [[[90.0, 1.0, 0.1], [70.0, 3.0, 0.3], [80.0, 2.0, 0.2]]]
    torch.testing.assert_close(mirrored.pred_keypoints, torch.tensor(expected))
    assert mirrored.pred_boxes.tensor.tolist() == [[70.0, 1.0, 90.0, 3.0]]
    torch.testing.assert_close(instances.pred_keypoints, torch.tensor([pose]))
    torch.testing.assert_close(mirror_poses(mirrored, torch.tensor([0, 2, 1])).pred_keypoints, torch.tensor([pose]))


def row(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("values", "width", "mirrored", "target_cells", "target_width", "expected"),
    [
        # of stride 2: the same grid
        ((0.0, 1.0, 5.0, 3.0), 8, False, 4, 8, (0.0, 1.0, 5.0, 3.0)),
        ((0.0, 1.0, 5.0, 3.0), 8, True, 4, 8, (3.0, 5.0, 1.0, 0.0)),
        # the fourth cell reaches over the image's right edge: centres 1, 3, 5 are the mirror images of 6, 4, 2
        ((0.0, 1.0, 2.0, 3.0), 7, True, 4, 7, (2.5, 1.5, 0.5, 0.0)),
        # twice as fine: centres 1, 3, 5, 7 of 8 are 0.5, 1.5, 2.5, 3.5 of 4, cells -0.25, 0.25, 0.75, 1.25
        ((0.0, 2.0), 4, False, 4, 8, (0.0, 0.5, 1.5, 2.0)),
        ((0.0, 2.0), 4, True, 4, 8, (2.0, 1.5, 0.5, 0.0)),
        # half as fine: centres 1, 3 of 4 are 2, 6 of 8, between two cells
        ((0.0, 2.0, 4.0, 6.0), 8, False, 2, 4, (1.0, 5.0)),
    ],
)
def test_maps_are_resampled_by_hand(values, width, mirrored, target_cells, target_width, expected):
    resampled = resample_map(
        row(*values),
        stride=2,
        size=(2, width),
        mirrored=mirrored,
        target_shape=(1, target_cells),
        target_stride=2,
        target_size=(2, target_width),
    )
    torch.testing.assert_close(resampled, row(*expected))


MAP_SCHEMA = KeypointSchema(names=("nose", "left_ear", "right_ear"), flip_pairs=(("left_ear", "right_ear"),))


class MapReader(nn.Module):
    """Its maps are the picture's channels; the left ear's is the one with its weight further right.

    Args:
        shift (int): cells that everything is moved to the right.
    """

    def __init__(self, shift=0, combine="keypoints", channels=3):
        super().__init__()
        self.shift, self.combine, self.channels = shift, combine, channels

    def tta_maps(self, batched_inputs):
        image = torch.stack([view["image"] for view in batched_inputs]).float()
        height, width = image.shape[2:]
        image = F.pad(image, (0, -width % 4, 0, -height % 4))
        maps = F.avg_pool2d(image, 4).roll(self.shift, dims=-1)
        x = torch.arange(maps.shape[-1])
        center = (maps * x).sum(dim=(2, 3)) / maps.sum(dim=(2, 3))
        exchange = center[:, 1] < center[:, 2]
        maps[exchange] = maps[exchange][:, [0, 2, 1]]
        brightness = maps.sum(dim=1, keepdim=True)
        return {
            "keypoints": ViewMaps(maps[:, : self.channels], 4, self.combine),
            "brightness": ViewMaps(brightness, 4, "mean"),
            "features": ViewMaps(brightness * 2, 4, "stack"),
        }

    def tta_decode(self, maps, batched_inputs, mirrored):
        self.decoded = maps, batched_inputs, mirrored
        (view,) = batched_inputs
        keypoints = maps["keypoints"]
        values = keypoints.values[0].flatten(1)
        width = keypoints.values.shape[-1]
        scale = view["height"] / view["image"].shape[1]
        cells = torch.arange(values.shape[1])
        x = (values * (cells % width + 0.5)).sum(dim=1) / values.sum(dim=1) * keypoints.stride * scale
        y = (values * (cells // width + 0.5)).sum(dim=1) / values.sum(dim=1) * keypoints.stride * scale
        instances = Instances((view["height"], view["width"]))
        instances.pred_keypoints = torch.stack([x, y, torch.ones(3)], dim=1)[None]
        return [{"instances": instances}]


class AffineMapReader(MapReader):
    reads_to_original = True


EARS = [[(70.0, 60.0)], [(110.0, 50.0)], [(50.0, 58.0)]]


@pytest.mark.parametrize("size", [(120, 160), (117, 157)])
def test_maps_are_averaged(size):
    model = MapReader().eval()
    image = picture(EARS, size)
    alone = tta(model, MAP_SCHEMA, (size[0],), merge="maps", flip=False)([inputs(image)])[0]["instances"]
    torch.testing.assert_close(alone.pred_keypoints[0, :, :2], torch.tensor(EARS)[:, 0], rtol=0, atol=0.1)
    plain = model.decoded[0]
    flipped = tta(model, MAP_SCHEMA, (size[0],), merge="maps")([inputs(image)])[0]["instances"]
    torch.testing.assert_close(flipped.pred_keypoints, alone.pred_keypoints, rtol=0, atol=0.1)
    maps, (reference,), mirrored = model.decoded
    assert mirrored == [False, True]
    assert maps["features"].values.shape[:2] == (2, 1)
    assert maps["keypoints"].stride == 4
    torch.testing.assert_close(maps["features"].values[:1], plain["brightness"].values * 2)
    if size == (120, 160):  # with padding, the mirrored cells lie elsewhere
        torch.testing.assert_close(maps["keypoints"].values, plain["keypoints"].values)
        torch.testing.assert_close(maps["brightness"].values, plain["brightness"].values)
        torch.testing.assert_close(maps["features"].values[1:], maps["features"].values[:1])
    assert (reference["height"], reference["width"]) == size


def test_maps_of_several_sizes_meet_on_the_largest():
    model = MapReader().eval()
    people = tta(model, MAP_SCHEMA, (60, 240, 120), merge="maps")([inputs(picture(EARS))])[0]["instances"]
    maps, (reference,), mirrored = model.decoded
    assert reference["image"].shape == (3, 240, 320)
    assert maps["keypoints"].values.shape == (1, 3, 60, 80)
    assert maps["features"].values.shape == (6, 1, 60, 80)
    assert mirrored == [False, True] * 3
    torch.testing.assert_close(people.pred_keypoints[0, :, :2], torch.tensor(EARS)[:, 0], rtol=0, atol=0.5)


def test_averaged_maps_correct_a_bias():
    image = picture(EARS)
    for flip, expected in ((False, 4.0), (True, 0.0)):
        people = tta(MapReader(shift=1).eval(), MAP_SCHEMA, merge="maps", flip=flip)([inputs(image)])[0]["instances"]
        x = people.pred_keypoints[0, :, 0] - torch.tensor(EARS)[:, 0, 0]
        torch.testing.assert_close(x, torch.full((3,), expected), rtol=0, atol=0.1)


@pytest.mark.parametrize("size", [(480, 640), (425, 640), (640, 427), (375, 500)])
def test_affine_views_are_those_of_plain_testing(size):
    """Canvases of whole cells: the maps of the mirrored view are flipped back, and nothing is interpolated."""
    model = AffineMapReader().eval()
    image = torch.randint(0, 256, (3, *size), generator=torch.manual_seed(0), dtype=torch.uint8)
    tta(model, MAP_SCHEMA, (512,), 10000, merge="maps", affine_resize=True)([inputs(image)])
    maps, (view,), _ = model.decoded

    pixels = image.permute(1, 2, 0).numpy()
    resize = AffineResize(512).get_transform(pixels)
    expected = torch.as_tensor(resize.apply_image(pixels).transpose(2, 0, 1))
    assert torch.equal(view["image"], expected)
    assert np.array_equal(view["to_original"], matrix_to_original(T.TransformList([resize])))
    features = F.avg_pool2d(torch.stack([expected, expected.flip(-1)]).float(), 4).sum(dim=1, keepdim=True) * 2
    assert torch.equal(maps["features"].values[:1], features[:1])
    assert torch.equal(maps["features"].values[1:], features[1:].flip(-1))


def test_affine_views_of_several_sizes_meet_on_the_largest():
    """Margins differ from size to size: 21.3 of 704, 42.7 of 896 and 34.7 of 1408 pixels on both sides together."""
    model = AffineMapReader().eval()
    image = picture([[(40.0, 40.0)], [(60.0, 50.0)], [(30.0, 30.0)]], (480, 640))
    tta(model, MAP_SCHEMA, (512, 1024, 640, 1020), 10000, merge="maps", affine_resize=True)([inputs(image)])
    maps, (view,), mirrored = model.decoded
    assert view["image"].shape == (3, 1024, 1408)
    assert mirrored == [False, True] * 3
    features = maps["features"].values
    assert features.shape == (6, 1, 256, 352)
    for axis, cells in ((3, 352), (2, 256)):
        profile = features.sum(dim=(1, 5 - axis))
        centers = (profile * torch.arange(cells)).sum(dim=1) / profile.sum(dim=1)
        torch.testing.assert_close(centers, centers[:1].expand(6), rtol=0, atol=0.1)


class AffineDotReader(DotReader):
    """Reads ``to_original``, in which views have no other turns than a mirror's."""

    reads_to_original = True

    def _read(self, inputs):
        size = inputs["image"].shape[1:]
        instances = super()._read({**inputs, "height": size[0], "width": size[1]})
        (a, b, c), (d, e, f) = inputs["to_original"]
        assert b == d == 0
        scale, shift = torch.tensor([a, e], dtype=torch.float32), torch.tensor([c, f], dtype=torch.float32)
        mapped = Instances((inputs["height"], inputs["width"]), **instances.get_fields())
        mapped.pred_keypoints[..., :2] = mapped.pred_keypoints[..., :2] * scale + shift
        mapped.pred_boxes = Boxes(instances.pred_boxes.tensor * scale.repeat(2) + shift.repeat(2))
        return mapped


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(120, 160), (123, 161)])
def test_poses_of_affine_views_are_taken_back(height, width, factor):
    """The result may be of another size than the image; the margins of one of odd width are unequal."""
    given = inputs(picture(size=(height, width))) | {"height": height * factor, "width": width * factor}
    for min_sizes, tolerance in (((128,), 0.1), ((64, 128, 256), 0.2)):
        model = AffineDotReader().eval()
        people = tta(model, min_sizes=min_sizes, affine_resize=True)([given])[0]["instances"]
        assert people.image_size == (height * factor, width * factor)
        assert people.scores.tolist() == pytest.approx(SCORES)
        expected = torch.tensor(PEOPLE) * factor
        torch.testing.assert_close(people.pred_keypoints[..., :2], expected, rtol=0, atol=tolerance * factor)
    assert model.seen == [[(64, 128)] * 2, [(128, 192)] * 2, [(256, 384)] * 2]


def test_affine_views_are_for_models_that_read_the_way_back():
    cfg = small_config("configs/quick/cid_small.yaml")
    assert cfg.INPUT.AFFINE_RESIZE_TEST
    poses = small_config("configs/quick/cid_small.yaml", "TEST.AUG.MERGE", "poses")
    with pytest.raises(
        ConfigError, match=r"INPUT\.AFFINE_RESIZE_TEST is True, but DotReader does not support the transform back"
    ):
        PoseTTA(poses, DotReader())
    assert PoseTTA(cfg, AffineMapReader().eval()).view_sizes(120, 160) == [(512, 704)]
    cfg.INPUT.AFFINE_RESIZE_TEST = False
    assert PoseTTA(cfg, AffineMapReader().eval()).view_sizes(120, 160) == [(512, 683)]


def test_refuses_wrong_maps():
    with pytest.raises(ValueError, match=r"map 'keypoints': combine must be .*, got 'max'"):
        tta(MapReader(combine="max").eval(), MAP_SCHEMA, merge="maps")([inputs(picture(EARS))])
    with pytest.raises(ValueError, match=r"map 'keypoints' has 2 channels, .* needs one for each of the 3 keypoints"):
        tta(MapReader(channels=2).eval(), MAP_SCHEMA, merge="maps")([inputs(picture(EARS))])


@pytest.fixture(scope="module")
def keypoint_rcnn():
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_list([word for pair in zip(SMALL[::2], SMALL[1::2]) if "STEM" not in pair[0] for word in pair])
    cfg.merge_from_list(
        [
            *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
            *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8], "MODEL.RPN.POST_NMS_TOPK_TEST", 8),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "INPUT.MIN_SIZE_TEST", 96),
            *("TEST.AUG.MIN_SIZES", [96], "TEST.AUG.FLIP", False),
        ]
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    # FPN gives an untrained head features whose exponentials overflow
    model.roi_heads.keypoint_head.score_lowres.weight.data *= 1e-3
    return cfg, model


def test_keypoint_rcnn_with_one_view_is_itself(keypoint_rcnn):
    cfg, model = keypoint_rcnn
    image = torch.randint(0, 256, (3, 96, 128), generator=torch.manual_seed(1), dtype=torch.uint8)
    given = {"image": image, "height": 192, "width": 256}
    plain = model([given])[0]["instances"]
    assert len(plain) > 1
    # its third value is a positive score, no probability
    assert plain.pred_keypoints[..., 2].min() > 0
    assert_same(PoseTTA(cfg, model)([given])[0]["instances"], plain, atol=1e-6)


def test_keypoint_rcnn_is_augmented(keypoint_rcnn):
    _, model = keypoint_rcnn
    image = torch.randint(0, 256, (3, 96, 128), generator=torch.manual_seed(1), dtype=torch.uint8)
    given = {"image": image, "height": 192, "width": 256}
    augmented = PoseTTA(model, schema=COCO_PERSON, min_sizes=(64, 96), max_size=256, flip=True, match_oks=0.1)
    people = augmented([given])[0]["instances"]
    assert people.pred_keypoints.shape == (len(people), 17, 3)
    assert people.pred_keypoints.isfinite().all()
    assert (people.pred_keypoints[..., 2] > 0).all()
    assert (people.scores.diff() <= 0).all()
    # the mirrored image gives the mirrored people
    mirrored = augmented([given | {"image": image.flip(-1)}])[0]["instances"]
    assert_same(mirror_poses(mirrored, torch.as_tensor(COCO_PERSON.flip_indices)), people, atol=1e-3)


BASE = "configs/FCPose/Base-FCPose.yaml"
# an untrained model that finds people everywhere
OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 5, "INPUT.MIN_SIZE_TEST", 64)


@pytest.fixture(scope="module")
def fcpose_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    model = small_model(BASE, *OPTS)
    model.head.box_distances.bias.data.fill_(2.0)
    PoseCheckpointer(model, str(folder)).save("model_final")
    return str(folder / "model_final.pth")


def test_the_predictor_augments(fcpose_weights):
    image = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)
    plain = PosePredictor(small_config(BASE, *OPTS, "MODEL.WEIGHTS", fcpose_weights))(image)
    aug = ("TEST.AUG.ENABLED", True, "TEST.AUG.FLIP")
    cfg = small_config(BASE, *OPTS, "MODEL.WEIGHTS", fcpose_weights, *aug, False, "TEST.AUG.MIN_SIZES", [64])
    assert_same(PosePredictor(cfg)(image), plain)

    cfg = small_config(BASE, *OPTS, "MODEL.WEIGHTS", fcpose_weights, *aug, True, "TEST.AUG.MIN_SIZES", [64, 96])
    cfg.TEST.AUG.MAX_SIZE = 1000
    predictor = PosePredictor(cfg)
    both = [predictor(image), predictor(image[:, ::-1])]
    assert both[0].image_size == (90, 120)
    assert_same(mirror_poses(both[1], torch.as_tensor(SCHEMA.flip_indices)), both[0], atol=1e-2)
    assert len(both[0]) > len(plain)
    with pytest.raises(ValueError, match="5000 x 1 pixels is too narrow"):
        predictor.prepare(np.zeros((1, 5000, 3), np.uint8))


TINY = [
    *SMALL,
    *("DATASETS.SYNTHETIC.NUM_TRAIN", "2", "DATASETS.SYNTHETIC.NUM_VAL", "2"),
    *("DATASETS.SYNTHETIC.IMAGE_SIZE", "[64,64]", "DATALOADER.NUM_WORKERS", "0"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1", "TEST.EVAL_PERIOD", "0"),
    *("MODEL.FCOS.PRIOR_PROB", "0.5", "MODEL.FCOS.POST_NMS_TOPK_TEST", "5"),
    *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,96)"),
]


@pytest.mark.usefixtures("clean_run")
def test_a_run_evaluates_with_and_without_and_so_does_evaluation_alone(tmp_path):
    def arguments(output, *opts, eval_only=False):
        opts = [*TINY, "OUTPUT_DIR", str(output), *map(str, opts)]
        return SimpleNamespace(
            config_file="configs/quick/fcpose_synthetic.yaml", opts=opts, eval_only=eval_only, resume=False
        )

    results = main(arguments(tmp_path))
    assert list(results) == ["keypoints", "bbox", "keypoints_TTA", "bbox_TTA"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert "keypoints_TTA/AP" in lines[-1]
    plain, augmented = (
        json.loads((tmp_path / name / "coco_instances_results.json").read_text())
        for name in ("inference", "inference_TTA")
    )
    assert len(augmented) > len(plain) > 0
    truth = json.loads((tmp_path / "synthetic/val.json").read_text())
    assert {record["image_id"] for record in augmented} == {image["id"] for image in truth["images"]}

    root = ["DATASETS.SYNTHETIC.ROOT", tmp_path / "synthetic", "MODEL.WEIGHTS", tmp_path / "model_final.pth"]
    again = main(arguments(tmp_path / "again", *root, eval_only=True))
    assert list(again) == list(results)
    for task in results:
        assert again[task] == pytest.approx(results[task], nan_ok=True)
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.MERGE: merge: FCPose provides no maps"):
        main(arguments(tmp_path / "wrong", *root[:2], "TEST.AUG.MERGE", "maps"))
