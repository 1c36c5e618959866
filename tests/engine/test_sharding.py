"""Shards: of which process, of which images, resumed, and joined."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from small_media import make_video

from dynpose.config import ConfigError
from dynpose.engine import shard_merging
from dynpose.engine.prediction_record import PredictionRecord
from dynpose.engine.shard_merging import merge_shards
from dynpose.engine.sharding import Shard, ShardRecord, fingerprint_of_names, parse_shard, shard_files, shard_of_process
from dynpose.tools.cli import main


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "3", "WORLD_SIZE": "16"}, (3, 16)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, (2, 4)),
        # a batch script, which runs the command once
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
        # --array=0-15, --array=5-20:5, and an array of steps of four tasks
        ({"SLURM_ARRAY_TASK_ID": "15", "MIN": "0", "MAX": "15", "COUNT": "16"}, (15, 16)),
        ({"SLURM_ARRAY_TASK_ID": "10", "MIN": "5", "MAX": "20", "COUNT": "4", "STEP": "5"}, (1, 4)),
        ({"SLURM_ARRAY_TASK_ID": "1", "MIN": "1", "MAX": "1", "COUNT": "1"}, None),
        (
            {"SLURM_ARRAY_TASK_ID": "2", "MIN": "1", "MAX": "2", "COUNT": "2"}
            | {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"},
            (7, 8),
        ),
        # torchrun in a task of srun
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, (1, 2)),
    ],
)
def test_the_shard_of_a_process(environment, expected):
    short = ("MIN", "MAX", "COUNT", "STEP")
    environment = {f"SLURM_ARRAY_TASK_{key}" if key in short else key: value for key, value in environment.items()}
    assert shard_of_process(environment) == (expected and Shard(*expected))


def test_the_rest_of_an_array_does_not_tell_its_shards():
    # --array=3,7,9 of an earlier 0-15
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(("ID", "MIN", "MAX", "COUNT"), "3393")}
    with pytest.raises(ConfigError, match="--shard \\$SLURM_ARRAY_TASK_ID/16"):
        shard_of_process(environment)


def test_shards_deal_the_items_out():
    items = list(range(11))
    shares = [Shard(index, 4).of(items) for index in range(4)]
    assert shares[1] == [1, 5, 9]
    assert sorted(item for share in shares for item in share) == items
    assert parse_shard("3/16") == Shard(3, 16)
    assert Shard(3, 16).stem == "predictions-00003-of-00016"
    for text in ("16/16", "-1/4", "1", "1/0", "a/b"):
        with pytest.raises(ConfigError, match="expected I/N"):
            parse_shard(text)


INFO = {"keypoint_names": ["a", "b"], "category_names": ["person"], "coordinates": "pixels"}
MADE_WITH = {"weights": {"file": "w.pth", "bytes": 3, "sha256": "00"}, "config": {"MODEL.X": "1"}}
PERSON = {"category": 0, "category_name": "person", "bbox": [1.5, 2, 3, 4.25], "score": 0.875}
NAMES = [f"{index}.png" for index in range(7)]


def entry(name, people=1):
    person = {**PERSON, "keypoints": [[1.125, 2, 0.5], [3, 4, 0.25]]}
    return {"file_name": name, "width": 8, "height": 6, "instances": [person] * people, "not_finite": 0}


def write_shard(folder, index, count=3, names=NAMES, complete=True, info=INFO, made_with=MADE_WITH, people=None):
    """A shard of the names, whose files do not exist."""
    shard = Shard(index, count)
    with ShardRecord(folder, info, made_with, shard, fingerprint_of_names(names)) as record:
        record.add_skipped(f"{index}.txt", "not an image", is_failure=False)
        for name in shard.of(names):
            record.add_image(entry(name, 9), folder / name)  # replaced by the next line
            record.add_image(entry(name, int(name[0]) if people is None else people), folder / name)
        record.finish(shard.of(names), complete=complete)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_merged_shards_are_the_files_of_one_run(tmp_path):
    for index in range(3):
        write_shard(tmp_path, index)
    merged = merge_shards(tmp_path, whole_json=True)
    assert (merged.count, merged.missing, merged.incomplete, merged.damaged) == (3, [], [], 0)
    assert (merged.images, merged.people, merged.skipped) == (7, 21, 3)
    header, *lines, end = lines_of(tmp_path / "predictions.jsonl")
    assert header["info"] == {**INFO, "shards": 3}
    assert end == {"complete": True}
    in_order = [name for index in range(3) for name in NAMES[index::3]]
    assert [line["file_name"] for line in lines if "skipped" not in line] == in_order
    whole = json.loads((tmp_path / "predictions.json").read_text())
    assert whole["images"] == [entry(name, int(name[0])) for name in in_order]
    assert [file["file_name"] for file in whole["skipped"]] == ["0.txt", "1.txt", "2.txt"]
    assert whole["info"] == {**INFO, "complete": True}
    # a run without shards continues with it
    with PredictionRecord(tmp_path, INFO, MADE_WITH, resume=True) as record:
        assert list(record.entries(NAMES)) == [entry(name, int(name[0])) for name in NAMES]
    # and merging again replaces it
    assert merge_shards(tmp_path).images == 7


def test_missing_and_incomplete_shards_are_counted(tmp_path, capsys):
    write_shard(tmp_path, 0)
    write_shard(tmp_path, 2, complete=False)
    with (tmp_path / "predictions-00000-of-00003.jsonl").open("ab") as file:
        file.write(b'{"file_name": broken\n')
    assert main(["merge-predictions", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "2 of 3 shards, 5 images, 16 people, 2 files skipped" in out
    assert "1 shard missing: 1; predict them with --shard 1/3 --resume" in err
    assert "2 shards incomplete: 0, 2" in err  # the damaged line is the last of shard 0
    assert "1 damaged line skipped" in err
    assert lines_of(tmp_path / "predictions.jsonl")[-1] != {"complete": True}


def test_parquet_has_the_same_numbers(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(shard_merging, "_ROW_GROUP", 3)
    for index in range(3):
        write_shard(tmp_path, index)
    merge_shards(tmp_path, whole_json=True, parquet=True)
    file = parquet.ParquetFile(tmp_path / "predictions.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [3, 3, 1]
    rows = file.read().to_pylist()
    images = json.loads((tmp_path / "predictions.json").read_text())["images"]
    # every number here is one of float32
    absent = {"note": None, "frame": None, "time": None}
    expected = [{**image, "people": image.pop("instances"), **absent} for image in images]
    for image in expected:
        for person in image.pop("instances"):
            person["track_id"] = None
    assert rows == expected
    assert json.loads(file.schema_arrow.metadata[b"dynpose"]) == INFO


def test_shards_that_do_not_fit_together_are_refused(tmp_path):
    other_weights = {**MADE_WITH, "weights": {**MADE_WITH["weights"], "sha256": "11"}}
    for name, options, message in (
        ("weights", {"made_with": other_weights}, "other weights"),
        ("config", {"made_with": {**MADE_WITH, "config": {"MODEL.X": "2"}}}, "other configs"),
        ("keypoints", {"info": {**INFO, "keypoint_names": ["a", "c"]}}, "other keypoints"),
        ("inputs", {"names": NAMES[:-1]}, r"other inputs \(7 and 6, or others\)"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write_shard(folder, 0)
        write_shard(folder, 1, **options)
        with pytest.raises(ConfigError, match=message):
            merge_shards(folder)
        assert not (folder / "predictions.jsonl").exists()
    with pytest.raises(ConfigError, match="it holds no shards"):
        merge_shards(tmp_path)
    (tmp_path / "weights" / "predictions.jsonl").write_text(json.dumps({"info": INFO, "made_with": MADE_WITH}) + "\n")
    (tmp_path / "weights" / "predictions-00001-of-00003.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"predictions\.jsonl is of a run without shards"):
        merge_shards(tmp_path / "weights")


def test_another_number_of_shards_and_other_inputs_are_refused(tmp_path):
    write_shard(tmp_path, 0, complete=False)
    with pytest.raises(ConfigError, match=r"it holds predictions-00000-of-00003\.jsonl, and this is shard 1 of 2"):
        write_shard(tmp_path, 1, count=2)
    with pytest.raises(ConfigError, match="started with 7 inputs, now there are 8 or others"):
        ShardRecord(tmp_path, INFO, MADE_WITH, Shard(0, 3), fingerprint_of_names([*NAMES, "7.png"]), resume=True)
    assert list(shard_files(tmp_path)) == [Shard(0, 3)]


# The command


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five images and a text file in a folder, in a list and in two archives."""
    folder = tmp_path_factory.mktemp("collection")
    generator = np.random.RandomState(0)
    for index in range(5):
        path = folder / "photos" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.randint(0, 256, (60, 64 + 8 * (index % 2), 3)).astype(np.uint8)).save(path)
    (folder / "photos" / "notes.txt").write_text("no image")
    (folder / "list.txt").write_text("".join(f"photos/{index}.png\n" for index in range(5)))
    for name, indices in (("a", (0, 2, 4)), ("b", (1, 3))):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for index in indices:
                archive.add(folder / "photos" / f"{index}.png", f"{index}.png")
    return folder


def words(small_run, inputs, output):
    """The command line."""
    model = ["--config-file", small_run.config, "--weights", small_run.weights, "--device", "cpu"]
    return ["predict", *model, "--input", *map(str, inputs), "--output", str(output)]


@pytest.fixture(scope="module")
def whole(photos, small_run, tmp_path_factory):
    """The results without shards."""
    output = tmp_path_factory.mktemp("whole")
    assert main([*words(small_run, [photos / "photos"], output), "--no-pictures"]) == 0
    return results_of(output / "predictions.jsonl")


@pytest.fixture
def predict(small_run, tmp_path, monkeypatch):
    """Call ``dynpose predict``; ``environment`` is that of a launcher."""

    def call(inputs, *more, environment=()):
        with monkeypatch.context() as patch:
            for name, value in dict(environment).items():
                patch.setenv(name, value)
            return main([*words(small_run, inputs, tmp_path / "out"), *more])

    return call


def results_of(path):
    lines = lines_of(path)
    return {line["file_name"].split("/")[-1]: line["instances"] for line in lines if "instances" in line}


def test_a_folder_in_shards(photos, whole, predict, tmp_path, capsys):
    rank = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert predict([photos / "photos"], environment=rank) == 0
    assert list(results_of(tmp_path / "out" / "predictions-00001-of-00002.jsonl")) == ["1.png", "3.png"]
    assert main(["merge-predictions", str(tmp_path / "out")]) == 1
    capsys.readouterr()
    assert predict([photos / "photos"], "--shard", "0/2") == 0
    assert "3 images, 9 people" in capsys.readouterr().out.replace(" with a score of at least 0.3 (9 in all)", "")
    assert main(["merge-predictions", str(tmp_path / "out"), "--json"]) == 0
    assert results_of(tmp_path / "out" / "predictions.jsonl") == whole
    merged = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [file["file_name"] for file in merged["skipped"]] == ["notes.txt"]
    assert all((tmp_path / "out" / f"{index}.png").exists() for index in range(5))


def test_a_shard_resumes(photos, predict, tmp_path, capsys):
    assert predict([photos / "photos"], "--shard", "0/2", "--no-pictures") == 0
    path = tmp_path / "out" / "predictions-00000-of-00002.jsonl"
    whole = path.read_bytes()
    # the process died while it wrote the third image
    path.write_bytes(whole[: whole.rindex(b'{"file_name"') + 40])
    assert predict([photos / "photos"], "--shard", "0/2", "--no-pictures") == 2
    assert "unfinished run; continue with --resume" in capsys.readouterr().err
    assert predict([photos / "photos"], "--shard", "0/2", "--no-pictures", "--resume") == 0
    assert path.read_bytes() == whole
    assert f"2 of 3 images are in {path} already" in capsys.readouterr().err


def test_a_list_of_images(photos, predict, tmp_path):
    shutil.copy(photos / "list.txt", tmp_path / "list.txt")
    with (tmp_path / "list.txt").open("a") as file:
        file.write("photos/gone.png\n")
    shutil.copytree(photos / "photos", tmp_path / "photos")
    assert predict([tmp_path / "list.txt"], "--no-pictures") == 1
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in record["images"]] == [f"photos/{index}.png" for index in range(5)]
    assert record["skipped"] == [
        {
            "file_name": "photos/gone.png",
            "reason": "the image does not exist; check the data set's image folder",
            "is_failure": True,
        }
    ]


def test_archives_in_shards(photos, whole, predict, tmp_path, capsys):
    pytest.importorskip("webdataset")
    archives = [photos / "a.tar", photos / "b.tar"]
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(("ID", "MIN", "MAX", "COUNT"), "0012")}
    assert predict(archives, environment=array) == 0
    assert (tmp_path / "out" / "a" / "4.png").exists()
    path = tmp_path / "out" / "predictions-00000-of-00002.jsonl"
    before = path.read_bytes()
    (tmp_path / "out" / "a" / "2.png").unlink()
    assert predict(archives, "--resume", "--shard", "0/2") == 0
    assert (tmp_path / "out" / "a" / "2.png").exists()
    assert path.read_bytes() == before + b'{"complete": true}\n'
    # the second archive is cut off in its second image
    data = (photos / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[: 512 * (len(data) // 512 // 2)])
    shutil.copy(photos / "a.tar", tmp_path / "a.tar")
    inputs = [str(tmp_path / "{a,b}.tar")]
    assert predict(inputs, "--no-pictures", "--shard", "1/2") == 1
    assert "b.tar: the archive can't be read to its end" in capsys.readouterr().err
    assert main(["merge-predictions", str(tmp_path / "out")]) == 0
    merged = results_of(tmp_path / "out" / "predictions.jsonl")
    assert merged == {name: whole[name] for name in ("0.png", "2.png", "4.png", *merged)}


def test_all_kinds_of_inputs_in_shards(photos, whole, predict, small_run, tmp_path, capsys):
    """A list with a video, an archive and a file: two shards have the results of one run, frame by frame."""
    pytest.importorskip("webdataset")
    parquet = pytest.importorskip("pyarrow.parquet")
    make_video(tmp_path / "film.mp4", 3)
    (tmp_path / "list.txt").write_text(f"film.mp4\n{photos}/photos/0.png\n")
    inputs = [tmp_path / "list.txt", photos / "b.tar", photos / "photos" / "4.png"]
    arguments = ["--track", "--format", "csv"]
    assert main([*words(small_run, inputs, tmp_path / "single"), *arguments, "--no-pictures"]) == 0
    capsys.readouterr()
    assert predict(inputs, "--track", "--format", "csv", "--shard", "0/2") == 2
    assert "give --format with --resume and without shards" in capsys.readouterr().err
    for shard in ("0/2", "1/2"):
        assert predict(inputs, "--track", "--shard", shard) == 0
    output = capsys.readouterr().out
    assert "2 images, 6 people" in output.replace(" with a score of at least 0.3 (6 in all)", "")
    assert "3 frames of 1 video" in output
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*.mp4")} == {"film.mp4"}
    assert (out / "b" / "3.png").exists()
    assert main(["merge-predictions", str(out), "--json", "--parquet"]) == 0
    assert "4 images, 3 frames of 1 video, " in capsys.readouterr().out
    merged, single = (json.loads((folder / "predictions.json").read_text()) for folder in (out, tmp_path / "single"))

    def by_key(results):
        return {(image["file_name"], image.get("frame")): image for image in results["images"]}

    assert by_key(merged) == by_key(single)
    assert len(merged["images"]) == 7
    assert [video["frames"] for video in merged["videos"]] == [3]
    rows = parquet.read_table(out / "predictions.parquet").to_pylist()
    assert [row["frame"] for row in rows if row["file_name"] == "film.mp4"] == [0, 1, 2]
    # the merged run takes --format without predicting again
    assert predict(inputs, *arguments, "--resume", "--no-pictures") == 0
    tables = [sorted((folder / "predictions.csv").read_text().splitlines()) for folder in (out, tmp_path / "single")]
    assert tables[0] == tables[1]


def test_frames_of_a_video_are_merged_in_their_order(tmp_path):
    shard = Shard(0, 1)
    with ShardRecord(tmp_path, INFO, MADE_WITH, shard, fingerprint_of_names(["v.mp4", "a.png"])) as record:
        for frame in (2, 0, 1):
            record.add_image({**entry("v.mp4"), "frame": frame, "time": frame / 2}, tmp_path / "v.mp4")
            if frame == 2:
                record.add_image(entry("a.png"), tmp_path / "a.png")
        record.finish([], complete=True)
    merge_shards(tmp_path)
    _, *lines, _ = lines_of(tmp_path / "predictions.jsonl")
    assert [(line["file_name"], line.get("frame")) for line in lines] == [
        ("v.mp4", 0),
        ("v.mp4", 1),
        ("v.mp4", 2),
        ("a.png", None),
    ]


def test_an_archive_that_is_not_there(photos, predict, capsys):
    pytest.importorskip("webdataset")
    assert predict([photos / "gone.tar"]) == 2
    assert "gone.tar: no such archive" in capsys.readouterr().err


def test_an_image_of_an_archive_with_the_name_of_another(photos, predict, tmp_path, capsys):
    pytest.importorskip("webdataset")
    (tmp_path / "b").mkdir()
    shutil.copy(photos / "photos" / "1.png", tmp_path / "b" / "1.png")
    (tmp_path / "list.txt").write_text("b/1.png\n")
    assert predict([photos / "b.tar", tmp_path / "list.txt"], "--no-pictures") == 1
    assert "skipped b/1.png: another image has this name" in capsys.readouterr().err


def test_the_limit_counts_images_of_archives(photos, predict, tmp_path):
    pytest.importorskip("webdataset")
    assert predict([photos / "a.tar", photos / "photos" / "1.png"], "--no-pictures", "--limit", "3") == 0
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in record["images"]] == ["1.png", "a/0.png", "a/2.png"]
