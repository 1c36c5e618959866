"""FCPose's cases of `dynpose benchmark kp-net`: its KP-Nets and the release's losses over heatmaps.

Letters of the shapes: N instances, B images, K keypoints, H x W cells.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from dynpose.layers.map_losses import expected_distance, upsampled_cross_entropy
from dynpose.methods import KPNetBenchmark, LossBenchmark

_STRIDE = 8
_FACTOR = 4  # of the up-sampling
_DISTANCE_NORM = 12.0
_NUM_IMAGES = 2  # B

# As many instances as AdelaiDet's FCPose samples on a GPU; the map of a padded image of 800 x 1344 pixels
_released_loss = partial(LossBenchmark, method="released FCPose", num_instances=70, map_size=(100, 168))


def cross_entropy_inputs(benchmark: LossBenchmark, generator: Generator) -> dict[str, Tensor]:
    """Draw ``logits`` (N, K, H, W) and ``targets`` (N, K), cells of the up-sampled map."""
    logits, points = _draw(benchmark, generator)
    fine = (points // (_STRIDE // _FACTOR)).long()
    return {"logits": logits, "targets": fine[..., 1] * benchmark.map_size[1] * _FACTOR + fine[..., 0]}


def cross_entropy(backend: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of the up-sampled heatmaps, (N, K)."""
    return upsampled_cross_entropy(logits, targets, _FACTOR, backend=backend)


def distance_inputs(benchmark: LossBenchmark, generator: Generator) -> dict[str, Tensor]:
    """Draw ``logits`` (N, K, H, W), ``offsets`` (B, K, 2, H, W) in pixels and the keypoints with their boxes."""
    logits, points = _draw(benchmark, generator)
    n, k = points.shape[:2]
    offsets = 4 * torch.randn(_NUM_IMAGES, k, 2, *benchmark.map_size, generator=generator)
    return {
        "logits": logits,
        "offsets": offsets.requires_grad_(),
        "image_index": torch.arange(n) % _NUM_IMAGES,
        "keypoints": torch.cat([points, torch.full((n, k, 1), 2.0)], dim=2),
        "box_sizes": 50 + 300 * torch.rand(n, generator=generator),  # pixels
    }


def distance(backend: str, **inputs: Tensor) -> Tensor:
    """Compute the expected distance between predicted locations and keypoints, (N, K)."""
    return expected_distance(**inputs, stride=_STRIDE, distance_norm=_DISTANCE_NORM, backend=backend)


def _draw(benchmark, generator):
    """Logits (N, K, H, W), and keypoints (N, K, 2) in pixels."""
    n, k, (height, width) = benchmark.num_instances, benchmark.num_keypoints, benchmark.map_size
    logits = torch.randn(n, k, height, width, generator=generator).requires_grad_()
    return logits, torch.rand(n, k, 2, generator=generator) * torch.tensor([width, height]) * _STRIDE


KP_NET_BENCHMARK = KPNetBenchmark(
    channels=32,  # section 3.1
    cpu_instances=(1, 10, 50, 100),
    # At most 50 of a batch's positive locations, about 2000, are sampled (section 3.3).
    num_sampled=50,
    num_positives=2000,
    losses=(
        _released_loss(
            name=f"cross-entropy, up-sampled by {_FACTOR}", make_inputs=cross_entropy_inputs, losses=cross_entropy
        ),
        _released_loss(name="expected distance", make_inputs=distance_inputs, losses=distance),
    ),
)
