"""A small model in files, as a training run leaves it."""

from types import SimpleNamespace

import pytest
from small_models import small_config, small_model

from dynpose.checkpoint import PoseCheckpointer

# an untrained model that finds people everywhere
_OPTS = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3, "INPUT.MIN_SIZE_TEST", 64)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """``config`` and ``weights``: file names of an untrained model that finds three people of four keypoints."""
    folder = tmp_path_factory.mktemp("run")
    cfg = small_config("configs/FCPose/Base-FCPose.yaml", *_OPTS)
    (folder / "config.yaml").write_text(cfg.dump())
    model = small_model("configs/FCPose/Base-FCPose.yaml", *_OPTS)
    # boxes of four strides
    model.head.box_distances.bias.data.fill_(2.0)
    PoseCheckpointer(model, str(folder)).save("model_final")
    return SimpleNamespace(config=str(folder / "config.yaml"), weights=str(folder / "model_final.pth"))
