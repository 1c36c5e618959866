"""Truncated and broken images are found without decoding the good ones."""

import numpy as np
import pytest
from PIL import Image

from dynpose.data import DatasetError, check_images, image_check


@pytest.fixture
def images(tmp_path):
    """One good file of each kind."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for ending in ("jpg", "jpeg", "png", "bmp"):
        Image.fromarray(pixels).save(tmp_path / f"good.{ending}")
    return [{"file_name": str(path)} for path in sorted(tmp_path.iterdir())]


def test_good_images_pass_and_are_not_decoded(images, monkeypatch):
    check_images(images)
    check_images([])
    decoded = []
    monkeypatch.setattr(image_check.Image, "open", lambda name: decoded.append(name) or Image.new("RGB", (1, 1)))
    check_images(images)
    assert [name.rsplit(".")[-1] for name in decoded] == ["bmp"]


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_truncated_images_are_named(images, tmp_path, ending):
    path = tmp_path / f"good.{ending}"
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DatasetError, match=rf"1 of 4 images can't be read: .*good\.{ending} \(.*copy them again"):
        check_images(images)


def test_every_fault_is_counted(images, tmp_path):
    names = [tmp_path / name for name in ("gone.jpg", "empty.png", "text.jpg", "folder.jpg")]
    names[1].touch()
    names[2].write_text("no image")
    names[3].mkdir()
    with pytest.raises(
        DatasetError, match=r"4 of 8 images can't be read: .*gone\.jpg .*empty\.png .*text\.jpg .*; \.\.\.: "
    ):
        check_images([*images, *({"file_name": str(name)} for name in names)])


def test_bytes_after_the_end_are_no_fault(images, tmp_path):
    path = tmp_path / "good.jpg"
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    check_images(images)
