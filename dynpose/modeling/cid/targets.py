"""CID's targets: multi-person heatmaps, the decoupled people, and their single-person heatmaps (section 3.4).

Details that the paper omits follow the release: centres, sizes of the Gaussians, selection of decoupled people.
Axes: B images, G people of the batch, N of them decoupled, K keypoints, H x W cells of stride s.
Cells (u, v) are column u of row v; other coordinates are continuous input pixels (x, y).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from dynpose.modeling.keypoint_maps import (
    corner_radii,
    gather_keypoints,
    gaussians,
    keypoint_cells,
    multi_person_heatmaps,
)

from .abstraction import own_cells


@dataclass
class InstanceTargets:
    """Targets of N decoupled people.

    Attributes:
        image_index (Tensor): (N,) int64.
        cells (Tensor): (N, 2) int64, cell of the person's feature.
        keypoint_cells (Tensor): (N, K, 2) int64; arbitrary where unlabelled.
        labelled (Tensor): (N, K) bool.
        radii (Tensor): (N,) int64, radius of the person's Gaussians.
    """

    image_index: Tensor
    cells: Tensor
    keypoint_cells: Tensor
    labelled: Tensor
    radii: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, chosen: slice | Tensor) -> "InstanceTargets":
        """Select people by slice, mask or index."""
        return replace(self, **{name: values[chosen] for name, values in vars(self).items()})

    def heatmaps(self, size: tuple[int, int]) -> Tensor:
        """Draw the people's single-person heatmaps, H^(i)* of Eq. 16: (N, K, H, W) for ``size`` (H, W)."""
        return gaussians(self.keypoint_cells, self.labelled, self.radii, size)


def build_targets(
    gt_instances: list[Instances],
    *,
    num_keypoints: int,
    size: tuple[int, int],
    sizes: Tensor,
    stride: int,
    min_box_area: float = 1024.0,
    min_overlap: float = 0.7,
    max_instances: int = 200,
    origin: float = 0.0,
    jitter: Tensor | None = None,
) -> tuple[Tensor, InstanceTargets]:
    """Build the targets of a batch.

    A person's centre is the mean of the labelled keypoints, including those outside of the image. People without
    labelled keypoints, with a centre outside of the image or with a box smaller than ``min_box_area`` have no centre
    and are not decoupled; their keypoints are still in the multi-person maps.

    The feature of a person is read at the centre's cell plus a random offset of up to one cell in x and in y, or at the
    centre's cell if the result is outside of the image. Of several people at the same cell, the smallest is decoupled.

    Cell u of stride s covers x from o + s u to o + s (u + 1), where o is the ``origin``. It is 0 for continuous pixels,
    and 0.5 for pixel indices, which the release divides by s: index i is i + 0.5 in continuous pixels. The first cell
    then also includes the half pixel before it, and centres up to a cell before it, as the release truncates them.

    Args:
        gt_instances (list[Instances]): B, with gt_boxes and (where there are people) gt_keypoints. Centres and areas
            are ``gt_pose_centers`` and ``gt_box_areas`` of :class:`~dynpose.data.PoseDatasetMapper`. Without them, as
            from a custom mapper, they are computed from the fields above: the means of the remaining keypoints, and the
            areas of the axis-aligned boxes around rotated ones, clipped to the image.
        num_keypoints (int): K.
        size (tuple[int, int]): (H, W).
        sizes (Tensor): (B, 2) int64, height and width of each image in cells.
        stride (int): s, pixels.
        min_box_area (float): square pixels.
        min_overlap (float): see :func:`gaussian_radii`.
        max_instances (int): maximum N; the excess is dropped at random.
        origin (float): o, continuous input pixels.
        jitter (Tensor | None): (G, 2) int64, x and y in cells, instead of the random offset.

    Returns:
        tuple[Tensor, InstanceTargets]: multi-person heatmaps, H* and C* of Eq. 14, (B, K + 1, H, W), and the people, by
        image and then by ascending size.
    """
    keypoints, image_index = gather_keypoints(gt_instances, num_keypoints)
    keypoints[..., :2] = _from_origin(keypoints[..., :2], origin)
    boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
    flat = keypoint_cells(keypoints, stride, size)
    labelled = flat >= 0
    cells = torch.stack([flat % size[1], torch.div(flat, size[1], rounding_mode="floor")], dim=-1)
    radii = gaussian_radii(boxes, stride=stride, min_overlap=min_overlap)

    limits = sizes.to(boxes.device).flip(1)[image_index]
    area = torch.cat([_box_areas(instances) for instances in gt_instances])
    centers = torch.cat([_pose_centers(instances) for instances in gt_instances])
    centers = _from_origin(centers, origin) / stride
    if origin:
        # the release truncates: a centre up to a cell outside is in the first one
        centers = torch.where(centers > -1, centers.clamp(min=0), centers)
    # comparisons with NaN, the centre of a person without labelled keypoints, are false
    decoupled = ((centers >= 0) & (centers < limits)).all(dim=1) & (area >= min_box_area)
    centers = torch.where(decoupled[:, None], centers, 0).long()
    multi = multi_person_heatmaps(
        torch.cat([cells, centers[:, None]], dim=1),
        torch.cat([labelled, decoupled[:, None]], dim=1),
        radii,
        image_index,
        num_images=len(gt_instances),
        size=size,
    )

    if jitter is None:
        jitter = torch.randint(-1, 2, centers.shape, device=centers.device)
    order = area.argsort(stable=True)
    order = order[image_index[order].argsort(stable=True)]
    order = order[decoupled[order]]
    sampled = centers + jitter
    sampled = torch.where(((sampled >= 0) & (sampled < limits)).all(dim=1, keepdim=True), sampled, centers)
    order = order[_first_of_each((image_index * size[0] + sampled[:, 1]) * size[1] + sampled[:, 0], order)]
    if len(order) > max_instances:
        order = order[torch.randperm(len(order), device=order.device)[:max_instances].sort().values]
    people = InstanceTargets(image_index[order], sampled[order], cells[order], labelled[order], radii[order])
    return multi, people


def gaussian_radii(boxes: Tensor, *, stride: int, min_overlap: float = 0.7) -> Tensor:
    """CornerNet's radius: the distance that a box's corners may move before its IoU falls below ``min_overlap``.

    The smallest of CornerNet's three cases applies, which is always that of
    :func:`~dynpose.modeling.keypoint_maps.corner_radii`.

    Args:
        boxes (Tensor): (G, 4) XYXY, pixels.
        stride (int): s, pixels.
        min_overlap (float): o, the minimum IoU.

    Returns:
        Tensor: (G,) int64 radius in whole cells, of boxes whose sides are rounded up to whole cells.
    """
    sides = ((boxes[:, 2:] - boxes[:, :2]) / stride).clamp(min=0).ceil()
    return corner_radii(sides, min_overlap)


def learnt_cells(ignore_masks: list[Tensor | None], sizes: Tensor, maps: Tensor, stride: int) -> Tensor:
    """Mark the cells of multi-person maps that have a loss: neither padding nor mostly inside an ignored region.

    Args:
        ignore_masks (list[Tensor | None]): B, (h, w) bool or uint8 in pixels of the image; None = nothing is ignored.
        sizes (Tensor): (B, 2) int64, height and width of each image in cells.
        maps (Tensor): (B, ..., H, W); gives shape and device.
        stride (int): pixels.

    Returns:
        Tensor: (B, 1, H, W) bool.

    Raises:
        ValueError: if the sizes of a mask and its image differ.
    """
    learnt = own_cells(sizes, maps)
    for image, (mask, size) in enumerate(zip(ignore_masks, sizes.tolist())):
        if mask is None:
            continue
        cells = tuple(-(-length // stride) for length in mask.shape)
        if list(cells) != size:
            raise ValueError(
                f"ignore_mask of image {image} of the batch has {mask.shape[0]} x {mask.shape[1]} pixels, {cells[0]} x "
                f"{cells[1]} cells, but the image has {size[0]} x {size[1]} cells: it must be of the image's size"
            )
        height, width = mask.shape
        padded = F.pad(mask[None].float(), (0, -width % stride, 0, -height % stride))
        learnt[image, : size[0], : size[1]] &= F.avg_pool2d(padded, stride)[0] <= 0.5
    return learnt[:, None]


def _from_origin(points, origin):
    """Points relative to the origin of the first cell; points of the image before it are moved into that cell."""
    return torch.where(points >= 0, (points - origin).clamp(min=0), points - origin)


def _box_areas(instances):
    """Areas of the people's boxes, square pixels: (N,)."""
    return instances.gt_box_areas if instances.has("gt_box_areas") else instances.gt_boxes.area()


def _pose_centers(instances):
    """Means of the people's labelled keypoints: (N, 2); NaN without any."""
    if instances.has("gt_pose_centers"):
        return instances.gt_pose_centers
    if not instances.has("gt_keypoints"):
        return instances.gt_boxes.tensor.new_full((len(instances), 2), float("nan"))
    points, visibility = instances.gt_keypoints.tensor.float().split([2, 1], dim=2)
    labelled = visibility > 0
    return torch.where(labelled, points, 0).sum(dim=1) / labelled.sum(dim=1)


def _first_of_each(keys, order):
    """Positions in ``order`` (N,) of the first element of each group of equal ``keys[order]``, in order."""
    _, group = keys[order].unique(return_inverse=True)
    position = torch.arange(len(order), device=order.device)
    first = torch.full_like(position, len(order)).scatter_reduce(0, group, position, "amin")
    return (first[group] == position).nonzero()[:, 0]
