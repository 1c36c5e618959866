#!/usr/bin/env bash
# Guess: torch.export.export with a range for a dimension either raises an error or gives a program that runs for every size
# of the range, as range_constraints of the program says.
# Seen (torch 2.11.0): it gives a program without an error whose module raises "Guard failed" for sizes of the range: where a
# convolution's output has one row or column, and, with FPN's pooling of one cell and stride 2, for every other size.
# module(check_guards=False) gives the network's own numbers for all of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.export import Dim

SIZES = [(8, 8), (12, 8), (32, 40), (36, 44), (64, 8)]
LEVELS = {"a convolution": nn.Conv2d(4, 4, 3, stride=2, padding=1), "pooling of one cell": nn.MaxPool2d(1, stride=2)}

for name, level in LEVELS.items():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), level).eval()
    height, width = (4 * Dim(side, min=2, max=64) for side in ("height", "width"))
    shapes = ({2: height, 3: width},)
    program = torch.export.export(network, (torch.rand(1, 3, 32, 40),), dynamic_shapes=shapes)
    checked, unchecked = program.module(), program.module(check_guards=False)
    refused = []
    for size in SIZES:
        images = torch.rand(1, 3, *size)
        assert torch.equal(unchecked(images), network(images))
        try:
            checked(images)
        except AssertionError as error:
            assert "Guard failed" in str(error)
            refused.append(size)
    print(f"{name}: declared 8 to 256, refused {refused} of {SIZES}")
    assert (32, 40) not in refused
    assert (8, 8) in refused
    assert ((36, 44) in refused) == (name == "pooling of one cell")
PYTHON
