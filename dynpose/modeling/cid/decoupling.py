"""Global Feature Decoupling: a person's heatmaps from the feature map of the image (section 3.3).

Axes: B images, N people, K keypoints, C_in channels of the backbone's map F, C channels of F-hat, H x W cells.
Coordinates are cells of the map: (u, v) is column u of row v.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynpose.utils.arguments import check_one_of
from dynpose.utils.exporting import is_recording, without_autocast
from dynpose.utils.intermediate import provide

from .abstraction import People, init_heatmaps, to_probability

RECALIBRATIONS = ("spatial", "channel")
CHANNEL_WEIGHTS = ("linear", "feature")


class SharedMaps(NamedTuple):
    """The maps that all people of an image share.

    Attributes:
        reduced (Tensor): F-hat and a map of ones, (B, C + 1, H, W).
        own (Tensor): (B, 1, H, W) float32, 1 in the cells that are not padding.
        masks (Tensor | None): (B, C + 3, H W) float32, the maps whose weighted sum is the logits of a person's mask:
            the convolution of Eq. 10 of each channel of F-hat, of the ones that x and y of the person multiply, and of
            what remains. None with gradients, where these maps cost more than they save, and without spatial
            recalibration.
        spatial (Tensor | None): (B, C, H W), F-hat after the part of the convolution of Eq. 12 that applies to F_s;
            None without spatial recalibration.
    """

    reduced: Tensor
    own: Tensor
    masks: Tensor | None
    spatial: Tensor | None


class FeatureDecoupling(nn.Module):
    """GFD: recalibrates the map F-hat for each person, spatially and by channel, and predicts the heatmaps from it.

    With ``channel_weights`` "linear" (release), a person's C channel weights of F-hat are a linear layer of f, one for
    Eq. 11 and another for the inner product of Eq. 10. With "feature" (paper), f itself is used in Eq. 10 and 11. They
    need f with as many channels as F-hat, so f is then read from F-hat: its 1x1 convolution is applied to f of Eq. 7.
    This adds no parameters, and the contrastive loss still uses f of Eq. 7.

    Args:
        in_channels (int): C_in.
        num_keypoints (int): K.
        channels (int): C (Table 2).
        recalibration (Sequence[str]): "spatial" (Eq. 9 and 10), "channel" (Eq. 11) or both (Table 1).
        channel_weights (str): "linear" or "feature".
        coord_scale (float): divisor of the relative coordinates, cells.
        prior_prob (float): initial probability of the heatmaps.
        init_std (float): standard deviation of the initial weights of all layers but the last, with zero bias; 0 =
            PyTorch's initialisation.

    Raises:
        ValueError: if an argument is not a valid choice.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        channels: int = 32,
        recalibration: Sequence[str] = ("spatial", "channel"),
        channel_weights: str = "linear",
        coord_scale: float = 32.0,
        prior_prob: float = 0.01,
        init_std: float = 0.001,
    ):
        super().__init__()
        if not recalibration or not set(recalibration) <= set(RECALIBRATIONS):
            raise ValueError(f"recalibration: expected 'spatial', 'channel' or both, got {list(recalibration)}")
        check_one_of("channel_weights", channel_weights, CHANNEL_WEIGHTS)
        linear = channel_weights == "linear"
        self.spatial, self.channel = "spatial" in recalibration, "channel" in recalibration
        self.coord_scale = coord_scale
        self.reduce = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.channel_weights = nn.Linear(in_channels, channels) if self.channel and linear else None
        self.similarity_weights = nn.Linear(in_channels, channels) if self.spatial and linear else None
        # input: the similarity and the relative coordinates (x, y)
        self.mask = nn.Conv2d(3, 1, kernel_size=5, padding=2) if self.spatial else None
        # input: F_c, then F_s, if both are used
        self.fuse = nn.Conv2d(channels * (self.channel + self.spatial), channels, kernel_size=1)
        self.heatmaps = nn.Conv2d(channels, num_keypoints, kernel_size=1)
        if init_std:
            self._init_weights(init_std)
        init_heatmaps(self.heatmaps, prior_prob)

    def _init_weights(self, std):
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, people: People, own: Tensor) -> Tensor:
        """Compute the heatmaps of N people.

        Args:
            features (Tensor): F, (B, C_in, H, W).
            people (People): N.
            own (Tensor): (B, H, W) bool, the cells that are not padding.

        Returns:
            Tensor: (N, K, H, W) float32 in (0, 1).
        """
        return self.decouple(self.prepare(features, own), people)

    def prepare(self, features: Tensor, own: Tensor) -> SharedMaps:
        """Compute the maps that all people of an image share.

        Args:
            features (Tensor): F, (B, C_in, H, W).
            own (Tensor): (B, H, W) bool, the cells that are not padding.

        Returns:
            SharedMaps
        """
        reduced = self.reduce(features)
        with_ones = F.pad(reduced, (0, 0, 0, 0, 0, 1), value=1.0)
        is_own, masks, spatial = own[:, None].float(), None, None
        if self.spatial:
            spatial = F.conv2d(reduced, self.fuse.weight[:, -reduced.shape[1] :]).flatten(2)
        if self.spatial and not torch.is_grad_enabled():
            masks = self._mask_maps(reduced.float(), is_own)
        return SharedMaps(with_ones, is_own, masks, spatial)

    def decouple(self, shared: SharedMaps, people: People) -> Tensor:
        """Compute the heatmaps of N people, like :meth:`forward`, from the ``shared`` maps of :meth:`prepare`."""
        features = self.instance_features(shared, people)
        heatmaps = to_probability(self.heatmaps(features))
        provide(lambda: self._intermediates(shared, people, features, heatmaps))
        return heatmaps

    def instance_features(self, shared: SharedMaps, people: People) -> Tensor:
        """Compute the instance-aware feature maps (Eq. 12).

        A 1x1 convolution of F_c = F-hat x weights equals one of F-hat with other parameters, and one of F_s = M F-hat
        equals M times one of F-hat, which all people of an image share. F_c and F_s are therefore never computed.

        Args:
            shared (SharedMaps): of :meth:`prepare`.
            people (People): N.

        Returns:
            Tensor: (N, C, H, W).
        """
        size = shared.reduced.shape[-2:]
        assert self.fuse.bias is not None
        # the bias is the parameter of the map of ones
        bias = self.fuse.bias[:, None].expand(people.cells.shape[0], -1, -1)
        if self.channel:
            weights = self._weights(self.channel_weights, people)
            params = torch.cat([self.fuse.weight[:, : weights.shape[1], 0, 0] * weights[:, None], bias], dim=2)
            fused = params @ _of_people(shared.reduced.flatten(2), people)
        else:
            fused = bias
        if shared.spatial is not None:
            fused = torch.addcmul(fused, self.masks(shared, people).flatten(2), _of_people(shared.spatial, people))
        return fused.relu_().unflatten(2, size)

    def masks(self, shared: SharedMaps, people: People) -> Tensor:
        """Compute the people's foreground masks M (Eq. 10): arguments as above -> (N, 1, H, W) in [0, 1]."""
        return self.mask_logits(shared, people).sigmoid()

    def mask_logits(self, shared: SharedMaps, people: People) -> Tensor:
        """Compute the masks before the sigmoid; the 5x5 convolution's input is zero in the padding.

        The convolution is linear: that of an inner product with F-hat is the inner product with the convolutions of
        F-hat's channels, and that of a relative coordinate x - u is x times one of ones, minus one of u. People differ
        only in the weights of these maps, which they share.
        """
        assert self.mask is not None, "without spatial recalibration there are no masks"
        weights = self._weights(self.similarity_weights, people)
        if shared.masks is None:
            return self.mask(self._mask_inputs(weights, shared, people))
        weights = torch.cat([weights.float(), people.cells / self.coord_scale, torch.ones_like(weights[:, :1])], dim=1)
        # half precision can't represent the difference of two coordinates of a large map
        with without_autocast(weights.device):
            logits = weights[:, None] @ _of_people(shared.masks, people)
        return logits.unflatten(2, shared.own.shape[-2:])

    def _intermediates(self, shared, people, features, heatmaps):
        """The recalibrations and maps of N people, see :mod:`dynpose.modeling.cid.figures`."""
        values = {"instance_features": features, "heatmaps": heatmaps}
        if self.spatial:
            values["masks"] = self.masks(shared, people)[:, 0]
        if self.channel:
            values["channel_weights"] = self._weights(self.channel_weights, people)
        return values

    def _mask_inputs(self, weights, shared, people):
        """Similarity and relative coordinates (N, 3, H, W), Eq. 9."""
        reduced, (height, width) = shared.reduced[:, :-1].flatten(2), shared.own.shape[-2:]
        similarity = (weights[:, None] @ _of_people(reduced, people)).unflatten(2, (height, width))
        # subtract as integers: half precision cannot represent the cell indices of a large map
        x, y = people.cells[:, :, None, None].unbind(dim=1)
        columns = torch.arange(width, device=x.device)
        rows = torch.arange(height, device=x.device)[:, None]
        coords = [(difference / self.coord_scale).to(similarity.dtype) for difference in (x - columns, y - rows)]
        inputs = torch.stack([similarity[:, 0], *(values.expand_as(similarity[:, 0]) for values in coords)], dim=1)
        return inputs * _of_people(shared.own, people).to(inputs.dtype)

    def _mask_maps(self, reduced, own):
        """Maps (B, C + 3, H W) of :class:`SharedMaps` from F-hat (B, C, H, W) and own cells (B, 1, H, W)."""
        assert self.mask is not None
        assert self.mask.bias is not None
        of_similarity, of_x, of_y = self.mask.weight.float().split(1, dim=1)
        columns = torch.arange(reduced.shape[3], device=own.device) / self.coord_scale
        rows = torch.arange(reduced.shape[2], device=own.device)[:, None] / self.coord_scale
        convolve = partial(F.conv2d, padding=self.mask.kernel_size[0] // 2)
        with without_autocast(own.device):
            similarities = convolve((reduced * own).flatten(0, 1)[:, None], of_similarity)
            rest = convolve(own * columns, of_x) + convolve(own * rows, of_y)
            ones = [convolve(own, of_x), convolve(own, of_y)]
        similarities = similarities.unflatten(0, reduced.shape[:2])[:, :, 0]
        return torch.cat([similarities, *ones, self.mask.bias.float()[:, None, None] - rest], dim=1).flatten(2)

    def _weights(self, linear, people):
        """Channel weights (N, C) of F-hat."""
        if linear is not None:
            return linear(people.features)
        return F.linear(people.features, self.reduce.weight.flatten(1), self.reduce.bias)


def _of_people(maps, people):
    """(B, ...) -> (N, ...), or without that axis for a single image, to avoid a copy."""
    return maps[0] if not is_recording() and len(maps) == 1 else maps[people.image_index]
