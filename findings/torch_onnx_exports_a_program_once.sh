#!/usr/bin/env bash
# Guess: torch.onnx.export of an ExportedProgram leaves the program as it is, so that a second call writes a second file
# (another opset, another folder).
# Seen (torch 2.11.0): where a size depends on the data, as the number of detected people does, the first call succeeds and
# the second of the same program raises "Pending unbacked symbols". A program that is captured anew exports again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.export import Dim


class Selection(nn.Module):
    def forward(self, scores):
        return scores[(scores > 0.5).nonzero().squeeze(1)]


def capture():
    return torch.export.export(Selection(), (torch.rand(10),), dynamic_shapes=({0: Dim("n", min=2, max=100)},))


def outcome(program):
    try:
        torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:
        causes = f"{error} {error.__cause__}"
        return "Pending unbacked symbols" if "Pending unbacked symbols" in causes else type(error).__name__
    return "exported"


program = capture()
outcomes = [outcome(program), outcome(program), outcome(capture())]
print("first, second, captured anew:", ", ".join(outcomes))
assert outcomes == ["exported", "Pending unbacked symbols", "exported"]
PYTHON
