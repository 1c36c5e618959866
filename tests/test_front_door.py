"""What `import dynpose` offers, and at which cost."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import dynpose

ROOT = Path(__file__).parents[1]


def run(*words):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_nothing_heavy():
    program = "import dynpose, sys\nassert not {'torch', 'detectron2', 'numpy', 'cv2'} & set(sys.modules)\n"
    run("-c", program + "assert {'PosePredictor', 'model_zoo'} <= set(dir(dynpose))")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("PoseDatasetMapper", "data"),
        ("PoseEvaluator", "evaluation"),
        ("PosePredictor", "engine"),
        ("PoseTrainer", "engine"),
        ("draw_poses", "utils"),
        ("load_config", "config"),
        ("register_pose_dataset", "data"),
    ],
)
def test_each_name_is_that_of_its_module(name, module):
    assert getattr(dynpose, name) is getattr(importlib.import_module(f"dynpose.{module}"), name)


def test_every_public_name_is_there():
    for name in dynpose.__all__:
        assert getattr(dynpose, name) is not None
    with pytest.raises(AttributeError, match="module 'dynpose' has no attribute 'PosePredicter'"):
        dynpose.PosePredicter  # noqa: B018


def test_the_command_as_a_module_tells_the_versions():
    lines = run("-m", "dynpose", "--version").splitlines()
    versions = [importlib.metadata.version(package) for package in ("torch", "detectron2")]
    assert lines == [f"dynpose {dynpose.__version__}", f"torch {versions[0]}", f"detectron2 {versions[1]}"]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch, capsys):
    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("dynpose.tools.cli").main(["--version"])
    assert stop.value.code == 0
    assert "detectron2 is not installed" in capsys.readouterr().out
