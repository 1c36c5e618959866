"""Fixtures that write results in a format."""

import pytest
from PIL import Image
from result_examples import ENTRIES, NAMES

from dynpose.results import check_formats, write_formats
from dynpose.results.results import Results


@pytest.fixture
def results(tmp_path):
    """Make the results of some entries, whose images are files."""

    def make(entries=ENTRIES, lazy=None, **more):
        for entry in entries:
            path = tmp_path / "images" / entry["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() and path.suffix in (".jpg", ".png"):
                Image.new("RGB", (entry["width"], entry["height"])).save(path)
        arguments = {
            "keypoint_names": NAMES,
            "skeleton": ((0, 1), (0, 2)),
            "flip_pairs": (("left_eye", "right_eye"),),
            "category_names": ("dog", "chat <é> 猫"),
            "entries": lazy or (lambda: iter(entries)),
            "find_image": lambda name: tmp_path / "images" / name,
            **more,
        }
        return Results(**arguments)

    return make


@pytest.fixture
def write(tmp_path, results):
    """Write a format; gives the folder and the lines for the user."""

    def call(name, entries=ENTRIES, **more):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        written = results(entries, **more)
        check_formats([name], written, folder)
        return folder, list(write_formats([name], written, folder))

    return call
