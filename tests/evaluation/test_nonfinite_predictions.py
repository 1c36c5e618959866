"""Models whose weights are NaN, in part or all, are evaluated: their predictions are skipped and counted."""

import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.layers import batched_nms
from detectron2.structures import Boxes
from small_models import SCHEMA, image, one_person

from dynpose.evaluation import PoseEvaluator
from dynpose.modeling.fcos import Candidates, FCOSDecoder
from dynpose.modeling.unchecked_boxes import UncheckedBoxes, without_overlap

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import tiny_model

NAN = math.nan
BOXES = torch.tensor([[10.0, 10, 50, 50], [10, 10, 50, 51], [NAN, 0, 40, 40], [0, 0, math.inf, 9], [60, 60, 300, 90]])


# Per method: options, and the start of the names of the parameters that are made NaN, one set after the other
POISONED = [
    pytest.param("FCPose", [], "head.", id="FCPose, classes and boxes"),
    pytest.param("FCPose", [], "head.box_distances", id="FCPose, boxes"),
    pytest.param("FCPose", [], "controller", id="FCPose, KP-Nets"),
    pytest.param("FCPose", [], "refinement", id="FCPose, offsets"),
    pytest.param("FCPose", [], "", id="FCPose, everything"),
    pytest.param("InsPose", [], "head.", id="InsPose, classes"),
    pytest.param("InsPose", [], "controller", id="InsPose, KP-Nets"),
    pytest.param("InsPose", [], "disk_offsets", id="InsPose, offsets"),
    pytest.param("InsPose", [], "", id="InsPose, everything"),
    pytest.param("InsPose", ["MODEL.INSPOSE.BOX_HEAD", True], "head.box_distances", id="InsPose, boxes"),
    pytest.param("InsPoseReleased", [], "head.", id="InsPoseReleased, classes and boxes"),
    pytest.param("InsPoseReleased", [], "controller", id="InsPoseReleased, KP-Nets"),
    pytest.param("InsPoseReleased", [], "", id="InsPoseReleased, everything"),
    pytest.param(
        "InsPoseReleased",
        ["MODEL.INSPOSE_RELEASED.NMS_METHOD", "gaussian", "MODEL.INSPOSE_RELEASED.INDEX_COORDINATES", False],
        "",
        id="InsPoseReleased, everything, Gaussian soft-NMS",
    ),
    pytest.param("CID", [], "gfd", id="CID, heatmaps"),
    pytest.param("CID", [], "iia", id="CID, centres"),
    pytest.param("CID", [], "", id="CID, everything"),
    pytest.param("QueryPose", [], "box_stages", id="QueryPose, boxes"),
    pytest.param("QueryPose", [], "keypoint_stages", id="QueryPose, keypoints"),
    pytest.param("QueryPose", [], "", id="QueryPose, everything"),
]
_ANYBODY = ["MODEL.FCOS.SCORE_THRESH_TEST", 0.0, "MODEL.CID.SCORE_THRESH", 0.0]


@pytest.fixture
def dataset(tmp_path, catalogs):
    """Two images with a person each."""
    point = [64.0, 64.0, 2]
    person = {"category_id": 1, "iscrowd": 0, "bbox": [40, 30, 50, 60], "area": 2000, "keypoints": point * 4}
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "annotations": [{**person, "id": i, "image_id": i, "num_keypoints": 4} for i in (1, 2)],
        "categories": [{"id": 1, "name": "person"}],
    }
    json_file = tmp_path / "people.json"
    json_file.write_text(json.dumps(data))
    SCHEMA.to_metadata(MetadataCatalog.get("predicted_as_nan").set(json_file=str(json_file)))
    return "predicted_as_nan"


@pytest.mark.parametrize(("method", "options", "prefix"), POISONED)
def test_predictions_of_a_diverged_model_are_skipped_and_counted(dataset, caplog, method, options, prefix):
    model = tiny_model(method, *_ANYBODY, *options).eval()
    poisoned = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
    assert poisoned
    with torch.no_grad():
        for parameter in poisoned:
            parameter.fill_(NAN)
        inputs = [
            {"image_id": i, "image": image(one_person(), i)["image"], "height": 256, "width": 192} for i in (1, 2)
        ]
        outputs = model(inputs)
    evaluator = PoseEvaluator(dataset)
    evaluator.process(inputs, outputs)
    with caplog.at_level(logging.WARNING):
        metrics = evaluator.evaluate()["keypoints"]
    assert metrics["AP"] == 0
    predicted = sum(len(output["instances"]) for output in outputs)
    assert predicted > 0
    assert f"{predicted} predictions with a NaN or infinite score or coordinate were skipped, in 2 images: 1, 2." in (
        caplog.text
    )
    assert "no person is predicted" in caplog.text


def test_cid_in_a_padded_image_with_an_affine_map():
    """The peak of a heatmap of NaN is its first cell, which the map to the original may bring outside of it."""
    model = tiny_model("CID", "MODEL.CID.SCORE_THRESH", 0.0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(NAN)
        inputs = image(one_person(), 1)["image"][:, :96, :80]
        (output,) = model([{"image": inputs, "height": 80, "width": 80, "to_original": [[1.0, 0, 0], [0, 1, -24]]}])
    assert len(output["instances"]) > 0
    assert output["instances"].scores.isnan().all()


def test_boxes_that_are_not_finite_stay_as_they_are():
    boxes = UncheckedBoxes(BOXES.clone())
    boxes.clip((100, 200))
    assert torch.equal(boxes.tensor[[0, 1, 4]], torch.tensor([[10.0, 10, 50, 50], [10, 10, 50, 51], [60, 60, 200, 90]]))
    assert torch.equal(boxes.tensor[2:4].nan_to_num(nan=-1), BOXES[2:4].nan_to_num(nan=-1))
    assert boxes.nonempty().tolist() == [True] * 5


def test_finite_boxes_are_detectron2s():
    finite = torch.tensor([[-5.0, 3, 20, 30], [5, 5, 5, 9], [300, 0, 400, 10]])
    ours, theirs = UncheckedBoxes(finite.clone()), Boxes(finite.clone())
    for boxes in (ours, theirs):
        boxes.clip((25, 100))
    assert torch.equal(ours.tensor, theirs.tensor)
    assert torch.equal(ours.nonempty(), theirs.nonempty())


@pytest.mark.parametrize("classes", [[0] * 5, [1, 1, 0, 2, 1]])
def test_nms_of_finite_boxes_does_not_notice_the_others(classes):
    scores, classes = torch.tensor([0.9, 0.8, 0.7, NAN, 0.6]), torch.tensor(classes)
    # 0 and 1 overlap by 40 / 41, everything else stays
    kept = batched_nms(without_overlap(BOXES, scores), scores, classes, 0.6)
    assert sorted(kept.tolist()) == [0, 2, 3, 4]


def test_fcos_decoder_returns_nonfinite_predictions():
    candidates = Candidates(
        torch.arange(5), torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), torch.arange(5) / 5
    )
    kept = FCOSDecoder().select(candidates, BOXES, num_images=1)
    # 0 is a duplicate of 1
    assert kept.tolist() == [4, 3, 2, 1]
    assert BOXES[kept].isfinite().all(dim=1).tolist() == [True, False, False, True]
