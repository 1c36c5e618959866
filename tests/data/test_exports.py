"""Files that annotation tools wrote are read as people annotated them, or refused with the reason.

tests/data/exports/README.md gives the origin of the files and of the expected values.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from dynpose.data import DatasetError, load_pose_json, register_pose_dataset
from dynpose.data.datasets import read_schema
from dynpose.data.image_check import check_images
from dynpose.data.rules import RULES

EXPORTS = Path(__file__).parent / "exports"
EXPECTED = json.loads((EXPORTS / "expected.json").read_text())
READ = [name for name, export in EXPECTED.items() if "refused" not in export]
REFUSED = [name for name, export in EXPECTED.items() if "refused" in export]


@pytest.fixture
def image_root(tmp_path):
    """A function that makes the images of an export, of their sizes on the disk."""

    def make(export):
        for name, size in export["size"].items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", tuple(size)).save(path)
        return str(tmp_path)

    return make


def load(export, image_root, on_remarks=None):
    file = EXPORTS / export["file"]
    return load_pose_json(file, image_root, on_remarks=on_remarks, **export.get("given", {}))


def test_every_file_is_expected():
    files = {path.name for path in EXPORTS.glob("*.json")} - {"expected.json"}
    assert {export["file"] for export in EXPECTED.values()} == files


@pytest.mark.parametrize("name", READ)
def test_people(name, image_root):
    export = EXPECTED[name]
    root = image_root(export)
    records = load(export, root)
    check_images(records)
    people = [
        (os.path.relpath(record["file_name"], root), person) for record in records for person in record["annotations"]
    ]
    assert [image for image, _ in people] == [expected["image"] for expected in export["people"]]
    for (_, person), expected in zip(people, export["people"]):
        # continuous pixels: COCO's index of a pixel + 0.5
        points = np.reshape(person["keypoints"], (-1, 3)) - (0.5, 0.5, 0)
        np.testing.assert_allclose(points, expected["keypoints"])
        if expected["box"] is None:
            assert_is_around(person["bbox"], points)
            assert person["area"] == pytest.approx(person["bbox"][2] * person["bbox"][3])
        else:
            np.testing.assert_allclose(person["bbox"], expected["box"])
            assert person["area"] == pytest.approx(expected["area"])


def assert_is_around(box, points):
    """A box that is made has an extent and holds the labelled keypoints."""
    low, high = np.array(box[:2]), np.array(box[:2]) + box[2:]
    labelled = points[points[:, 2] > 0, :2] + 0.5
    assert (labelled > low).all()
    assert (labelled < high).all()


@pytest.mark.parametrize("name", READ)
def test_rules(name, image_root):
    """All rules that apply, and no other."""
    export, remarks = EXPECTED[name], []
    load(export, image_root(export), remarks.append)
    [counted] = remarks
    for decision in ("corrected", "skipped", "reported"):
        applied = {rule for rule in counted.counts if RULES[rule].decision == decision}
        assert applied == set(export[decision]), decision


@pytest.mark.usefixtures("catalogs")
@pytest.mark.parametrize("name", READ)
def test_names(name, image_root):
    export = EXPECTED[name]
    file, given = EXPORTS / export["file"], export.get("given", {})
    schema = register_pose_dataset(f"export_{name}", file, image_root(export), **given)
    assert list(schema.names) == export["names"]
    assert list(MetadataCatalog.get(f"export_{name}").keypoint_names) == export["names"]
    if not given:
        assert list(read_schema(file).names) == export["names"]


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, image_root):
    export = EXPECTED[name]
    root = image_root(export)
    message = re.escape(export["refused"])
    if export["refused_by"] == "reader":
        with pytest.raises(DatasetError, match=message):
            load(export, root)
    else:
        records = load(export, root)
        with pytest.raises(DatasetError, match=message):
            check_images(records)
