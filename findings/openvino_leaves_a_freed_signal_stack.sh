#!/usr/bin/env bash
# Guess: OpenVINO leaves a process's signal handling as it finds it once its Cores and compiled models are freed.
# Seen (openvino 2026.4.1, Linux): compiling a model for the CPU gives the thread an alternate signal stack of OpenVINO's.
# Freeing a Core puts back the stack that it found. Of two Cores, freed in the order in which they were made, the second
# puts back the first's, which is unmapped by then. Python's signal handlers run on that stack: the process doesn't
# survive its next signal (not shown here).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import ctypes

import numpy as np
import openvino
import openvino.opset13 as operators


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address


def is_mapped(address):
    with open("/proc/self/maps") as lines:
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return any(start <= address < end for start, end in ranges)


def compiled():
    value = operators.parameter([-1, 3], np.float32)
    return openvino.Core().compile_model(openvino.Model([operators.relu(value)], [value], "relu"), "CPU")


print("before:", signal_stack())
assert signal_stack() is None
first = compiled()
own = signal_stack()
second = compiled()
assert is_mapped(own) and is_mapped(signal_stack()) and own != signal_stack()
del first
del second
left = signal_stack()
print("both freed:", "the first's stack" if left == own else left, "mapped" if is_mapped(left) else "not mapped")
assert left == own and not is_mapped(left)
PYTHON
