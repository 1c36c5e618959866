"""The cases of the KP-Net operator: their inputs, their implementations, and their minimum work.

Letters of the shapes: N instances, C feature channels, K keypoints, P parameters of one KP-Net, H x W cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dynpose.benchmark.agreement import Disagreement, Result, Tolerance, check_gradients, check_values
from dynpose.layers import KPNets, KPNetSpec, triton_support
from dynpose.layers.kp_net import native
from dynpose.methods import LossBenchmark

GROUPED, REFERENCE, NATIVE, FUSED = "grouped", "reference", "native", "fused"
# of the implementations that run the operator
_BACKENDS = {REFERENCE: "torch", NATIVE: "native", FUSED: "triton"}

_STRIDE = 8
_COORD_SCALE = 64.0  # pixels
# Gives logits a standard deviation of 0.4 to 1.6, and heatmaps peaks.
_PARAMS_SCALE = 0.2


def fused_unavailable_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return the reason why the fused kernels are not run, or None.

    Kernels in Triton's interpreter are never timed: their times would be meaningless.
    """
    if triton_support.interprets():
        return "Triton interprets its kernels here and does not compile them"
    return triton_support.triton_unavailable_reason(torch.empty(0, dtype=dtype, device=device))


def native_unavailable_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return the reason why the compiled code is not run, or None."""
    tensor = torch.empty(0, dtype=dtype, device=device)
    return native.unavailable_reason(tensor, tensor)


class Inputs(NamedTuple):
    """The inputs of one call."""

    features: torch.Tensor  # (1, C, H, W)
    params: torch.Tensor  # (N, P)
    image_index: torch.Tensor  # (N,)
    locations: torch.Tensor  # (N, 2) pixels
    coord_scale: torch.Tensor  # (N,) pixels
    targets: torch.Tensor | None  # (N, K), in training


@dataclass(frozen=True)
class KPNetCase:
    """N KP-Nets of one spec over one map.

    Attributes:
        method: the method whose KP-Nets these are, for the tables.
        channels: C, of the features and of the two hidden layers.
        num_instances: N.
        training: whether to compute the cross-entropy, forward and backward, instead of the peaks.
        map_size: (H, W).
        dtype: of features and parameters.
        num_keypoints: K.
    """

    method: str
    channels: int
    num_instances: int
    training: bool = False
    map_size: tuple[int, int] = (100, 167)
    dtype: torch.dtype = torch.float32
    num_keypoints: int = 17

    reference = REFERENCE

    @property
    def mode(self) -> str:
        """Name the mode, for the tables."""
        return "training" if self.training else "inference"

    @property
    def name(self) -> str:
        """Name the case without its N, for the tables."""
        return f"{self.method} {self.mode}"

    @property
    def spec(self) -> KPNetSpec:
        """The KP-Nets' shape."""
        return KPNetSpec(in_channels=self.channels, width=self.channels, depth=3, num_keypoints=self.num_keypoints)

    @property
    def flops(self) -> int:
        """The FLOPs of the matrix products, a multiply-add counted as two.

        In the forward pass, each layer is one product. In the backward pass it is two, for its weights and its inputs,
        except the coordinates, which need no gradient.
        """
        sizes = self.spec.layer_sizes
        products = sum(n_in * n_out for n_in, n_out in sizes)
        if self.training:
            coordinates = 2 * sizes[0][1]
            products = 3 * products - coordinates
        height, width = self.map_size
        return 2 * self.num_instances * height * width * products

    @property
    def num_bytes(self) -> int:
        """The bytes of all inputs and all outputs, each once."""
        n, spec, (height, width) = self.num_instances, self.spec, self.map_size
        maps_and_params = (self.channels * height * width + n * spec.num_params) * self.dtype.itemsize
        instances = n * (8 + 2 * 4 + 4)  # image_index; locations and coord_scale in float32
        per_keypoint = n * spec.num_keypoints
        if self.training:  # gradients are as large as their tensors; int64 targets, float32 losses
            return 2 * maps_and_params + instances + per_keypoint * (8 + 4)
        return maps_and_params + instances + per_keypoint * (4 + 8 + 4)  # values, int64 indices, confidence

    def make_inputs(self, device: torch.device, seed: int) -> Inputs:
        """Draw inputs; the same for every device."""
        generator = torch.Generator().manual_seed(seed)
        n, spec, (height, width) = self.num_instances, self.spec, self.map_size
        features = torch.randn(1, self.channels, height, width, generator=generator)
        params = torch.randn(n, spec.num_params, generator=generator) * _PARAMS_SCALE
        locations = torch.rand(n, 2, generator=generator) * torch.tensor([width, height]) * _STRIDE
        targets = torch.randint(height * width, (n, spec.num_keypoints), generator=generator)
        return Inputs(
            features=features.to(device, self.dtype).requires_grad_(self.training),
            params=params.to(device, self.dtype).requires_grad_(self.training),
            image_index=torch.zeros(n, dtype=torch.int64, device=device),
            locations=locations.to(device),
            coord_scale=torch.full((n,), _COORD_SCALE, device=device),
            targets=targets.to(device) if self.training else None,
        )

    def run(self, name: str, inputs: Inputs) -> Result:
        """Run an implementation once."""
        if not self.training:
            values, indices, confidence = self._peaks(name, inputs)
            return Result({"values": values, "confidence": confidence}, {}, indices)
        losses = self._losses(name, inputs)
        features, params = torch.autograd.grad(losses.sum(), (inputs.features, inputs.params))
        return Result({"losses": losses.detach()}, {"gradient of features": features, "gradient of params": params})

    def check(self, expected: Result, actual: Result, inputs: Inputs, tolerance: Tolerance) -> None:
        """Compare a result with the reference's.

        Raises:
            Disagreement: if they are not the same.
        """
        for name, values in expected.values.items():
            allowed = tolerance.values
            if name == "confidence":
                # An error of d in a logit and in the log-sum-exp scales the probability by exp(2 d).
                allowed *= 2 * max(1.0, expected.values["values"].abs().max().item())
            check_values(name, values, actual.values[name], allowed)
        check_gradients(expected, actual, tolerance.gradients)
        if expected.indices is not None:
            self._check_indices(expected, actual, inputs, tolerance.values)

    def _check_indices(self, expected, actual, inputs, tolerance):
        """If the highest cell differs, its value must be equal within the tolerance."""
        allowed = tolerance * expected.values["values"].abs().max()
        others = (expected.indices != actual.indices).any(dim=1).nonzero().squeeze(1)
        for i in others.split(16):
            heatmaps = self._nets(REFERENCE, inputs)[i].heatmaps().flatten(2)
            below = expected.values["values"][i] - heatmaps.gather(2, actual.indices[i][..., None]).squeeze(2)
            if not (below <= allowed).all():
                raise Disagreement(f"indices: a cell that is {below.max().item():.1e} lower, at most {allowed:.1e}")

    def _nets(self, name, inputs):
        return KPNets(*inputs[:5], self.spec, _STRIDE, backend=_BACKENDS[name])

    def _peaks(self, name, inputs):
        if name != GROUPED:
            return self._nets(name, inputs).peaks()
        with torch.no_grad():
            heatmaps = _grouped_heatmaps(inputs, self.spec)
            values, indices = heatmaps.max(dim=2)
            return values, indices, (values - heatmaps.logsumexp(dim=2)).exp()

    def _losses(self, name, inputs):
        if name != GROUPED:
            return self._nets(name, inputs).cross_entropy(inputs.targets)
        heatmaps = _grouped_heatmaps(inputs, self.spec)
        losses = F.cross_entropy(heatmaps.flatten(0, 1), inputs.targets.flatten(), reduction="none")
        return losses.view_as(inputs.targets)


def _grouped_heatmaps(inputs, spec):
    """Logits (N, K, H * W) by convolutions with one group per instance; all instances are in image 0."""
    n, height_and_width = len(inputs.params), inputs.features.shape[2:]
    maps = _with_coordinates(inputs, spec).view(1, -1, *height_and_width)
    for layer, (weight, bias) in enumerate(spec.unpack(inputs.params)):
        maps = F.relu(maps) if layer > 0 else maps
        maps = F.conv2d(maps, weight.flatten(0, 1)[:, :, None, None], bias.flatten(), groups=n)
    return maps.view(n, spec.num_keypoints, -1)


def _with_coordinates(inputs, spec):
    """The features, repeated, after the relative coordinates: (N, 2 + C, H, W)."""
    features, (height, width) = inputs.features, inputs.features.shape[2:]
    x = torch.arange(width, device=features.device).expand(height, width)
    y = torch.arange(height, device=features.device)[:, None].expand(height, width)
    offsets = torch.stack([x, y]) * _STRIDE + _STRIDE // 2 - inputs.locations[:, :, None, None]
    relative = spec.coords_sign * offsets / inputs.coord_scale[:, None, None, None]
    return torch.cat([relative.to(features.dtype), features.expand(len(offsets), -1, -1, -1)], dim=1)


@dataclass(frozen=True)
class LossInputs:
    """The inputs of one call of a loss: tensors by name."""

    tensors: dict[str, torch.Tensor]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensors.values())


class LossCase:
    """A loss of a method over given heatmaps, forward and backward.

    Args:
        loss: the loss and its implementations.
    """

    reference = REFERENCE
    mode = "training"
    dtype = torch.float32
    flops = 0  # no matrix products

    def __init__(self, loss: LossBenchmark):
        self.loss = loss
        self.method, self.name, self.num_instances, self.map_size = (
            loss.method, loss.name, loss.num_instances, loss.map_size,
        )  # fmt: skip

    @property
    def num_bytes(self) -> int:
        """The bytes of the inputs with a gradient and of their gradients; the others are small."""
        return 2 * sum(tensor.nbytes for tensor in self.make_inputs(torch.device("cpu"), 0) if tensor.requires_grad)

    def make_inputs(self, device: torch.device, seed: int) -> LossInputs:
        """Draw inputs; the same for every device."""
        drawn = self.loss.make_inputs(self.loss, torch.Generator().manual_seed(seed))
        return LossInputs({name: x.detach().to(device).requires_grad_(x.requires_grad) for name, x in drawn.items()})

    def run(self, name: str, inputs: LossInputs) -> Result:
        """Run an implementation once."""
        losses = self.loss.losses(_BACKENDS[name], **inputs.tensors)
        learned = {f"gradient of {key}": x for key, x in inputs.tensors.items() if x.requires_grad}
        gradients = torch.autograd.grad(losses.sum(), tuple(learned.values()))
        return Result({"losses": losses.detach()}, dict(zip(learned, gradients)))

    def check(self, expected: Result, actual: Result, inputs: LossInputs, tolerance: Tolerance) -> None:
        """Compare a result with the reference's.

        Raises:
            Disagreement: if they are not the same.
        """
        check_values("losses", expected.values["losses"], actual.values["losses"], tolerance.values)
        check_gradients(expected, actual, tolerance.gradients)
