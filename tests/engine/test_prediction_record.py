"""The record of a prediction run keeps its results, whatever happens to the process or the file."""

import json
import os

import pytest
import torch
from detectron2.structures import Boxes, Instances

from dynpose.config import ConfigError
from dynpose.engine import prediction_record
from dynpose.engine.prediction_record import PredictionRecord, to_instances, to_records

INFO = {"keypoint_names": ["head"], "category_names": []}
MADE_WITH = {"weights": {"file": "a.pth", "bytes": 1, "sha256": "0" * 64}, "config": {"INPUT.FORMAT": "BGR"}}


@pytest.fixture
def images(tmp_path):
    """Files of three images by their names."""
    (tmp_path / "images").mkdir()
    paths = {name: tmp_path / "images" / name for name in "abc"}
    for path in paths.values():
        path.write_bytes(b"pixels")
    return paths


@pytest.fixture
def begin(tmp_path):
    return lambda resume=False: PredictionRecord(tmp_path, INFO, MADE_WITH, resume=resume)


def entry(name, **more):
    return {"file_name": name, "width": 4, "height": 3, "instances": [], "not_finite": 0, **more}


def add(record, images, names):
    for name in names:
        record.add_image(entry(name), images[name])


def there(record, images):
    return [name for name, path in images.items() if record.has(name, path)]


def test_frames_of_a_video_resume_one_by_one(begin, images, tmp_path):
    video = {"file_name": "a", "frames": 2}
    with begin() as record:
        for index in (0, 1, 2):
            record.add_image(entry("a", frame=index, time=index / 10), images["a"])
        record.add_skipped("a", "broken", True, frame=2, time=0.2)
        record.add_video(video, images["a"])
    with begin(resume=True) as record:
        assert record.frames("a", images["a"]) == [0, 1]
        assert record.frames("b", images["b"]) == []
        assert [record.has(("a", index), images["a"]) for index in (0, 1, 2)] == [True, True, False]
        assert record.video("a", images["a"]) == video
        record.keep_skipped("a")
        assert [file["frame"] for file in record.skipped] == [2]
        record.finish([("a", 1), ("a", 0)], complete=True, videos=[video])
        written = json.loads((tmp_path / "predictions.json").read_text())
        assert [image["frame"] for image in written["images"]] == [1, 0]
        assert written["videos"] == [video]
        # another file under the same name has no results
        images["a"].write_bytes(b"other pixels")
        assert record.frames("a", images["a"]) == []
        assert record.video("a", images["a"]) is None


def test_the_file_of_all_is_in_the_order_asked_for(begin, images, tmp_path):
    with begin() as record:
        add(record, images, "cab")
        record.add_skipped("d", "broken", True)
        seen = []
        record.finish(["a", "b", "gone", "c"], complete=True, on_entry=seen.append)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {
        "info": {**INFO, "complete": True},
        "images": [entry("a"), entry("b"), entry("c")],
        "videos": [],
        "skipped": [{"file_name": "d", "reason": "broken", "is_failure": True}],
    }
    assert seen == [entry("a"), entry("b"), entry("c")]


def test_later_lines_count(begin, images):
    with begin() as record:
        add(record, images, "ab")
        record.add_image(entry("a", note="again", picture_error="full"), images["a"])
        record.add_skipped("b", "broken", True)
    with begin(resume=True) as record:
        assert there(record, images) == ["a"]
        assert record.lacks_picture("a")
        assert list(record.entries(["a", "b"])) == [entry("a", note="again", picture_error="full")]
        # each run determines the skipped files
        assert record.skipped == []
        record.add_image(entry("b"), images["b"])
        assert there(record, images) == ["a", "b"]


def test_a_file_skipped_again_adds_no_line(begin, tmp_path):
    for _ in range(3):
        with begin(resume=True) as record:
            record.add_skipped("notes.txt", "no image", False)
            assert len(record.skipped) == 1
    assert len((tmp_path / "predictions.jsonl").read_bytes().splitlines()) == 2


def test_an_image_that_was_changed_or_is_gone_is_not_there(begin, images):
    with begin() as record:
        add(record, images, "abc")
        images["a"].write_bytes(b"more pixels")
        os.utime(images["b"], ns=(1, 1))
        images["c"].unlink()
        assert there(record, images) == []


@pytest.mark.parametrize(
    ("damage", "left", "damaged"),
    [
        (lambda lines: [*lines[:3], lines[3][:-20]], "ab", 0),
        (lambda lines: [*lines[:3], lines[3].rstrip(b"\n")], "ab", 0),
        # what some file systems leave after a power failure
        (lambda lines: [*lines[:3], bytes(len(lines[3]))], "ab", 0),
        (lambda lines: [lines[0], lines[1], bytes(len(lines[2]) - 1) + b"\n", lines[3]], "ac", 1),
        (lambda lines: [lines[0], lines[1][:9] + lines[2], lines[3]], "c", 1),
        (lambda lines: [lines[0], b"[]\n", b"{}\n", b"1\n", lines[3]], "c", 3),
        (lambda lines: [*lines[:3], b'{"file_name": "c", "file": [6, 1]}\n'], "ab", 1),
        (lambda lines: [lines[0]], "", 0),
        (lambda lines: [], "", 0),
    ],
)
def test_damaged_lines_are_skipped(begin, images, tmp_path, damage, left, damaged):
    with begin() as record:
        add(record, images, "abc")
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(b"".join(damage(file.read_bytes().splitlines(keepends=True))))
    with begin(resume=True) as record:
        assert there(record, images) == list(left)
        assert record.damaged == damaged
        add(record, images, "abc")
        assert there(record, images) == list("abc")
    with begin(resume=True) as record:
        assert [found["file_name"] for found in record.entries("abc")] == list("abc")


NO_HEADER = '{"format": "dynpose predictions", "version": 1, "made_with": {"weights": {}}}\n'


@pytest.mark.parametrize(
    "content", [NO_HEADER, "notes\n", '{"format": "other"}\n', "[]\n1\n", "{}\n{}\n", '{"format": "dyn']
)
def test_another_kind_of_file_is_unchanged(begin, tmp_path, content):
    (tmp_path / "predictions.jsonl").write_text(content)
    for resume in (True, False):
        with pytest.raises(ConfigError, match=r"predictions\.jsonl was not written by this version of dynpose predict"):
            begin(resume)
    assert (tmp_path / "predictions.jsonl").read_text() == content


def test_an_unfinished_record_is_not_overwritten_but_a_finished_one_is(begin, images):
    with begin() as record:
        record.add_skipped("notes.txt", "no image", False)
    with begin() as record:
        add(record, images, "a")
        record.finish(["a", "b"], complete=False)
    with pytest.raises(ConfigError, match="holds 1 images of an unfinished run; continue with --resume"):
        begin()
    with begin(resume=True) as record:
        record.finish(["a"], complete=True)
    with begin() as record:
        assert there(record, images) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_line_is_written_as_a_whole_or_not_at_all(begin, images, monkeypatch, tmp_path, error):
    class Torn:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[:10])
            raise error

    with begin() as record:
        add(record, images, "a")
        before = (tmp_path / "predictions.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(record, "_file", Torn(record._file))
            with pytest.raises(type(error), match=r"jsonl: can't be written \(No space" if error.args else None):
                add(record, images, "b")
        assert (tmp_path / "predictions.jsonl").read_bytes() == before
        add(record, images, "c")
    with begin(resume=True) as record:
        assert there(record, images) == ["a", "c"]


def test_short_writes_continue(begin, images, monkeypatch):
    """The system may take less than it is given."""
    real = open

    class Short:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            return self.file.write(data[:7])

    monkeypatch.setattr(
        prediction_record,
        "open",
        lambda path, mode, **options: Short(real(path, mode, **options)) if mode == "r+b" else real(path, mode),
        raising=False,
    )
    with begin() as record:
        add(record, images, "abc")
        assert list(record.entries("abc")) == [entry(name) for name in "abc"]


def test_numbers_that_are_not_finite_are_refused(begin, images):
    with begin() as record, pytest.raises(ValueError, match="JSON compliant"):
        record.add_image(entry("a", score=float("nan")), images["a"])


@pytest.mark.parametrize("number", [0, 2])
def test_instances_come_back_but_for_rounding(number):
    """By hand: COCO's keypoints are half a pixel less, its boxes have a size in the place of their second corner."""
    instances = Instances(
        (30, 40),
        pred_boxes=Boxes(torch.tensor([[1.0, 2.0, 11.5, 22.25]] * number).reshape(-1, 4)),
        scores=torch.tensor([0.75] * number),
        pred_classes=torch.tensor([1] * number, dtype=torch.int64),
        pred_keypoints=torch.tensor([[[5.25, 6.5, 0.5], [7.0, 8.0, 0.25]]] * number).reshape(-1, 2, 3),
    )
    records = to_records(instances, ["person", "horse"])
    person = {"category": 1, "category_name": "horse", "bbox": [1.0, 2.0, 10.5, 20.25], "score": 0.75}
    assert records == [{**person, "keypoints": [[4.75, 6.0, 0.5], [6.5, 7.5, 0.25]]}] * number
    back = to_instances({"height": 30, "width": 40, "instances": records}, num_keypoints=2)
    assert back.image_size == (30, 40)
    for name in ("scores", "pred_classes", "pred_keypoints"):
        assert torch.equal(back.get(name), instances.get(name))
    assert torch.equal(back.pred_boxes.tensor, instances.pred_boxes.tensor)


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "a/../../b.png"])
def test_a_name_that_leads_out_of_the_folder_is_damage(tmp_path, name):
    """Files are written under the names, and another hand may have changed the record."""
    with PredictionRecord(tmp_path, INFO, MADE_WITH) as record:
        record.add_image(entry(name), tmp_path / "a.png")
        record.add_image(entry("b.png"), tmp_path / "b.png")
    with PredictionRecord(tmp_path, INFO, MADE_WITH, resume=True) as record:
        assert record.damaged == 1
        assert [found["file_name"] for found in record.entries([name, "b.png"])] == ["b.png"]
