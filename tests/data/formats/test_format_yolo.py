"""YOLO-pose: both layouts, both shapes of keypoints, and what Ultralytics would do with a row."""

import json

import numpy as np
import pytest
import yaml

from dynpose.data.datasets import read_schema

KEYS = {
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": {0: "cat", 1: "dog"},
    "kpt_names": {0: ["nose", "ear_r", "ear_l"], 1: ["nose", "ear_r", "ear_l"]},
}
# centre 32, 24 and size 32 x 24 in an image of 64 x 48: the box is 16, 12, 32, 24
ROW = "1 0.5 0.5 0.5 0.5 0.25 0.25 2 0.5 0.5 1 0 0 0"


def write(folder, keys=KEYS, rows=(ROW,), layout="images/{split}", make_image=None, **more):
    for split in ("train", "val"):
        place = layout.format(split=split)
        make_image(folder / place / f"{split}.png")
        label = folder / place.replace("images", "labels") / f"{split}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("\n".join(rows) + "\n")
    places = {split: layout.format(split=split) for split in ("train", "val")}
    (folder / "data.yaml").write_text(yaml.safe_dump({**places, **keys, **more}))
    return folder / "data.yaml"


@pytest.mark.parametrize("layout", ["images/{split}", "{split}/images"])
def test_both_layouts(tmp_path, make_image, converted, keypoints_by_image, layout):
    """By hand: fractions times 64 x 48, less half a pixel."""
    done = converted(write(tmp_path / "yolo", layout=layout, make_image=make_image))
    person = [(15.5, 11.5, 2), (31.5, 23.5, 1), (0, 0, 0)]
    names = [layout.format(split=split) for split in ("train", "val")]
    shared = "images/" if layout.startswith("images") else ""
    expected = {f"{name.removeprefix(shared)}/{split}.png": [person] for name, split in zip(names, ("train", "val"))}
    assert keypoints_by_image(done.data) == expected
    assert [item["bbox"] for item in done.data["annotations"]] == [[16, 12, 32, 24]] * 2
    assert {item["category_id"] for item in done.data["annotations"]} == {2}
    assert [image["split"] for image in done.data["images"]] == ["train", "val"]
    assert "pairs (flip_idx): ear_l / ear_r" in done.out
    assert "origin: the image's corner" in done.out
    assert "2 images (train 1, val 1), 2 people" in done.out
    assert "4 labelled points: 2 visible, 2 occluded; 2 not labelled" in done.out
    assert "cat, dog: 3 keypoints: nose, ear_r, ear_l" in done.out
    assert done.out.count("none\n") == 4  # limbs, lost, changed, remarks


def test_a_file_for_each_split(tmp_path, make_image, converted):
    done = converted(write(tmp_path / "yolo", make_image=make_image))
    for split in ("train", "val"):
        part = json.loads(done.file.with_name(f"out_{split}.json").read_text())
        assert [image["file_name"] for image in part["images"]] == [f"{split}/{split}.png"]
        assert len(part["annotations"]) == 1
        assert part["categories"] == done.data["categories"]
    schema = read_schema(done.file, category=["cat", "dog"])
    assert schema.flip_pairs == (("ear_l", "ear_r"),)


def test_the_pairs_of_the_file_are_used_for_training(tmp_path, make_image, converted):
    """Names without a side, or with a wrong one: flip_idx decides."""
    keys = {**KEYS, "names": ["cat"], "kpt_names": ["a", "b", "left_c"]}
    done = converted(write(tmp_path / "yolo", keys, ("0" + ROW[1:],), make_image=make_image))
    assert read_schema(done.file).flip_pairs == (("b", "left_c"),)
    assert read_schema(done.file, keypoints=["x", "l_y", "r_y"]).flip_pairs == (("l_y", "r_y"),)


def test_without_names(tmp_path, make_image, converted):
    keys = {"kpt_shape": [3, 3], "flip_idx": [0, 2, 1], "nc": 2}
    data = write(tmp_path / "yolo", keys, make_image=make_image)
    done = converted(data)
    assert done.data["categories"][0]["keypoints"] == ["keypoint_0", "keypoint_1", "keypoint_2"]
    assert done.data["categories"][0]["flip_pairs"] == [["keypoint_1", "keypoint_2"]]
    assert "whose keypoints get numbers (--keypoints names them): 2 (first: class_0)" in done.out
    done = converted(data, "--keypoints", "top", "l", "r", "--skeleton", "top:l", "top:r", "--pairs", "l:r")
    assert done.data["categories"][1]["keypoints"] == ["top", "l", "r"]
    assert done.data["categories"][1]["skeleton"] == [[1, 2], [1, 3]]


def test_coco_by_its_pairs(tmp_path, make_image, converted):
    flip = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    row = "0 0.5 0.5 1 1 " + " ".join(["0.5 0.5 2"] * 17)
    keys = {"kpt_shape": [17, 3], "flip_idx": flip, "names": ["person"]}
    done = converted(write(tmp_path / "yolo", keys, (row,), make_image=make_image))
    assert done.data["categories"][0]["keypoints"][:3] == ["nose", "left_eye", "right_eye"]
    assert "limbs (proposed: published for these keypoints): " in done.out


@pytest.mark.parametrize(("answer", "visibility"), [("missing", 0), ("visible", 2)])
def test_points_at_zero_without_a_visibility(tmp_path, make_image, converted, refused, answer, visibility):
    keys = {**KEYS, "kpt_shape": [3, 2]}
    data = write(tmp_path / "yolo", keys, ("0 0.5 0.5 0.5 0.5 0.25 0.25 0 0 -0.001 0.5",), make_image=make_image)
    err = refused(data)
    assert "2 of them are at (0, 0), the first in " in err
    assert "give --visibility-of-0-0 missing or --visibility-of-0-0 visible" in err
    done = converted(data, "--visibility-of-0-0", answer)
    place = (-0.5, -0.5) if visibility else (0, 0)
    assert done.data["annotations"][0]["keypoints"] == [15.5, 11.5, 2, *place, visibility, 0, 0, 0]
    assert f"read as {answer}: 2" in done.out
    assert ("labelled points at exactly (0, 0)" in done.out) == (answer == "visible")


def test_changes_and_remarks(tmp_path, make_image, converted):
    data = write(tmp_path / "yolo", rows=("0 0.5 0.5 0.5 0.5 0 0 2 0.5 0.5 0.7 0 0 0",), make_image=make_image,
                 skeleton=[["nose", "tail"]])  # fmt: skip
    make_image(tmp_path / "yolo" / "images" / "val" / "empty.png")
    (tmp_path / "yolo" / "labels" / "val" / "gone.txt").write_text(ROW)
    done = converted(data)
    assert "limbs of other than its keypoints: 1 (first: cat)" in done.out
    assert "files of labels without an image: 1 (first: " in done.out
    assert "visibilities other than 0, 1 and 2, read as visible: 2 (first: train.png)" in done.out
    assert "labelled points at exactly (0, 0), often missing ones: 2 (first: train.png)" in done.out
    assert "images without a file of labels, taken to show no people: 1 (first: " in done.out
    assert done.data["annotations"][0]["keypoints"] == [-0.5, -0.5, 2, 31.5, 23.5, 2, 0, 0, 0]
    assert len(done.data["images"]) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.5", "line 2: it has 4 numbers where kpt_shape makes 5 + 3 x 3 = 14"),
        (ROW + " 0.9", "line 2: it has 15 numbers"),
        ("2" + ROW[1:], "line 2: class 2, where names has 0 to 1"),
        ("x" + ROW[1:], "line 2: 'x' is no number"),
        ("0 32 24 32 24 16 12 2 32 24 1 0 0 0", "line 2: its coordinates are no fractions of the image's size"),
        ("0 0.5 0.5 nan 0.5 0.25 0.25 2 0.5 0.5 1 0 0 0", "line 2: not all its numbers are finite"),
    ],
)
def test_rows_that_are_refused(tmp_path, make_image, refused, row, message):
    err = refused(write(tmp_path / "yolo", rows=(ROW, row), make_image=make_image))
    assert message in err
    assert "2 items can't be converted" in err
    assert "labels/train/train.txt" in err
    assert "Ultralytics drops an image with such a row" in err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kpt_shape": [3, 4]}, "kpt_shape is [3, 4]"),
        ({"kpt_shape": [10**30, 3]}, "kpt_shape is [1000"),
        ({"kpt_shape": [True, 3]}, "kpt_shape is [True, 3]"),
        ({"flip_idx": [0, 1]}, "flip_idx is [0, 1], no order of 0 to 2"),
        ({"flip_idx": [1, 2, 0]}, "flip_idx moves keypoint 0 to 1, and 1 to 2"),
        ({"kpt_names": {0: ["a"]}}, "kpt_names of class 0 is ['a'], kpt_shape says 3 keypoints"),
        ({"kpt_names": ["a", "a", "b"]}, "keypoint names occur more than once: a"),
        ({"names": ["cat", "cat"]}, "names is ['cat', 'cat']"),
        ({"train": "images/gone"}, "train: images/gone is not in"),
    ],
)
def test_keys_that_are_refused(tmp_path, make_image, refused, keys, message):
    err = refused(write(tmp_path / "yolo", {**KEYS, **keys}, make_image=make_image, **keys))
    assert message in err


def test_a_list_of_images_and_a_root_that_has_moved(tmp_path, make_image, converted):
    data = write(tmp_path / "yolo", make_image=make_image, path="/gone/yolo", train="train.txt", valid="../images/val")
    (tmp_path / "yolo" / "train.txt").write_text("./images/train/train.png\n")
    done = converted(data)
    assert [(image["file_name"], image["split"]) for image in done.data["images"]] == [
        ("train/train.png", "train"),
        ("val/val.png", "val"),
    ]


def test_there_and_back(tmp_path, make_image, converted, keypoints_by_image):
    """yolo -> coco -> yolo -> coco: names, pairs, limbs, splits and classes are equal, coordinates to 1e-5 pixels."""
    rows = [ROW, "0 0.51 0.49 0.3 0.4 0.123456 0.654321 1 0.999 0.001 2 0.33333 0.77777 2"]
    first = converted(write(tmp_path / "yolo", rows=rows, make_image=make_image, skeleton=[["nose", "ear_l"]]))
    back = tmp_path / "back"
    done = converted(first.file, "--image-dir", tmp_path / "yolo" / "images", "--to", "yolo-pose", output=back)
    assert "lost: none" in done.out
    keys, original = (yaml.safe_load((folder / "data.yaml").read_text()) for folder in (back, tmp_path / "yolo"))
    assert keys == original
    assert (back / "images" / "train" / "train" / "train.png").is_symlink()
    second = converted(back, output=tmp_path / "second.json")
    assert second.data["categories"] == first.data["categories"]
    assert [image["split"] for image in second.data["images"]] == ["train", "val"]
    for one, other in zip(first.data["annotations"], second.data["annotations"]):
        assert one["category_id"] == other["category_id"]
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=1e-5)
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-5)


def coco(folder, make_image, annotations, images=("a.png",), **more):
    for name in images:
        make_image(folder / "images" / name)
    data = {
        "images": [
            {"id": i, "file_name": name, "width": 64, "height": 48, **more} for i, name in enumerate(images)
        ],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["nose", "left_ear", "right_ear"]}],
        "annotations": [{"id": i, "image_id": 0, "category_id": 1, **item} for i, item in enumerate(annotations, 1)],
    }  # fmt: skip
    (folder / "cats.json").write_text(json.dumps(data))
    return folder / "cats.json", folder / "images"


def test_what_yolo_can_not_hold(tmp_path, make_image, converted):
    """Points and boxes outside the image, for which Ultralytics drops the image; crowds; tracks have no column."""
    people = [
        {"bbox": [-4, 10, 20, 20], "keypoints": [10, 12, 2, 70, 12, 2, 12, 20, 1]},
        {"bbox": [70, 10, 20, 20], "keypoints": [0, 0, 0, 0, 0, 0, 0, 0, 0]},
        {"bbox": [0, 0, 20, 20], "keypoints": [0, 0, 0, 0, 0, 0, 0, 0, 0], "iscrowd": 1},
    ]
    file, images = coco(tmp_path, make_image, people, images=("a.png", "a.jpg", "images/b.png"))
    done = converted(file, "--image-dir", images, "--to", "yolo-pose", "--copy-images", output=tmp_path / "yolo")
    for line in (
        "crowds (iscrowd): 1",
        "people whose box is outside the image: 1",
        "labelled points outside the image, written as not labelled: 1",
        "boxes clipped to the image: 1",
        "images renamed, since labels are found by the name without its suffix: 1 (first: a.jpg)",
        "splits that Ultralytics requires, set to the images of another: 1 (first: val: images/train)",
    ):
        assert line in done.out
    labels = sorted(path.relative_to(done.file).as_posix() for path in done.file.rglob("*.txt"))
    assert labels == ["labels/train/a.txt", "labels/train/a_jpg1.txt", "labels/train/images_/b.txt"]
    # by hand: (10 + 0.5) / 64, (12 + 0.5) / 48; the box is cut to 0 ... 16
    words = (done.file / "labels/train/a.txt").read_text().split()
    expected = [0, 8 / 64, 20 / 48, 16 / 64, 20 / 48, 10.5 / 64, 12.5 / 48, 2, 0, 0, 0, 12.5 / 64, 20.5 / 48, 1]
    np.testing.assert_allclose([float(word) for word in words], expected, atol=1e-9)
    assert not (done.file / "images/train/a.png").is_symlink()
    keys = yaml.safe_load((done.file / "data.yaml").read_text())
    assert keys["kpt_shape"] == [3, 3]
    assert keys["flip_idx"] == [0, 2, 1]
    assert keys["train"] == keys["val"] == "images/train"


def test_without_visibilities(tmp_path, make_image, converted):
    file, images = coco(tmp_path, make_image, [{"bbox": [5, 5, 30, 30], "keypoints": [10, 12, 1, 0, 0, 0, 12, 20, 2]}])
    words = (file, "--image-dir", images, "--to", "yolo-pose", "--no-visibility")
    done = converted(*words, output=tmp_path / "yolo")
    assert "points that are not labelled, visible at (0, 0) to Ultralytics: 1" in done.out
    assert "visibilities of 1 (occluded): 1" in done.out
    assert len((done.file / "labels/train/a.txt").read_text().split()) == 5 + 3 * 2
    assert yaml.safe_load((done.file / "data.yaml").read_text())["kpt_shape"] == [3, 2]


def test_splits_as_given(tmp_path, make_image, converted, refused):
    files = []
    for split in ("a", "b"):
        file, images = coco(tmp_path / split, make_image, [{"bbox": [5, 5, 9, 9], "keypoints": [9, 9, 2] * 3}])
        files.append(file)
    words = (*files, "--image-dir", images, "--to", "yolo-pose")
    err = refused(*words, "--splits", "train", output=tmp_path / "yolo")
    assert "1 splits for 2 inputs; give one for each INPUT" in err


def test_an_output_with_files_is_kept(tmp_path, make_image, capsys):
    from dynpose.tools import cli

    file, images = coco(tmp_path, make_image, [{"bbox": [5, 5, 9, 9], "keypoints": [9, 9, 2] * 3}])
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "note.txt").write_text("mine")
    words = [str(file), "--image-dir", str(images), "--to", "yolo-pose", "--output", str(tmp_path / "yolo")]
    assert cli.main(["convert-data", *words]) == 2
    assert "it exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "yolo").iterdir()] == ["note.txt"]


def test_a_list_of_images_that_is_no_text(tmp_path, make_image, refused):
    file = write(tmp_path / "yolo", make_image=make_image, test="test.txt")
    (file.parent / "test.txt").write_bytes(b"\xff\xfe\x00")
    assert "test.txt: it is no list of images in UTF-8" in refused(file)
