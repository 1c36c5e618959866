import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Keypoints
from PIL import Image

from dynpose.config import add_dynpose_config
from dynpose.data import (
    COCO_PERSON,
    DatasetError,
    KeypointSchema,
    PoseDatasetMapper,
    load_pose_json,
    register_pose_dataset,
)

SCHEMA = KeypointSchema(
    names=("nose", "left_wrist", "right_wrist"), flip_pairs=(("left_wrist", "right_wrist"),), sigmas=(0.1, 0.1, 0.1)
)


def make_mapper(*augmentations, schema=SCHEMA, is_train=True):
    return PoseDatasetMapper(is_train, augmentations=augmentations, image_format="BGR", schema=schema)


@pytest.fixture
def record(pose_files):
    """The image of 40 x 30 pixels with its person: box (10, 5) to (34, 25)."""
    return load_pose_json(pose_files.json_file, pose_files.image_root)[1]


def add_person(record, *, bbox, keypoints=None, iscrowd=0, category_id=0):
    person = {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category_id, "iscrowd": iscrowd}
    if keypoints is not None:
        person["keypoints"] = keypoints
    record["annotations"].append(person)


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
    @pytest.mark.skipif("DYNPOSE_TEST_DATA" not in os.environ, reason="DYNPOSE_TEST_DATA names no folder of real data")
    def test_same_as_detectron2_on_coco(self):
        folder = Path(os.environ["DYNPOSE_TEST_DATA"]) / "data/coco"
        augmentations = [T.Resize((200, 300)), T.HFlipTransform(300), T.CropTransform(20, 10, 250, 180)]
        mapper = make_mapper(*augmentations, schema=COCO_PERSON)
        reference = DatasetMapper(
            is_train=True,
            augmentations=augmentations,
            image_format="BGR",
            use_keypoint=True,
            keypoint_hflip_indices=COCO_PERSON.flip_indices,
        )
        records = load_pose_json(str(folder / "test_coco.json"), str(folder))
        for record in records:
            result, expected = mapper(record), reference(record)
            assert torch.equal(result["image"], expected["image"])
            instances, expected = result["instances"], expected["instances"]
            keep = expected.gt_boxes.nonempty(threshold=1.0)
            torch.testing.assert_close(instances.gt_boxes.tensor, expected.gt_boxes.tensor[keep])
            torch.testing.assert_close(instances.gt_keypoints.tensor, expected.gt_keypoints.tensor[keep])
            assert torch.equal(instances.gt_classes, expected.gt_classes[keep])


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
    def test_nobody(self, record, iscrowd):
        record["annotations"] = []
        if iscrowd:
            add_person(record, bbox=[0, 0, 30, 30], iscrowd=1)
        instances = make_mapper(T.HFlipTransform(40))(record)["instances"]
        assert len(instances) == 0
        assert instances.gt_boxes.tensor.shape == (0, 4)
        assert instances.gt_keypoints.tensor.shape == (0, 3, 3)
        assert instances.gt_classes.dtype == torch.int64

    def test_crop_keeps_somebody_with_keypoints(self, record):
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

    def test_redrawn_until_somebody_is_left(self, record):
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
