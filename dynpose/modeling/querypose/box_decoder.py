"""QueryPose's box decoder: the stage of Sparse R-CNN (section 3.1, Eq. 1).

Axes: B images, N queries per image, R = B N queries of a batch, C = d channels of features and queries, r x r cells of
a RoI.
Boxes are continuous pixels of the network's input, (x0, y0, x1, y1).
"""

import math

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from dynpose.config import blame, check_at_least_one, check_between_0_and_1, check_from_0_to_1, check_not_negative
from dynpose.utils.exporting import without_autocast

# A delta of this value moves the centre by a whole box
_CENTER_WEIGHT = 2.0

# Logarithm of the maximum factor by which one stage enlarges a box
_MAX_LOG_SCALE = math.log(100000.0 / 16)

# Minimum side of boxes; maximum side and distance of the centre from the origin, pixels. A stage refines the previous
# one's boxes, so that without limits six stages reach areas that overflow float32, and sides of zero
_MIN_SIDE, _MAX_EXTENT = 1e-2, 1e5


class DynamicInteraction(nn.Module):
    """The dynamic channel MLP (DyMLP_channel in Eq. 1): a query generates two layers that run over its RoI.

    The layers are 1x1 convolutions from ``hidden_dim`` to ``dynamic_dim`` channels and back; a linear layer of all
    cells' outputs gives the update of the query. (It accounts for the paper's "over 10 M" parameters: with RoIs of 7x7
    there are 11.6 M, with 14x14 21.3 M.)

    Args:
        hidden_dim (int): d, channels of queries and features.
        dynamic_dim (int): channels between the two layers.
        resolution (int): r.
    """

    def __init__(self, hidden_dim: int = 256, *, dynamic_dim: int = 64, resolution: int = 7):
        super().__init__()
        self.dynamic_dim = dynamic_dim
        self.dynamic_layer = nn.Linear(hidden_dim, 2 * hidden_dim * dynamic_dim)
        self.norm1 = nn.LayerNorm(dynamic_dim)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.out_layer = nn.Linear(hidden_dim * resolution**2, hidden_dim)
        self.norm3 = nn.LayerNorm(hidden_dim)

    def forward(self, roi_features: Tensor, queries: Tensor) -> Tensor:
        """Compute the updates of queries from their RoIs.

        Args:
            roi_features (Tensor): (R, d, r, r).
            queries (Tensor): (R, d).

        Returns:
            Tensor: (R, d), to be added to the queries.
        """
        first, second = self.dynamic_layer(queries).chunk(2, dim=1)
        cells = roi_features.flatten(2).transpose(1, 2)
        cells = F.relu(self.norm1(cells @ first.unflatten(1, (-1, self.dynamic_dim))))
        cells = F.relu(self.norm2(cells @ second.unflatten(1, (self.dynamic_dim, -1))))
        return F.relu(self.norm3(self.out_layer(cells.flatten(1))))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, a residual connection and a layer norm.

    Args:
        dim (int): channels.
        feedforward_dim (int): hidden channels.
        dropout (float): rate in training.
    """

    def __init__(self, dim: int, feedforward_dim: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.norm(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class BoxStage(nn.Module):
    """One stage of the box decoder: attention across the queries of an image, dynamic MLP, FFN, class and box.

    Args:
        hidden_dim (int): d.
        num_classes (int): logits per query.
        num_heads (int): attention heads.
        feedforward_dim (int): hidden channels of the FFN.
        dropout (float): rate in training.
        dynamic_dim, resolution (int): see :class:`DynamicInteraction`.
        num_cls_layers, num_reg_layers (int): linear layers before the logits' layer and the box's layer.
        prior_prob (float): initial class probability that sets the bias of the logits.

    Raises:
        ValueError: if ``hidden_dim`` is not divisible by ``num_heads``, or ``prior_prob`` is not a probability.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        *,
        num_classes: int = 1,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        dropout: float = 0.0,
        dynamic_dim: int = 64,
        resolution: int = 7,
        num_cls_layers: int = 1,
        num_reg_layers: int = 3,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim: expected a multiple of num_heads, {num_heads}, got {hidden_dim}")
        if not 0 < prior_prob < 1:
            raise ValueError(f"prior_prob: expected a number between 0 and 1, got {prior_prob}")
        self.self_attn = nn.MultiheadAttention(hidden_dim, num_heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.interaction = DynamicInteraction(hidden_dim, dynamic_dim=dynamic_dim, resolution=resolution)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.ffn = FeedForward(hidden_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)
        self.cls_layers = _tower(hidden_dim, num_cls_layers)
        self.reg_layers = _tower(hidden_dim, num_reg_layers)
        self.class_logits = nn.Linear(hidden_dim, num_classes)
        self.box_deltas = nn.Linear(hidden_dim, 4)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.class_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "BoxStage":
        """Build from ``cfg.MODEL.QUERYPOSE``.

        Raises:
            ConfigError: if a value is out of range.
        """
        querypose, key = cfg.MODEL.QUERYPOSE, "MODEL.QUERYPOSE.{}".format
        dims = ("NUM_CLASSES", "HIDDEN_DIM", "NUM_HEADS", "FEEDFORWARD_DIM", "DYNAMIC_DIM", "POOLER_RESOLUTION")
        check_at_least_one(cfg, *map(key, dims))
        check_not_negative(cfg, key("NUM_CLS_LAYERS"), key("NUM_REG_LAYERS"))
        check_from_0_to_1(cfg, key("DROPOUT"))
        check_between_0_and_1(cfg, key("PRIOR_PROB"))
        with blame(key("HIDDEN_DIM"), key("NUM_HEADS")):
            return cls(
                querypose.HIDDEN_DIM,
                num_classes=querypose.NUM_CLASSES,
                num_heads=querypose.NUM_HEADS,
                feedforward_dim=querypose.FEEDFORWARD_DIM,
                dropout=querypose.DROPOUT,
                dynamic_dim=querypose.DYNAMIC_DIM,
                resolution=querypose.POOLER_RESOLUTION,
                num_cls_layers=querypose.NUM_CLS_LAYERS,
                num_reg_layers=querypose.NUM_REG_LAYERS,
                prior_prob=querypose.PRIOR_PROB,
            )

    def forward(self, roi_features: Tensor, boxes: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Refine the boxes.

        Args:
            roi_features (Tensor): (B N, d, r, r) of the boxes.
            boxes (Tensor): (B, N, 4).
            queries (Tensor): (B, N, d).

        Returns:
            tuple[Tensor, Tensor, Tensor]: logits (B, N, num_classes) and boxes (B, N, 4), both float32, and the queries
            (B, N, d).
        """
        attended, _ = self.self_attn(queries, queries, queries, need_weights=False)
        queries = self.norm1(queries + self.dropout(attended))
        learned = self.interaction(roi_features, queries.flatten(0, 1)).unflatten(0, queries.shape[:2])
        queries = self.ffn(self.norm2(queries + self.dropout(learned)))
        cls_features, reg_features = self.cls_layers(queries), self.reg_layers(queries)
        # bfloat16 has 8 bits for a delta: half a pixel for a box of 500 pixels
        with without_autocast(queries.device):
            logits = self.class_logits(cls_features.float())
            return logits, apply_box_deltas(self.box_deltas(reg_features.float()), boxes), queries


def _tower(dim, num_layers):
    """Linear layers, each with a layer norm and a ReLU."""
    layers = []
    for _ in range(num_layers):
        layers += [nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU()]
    return nn.Sequential(*layers)


def apply_box_deltas(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Move and scale boxes, in float32 for any dtype of the deltas.

    Args:
        deltas (Tensor): (..., 4): 2 dx / w, 2 dy / h, log(w' / w), log(h' / h).
        boxes (Tensor): (..., 4), x0 < x1 and y0 < y1.

    Returns:
        Tensor: (..., 4) boxes with positive width and height, finite if the deltas are.
    """
    deltas, boxes = deltas.float(), boxes.float()
    sizes = boxes[..., 2:] - boxes[..., :2]
    centers = boxes[..., :2] + 0.5 * sizes + deltas[..., :2] / _CENTER_WEIGHT * sizes
    return boxes_from_centers(centers, sizes * deltas[..., 2:].clamp(max=_MAX_LOG_SCALE).exp())


def boxes_from_centers(centers: Tensor, sizes: Tensor) -> Tensor:
    """Convert boxes from centres and sizes to corners.

    Args:
        centers (Tensor): (..., 2) x and y.
        sizes (Tensor): (..., 2) width and height, clamped to at least a hundredth of a pixel.

    Returns:
        Tensor: (..., 4) x0, y0, x1, y1; within limits that keep areas and quotients finite, so that x0 < x1, y0 < y1.
    """
    centers = centers.clamp(-_MAX_EXTENT, _MAX_EXTENT)
    half = 0.5 * sizes.clamp(_MIN_SIDE, _MAX_EXTENT)
    return torch.cat([centers - half, centers + half], dim=-1)
