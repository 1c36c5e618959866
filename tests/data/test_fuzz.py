"""Hostile data sets: spoilt annotations and images either train or are refused by name, and nothing outside is read."""

import json
import os
import random
import re

import pytest
from fuzzing import (
    HostileFiles,
    attempt,
    images_of_every_kind,
    opened_files,
    sound_annotation,
    spoil_annotation,
    spoil_bytes,
)
from PIL import Image

from dynpose.data import DatasetError, check_images, load_pose_json, register_pose_dataset
from dynpose.data.image_reading import read_image

NUM_ANNOTATIONS, NUM_FILES, NUM_IMAGES = 400, 100, 200
IMAGE_KINDS = dict(images_of_every_kind())


@pytest.fixture
def files(tmp_path):
    return HostileFiles(tmp_path / "data")


def report(capsys, what, results):
    loaded = results.count("loaded")
    with capsys.disabled():
        print(f"\nfuzz: {len(results)} spoilt {what}: {loaded} loaded, {len(results) - loaded} refused", end="")
    assert 0 < loaded < len(results)


def attempt_case(files, case):
    try:
        return attempt(files, seed=case)
    except BaseException as error:
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"fuzz case {case}")
        raise


def test_the_sound_data_set_loads(files):
    files.write(sound_annotation())
    assert attempt(files) == "loaded"


def test_spoilt_annotations(files, capsys):
    results = []
    for case in range(NUM_ANNOTATIONS):
        files.write(spoil_annotation(random.Random(case)))
        results.append(attempt_case(files, case))
    report(capsys, "annotations", results)


def test_spoilt_annotation_files(files, capsys):
    results, content = [], json.dumps(sound_annotation()).encode()
    for case in range(NUM_FILES):
        files.write(spoil_bytes(content, random.Random(case)))
        results.append(attempt_case(files, case))
    report(capsys, "annotation files", results)


def test_spoilt_images(files, capsys):
    results, kinds = [], sorted(set(IMAGE_KINDS) - {"postscript.eps"})
    for case in range(NUM_IMAGES):
        rng = random.Random(case)
        name = kinds[case % len(kinds)]
        save_as(files, name)
        path = files.image_root / name
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        results.append(attempt_case(files, case))
        path.unlink()
    report(capsys, "images", results)


def save_as(files, name, picture=None, size=None, **options):
    """Let image 7 be another one, of the annotated size unless another is given."""
    picture = picture or IMAGE_KINDS[name]
    picture.save(files.image_root / name, **options)
    data = sound_annotation()
    width, height = size or picture.size
    data["images"][0].update(file_name=name, width=width, height=height)
    for annotation in data["annotations"]:
        annotation.pop("segmentation", None)
    files.write(data)


@pytest.mark.parametrize("name", sorted(IMAGE_KINDS))
def test_kinds_of_images(files, name):
    save_as(files, name)
    result = attempt(files)
    if name.startswith(("sixteen_bit", "integers", "floats")):
        assert "more than 8 bits per channel" in result
        assert "convert it to 8 bits" in result
    elif name.endswith(".eps"):
        assert "EPS, which Pillow needs another program" in result
    else:
        assert result == "loaded"


@pytest.mark.parametrize(("name", "kind"), [("icon.ico", "ICO"), ("icon.icns", "ICNS"), ("icon.png", "ICO")])
def test_files_that_hold_images_of_other_sizes(files, name, kind):
    """Icons: the header of an .ico file tells 16 x 16 where an image of 32 x 32 may follow."""
    save_as(files, name, Image.new("RGBA", (32, 32)), format=kind)
    assert f"{kind}, whose header does not describe its contents; convert it to JPEG or PNG" in attempt(files)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 1), (12000, 1), (1, 12000), (12000, 4), (12000, 40), (4, 12000)])
def test_sizes_of_images(files, size):
    save_as(files, "odd.png", Image.new("L", size))
    assert attempt(files) == "loaded"


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientations(files, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_as(files, "turned.jpg", IMAGE_KINDS["grey.jpg"], exif=exif)
    as_stored = attempt(files)
    save_as(files, "turned.jpg", IMAGE_KINDS["grey.jpg"], (30, 40), exif=exif)
    turned = attempt(files)
    if orientation in (5, 6, 7, 8):
        assert turned == "loaded"
        assert "turned.jpg: the image is 30 x 40 pixels, its annotation says 40 x 30; correct" in as_stored
    else:
        assert as_stored == "loaded"
        assert "turned.jpg: the image is 40 x 30 pixels, its annotation says 30 x 40; correct" in turned


def image_named(files, file_name):
    data = sound_annotation()
    data["images"][0]["file_name"] = file_name
    files.write(data)
    return attempt(files)


class TestOutsideTheImageFolder:
    """Beside the folder are images that would load."""

    @pytest.mark.parametrize(
        "file_name",
        [
            "../secret.png",
            "night/../../secret.png",
            "../images_of_others/a.png",  # whose path starts like the folder's
            "..",
            ".",
            "night/..",
            "/etc/hostname",
            "//etc/hostname",
            "http://localhost:9/a.png",
            "detectron2://a.png",
            "a.png\0",
            "a\n.png",
            "\ud800.png",
        ],
    )
    def test_written_paths(self, files, file_name):
        message = image_named(files, file_name)
        assert message.startswith(
            f"{files.json_file}: image 7: file_name {file_name!r} is not a path inside the image folder"
        )
        assert "write it relative to image_root" in message

    def test_absolute_paths(self, files):
        assert "is not a path inside the image folder" in image_named(files, str(files.folder / "secret.png"))
        assert image_named(files, str(files.image_root / "a.png")) == "loaded"

    def test_detours_that_stay_inside(self, files):
        assert image_named(files, "night/../a.png") == "loaded"
        assert image_named(files, "./a.png") == "loaded"

    def test_links(self, files):
        (files.image_root / "link.png").symlink_to(files.folder / "secret.png")
        message = image_named(files, "link.png")
        assert message.startswith(
            f"{files.json_file}: image 7: {files.image_root}/link.png is a link that leads out of"
        )
        (files.image_root / "others").symlink_to(files.folder / "images_of_others")
        assert "leads out of the image folder" in image_named(files, "others/a.png")
        (files.image_root / "device.png").symlink_to("/dev/zero")
        assert "images are missing" in image_named(files, "device.png")
        (files.image_root / "loop.png").symlink_to("loop.png")
        assert "images are missing" in image_named(files, "loop.png")

    def test_a_detour_over_a_link(self, files):
        """night/over/../a.png is images/night/a.png as it is written, and another folder's on disk."""
        (files.image_root / "night" / "over").symlink_to(files.folder / "images_of_others" / "deep")
        (files.folder / "images_of_others" / "deep").mkdir()
        assert "leads out of the image folder" in image_named(files, "night/over/../a.png")

    def test_links_inside_and_the_folder_itself(self, files):
        (files.image_root / "link.png").symlink_to(files.image_root / "a.png")
        assert image_named(files, "link.png") == "loaded"
        files.image_root.rename(files.folder / "elsewhere")
        files.image_root.symlink_to(files.folder / "elsewhere")
        records = load_pose_json(files.json_file, files.image_root)
        assert [record["file_name"] for record in records][1] == str(files.image_root / "link.png")
        read_image(records[1], "BGR")

    def test_a_relative_image_folder(self, files, monkeypatch):
        monkeypatch.chdir(files.image_root)
        files.write(sound_annotation())
        for image_root in ("", ".", "../images"):
            assert len(load_pose_json(files.json_file, image_root)) == 2

    def test_pipes_and_devices(self, files):
        """A pipe would never end, a folder is no image."""
        os.mkfifo(files.image_root / "pipe.png")
        assert "1 of its 2 images are missing" in image_named(files, "pipe.png")
        assert "1 of its 2 images are missing" in image_named(files, "night")
        with pytest.raises(DatasetError, match=r"pipe\.png \(no such file\)"):
            check_images([{"file_name": str(files.image_root / "pipe.png")}])

    def test_the_watch_sees_opened_files(self, files):
        with opened_files() as opened:
            (files.folder / "secret.png").read_bytes()
        assert opened == [os.path.realpath(files.folder / "secret.png")]


DEEP = b'{"images": ' + b"[" * 100_000
PERSON = ("annotations", 0)
IGNORED = ("annotations", 1, "segmentation")


class TestFindings:
    """Cases that the fuzz test found: they crashed or hung without a message, or were misread."""

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ((*PERSON, "image_id"), [7], r"annotation 11 is of image \[7\], which is not in 'images'"),
            ((*PERSON, "category_id"), {"id": 5}, r"annotation 11 is of category \{'id': 5\}, which is not"),
            ((*PERSON, "keypoints"), 5, "annotation 11: keypoints is 5; write"),
            ((*PERSON, "keypoints", 0), 1e308, r"annotation 11: a keypoint is at 1e\+308, outside any image; write"),
            ((*PERSON, "bbox", 0), 1e30, r"annotation 11: bbox is \[1e\+30, 5, 24, 20\]; write"),
            ((*PERSON, "iscrowd"), "0", "annotation 11: iscrowd is '0'; write 0 or 1"),
            (("images", 0, "width"), True, "image 7: width is True; write"),
            (("images", 0, "width"), 10**30, "image 7: width is 1"),
            (("categories", 0, "keypoints"), 3, "category 'person': keypoints is 3; write a list of names"),
            (("categories", 0, "skeleton"), 3, "skeleton is '3': write pairs"),
            ((*IGNORED,), {"size": 30, "counts": [1200]}, "annotation 12: segmentation is an RLE of size 30, its"),
            ((*IGNORED, 0, 0), 10**400, "annotation 12: segmentation has a polygon that is not finite numbers"),
            ((*IGNORED,), [["1", "1", "9", "1", "9", "9"]], "annotation 12: segmentation has a polygon that is not"),
            # these took minutes
            ((*IGNORED, 0, 0), 1e9, r"annotation 12: segmentation has a polygon that reaches 1e\+09 pixels out of"),
            ((*IGNORED,), {"size": [30, 40], "counts": "o" * 10**6}, "annotation 12: .* a run longer than any image"),
            ((*IGNORED,), [[0, 0, 40, 30] * 10**5], "annotation 12: segmentation has a polygon that reaches 0 pixels"),
        ],
    )  # fmt: skip
    def test_refused(self, files, path, value, message):
        data = sound_annotation()
        *keys, last = path
        container = data
        for key in keys:
            container = container[key]
        container[last] = value
        files.write(data)
        result = attempt(files)
        assert str(files.json_file) in result
        assert re.search(message, result)

    @pytest.mark.parametrize("area", [10**400, 1e300, -5, True, "7"])
    def test_areas_of_no_use_are_the_boxes(self, files, area):
        """A number beyond float32 would be an infinite area in training."""
        data = sound_annotation()
        data["annotations"][0]["area"] = area
        files.write(data)
        assert attempt(files) == "loaded"
        assert load_pose_json(files.json_file, files.image_root)[1]["annotations"][0]["area"] == 24 * 20

    @pytest.mark.parametrize("edge", [5, None, "12", {"1": 2}, [1], [1, 2, 3], [1.0, 2.0]])
    def test_odd_limbs_are_skipped(self, files, edge):
        data = sound_annotation()
        data["categories"][0]["skeleton"].append(edge)
        files.write(data)
        assert attempt(files) == "loaded"

    def test_deep_brackets(self, files):
        files.write(DEEP)
        assert f"{files.json_file}: the file is not valid JSON" in attempt(files)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"crowdIndex": 10**400}, "image 7: crowdIndex is 1000"),
        ],
    )
    @pytest.mark.usefixtures("catalogs")
    def test_crowd_index(self, files, change, message):
        data = sound_annotation()
        data["images"][0].update(change)
        files.write(data)
        with pytest.raises(DatasetError, match=message):
            register_pose_dataset("test_hostile", files.json_file, files.image_root, protocol="crowdpose")

    @pytest.mark.usefixtures("catalogs")
    def test_crowdpose_without_images(self, files):
        data = sound_annotation()
        data["images"] = 5
        files.write(data)
        with pytest.raises(DatasetError, match="no list 'images' of objects"):
            register_pose_dataset("test_hostile", files.json_file, files.image_root, protocol="crowdpose")

    def test_another_size_is_not_decoded(self, files):
        """A few kilobytes of PNG can hold gigabytes of pixels."""
        Image.new("1", (12000, 12000)).save(files.image_root / "bomb.png")
        data = sound_annotation()
        data["images"][0]["file_name"] = "bomb.png"
        files.write(data)
        records = load_pose_json(files.json_file, files.image_root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
            with pytest.raises(
                DatasetError, match=r"bomb\.png: the image is 12000 x 12000 pixels, its annotation says 40 x"
            ):
                read_image(records[1], "BGR")
