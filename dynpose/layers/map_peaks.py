"""The highest cells of heatmaps.

Axes: N instances, K keypoints, H x W cells.
"""

from torch import Tensor

from dynpose.utils.exporting import is_recording

__all__ = ["map_peaks", "map_peaks_in_plain_operators"]


def map_peaks(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the highest cell of every heatmap.

    Args:
        logits: (N, K, H, W).

    Returns:
        (N, K) each: its logit; its flat index v * W + u, int64, the lowest one of equal cells; and its probability
        under the softmax over the map.
    """
    if is_recording():
        return map_peaks_in_plain_operators(logits)
    logits = logits.flatten(2)
    values, cells = logits.max(dim=2)
    return values, cells, (values - logits.logsumexp(dim=2)).exp()


def map_peaks_in_plain_operators(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`map_peaks` for graphs.

    The softmax is one operator that subtracts the maximum: log-sum-exp overflows in some runtimes, and is slower in
    others.
    """
    width = logits.shape[3]
    # the highest row, then the column in it: the index of a maximum costs several times the maximum
    in_rows = logits.amax(dim=3)
    values, rows = in_rows.amax(dim=2), in_rows.argmax(dim=2)
    highest_rows = logits.gather(2, rows[:, :, None, None].expand(-1, -1, 1, width)).squeeze(2)
    cells = rows * width + highest_rows.argmax(dim=2)
    confidence = logits.flatten(2).softmax(dim=2).gather(2, cells[:, :, None]).squeeze(2)
    return values, cells, confidence
