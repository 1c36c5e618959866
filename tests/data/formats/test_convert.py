"""`dynpose convert-data`: detecting the format, origins, what check-data says of the result, and its errors."""

import json

import pytest
from PIL import Image

from dynpose.data import DatasetError
from dynpose.data.formats import FORMATS
from dynpose.data.formats.registry import format_by_name
from dynpose.tools import cli, convert_data

LABELS = '{"version": "5", "flags": {}, "imagePath": "a.png", "imageData": null, "shapes": [%s]}'
POINT = '{"label": "%s", "points": [[%s, 20]], "group_id": null, "shape_type": "point", "flags": {}}'


@pytest.fixture
def labelme(tmp_path, make_image):
    make_image(tmp_path / "in" / "a.png")
    points = [("nose", 10), ("left_ear", 30), ("right_ear", 50)]
    (tmp_path / "in" / "a.json").write_text(LABELS % ", ".join(POINT % point for point in points))
    return tmp_path / "in"


def test_the_help_names_all_formats():
    assert [item.name for item in FORMATS] == convert_data._FORMATS.split(", ")
    with pytest.raises(DatasetError, match=r"no format 'voc'; known are yolo-pose \(YOLO-pose\), cvat"):
        format_by_name("voc")


def test_check_data_accepts_the_result(labelme, converted, tmp_path, capsys):
    done = converted(labelme)
    command = done.out.splitlines()[-1].removeprefix("next: dynpose ").split()
    assert command == ["check-data", "--json", str(done.file), "--images", str(labelme)]
    assert cli.main([*command, "--output", str(tmp_path / "page.jpg")]) == 0
    out = capsys.readouterr().out
    assert "1 images, 1 people, 1 of them with labelled keypoints" in out
    assert "change places in a flipped image: left_ear / right_ear" in out
    assert "mended" not in out
    assert "remarks" not in out


def test_origins(labelme, converted):
    assert converted(labelme).data["annotations"][0]["keypoints"][:2] == [9.5, 19.5]
    done = converted(labelme, "--origin", "index")
    assert done.data["annotations"][0]["keypoints"][:2] == [10, 20]
    assert "origin: the centre of the first pixel (as given)" in done.out
    # the edge of the box, with its margin of a tenth of 40, counts from the corner: 10.5 - 4
    assert done.data["annotations"][0]["bbox"][0] == pytest.approx(6.5)


def test_pairs_and_limbs_as_given(labelme, converted, refused):
    done = converted(labelme, "--pairs", "nose:left_ear", "--skeleton", "nose:right_ear")
    category = done.data["categories"][0]
    assert category["flip_pairs"] == [["nose", "left_ear"]]
    assert category["skeleton"] == [[1, 3]]
    assert "pairs (as given): nose / left_ear" in done.out
    assert "nose / left_ear is a flip pair, but by their names the pairs are left_ear / right_ear" in done.out
    assert "'nose:tail' is no pair of the keypoints nose, left_ear, right_ear; write name:name" in refused(
        labelme, "--pairs", "nose:tail"
    )
    assert converted(labelme, "--pairs").data["categories"][0]["flip_pairs"] == []


def test_copied_images(labelme, converted):
    done = converted(labelme, "--copy-images")
    copy = done.file.parent / "out_images" / "a.png"
    assert copy.read_bytes() == (labelme / "a.png").read_bytes()
    assert f"{copy.parent}: 1 images written" in done.out


def test_images_elsewhere(labelme, converted, refused, tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (labelme / "a.png").rename(tmp_path / "far" / "deep" / "a.png")
    assert "give its folder by --image-dir" in refused(labelme)
    assert converted(labelme, "--image-dir", tmp_path / "far" / "deep").data["images"][0]["file_name"] == "a.png"


def test_sizes_are_those_displayed(labelme, converted, refused):
    """Tools draw on the image as its EXIF orientation shows it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 64)).save(labelme / "a.png", exif=exif)
    done = converted(labelme)
    assert done.data["images"] == [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}]


def test_categories(labelme, converted, refused):
    assert "no category 'dog'; the project has object" in refused(labelme, "--category", "dog")
    assert len(converted(labelme, "--category", "object").data["annotations"]) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "hello", "it is of no known format; known are yolo-pose (YOLO-pose), cvat (CVAT for images 1.1)"),
        ("a.json", "{", "it is not valid JSON"),
        ("a.yaml", "kpt_shape: [3, 3]\nnames: [a", "it is not valid YAML"),
        ("a.yaml", "date: 2020-99-99", "it is not valid YAML (month must be in 1..12)"),
        ("a.xml", "<annotations", "it is not valid XML"),
        ("a.json", "[]", "it is of no known format"),
        ("a.zip", "", "it is an archive; unpack it"),
        ("a.nwb", "", "NWB is not read"),
        ("a.json", '{"objects": [{"geometryType": "graph"}]}', "Supervisely's annotation is not read"),
        ("a.json", '{"metadata": {}, "instances": []}', "SuperAnnotate's annotation is not read"),
        (None, None, "no such file or folder"),
    ],
)
def test_unknown_formats(tmp_path, refused, name, content, message):
    if name is not None:
        (tmp_path / name).write_text(content)
    err = refused(tmp_path / (name or "gone"))
    assert message in err
    assert str(tmp_path / (name or "gone")) in err


def test_ambiguous_and_empty_folders(labelme, refused):
    (labelme / "mouse.slp").touch()
    err = refused(labelme)
    assert "it may be labelme (labelme) or SLEAP (sleap); choose one by --from" in err
    assert "it has no file of CVAT for images 1.1" in refused(labelme, "--from", "cvat")
    assert "it is SLEAP, and " in refused(labelme / "a.json", labelme / "mouse.slp")


def test_outputs_that_are_refused(labelme, refused, converted, capsys, tmp_path):
    assert "the name of a COCO file ends in .json" in refused(labelme, output=tmp_path / "out")
    done = converted(labelme)
    before = done.file.read_bytes()
    assert cli.main(["convert-data", str(done.file), "--output", str(done.file)]) == 2
    assert "it is an INPUT and would be overwritten" in capsys.readouterr().err
    assert done.file.read_bytes() == before
    assert "it is COCO keypoints already; choose another --to" in refused(done.file)
    assert "--no-visibility goes with --to yolo-pose" in refused(labelme, "--no-visibility")


def test_two_categories_with_other_keypoints(tmp_path, make_image, refused, converted):
    """A COCO file can hold them, YOLO-pose can not."""
    make_image(tmp_path / "a.png")
    box = '{"label": "%s", "points": [[1, 1], [9, 9]], "group_id": %s, "shape_type": "rectangle"}'
    shapes = [box % (name, group) for group, name in enumerate(("cat", "car"))]
    shapes += [(POINT % (name, 5)).replace("null", str(group)) for group, name in enumerate(("nose", "wheel"))]
    (tmp_path / "a.json").write_text(LABELS % ", ".join(shapes))
    err = refused(tmp_path / "a.json", "--to", "yolo-pose", output=tmp_path / "yolo")
    assert "categories 'cat' and 'car' have different keypoints or pairs; YOLO-pose has one kpt_shape" in err
    code = cli.main(["convert-data", str(tmp_path / "a.json"), "--output", str(tmp_path / "b.json")])
    assert code == 0
    found = json.loads((tmp_path / "b.json").read_text())["categories"]
    assert [category["keypoints"] for category in found] == [["nose"], ["wheel"]]
    words = (tmp_path / "b.json", "--image-dir", tmp_path, "--to", "yolo-pose")
    assert "categories 'cat' and 'car' have different keypoints" in refused(*words, output=tmp_path / "yolo")
    assert "no category 'dog'" in refused(*words, "--category", "car", "dog", output=tmp_path / "yolo")
    done = converted(*words, "--category", "car", output=tmp_path / "yolo")
    assert (done.file / "labels/train/a.txt").read_text().startswith("0 ")
    assert "of categories that have no keypoints or are not selected" in done.out


def test_what_the_reader_refuses_replaces_nothing(labelme, converted, capsys):
    """A name that no file system of other machines has is found by the reader only."""
    done = converted(labelme)
    before = done.file.read_bytes()
    (labelme / "a.png").rename(labelme / "a\x1f.png")
    (labelme / "a.json").write_text((labelme / "a.json").read_text().replace("a.png", "a\\u001f.png"))
    assert cli.main(["convert-data", str(labelme), "--output", str(done.file)]) == 2
    err = capsys.readouterr().err
    assert f"{done.file}: image 1" in err
    assert ".dynpose-" not in err
    assert done.file.read_bytes() == before
    assert sorted(path.name for path in done.file.parent.iterdir()) == ["in", "out.json"]
