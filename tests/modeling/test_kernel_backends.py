"""A backend that is registered from outside the package serves every method on generated networks."""

import logging
import re
from pathlib import Path

import pytest
import torch
from small_models import image, one_person, small_model

from dynpose.config import ConfigError
from dynpose.layers import Implementation, backends, register_backend

HEATMAPS, PEAKS, CROSS_ENTROPY = "kp_net_heatmaps", "kp_net_peaks", "kp_net_cross_entropy"
UPSAMPLED, DISTANCE = "upsampled_cross_entropy", "expected_distance"
INSPOSE = (
    *("MODEL.INSPOSE.NUM_FEATURE_CONVS", 1),
    *("MODEL.INSPOSE.FEATURE_CONVS_DIM", 32),
    *("MODEL.INSPOSE.NUM_OFFSET_CONVS", 1),
    *("MODEL.INSPOSE.HEATMAP", False),
)
RELEASED = (
    *("MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS", "[0, 1, 2, 3, 0, 1, 2, 3, 0]"),
    *("MODEL.INSPOSE_RELEASED.REGRESSION_CONVS_DIM", 64),
    *("MODEL.INSPOSE_RELEASED.FEATURE_CONVS_DIM", 64),
    *("MODEL.INSPOSE_RELEASED.AUX_CONVS_DIM", 64),
    *("MODEL.INSPOSE_RELEASED.NUM_AUX_CONVS", 1),
)
# config, its options, the operators that training and inference run
METHODS = {
    "FCPose": ("FCPose/R_50_3x.yaml", (), {CROSS_ENTROPY}, {PEAKS}),
    "FCPose, released": ("FCPose/R_50_3x_release.yaml", (), {HEATMAPS, UPSAMPLED, DISTANCE}, {PEAKS}),
    "InsPose": ("InsPose/R_50_36e.yaml", INSPOSE, {CROSS_ENTROPY}, {PEAKS}),
    "InsPose at stride 4": (
        "InsPose/R_50_36e.yaml",
        (*INSPOSE, "MODEL.INSPOSE.MAP_STRIDE", 4),
        {HEATMAPS, UPSAMPLED},
        {HEATMAPS},
    ),
    "InsPose, released": ("InsPose/R_50_3x_release.yaml", RELEASED, {CROSS_ENTROPY, PEAKS}, {HEATMAPS}),
}


@pytest.fixture
def called(monkeypatch):
    """The operators that the backend "mine" has run; it runs "torch"."""
    registry = {name: dict(implementations) for name, implementations in backends._IMPLEMENTATIONS.items()}
    monkeypatch.setattr(backends, "_IMPLEMENTATIONS", registry)
    backends._warn.cache_clear()
    called = set()

    def recorded(operator):
        def run(*arguments):
            called.add(operator)
            return registry[operator]["torch"].function(*arguments)

        return run

    register_backend("mine", {operator: Implementation(recorded(operator)) for operator in registry})
    return called


def model_on(backend, method):
    config, opts, *_ = METHODS[method]
    model = small_model(f"configs/{config}", *opts, "MODEL.KP_NET.BACKEND", backend)
    model.detector.decoder.score_thresh = 0.0
    model.detector.decoder.post_nms_topk = 5
    return model


def train_and_predict(model):
    """Losses, and the predicted keypoints."""
    losses = model.train()([image(one_person())])
    with torch.no_grad():
        (output,) = model.eval()([image(one_person())])
    return {name: loss.item() for name, loss in losses.items()}, output["instances"].pred_keypoints


@pytest.mark.parametrize("method", METHODS)
def test_a_third_backend_runs_every_method(method, called):
    *_, in_training, in_inference = METHODS[method]
    losses, keypoints = train_and_predict(model_on("mine", method))
    assert called == in_training | in_inference
    expected_losses, expected = train_and_predict(model_on("torch", method))
    assert losses == expected_losses
    assert torch.equal(keypoints, expected)


def test_torch_runs_what_a_third_backend_lacks(called, caplog):
    for operator in (UPSAMPLED, DISTANCE):
        del backends._IMPLEMENTATIONS[operator]["mine"]
    model = model_on("mine", "FCPose, released").train()
    with caplog.at_level(logging.WARNING, logger=backends.__name__):
        for _ in range(2):
            model([image(one_person())])
    assert called == {HEATMAPS}
    messages = [record.getMessage() for record in caplog.records if record.name == backends.__name__]
    reason = "does not run on backend 'mine': the backend does not implement it"
    assert sorted(messages) == [f"{DISTANCE} {reason}", f"{UPSAMPLED} {reason}"]


@pytest.mark.parametrize("method", ["FCPose", "InsPose", "InsPose, released"])
def test_an_unknown_backend_is_found_when_the_model_is_built(method):
    known = "must be one of 'auto', 'native', 'triton', 'torch', got 'cuda'"
    with pytest.raises(ConfigError, match=rf"MODEL\.KP_NET\.BACKEND {known}"):
        model_on("cuda", method)


def test_the_documented_backend_runs(called, caplog):
    page = (Path(__file__).parents[2] / "docs" / "kernel_backends.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace('"mine"', '"documented"'), {})
    _, keypoints = train_and_predict(model_on("documented", "FCPose"))
    _, expected = train_and_predict(model_on("torch", "FCPose"))
    torch.testing.assert_close(keypoints, expected)
    assert "kp_net_cross_entropy does not run on backend 'documented'" in caplog.text
