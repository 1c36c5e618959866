"""`dynpose benchmark cold-start`, with an exported file that finds other people than the checkpoint."""

import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from commands import parse, read_tables
from exported_files import write_exported

from dynpose.benchmark.cold_start.run import _disagreements
from dynpose.tools import benchmark


def test_times_and_memory_of_both(small_run, tmp_path, capsys):
    exported = write_exported(tmp_path / "pose.onnx")
    # without the keys of methods that other tests have registered in this process alone
    config = yaml.safe_load(Path(small_run.config).read_text())
    config["MODEL"].pop("CENTERPOSE", None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    files = (
        "--exported",
        str(exported),
        "--config-file",
        str(tmp_path / "config.yaml"),
        "--weights",
        small_run.weights,
    )
    # three people of four keypoints against two of three
    assert benchmark.run(parse("cold-start", *files, "--rounds", "1", "--markdown")) == 1
    text = capsys.readouterr().out
    assert "the exported file finds 2 people, the checkpoint 3" in text
    (rows,) = read_tables(text).values()
    assert [row["name"] for row in rows] == ["exported", "checkpoint", "checkpoint / exported"]
    assert [row["people"] for row in rows] == ["2", "3", ""]
    exported_row, checkpoint_row = rows[:2]
    assert 20 < float(exported_row["memory, MiB"]) < float(checkpoint_row["memory, MiB"])
    assert 0 < float(exported_row["seconds"]) < float(checkpoint_row["seconds"])


def test_disagreements_by_hand():
    one = {"scores": [0.5], "keypoints": [[[1.0, 2.0, 0.3], [3.0, 4.0, 0.2]]]}
    assert _disagreements(one, one) == []
    moved = {"scores": [0.5], "keypoints": [[[1.2, 2.2, 0.3], [3.2, 4.0, 0.2]]]}
    assert _disagreements(moved, one) == ["scores differ by up to 0.0e+00, keypoints by 2.0e-01 pixels (median)"]
    assert _disagreements({**one, "scores": [0.6]}, one)[0].startswith("scores differ by up to 1.0e-01")
