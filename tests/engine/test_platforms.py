"""Importing and predicting where Windows' Python has less: no SIGUSR1, no fork, no fcntl."""

import os
import subprocess
import sys
from pathlib import Path

from small_models import SMALL

ROOT = Path(__file__).parents[2]
# PyTorch and portalocker, which detectron2 needs, ask for the platform and have branches of their own for Windows
WITHOUT = """
import os, signal, sys
import detectron2.engine, detectron2.evaluation, detectron2.modeling, portalocker
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGALRM", "SIGHUP"):
    delattr(signal, name)
for name in ("fork", "register_at_fork", "killpg", "setpgid", "getuid", "waitid", "sched_getaffinity"):
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
"""
PREDICT = """
import numpy as np
import torch
import dynpose.data, dynpose.engine, dynpose.tools.cli
from dynpose.config import load_config
from dynpose.data import KeypointSchema, schema_to_cfg
from dynpose.engine import PosePredictor

torch.set_num_threads(1)
cfg = load_config("configs/FCPose/Base-FCPose.yaml", sys.argv[1:])
cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
schema_to_cfg(cfg, KeypointSchema(names=("a", "b", "c"), flip_pairs=(), skeleton=(), sigmas=(0.1, 0.1, 0.1)))
people = PosePredictor(cfg)(np.zeros((64, 80, 3), np.uint8))
assert people.pred_keypoints.shape[1:] == (3, 3)
assert dynpose.tools.cli.main(["predict", "--config-file", "x", "--weights", "x", "--input", "x", "--output", "x"]) == 2
from dynpose.engine.signals import STOP_SIGNALS, StopRequest, stop_signals
assert STOP_SIGNALS == (signal.SIGTERM,)
with stop_signals(StopRequest()):
    pass
from dynpose.data.loader import _ignore_signals
_ignore_signals(0)
from dynpose.utils.locking import locked
with locked(os.path.join(os.environ["FOLDER"], "run.lock")):
    pass
print("predicted")
"""


def test_importing_and_predicting_without_posix_only_modules(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + PREDICT, *SMALL],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.splitlines()[-1:] == ["predicted"], done.stderr
