"""``dynpose report``: its page and its numbers, from a run, from predict and from a results file."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dynpose.data.data_file import proposed_sigmas
from dynpose.tools import cli

# A script, a quotation mark and an entity must stay text
NAMES = ["нос <script>", 'left_"手"', 'right_"手"', "tail &amp;"]
SIGMAS = [0.05, 0.07, 0.07, 0.1]
FLIPPED = [0, 2, 1, 3]
NUM_IMAGES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of two people each, their annotation, and predictions with left and right exchanged."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, people, predictions = [], [], []
    for i in range(1, NUM_IMAGES + 1):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), random.integers(0, 255, (120, 160, 3), dtype=np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 120})
        for place in ((5, 10), (80, 30)):
            points = np.array([(30, 5), (8, 40), (55, 35), (30, 70)]) + random.uniform(-4, 4, (4, 2)) + place
            keypoints = np.column_stack([points, [2, 2, 1, 2]]).ravel().tolist()
            box = [float(v) for v in (*place, 62, 78)]
            people.append({"id": len(people) + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": box})
            people[-1] |= {"area": 3000.0, "keypoints": keypoints, "num_keypoints": 4}
            predicted = points[FLIPPED] + random.normal(0, 1, (4, 2))
            flat = np.column_stack([predicted, [0.5] * 4]).ravel().tolist()
            predictions.append({"image_id": i, "category_id": 1, "keypoints": flat, "score": random.random()})
    category = {"id": 1, "name": "figure", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [1, 4]]}
    annotation = {"images": images, "annotations": people, "categories": [category]}
    (folder / "people.json").write_text(json.dumps(annotation))
    (folder / "results.json").write_text(json.dumps(predictions))
    return folder


class Page(HTMLParser):
    """The tags of a page, its text, and what it would request."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)


def report(*words):
    """Run the command; the exit code, what it printed, the numbers and the page."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = cli.main(["report", *map(str, words)])
    if code:
        return SimpleNamespace(code=code, error=errors.getvalue())
    page = output.getvalue().splitlines()[-1]
    with open(page, encoding="utf-8") as html, open(page.replace(".html", ".json"), encoding="utf-8") as numbers:
        text = html.read()
        return SimpleNamespace(
            code=code, printed=output.getvalue(), html=text, page=Page(text), numbers=json.load(numbers), path=page
        )


@pytest.fixture(scope="module")
def from_results(data, tmp_path_factory):
    return report(
        *(data / "results.json", "--annotations", data / "people.json", "--image-root", data / "images"),
        *("--sigmas", *SIGMAS, "--output", tmp_path_factory.mktemp("report")),
    )


def test_the_first_line_names_the_exchange(from_results):
    headline = from_results.numbers["verdict"]["headline"]
    assert headline.startswith("Left and right are exchanged")
    assert from_results.printed.splitlines()[0] == headline
    assert headline in re.search(r'<p class="verdict faulty">(.*?)</p>', from_results.html).group(1)


def test_ap_is_that_of_pycocotools(from_results, data):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "people.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(data / "results.json")), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
    found = [from_results.numbers["metrics"][name] for name in names]
    assert found == [pytest.approx(100 * value) if value >= 0 else None for value in evaluation.stats]
    curves = from_results.numbers["precision_recall"]["curves"]
    np.testing.assert_allclose([each["precision"] for each in curves], evaluation.eval["precision"][:, :, 0, 0, 0])


def test_the_page_is_complete_and_alone(from_results):
    page = from_results.page
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in page.links)
    assert not re.search(r"url\((?!#)", from_results.html)
    assert len(page.ids) == len(set(page.ids))
    referred = {link[1:] for link in page.links if link.startswith("#")}
    assert referred <= set(page.ids)
    text = "".join(page.text)
    assert all(name in text for name in NAMES)
    assert page.tags.count("img") == 2 * NUM_IMAGES
    assert page.tags.count("svg") == 5


def test_html_is_opened_by_a_browser(from_results):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, f"file://{from_results.path}"], capture_output=True, text=True, timeout=120)
    assert "Left and right are exchanged" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_a_run(data, from_results, tmp_path, catalogs):
    """Its config names the data and the sigmas; the metrics give the curves."""
    entry = {"name": "figures", "json_file": str(data / "people.json"), "image_root": str(data / "images")}
    config = {
        "DATASETS": {"TRAIN": [], "TEST": ["figures"], "POSE": [entry]},
        "TEST": {"KEYPOINT_OKS_SIGMAS": SIGMAS},
        "OUTPUT_DIR": "somewhere/else",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    assert "has no results of an evaluation" in report(tmp_path).error
    (tmp_path / "inference").mkdir()
    shutil.copy(data / "results.json", tmp_path / "inference" / "coco_instances_results.json")
    lines = [{"iteration": i, "total_loss": 5 - i} for i in range(3)] + [{"iteration": 2, "keypoints/AP": 12.5}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    made = report(tmp_path, "--worst", 1)
    assert made.path == str(tmp_path / "report.html")
    assert made.numbers["metrics"] == from_results.numbers["metrics"]
    assert made.numbers["training"]["ap"] == {"keypoints/AP": [[2, 12.5]]}
    assert "AP is 12.5, of one evaluation at iteration 3" in made.html
    assert made.page.tags.count("svg") == 7
    assert "is a run, whose config.yaml" in report(tmp_path, "--annotations", data / "people.json").error
    assert "choose one of its data sets with --dataset: figures" in report(tmp_path, "--dataset", "others").error


def test_the_output_of_predict(data, from_results, tmp_path):
    """Images by their names, right predictions for once, and images that are not there."""
    people = json.loads((data / "people.json").read_text())
    entries = []
    for image in people["images"]:
        here = [each for each in people["annotations"] if each["image_id"] == image["id"]]
        instances = [
            {
                "category": 0,
                "score": 0.9,
                "bbox": each["bbox"],
                "keypoints": np.reshape(each["keypoints"], (-1, 3)).tolist(),
            }
            for each in here
        ]
        entries.append({"file_name": image["file_name"], "width": 160, "height": 120, "instances": instances})
    content = {"info": {"keypoint_names": NAMES}, "images": entries, "skipped": []}
    (tmp_path / "predictions.json").write_text(json.dumps(content))
    assert "--annotations FILE" in report(tmp_path).error
    made = report(tmp_path, "--annotations", data / "people.json")
    assert made.numbers["metrics"]["AP"] == pytest.approx(100)
    assert made.numbers["worst_images"]["images"] == []
    assert made.numbers["verdict"]["findings"] == []
    assert "No image was found" in made.printed
    assert "no OKS sigmas" in made.html


def test_pictures_that_can_not_be_drawn(data, tmp_path):
    shutil.copytree(data / "images", tmp_path / "images")
    (tmp_path / "images" / "1.png").write_bytes(b"damaged")
    (tmp_path / "images" / "2.png").unlink()
    made = report(
        *(data / "results.json", "--annotations", data / "people.json", "--image-root", tmp_path / "images"),
        *("--output", tmp_path, "--worst", NUM_IMAGES),
    )
    assert made.page.tags.count("img") == 2 * (NUM_IMAGES - 2)
    assert made.html.count("No picture:") == 2
    assert "1 of 4 images were not found" in made.printed


@pytest.mark.parametrize(("predictions", "words"), [([], "There are no predictions"), (None, "no such file")])
def test_nothing_to_report_on(predictions, words, data, tmp_path):
    path = tmp_path / "results.json"
    if predictions is not None:
        path.write_text(json.dumps(predictions))
    made = report(path, "--annotations", data / "people.json", "--output", tmp_path)
    assert words in (made.error if made.code else made.html)
    assert made.code == (2 if predictions is None else 0)


def test_a_path_that_does_not_exist(tmp_path):
    assert f"{tmp_path / 'gone'}: no such file or folder" in report(tmp_path / "gone").error


def test_cocos_sigmas_belong_to_cocos_names(data, tmp_path):
    """As in ``dynpose train --data`` and ``dynpose evaluate``, so that one file has one AP."""
    content = json.loads((data / "people.json").read_text())
    names = ["nose", "left_wrist", "right_wrist", "left_eye"]
    content["categories"][0]["keypoints"] = names
    (tmp_path / "people.json").write_text(json.dumps(content))
    made = report(data / "results.json", "--annotations", tmp_path / "people.json", "--output", tmp_path)
    assert made.numbers["source"]["sigmas"] == proposed_sigmas(names) == [0.026, 0.062, 0.062, 0.025]
    assert "COCO's are used" in made.printed


def test_no_annotations(data, tmp_path):
    people = json.loads((data / "people.json").read_text()) | {"annotations": []}
    (tmp_path / "people.json").write_text(json.dumps(people))
    made = report(data / "results.json", "--annotations", tmp_path / "people.json", "--output", tmp_path)
    assert "it has no annotations to compare the predictions with" in made.error
    assert not (tmp_path / "report.html").exists()


def test_names_that_are_no_text(data, tmp_path):
    """Bytes of a file name that are not UTF-8, which Python holds as half characters, are written as escapes."""
    annotation = json.loads((data / "people.json").read_text())
    annotation["images"][0]["file_name"] = "a\udcff.png"
    annotation["categories"][0]["keypoints"][0] = "nose\ud800"
    (tmp_path / "people.json").write_text(json.dumps(annotation))
    words = (data / "results.json", "--annotations", tmp_path / "people.json", "--output", tmp_path / "report")
    found = report(*words)
    assert found.code == 0, found.error
    assert "a\\udcff.png" in found.html
    assert "nose\\ud800" in found.html


def test_an_annotation_that_was_changed_is_read_again(data, tmp_path):
    """In one process, as in a notebook: two keypoints are taken out of the file."""
    annotation = json.loads((data / "people.json").read_text())
    predictions = json.loads((data / "results.json").read_text())
    words = (tmp_path / "results.json", "--annotations", tmp_path / "people.json", "--output", tmp_path / "report")
    for number in (4, 2):
        for item in (*annotation["annotations"], *predictions):
            item["keypoints"] = item["keypoints"][: 3 * number]
        annotation["categories"][0] |= {"keypoints": NAMES[:number], "skeleton": [[1, 2]]}
        (tmp_path / "people.json").write_text(json.dumps(annotation))
        (tmp_path / "results.json").write_text(json.dumps(predictions))
        found = report(*words)
        assert found.code == 0, found.error
        assert [each["name"] for each in found.numbers["keypoints"]] == NAMES[:number]
