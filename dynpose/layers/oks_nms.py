"""Object keypoint similarity (OKS) between poses, OKS-based NMS, hard and soft, and matching across several views.

Axes: N, M poses, K keypoints. Coordinates are continuous pixels (x, y) of one image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynpose.utils.exporting import is_exporting, is_recording, pad_rows

from .nms import select_softly

__all__ = ["group_by_oks", "oks_nms", "oks_nms_by_group", "pairwise_oks", "pose_areas", "soft_oks_nms"]


def pairwise_oks(
    poses: Tensor, others: Tensor, areas: Tensor, sigmas: Sequence[float] | Tensor, visible: Tensor | None = None
) -> Tensor:
    """Pairwise OKS of N and M poses: the mean over the keypoints of exp(-d^2 / (2 area (2 sigma)^2)).

    With annotated people as ``others``, this is the OKS of COCO's evaluation.

    Args:
        poses: (N, K, 2 or more) x, y, ...
        others: (M, K, 2 or more).
        areas: (M,) areas of ``others``, or (N, M) per pair, square pixels; non-negative.
        sigmas: (K,), those of the keypoint schema.
        visible: (M, K) bool, keypoints of ``others`` that count; None = all.

    Returns:
        (N, M) in [0, 1]; 0 where no keypoint of the other pose counts.

    Raises:
        ValueError: if the numbers of keypoints and sigmas differ.

    Example::

        >>> pose = torch.tensor([[[10.0, 10.0]]])
        >>> pairwise_oks(pose, pose + torch.tensor([4.0, 0.0]), torch.tensor([400.0]), [0.1])  # exp(-16 / 32)
        tensor([[0.6065]])
    """
    num_keypoints = poses.shape[1]
    if others.shape[1] != num_keypoints or len(sigmas) != num_keypoints:
        raise ValueError(
            f"expected the schema's number of keypoints and sigmas, got poses of {num_keypoints} and {others.shape[1]} "
            f"keypoints and {len(sigmas)} OKS sigmas"
        )
    # Coinciding points have OKS 1 for any area: 0 / tiny, not 0 / 0
    areas = areas.to(poses.dtype).clamp(min=torch.finfo(poses.dtype).tiny)
    if is_recording() and visible is None:
        return _oks_at_once(poses, others, areas, sigmas)
    total = poses.new_zeros(poses.shape[0], others.shape[0])
    # One keypoint at a time: no array larger than N x M, where both are a few thousand for many views of a crowd
    for keypoint, sigma in enumerate(sigmas):
        distance = (poses[:, None, keypoint, :2] - others[None, :, keypoint, :2]).square().sum(dim=-1)
        similarity = torch.exp(-distance / (8 * float(sigma) ** 2) / areas)
        total += similarity if visible is None else similarity * visible[:, keypoint]
    if visible is None:
        return total / num_keypoints
    return total / visible.sum(dim=1).clamp(min=1)


def _oks_at_once(poses, others, areas, sigmas):
    """:func:`pairwise_oks` with few operators, for a graph."""
    distance = (poses[:, None, :, :2] - others[None, :, :, :2]).square().sum(dim=-1)
    sigmas = torch.as_tensor(sigmas, dtype=poses.dtype, device=poses.device)
    areas = areas.expand(poses.shape[0], others.shape[0])
    return torch.exp(-distance / (8 * sigmas.square()) / areas[..., None]).mean(dim=-1)


def pose_areas(poses: Tensor) -> Tensor:
    """Area of the smallest rectangle around each pose: (N, K, 2 or more) -> (N,), square pixels."""
    x, y = poses[..., 0], poses[..., 1]
    return (x.amax(dim=1) - x.amin(dim=1)) * (y.amax(dim=1) - y.amin(dim=1))


def oks_nms(
    poses: Tensor,
    scores: Tensor,
    sigmas: Sequence[float] | Tensor,
    threshold: float,
    areas: Tensor | None = None,
    classes: Tensor | None = None,
) -> Tensor:
    """Drop every pose that is too similar to a higher-scored pose that is kept.

    The area of a pair is the mean of the two poses' areas.

    Args:
        poses: (N, K, 2 or more).
        scores: (N,).
        sigmas: (K,).
        threshold: OKS above which the lower-scored pose is dropped.
        areas: (N,) square pixels; None = :func:`pose_areas`.
        classes: (N,) int64; poses of different classes do not compete.

    Returns:
        (M,) int64 indices of the kept poses, by descending score; the earlier comes first among equal scores.

    Example::

        >>> poses = torch.tensor([[[0.0, 0.0], [20.0, 20.0]], [[0.0, 1.0], [20.0, 20.0]], [[50.0, 0.0], [90.0, 40.0]]])
        >>> oks_nms(poses, torch.tensor([0.5, 0.9, 0.2]), [0.1, 0.1], threshold=0.8)
        tensor([1, 2])
    """
    similar = (_oks_within(poses, sigmas, areas, classes) > threshold).cpu().numpy()
    order = scores.argsort(descending=True, stable=True).cpu().numpy()
    dropped = np.zeros(len(poses), dtype=bool)
    kept = []
    for pose in order:
        if not dropped[pose]:
            kept.append(pose)
            dropped |= similar[pose]
    return torch.as_tensor(np.asarray(kept, dtype=np.int64), device=poses.device)


def oks_nms_by_group(
    poses: Tensor,
    scores: Tensor,
    sigmas: Sequence[float] | Tensor,
    threshold: float,
    groups: Tensor,
    *,
    num_groups: int,
    max_per_group: int,
) -> Tensor:
    """:func:`oks_nms` within each group, such as the image.

    Args:
        poses: (N, K, 2 or more), by group.
        scores: (N,).
        sigmas: (K,).
        threshold: OKS above which the lower-scored pose is dropped.
        groups: (N,) int64, ascending.
        num_groups: groups are 0 to this number, exclusive.
        max_per_group: no group has more poses.

    Returns:
        (M,) int64 indices of the kept poses, by group and then by descending score; the earlier comes first among equal
        scores.
    """
    if is_recording():
        return _oks_nms_in_graph(poses, scores, sigmas, threshold, groups, num_groups, max_per_group)
    kept = []
    for group in range(num_groups):
        members = (groups == group).nonzero()[:, 0]
        kept.append(members[oks_nms(poses[members], scores[members], sigmas, threshold)])
    return torch.cat(kept)


def _oks_nms_in_graph(poses, scores, sigmas, threshold, groups, num_groups, max_per_group):
    """:func:`oks_nms_by_group` without loops over poses.

    A pose is kept if no kept pose before it is similar. Starting with all poses kept, each application of this rule
    settles at least the first undecided pose of every group. It is applied until nothing changes or, in a trace, as
    often as a group has poses.
    """
    position = torch.arange(poses.shape[0], device=poses.device)
    # a diverged model's NaN counts as the highest score, as when sorted
    keys = torch.where(scores.isnan(), float("inf"), scores)
    same_group = groups[:, None] == groups
    is_higher = (keys > keys[:, None]) | ((keys == keys[:, None]) & (position < position[:, None]))
    # (N, N): whether the second pose comes before the first
    before = (groups < groups[:, None]) | (same_group & is_higher)
    similar = ((_oks_within(poses, sigmas, None, None) > threshold) & same_group & before).to(poses.dtype)

    def settle(kept, previous):
        # the number of similar kept poses is a whole one
        return (1 - (similar * kept).sum(dim=1)).relu(), kept.clone()

    def is_unsettled(kept, previous):
        return (kept != previous).any()

    if is_exporting():
        from torch._higher_order_ops.while_loop import while_loop

        size = num_groups * max_per_group
        similar = pad_rows(pad_rows(similar, size).T, size).T
        kept = similar.new_ones(size)
        kept = while_loop(is_unsettled, settle, (kept, torch.zeros_like(kept)))[0][: poses.shape[0]]
    else:
        kept = torch.ones_like(keys)
        for _ in range(max_per_group):
            kept, _ = settle(kept, kept)
    order = torch.zeros_like(position).scatter(0, before.sum(dim=1), position)
    return order[kept[order] > 0]


@torch.no_grad()
def soft_oks_nms(
    poses: Tensor,
    scores: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    method: str = "gaussian",
    threshold: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    max_poses: int | None = None,
    areas: Tensor | None = None,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of poses that are similar to higher-scored ones, instead of dropping them.

    Soft-NMS (Bodla et al., ICCV 2017) with the OKS in place of the IoU, see :func:`~dynpose.layers.nms.soft_nms`. The
    area of a pair is the mean of the two poses' areas.

    Args:
        poses: (N, K, 2 or more). A non-finite pose is similar to none.
        scores: (N,), non-negative.
        sigmas: (K,), those of OKS.
        method: "linear" multiplies a score by ``1 - OKS`` where the OKS is above ``threshold``, "gaussian" by
            ``exp(-OKS^2 / sigma)`` everywhere.
        threshold: for "linear".
        sigma: for "gaussian".
        min_score: poses whose score falls below it are dropped; non-negative.
        max_poses: maximum number of poses kept; None = all.
        areas: (N,) square pixels; None = :func:`pose_areas`.
        classes: (N,) int64; poses of different classes do not compete.

    Returns:
        (M,) int64 indices of the kept poses and (M,) their lowered scores, by descending score.

    Raises:
        ValueError: for an unknown method, a ``sigma`` that is not positive, or a negative ``min_score``.

    Example::

        >>> poses = torch.tensor([[[0.0, 0.0], [20.0, 20.0]], [[0.0, 0.0], [20.0, 20.0]], [[50.0, 0.0], [90.0, 40.0]]])
        >>> soft_oks_nms(poses, torch.tensor([0.5, 0.9, 0.2]), [0.1, 0.1])  # 0.5 exp(-1 / 0.5)
        (tensor([1, 2, 0]), tensor([0.9000, 0.2000, 0.0677]))
    """
    if not len(poses):
        return torch.zeros(0, dtype=torch.int64, device=poses.device), scores
    oks = _oks_within(poses, sigmas, areas, classes).nan_to_num(nan=0.0)
    return select_softly(
        torch.arange(len(poses), device=poses.device)[None],
        scores,
        lambda place: oks[place[:, 0]],
        method=method,
        threshold=threshold,
        sigma=sigma,
        min_score=min_score,
        max_per_group=max_poses,
    )


def group_by_oks(
    poses: Tensor,
    scores: Tensor,
    views: Tensor,
    sigmas: Sequence[float] | Tensor,
    threshold: float,
    areas: Tensor | None = None,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Group the predictions from several views of an image by person, greedily by score.

    The highest-scored ungrouped pose leads a new group. From each other view, the ungrouped pose with the highest
    product of OKS and score joins it, if it is similar enough. A group therefore has at most one pose per view: people
    that the model separates stay separate. The area of a pair is the mean of the two poses' areas.

    The product includes the score because a model may predict a person twice, with nearly the same pose and a lower
    score. By OKS alone, the duplicate may join the group instead of the view's best pose, which then counts as
    another person.

    Args:
        poses: (N, K, 2 or more), of all views, in the coordinates of one image.
        scores: (N,), non-negative.
        views: (N,) int64, the view of each pose.
        sigmas: (K,).
        threshold: minimum OKS with the leader, above 0.
        areas: (N,) square pixels; None = :func:`pose_areas`.
        classes: (N,) int64; a group has one class.

    Returns:
        The group of each pose, (N,) int64, and the index of each group's leader, (G,) int64.
        Groups are numbered by their leaders' descending score.
    """
    oks = _oks_within(poses, sigmas, areas, classes).cpu().numpy()
    preference = oks * scores.cpu().numpy()
    order = scores.argsort(descending=True, stable=True).cpu().numpy()
    view = views.cpu().numpy()
    group = np.full(len(poses), -1, dtype=np.int64)
    leaders: list[int] = []
    for leader in order:
        if group[leader] >= 0:
            continue
        joining = np.flatnonzero((group < 0) & (view != view[leader]) & (oks[leader] >= threshold))
        joining = joining[np.argsort(-preference[leader, joining], kind="stable")]
        _, best_of_view = np.unique(view[joining], return_index=True)
        group[joining[best_of_view]] = group[leader] = len(leaders)
        leaders.append(leader)
    leader_index = torch.as_tensor(np.asarray(leaders, dtype=np.int64), device=poses.device)
    return torch.as_tensor(group, device=poses.device), leader_index


def _oks_within(poses, sigmas, areas, classes):
    """(N, N) OKS of poses with each other; 0 between classes."""
    poses = poses.float()
    areas = pose_areas(poses) if areas is None else areas.float()
    oks = pairwise_oks(poses, poses, (areas[:, None] + areas) / 2, sigmas)
    return oks if classes is None else oks * (classes[:, None] == classes)
