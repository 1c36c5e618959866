#!/usr/bin/env bash
# Guess: torch.optim.SGD(fused=True) takes the same step as fused=False, or refuses what it can't.
# Seen (torch 2.11.0, CPU): where the gradient of a convolution's weight is channels-last and the weight is not, or the
# other way round, it pairs the numbers by their place in memory: the weights get each other's updates, without an error.
# Gradients and momentum of the other layout come from a checkpoint, or from another copy of the model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch

torch.manual_seed(0)
start = torch.randn(4, 3, 5, 5)
gradient = torch.randn(4, 3, 5, 5)


def step(fused, memory_format):
    weight = torch.nn.Parameter(start.clone())
    weight.grad = gradient.clone(memory_format=memory_format)
    torch.optim.SGD([weight], lr=0.1, fused=fused).step()
    return weight.detach()


for fused in (False, True):
    layouts = [step(fused, layout) for layout in (torch.contiguous_format, torch.channels_last)]
    print(f"fused={fused}: largest difference between the layouts of the gradient {(layouts[0] - layouts[1]).abs().max():.3f}")
    differs = bool((layouts[0] != layouts[1]).any())
    assert differs == fused, "the behaviour has changed"
PYTHON
