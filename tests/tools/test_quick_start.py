"""What `dynpose predict` imports: start-up takes longer than the prediction of an image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

# each takes a tenth of a second to two seconds, or is a part of such a one
UNUSED = (
    "av",
    "detectron2.engine",
    "detectron2.evaluation",
    "dynpose.engine.trainer",
    "dynpose.evaluation",
    "matplotlib",
    "pandas",
    "scipy.optimize",
    "tensorboard",
    "timm",
    "torchvision.transforms.v2",
)
SCRIPT = f"""
import sys
from dynpose.tools.cli import main
assert main(sys.argv[1:]) == 0
print("imported:", *(name for name in {UNUSED} if name in sys.modules))
"""


def test_a_prediction_imports_only_what_it_uses(small_run, tmp_path):
    """In a new process: that of `script_command` has imported nearly everything."""
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    # methods from outside, which other tests register, are unknown there
    config = yaml.safe_load(Path(small_run.config).read_text())
    config["MODEL"].pop("CENTERPOSE", None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = [
        "predict",
        "--config-file",
        str(tmp_path / "config.yaml"),
        "--weights",
        small_run.weights,
        "--device",
        "cpu",
        "--input",
        str(tmp_path / "a.png"),
    ]
    command = [sys.executable, "-c", SCRIPT, *words, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["imported:"]), done.stderr
    assert (tmp_path / "out" / "a.png").exists()
