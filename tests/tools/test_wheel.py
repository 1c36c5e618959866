"""A wheel, built from a source distribution and installed outside the repository, in a separate environment."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import detectron2
import pytest
import torch
from reference_rule import rule_state_dict
from small_models import SMALL, small_model
from test_convert_weights import OPTS, RELEASE, released_state

import dynpose
from dynpose.config import config_names
from dynpose.data import COCO_PERSON

# Neither imported nor looked for by find_spec: with distutils loaded already, setuptools refuses to be imported, and a
# search for pip switches off its way to load distutils first.
_INSTALLED = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
pytestmark = pytest.mark.skipif(not {"pip", "setuptools"} <= _INSTALLED, reason="needs pip and setuptools")

ROOT = Path(__file__).parents[2]
CONFIG = "FCPose/R_50_3x_release.yaml"
BUILD = (
    "import sys, tarfile\nfrom setuptools import build_meta\n"
    "tarfile.open('dist/' + build_meta.build_sdist('dist')).extractall('unpacked', filter='data')\n"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What a user gets: only files that the source distribution holds are there when the wheel is built."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("dynpose", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _python("-c", BUILD, cwd=source)
    (unpacked,) = (source / "unpacked").iterdir()
    _python("-c", "from setuptools import build_meta; build_meta.build_wheel('.')", cwd=unpacked)
    (wheel,) = unpacked.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; PyTorch, detectron2 and the rest are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    _python("-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--no-index", "--no-deps", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # In a .pth file, whose folders' own .pth files are not read: an editable dynpose stays out
    ready = {str(Path(module.__file__).parents[1]) for module in (torch, detectron2)}
    (packages / "ready.pth").write_text("\n".join(ready))
    return folder


def _python(*words, cwd=None, python=sys.executable):
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, *words], cwd=cwd, env={**inherited, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        assert f"\nVersion: {dynpose.__version__}\n" in archive.read(metadata).decode()
    assert "dynpose/py.typed" in names
    packaged = {name for name in names if name.startswith("dynpose/model_zoo/configs/")}
    assert packaged == {f"dynpose/model_zoo/configs/{name}" for name in config_names()}
    assert not any(name.startswith(("tests/", "configs/")) for name in names)


def test_the_command_finds_configs_by_name(environment, tmp_path):
    """Released weights of a small network, made by the rule of the fixtures."""
    released = released_state(small_model(RELEASE, *OPTS, schema=COCO_PERSON))
    sizes = {name: value for name, value in released.items() if name.endswith("sizes_of_interest")}
    weights = rule_state_dict({name: list(value.shape) for name, value in released.items()}, sizes)
    torch.save(weights, tmp_path / "weights.pth")
    shutil.copy(ROOT / "docs" / "images" / "demo.jpg", tmp_path / "people.jpg")

    files = ("--weights", "weights.pth", "--input", "people.jpg", "--output", "poses")
    opts = ("--device", "cpu", "--no-pictures", *SMALL, *map(str, OPTS), "INPUT.MIN_SIZE_TEST", "64")
    bin_folder = environment / "bin"
    command = (bin_folder / "dynpose", "predict", "--config-file", CONFIG, *files, *opts)
    _python(*command, cwd=tmp_path, python=bin_folder / "python")

    (image,) = json.loads((tmp_path / "poses" / "predictions.json").read_text())["images"]
    assert len(image["instances"][0]["keypoints"]) == 17


def test_the_model_zoo(environment, tmp_path):
    program = (
        "import dynpose\n"
        "model = dynpose.model_zoo.get('quick/fcpose_small.yaml')\n"
        "print(type(model).__name__, dynpose.__file__, dynpose.model_zoo.get_config_file('CID/Base-CID.yaml'))\n"
    )
    name, package, config = _python("-c", program, cwd=tmp_path, python=environment / "bin/python").split()
    assert name == "FCPose"
    assert Path(package).is_relative_to(environment)
    assert Path(config).is_relative_to(environment)
