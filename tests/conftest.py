"""What several tests need: the external test data, one thread, clean catalogs, GPU tests skipped without a GPU."""

import contextlib
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

# What one test reads must not be remembered for another; tests of the memory name a folder of their own.
os.environ["DYNPOSE_CACHE"] = ""
# Before anything imports Triton: without a GPU driver its kernels are tested in the interpreter.
if not shutil.which("nvidia-smi"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import defaults

if os.environ.get("TRITON_INTERPRET") == "1":
    from dynpose.layers import triton_interpreter  # noqa: F401

# small tensors: a second thread costs more in waiting than it gives
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _quick_default_setup():
    """Read single keys of a config directly: detectron2 converts all of it for each key, a second for each run."""
    by_omegaconf = defaults._try_get_key

    def get_key(cfg, *keys, default=None):
        if not isinstance(cfg, CfgNode):
            return by_omegaconf(cfg, *keys, default=default)
        return next((cfg[key] for key in keys if key in cfg), default)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defaults, "_try_get_key", get_key)
        yield


@pytest.fixture(scope="session")
def test_data():
    """Folder with data/ (real annotated images) and reference/ (numeric fixtures), which are not in the repository."""
    folder = os.environ.get("DYNPOSE_TEST_DATA")
    if not folder:
        pytest.skip("DYNPOSE_TEST_DATA is not set")
    if not Path(folder, "reference").is_dir():
        pytest.fail(f"DYNPOSE_TEST_DATA={folder} holds no reference/")
    return Path(folder)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """``config`` and ``weights``: file names of an untrained model that finds three people of four keypoints."""
    from small_models import small_config, small_model

    from dynpose.checkpoint import PoseCheckpointer

    # It detects people everywhere
    opts = ("MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3, "INPUT.MIN_SIZE_TEST", 64)
    folder = tmp_path_factory.mktemp("run")
    cfg = small_config("configs/FCPose/Base-FCPose.yaml", *opts)
    (folder / "config.yaml").write_text(cfg.dump())
    model = small_model("configs/FCPose/Base-FCPose.yaml", *opts)
    # boxes of four strides
    model.head.box_distances.bias.data.fill_(2.0)
    PoseCheckpointer(model, str(folder)).save("model_final")
    return SimpleNamespace(config=str(folder / "config.yaml"), weights=str(folder / "model_final.pth"))


@pytest.fixture(scope="session")
def script_command():
    """Words of a command that runs a script without importing everything again, see `script_server`."""
    from processes import script_server

    with script_server() as command:
        yield command


@contextlib.contextmanager
def _restored_catalogs():
    before = {id(catalog): set(catalog) for catalog in (DatasetCatalog, MetadataCatalog)}
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in set(catalog) - before[id(catalog)]:
            catalog.remove(name)


@pytest.fixture
def catalogs():
    """Remove the data sets that a test registers after it."""
    with _restored_catalogs():
        yield


@pytest.fixture(scope="module", autouse=True)
def _catalogs_of_a_module():
    """Remove the data sets that a module registers after it: other modules run in the same process, in any order."""
    with _restored_catalogs():
        yield


@pytest.fixture
def clean_run(catalogs):
    """A run of train_net.py leaves detectron2's catalogs and loggers as they were."""
    yield
    for name in ("detectron2", "fvcore", "dynpose"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("dynpose").propagate = True


class _Relay(logging.Handler):
    """Hands on what a run's own set-up keeps from the root logger, where caplog listens."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    def emit(self, record):
        if not logging.getLogger("dynpose").propagate:
            self.target.handle(record)


@pytest.fixture
def caplog(caplog):
    """pytest's, which hears dynpose also after train_net.py's set-up."""
    relay = _Relay(caplog.handler)
    logging.getLogger("dynpose").addHandler(relay)
    yield caplog
    logging.getLogger("dynpose").removeHandler(relay)


# Files that take longest: begun first, so that no process is left alone with one of them at the end
_SLOW = (
    *("test_querypose_reference.py", "test_kp_net_fused.py", "test_check_data_agrees.py", "test_restart.py"),
    *("test_launch.py", "test_precision.py", "test_model_benchmark.py", "test_train_benchmark.py", "test_training.py"),
    *("test_wheel.py", "test_watchdog.py", "test_lazy_configs.py", "test_carrying.py"),
    *("test_querypose_checkpoint.py", "test_imagenet.py", "test_model_info.py"),
)


def pytest_collection_modifyitems(items):
    """Begin with the slow files, and skip the GPU tests where there is no GPU."""
    order = {name: index for index, name in enumerate(_SLOW)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
