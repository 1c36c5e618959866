"""Processes of one run that exchange a number in every iteration, some of which are stopped: for test_watchdog.py.

It reads cases, a line of JSON each, forks two processes for each, so that torch is imported once, and answers with a
line of JSON for each: the processes' numbers, their exit codes, and their logged and printed lines. A case has the
"rank" that stops, in which "phase", for how many "seconds", and whether it "sleeps" instead of being stopped.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
from types import SimpleNamespace

import torch
import torch.distributed as dist

from dynpose.engine import checkpointing, evaluating
from dynpose.engine.watchdog import watched

PERIOD = 2.0
ITERATIONS = 6
STOPS_AT = 3


class _In:
    """Runs a function as if a module had called it."""

    def __init__(self, module):
        self.names = {"__name__": module}
        exec("def call(function):\n    function()", self.names)

    def __call__(self, function):
        self.names["call"](function)


_PHASES = {
    "training": _In("another"),
    "evaluation": _In(evaluating.__name__),
    "checkpoint": _In(checkpointing.__name__),
    "waiting for images": _In("torch.utils.data.dataloader"),
}


def _run(case, rank, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    trainer = SimpleNamespace(iter=0)
    with watched(PERIOD):
        if case["phase"] == "set-up" and rank == case["rank"]:
            _pause(case)
        dist.barrier()
        with watched(PERIOD, lambda: trainer.iter):
            _iterate(case, rank, trainer)
    dist.barrier()


def _iterate(case, rank, trainer):
    for trainer.iter in range(ITERATIONS):
        if trainer.iter == STOPS_AT and rank == case["rank"] and case["phase"] in _PHASES:
            _PHASES[case["phase"]](lambda: _pause(case))
        dist.all_reduce(torch.ones(1))
        # long enough for notes of each iteration
        time.sleep(PERIOD / 6)


def _pause(case):
    if case.get("sleeps"):
        time.sleep(case["seconds"])
    else:
        # it notes where it is
        time.sleep(PERIOD / 4)
        # another process must wake it
        if os.fork() == 0:
            time.sleep(case["seconds"])
            os.kill(os.getppid(), signal.SIGCONT)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP)


def _fork(case, rank, port, log):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(60)
        handler = logging.FileHandler(log)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger("dynpose").addHandler(handler)
        sys.stderr = open(f"{log}.stderr", "w")  # noqa: SIM115  until the process ends
        _run(case, rank, port)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _lines(file):
    with open(file) as f:
        return f.read().splitlines()


def main(folder):
    """Answer the cases, which run side by side."""
    cases = []
    for number, line in enumerate(sys.stdin):
        port, logs = _free_port(), [os.path.join(folder, f"{number}_{rank}.txt") for rank in range(2)]
        cases.append((logs, [_fork(json.loads(line), rank, port, log) for rank, log in enumerate(logs)]))
    for logs, pids in cases:
        answer = {
            "pids": pids,
            "codes": [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids],
            "logged": [_lines(log) for log in logs],
            "printed": [_lines(f"{log}.stderr") for log in logs],
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
