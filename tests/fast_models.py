"""Trained models against their faster copies."""

import pytest
import torch

from dynpose.engine import optimize_for_inference

# largest distance of a keypoint, pixels, and difference of a score
LIMITS = {"float32": (1e-2, 1e-4), "bfloat16": (0.5, 0.02)}


def assert_faster_ones_agree(model, data):
    """The best person of an image, by a trained model, is the same in each precision that "auto" may choose."""
    model.eval()
    keypoints, score = _best(model, data)
    precisions = ("float32", *model.proven_precisions)
    for precision in precisions:
        distance, difference = LIMITS[precision]
        fast_keypoints, fast_score = _best(optimize_for_inference(model, precision), data)
        assert (fast_keypoints - keypoints).norm(dim=1).max() < distance, precision
        assert fast_score == pytest.approx(score, abs=difference), precision


def _best(model, data):
    with torch.no_grad():
        people = model([data])[0]["instances"]
    best = people[int(people.scores.argmax())]
    return best.pred_keypoints[0, :, :2], best.scores.item()
