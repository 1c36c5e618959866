"""The specification of a KP-Net: its layer sizes, the packing of its parameters, and its peaks.

Letters of the shapes in this package: N instances, B images, C feature channels, K keypoints, P parameters of one
KP-Net, H x W cells of the feature map (rows x columns).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class KPNetSpec:
    """The shape of the KP-Net that is generated for every instance (FCPose section 3.1, InsPose section 3.2).

    A KP-Net is a chain of ``depth`` 1x1 convolutions with ReLU between them. Its input is C feature channels and two
    coordinate channels, the offset (x, then y) of each cell from the location that generates the network. Its output
    is one heatmap per keypoint.

    The parameter vector holds weight, bias, weight, bias, ... from the first layer to the last; each weight is a
    row-major (out, in) matrix.

    Attributes:
        in_channels: C, the feature channels without the two coordinate channels.
        width: channels of the hidden layers. A KP-Net of depth 1 has none.
        depth: number of 1x1 convolutions, including the output layer.
        num_keypoints: K, heatmaps per instance.
        coords_position: position of the coordinates among the input channels, "first" or "last".
        coords_sign: +1 for cell minus location, -1 for location minus cell.

    Raises:
        ValueError: if a number is not positive or a choice is invalid.

    Example::

        >>> KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17).num_params
        2737
    """

    in_channels: int
    width: int
    depth: int
    num_keypoints: int
    coords_position: str = "first"
    coords_sign: int = -1

    def __post_init__(self):
        for name in ("in_channels", "width", "depth", "num_keypoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.coords_position not in ("first", "last"):
            raise ValueError(f"coords_position: expected 'first' or 'last', got {self.coords_position!r}")
        if self.coords_sign not in (1, -1):
            raise ValueError(f"coords_sign: expected 1 or -1, got {self.coords_sign!r}")

    @property
    def layer_sizes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) channels of each layer; the first includes the coordinates."""
        channels = [self.in_channels + 2] + [self.width] * (self.depth - 1) + [self.num_keypoints]
        return tuple(zip(channels[:-1], channels[1:]))

    @property
    def param_sizes(self) -> tuple[int, ...]:
        """Number of parameters in each packed piece: weight, bias, weight, bias, ..."""
        return tuple(size for n_in, n_out in self.layer_sizes for size in (n_in * n_out, n_out))

    @property
    def num_params(self) -> int:
        """P, the length of one instance's parameter vector."""
        return sum(self.param_sizes)

    @property
    def param_keypoints(self) -> tuple[int | None, ...]:
        """The keypoint of each of the P packed parameters; None in the hidden layers, which all keypoints share."""
        num_hidden = sum(self.param_sizes[:-2])
        n_in, n_out = self.layer_sizes[-1]
        weight = (keypoint for keypoint in range(n_out) for _ in range(n_in))
        return (*[None] * num_hidden, *weight, *range(n_out))

    def unpack(self, params: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Split parameter vectors into the weights and biases of the layers, as views.

        Args:
            params: (N, P).

        Returns:
            One (weight, bias) per layer, of shapes (N, out, in) and (N, out).

        Raises:
            ValueError: if ``params`` is not (N, P).
        """
        if params.dim() != 2 or params.shape[1] != self.num_params:
            raise ValueError(f"params: expected shape (N, {self.num_params}), got {tuple(params.shape)}")
        pieces = params.split(self.param_sizes, dim=1)
        return [
            (weight.unflatten(1, (n_out, n_in)), bias)
            for (n_in, n_out), weight, bias in zip(self.layer_sizes, pieces[::2], pieces[1::2])
        ]


class KPNetPeaks(NamedTuple):
    """The highest cell of every heatmap.

    Attributes:
        values: (N, K) logit of the cell.
        indices: (N, K) int64, the cell ``v * W + u`` (row v, column u); the lowest index if several are equal.
        confidence: (N, K) probability of the cell under the softmax over the whole map.
    """

    values: torch.Tensor
    indices: torch.Tensor
    confidence: torch.Tensor
