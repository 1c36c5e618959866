import copy
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.structures import Boxes, BoxMode, Keypoints
from PIL import Image
from pycocotools import mask as mask_util

from dynpose.config import add_dynpose_config, load_config
from dynpose.data import (
    COCO_PERSON,
    AffineResize,
    AffineTransform,
    DatasetError,
    KeypointSchema,
    PoseDatasetMapper,
    RandomAffine,
    load_pose_json,
    register_pose_dataset,
    schema_to_cfg,
)

SCHEMA = KeypointSchema(
    names=("nose", "left_wrist", "right_wrist"), flip_pairs=(("left_wrist", "right_wrist"),), sigmas=(0.1, 0.1, 0.1)
)

needs_real_data = pytest.mark.skipif(
    "DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data"
)
COCO = Path(os.environ.get("DYNPOSE_TEST_DATA", "")) / "data/coco"


def make_mapper(*augmentations, schema=SCHEMA, is_train=True, **options):
    return PoseDatasetMapper(is_train, augmentations=augmentations, image_format="BGR", schema=schema, **options)


@pytest.fixture
def record(pose_files):
    """The image of 40 x 30 pixels with its person: box (10, 5) to (34, 25)."""
    return load_pose_json(pose_files.json_file, pose_files.image_root)[1]


def add_person(record, *, bbox, keypoints=None, iscrowd=0, category_id=0):
    person = {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category_id, "iscrowd": iscrowd}
    if keypoints is not None:
        person["keypoints"] = keypoints
    record["annotations"].append(person)


def unlabelled(segmentation):
    """A person of six columns and seven rows."""
    person = {"bbox": [2, 3, 6, 7], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "area": 42.0}
    return {**person, "iscrowd": 0, "keypoints": [0.5, 0.5, 0] * 3, "segmentation": segmentation}


class TestCoordinates:
    def test_unchanged(self, record):
        before = copy.deepcopy(record)
        result = make_mapper()(record)
        assert record == before
        assert result["image"].shape == (3, 30, 40)
        assert result["image"].dtype == torch.uint8
        assert {key: result[key] for key in ("height", "width", "image_id", "file_name")} == {
            key: record[key] for key in ("height", "width", "image_id", "file_name")
        }
        assert "annotations" not in result
        instances = result["instances"]
        assert instances.image_size == (30, 40)
        assert isinstance(instances.gt_boxes, Boxes)
        assert isinstance(instances.gt_keypoints, Keypoints)
        assert instances.gt_boxes.tensor.tolist() == [[10, 5, 34, 25]]
        assert instances.gt_classes.tolist() == [0]
        assert instances.gt_keypoints.tensor.tolist() == [[[15.5, 8.5, 2], [12.5, 20.5, 2], [30.5, 21.5, 1]]]

    def test_flip_makes_the_left_wrist_the_right_one(self, record):
        result = make_mapper(T.HFlipTransform(40))(record)
        instances = result["instances"]
        # x -> 40 - x, and the wrists change places
        assert instances.gt_keypoints.tensor.tolist() == [[[24.5, 8.5, 2], [9.5, 21.5, 1], [27.5, 20.5, 2]]]
        assert instances.gt_boxes.tensor.tolist() == [[6, 5, 30, 25]]
        # The white pixel, at the left wrist in the file, is where the right wrist is now.
        x, y, _ = instances.gt_keypoints.tensor[0, 2]
        assert result["image"][:, int(y), int(x)].tolist() == [255, 255, 255]
        assert result["image"].sum() == 3 * 255

    def test_flip_twice_is_the_identity(self, record):
        once, twice = make_mapper()(record), make_mapper(T.HFlipTransform(40), T.HFlipTransform(40))(record)
        assert torch.equal(once["image"], twice["image"])
        assert torch.equal(once["instances"].gt_keypoints.tensor, twice["instances"].gt_keypoints.tensor)
        assert torch.equal(once["instances"].gt_boxes.tensor, twice["instances"].gt_boxes.tensor)

    def test_resize(self, record):
        result = make_mapper(T.ResizeShortestEdge((60, 60), 1000))(record)
        instances = result["instances"]
        assert result["image"].shape == (3, 60, 80)
        assert (result["height"], result["width"]) == (30, 40)  # of the file
        assert instances.gt_keypoints.tensor.tolist() == [[[31, 17, 2], [25, 41, 2], [61, 43, 1]]]
        assert instances.gt_boxes.tensor.tolist() == [[20, 10, 68, 50]]

    def test_crop(self, record):
        instances = make_mapper(T.CropTransform(12, 10, 18, 20))(record)["instances"]
        assert instances.image_size == (20, 18)
        # The nose is above the crop; the right wrist, at x = 30.5, is right of it.
        assert instances.gt_keypoints.tensor.tolist() == [[[0, 0, 0], [0.5, 10.5, 2], [0, 0, 0]]]
        assert instances.gt_boxes.tensor.tolist() == [[0, 0, 18, 15]]

    def test_keypoint_on_the_far_edge_is_outside(self, record):
        record["annotations"][0]["keypoints"] = [20.0, 8.0, 2, 19.9, 15.0, 2, 0.0, 0.0, 2]
        instances = make_mapper(T.CropTransform(0, 0, 20, 15))(record)["instances"]
        visible = instances.gt_keypoints.tensor[0, :, 2].tolist()
        assert visible == [0, 0, 2]  # x = width; y = height; the near edges are inside

    @pytest.mark.filterwarnings("ignore:Creating a tensor from a list:UserWarning")  # detectron2's own mapper
    @needs_real_data
    def test_same_as_detectron2_on_coco(self):
        augmentations = [T.Resize((200, 300)), T.HFlipTransform(300), T.CropTransform(20, 10, 250, 180)]
        mapper = make_mapper(*augmentations, schema=COCO_PERSON)
        reference = DatasetMapper(
            is_train=True,
            augmentations=augmentations,
            image_format="BGR",
            use_keypoint=True,
            keypoint_hflip_indices=COCO_PERSON.flip_indices,
        )
        records = load_pose_json(str(COCO / "test_coco.json"), str(COCO))
        for record in records:
            result, expected = mapper(record), reference(record)
            assert torch.equal(result["image"], expected["image"])
            instances, expected = result["instances"], expected["instances"]
            keep = expected.gt_boxes.nonempty(threshold=1.0)
            torch.testing.assert_close(instances.gt_boxes.tensor, expected.gt_boxes.tensor[keep])
            torch.testing.assert_close(instances.gt_keypoints.tensor, expected.gt_keypoints.tensor[keep])
            assert torch.equal(instances.gt_classes, expected.gt_classes[keep])


# A triangle of 6 and a square of 4 pixels, which overlap
POLYGONS = [[2, 3, 6, 3, 2, 6], [2, 3, 4, 3, 4, 5, 2, 5]]
# Columns of 30 rows: a single run of 15 pixels
RLE = {"size": [30, 40], "counts": [33, 15, 1200 - 48]}


class TestAreas:
    @pytest.mark.parametrize(
        ("segmentation", "area"), [(POLYGONS, 10), (RLE, 15), (mask_util.frPyObjects(RLE, 30, 40), 15)]
    )
    def test_without_an_area_that_of_the_segmentation_counts(self, record, segmentation, area):
        person = unlabelled(segmentation)
        del person["area"]
        record["annotations"].append(person)
        before = copy.deepcopy(record)
        # (x, y) -> (2 x, 3 y), mirrored
        instances = make_mapper(T.Resize((90, 80)), T.HFlipTransform(80))(record)["instances"]
        assert instances.gt_areas.tolist() == [6 * 300, 6 * area]
        assert record == before

    def test_an_area_goes_before_the_segmentation(self, record):
        record["annotations"].append(unlabelled(POLYGONS))
        assert make_mapper()(record)["instances"].gt_areas.tolist() == [300, 42]

    @pytest.mark.parametrize("area", ["missing", None, math.nan])
    @pytest.mark.parametrize("segmentation", [None, [], [[1, 2, 3, 4]], {"size": [3, 4], "counts": [12]}])
    def test_without_either_that_of_the_box_counts(self, record, segmentation, area):
        """As in a file: the box has 6 x 7 pixels."""
        person = unlabelled(segmentation)
        del person["area"]
        record["annotations"].append(person if area == "missing" else {**person, "area": area})
        instances = make_mapper(T.Resize((60, 80)))(record)["instances"]
        assert instances.gt_areas.tolist() == [4 * 300, 4 * 42]

    def test_of_no_people(self, record):
        record["annotations"] = []
        assert make_mapper()(record)["instances"].gt_areas.shape == (0,)

    @needs_real_data
    def test_the_released_inspose_on_detectron2s_own_data_set(self):
        """Its dicts have no area, but the file has: COCO's is that of the polygons."""
        cfg = load_config("configs/InsPose/R_50_3x_release.yaml", ["INPUT.MIN_SIZE_TRAIN", "(640,)"])
        schema_to_cfg(cfg, COCO_PERSON)
        mapper = PoseDatasetMapper(cfg, is_train=True)
        expected = {
            (annotation["image_id"], tuple(annotation["bbox"])): annotation["area"]
            for annotation in json.loads((COCO / "test_coco.json").read_text())["annotations"]
        }
        people = 0
        for record in load_coco_json(str(COCO / "test_coco.json"), str(COCO)):
            assert not any("area" in annotation for annotation in record["annotations"])
            instances = mapper(record)["instances"]
            scale = np.prod(instances.image_size) / (record["height"] * record["width"])
            areas = [
                expected[record["image_id"], tuple(annotation["bbox"])] * scale
                for annotation in record["annotations"]
                if not annotation["iscrowd"]
            ]
            np.testing.assert_allclose(instances.gt_areas.numpy(), areas, rtol=1e-4)
            people += len(areas)
        assert people > 10


class TestAffine:
    # Twice as large and a quarter turn: (x, y) -> (2 y + 1, 82 - 2 x), of 40 x 30 onto 64 x 84
    TURN = AffineTransform([[0, 2, 1], [-2, 0, 82]], (40, 30), (64, 84))

    def test_image_people_and_mask_go_together(self, record):
        record["annotations"].append(unlabelled([[2, 3, 8, 3, 8, 10, 2, 10]]))
        result = make_mapper(self.TURN, ignore_masks=True)(record)
        instances = result["instances"]
        assert instances.image_size == (84, 64)
        assert instances.gt_keypoints.tensor[0].tolist() == [[18, 51, 2], [42, 57, 2], [44, 21, 1]]
        assert instances.gt_boxes.tensor.tolist() == [[11, 14, 51, 62], [7, 66, 21, 78]]
        assert instances.gt_areas.tolist() == [4 * 300, 4 * 42]
        # The white pixel is the four around the left wrist
        bright = torch.nonzero(result["image"][0] > 100).float()
        assert (bright.mean(dim=0) + 0.5).tolist() == [57, 42]
        expected = torch.zeros(84, 64, dtype=torch.bool)
        expected[66:78, 7:21] = True
        assert torch.equal(result["ignore_mask"], expected)

    def test_what_cutting_and_upright_boxes_lose(self, record):
        """A turn by 45 degrees and twice as large, of which the right half is cut off; two people without keypoints."""
        record["annotations"].append(unlabelled(None))
        add_person(record, bbox=[12, 10, 4.5, 2])
        turn = AffineTransform([[2**0.5, -(2**0.5), 20], [2**0.5, 2**0.5, 0]], (40, 30), (32, 80))
        instances = make_mapper(turn)(record)["instances"]
        assert instances.gt_boxes.tensor[0, 2] == 32
        assert instances.gt_boxes.area()[1] > 2 * 4 * 42

        def turned(x, y):
            return [20 + 2**0.5 * (x - y), 2**0.5 * (x + y)]

        corners = instances.gt_box_corners
        x, y, width, height = record["annotations"][0]["bbox"]
        expected = [turned(x, y), turned(x + width, y), turned(x, y + height), turned(x + width, y + height)]
        np.testing.assert_allclose(corners[0], expected, rtol=1e-5)
        sides = (corners[:, 1:3] - corners[:, :1]).norm(dim=2)
        np.testing.assert_allclose(sides.prod(dim=1), [4 * 24 * 20, 4 * 42, 4 * 9], rtol=1e-5)
        # of the keypoints, the last one is outside
        assert instances.gt_keypoints.tensor[0, :, 2].tolist() == [2, 2, 0]
        expected = [(*turned(15.5, 8.5), 2), (*turned(12.5, 20.5), 2), (*turned(30.5, 21.5), 1)]
        np.testing.assert_allclose(instances.gt_uncropped_keypoints[0], expected, rtol=1e-5)
        assert not instances.gt_uncropped_keypoints[1:].any()
        assert {values.dtype for values in (corners, instances.gt_uncropped_keypoints)} == {torch.float32}

    def test_flip_after_it_exchanges_left_and_right(self, record):
        instances = make_mapper(self.TURN, T.RandomFlip(prob=1.0))(record)["instances"]
        assert instances.gt_keypoints.tensor[0].tolist() == [[46, 51, 2], [20, 21, 1], [22, 57, 2]]
        assert torch.equal(instances.gt_uncropped_keypoints, instances.gt_keypoints.tensor)
        assert instances.gt_areas[0] == 4 * 300

    def test_drawn_again_until_a_person_is_left(self, record):
        """Of 30 of the 40 columns most warps show the middle, and not the four where the person is."""
        record["annotations"][0].update(bbox=[36, 12, 4, 6], keypoints=[38.5, 15.5, 2] * 3)
        augmentation = RandomAffine(64, scale=(1.0, 1.0))
        lost_at_first, lost = 0, 0
        for seed in range(40):
            np.random.seed(seed)
            transform = augmentation.get_transform(np.zeros((30, 40, 3), np.uint8))
            lost_at_first += transform.apply_box(np.array([[36.0, 12.0, 40.0, 18.0]]))[0, 0] > 63
            np.random.seed(seed)
            lost += len(make_mapper(augmentation)(record)["instances"]) == 0
        assert lost_at_first > 20
        assert lost < 10

    def test_from_config(self, record):
        cfg = make_cfg(crop=0.5)
        cfg.INPUT.AFFINE.ENABLED = True
        cfg.INPUT.AFFINE.SIZE = [48, 32]
        cfg.INPUT.IGNORE_MASKS = True
        result = PoseDatasetMapper(cfg, True)(record)
        assert result["image"].shape == (3, 32, 48)
        assert result["ignore_mask"].shape == (32, 48)


class TestIgnoreMask:
    def test_only_where_asked_for(self, record):
        assert "ignore_mask" not in make_mapper()(record)
        assert "ignore_mask" not in make_mapper(is_train=False, ignore_masks=True)(record)

    def test_no_people_to_ignore(self, record):
        mask = make_mapper(T.ResizeShortestEdge((60, 60), 1000), ignore_masks=True)(record)["ignore_mask"]
        assert mask.dtype == torch.bool
        assert mask.shape == (60, 80)
        assert not mask.any()

    def test_no_annotations(self, record):
        record["annotations"] = []
        assert not make_mapper(ignore_masks=True)(record)["ignore_mask"].any()

    @pytest.mark.parametrize(
        ("augmentations", "rows", "columns"),
        [
            ([], (3, 10), (2, 8)),
            ([T.HFlipTransform(40)], (3, 10), (32, 38)),
            ([T.ResizeShortestEdge((60, 60), 1000)], (6, 20), (4, 16)),
            ([T.CropTransform(4, 5, 30, 20)], (0, 5), (0, 4)),
            # detectron2's change of colours leaves a mask alone
            ([T.RandomBrightness(0.5, 0.5)], (3, 10), (2, 8)),
        ],
    )
    @pytest.mark.parametrize("as_rle", [False, True])
    def test_follows_the_image(self, record, augmentations, rows, columns, as_rle):
        segmentation = [[2, 3, 8, 3, 8, 10, 2, 10]]
        if as_rle:  # down the columns of 30: two of them and three rows, six times seven rows, the rest
            segmentation = {"size": [30, 40], "counts": [63, *[7, 23] * 5, 7, 40 * 30 - 63 - 7 - 150]}
        record["annotations"].append(unlabelled(segmentation))
        expected = torch.zeros(make_mapper(*augmentations)(record)["image"].shape[1:], dtype=torch.bool)
        expected[slice(*rows), slice(*columns)] = True
        result = make_mapper(*augmentations, ignore_masks=True)(record)
        assert torch.equal(result["ignore_mask"], expected)
        assert len(result["instances"]) == 2  # still a box

    def test_segmentation_of_the_labelled_is_not_read(self, record):
        record["annotations"][0]["segmentation"] = "of no kind"
        assert not make_mapper(ignore_masks=True)(record)["ignore_mask"].any()

    def test_malformed(self, record):
        record["annotations"].append(unlabelled([[1, 2, 3]]))
        make_mapper()(record)
        with pytest.raises(DatasetError, match=r"a\.png: an annotation's segmentation has a polygon .*; correct it"):
            make_mapper(ignore_masks=True)(record)

    def test_from_the_file_to_the_mask(self, pose_files):
        """Compressed and uncompressed runs, polygons, and a box, each with its row of pixels, in JSON."""
        rows = {}
        for row in range(3):
            mask = np.zeros((30, 40), np.uint8)
            mask[row] = 1
            rows[row] = mask_util.encode(np.asfortranarray(mask))["counts"].decode()
        people = [
            {"segmentation": {"size": [30, 40], "counts": rows[0]}, "iscrowd": 1},
            {"segmentation": {"size": [30, 40], "counts": [1, *[1, 29] * 39, 1, 28]}, "iscrowd": 1},
            {"segmentation": [[0, 2, 40, 2, 40, 3, 0, 3]]},
            {"iscrowd": 1, "bbox": [0, 3, 40, 1]},
            {"segmentation": [], "bbox": [0, 20, 40, 10]},
        ]
        shared = {"image_id": 7, "category_id": 5, "bbox": [0, 0, 40, 4], "keypoints": [0] * 9}
        pose_files.data["annotations"] += [{"id": 20 + i, **shared, **person} for i, person in enumerate(people)]
        pose_files.save()
        expected = torch.zeros(30, 40, dtype=torch.bool)
        expected[:4] = True
        for load in (load_pose_json, load_coco_json):
            record = load(pose_files.json_file, pose_files.image_root)[1]
            assert torch.equal(make_mapper(ignore_masks=True)(record)["ignore_mask"], expected)

    @needs_real_data
    def test_same_from_detectron2s_loader_on_coco(self):
        files = str(COCO / "test_coco.json"), str(COCO)
        mapper = make_mapper(schema=COCO_PERSON, ignore_masks=True)
        annotations = json.loads((COCO / "test_coco.json").read_text())["annotations"]
        areas = []
        for record, other in zip(load_pose_json(*files), load_coco_json(*files)):
            result = mapper(record)["ignore_mask"]
            assert torch.equal(mapper(other)["ignore_mask"], result)
            expected = np.zeros(result.shape, np.uint8)
            for annotation in annotations:
                if annotation["image_id"] == record["image_id"] and annotation["num_keypoints"] == 0:
                    rles = mask_util.frPyObjects(annotation["segmentation"], *result.shape)
                    expected |= mask_util.decode(mask_util.merge(rles))
            assert np.array_equal(result.numpy(), expected)
            areas.append(int(result.sum()))
        # One small person in each of two images
        assert [area > 0 for area in areas] == [False, True, True, False]

    @needs_real_data
    def test_affine_on_coco(self):
        """The warped mask covers what the warped polygon does."""
        mapper = make_mapper(RandomAffine(512), schema=COCO_PERSON, ignore_masks=True)
        record = load_pose_json(str(COCO / "test_coco.json"), str(COCO))[1]
        (polygon,) = next(person["segmentation"] for person in record["annotations"] if "segmentation" in person)
        compared = 0
        for seed in range(10):
            np.random.seed(seed)
            mask = mapper(record)["ignore_mask"].numpy()
            np.random.seed(seed)
            transform = RandomAffine(512).get_transform(np.zeros((record["height"], record["width"], 3), np.uint8))
            points = transform.apply_coords(np.reshape(polygon, (-1, 2)))
            if points.min() < 0 or points.max() > 512:
                continue
            expected = mask_util.decode(mask_util.frPyObjects([points.reshape(-1).tolist()], 512, 512)[0]).astype(bool)
            assert (mask & expected).sum() / (mask | expected).sum() > 0.85  # 10 pixels wide in the original
            compared += 1
        assert compared >= 5


class TestPeople:
    def test_person_without_keypoints_stays_as_a_box(self, record):
        add_person(record, bbox=[0, 0, 5, 5])
        instances = make_mapper()(record)["instances"]
        assert len(instances) == 2
        assert instances.gt_boxes.tensor[1].tolist() == [0, 0, 5, 5]
        assert instances.gt_keypoints.tensor[1].tolist() == [[0, 0, 0]] * 3

    def test_crowds_and_empty_boxes_are_dropped(self, record):
        add_person(record, bbox=[0, 0, 30, 30], iscrowd=1)
        add_person(record, bbox=[4, 4, 0, 9])
        add_person(record, bbox=[50, 4, 9, 9])  # outside the image
        add_person(record, bbox=[39.5, 4, 9, 9])  # half a pixel of it inside
        assert make_mapper()(record)["instances"].gt_boxes.tensor.tolist() == [[10, 5, 34, 25]]

    @pytest.mark.parametrize("iscrowd", [None, 1])
    def test_no_people(self, record, iscrowd):
        record["annotations"] = []
        if iscrowd:
            add_person(record, bbox=[0, 0, 30, 30], iscrowd=1)
        instances = make_mapper(T.HFlipTransform(40))(record)["instances"]
        assert len(instances) == 0
        assert instances.gt_boxes.tensor.shape == (0, 4)
        assert instances.gt_keypoints.tensor.shape == (0, 3, 3)
        assert instances.gt_classes.dtype == torch.int64

    def test_crop_keeps_a_person_with_keypoints(self, record):
        """Over many seeds; a person without labelled keypoints does not count as long as there is another."""
        add_person(record, bbox=[0, 20, 4, 10], keypoints=[0.5, 0.5, 0] * 3, category_id=1)
        mapper = PoseDatasetMapper(make_cfg(crop=0.2), True)
        for seed in range(300):
            np.random.seed(seed)
            instances = mapper(record)["instances"]
            keypoints = instances.gt_keypoints.tensor
            assert 0 in instances.gt_classes
            inside = (keypoints[..., 0] < instances.image_size[1]) & (keypoints[..., 1] < instances.image_size[0])
            assert inside.all()
            assert (keypoints[keypoints[..., 2] == 0] == 0).all()

    def test_redrawn_until_a_person_is_left(self, record):
        class CropsAwayAtFirst(T.Augmentation):
            draws = 0

            def get_transform(self, image):
                self.draws += 1
                return T.CropTransform(0, 0, 5, 5) if self.draws < 4 else T.NoOpTransform()

        augmentation = CropsAwayAtFirst()
        result = make_mapper(augmentation)(record)
        assert augmentation.draws == 4
        assert len(result["instances"]) == 1
        assert result["image"].shape == (3, 30, 40)

    def test_redrawing_ends(self, record):
        result = make_mapper(T.CropTransform(0, 0, 5, 5))(record)
        assert len(result["instances"]) == 0
        assert result["image"].shape == (3, 5, 5)


def as_arrays(annotation, integer, dtype):
    """A custom loader may give NumPy numbers, and arrays instead of lists."""
    arrays = {key: np.array(annotation[key], dtype) for key in ("bbox", "keypoints") if key in annotation}
    numbers = {key: integer(annotation[key]) for key in ("category_id", "iscrowd")}
    return {**annotation, **arrays, **numbers}


class TestArrays:
    @pytest.mark.parametrize(("integer", "dtype"), [(np.int64, np.float64), (np.int32, np.float32)])
    def test_as_lists(self, record, integer, dtype):
        """With a crowd without a segmentation, a person without keypoints, and a box by its corners."""
        add_person(record, bbox=[0, 0, 5, 6], iscrowd=1)
        add_person(record, bbox=[20, 3, 5, 6])
        add_person(record, bbox=[1, 2, 9, 8], keypoints=[3.5, 4.5, 2, 0.5, 0.5, 0, 5.5, 6.5, 1])
        record["annotations"][-1].update(bbox=[1, 2, 10, 10], bbox_mode=BoxMode.XYXY_ABS)
        arrays = {**record, "image_id": integer(7), "height": integer(30), "width": integer(40)}
        arrays["annotations"] = [as_arrays(annotation, integer, dtype) for annotation in record["annotations"]]
        before = copy.deepcopy(arrays)
        mapper = make_mapper(T.HFlipTransform(40), ignore_masks=True)
        result, expected = mapper(arrays), mapper(record)
        assert len(expected["instances"]) == 3
        for name, value in expected["instances"].get_fields().items():
            ours = result["instances"].get(name)
            ours, value = getattr(ours, "tensor", ours), getattr(value, "tensor", value)
            torch.testing.assert_close(ours, value, rtol=0, atol=0, equal_nan=True)
        assert result["instances"].gt_boxes.tensor.tolist() == [[6, 5, 30, 25], [15, 3, 20, 9], [30, 2, 39, 10]]
        assert result["instances"].gt_uncropped_keypoints[2].tolist() == [[36.5, 4.5, 2], [34.5, 6.5, 1], [0, 0, 0]]
        assert torch.equal(result["ignore_mask"], expected["ignore_mask"])
        for one, other in zip(arrays["annotations"], before["annotations"]):
            assert all(np.array_equal(one[key], other[key]) for key in other)

    def test_integers_are_not_truncated(self, record):
        """A box of integers, three fifths as large."""
        record["annotations"][0].update(bbox=[11, 7, 19, 20], bbox_mode=BoxMode.XYWH_ABS)
        instances = make_mapper(T.ResizeTransform(30, 40, 18, 24))(record)["instances"]
        torch.testing.assert_close(instances.gt_boxes.tensor[0], torch.tensor([6.6, 4.2, 18.0, 16.2]))
        corners = [[6.6, 4.2], [18.0, 4.2], [6.6, 16.2], [18.0, 16.2]]
        torch.testing.assert_close(instances.gt_box_corners[0], torch.tensor(corners))

    def test_keypoints_by_rows(self, record):
        """(K, 3), and on a tensor as well."""
        rows = np.reshape(record["annotations"][0]["keypoints"], (3, 3))
        expected = make_mapper(ignore_masks=True)(record)["instances"].gt_keypoints.tensor
        for keypoints in (rows, torch.tensor(rows)):
            record["annotations"][0]["keypoints"] = keypoints
            result = make_mapper(ignore_masks=True)(record)
            assert torch.equal(result["instances"].gt_keypoints.tensor, expected)
            assert not result["ignore_mask"].any()

    def test_none_and_of_another_schema(self, record):
        record["annotations"][0]["keypoints"] = np.zeros((0, 3))
        assert make_mapper()(record)["instances"].gt_keypoints.tensor.tolist() == [[[0, 0, 0]] * 3]
        record["annotations"][0]["keypoints"] = np.zeros((4, 3))
        with pytest.raises(DatasetError, match=r"a\.png: an annotation has 12 keypoint numbers .* 3 keypoints .* 9"):
            make_mapper()(record)


class TestBadInput:
    def test_truncated_image(self, record, tmp_path):
        path = tmp_path / "cut.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-500])
        record["file_name"] = str(path)
        with pytest.raises(DatasetError, match=r"cut\.jpg: the image cannot be read \(.*\); it may be damaged"):
            make_mapper()(record)

    def test_not_an_image(self, record, pose_files):
        record["file_name"] = pose_files.json_file
        with pytest.raises(DatasetError, match=r"people\.json: the image cannot be read"):
            make_mapper(is_train=False)(record)

    def test_missing_image(self, record):
        record["file_name"] = "gone.jpg"
        with pytest.raises(DatasetError, match=r"gone\.jpg: the image does not exist; check"):
            make_mapper()(record)

    def test_image_of_another_size(self, record):
        record["width"] = 41
        with pytest.raises(DatasetError, match=r"a\.png: the image is 40 x 30 pixels, its annotation says 41 x 30"):
            make_mapper()(record)

    def test_annotation_of_another_schema(self, record):
        with pytest.raises(DatasetError, match=r"a\.png: an annotation has 9 keypoint numbers .* 17 keypoints .* 51"):
            make_mapper(schema=COCO_PERSON)(record)

    def test_training_needs_a_schema(self):
        with pytest.raises(ValueError, match="needs the schema"):
            make_mapper(schema=None)


def test_exif_orientation_is_applied(record, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to see it upright
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (30, 40)).save(path, exif=exif)
    record["file_name"] = str(path)
    assert make_mapper()(record)["image"].shape == (3, 30, 40)


def test_size_is_added_where_it_is_missing(record):
    del record["height"], record["width"]
    result = make_mapper(T.ResizeShortestEdge((60, 60), 1000), is_train=False, schema=None)(record)
    assert (result["height"], result["width"]) == (30, 40)


def test_inference_gives_the_image_alone(record):
    result = make_mapper(T.ResizeShortestEdge((60, 60), 1000), is_train=False, schema=None)(record)
    assert set(result) == {"file_name", "height", "width", "image_id", "image"}
    assert result["image"].shape == (3, 60, 80)


class TestToOriginal:
    def test_affine_resize(self, record):
        result = make_mapper(AffineResize(64), is_train=False, schema=None)(record)
        assert result["image"].shape == (3, 64, 128)
        back = result["to_original"]
        assert back.shape == (2, 3)
        # The middle 20, 15 of the pixel indices becomes 64, 32, in either half a pixel more in continuous ones
        np.testing.assert_allclose(back @ [64.5, 32.5, 1], [20.5, 15.5], atol=1e-9)
        np.testing.assert_allclose(back[:, :2], np.eye(2) * 30 / 64, atol=1e-12)

    def test_other_resizes_need_none(self, record):
        assert "to_original" not in make_mapper(T.ResizeShortestEdge((60, 60), 1000), is_train=False)(record)

    def test_none_in_training(self, record):
        assert "to_original" not in make_mapper(AffineResize(64))(record)

    def test_from_config(self, record):
        cfg = make_cfg()
        cfg.INPUT.MIN_SIZE_TEST = 100
        cfg.INPUT.AFFINE_RESIZE_TEST = True
        result = PoseDatasetMapper(cfg, False)(record)
        assert result["image"].shape == (3, 128, 192)
        assert "to_original" in result


def make_cfg(*, crop=None, **datasets):
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (60,)
    cfg.INPUT.CROP.ENABLED = crop is not None
    cfg.INPUT.CROP.SIZE = [crop or 1.0] * 2
    cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.KEYPOINT_SCHEMA.NAMES = SCHEMA.names
    cfg.MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS = SCHEMA.flip_pairs
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    for key, value in datasets.items():
        setattr(cfg.DATASETS, key, value)
    return cfg


@pytest.mark.usefixtures("catalogs")
class TestInDetectron2:
    def test_train_loader(self, pose_files):
        """As its user calls it: the mapper registers the data sets of the config; images without keypoints stay out."""
        entry = {"name": "test_people", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry], TRAIN=("test_people",), crop=0.6)
        loader = build_detection_train_loader(cfg, mapper=PoseDatasetMapper(cfg, True))
        batch = next(iter(loader))
        assert [item["image_id"] for item in batch] == [7, 7]
        assert all(item["instances"].gt_keypoints.tensor.shape[1:] == (3, 3) for item in batch)

    def test_test_loader(self, pose_files):
        register_pose_dataset("test_people", pose_files.json_file, pose_files.image_root)
        cfg = make_cfg()
        loader = build_detection_test_loader(cfg, "test_people", mapper=PoseDatasetMapper(cfg, False))
        assert [item["image_id"] for batch in loader for item in batch] == [3, 7]

    def test_data_set_must_fit_the_config(self, pose_files):
        entry = {"name": "test_people", "json_file": pose_files.json_file, "image_root": pose_files.image_root}
        cfg = make_cfg(POSE=[entry], TRAIN=("test_people",))
        cfg.MODEL.KEYPOINT_SCHEMA.NAMES = list(COCO_PERSON.names)
        cfg.MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS = []
        with pytest.raises(DatasetError, match="'test_people' has 3"):
            PoseDatasetMapper(cfg, True)
        assert "test_people" in DatasetCatalog
