"""TEST.SOFT_OKS_NMS in every method with an NMS: the same people in the same order, some of them with lower scores."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances

from dynpose.config import ConfigError

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from tiny_methods import tiny_config, tiny_model

from dynpose.modeling.soft_oks_nms import SoftOKSNMS

# people everywhere, and no other NMS
ALL = {
    "FCPose": ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.NMS_THRESH_TEST", 1.0),
    "InsPose": ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.NMS_THRESH_TEST", 1.0, "MODEL.FCOS.PRE_NMS_TOPK_TEST", 15),
    "InsPoseReleased": ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.NMS_THRESH_TEST", 1.0),
    "CID": ("MODEL.CID.SCORE_THRESH", 0.0, "MODEL.CID.PRIOR_PROB", 0.5, "MODEL.CID.OKS_NMS_THRESH", 1.0),
}
SOFT = ("TEST.SOFT_OKS_NMS.METHOD", "gaussian", "TEST.SOFT_OKS_NMS.MIN_SCORE", 0.0)
IMAGE = {"image": torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)}


def predicted(method, *opts):
    model = tiny_model(method, *ALL[method], *opts).eval()
    with torch.no_grad():
        return model([IMAGE])[0]["instances"]


@pytest.mark.parametrize("method", ALL)
def test_scores_of_similar_poses_fall(method):
    before, after = predicted(method), predicted(method, *SOFT)
    order = {tuple(pose.flatten().tolist()): score for pose, score in zip(before.pred_keypoints, before.scores)}
    assert len(before) > 3
    assert {tuple(pose.flatten().tolist()) for pose in after.pred_keypoints} <= order.keys()
    assert len(after) > len(before) / 2
    old = torch.stack([order[tuple(pose.flatten().tolist())] for pose in after.pred_keypoints])
    assert (after.scores <= old + 1e-6).all()
    assert (after.scores < old - 1e-3).any()
    assert after.scores[0] == before.scores.max()
    assert (after.scores.diff() <= 0).all()


def test_cids_hard_nms_gives_way():
    """A threshold of 0.01 drops nearly all poses of an untrained model, unless the scores are lowered instead."""
    few = predicted("CID", "MODEL.CID.OKS_NMS_THRESH", 0.01)
    soft = predicted("CID", "MODEL.CID.OKS_NMS_THRESH", 0.01, *SOFT)
    assert len(few) < len(soft) == len(predicted("CID"))


def test_a_prediction_that_is_not_finite_stays():
    poses = torch.zeros(3, 2, 3)
    poses[:, 1, :2] = 20
    poses[1, 0, 0] = float("nan")
    instances = Instances(
        (40, 40),
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 20, 20]]).repeat(3, 1)),
        scores=torch.tensor([0.9, float("nan"), 0.8]),
        pred_classes=torch.zeros(3, dtype=torch.int64),
        pred_keypoints=poses,
    )
    result = SoftOKSNMS((0.1, 0.1))(instances)
    assert result.scores[0].isnan()
    assert result.scores[1:].tolist() == pytest.approx([0.9, 0.8 * 0.1353], abs=1e-4)
    # detectron2's Boxes would drop it later
    result.pred_boxes.clip((40, 40))


def test_other_classes_do_not_compete():
    instances = Instances(
        (40, 40),
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 20, 20]]).repeat(2, 1)),
        scores=torch.tensor([0.5, 0.9]),
        pred_classes=torch.tensor([0, 1]),
        pred_keypoints=torch.zeros(2, 2, 3),
    )
    assert SoftOKSNMS((0.1, 0.1))(instances).scores.tolist() == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize(
    ("method", "opts", "message"),
    [
        ("CID", ("METHOD", "soft"), "TEST.SOFT_OKS_NMS.METHOD must be one of '', 'linear', 'gaussian', got 'soft'"),
        ("FCPose", ("SIGMA", 0.0), "TEST.SOFT_OKS_NMS.SIGMA must be above 0"),
        ("InsPose", ("THRESHOLD", 1.5), "TEST.SOFT_OKS_NMS.THRESHOLD must be from 0 to 1"),
        ("InsPoseReleased", ("MIN_SCORE", -1.0), "TEST.SOFT_OKS_NMS.MIN_SCORE must be from 0 to 1"),
        ("QueryPose", ("METHOD", "linear"), "has no NMS: set it to ''"),
    ],
)
def test_invalid_keys(method, opts, message):
    from detectron2.modeling import build_model

    with pytest.raises(ConfigError, match=message):
        build_model(tiny_config(method, f"TEST.SOFT_OKS_NMS.{opts[0]}", opts[1]))
