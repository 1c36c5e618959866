"""The data file of `dynpose train --data`: its keys, its errors, and the images that are held out."""

import json
from pathlib import Path

import pytest

from dynpose.config import ConfigError
from dynpose.data import DatasetError
from dynpose.data.data_file import ImageSource, proposed_sigmas, read_data_file

NAMES = ["left_hand", "right_hand", "head"]


def annotation(num_images=20, first=1):
    """Images with ids from ``first``; every fourth has no people."""
    ids = range(first, first + num_images)
    person = {"category_id": 4, "bbox": [5, 5, 30, 30], "keypoints": [10, 10, 2, 20, 20, 2, 30, 30, 1], "iscrowd": 0}
    return {
        "info": {"year": 2026},
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 40} for i in ids],
        "annotations": [{**person, "id": 10 * i, "image_id": i} for i in ids if i % 4],
        "categories": [{"id": 4, "name": "robot", "keypoints": NAMES, "skeleton": [[1, 3], [2, 3]]}],
    }


@pytest.fixture
def write(tmp_path):
    """A function that writes a data file beside two annotation files and a folder of images."""
    (tmp_path / "images").mkdir()
    (tmp_path / "train.json").write_text(json.dumps(annotation()))
    (tmp_path / "more.json").write_text(json.dumps(annotation(8, first=101)))

    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_paths_start_from_its_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    folder = str(tmp_path)
    data = read_data_file(write("train: {annotations: train.json, images: ./images}\nval: more.json\n"))
    assert data.train == (ImageSource(f"{folder}/train.json", f"{folder}/images"),)
    # without images, the folder of the annotation
    assert data.val == (ImageSource(f"{folder}/more.json", folder),)
    assert data.options == {}
    assert data.entries()["val"] == [{"name": "my_val", "json_file": f"{folder}/more.json", "image_root": folder}]


def test_keys_become_those_of_a_data_set(write):
    text = (
        "train:\n- {annotations: train.json, images: images}\n- more.json\nnames: [a, b, c]\npairs: [[a, b]]\n"
        "skeleton: [[a, c]]\nsigmas: [0.1, 0.1, 0.05]\ncategory: robot\nclasses:\n"
    )
    entries = read_data_file(write(text)).entries()["train"]
    assert [entry["name"] for entry in entries] == ["my_train_0", "my_train_1"]
    for entry in entries:
        del entry["name"], entry["json_file"], entry["image_root"]
        assert entry == {
            **{"keypoints": ["a", "b", "c"], "flip_pairs": [["a", "b"]], "skeleton": [["a", "c"]]},
            **{"sigmas": [0.1, 0.1, 0.05], "category": "robot"},
        }


TRAIN = "train: {annotations: train.json, images: images}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val: train.json\n", "it has no key train; add train: {annotations: FILE, images: FOLDER}"),
        (TRAIN + "nams: [a]\n", r"unknown key nams; did you mean names\? Known are train, val, names, pairs, "),
        (TRAIN + "xyzzy: 1\n", "unknown key xyzzy; Known are train, val"),
        ("train: {annotation: train.json}\n", r"unknown key train.annotation; did you mean annotations\? "),
        ("train: {images: images}\n", "train has no annotations; add the path of a file in COCO's keypoint format"),
        ("train: {annotations: [a]}\n", r"train.annotations is \['a'\]; write a path"),
        ("train: [train.json, 5]\n", r"train\[1\] is 5; write {annotations: FILE, images: FOLDER}"),
        ("train: []\n", "train is an empty list; add {annotations"),
        ("train: gone.json\n", "train.annotations .*/gone.json does not exist; relative paths start from the folder"),
        ("train: images\n", "train.annotations .*/images is a folder; give a file in COCO's .*dynpose convert-data"),
        ("train: {annotations: train.json, images: gone}\n", "train.images .*/gone is no folder; relative paths"),
        (TRAIN + "names: nose\n", "names is nose; write a list of names"),
        (TRAIN + "names: [a, b, a]\n", "names has a more than once; write each name once"),
        (TRAIN + "pairs: [[a, b, c]]\n", r"pairs has \['a', 'b', 'c'\]; write a list of \[left name, right name\]"),
        (TRAIN + "pairs: {a: b}\n", r"pairs has {'a': 'b'}; write a list of"),
        (TRAIN + "skeleton: [a]\n", r"skeleton has a; write a list of \[name, name\]"),
        (TRAIN + "sigmas: [0.1, -1]\n", r"sigmas is \[0.1, -1\]; write a list with a positive number for each"),
        (TRAIN + "schema: cocoo\n", "schema is 'cocoo': keypoint schema 'cocoo' is not known; known are coco"),
        (TRAIN + "schema: coco\nnames: [a]\n", "schema defines the keypoints; give names or schema, not both"),
        (
            "path: .\ntrain: images\nkpt_shape: [17, 3]\n",
            "its key kpt_shape is that of a data file of Ultralytics; conv",
        ),
        ("MODEL: {DEVICE: cpu}\n", "its key MODEL is that of a config; give it with --config-file"),
        (json.dumps(annotation()), "it is an annotation file; write a data file with train: {annotations: "),
    ],
)
def test_faults(write, text, message):
    path = write(text)
    with pytest.raises(DatasetError, match=rf"^{path}: {message}"):
        read_data_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; write train: "),
        ("- a\n", "the file holds a list; write train: "),
        ("train: a\ntrain: b\n", "key 'train' occurs twice"),
    ],
)
def test_files_that_are_no_mapping(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError, match=rf"^{path}: .*{message}"):
        read_data_file(path)
    with pytest.raises(ConfigError, match="no_such"):
        read_data_file("no_such.yaml")


def test_a_part_is_held_out(write, tmp_path):
    data = read_data_file(write("train: [{annotations: train.json, images: images}, more.json]\n"))
    split = data.hold_out(tmp_path / "data", seed=1)
    again = data.hold_out(tmp_path / "again", seed=1)
    for i, (source, numbers) in enumerate((("train", (16, 4)), ("more", (6, 2)))):
        original = json.loads((tmp_path / f"{source}.json").read_text())
        parts = [json.loads((tmp_path / "data" / f"{part}_{i}.json").read_text()) for part in ("train", "val")]
        assert tuple(len(part["images"]) for part in parts) == numbers
        for key in ("images", "annotations"):
            merged = sorted(parts[0][key] + parts[1][key], key=lambda item: item["id"])
            assert merged == original[key]
        for part in parts:
            ids = {image["id"] for image in part["images"]}
            assert {item["image_id"] for item in part["annotations"]} == {i for i in ids if i % 4}
            assert (part["info"], part["categories"]) == (original["info"], original["categories"])
        for part in ("train", "val"):
            assert (tmp_path / f"again/{part}_{i}.json").read_text() == (tmp_path / f"data/{part}_{i}.json").read_text()
    # 4 of 20 images are held out, 5 of which have no people
    val = json.loads((tmp_path / "data/val_0.json").read_text())
    assert sum(image["id"] % 4 == 0 for image in val["images"]) == 1
    assert [source.images for source in split.val] == [source.images for source in data.train]
    assert [source.annotations for source in split.val] == [str(tmp_path / f"data/val_{i}.json") for i in (0, 1)]
    assert again.val != split.val


def test_too_few_people_to_divide(write, tmp_path):
    content = annotation()
    content["annotations"] = content["annotations"][:1]
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = read_data_file(write(TRAIN))
    with pytest.raises(DatasetError, match=r"my\.yaml: train has too few images with labelled people .* or add val"):
        data.hold_out(tmp_path / "data")


def test_a_fault_of_the_annotation_names_it(write, tmp_path):
    content = annotation()
    content["annotations"][0]["image_id"] = 999
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/train\.json: annotation 10"):
        read_data_file(write(TRAIN)).hold_out(tmp_path / "data")


def test_another_folder_than_that_of_the_images_is_refused(write, tmp_path):
    data = read_data_file(write(TRAIN))
    with pytest.raises(DatasetError, match=r"my\.yaml: none of the .* images of .*train\.json is in "):
        data.check_image_folders()
    name = annotation()["images"][-1]["file_name"]
    path = Path(data.train[0].images, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    data.check_image_folders()


def test_sigmas_of_coco_for_its_names(write):
    assert proposed_sigmas(["LEye", "REye", "nose"]) == [0.025, 0.025, 0.026]
    assert proposed_sigmas(["left_hip", "antenna"]) is None
    # read from the file: no published value for hands and head
    assert read_data_file(write(TRAIN)).completed().options == {}
    renamed = read_data_file(write(TRAIN + "names: [left_wrist, right_wrist, nose]\n")).completed()
    assert renamed.options["sigmas"] == [0.062, 0.062, 0.026]
    given = read_data_file(write(TRAIN + "names: [left_wrist, right_wrist, nose]\nsigmas: [1, 1, 1]\n"))
    assert given.completed() == given
