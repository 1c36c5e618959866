"""Annotation projects on disk, and the command that converts them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from dynpose.tools import cli


@pytest.fixture
def make_image():
    """A function that writes an image of a size, and its folder."""

    def make(path, size=(64, 48)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 150)).save(path)
        return Path(path)

    return make


@pytest.fixture
def converted(tmp_path, capsys):
    """A function that runs `dynpose convert-data` and returns the file, its content and what was printed."""

    def run(*words, output=None):
        output = output or tmp_path / "out.json"
        code = cli.main(["convert-data", *map(str, words), "--output", str(output)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        data = json.loads(output.read_text()) if output.suffix == ".json" else None
        return SimpleNamespace(file=output, data=data, out=printed.out)

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """A function that runs `dynpose convert-data` and returns the error; nothing may have been written."""

    def run(*words, output=None):
        output = output or tmp_path / "refused.json"
        code = cli.main(["convert-data", *map(str, words), "--output", str(output)])
        err = capsys.readouterr().err
        assert code == 2, err
        assert err.startswith("dynpose: error: ")
        assert err.count("\n") == 1
        assert not output.exists()
        return err

    return run


def keypoints_by_image(data):
    """file name -> the keypoints of its people, as triples, in the order of the file."""
    names = {image["id"]: image["file_name"] for image in data["images"]}
    found = {name: [] for name in names.values()}
    for item in data["annotations"]:
        flat = item["keypoints"]
        found[names[item["image_id"]]].append([tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)])
    return found


@pytest.fixture(name="keypoints_by_image")
def _keypoints_by_image():
    return keypoints_by_image
