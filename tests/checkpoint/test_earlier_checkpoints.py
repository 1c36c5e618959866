"""Checkpoints of earlier versions load, and compute what they computed.

``earlier_checkpoints.json`` was recorded at commit c33a182, before each method moved into one folder: for a tiny model
of each method, the names and shapes of its parameters, and its losses and best predictions with weights drawn by name.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from reference_rule import rule_state_dict

from dynpose.checkpoint import PoseCheckpointer

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import METHODS, global_batch, tiny_model

RECORDED = Path(__file__).with_name("earlier_checkpoints.json")
# what was the default then
THEN = {
    "FCPose": ("MODEL.FCPOSE.OFFSET_RADIUS", 1),
    "CID": ("MODEL.CID.HEATMAP_LOSS_NORM", "pooled"),
    "QueryPose": ("MODEL.QUERYPOSE.DECODE_IN_TRAINING", "matched"),
}


def results(model):
    """Losses of a batch, and the scores and keypoints of the best person in each image."""
    with torch.no_grad():
        losses = {name: loss.item() for name, loss in model.train()(global_batch()).items()}
        outputs = [output["instances"] for output in model.eval()(global_batch())]
    best = [output[:1] for output in outputs if len(output)]
    return {
        "losses": losses,
        "numbers": [len(output) for output in outputs],
        "scores": [output.scores.item() for output in best],
        "keypoints": [output.pred_keypoints[0, :, :2].tolist() for output in best],
    }


def record():
    """Write the file; to be run at the commit to record."""
    recorded = {}
    for method in METHODS:
        model = tiny_model(method)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict(rule_state_dict(shapes, {}))
        recorded[method] = {"parameters": shapes, **results(model)}
    RECORDED.write_text(json.dumps(recorded) + "\n")


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_an_earlier_version_computes_the_same(method, tmp_path):
    recorded = json.loads(RECORDED.read_text())[method]
    torch.save({"model": rule_state_dict(recorded["parameters"], {})}, tmp_path / "earlier.pth")
    model = tiny_model(method, *THEN.get(method, ()))
    PoseCheckpointer(model, complete=True).load(str(tmp_path / "earlier.pth"))
    now = results(model)
    assert now["losses"] == pytest.approx(recorded["losses"], rel=1e-4)
    assert now["numbers"] == pytest.approx(recorded["numbers"], abs=2)  # scores at the threshold
    assert now["scores"] == pytest.approx(recorded["scores"], rel=1e-4)
    torch.testing.assert_close(torch.tensor(now["keypoints"]), torch.tensor(recorded["keypoints"]), rtol=0, atol=0.01)
