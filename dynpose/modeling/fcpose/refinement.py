"""Refinement of heatmap peaks at F's stride to keypoints in pixels: the options of FCPose's Tables 4 and 5.

Axes: N generated networks, K keypoints, B images, G people of the batch, H x W cells of F, R values that the controller
generates per person for the refinement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from dynpose.layers import KPNets, KPNetSpec, expected_distance, upsampled_cross_entropy
from dynpose.layers.cells import cell_centers
from dynpose.layers.map_peaks import map_peaks
from dynpose.layers.process_mean import normalizer
from dynpose.modeling.keypoint_maps import gather_keypoints, keypoint_cells, offset_targets, offsets_at
from dynpose.modeling.kp_net import heatmap_intermediates, offset_intermediates
from dynpose.modeling.parameter_rows import of_each, of_generated
from dynpose.utils.arguments import check_one_of

from .losses import head_weights

HEATMAP_LOSSES = ("cell", "upsampled")
TARGET_RULES = ("nearest", "paper")
OFFSET_SOURCES = ("p3", "basis")
OFFSET_LOSSES = ("mse", "expected_distance")


class RefinementRows(NamedTuple):
    """Owners (see :mod:`dynpose.modeling.parameter_rows`) of a refinement's values, channels and layers.

    Attributes:
        generated: owners of the values that the controller generates for it.
        shared: owners of the channels that the basis branch computes for it.
        layers: owners of the output channels of its layers.
    """

    generated: list[tuple[int, ...]]
    shared: list[tuple[int, ...]]
    layers: dict[str, list[tuple[int, ...]]]


class People(NamedTuple):
    """The people of a batch.

    Attributes:
        keypoints: (G, K, 3).
        box_sizes: (G,) half the sum of width and height of each box, pixels.
        image_index: (G,) int64.
    """

    keypoints: torch.Tensor
    box_sizes: torch.Tensor
    image_index: torch.Tensor

    @classmethod
    def of(cls, gt_instances: list[Instances], num_keypoints: int) -> People:
        """Collect the people of a batch, in order.

        Args:
            gt_instances: B, with gt_boxes and (where there are people) gt_keypoints.
            num_keypoints: K.
        """
        keypoints, image_index = gather_keypoints(gt_instances, num_keypoints)
        boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
        return cls(keypoints, (boxes[:, 2:] - boxes[:, :2]).sum(dim=1) / 2, image_index)


class Refinement(nn.Module, ABC):
    """Locates keypoints in heatmaps, and computes the losses for it.

    Attributes:
        num_params: R.
        num_shared_channels: D, channels that the basis branch computes for it besides F.
    """

    num_params = 0
    num_shared_channels = 0

    def keypoint_rows(self, number: int) -> RefinementRows:
        """Map values, channels and layers to the ``number`` keypoints of a model: RefinementRows."""
        return RefinementRows([], [], {})

    def offsets(self, p3: Tensor, shared: Tensor) -> Tensor | None:
        """Compute the map that all people of an image share.

        Args:
            p3: (B, C, H, W), the finest pyramid level.
            shared: (B, D, H, W), channels of the basis branch besides F; D may be 0.

        Returns:
            (B, 2 K, H, W) offsets in input pixels, x0, y0, x1, y1, ...; None without such a map.
        """
        return None

    @abstractmethod
    def losses(
        self, nets: KPNets, params: Tensor, offsets: Tensor | None, people: People, person: Tensor
    ) -> dict[str, Tensor]:
        """Compute all unweighted keypoint losses (L_heatmap and L_reg of Eq. 4).

        Args:
            nets: N networks.
            params: (N, R), generated for the refinement.
            offsets: from :meth:`offsets`.
            people: G people.
            person: (N,) int64, the person of each network.

        Returns:
            Scalars, ``heatmap`` and possibly ``offset``; unlabelled keypoints do not contribute.
        """

    @abstractmethod
    def locate(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> Tensor:
        """Locate the keypoints.

        Args:
            nets: N networks.
            params: (N, R), generated for the refinement.
            offsets: from :meth:`offsets`.

        Returns:
            (N, K, 3), x and y in input pixels and the softmax probability of the peak.
        """

    @abstractmethod
    def intermediates(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> dict[str, Tensor]:
        """Compute the maps that :meth:`locate` reads, see :mod:`dynpose.modeling.fcpose.figures`.

        Args:
            nets: N networks.
            params: (N, R), generated for the refinement.
            offsets: from :meth:`offsets`.
        """


class PeakRefinement(Refinement):
    """The peak's cell centre is the keypoint ("none" in Table 4).

    Args:
        heatmap_loss: "cell", softmax cross-entropy over the cells of F (Eq. 3), or "upsampled", over the logits
            up-sampled bilinearly by four (release).
        target_rule: for "cell", see :func:`~dynpose.modeling.keypoint_maps.keypoint_cells`.

    Raises:
        ValueError: if an argument is not a valid choice.
    """

    upsample_factor = 4
    # radius around a keypoint in which training supervises its offsets, in cells; NaN = no fixed one
    offset_radius = float("nan")

    def __init__(self, *, heatmap_loss: str = "cell", target_rule: str = "nearest"):
        super().__init__()
        check_one_of("heatmap_loss", heatmap_loss, HEATMAP_LOSSES)
        check_one_of("target_rule", target_rule, TARGET_RULES)
        self.heatmap_loss = heatmap_loss
        self.target_rule = target_rule

    def losses(  # noqa: D102
        self, nets: KPNets, params: Tensor, offsets: Tensor | None, people: People, person: Tensor
    ) -> dict[str, Tensor]:
        weights = head_weights(person, len(people.keypoints))
        return {"heatmap": _weighted_sum(self._heatmap_losses(nets, people.keypoints[person]), weights, nets)}

    def locate(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> Tensor:  # noqa: D102
        peaks = nets.peaks()
        points = cell_centers(peaks.indices, nets.stride, nets.size[1])
        points = points + self.offsets_at_peaks(nets, params, offsets, peaks.indices)
        return torch.cat([points, peaks.confidence[..., None]], dim=2)

    def intermediates(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> dict[str, Tensor]:  # noqa: D102
        maps = heatmap_intermediates(nets.heatmaps(), nets.stride, nets.stride // 2)

        def end(cells: Tensor) -> Tensor:
            centers = cell_centers(cells, nets.stride, nets.size[1])
            return centers + self.offsets_at_peaks(nets, params, offsets, cells)

        return {**maps, **offset_intermediates(maps, end, self.offset_radius * nets.stride)}

    def offsets_at_peaks(self, nets: KPNets, params: Tensor, offsets: Tensor | None, cells: Tensor) -> Tensor | int:
        """Offsets to add to the centres of ``cells`` (N, K): (N, K, 2) pixels, or 0."""
        return 0

    def map_cross_entropy(self, nets: KPNets, logits: Tensor, keypoints: Tensor) -> Tensor:
        """Cross-entropy of given heatmaps.

        Args:
            nets: N networks.
            logits: (N, K, H, W) of their heatmaps.
            keypoints: (N, K, 3).

        Returns:
            (N, K) losses.
        """
        factor, rule = (1, self.target_rule) if self.heatmap_loss == "cell" else (self.upsample_factor, "nearest")
        height, width = nets.size
        targets = keypoint_cells(keypoints, nets.stride // factor, (height * factor, width * factor), rule)
        return upsampled_cross_entropy(logits, targets, factor, backend=nets.backend)

    def _heatmap_losses(self, nets, keypoints):
        """(N, K) cross-entropy of the heatmaps."""
        if self.heatmap_loss == "cell":
            return nets.cross_entropy(keypoint_cells(keypoints, nets.stride, nets.size, self.target_rule))
        (losses,) = nets.map_in_chunks(self._on_maps, keypoints)
        return losses

    def _on_maps(self, nets, keypoints):
        return (self.map_cross_entropy(nets, nets.heatmaps(), keypoints),)


class SharedOffsets(PeakRefinement):
    """One offset map for all people (section 3.2; "shared" in Table 5).

    Args:
        in_channels: channels of P3.
        num_keypoints: K.
        source: "p3", one convolution on P3 (paper), or "basis", the last layer of the basis branch, which
            computes the offsets together with F (release).
        kernel_size: of the convolution on P3.
        scale: pixels per unit of output.
        loss: "mse", squared error in cells around the labelled keypoints (section 3.3), or "expected_distance"
            (release).
        radius: for "mse", radius around a keypoint's cell in which its offset is supervised, in cells.
        distance_norm: for "expected_distance".
        **heatmap: see :class:`PeakRefinement`.

    Raises:
        ValueError: if an argument is not a valid choice.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        source: str = "p3",
        kernel_size: int = 3,
        scale: float = 8.0,
        loss: str = "mse",
        radius: float = 0.0,
        distance_norm: float = 12.0,
        **heatmap: str,
    ):
        super().__init__(**heatmap)
        check_one_of("source", source, OFFSET_SOURCES)
        check_one_of("loss", loss, OFFSET_LOSSES)
        self.scale = scale
        self.loss = loss
        self.radius = radius
        if loss == "mse":
            self.offset_radius = radius
        self.distance_norm = distance_norm
        self.num_shared_channels = 2 * num_keypoints if source == "basis" else 0
        self.conv = None
        if source == "p3":
            self.conv = nn.Conv2d(in_channels, 2 * num_keypoints, kernel_size, padding=kernel_size // 2)
            nn.init.normal_(self.conv.weight, std=0.01)
            nn.init.zeros_(self.conv.get_parameter("bias"))

    def keypoint_rows(self, number: int) -> RefinementRows:  # noqa: D102
        offsets = of_each(number, rows=2)
        return RefinementRows([], offsets, {}) if self.conv is None else RefinementRows([], [], {"conv": offsets})

    def offsets(self, p3: Tensor, shared: Tensor) -> Tensor:  # noqa: D102
        return (shared if self.conv is None else self.conv(p3)).float() * self.scale

    def losses(  # noqa: D102
        self, nets: KPNets, params: Tensor, offsets: Tensor | None, people: People, person: Tensor
    ) -> dict[str, Tensor]:
        if self.loss == "mse":
            losses = super().losses(nets, params, offsets, people, person)
            return {**losses, "offset": self._mean_squared_error(offsets, people, nets.stride)}
        weights = head_weights(person, len(people.keypoints))
        heatmap, distance = self._losses_on_maps(nets, offsets, people.keypoints[person], people.box_sizes[person])
        # the release averages the heatmap loss over the keypoints and sums the offset loss
        return {"heatmap": _weighted_sum(heatmap, weights, nets), "offset": (distance.sum(dim=1) * weights).sum()}

    def offsets_at_peaks(self, nets: KPNets, params: Tensor, offsets: Tensor | None, cells: Tensor) -> Tensor:  # noqa: D102
        assert offsets is not None  # self.offsets() always computes a map
        return offsets_at(offsets, nets.image_index, cells)

    def _losses_on_maps(self, nets, offsets, keypoints, box_sizes):
        """(N, K) cross-entropy of the heatmaps, and the expected distance under them."""

        def on_maps(nets, keypoints, box_sizes):
            logits = nets.heatmaps()
            distance = expected_distance(
                logits,
                offsets.unflatten(1, (-1, 2)),
                nets.image_index,
                keypoints,
                box_sizes,
                stride=nets.stride,
                distance_norm=self.distance_norm,
                backend=nets.backend,
            )
            return self.map_cross_entropy(nets, logits, keypoints), distance

        return nets.map_in_chunks(on_maps, keypoints, box_sizes)

    def _mean_squared_error(self, offsets, people, stride):
        """Mean squared error, in cells, of the offset map near the labelled keypoints (L_reg of Eq. 4)."""
        image, kind, cell, target = offset_targets(
            people.keypoints,
            people.image_index,
            num_images=len(offsets),
            size=tuple(offsets.shape[-2:]),
            stride=stride,
            radius=self.radius,
            rule=self.target_rule,
        )
        predicted = offsets.unflatten(1, (-1, 2)).flatten(3)[image, kind, :, cell]
        error = ((predicted - target) / stride).square()
        count = normalizer(error.numel(), error.device)
        return error.sum() / count


class InstanceOffsets(PeakRefinement):
    """Offsets by a generated 1x1 convolution per person ("not shared" in Table 5).

    Args:
        spec: shape of the KP-Nets; the convolution has the same input.
        **heatmap: see :class:`PeakRefinement`.
    """

    def __init__(self, *, spec: KPNetSpec, **heatmap: str):
        super().__init__(**heatmap)
        self.conv_spec = KPNetSpec(
            in_channels=spec.in_channels,
            width=spec.width,
            depth=1,
            num_keypoints=2 * spec.num_keypoints,
            coords_position=spec.coords_position,
            coords_sign=spec.coords_sign,
        )
        self.num_params = self.conv_spec.num_params

    def keypoint_rows(self, number: int) -> RefinementRows:  # noqa: D102
        # its outputs are x0, y0, x1, y1, ...
        outputs = of_generated(replace(self.conv_spec, num_keypoints=2 * number))
        return RefinementRows([(output // 2,) for (output,) in outputs], [], {})

    def losses(  # noqa: D102
        self, nets: KPNets, params: Tensor, offsets: Tensor | None, people: People, person: Tensor
    ) -> dict[str, Tensor]:
        weights, keypoints = head_weights(person, len(people.keypoints)), people.keypoints[person]
        heatmap = self._heatmap_losses(nets, keypoints)
        cells = keypoint_cells(keypoints, nets.stride, nets.size, self.target_rule)
        labelled = cells >= 0
        cells = cells.clamp(min=0)
        target = keypoints[..., :2] - cell_centers(cells, nets.stride, nets.size[1])
        error = (self.offsets_at_peaks(nets, params, offsets, cells) - target) / nets.stride
        error = torch.where(labelled[..., None], error, 0.0)
        return {
            "heatmap": _weighted_sum(heatmap, weights, nets),
            "offset": _weighted_sum(error.square().mean(dim=2), weights, nets),
        }

    def offsets_at_peaks(self, nets: KPNets, params: Tensor, offsets: Tensor | None, cells: Tensor) -> Tensor:  # noqa: D102
        ((weight, bias),) = self.conv_spec.unpack(params.float())
        weight = weight.unflatten(1, (-1, 2))
        # elementwise sums in float32, because autocast would round a matrix product
        values = (nets.cell_inputs(cells)[:, :, None] * weight).sum(dim=3) + bias.unflatten(1, (-1, 2))
        return values * nets.stride


class DeconvRefinement(Refinement):
    """Heatmaps up-sampled by a learned transposed convolution before the peak is taken ("deconv." in Table 4).

    One filter per keypoint, shared by all people and initialised as bilinear interpolation; the loss is over the
    up-sampled cells.

    Args:
        num_keypoints: K.
        factor: even divisor of F's stride.

    Raises:
        ValueError: if the factor is odd.
    """

    def __init__(self, *, num_keypoints: int, factor: int = 4):
        super().__init__()
        if factor % 2:
            raise ValueError(f"factor: expected an even number, got {factor}")
        self.factor = factor
        self.deconv = nn.ConvTranspose2d(
            num_keypoints, num_keypoints, 2 * factor, stride=factor, padding=factor // 2, groups=num_keypoints
        )
        tent = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
        self.deconv.weight.data.copy_(torch.outer(tent, tent).expand_as(self.deconv.weight))
        nn.init.zeros_(self.deconv.get_parameter("bias"))

    def keypoint_rows(self, number: int) -> RefinementRows:  # noqa: D102
        return RefinementRows([], [], {"deconv": of_each(number)})

    def losses(  # noqa: D102
        self, nets: KPNets, params: Tensor, offsets: Tensor | None, people: People, person: Tensor
    ) -> dict[str, Tensor]:
        weights = head_weights(person, len(people.keypoints))
        (losses,) = nets.map_in_chunks(self._losses_on_maps, people.keypoints[person], values_per_cell=self.factor**2)
        return {"heatmap": _weighted_sum(losses, weights, nets)}

    def locate(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> Tensor:  # noqa: D102
        (located,) = nets.map_in_chunks(self._locate_on_maps, values_per_cell=self.factor**2)
        return located

    def intermediates(self, nets: KPNets, params: Tensor, offsets: Tensor | None) -> dict[str, Tensor]:  # noqa: D102
        stride = nets.stride // self.factor
        return heatmap_intermediates(self.upsample(nets.heatmaps()), stride, stride // 2)

    def upsample(self, logits: Tensor) -> Tensor:
        """(N, K, H, W) -> (N, K, H * factor, W * factor)."""
        return self.deconv(logits)

    def _losses_on_maps(self, nets, keypoints):
        logits = self.upsample(nets.heatmaps())
        targets = keypoint_cells(keypoints, nets.stride // self.factor, logits.shape[-2:])
        return (upsampled_cross_entropy(logits, targets, factor=1, backend=nets.backend),)

    def _locate_on_maps(self, nets):
        logits = self.upsample(nets.heatmaps())
        _, indices, confidence = map_peaks(logits)
        points = cell_centers(indices, nets.stride // self.factor, logits.shape[-1])
        return (torch.cat([points, confidence[..., None]], dim=2),)


def _weighted_sum(losses, weights, nets):
    """Average losses (N, K) over the keypoints, then sum with the networks' weights (N,)."""
    return (losses.sum(dim=1) / nets.spec.num_keypoints * weights).sum()
