"""Files of predictions, read by the tools that they are for. Each test skips where its tool is not installed:

pip install --no-deps ultralytics ultralytics-thop supervision label-studio-sdk defusedxml datumaro
"""

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from result_examples import CAT, DOG, ENTRIES, NAMES


def test_ultralytics_accepts_all_labels(write):
    """Its own check of images and labels, which drops what it does not accept."""
    pytest.importorskip("ultralytics")
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    folder, _ = write("yolo-pose", score_threshold=0.1)
    data = check_det_dataset(str(folder / "yolo-pose" / "data.yaml"), autodownload=False)
    dataset = YOLODataset(img_path=data["train"], data=data, task="pose", imgsz=64, augment=False)
    labels = {label["im_file"].rsplit("/images/", 1)[1]: label for label in dataset.labels}
    assert sorted(labels) == ["a/x.jpg", "b/empty.jpg", "b/x.png"]
    assert data["names"] == {0: "dog", 1: CAT["category_name"]}
    assert data["flip_idx"] == [0, 2, 1]
    # rows are sorted where one was repeated; here they are not
    label = labels["a/x.jpg"]
    assert label["cls"].ravel().tolist() == [1, 0]
    np.testing.assert_allclose(label["bboxes"], [[0.125, 0.4, 0.15, 0.4], [0.1, 0.8, 0.2, 0.4]], atol=1e-6)
    expected = [[[0.1, 0.3, 2], [0, 0, 0], [0, 0, 0]], [[0.005, 0.8075, 2], [0.4975, 0.705, 2], [0.2525, 0.605, 2]]]
    np.testing.assert_allclose(label["keypoints"], expected, atol=1e-6)


def test_label_studio_accepts_all_predictions(write):
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.label_interface import LabelInterface

    folder, _ = write("label-studio", score_threshold=0.1)
    interface = LabelInterface((folder / "label_studio" / "config.xml").read_text(encoding="utf-8"))
    interface.validate()
    tasks = json.loads((folder / "label_studio" / "tasks.json").read_text())
    assert len(tasks) == 3
    # validate_task of version 2.1.2 fails on any task with predictions
    assert all(interface.validate_task({"data": task["data"]}) for task in tasks)
    for task in tasks:
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
    prediction = tasks[0]["predictions"][0]
    prediction["result"][1]["value"]["keypointlabels"] = ["tail"]
    assert interface.validate_prediction(prediction, return_errors=True)


def test_datumaro_reads_the_cvat_file(write):
    """It has no skeletons' grouping, but the labels, the images and the points."""
    pytest.importorskip("datumaro")
    from datumaro.components.dataset import Dataset

    folder, _ = write("cvat", score_threshold=0.1)
    for name in ("a/x.jpg", "b/x.png", "b/empty.jpg"):
        path = folder / "cvat" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100)).save(path)
    dataset = Dataset.import_from(str(folder / "cvat"), "cvat")
    items = {item.id: item for item in dataset}
    assert sorted(items) == ["a/x", "b/empty", "b/x"]
    points = [list(map(float, item.points)) for item in items["b/x"].annotations if item.type.name == "points"]
    assert points == [[x + 0.5, y + 0.5] for x, y, _ in DOG["keypoints"]]


def test_supervision_takes_predictions():
    """The line of docs/prediction.md."""
    sv = pytest.importorskip("supervision")
    people = Instances(
        (100, 200),
        pred_boxes=Boxes(torch.tensor([[10.0, 20.0, 40.0, 60.0]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([1]),
        pred_keypoints=torch.tensor([CAT["keypoints"]]),
    )
    keypoints = sv.KeyPoints.from_detectron2({"instances": people})
    np.testing.assert_allclose(keypoints.xy, [[point[:2] for point in CAT["keypoints"]]])
    np.testing.assert_allclose(keypoints.keypoint_confidence, [[0.8, 0.01, 0.7]])
    assert keypoints.class_id.tolist() == [1]
    assert len(sv.KeyPoints.from_detectron2({"instances": people[:0]})) == 0
    edges = [(a + 1, b + 1) for a, b in ((0, 1), (0, 2))]
    drawn = sv.EdgeAnnotator(edges=edges).annotate(np.zeros((100, 200, 3), np.uint8), keypoints)
    assert drawn.any()


def test_pandas_reads_the_csv(write):
    pandas = pytest.importorskip("pandas")
    folder, _ = write("csv")
    table = pandas.read_csv(folder / "predictions.csv")
    assert len(table) == 9
    assert table["frame"].isna().all()
    wide = table.pivot_table(index=["file_name", "person"], columns="keypoint_name", values="x")
    assert wide.loc[(ENTRIES[1]["file_name"], 0), NAMES[1]] == 99.0
