"""`dynpose check-data`: all faults at once, the exit code, and a page on which a wrong flip pair is seen."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynpose.data import DatasetError, KeypointSchema, load_pose_json
from dynpose.tools import cli, flip_page
from dynpose.tools.flip_page import flipped

sys.path.append(str(Path(__file__).parents[1] / "data"))
from fuzzing import HostileFiles, sound_annotation


@pytest.fixture
def files(tmp_path):
    files = HostileFiles(tmp_path / "data")
    files.write(sound_annotation())
    return files


def check(files, *options):
    page = files.folder / "page.png"
    words = ["--json", files.json_file, "--images", files.image_root, "--output", page, *options]
    return cli.main(["check-data", *map(str, words)])


def test_a_sound_data_set(files, capsys):
    assert check(files) == 0
    out = capsys.readouterr().out
    assert "people.json: 2 images, 3 people, 2 of them with labelled keypoints" in out
    assert "change places in a flipped image: left_wrist / right_wrist" in out
    assert "faults" not in out
    assert "1 of 5 annotations have no labelled keypoint: trained as boxes (annotation 12)" in out
    assert out.endswith("training can start\n")
    assert Image.open(files.folder / "page.png").size[0] > 900


def test_captions_name_the_file_and_the_mirrored_copy(files, monkeypatch):
    written = []
    monkeypatch.setattr(flip_page, "draw_text", lambda image, line, *_, **__: written.append(line.strip("\u200e")))
    assert check(files) == 0
    files_of = [Path(files.image_root, image["file_name"]) for image in sound_annotation()["images"]]
    names = {f"{file.parent.name}/{file.name}" for file in files_of}
    captions = [line.split(": ") for line in written if ": " in line]
    assert len(captions) == 4
    assert [caption[0] for caption in captions] == ["as annotated", "mirrored"] * 2
    assert {caption[1] for caption in captions} <= names
    assert captions[0][1] == captions[1][1]


def test_long_names_are_shortened_in_their_middle():
    start, name = "mirrored: ", "x" * 200 + "_0001.jpg"
    caption = flip_page._shortened(start, name)
    assert caption.startswith("mirrored: xxx")
    assert caption.endswith("x_0001.jpg")
    assert flip_page.text_size(caption, 15)[0] <= 480
    assert flip_page._shortened(start, "a.jpg") == "mirrored: a.jpg"


def test_large_images_are_not_decoded_for_the_page(files, capsys, monkeypatch):
    monkeypatch.setattr(flip_page, "MAX_PIXELS", 40 * 30 - 1)
    assert check(files) == 0
    printed = capsys.readouterr()
    assert "not drawn: 2 people in images of more than 1,199 pixels" in printed.err
    assert not (files.folder / "page.png").exists()
    assert printed.out.endswith("training can start\n")


def faulty(files):
    """Many faults, of which the loader would tell one."""
    data = sound_annotation()
    person = data["annotations"][0]
    data["annotations"] += [
        *({**person, "id": 20 + i, "bbox": [0, 0, -1, 5]} for i in range(7)),
        {**person, "id": 30, "bbox": None, "keypoints": [1, 2]},
        {**person, "id": 31, "image_id": 99},
        {**person, "id": 32, "category_id": 99},
        {**person, "id": 33, "iscrowd": 1, "segmentation": "no"},
        {**person, "id": 34, "iscrowd": 2},
        person,
    ]
    data["images"] += [
        {"id": 8, "file_name": "gone.png", "width": 4, "height": 4},
        {"id": 9, "file_name": "../secret.png", "width": 40, "height": 30},
        {"id": 10, "file_name": "cut.jpg", "width": 40, "height": 30},
        {"id": 12, "file_name": "deep.png", "width": 40, "height": 30},
        {"id": 13, "file_name": "turned.jpg", "width": 40, "height": 30},
        {"id": 14, "file_name": "a.png", "width": True, "height": 30},
    ]
    content = (files.image_root / "night" / "b.jpg").read_bytes()
    (files.image_root / "cut.jpg").write_bytes(content[:-400])
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(files.image_root / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(files.image_root / "turned.jpg", exif=exif)
    files.write(data)


@pytest.mark.parametrize("options", [(), ("--decode",)])
def test_all_faults_at_once(files, capsys, options):
    faulty(files)
    assert check(files, "--examples", 3, *options) == 1
    out = capsys.readouterr().out
    kinds = [line.strip() for line in out.splitlines() if line.startswith("    ") and line[4] != " "]
    faults = [line for line in kinds if "annotations" not in line and "images are" not in line]
    assert sorted(faults) == [
        "boxes: 7",
        "crowds: 1",
        "file names: 1",
        "image sizes: 1",
        "images: 3",
        "keypoints: 1",
        "missing images: 1",
        "segmentations: 1",
        "unknown categories: 1",
        "unknown images: 1",
    ]
    assert "1 of 18 annotations have no id or one that occurs twice: they are renumbered (annotation 11)" in out
    assert "images are listed more than once, under several ids (a.png)" in out
    assert out.count("bbox is [0, 0, -1, 5]; write") == 3
    assert "more than 8 bits per channel" in out
    assert "turned.jpg: the image is 30 x 40 pixels, its annotation says 40 x 30" in out
    assert out.endswith("training would fail\n")


def test_the_loader_stops_at_a_reported_fault(files, capsys):
    """One by one: whatever the loader raises is in the report of the same file."""
    faulty(files)
    check(files, "--examples", 50)
    report = " ".join(capsys.readouterr().out.split())
    with pytest.raises(DatasetError) as error:
        load_pose_json(files.json_file, files.image_root)
    assert " ".join(str(error.value).split()) in report


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (json.dumps({**sound_annotation(), "categories": []}).encode(), "none of its categories has keypoints"),
        (json.dumps({**sound_annotation(), "annotations": []}).encode(), "there is no person to train on"),
    ],
)  # fmt: skip
def test_nothing_to_learn(files, capsys, content, message):
    files.write(content)
    assert check(files) == 1
    out = capsys.readouterr().out
    assert message in out
    assert "no page" in out


@pytest.mark.parametrize("words", [[], ["--json", "a.json"], ["--config-file", "c", "--json", "a", "--images", "b"]])
def test_the_data_set_to_check_must_be_given(words, capsys):
    assert cli.main(["check-data", *words]) == 2
    assert "either --json with --images, or --config-file" in capsys.readouterr().err


@pytest.mark.usefixtures("catalogs")
def test_a_config(files, tmp_path, capsys):
    entry = {"name": "check_people", "json_file": str(files.json_file), "image_root": str(files.image_root)}
    config = tmp_path / "c.yaml"
    data_sets = {"POSE": [entry], "TRAIN": ["check_people"], "TEST": ["check_people"]}
    base = str(Path(__file__).parents[2] / "configs" / "quick" / "fcpose_small.yaml")
    config.write_text(json.dumps({"_BASE_": base, "DATASETS": data_sets}))
    words = ["check-data", "--config-file", str(config), "--output", str(tmp_path / "page.jpg")]
    assert cli.main(words) == 0
    assert "check_people: 2 images" in capsys.readouterr().out
    faulty(files)
    assert cli.main(words) == 1


def test_the_twin_shows_a_wrong_pair(files):
    """By hand: x becomes width - x, and the pairs change places."""
    right = KeypointSchema(names=("nose", "left_wrist", "right_wrist"), flip_pairs=(("left_wrist", "right_wrist"),))
    wrong = KeypointSchema(names=right.names, flip_pairs=(("nose", "left_wrist"),))
    none = KeypointSchema(names=right.names, flip_pairs=())
    record = load_pose_json(files.json_file, files.image_root)[1]
    person = record["annotations"][0]

    def keypoints(schema, flip):
        image, instances = flipped(record, person, schema, flip)
        return image, instances.gt_keypoints.tensor[0, :, :2].tolist()

    image, points = keypoints(right, False)
    width = image.shape[1]
    nose, left, other = points
    for schema, expected in ((right, (nose, other, left)), (wrong, (left, nose, other)), (none, (nose, left, other))):
        mirrored, twin = keypoints(schema, True)
        assert np.array_equal(mirrored, image[:, ::-1])
        np.testing.assert_allclose(twin, [[width - x, y] for x, y in expected])
        assert keypoints(schema, False)[1] == points


def test_an_unpaired_keypoint_is_seen_on_the_page(files):
    data = sound_annotation()
    pages = []
    for names in (["nose", "left_wrist", "right_wrist"], ["nose", "left_wrist", "wrist"]):
        data["categories"][0]["keypoints"] = names
        files.write(data)
        assert check(files, "--samples", 1) == 0
        pages.append(np.asarray(Image.open(files.folder / "page.png")).astype(int))
    assert pages[0].shape == pages[1].shape
    assert np.abs(pages[0] - pages[1])[:, pages[0].shape[1] // 2 :].any()
