#!/usr/bin/env bash
# Guess: torch.onnx.export writes a floor division of a dynamic size as one, as -(-size // 5), which rounds up, computes it.
# Seen (torch 2.11.0, onnxscript 0.7.2): it writes ONNX's Div, which truncates, so that a negative quotient rounds towards
# zero. The file is written and loads; for a size of 12 it gives 10 in place of 15. (size + 4) // 5 is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.4.6 onnx onnxscript==0.7.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import onnxruntime
import torch
from torch import nn
from torch.export import Dim


class RoundedUp(nn.Module):
    def forward(self, x):
        return x.new_zeros(-(-x.shape[0] // 5) * 5)


program = torch.export.export(RoundedUp(), (torch.zeros(7),), dynamic_shapes=({0: Dim("size", min=2, max=99)},))
torch.onnx.export(program, f="model.onnx", dynamo=True, verbose=False)
session = onnxruntime.InferenceSession("model.onnx")
x = torch.zeros(12)
(expected,), (found,) = RoundedUp()(x).shape, session.run(None, {session.get_inputs()[0].name: x.numpy()})[0].shape
print(f"a size of 12, rounded up to a multiple of 5: PyTorch {expected}, the file {found}")
assert (expected, found) == (15, 10)
PYTHON
