"""`dynpose benchmark loading`: the files that it writes, its comparisons and its figures."""

import json
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import parse, read_tables
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from dynpose.benchmark import memory
from dynpose.benchmark.loading import annotation_files, case, report, run
from dynpose.benchmark.loading.case import DETECTRON2, FIRST, SECOND
from dynpose.data import coco_json, load_pose_json
from dynpose.tools import benchmark

IMAGES, PEOPLE = 40, 300


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    """``people.json`` beside ``images/``, with empty image files."""
    folder = tmp_path_factory.mktemp("annotation")
    (folder / "images").mkdir()
    for name in annotation_files.write_annotation(folder / "people.json", IMAGES, PEOPLE):
        (folder / "images" / name).touch()
    return folder


# --- the files ---


def test_the_annotation_has_cocos_make_up(annotation):
    """As pycocotools reads it."""
    coco = COCO(annotation / "people.json")
    people = list(coco.anns.values())
    assert (len(coco.imgs), len(people)) == (IMAGES, PEOPLE)
    crowds = [person for person in people if person["iscrowd"]]
    labelled = [person for person in people if person["num_keypoints"]]
    assert 0 < len(crowds) < 0.05 * PEOPLE
    assert len(labelled) / PEOPLE == pytest.approx(0.6, abs=0.1)
    assert not any(person["iscrowd"] for person in labelled)
    (category,) = coco.loadCats(coco.getCatIds())
    assert (len(category["keypoints"]), category["keypoints"][0], category["skeleton"][0]) == (17, "nose", [16, 14])
    for person in people:
        x, y, width, height = person["bbox"]
        keypoints = np.reshape(person["keypoints"], (-1, 3))
        assert keypoints.dtype == np.int64
        assert (keypoints[:, 2] > 0).sum() == person["num_keypoints"]
        assert (keypoints[keypoints[:, 2] == 0] == 0).all()
        seen = keypoints[keypoints[:, 2] > 0]
        assert ((seen[:, :2] >= np.floor([x, y])) & (seen[:, :2] <= [x + width, y + height])).all()
        assert x >= 0
        assert y >= 0
        assert x + width <= 640
        assert y + height <= 480


def test_areas_are_those_of_the_segmentations(annotation):
    """By OpenCV for polygons, by pycocotools for the RLE of crowds."""
    coco = COCO(annotation / "people.json")
    for person in coco.anns.values():
        x, y, width, height = person["bbox"]
        if person["iscrowd"]:
            rle = coco.annToRLE(person)
            assert mask_util.area(rle) == person["area"]
            assert mask_util.toBbox(rle).tolist() == person["bbox"]
            continue
        polygons = [np.reshape(polygon, (-1, 2)) for polygon in person["segmentation"]]
        assert 1 <= len(polygons) <= 2
        assert sum(cv2.contourArea(p.astype(np.float32)) for p in polygons) == pytest.approx(person["area"], abs=0.1)
        points = np.concatenate(polygons)
        assert (points >= np.array([x, y]) - 0.01).all()
        assert (points <= np.array([x + width, y + height]) + 0.01).all()


def test_the_reader_has_nothing_to_fix(annotation):
    """Else it would be timed on a file that COCO's are not like."""
    remarks = []
    load_pose_json(annotation / "people.json", annotation / "images", on_remarks=remarks.append)
    assert set(remarks[0].counts) == {"not labelled"}


def test_the_annotation_is_the_same_every_time(tmp_path):
    contents = set()
    for seed in (0, 0, 1):
        annotation_files.write_annotation(tmp_path / "people.json", 3, 5, seed)
        contents.add((tmp_path / "people.json").read_bytes())
    assert len(contents) == 2


def test_images_have_the_size_that_is_told(tmp_path):
    records = annotation_files.write_images(tmp_path, 4)
    assert len(set(tmp_path.iterdir())) == 4
    for record in records:
        with Image.open(record["file_name"]) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (record["width"], record["height"]))


# --- comparisons ---


def person(x, keypoints):
    return {"category_id": 0, "iscrowd": 0, "bbox": [x, 2.0, 3.0, 4.0], "bbox_mode": 1, "keypoints": keypoints}


def test_summary_by_hand():
    records = [
        {"image_id": 7, "annotations": [person(1.0, [0.5, 1.5, 2]), person(5.0, [0.5, 0.5, 0])]},
        {"image_id": 9, "annotations": [person(1.0, [8.5, 9.5, 1])]},
    ]
    numbers = [7, 0, 0, 1, 2, 3, 4, 0.5, 1.5, 2, 0, 0, 5, 2, 3, 4, 0.5, 0.5, 0, 9, 0, 0, 1, 2, 3, 4, 8.5, 9.5, 1]
    checksum = zlib.crc32(struct.pack(f"={len(numbers)}d", *numbers))
    assert case.summarise(records) == {"images": 2, "people": 3, "checksum": checksum}
    records[1]["annotations"][0]["keypoints"][0] = 8.0
    assert case.summarise(records)["checksum"] != checksum


@pytest.fixture
def in_this_process(monkeypatch):
    """No new process, which takes seconds to import torch; the arguments are pickled all the same."""
    calls = []

    def call(function, *arguments, environment):
        calls.append(environment["DYNPOSE_CACHE"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DYNPOSE_CACHE", environment["DYNPOSE_CACHE"])
            return pickle.loads(pickle.dumps(function))(*arguments)

    monkeypatch.setattr(run, "in_fresh_process", call)
    return calls


def command(*arguments):
    return parse("loading", "--images", "6", "--people", "30", "--rounds", "2", *arguments)


def test_tables_have_a_row_for_every_reader(in_this_process, catalogs, monkeypatch, tmp_path, capsys):
    parsed, parse_file = [], coco_json._parse_pose_file
    monkeypatch.setattr(coco_json, "_parse_pose_file", lambda *args: parsed.append(1) or parse_file(*args))
    data = tmp_path / "figures.json"
    arguments = ("--image-files", "120", "--markdown", "--json", str(data))
    assert benchmark.run(command(*arguments)) == 0
    # of a round, the first start alone reads the file, and its second start alone shares the cache with it
    assert len(parsed) == 2
    assert [in_this_process.count(folder) for folder in dict.fromkeys(in_this_process)] == [3, 3, 2, 2]

    out = capsys.readouterr().out
    reading, checking = read_tables(out).values()
    assert [row["reader"] for row in reading] == [DETECTRON2, FIRST, SECOND]
    assert [row["reader"] for row in checking] == [FIRST, SECOND]
    ratios = ["wall / detectron2", "CPU / detectron2", "memory / detectron2"]
    assert list(reading[0]) == ["reader", "wall, s", "CPU, s", "of which filters, s", "memory, MiB", *ratios]
    assert reading[0]["wall / detectron2"] == reading[0]["CPU / detectron2"] == "1.00"
    for row in (*reading, *checking):
        assert float(row["wall, s"]) > 0
        assert float(row["CPU, s"]) > 0
    for row in reading:
        assert 0 < float(row["of which filters, s"]) < float(row["CPU, s"])

    text = data.read_text()
    assert report.tables(json.loads(text), "github") + "\n" == out
    assert "Annotation of 6 images and 30 people" in out
    assert "Check of 120 image files" in out
    for path in (Path.home(), Path.cwd(), tmp_path, Path(sys.prefix)):
        assert str(path) not in text
    assert os.sep not in text.replace(json.loads(text)["environment"]["device"], "")


def test_without_image_files_there_is_one_table(in_this_process, catalogs, capsys):
    assert benchmark.run(command("--image-files", "0", "--markdown")) == 0
    assert len(read_tables(capsys.readouterr().out)) == 1
    assert len(in_this_process) == 6


def test_who_disagrees_with_detectron2_is_named(in_this_process, catalogs, monkeypatch, capsys):
    monkeypatch.setattr(case, "load_pose_json", lambda *args: load_pose_json(*args)[1:])
    assert benchmark.run(command("--image-files", "0")) == 1
    *_, first, second = capsys.readouterr().out.strip().split("\n\n")
    assert first.startswith(f"{FIRST}: disagrees with detectron2: images ")
    assert second.startswith(f"{SECOND}: disagrees with detectron2: images ")


# --- figures ---


def test_medians_and_ratios_by_hand():
    """The ratio is the median of the rounds' ratios, 2 / 4, 3 / 3 and 8 / 10, not the ratio of the medians."""
    key = {"filters_cpu_s": 1.0, "cpu_s": 1.0}
    rows = run._rows(
        {
            DETECTRON2: [{"wall_s": wall, "mib": 4.0, **key} for wall in (4.0, 3.0, 10.0)],
            FIRST: [{"wall_s": wall, "mib": None, **key} for wall in (2.0, 3.0, 8.0)],
        }
    )
    assert [row["wall_s"] for row in rows] == [4, 3]
    assert [row["wall_s_ratio"] for row in rows] == [1, pytest.approx(0.8)]
    assert [(row["mib"], row["mib_ratio"]) for row in rows] == [(4, 1), (None, None)]
    assert report._reading(rows[1], rows[0])["memory, MiB"] == ""


def test_memory_is_the_peak_beyond_what_was_held_before(monkeypatch):
    readings = iter((50 * 2**20, 57 * 2**20))
    monkeypatch.setattr(memory, "_highest_resident_memory", lambda: next(readings))
    monkeypatch.setattr(Path, "write_text", lambda path, text: len(text))
    assert case.with_figures(lambda: "result")[1]["mib"] == 7


def test_memory_that_the_system_does_not_tell(monkeypatch):
    def refuse(path, text):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    result, figures = case.with_figures(lambda: "result")
    assert result == "result"
    assert figures["mib"] is None


@pytest.mark.parametrize(
    "arguments", [("--images", "0"), ("--rounds", "0"), ("--image-files", "-1"), ("--device", "cpu")]
)
def test_mistakes_are_told_before_anything_is_measured(arguments):
    with pytest.raises(SystemExit):
        parse("loading", *arguments)


def test_defaults():
    args = parse("loading")
    assert (args.images, args.people, args.image_files, args.rounds) == (64000, 150000, 5000, 5)
