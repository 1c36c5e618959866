"""What `dynpose benchmark kp-net` measures of FCPose: its KP-Nets, and the released losses over heatmaps.

Letters of the shapes: N instances, B images, K keypoints, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from dynpose.layers.map_losses import expected_distance, upsampled_cross_entropy
from dynpose.methods import KPNetBenchmark

_STRIDE = 8
_FACTOR = 4  # of the up-sampling
_DISTANCE_NORM = 12.0


class CrossEntropyInputs(NamedTuple):
    """What the cross-entropy reads."""

    logits: torch.Tensor  # (N, K, H, W)
    targets: torch.Tensor  # (N, K) cells of the up-sampled map


class DistanceInputs(NamedTuple):
    """What the expected distance reads."""

    logits: torch.Tensor  # (N, K, H, W)
    offsets: torch.Tensor  # (B, K, 2, H, W) pixels
    image_index: torch.Tensor  # (N,)
    keypoints: torch.Tensor  # (N, K, 3)
    box_sizes: torch.Tensor  # (N,) pixels


@dataclass(frozen=True)
class ReleasedCrossEntropy:
    """Cross-entropy of the up-sampled heatmaps, as in the released code.

    Attributes:
        num_instances: N; as many as AdelaiDet's FCPose samples on a GPU.
        map_size: (H, W), of a padded image of 800 x 1344 pixels.
        num_keypoints: K.
    """

    num_instances: int = 70
    map_size: tuple[int, int] = (100, 168)
    num_keypoints: int = 17

    method = "released FCPose"
    name = f"cross-entropy, up-sampled by {_FACTOR}"

    def make_inputs(self, seed: int) -> CrossEntropyInputs:
        """Draw inputs on the CPU."""
        logits, points, _ = _draw(self, seed)
        fine = (points // (_STRIDE // _FACTOR)).long()
        return CrossEntropyInputs(logits, fine[..., 1] * self.map_size[1] * _FACTOR + fine[..., 0])

    def losses(self, inputs: CrossEntropyInputs, backend: str) -> torch.Tensor:
        """Compute (N, K) losses."""
        return upsampled_cross_entropy(*inputs, _FACTOR, backend=backend)


@dataclass(frozen=True)
class ReleasedDistance:
    """Expected distance between the predicted location and the keypoint, as in the released code.

    Attributes:
        num_instances: N; as many as AdelaiDet's FCPose samples on a GPU.
        map_size: (H, W), of a padded image of 800 x 1344 pixels.
        num_images: B.
        num_keypoints: K.
    """

    num_instances: int = 70
    map_size: tuple[int, int] = (100, 168)
    num_images: int = 2
    num_keypoints: int = 17

    method = "released FCPose"
    name = "expected distance"

    def make_inputs(self, seed: int) -> DistanceInputs:
        """Draw inputs on the CPU."""
        logits, points, generator = _draw(self, seed)
        n, k = self.num_instances, self.num_keypoints
        offsets = 4 * torch.randn(self.num_images, k, 2, *self.map_size, generator=generator)
        return DistanceInputs(
            logits=logits,
            offsets=offsets.requires_grad_(),
            image_index=torch.arange(n) % self.num_images,
            keypoints=torch.cat([points, torch.full((n, k, 1), 2.0)], dim=2),
            box_sizes=50 + 300 * torch.rand(n, generator=generator),
        )

    def losses(self, inputs: DistanceInputs, backend: str) -> torch.Tensor:
        """Compute (N, K) losses."""
        return expected_distance(*inputs, stride=_STRIDE, distance_norm=_DISTANCE_NORM, backend=backend)


def _draw(loss, seed):
    """Logits (N, K, H, W), keypoints (N, K, 2) in pixels, and the generator of further numbers."""
    generator = torch.Generator().manual_seed(seed)
    n, k, (height, width) = loss.num_instances, loss.num_keypoints, loss.map_size
    logits = torch.randn(n, k, height, width, generator=generator).requires_grad_()
    points = torch.rand(n, k, 2, generator=generator) * torch.tensor([width, height]) * _STRIDE
    return logits, points, generator


KP_NET_BENCHMARK = KPNetBenchmark(
    channels=32,  # section 3.1
    cpu_instances=(1, 10, 50, 100),
    # At most 50 positive locations of a batch are sampled (section 3.3); all of them are about so many.
    num_sampled=50,
    num_positives=2000,
    losses=(ReleasedCrossEntropy(), ReleasedDistance()),
)
