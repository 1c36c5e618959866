"""Interactions of the keypoint decoder's queries with their RoIs: SPEGM and the alternatives of Table 1.

All are modules that take features (U, d, r, r) of the RoIs and queries (U, M, q), and return embeddings (U, M, q) or,
if all queries of a person share them, (U, 1, q).

Axes: U people (decoded queries), M parts, d channels of the features, q of the queries, r x r cells of a RoI.
"""

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn

from dynpose.utils.arguments import check_one_of
from dynpose.utils.intermediate import provide

from .box_decoder import DynamicInteraction

INTERACTIONS = ("spegm", "mhsa", "dynamic_channel", "dynamic_spatial", "spatial_attention")
NORMS = ("BN", "SyncBN", "FrozenBN")


def build_interaction(
    name: str,
    *,
    hidden_dim: int,
    query_dim: int,
    num_parts: int,
    resolution: int,
    num_heads: int,
    dynamic_dim: int,
    norm: str,
) -> nn.Module:
    """Build the interaction of a row of Table 1.

    Args:
        name (str): "spegm" = :class:`SpatialAttention` with a map per part (section 3.2); "spatial_attention" = the
            same with one map per person; "mhsa" = :class:`Attention`; "dynamic_channel" = :class:`DynamicChannelMLP`;
            "dynamic_spatial" = :class:`DynamicSpatialMLP`.
        hidden_dim (int): d.
        query_dim (int): q.
        num_parts (int): M.
        resolution (int): r.
        num_heads, dynamic_dim (int): for the interactions that have them.
        norm (str): see :class:`SpatialAttention`.

    Returns:
        nn.Module

    Raises:
        ValueError: if the name is unknown.
    """
    check_one_of("name", name, INTERACTIONS)
    if name in ("spegm", "spatial_attention"):
        return SpatialAttention(hidden_dim, query_dim, num_maps=num_parts if name == "spegm" else 1, norm=norm)
    if name == "mhsa":
        return Attention(hidden_dim, query_dim, num_heads=num_heads)
    if name == "dynamic_channel":
        return DynamicChannelMLP(hidden_dim, query_dim, dynamic_dim=dynamic_dim, resolution=resolution)
    return DynamicSpatialMLP(hidden_dim, query_dim, dynamic_dim=dynamic_dim, resolution=resolution)


class SpatialAttention(nn.Module):
    """SPEGM, the Spatial Part Embedding Generation Module, after its 3x3 convolutions (section 3.2).

    A deconvolution doubles the resolution; a convolution computes an attention map per part, normalised over space; a
    linear layer follows on the sum of the features weighted by each map.

    With d = 256, q = 128 and M = 7 it has 1,098,119 parameters, the paper's 1.1 M.

    Args:
        hidden_dim (int): d.
        query_dim (int): q.
        num_maps (int): M, or 1 for a global map.
        norm (str): normalisation of the deconvolution: "BN", "SyncBN" or "FrozenBN".

    Raises:
        ValueError: if ``norm`` is unknown.
    """

    def __init__(self, hidden_dim: int = 256, query_dim: int = 128, *, num_maps: int = 7, norm: str = "BN"):
        super().__init__()
        check_one_of("norm", norm, NORMS)
        self.upsample = nn.ConvTranspose2d(hidden_dim, hidden_dim, kernel_size=4, stride=2, padding=1, bias=False)
        self.norm = get_norm(norm, hidden_dim)
        self.attention = nn.Conv2d(hidden_dim, num_maps, kernel_size=3, padding=1)
        self.project = nn.Linear(hidden_dim, query_dim)

    def forward(self, features: Tensor, queries: Tensor | None = None) -> Tensor:
        """Compute the part embeddings E_P: (U, d, r, r) -> (U, M, q). The queries are not used."""
        upsampled = F.relu(normalize_rows(self.norm, self.upsample(features)))
        maps = self.maps(upsampled)
        provide(lambda: {"attention": maps})
        return self.project(maps.flatten(2) @ upsampled.flatten(2).transpose(1, 2))

    def maps(self, upsampled: Tensor) -> Tensor:
        """Compute the attention maps A: (U, d, 2 r, 2 r) -> (U, M, 2 r, 2 r); each sums to one."""
        return self.attention(upsampled).flatten(2).softmax(dim=2).unflatten(2, upsampled.shape[2:])


def normalize_rows(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a batch normalisation, also to a batch without rows.

    In training, a batch without rows has no statistics: the running statistics are used and not updated. With
    synchronised statistics, each process must take part in the synchronisation, even without rows; if no process has
    rows, the running statistics are restored.

    Args:
        norm (nn.Module): of ``get_norm``.
        x (Tensor): (U, d, H, W).

    Returns:
        Tensor: the same shape.
    """
    # the condition on the rows last: an exported graph, in eval mode, would fix their number
    if not norm.training or not isinstance(norm, nn.modules.batchnorm._BatchNorm) or x.shape[0]:
        return norm(x)
    if (
        isinstance(norm, nn.SyncBatchNorm)
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size(norm.process_group) > 1
    ):
        running_mean, running_var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        mean, var = running_mean.clone(), running_var.clone()
        normalized = norm(x)
        with torch.no_grad():
            # without rows the variance is NaN but the mean is 0, so only the variance shows it
            known = running_var.isfinite()
            running_mean.copy_(torch.where(known, running_mean, mean))
            running_var.copy_(torch.where(known, running_var, var))
        return normalized
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class Attention(nn.Module):
    """Multi-head self-attention over a person's queries and the cells of the RoI; the queries' outputs are used.

    Args:
        hidden_dim (int): d.
        query_dim (int): q.
        num_heads (int): heads.
    """

    def __init__(self, hidden_dim: int = 256, query_dim: int = 128, *, num_heads: int = 8):
        super().__init__()
        self.project = nn.Linear(hidden_dim, query_dim)
        self.attention = nn.MultiheadAttention(query_dim, num_heads, batch_first=True)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Compute the embeddings: (U, d, r, r), (U, M, q) -> (U, M, q)."""
        tokens = torch.cat([queries, self.project(features.flatten(2).transpose(1, 2))], dim=1)
        return self.attention(queries, tokens, tokens, need_weights=False)[0]


class DynamicChannelMLP(nn.Module):
    """The box decoder's dynamic MLP on channels, for any number of queries per RoI.

    Linear layers project from q to d channels and back if they differ.

    Args:
        hidden_dim (int): d.
        query_dim (int): q.
        dynamic_dim, resolution (int): see :class:`~dynpose.modeling.querypose.box_decoder.DynamicInteraction`.
    """

    def __init__(self, hidden_dim: int = 256, query_dim: int = 128, *, dynamic_dim: int = 64, resolution: int = 14):
        super().__init__()
        same = query_dim == hidden_dim
        self.expand = nn.Identity() if same else nn.Linear(query_dim, hidden_dim)
        self.interaction = DynamicInteraction(hidden_dim, dynamic_dim=dynamic_dim, resolution=resolution)
        self.reduce = nn.Identity() if same else nn.Linear(hidden_dim, query_dim)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Compute the embeddings: (U, d, r, r), (U, M, q) -> (U, M, q)."""
        learned = self.interaction(
            roi_features=features.repeat_interleave(queries.shape[1], dim=0),
            queries=self.expand(queries).flatten(0, 1),
        )
        return self.reduce(learned).unflatten(0, queries.shape[:2])


class DynamicSpatialMLP(nn.Module):
    """A dynamic spatial MLP: a query generates two layers that mix the cells, the same in every channel.

    Args:
        hidden_dim (int): d.
        query_dim (int): q.
        dynamic_dim (int): hidden size between the two layers.
        resolution (int): r.
    """

    def __init__(self, hidden_dim: int = 256, query_dim: int = 128, *, dynamic_dim: int = 64, resolution: int = 14):
        super().__init__()
        cells = resolution**2
        self.dynamic_dim = dynamic_dim
        self.dynamic_layer = nn.Linear(query_dim, 2 * cells * dynamic_dim)
        self.norm1 = nn.LayerNorm(dynamic_dim)
        self.norm2 = nn.LayerNorm(cells)
        self.out_layer = nn.Linear(hidden_dim * cells, query_dim)
        self.norm3 = nn.LayerNorm(query_dim)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Compute the embeddings: (U, d, r, r), (U, M, q) -> (U, M, q)."""
        first, second = self.dynamic_layer(queries).chunk(2, dim=2)
        channels = features.flatten(2)[:, None]
        channels = F.relu(self.norm1(channels @ first.unflatten(2, (-1, self.dynamic_dim))))
        channels = F.relu(self.norm2(channels @ second.unflatten(2, (self.dynamic_dim, -1))))
        return F.relu(self.norm3(self.out_layer(channels.flatten(2))))
