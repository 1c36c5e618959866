#!/usr/bin/env bash
# Guess: a training loop with fvcore's PeriodicCheckpointer that is killed while it writes model_final.pth writes that
# file when it is resumed.
# Seen: the last numbered checkpoint, which is written just before, says that all iterations are done. The resumed loop
# has no iteration left, in which the final file would be written: the run ends without an error and without
# model_final.pth, or with the part of it that the first process has left there under that name. This is so wherever
# max_iter is a multiple of the period, the usual case. detectron2's trainers use this class.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet fvcore==0.1.5.post20221221 torch==2.11.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import os
import subprocess
import sys

RUN = """
import os, sys
import torch
from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

save, calls = torch.save, []

def save_and_die(content, file):
    calls.append(file)
    if sys.argv[1] == "dies" and len(calls) == 3:
        file.write(b"a part of it")
        file.flush()
        os._exit(9)
    save(content, file)

torch.save = save_and_die
checkpointer = Checkpointer(torch.nn.Linear(2, 2), "run")
start = checkpointer.resume_or_load("", resume=True).get("iteration", -1) + 1
periodic = PeriodicCheckpointer(checkpointer, period=2, max_iter=4)
for iteration in range(start, 4):
    periodic.step(iteration)
print("iterations run:", 4 - start)
"""
os.mkdir("run")
first = subprocess.run([sys.executable, "-c", RUN, "dies"])
second = subprocess.run([sys.executable, "-c", RUN, "resumes"], capture_output=True, text=True)
final = open("run/model_final.pth", "rb").read()
print("first run ends with", first.returncode, "- the resumed one with", second.returncode, "-", second.stdout.strip())
print("model_final.pth:", final, "- last_checkpoint:", open("run/last_checkpoint").read())
assert first.returncode == 9 and second.returncode == 0
assert second.stdout.strip() == "iterations run: 0"
assert final == b"a part of it"
assert open("run/last_checkpoint").read() == "model_0000003.pth"
PYTHON
