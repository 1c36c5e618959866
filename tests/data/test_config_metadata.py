"""Metadata of data sets that are not registered: detectron2's DefaultPredictor and Visualizer draw limbs."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer

from dynpose.config import load_config
from dynpose.data import KeypointSchema, register_pose_dataset
from dynpose.data.config_metadata import fill_metadata

SCHEMA = KeypointSchema(("head", "left_hand", "right_hand"), (("left_hand", "right_hand"),), ((0, 1), (0, 2)))
OTHER = KeypointSchema(("nose", "tail"), skeleton=((0, 1),))


@pytest.fixture
def cfg(catalogs):
    return load_config("", ["DATASETS.TEST", "('mine_val',)", "MODEL.CLASS_NAMES", "['dancer']"])


def rules(name):
    return [rule[:2] for rule in MetadataCatalog.get(name).get("keypoint_connection_rules", ())]


@pytest.mark.usefixtures("catalogs")
@pytest.mark.parametrize("asked_before", [False, True], ids=["fresh", "demo"])
def test_detectron2s_visualizer_draws_limbs(small_run, asked_before):
    """The picture is the one with metadata that are set by hand."""
    cfg = load_config(
        small_run.config, ["DATASETS.TEST", f"('mine_{asked_before}',)", "MODEL.WEIGHTS", small_run.weights]
    )
    held = MetadataCatalog.get(cfg.DATASETS.TEST[0]) if asked_before else None
    image = np.random.RandomState(0).randint(0, 256, (120, 160, 3)).astype(np.uint8)
    predictor = DefaultPredictor(cfg)
    assert held is None or held is predictor.metadata
    people = predictor(image)["instances"].to("cpu")
    people.pred_keypoints[..., 2] = 1
    by_hand = MetadataCatalog.get("by_hand").set(
        keypoint_names=["head", "left_hand", "right_hand", "foot"],
        keypoint_connection_rules=predictor.metadata.keypoint_connection_rules,
    )
    assert [rule[:2] for rule in by_hand.keypoint_connection_rules] == [
        ("head", "left_hand"),
        ("head", "right_hand"),
        ("head", "foot"),
    ]
    pictures = []
    for metadata in (predictor.metadata, by_hand, MetadataCatalog.get("without")):
        np.random.seed(0)  # of the colours of boxes
        pictures.append(Visualizer(image, metadata).draw_instance_predictions(people).get_image())
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_fills_names_limbs_pairs_and_classes(cfg):
    fill_metadata(cfg, SCHEMA)
    metadata = MetadataCatalog.get("mine_val")
    assert metadata.name == "mine_val"
    assert KeypointSchema.from_metadata(metadata) == SCHEMA
    assert metadata.thing_classes == ["dancer"]
    assert "mine_val" not in DatasetCatalog


def test_another_config_replaces_the_values(cfg):
    fill_metadata(cfg, SCHEMA)
    held = MetadataCatalog.get("mine_val")
    cfg.MODEL.CLASS_NAMES = []
    fill_metadata(cfg, OTHER)
    assert rules("mine_val") == [("nose", "tail")]
    assert held.get("thing_classes") is None


def test_a_registered_data_set_keeps_its_own(cfg, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    register_coco_instances("mine_val", {"keypoint_names": ["a", "b"]}, str(tmp_path / "a.json"), str(tmp_path))
    before = MetadataCatalog.get("mine_val").as_dict()
    fill_metadata(cfg, SCHEMA)
    assert MetadataCatalog.get("mine_val").as_dict() == before


def test_values_that_a_user_has_set_stay(cfg):
    MetadataCatalog.get("mine_val").thing_classes = ["fish"]
    fill_metadata(cfg, SCHEMA)
    assert MetadataCatalog.get("mine_val").as_dict() == {"name": "mine_val", "thing_classes": ["fish"]}


@pytest.mark.parametrize("by", ["detectron2", "dynpose"])
def test_a_later_registration_replaces_the_values(cfg, tmp_path, by):
    """detectron2's Metadata refuses other values for a key that is set."""
    fill_metadata(cfg, SCHEMA)
    MetadataCatalog.get("mine_val").thing_colors = [(1, 2, 3)]
    category = {"id": 1, "name": "fish", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": [category]}))
    if by == "dynpose":
        register_pose_dataset("mine_val", file, tmp_path)
        assert rules("mine_val") == [("a", "b")]
    else:
        register_coco_instances("mine_val", {}, str(file), str(tmp_path))
        assert MetadataCatalog.get("mine_val").get("keypoint_names") is None
        DatasetCatalog.get("mine_val")
    metadata = MetadataCatalog.get("mine_val")
    assert metadata.thing_classes == ["fish"]
    assert metadata.thing_colors == [(1, 2, 3)]
    with pytest.raises(AssertionError, match="cannot be set"):
        metadata.thing_classes = ["bird"]
