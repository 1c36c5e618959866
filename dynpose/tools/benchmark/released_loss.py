"""The cases of the released FCPose's losses over heatmaps: cross-entropy of the up-sampled maps, expected distance.

Letters of the shapes: N instances, B images, K keypoints, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from dynpose.layers.map_losses import expected_distance, upsampled_cross_entropy

from .contestants import BACKENDS, Result, Tolerance, check_gradient, check_values

_STRIDE = 8
_FACTOR = 4  # of the up-sampling
_DISTANCE_NORM = 12.0


class Inputs(NamedTuple):
    """What one call reads."""

    logits: torch.Tensor  # (N, K, H, W)
    offsets: torch.Tensor  # (B, K, 2, H, W) pixels
    image_index: torch.Tensor  # (N,)
    keypoints: torch.Tensor  # (N, K, 3)
    box_sizes: torch.Tensor  # (N,) pixels
    targets: torch.Tensor  # (N, K) cells of the up-sampled map


@dataclass(frozen=True)
class ReleasedLossCase:
    """One of the two losses, forward and backward, from given heatmaps.

    Attributes:
        offset_loss: the expected distance; else the cross-entropy.
        num_instances: N; as many as AdelaiDet's FCPose samples on a GPU.
        map_size: (H, W), of a padded image of 800 x 1344 pixels.
        num_images: B.
        num_keypoints: K.
    """

    offset_loss: bool
    num_instances: int = 70
    map_size: tuple[int, int] = (100, 168)
    num_images: int = 2
    num_keypoints: int = 17

    method = "released FCPose"
    mode = "training"
    dtype = torch.float32
    flops = 0  # nothing that a matrix unit does

    @property
    def name(self) -> str:
        """Name the case without its N, for the tables."""
        return "expected distance" if self.offset_loss else f"cross-entropy, up-sampled by {_FACTOR}"

    @property
    def num_bytes(self) -> int:
        """The bytes of the large inputs and outputs, each once: logits, offsets, their gradients."""
        height, width = self.map_size
        maps = self.num_instances + (2 * self.num_images if self.offset_loss else 0)
        return 2 * 4 * maps * self.num_keypoints * height * width

    def make_inputs(self, device: torch.device, seed: int) -> Inputs:
        """Draw inputs; the same for every device."""
        generator = torch.Generator().manual_seed(seed)
        n, k, (height, width) = self.num_instances, self.num_keypoints, self.map_size
        logits = torch.randn(n, k, height, width, generator=generator)
        offsets = 4 * torch.randn(self.num_images, k, 2, height, width, generator=generator)
        points = torch.rand(n, k, 2, generator=generator) * torch.tensor([width, height]) * _STRIDE
        fine = (points // (_STRIDE // _FACTOR)).long()
        return Inputs(
            logits=logits.to(device).requires_grad_(),
            offsets=offsets.to(device).requires_grad_(self.offset_loss),
            image_index=(torch.arange(n) % self.num_images).to(device),
            keypoints=torch.cat([points, torch.full((n, k, 1), 2.0)], dim=2).to(device),
            box_sizes=(50 + 300 * torch.rand(n, generator=generator)).to(device),
            targets=(fine[..., 1] * width * _FACTOR + fine[..., 0]).to(device),
        )

    def run(self, name: str, inputs: Inputs) -> Result:
        """Run a contestant once."""
        logits, offsets, image_index, keypoints, box_sizes, targets = inputs
        backend = BACKENDS[name]
        if not self.offset_loss:
            losses = upsampled_cross_entropy(logits, targets, _FACTOR, backend=backend)
            (gradient,) = torch.autograd.grad(losses.sum(), (logits,))
            return Result({"losses": losses.detach()}, {"gradient of logits": gradient})
        losses = expected_distance(
            logits,
            offsets,
            image_index,
            keypoints,
            box_sizes,
            stride=_STRIDE,
            distance_norm=_DISTANCE_NORM,
            backend=backend,
        )
        of_logits, of_offsets = torch.autograd.grad(losses.sum(), (logits, offsets))
        gradients = {"gradient of logits": of_logits, "gradient of offsets": of_offsets}
        return Result({"losses": losses.detach()}, gradients)

    def check(self, expected: Result, actual: Result, inputs: Inputs, tolerance: Tolerance):
        """Hold a result against the reference's.

        Raises:
            Disagreement: if they are not the same.
        """
        check_values("losses", expected.values["losses"], actual.values["losses"], tolerance.values)
        for name, gradient in expected.gradients.items():
            check_gradient(name, gradient, actual.gradients[name], tolerance.gradients)
