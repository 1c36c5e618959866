#!/usr/bin/env bash
# Guess: torchvision's detectors take a list of images of any sizes, so in eval mode each image gets the detections that
# it gets alone; the padding is the model's own affair.
# Seen: beside a wider grey image, an image of 128 x 128 pixels gets other scores and boxes. Nothing masks the padding:
# GroupNorm in FCOS's heads takes its mean and variance over image and padding, so that even the cell farthest from the
# padding changes. With a companion of the same size, the answers are those of the image alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.11.0 torchvision==0.26.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torchvision.models.detection import fcos_resnet50_fpn

torch.manual_seed(0)
model = fcos_resnet50_fpn(
    weights=None, weights_backbone=None, num_classes=2, min_size=128, max_size=256, score_thresh=0.0
).eval()
logits = []
model.head.classification_head.register_forward_hook(lambda module, inputs, output: logits.append(output[0]))


@torch.no_grad()
def answers(*companions):
    detections = model([image, *companions])[0]
    width = 16 if not companions or companions[0].shape[2] == 128 else 32
    finest = logits.pop()[: 16 * width].view(16, width, 2)[:, :16]
    return detections, finest


image = torch.rand(3, 128, 128)
alone, alone_logits = answers()
spread = alone_logits.std()
for name, companion in (("of the same size", torch.full((3, 128, 128), 0.5)), ("wider", torch.full((3, 128, 256), 0.5))):
    together, together_logits = answers(companion)
    change = (together_logits - alone_logits).abs() / spread
    number = min(len(alone["scores"]), len(together["scores"]), 5)
    scores = (alone["scores"][:number] - together["scores"][:number]).abs().max().item()
    print(f"companion {name}: largest change of the best five scores {scores:.5f}, of a logit in the first column "
          f"{change[:, 0].max():.3f} of all logits' deviation")
    if name == "wider":
        assert scores > 1e-3 and change[:, 0].max() > 0.05
    else:
        assert scores < 1e-5 and change.max() < 1e-3
PYTHON
