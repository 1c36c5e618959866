"""QueryPose's keypoint decoder: from a person's RoI to part-level queries and keypoints (sections 3.1 to 3.3).

Axes: R queries of a batch, U of them whose keypoints are decoded, M parts, K keypoints, d channels of features and
instance queries, d_p of part queries, r x r cells of a RoI.
Keypoints are relative to the box: from its centre, in units of its width and height, so that the box spans -0.5..0.5.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from dynpose.config import blame, check_at_least_one, check_choice, check_from_0_to_1, check_not_negative
from dynpose.modeling.parameter_rows import Owners, layer_rows
from dynpose.utils.arguments import check_one_of
from dynpose.utils.exporting import without_autocast

from .box_decoder import DynamicInteraction, FeedForward
from .interactions import INTERACTIONS, NORMS, build_interaction

_QUERIES = ("part", "instance")
_INTERACTIONS = (*INTERACTIONS, "pool")
_ITERATIONS = ("none", "sum", "concat", "selective")


class KeypointPrediction(NamedTuple):
    """A stage's predictions for U people.

    Attributes:
        keypoints (Tensor): (U, K, 2) float32, relative to the box; they may be outside it.
        sigmas (Tensor): (U, K, 2) float32 in (0, 1), their uncertainty in the same unit.
        part_queries (Tensor | None): (U, M, d_p) for the next stage; None for a model without.
    """

    keypoints: Tensor
    sigmas: Tensor
    part_queries: Tensor | None


class KeypointStage(nn.Module):
    """One stage of the keypoint decoder, in two steps.

    :meth:`update_instances` runs the 3x3 convolutions and, in the full version, updates the instance queries from their
    RoIs; :meth:`decode` runs the rest, only for the queries whose keypoints are needed.

    As in the release, but not in Eq. 2, a linear layer of the instance query, one per part, is added to the part
    embeddings.

    With ``query`` "instance", one head regresses all keypoints from the instance query itself (Table 1). With
    ``interaction`` "pool" there are no queries, and the input of the heads is the mean of the features (the baseline of
    Table 2b).

    Parameters per stage with the defaults and 7 parts: 11,799,296 in the convolutions, 1,098,119 in SPEGM, 21,267,840
    in the dynamic MLP (the paper's "1.1M" and "over 10M") and 1,051,904 in the FFN and the layer norms after it.

    Args:
        parts (Sequence[Sequence[int]]): the keypoint indices of each of the M parts; each keypoint is in one part, see
            :func:`~dynpose.modeling.querypose.parts.divide_into_parts`.
        hidden_dim (int): d.
        part_dim (int): d_p (Table 2c).
        dynamic_mlp (bool): the full version; without it the released light one.
        num_convs (int): initial 3x3 convolutions.
        conv_dim (int): their channels, except for the last, which has d.
        resolution (int): r.
        dynamic_dim (int): hidden channels of dynamic MLPs.
        num_heads (int): attention heads.
        feedforward_dim, part_feedforward_dim (int): hidden channels of the FFNs of the instance queries and of the part
            queries.
        dropout (float): rate in training.
        query (str): "part" or "instance" (Table 1).
        interaction (str): see :func:`~dynpose.modeling.querypose.interactions.build_interaction`; or "pool".
        iteration (str): how embeddings update part queries (Table 2a): "none" = they are added to the learned queries,
            from which the next stage starts again; "sum" = they are added to the previous stage's queries; "concat" = a
            linear layer of both; "selective" = :class:`SelectiveIteration`.
        norm (str): normalisation of SPEGM's deconvolution: "BN", "SyncBN" or "FrozenBN".

    Raises:
        ValueError: if an argument is not a valid choice or excluded by another, or d_p is not a multiple of
            ``num_heads``.
    """

    @configurable
    def __init__(
        self,
        *,
        parts: Sequence[Sequence[int]],
        hidden_dim: int = 256,
        part_dim: int = 128,
        dynamic_mlp: bool = True,
        num_convs: int = 6,
        conv_dim: int = 512,
        resolution: int = 14,
        dynamic_dim: int = 64,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        part_feedforward_dim: int = 2048,
        dropout: float = 0.0,
        query: str = "part",
        interaction: str = "spegm",
        iteration: str = "selective",
        norm: str = "BN",
    ):
        super().__init__()
        check_one_of("query", query, _QUERIES)
        check_one_of("interaction", interaction, _INTERACTIONS)
        check_one_of("iteration", iteration, _ITERATIONS)
        _check_iteration(iteration, query)
        _check_interaction(interaction, query)
        if query == "instance":
            # one query and one head for all keypoints
            parts, part_dim = [tuple(range(sum(map(len, parts))))], hidden_dim
        _check_part_dim(part_dim, num_heads)
        num_parts = len(parts)
        self.parts = tuple(map(tuple, parts))
        self.part_query_shape = (num_parts, part_dim) if query == "part" else None
        self.convs = _convs(hidden_dim, conv_dim, num_convs)
        self.dynamic_mlp = dynamic_mlp
        self.dropout = nn.Dropout(dropout)
        if dynamic_mlp:
            self.instance_interaction = DynamicInteraction(hidden_dim, dynamic_dim=dynamic_dim, resolution=resolution)
            self.instance_norm = nn.LayerNorm(hidden_dim)
            self.instance_ffn = FeedForward(hidden_dim, feedforward_dim, dropout)

        self.pools = interaction == "pool"
        self.attends_by_part = interaction == "spegm"
        if not self.pools:
            self.interaction = build_interaction(
                interaction,
                hidden_dim=hidden_dim,
                query_dim=part_dim,
                num_parts=num_parts,
                resolution=resolution,
                num_heads=num_heads,
                dynamic_dim=dynamic_dim,
                norm=norm,
            )
            self.iterates = iteration != "none"
            self.iteration = {"concat": ConcatIteration, "selective": SelectiveIteration}.get(iteration, SumIteration)(
                part_dim
            )
            self.part_attention = nn.MultiheadAttention(part_dim, num_heads, dropout=dropout, batch_first=True)
            self.part_norm = nn.LayerNorm(part_dim)
            self.part_ffn = FeedForward(part_dim, part_feedforward_dim, dropout)
        if query == "part":
            self.instance_residuals = nn.ModuleList(nn.Linear(hidden_dim, part_dim) for _ in parts)
        self.coord_heads = nn.ModuleList(nn.Linear(part_dim, 2 * len(part)) for part in parts)
        self.sigma_heads = nn.ModuleList(nn.Linear(part_dim, 2 * len(part)) for part in parts)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

        part_of = [index for index, part in enumerate(parts) for _ in part]
        # keypoint k is output order[k] of the heads, and belongs to part part_of[k]
        order = torch.tensor(list(chain(*parts))).argsort()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("part_of", torch.tensor(part_of)[order], persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, parts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.QUERYPOSE.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or excluded by another.
        """
        querypose = cfg.MODEL.QUERYPOSE
        _check_config(cfg)
        return {
            "parts": parts,
            "hidden_dim": querypose.HIDDEN_DIM,
            "part_dim": querypose.PART_DIM,
            "dynamic_mlp": querypose.DYNAMIC_MLP,
            "num_convs": querypose.NUM_KEYPOINT_CONVS,
            "conv_dim": querypose.KEYPOINT_CONV_DIM,
            "resolution": querypose.KEYPOINT_POOLER_RESOLUTION,
            "dynamic_dim": querypose.DYNAMIC_DIM,
            "num_heads": querypose.NUM_HEADS,
            "feedforward_dim": querypose.FEEDFORWARD_DIM,
            "part_feedforward_dim": querypose.PART_FEEDFORWARD_DIM,
            "dropout": querypose.DROPOUT,
            "query": querypose.QUERY,
            "interaction": querypose.INTERACTION,
            "iteration": querypose.ITERATION,
            "norm": querypose.KEYPOINT_NORM,
        }

    def keypoint_rows(self, parts: Sequence[tuple[int, ...]]) -> list[dict[str, Owners]]:
        """Map parameter rows to parts or keypoints.

        Args:
            parts (Sequence[tuple[int]]): as in the constructor, of this stage or of one with other keypoints.

        Returns:
            list[dict]: groups of :mod:`dynpose.modeling.parameter_rows`.
        """
        groups = []
        for name in ("coord_heads", "sigma_heads"):
            of_parts: list[Owners] = [[(keypoint,) for keypoint in part for _ in range(2)] for part in parts]
            groups += layer_rows({f"{name}.{index}": owners for index, owners in enumerate(of_parts)})
        if self.attends_by_part:
            groups += layer_rows({"interaction.attention": list(parts)})
        if self.part_query_shape is not None:
            dim = self.part_query_shape[1]
            groups += layer_rows({f"instance_residuals.{index}": [part] * dim for index, part in enumerate(parts)})
        return groups

    def update_instances(self, roi_features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Update instance queries from their RoIs (Figure 3b).

        Args:
            roi_features (Tensor): (R, d, r, r).
            queries (Tensor): (R, d).

        Returns:
            tuple[Tensor, Tensor]: (R, d, r, r), the features after the convolutions, for :meth:`decode`; and the
            queries (R, d), unchanged without a dynamic MLP.
        """
        features = self.convs(roi_features)
        if self.dynamic_mlp:
            learned = self.instance_interaction(roi_features=features, queries=queries)
            queries = self.instance_ffn(self.instance_norm(queries + self.dropout(learned)))
        return features, queries

    def decode(self, features: Tensor, queries: Tensor, part_queries: Tensor | None = None) -> KeypointPrediction:
        """Regress keypoints.

        Args:
            features (Tensor): (U, d, r, r), rows of the result of :meth:`update_instances`.
            queries (Tensor): (U, d), the same rows of its queries.
            part_queries (Tensor | None): (U, M, d_p), from the previous stage, or the learned ones; unused, and None,
                if ``part_query_shape`` is None.

        Returns:
            KeypointPrediction
        """
        if self.pools:
            return KeypointPrediction(*self.regress(features.mean(dim=(2, 3))[:, None]), None)
        if self.part_query_shape is None:
            embeddings = self.interaction(features, queries[:, None])
            updated = self.relate_parts(self.iteration(embeddings, queries[:, None]))
            return KeypointPrediction(*self.regress(updated), None)
        embeddings = self.interaction(features, part_queries) + self.instance_residual(queries)
        updated = self.relate_parts(self.iteration(embeddings, part_queries))
        return KeypointPrediction(*self.regress(updated), updated if self.iterates else part_queries)

    def instance_residual(self, queries: Tensor) -> Tensor:
        """Compute the instance query's contribution to each part embedding: (U, d) -> (U, M, d_p)."""
        return F.linear(queries, *_joined(self.instance_residuals)).unflatten(1, self.part_query_shape)

    def relate_parts(self, part_queries: Tensor) -> Tensor:
        """Attention across the parts of a person, and the FFN: (U, M, d_p) -> (U, M, d_p)."""
        attended, _ = self.part_attention(part_queries, part_queries, part_queries, need_weights=False)
        return self.part_ffn(self.part_norm(part_queries + self.dropout(attended)))

    def regress(self, part_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Regress each part's keypoints with separate linear layers.

        As in the release, the query is divided by its norm before the layer of the coordinates.

        Args:
            part_queries (Tensor): (U, M, d_p).

        Returns:
            tuple[Tensor, Tensor]: keypoints and sigmas, (U, K, 2) float32, in the order of the schema.
        """
        # bfloat16 has 8 bits for a coordinate: two pixels for a box of 500 pixels
        with without_autocast(part_queries.device):
            part_queries = part_queries.float()
            keypoints = self._regress(self.coord_heads, F.normalize(part_queries, dim=2))
            return keypoints, self._regress(self.sigma_heads, part_queries).sigmoid()

    def _regress(self, heads, part_queries):
        weight, bias = _joined(heads)
        # all heads at once, for any number of parts: (K, 2, d_p) and (K, 2)
        weight = weight.unflatten(0, (-1, 2))[self.order]
        bias = bias.unflatten(0, (-1, 2))[self.order]
        return torch.einsum("ukc,kxc->ukx", part_queries[:, self.part_of], weight) + bias


class SelectiveIteration(nn.Module):
    """SIM, the Selective Iteration Module: two gates weight new embeddings and old queries (section 3.3, Eq. 3).

    Args:
        dim (int): d_p; the hidden layer has a quarter of it.
    """

    def __init__(self, dim: int = 128):
        super().__init__()
        self.fc1 = nn.Linear(dim, dim // 4, bias=False)
        self.norm = nn.LayerNorm(dim // 4)
        self.fc2 = nn.Linear(dim // 4, 2 * dim)

    def forward(self, embeddings: Tensor, queries: Tensor) -> Tensor:
        """Update the queries: E_P and Q_P (U, M, d_p) -> Q_P (U, M, d_p)."""
        gates = self.fc2(F.relu(self.norm(self.fc1(embeddings + queries)))).sigmoid()
        embedding_gate, query_gate = gates.chunk(2, dim=2)
        return embedding_gate * embeddings + query_gate * queries


class ConcatIteration(nn.Module):
    """Concatenation (Table 2a): a linear layer of the new embeddings and the old queries.

    Args:
        dim (int): d_p.
    """

    def __init__(self, dim: int = 128):
        super().__init__()
        self.fc = nn.Linear(2 * dim, dim)

    def forward(self, embeddings: Tensor, queries: Tensor) -> Tensor:
        """Update the queries: E_P and Q_P (U, M, d_p) -> Q_P (U, M, d_p)."""
        return self.fc(torch.cat([embeddings, queries], dim=2))


class SumIteration(nn.Module):
    """Summation (Table 2a).

    Args:
        dim (int): d_p.
    """

    def __init__(self, dim: int = 128):
        super().__init__()

    def forward(self, embeddings: Tensor, queries: Tensor) -> Tensor:
        """Update the queries: E_P and Q_P (U, M, d_p) -> Q_P (U, M, d_p)."""
        return embeddings + queries


def _convs(dim, conv_dim, num_convs):
    """3x3 convolutions with ReLU, from dim channels over conv_dim to dim."""
    layers = []
    for index in range(num_convs):
        in_dim, out_dim = dim if index == 0 else conv_dim, dim if index == num_convs - 1 else conv_dim
        layers += [nn.Conv2d(in_dim, out_dim, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _joined(linears):
    """Concatenate the weights and biases of linear layers, as in one layer."""
    return torch.cat([linear.weight for linear in linears]), torch.cat([linear.bias for linear in linears])


def _check_iteration(iteration, query):
    if query == "instance" and iteration != "none":
        raise ValueError(
            f"iteration: expected 'none' with query 'instance', without part queries to iterate, got {iteration!r}"
        )


def _check_interaction(interaction, query):
    if interaction == "pool" and query != "instance":
        raise ValueError(
            f"interaction: 'pool' regresses all keypoints from the features and needs query 'instance', got {query!r}"
        )


def _check_part_dim(part_dim, num_heads):
    if part_dim % num_heads:
        raise ValueError(f"part_dim: expected a multiple of num_heads, {num_heads}, got {part_dim}")


def _check_config(cfg):
    """Validate the config before training starts."""
    querypose, key = cfg.MODEL.QUERYPOSE, "MODEL.QUERYPOSE.{}".format
    dims = ("HIDDEN_DIM", "PART_DIM", "KEYPOINT_CONV_DIM", "DYNAMIC_DIM", "FEEDFORWARD_DIM", "PART_FEEDFORWARD_DIM")
    check_at_least_one(cfg, *map(key, (*dims, "NUM_HEADS", "KEYPOINT_POOLER_RESOLUTION")))
    check_not_negative(cfg, key("NUM_KEYPOINT_CONVS"))
    check_from_0_to_1(cfg, key("DROPOUT"))
    check_choice(cfg, key("QUERY"), _QUERIES)
    check_choice(cfg, key("INTERACTION"), _INTERACTIONS)
    check_choice(cfg, key("ITERATION"), _ITERATIONS)
    check_choice(cfg, key("KEYPOINT_NORM"), NORMS)
    with blame(key("ITERATION"), key("QUERY")):
        _check_iteration(querypose.ITERATION, querypose.QUERY)
    with blame(key("INTERACTION"), key("QUERY")):
        _check_interaction(querypose.INTERACTION, querypose.QUERY)
    if querypose.QUERY == "part":
        with blame(key("PART_DIM"), key("NUM_HEADS")):
            _check_part_dim(querypose.PART_DIM, querypose.NUM_HEADS)
