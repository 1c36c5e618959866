"""The results of evaluations that a run keeps, and which of them it forgets."""

import json
import math

import pytest
from small_files import small_files

from dynpose.checkpoint import CheckpointError
from dynpose.config import load_config
from dynpose.engine.evaluating import Evaluations


def evaluations(folder, *opts):
    return Evaluations(str(folder), load_config(opts=list(map(str, opts))))


def fill(folder):
    kept = evaluations(folder)
    for done in (2, 4, 6):
        kept.add(done, "weights", {"keypoints": {"AP": 10.0 * done, "APm": math.nan}})
    kept.add(6, "TTA", {"keypoints_TTA": {"AP": 61.0}})
    return kept


def test_results_are_read_again(tmp_path):
    fill(tmp_path)
    # strict JSON, which has no NaN
    text = (tmp_path / "evaluations.json").read_text()
    entries = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [(entry["iterations"], entry["part"]) for entry in entries] == [
        *((2, "weights"), (4, "weights"), (6, "weights"), (6, "TTA"))
    ]
    again = evaluations(tmp_path)
    again.resume_from(6)
    assert again.get(4, "weights")["keypoints"]["AP"] == 40.0
    assert math.isnan(again.get(4, "weights")["keypoints"]["APm"])
    assert again.get(4, "TTA") is None
    assert again.values("keypoints/AP") == [(2, 20.0), (4, 40.0), (6, 60.0)]
    assert again.values("keypoints_TTA/AP") == [(6, 61.0)]
    again.add(6, "weights", {"keypoints": {"AP": 66.0}})
    assert again.values("keypoints/AP") == [(2, 20.0), (4, 40.0), (6, 66.0)]


@pytest.mark.parametrize(("start", "left"), [(5, [2, 4]), (4, [2, 4]), (1, []), (0, [])])
def test_results_after_the_checkpoint_are_dropped(start, left, tmp_path):
    """In the file too, or else another start would take it for results of weights that it is not of."""
    fill(tmp_path)
    evaluations(tmp_path).resume_from(start)
    again = evaluations(tmp_path)
    again.resume_from(100)
    assert [done for done, _ in again.values("keypoints/AP")] == left


@pytest.mark.parametrize(
    ("opts", "known"),
    [
        (["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", 7, "DATALOADER.NUM_WORKERS", 3], True),
        (["TEST.DETECTIONS_PER_IMAGE", 7], False),
        (["DATASETS.TEST", "('other',)"], False),
        (["INPUT.MIN_SIZE_TEST", 111], False),
    ],
)
def test_results_of_another_config_do_not_count(opts, known, tmp_path):
    fill(tmp_path)
    other = evaluations(tmp_path, *opts)
    other.resume_from(6)
    assert (other.get(6, "weights") is not None) == known


@pytest.mark.parametrize("content", ["", "{", "3", '"text"', '[1, {"iterations": "2"}]', "[{}]"])
def test_a_file_that_is_none(content, tmp_path):
    (tmp_path / "evaluations.json").write_text(content)
    kept = evaluations(tmp_path)
    kept.resume_from(5)
    kept.add(6, "weights", {"keypoints": {"AP": 1.0}})
    assert len(json.loads((tmp_path / "evaluations.json").read_text())) == 1


def test_results_that_are_no_numbers(tmp_path):
    with pytest.raises(ValueError, match="nested dicts of numbers, not 'high'"):
        evaluations(tmp_path).add(2, "weights", {"keypoints": {"AP": "high"}})


def test_a_full_disk(tmp_path):
    kept = fill(tmp_path)
    before = (tmp_path / "evaluations.json").read_text()
    with small_files(100), pytest.raises(CheckpointError, match=r"evaluations\.json: can't be written"):
        kept.add(8, "weights", {"keypoints": {"AP": 1.0}})
    assert (tmp_path / "evaluations.json").read_text() == before
