"""Files of predictions, each read back by the library that it is for, against numbers worked out by hand."""

import contextlib
import csv
import io
import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from result_examples import CAT, DOG, ENTRIES, NAMES, VIDEO, image

from dynpose.config import ConfigError
from dynpose.data import DatasetError
from dynpose.results import FORMATS, check_formats


def load(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


# --- COCO ---


def test_pycocotools_reads_coco_results_with_running_numbers(write):
    folder, (line,) = write("coco")
    assert "3 people; image ids are running numbers, listed in coco_images.json" in line
    with quiet():
        truth = COCO(str(folder / "coco_images.json"))
        found = truth.loadRes(str(folder / "coco_results.json"))
    assert [truth.imgs[i]["file_name"] for i in (1, 2, 3)] == ["a/x.jpg", "b/x.png", "b/empty.jpg"]
    assert truth.cats[2]["name"] == CAT["category_name"]
    assert truth.cats[1]["keypoints"] == list(NAMES)
    assert truth.cats[1]["skeleton"] == [[1, 2], [1, 3]]
    cat, dog = found.loadAnns(found.getAnnIds(imgIds=[1]))
    assert (cat["category_id"], dog["category_id"]) == (2, 1)
    assert cat["keypoints"] == [19.5, 29.5, 0.8, 24.5, 39.5, 0.01, -3.0, 30.0, 0.7]
    assert (cat["bbox"], cat["score"], cat["area"]) == (CAT["bbox"], 0.9, 1200)


def test_coco_ids_come_from_cocos_file_names(write):
    names = ("val2017/000000000139.jpg", "COCO_val2014_000000581929.jpg")
    folder, (line,) = write("coco", [image(name, CAT) for name in names])
    assert "image ids are COCO's file names" in line
    assert [item["image_id"] for item in load(folder / "coco_results.json")] == [139, 581929]
    assert [item["id"] for item in load(folder / "coco_images.json")["images"]] == [139, 581929]


@pytest.mark.parametrize(
    "names", [("a/000000000139.jpg", "b/000000000139.jpg"), ("000000000139.jpg", "139.jpg")], ids=["twice", "mixed"]
)
def test_ambiguous_file_names_get_running_numbers(write, names):
    folder, _ = write("coco", [image(name, CAT) for name in names])
    assert [item["image_id"] for item in load(folder / "coco_results.json")] == [1, 2]


def annotation(path, images, categories=None, annotations=()):
    categories = categories or [{"id": 5, "name": "chat <é> 猫", "keypoints": NAMES}, {"id": 9, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": list(annotations)}))
    return str(path)


def test_coco_ids_of_an_annotation(write, tmp_path):
    """By the longest common end of the paths; results agree with the truth at AP 1 by pycocotools."""
    person = {"id": 1, "image_id": 70, "category_id": 5, "iscrowd": 0, "area": 1200, "bbox": CAT["bbox"]}
    person |= {"keypoints": [19.5, 29.5, 2, 24.5, 39.5, 2, -3, 30, 2], "num_keypoints": 3}
    file = annotation(
        tmp_path / "truth.json",
        [
            {"id": 70, "file_name": "val/a/x.jpg", "width": 200, "height": 100},
            {"id": 71, "file_name": "val\\b\\x.jpg"},
            {"id": 72, "file_name": "x.png", "width": 100, "height": 200},
        ],
        annotations=[person],
    )
    folder, (line,) = write("coco", annotations=file)
    assert "which has 2 of the images" in line
    assert "1 images that it lacks are omitted (b/empty.jpg)" in line
    assert "1 images have another size there, so that their coordinates may not fit (b/x.png)" in line
    assert not (folder / "coco_images.json").exists()
    with quiet():
        truth = COCO(file)
        found = truth.loadRes(str(folder / "coco_results.json"))
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = evaluation.params.kpt_oks_sigmas[:3]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert [(item["image_id"], item["category_id"]) for item in found.dataset["annotations"]] == [
        (70, 5),
        (70, 9),
        (72, 9),
    ]
    assert evaluation.stats[0] == pytest.approx(1)


def test_an_only_class_is_the_only_category_with_keypoints(write, tmp_path):
    file = annotation(tmp_path / "truth.json", [{"id": "a", "file_name": "x.png"}])
    person = {**DOG, "category": 0}
    folder, _ = write("coco", [image("b/x.png", person)], annotations=file, category_names=())
    assert load(folder / "coco_results.json")[0]["category_id"] == 5
    assert load(folder / "coco_results.json")[0]["image_id"] == "a"


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        pytest.param(["y.jpg"], {}, "none of the predicted images .the first is a/x.jpg.", id="no-image"),
        pytest.param(["c/x.png", "d/x.png"], {}, "b/x.png may be c/x.png and d/x.png", id="two-images"),
        pytest.param(["x.png"], {"category_names": ("fish",)}, "", id="one-class"),
        pytest.param(["x.png"], {"category_names": ("fish", "dog")}, "no category 'fish'", id="no-category"),
        pytest.param(["x.png"], {"category_names": ()}, "set MODEL.CLASS_NAMES", id="no-names"),
    ],
)
def test_annotations_that_do_not_fit(write, tmp_path, images, more, message):
    file = annotation(
        tmp_path / "truth.json",
        [{"id": i, "file_name": name} for i, name in enumerate(images)],
        [{"id": 1, "name": "dog"}],
    )
    more = {"category_names": ("dog",), **more}
    entries = [image("a/x.jpg", DOG), image("b/x.png", {**DOG, "category": 1 if more["category_names"] == () else 0})]
    if not message:
        write("coco", entries, annotations=file, **more)
        return
    with pytest.raises(DatasetError, match=message) as error:
        write("coco", entries, annotations=file, **more)
    assert str(error.value).startswith(file)


# --- tables ---


def test_csv_has_a_row_per_keypoint(write):
    folder, (line,) = write("csv", [*ENTRIES, *VIDEO])
    assert line.endswith("predictions.csv: 15 keypoints")
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert rows[1] == {
        **{"file_name": "a/x.jpg", "frame": "", "time": "", "person": "0", "track_id": "", "category": "1"},
        **{"category_name": CAT["category_name"], "score": "0.9"},
        **{"box_x": "10.0", "box_y": "20.0", "box_width": "30.0", "box_height": "40.0"},
        **{"keypoint": "1", "keypoint_name": "left_eye", "x": "24.5", "y": "39.5", "confidence": "0.01"},
    }
    assert [rows[-1][key] for key in ("file_name", "frame", "time", "track_id")] == ["clip.mp4", "4", "0.16", "7"]


def test_names_that_are_not_utf8_do_not_end_a_table(write):
    name = os.fsdecode(b"caf\xe9.webp")
    folder, _ = write("csv", [image(name, CAT)])
    assert "caf\\udce9.webp" in (folder / "predictions.csv").read_text(encoding="utf-8")


def test_parquet_has_a_row_per_person(write):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, (line,) = write("parquet", [*ENTRIES, *VIDEO])
    assert line.endswith("predictions.parquet: 5 people")
    table = parquet.read_table(folder / "predictions.parquet")
    rows = table.to_pylist()
    assert [row["file_name"] for row in rows] == ["a/x.jpg", "a/x.jpg", "b/x.png", "clip.mp4", "clip.mp4"]
    assert (rows[0]["frame"], rows[0]["track_id"]) == (None, None)
    assert (rows[4]["frame"], rows[4]["time"], rows[4]["track_id"]) == (4, 0.16, 7)
    assert rows[0]["category_name"] == CAT["category_name"]
    assert rows[1]["keypoints"] == [pytest.approx(point) for point in DOG["keypoints"]]
    assert json.loads(table.schema.metadata[b"dynpose"])["keypoint_names"] == list(NAMES)


def test_parquet_without_pyarrow_is_refused_at_once(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"--format parquet: pyarrow is missing .*; pip install pyarrow"):
        check_formats(["parquet"], results(), tmp_path)


# --- YOLO ---


def test_yolo_rows_are_fractions_from_the_corner(write):
    folder, (line,) = write("yolo-pose", score_threshold=0.1)
    assert line.endswith("data.yaml: 3 images, 3 people")
    data = yaml.safe_load((folder / "yolo-pose" / "data.yaml").read_text(encoding="utf-8"))
    assert data == {
        **{"train": "images", "val": "images", "kpt_shape": [3, 3], "flip_idx": [0, 2, 1]},
        **{"names": {0: "dog", 1: CAT["category_name"]}, "kpt_names": {0: list(NAMES), 1: list(NAMES)}},
        "skeleton": [["nose", "left_eye"], ["nose", "right_eye"]],
    }
    rows = [line.split() for line in (folder / "yolo-pose/labels/a/x.txt").read_text().splitlines()]
    # of the eyes, one has a low confidence and one is outside
    assert rows[0][:1] == ["1"]
    assert list(map(float, rows[0][1:])) == pytest.approx([0.125, 0.4, 0.15, 0.4, 0.1, 0.3, 2, 0, 0, 0, 0, 0, 0])
    # the box is cut at the left and at the bottom
    assert list(map(float, rows[1][:5])) == pytest.approx([0, 0.1, 0.8, 0.2, 0.4])
    assert (folder / "yolo-pose/labels/b/empty.txt").read_text() == ""
    assert Image.open(folder / "yolo-pose/images/b/x.png").size == (200, 100)


def test_yolo_files_are_where_ultralytics_looks(write):
    """A folder "images" would be taken for the root, and two images of one stem would share their labels."""
    entries = [image(name, CAT) for name in ("images/x.jpg", "y.jpg", "y.png", "z.ppm", "t.jfif")]
    entries.insert(0, {**VIDEO[0]})
    for entry in entries:
        entry["instances"] = [CAT]
    folder, lines = write("yolo-pose", entries)
    found = sorted(str(path.relative_to(folder / "yolo-pose")) for path in (folder / "yolo-pose").rglob("*.*"))
    assert found == [
        *("data.yaml", "images/images_/x.jpg", "images/y.jpg", "images/y_png.png"),
        *("labels/images_/x.txt", "labels/y.txt", "labels/y_png.txt"),
    ]
    assert lines[1:] == [
        "1 frames of videos have no image file and are omitted (clip.mp4#0)",
        "1 images of a format that Ultralytics does not read are omitted (z.ppm)",
        "1 images that are URLs or gone are omitted (t.jfif)",
    ]


def test_only_an_own_yolo_folder_is_replaced(write, tmp_path):
    folder, _ = write("yolo-pose")
    (folder / "yolo-pose/labels/a/x.txt").unlink()
    write("yolo-pose", ENTRIES[1:])
    assert not (folder / "yolo-pose/images/a").exists()
    (folder / "yolo-pose/data.yaml").write_text("names: [dog]\n")
    with pytest.raises(ConfigError, match="exists and was not written by dynpose predict; rename it"):
        write("yolo-pose")
    assert (folder / "yolo-pose/labels/b/x.txt").exists()


# --- tools for correcting by hand ---


def test_cvat_skeletons(write):
    folder, lines = write("cvat", [*ENTRIES, *VIDEO])
    assert [line.removeprefix(f"{folder}/cvat/") for line in lines] == [
        "labels.json: the labels of the task",
        "annotations.xml: 3 images, 1 people",
        "clip.mp4.xml: 2 images, 2 people",
        "2 people have a track id, which the file does not hold (7, 7)",
    ]
    root = ElementTree.parse(folder / "cvat" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    labels = {(item.findtext("name"), item.findtext("parent")) for item in root.iterfind("meta//label")}
    of_points = {(name, label) for name in NAMES for label in ("dog", CAT["category_name"])}
    assert labels == {("dog", None), (CAT["category_name"], None)} | of_points
    images = root.findall("image")
    assert [dict(item.attrib) for item in images][1] == {"id": "1", "name": "b/x.png", "width": "200", "height": "100"}
    (skeleton,) = images[0]
    assert skeleton.get("label") == CAT["category_name"]
    assert [(p.get("label"), p.get("points"), p.get("outside")) for p in skeleton] == [
        ("nose", "20.000,30.000", "0"),
        ("left_eye", "25.000,40.000", "1"),
        ("right_eye", "0.000,30.500", "1"),
    ]
    frames = ElementTree.parse(folder / "cvat" / "clip.mp4.xml").getroot().findall("image")
    assert [(item.get("id"), item.get("name")) for item in frames] == [("0", "frame_000000"), ("4", "frame_000004")]


def test_the_labels_for_cvat_draw_the_skeleton(write):
    """From the best person with all keypoints: x from 0.5 to 99 becomes 5 to 95."""
    folder, _ = write("cvat", score_threshold=0.1)
    dog, cat = load(folder / "cvat" / "labels.json")
    assert (dog["name"], dog["type"], cat["name"]) == ("dog", "skeleton", CAT["category_name"])
    assert dog["sublabels"] == [{"name": name, "type": "points", "attributes": []} for name in NAMES]
    drawing = ElementTree.fromstring(f"<svg>{dog['svg']}</svg>")
    circles = drawing.findall("circle")
    assert [circle.get("data-label-name") for circle in circles] == list(NAMES)
    assert [float(circle.get("cx")) for circle in circles] == pytest.approx([5, 95, 50.23], abs=0.01)
    edges = [(line.get("data-node-from"), line.get("data-node-to")) for line in drawing.findall("line")]
    assert edges == [("1", "2"), ("1", "3")]


def test_label_studio_predictions(write):
    folder, lines = write("label-studio", [*ENTRIES, image("b/c d#猫.jpg"), *VIDEO])
    assert lines[0].endswith("tasks.json: 4 tasks; config.xml is the labelling interface")
    assert lines[1] == "2 frames of videos have no image file and are omitted (clip.mp4#0, clip.mp4#4)"
    tasks = load(folder / "label_studio" / "tasks.json")
    assert unquote(tasks[3]["data"]["image"]) == "/data/local-files/?d=b/c d#猫.jpg"
    assert "#" not in tasks[3]["data"]["image"]
    (prediction,) = tasks[0]["predictions"]
    rectangle, nose = prediction["result"]
    assert rectangle["value"] == {
        **{"x": 5, "y": 20, "width": 15, "height": 40, "rotation": 0},
        "rectanglelabels": [CAT["category_name"]],
    }
    assert (nose["parentID"], nose["value"]["keypointlabels"], nose["score"]) == (rectangle["id"], ["nose"], 0.8)
    assert (nose["value"]["x"], nose["value"]["y"]) == (10, 30)
    assert (nose["original_width"], nose["original_height"], prediction["score"]) == (200, 100, 0.9)
    assert tasks[1]["predictions"][0]["result"] == []
    interface = ElementTree.parse(folder / "label_studio" / "config.xml").getroot()
    assert [label.get("value") for label in interface.iter("Label")] == ["dog", CAT["category_name"], *NAMES]


# --- all ---


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("json", "parquet")])
@pytest.mark.parametrize("entries", [(), (ENTRIES[2],)], ids=["no-images", "no-people"])
def test_nothing_is_a_valid_file(write, name, entries):
    folder, lines = write(name, entries, category_names=())
    assert lines
    for path in folder.rglob("*.json"):
        load(path)
    for path in folder.rglob("*.xml"):
        ElementTree.parse(path)


def test_a_file_that_does_not_fit_leaves_the_earlier_one(write):
    folder, _ = write("csv")
    before = (folder / "predictions.csv").read_bytes()

    def until_the_disk_is_full():
        yield ENTRIES[0]
        raise OSError(28, "No space left on device", "predictions.csv.tmp")

    with pytest.raises(OSError, match=r"predictions.csv.tmp: can't be written .No space left on device.*--resume"):
        write("csv", lazy=until_the_disk_is_full)
    assert [path.name for path in folder.iterdir()] == ["predictions.csv"]
    assert (folder / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"json"}))
def test_names_with_characters_that_text_and_xml_lack(write, name):
    """A control character and half a character, in the names of classes and keypoints."""
    names = {"category_names": ("dog\x01", "cat\ud800"), "keypoint_names": ("nose\x02", "left\udcff", "right_eye")}
    folder, _ = write(name, **names, flip_pairs=())
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".jpg", ".png")]
    assert written
    for path in written:
        if path.suffix == ".xml":
            ElementTree.parse(path)
        elif path.suffix != ".parquet":
            path.read_text("utf-8")
