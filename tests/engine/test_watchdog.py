"""The reports of the processes of a run while one is stopped (by SIGSTOP), behind, or busy like all others."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from dynpose.engine.watchdog import watched

CASES = {
    "second_stopped": {"rank": 1, "phase": "evaluation", "seconds": 5},
    "first_stopped": {"rank": 0, "phase": "training", "seconds": 5},
    "second_behind": {"rank": 1, "phase": "waiting for images", "seconds": 3, "sleeps": True},
    "second_stopped_in_set_up": {"rank": 1, "phase": "set-up", "seconds": 5},
    "short": {"rank": 1, "phase": "checkpoint", "seconds": 0.3, "sleeps": True},
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory, script_command):
    """The logged and printed lines of two processes, and their ids, for each case."""
    folder = tmp_path_factory.mktemp("logs")
    done = subprocess.run(
        [*script_command, str(Path(__file__).with_name("waiting_processes.py")), str(folder)],
        input="\n".join(map(json.dumps, CASES.values())),
        capture_output=True,
        text=True,
        timeout=240,
    )
    answers = dict(zip(CASES, map(json.loads, done.stdout.splitlines())))
    assert answers.keys() == CASES.keys(), done.stderr
    assert [answer["codes"] for answer in answers.values()] == [[0, 0]] * len(CASES)
    return answers


def test_a_stopped_process_is_named(cases):
    case = cases["second_stopped"]
    first, *others = case["logged"][0]
    where = rf"process 1 on \S+ \(pid {case['pids'][1]}\)"
    assert re.fullmatch(
        rf"[23] s without an iteration, at iteration 3, training; no heartbeat from: {where}, for \d s, "
        "last at iteration 3, evaluation",
        first,
    )
    # it is reported again, and so is its end
    assert re.match(r"[45] s without an iteration, ", others[0])
    assert re.fullmatch(r"The run continues after [5678] s", others[-1])
    assert case["logged"][1] == ["This process was stopped for 5 s"]
    assert case["printed"] == [[], []]


def test_a_process_is_stopped_in_set_up(cases):
    case = cases["second_stopped_in_set_up"]
    assert re.fullmatch(
        rf"[23] s without an iteration, at iteration 0, set-up; no heartbeat from: process 1 on \S+ "
        rf"\(pid {case['pids'][1]}\), for \d s, last at iteration 0, set-up",
        case["logged"][0][0],
    )


def test_the_first_process_is_stopped_and_the_next_one_prints_it(cases):
    """It hosts the store that the others read."""
    case = cases["first_stopped"]
    reports = [line for line in case["logged"][1] if "no heartbeat from" in line]
    assert case["logged"][0] == ["This process was stopped for 5 s"]
    assert re.search(
        r"; no heartbeat from: process 0 on \S+, or torchrun, which hosts the store .+, for \d s$", reports[0]
    )
    assert case["printed"] == [[], [f"process 1: {line}" for line in reports]]


def test_who_is_behind_is_named_by_those_that_wait_only(cases):
    waiting, late = cases["second_behind"]["logged"]
    where = rf"process 1 on \S+ \(pid {cases['second_behind']['pids'][1]}\)"
    assert re.fullmatch(
        rf"[23] s .+, at iteration 3, training; behind: {where}, at iteration 3, waiting for images", waiting[0]
    )
    assert late == []


def test_shorter_waits_are_not_reported(cases):
    assert cases["short"]["logged"] == [[], []]


def test_one_process_is_not_watched():
    with watched(0.01, lambda: pytest.fail("it is asked")):
        pass
