"""From heatmap peaks at F's stride to keypoints in pixels: the choices of FCPose's Tables 4 and 5, and their losses.

Every choice offers the same things: ``num_params``, the values that the controller generates for it per person;
``num_shared_channels``, the channels that the basis branch gives it beside F; ``offsets``, what it computes once per
image; ``losses`` and ``map_loss`` for training; ``locate`` for inference.
Axes: N generated networks, K keypoints, B images, H x W cells of F.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from dynpose.layers import KPNetSpec, expected_distance, upsampled_cross_entropy
from dynpose.layers.losses import normalizer
from dynpose.modeling.keypoint_maps import cell_centers, keypoint_cells, offset_targets, offsets_at
from dynpose.modeling.parameter_rows import of_each, of_generated


class RefinementRows(NamedTuple):
    """Owners (see :mod:`dynpose.modeling.parameter_rows`) of what a refinement has.

    Attributes:
        generated (list[tuple[int]]): of the values that the controller generates for it.
        shared (list[tuple[int]]): of the channels that the basis branch gives it.
        layers (dict[str, list[tuple[int]]]): of the output channels of its own layers.
    """

    generated: list
    shared: list
    layers: dict


class NoRefinement(nn.Module):
    """The peak's cell centre is the keypoint ("none" in Table 4).

    Args:
        heatmap_loss (str): "cell", softmax cross-entropy over the cells of F (Eq. 3), or "upsampled", over the logits
            up-sampled bilinearly by ``upsample_factor`` (released code).
        target_rule (str): see :func:`~dynpose.modeling.keypoint_maps.keypoint_cells`.
    """

    num_params = 0
    num_shared_channels = 0
    upsample_factor = 4
    # cells of the largest map of the losses per cell of F
    values_per_cell = 1

    def __init__(self, *, heatmap_loss="cell", target_rule="nearest"):
        super().__init__()
        if heatmap_loss not in ("cell", "upsampled"):
            raise ValueError(f"MODEL.FCPOSE.HEATMAP_LOSS must be 'cell' or 'upsampled', got {heatmap_loss!r}")
        if target_rule not in ("nearest", "paper"):
            raise ValueError(f"MODEL.FCPOSE.HEATMAP_TARGET must be 'nearest' or 'paper', got {target_rule!r}")
        self.heatmap_loss = heatmap_loss
        self.target_rule = target_rule

    def keypoint_rows(self, number):
        """Say which keypoint each value and channel is for, with ``number`` keypoints: RefinementRows."""
        return RefinementRows([], [], {})

    def offsets(self, p3, shared):
        """Compute what is shared by all people of an image.

        Args:
            p3 (Tensor): (B, C, H, W), the finest pyramid level.
            shared (Tensor): (B, D, H, W), channels of the basis branch beyond F; D may be 0.

        Returns:
            Tensor | None: (B, 2 K, H, W) offsets in input pixels, x0, y0, x1, y1, ...; None without such a map.
        """
        return None

    def losses(self, nets, offsets, keypoints, box_sizes):
        """Compute the losses of every network.

        Args:
            nets (GeneratedKPNets): N networks.
            offsets (Tensor | None): from :meth:`offsets`.
            keypoints (Tensor): (N, K, 3), what each network should find.
            box_sizes (Tensor): (N,) half of width plus height of the person's box, pixels.

        Returns:
            dict[str, Tensor]: (N,) per loss, ``heatmap`` and possibly ``offset``; keypoints that are not labelled
            count nothing.
        """
        if self.heatmap_loss == "cell":
            targets = keypoint_cells(keypoints, nets.stride, nets.size, self.target_rule)
            loss = nets.cross_entropy(targets)
        else:
            (loss,) = nets.map_in_chunks(self._on_maps, keypoints, values_per_cell=self.values_per_cell)
        return {"heatmap": loss.sum(dim=1) / nets.spec.num_keypoints}

    def map_loss(self, offsets, keypoints, image_index, *, stride):
        """Compute the loss of what is shared by all people of an image; None where nothing is.

        Args:
            offsets (Tensor | None): from :meth:`offsets`.
            keypoints (Tensor): (G, K, 3), every person of the batch.
            image_index (Tensor): (G,) int64.
            stride (int): of the map, pixels.
        """
        return None

    def _on_maps(self, nets, keypoints):
        return (self.map_cross_entropy(nets, nets.heatmaps(), keypoints),)

    def map_cross_entropy(self, nets, logits, keypoints):
        """Cross-entropy of heatmaps that are at hand.

        Args:
            nets (GeneratedKPNets): N networks.
            logits (Tensor): (N, K, H, W), their heatmaps.
            keypoints (Tensor): (N, K, 3).

        Returns:
            Tensor: (N, K).
        """
        factor, rule = (1, self.target_rule) if self.heatmap_loss == "cell" else (self.upsample_factor, "nearest")
        height, width = nets.size
        targets = keypoint_cells(keypoints, nets.stride // factor, (height * factor, width * factor), rule)
        return upsampled_cross_entropy(logits, targets, factor, backend=nets.backend)

    def locate(self, nets, offsets):
        """Find the keypoints.

        Args:
            nets (GeneratedKPNets): N networks.
            offsets (Tensor | None): from :meth:`offsets`.

        Returns:
            Tensor: (N, K, 3), x and y in input pixels and the softmax probability of the peak.
        """
        peaks = nets.peaks()
        points = cell_centers(peaks.indices, nets.stride, nets.size[1]) + self.at_peaks(nets, offsets, peaks.indices)
        return torch.cat([points, peaks.confidence[..., None]], dim=2)

    def at_peaks(self, nets, offsets, cells):
        """Offsets to add at the cells (N, K): (N, K, 2) pixels, or 0."""
        return 0


class SharedOffsets(NoRefinement):
    """One offset map for all people (section 3.2; "shared" in Table 5).

    Args:
        in_channels (int): channels of P3.
        num_keypoints (int): K.
        source (str): "p3", one convolution on P3 (paper), or "basis", the last layer of the basis branch gives the
            offsets together with F (released code).
        kernel_size (int): of the convolution on P3.
        scale (float): pixels that an output of 1 stands for.
        loss (str): "mse", squared error in cells around the labelled keypoints (section 3.3), or "expected_distance"
            (released code).
        radius (float): for "mse", how far from a keypoint's cell its offset is supervised, in cells.
        distance_norm (float): for "expected_distance".
        **heatmap: see :class:`NoRefinement`.
    """

    def __init__(
        self,
        *,
        in_channels,
        num_keypoints,
        source="p3",
        kernel_size=3,
        scale=8.0,
        loss="mse",
        radius=1.0,
        distance_norm=12.0,
        **heatmap,
    ):
        super().__init__(**heatmap)
        if source not in ("p3", "basis"):
            raise ValueError(f"MODEL.FCPOSE.OFFSET_SOURCE must be 'p3' or 'basis', got {source!r}")
        if loss not in ("mse", "expected_distance"):
            raise ValueError(f"MODEL.FCPOSE.OFFSET_LOSS must be 'mse' or 'expected_distance', got {loss!r}")
        self.scale = scale
        self.loss = loss
        self.radius = radius
        self.distance_norm = distance_norm
        self.num_shared_channels = 2 * num_keypoints if source == "basis" else 0
        self.conv = None
        if source == "p3":
            self.conv = nn.Conv2d(in_channels, 2 * num_keypoints, kernel_size, padding=kernel_size // 2)
            nn.init.normal_(self.conv.weight, std=0.01)
            nn.init.zeros_(self.conv.bias)

    def keypoint_rows(self, number):  # noqa: D102
        offsets = of_each(number, rows=2)
        return RefinementRows([], offsets, {}) if self.conv is None else RefinementRows([], [], {"conv": offsets})

    def offsets(self, p3, shared):  # noqa: D102
        return (shared if self.conv is None else self.conv(p3)).float() * self.scale

    def losses(self, nets, offsets, keypoints, box_sizes):  # noqa: D102
        if self.loss == "mse":
            return super().losses(nets, offsets, keypoints, box_sizes)

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

        heatmap, distance = nets.map_in_chunks(on_maps, keypoints, box_sizes)
        # the released code averages the one over the keypoints and sums the other
        return {"heatmap": heatmap.sum(dim=1) / nets.spec.num_keypoints, "offset": distance.sum(dim=1)}

    def map_loss(self, offsets, keypoints, image_index, *, stride):
        """Mean squared error, in cells, of the offset map near the labelled keypoints (L_reg of Eq. 4), or None."""
        if self.loss != "mse":
            return None
        size = tuple(offsets.shape[-2:])
        image, kind, cell, target = offset_targets(
            keypoints,
            image_index,
            num_images=len(offsets),
            size=size,
            stride=stride,
            radius=self.radius,
            rule=self.target_rule,
        )
        predicted = offsets.unflatten(1, (-1, 2)).flatten(3)[image, kind, :, cell]
        error = ((predicted - target) / stride).square()
        count = normalizer(error.numel(), error.device)
        return error.sum() / count

    def at_peaks(self, nets, offsets, cells):  # noqa: D102
        return offsets_at(offsets, nets.image_index, cells)


class InstanceOffsets(NoRefinement):
    """A generated 1x1 convolution per person gives its offsets (not shared, Table 5).

    Args:
        spec (KPNetSpec): of the KP-Nets; the convolution reads what they read.
        **heatmap: see :class:`NoRefinement`.
    """

    def __init__(self, *, spec, **heatmap):
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

    def keypoint_rows(self, number):  # noqa: D102
        # its outputs are x0, y0, x1, y1, ...
        outputs = of_generated(replace(self.conv_spec, num_keypoints=2 * number))
        return RefinementRows([(output // 2,) for (output,) in outputs], [], {})

    def losses(self, nets, offsets, keypoints, box_sizes):  # noqa: D102
        losses = super().losses(nets, offsets, keypoints, box_sizes)
        cells = keypoint_cells(keypoints, nets.stride, nets.size, self.target_rule)
        labelled = cells >= 0
        cells = cells.clamp(min=0)
        target = keypoints[..., :2] - cell_centers(cells, nets.stride, nets.size[1])
        error = (self.at_peaks(nets, offsets, cells) - target) / nets.stride
        error = torch.where(labelled[..., None], error, 0.0)
        return {**losses, "offset": error.square().mean(dim=2).sum(dim=1) / nets.spec.num_keypoints}

    def at_peaks(self, nets, offsets, cells):  # noqa: D102
        ((weight, bias),) = self.conv_spec.unpack(nets.refinement_params.float())
        weight = weight.unflatten(1, (-1, 2))
        # by sums in float32, where autocast would round a product of matrices
        values = (nets.cell_inputs(cells)[:, :, None] * weight).sum(dim=3) + bias.unflatten(1, (-1, 2))
        return values * nets.stride


class DeconvRefinement(NoRefinement):
    """Heatmaps up-sampled by a learned transposed convolution before the peak is taken ("deconv." in Table 4).

    One filter per keypoint, shared by all people, that starts as bilinear interpolation; the loss is over the
    up-sampled cells.

    Args:
        num_keypoints (int): K.
        factor (int): even divisor of F's stride.
        target_rule (str): unused, the finer cells are always the nearest ones.
    """

    def __init__(self, *, num_keypoints, factor=4, **heatmap):
        super().__init__(**{**heatmap, "heatmap_loss": "upsampled"})
        if factor % 2:
            raise ValueError(f"MODEL.FCPOSE.DECONV_FACTOR must be even, got {factor}")
        self.upsample_factor = factor
        self.values_per_cell = factor**2
        self.deconv = nn.ConvTranspose2d(
            num_keypoints, num_keypoints, 2 * factor, stride=factor, padding=factor // 2, groups=num_keypoints
        )
        tent = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
        self.deconv.weight.data.copy_(torch.outer(tent, tent).expand_as(self.deconv.weight))
        nn.init.zeros_(self.deconv.bias)

    def keypoint_rows(self, number):  # noqa: D102
        return RefinementRows([], [], {"deconv": of_each(number)})

    def map_cross_entropy(self, nets, logits, keypoints):  # noqa: D102
        logits = self.upsample(logits)
        targets = keypoint_cells(keypoints, nets.stride // self.upsample_factor, logits.shape[-2:])
        return upsampled_cross_entropy(logits, targets, factor=1, backend=nets.backend)

    def upsample(self, logits):
        """(N, K, H, W) -> (N, K, H * factor, W * factor)."""
        return self.deconv(logits)

    def locate(self, nets, offsets):  # noqa: D102
        (located,) = nets.map_in_chunks(self._locate_on_maps, values_per_cell=self.values_per_cell)
        return located

    def _locate_on_maps(self, nets):
        logits = self.upsample(nets.heatmaps())
        width = logits.shape[-1]
        logits = logits.flatten(2)
        values, indices = logits.max(dim=2)
        confidence = (values - logits.logsumexp(dim=2)).exp()
        points = cell_centers(indices, nets.stride // self.upsample_factor, width)
        return (torch.cat([points, confidence[..., None]], dim=2),)
