"""CID's targets: multi-person heatmaps, the decoupled people, and their single-person heatmaps (section 3.4).

Details that the paper omits follow the release: centres, sizes of the Gaussians, selection of decoupled people.
Axes: B images, G people of the batch, N of them decoupled, K keypoints, H x W cells of stride s.
Cells (u, v) are column u of row v; other coordinates are continuous input pixels (x, y).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from detectron2.structures import Instances, Keypoints
from torch import Tensor

from dynpose.modeling.keypoint_maps import (
    corner_radii,
    gather_keypoints,
    gaussians,
    multi_person_heatmaps,
)

from .abstraction import own_cells

# Cells by which a box's side may exceed whole cells without being rounded up
_ROUNDING = 1e-4


@dataclass
class InstanceTargets:
    """Targets of N decoupled people.

    Attributes:
        image_index (Tensor): (N,) int64.
        cells (Tensor): (N, 2) int64, cell of the person's feature.
        keypoint_cells (Tensor): (N, K, 2) int64; arbitrary where not ``inside``.
        labelled (Tensor): (N, K) bool, the keypoints that have a loss. The map of one outside the image is empty.
        inside (Tensor): (N, K) bool, the labelled keypoints inside the image.
        radii (Tensor): (N,) int64, radius of the person's Gaussians.
    """

    image_index: Tensor
    cells: Tensor
    keypoint_cells: Tensor
    labelled: Tensor
    inside: Tensor
    radii: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, chosen: slice | Tensor) -> "InstanceTargets":
        """Select people by slice, mask or index."""
        return replace(self, **{name: values[chosen] for name, values in vars(self).items()})

    def heatmaps(self, size: tuple[int, int]) -> Tensor:
        """Draw the people's single-person heatmaps, H^(i)* of Eq. 16: (N, K, H, W) for ``size`` (H, W)."""
        return gaussians(self.keypoint_cells, self.inside, self.radii, size)


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
    and are not decoupled; their keypoints are still in the multi-person maps. The single-person map of a labelled
    keypoint outside of the image is empty. The sizes of the Gaussians are those of the annotated boxes, rotated with
    the image, whose corners are moved into the image one by one.

    The feature of a person is read at the centre's cell plus a random offset of up to one cell in x and in y, or at the
    centre's cell if the result is outside of the image. Of several people at the same cell, the smallest is decoupled.

    Cell u of stride s covers x from o + s u to o + s (u + 1), where o is the ``origin``. It is 0 for continuous pixels,
    and 0.5 for pixel indices, which the release divides by s: index i is i + 0.5 in continuous pixels. The first cell
    then also includes points up to a cell before it, as the release truncates coordinates, and corners of boxes are
    moved to the index of the last cell.

    Args:
        gt_instances (list[Instances]): B, with gt_boxes and (where there are people) gt_keypoints. In their place the
            ``gt_box_corners`` and ``gt_uncropped_keypoints`` of :class:`~dynpose.data.PoseDatasetMapper` are used
            where a mapper gives them.
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
    keypoints, image_index = gather_keypoints([_uncropped(instances) for instances in gt_instances], num_keypoints)
    labelled = keypoints[..., 2] > 0
    limits = sizes.to(keypoints.device).flip(1)[image_index]
    positions = _on_map(keypoints[..., :2], stride, origin)
    inside = labelled & ((positions >= 0) & (positions < limits[:, None])).all(dim=2)
    # far-away coordinates must not reach the conversion to integers
    cells = torch.where(inside[..., None], positions, 0).long()

    corners = torch.cat([_box_corners(instances) for instances in gt_instances])
    area = _areas(corners)
    # the release's coordinates end with the index of the last cell
    ends = limits - 1 if origin else limits
    corners = ((corners - origin) / stride).clamp(min=0).minimum(ends[:, None])
    radii = gaussian_radii(corners, min_overlap=min_overlap)

    centers = _on_map(_means(keypoints[..., :2], labelled), stride, origin)
    # comparisons with NaN, the centre of a person without labelled keypoints, are false
    decoupled = ((centers >= 0) & (centers < limits)).all(dim=1) & (area >= min_box_area)
    centers = torch.where(decoupled[:, None], centers, 0).long()
    multi = multi_person_heatmaps(
        torch.cat([cells, centers[:, None]], dim=1),
        torch.cat([inside, decoupled[:, None]], dim=1),
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
    people = InstanceTargets(image_index, sampled, cells, labelled, inside, radii)
    return multi, people[order]


def gaussian_radii(corners: Tensor, *, min_overlap: float = 0.7) -> Tensor:
    """CornerNet's radius: the distance that a box's corners may move before its IoU falls below ``min_overlap``.

    The smallest of CornerNet's three cases applies, which is always that of
    :func:`~dynpose.modeling.keypoint_maps.corner_radii`.

    Args:
        corners (Tensor): (G, 4, 2), the upper left, upper right, lower left and lower right corner of boxes at any
            angle, cells.
        min_overlap (float): o, the minimum IoU.

    Returns:
        Tensor: (G,) int64 radius in whole cells, of boxes whose sides are rounded up to whole cells.
    """
    across, down = _edges(corners)
    sides = torch.stack([across.norm(dim=1), down.norm(dim=1)], dim=1)
    # a side of whole cells stays as long as it is, whatever rotation does to its last digits
    return corner_radii((sides - _ROUNDING).ceil().clamp(min=0), min_overlap)


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


def _on_map(points, stride, origin):
    """Coordinates in cells of points (..., 2) in pixels."""
    positions = (points - origin) / stride
    # the release truncates: what is up to a cell outside is in the first one
    return torch.where(positions > -1, positions.clamp(min=0), positions) if origin else positions


def _uncropped(instances):
    """The instances with the keypoints outside of the image, where they are known."""
    if not instances.has("gt_uncropped_keypoints"):
        return instances
    keypoints = Keypoints(instances.gt_uncropped_keypoints)
    return Instances(instances.image_size, gt_boxes=instances.gt_boxes, gt_keypoints=keypoints)


def _means(points, labelled):
    """Means of the people's labelled keypoints: (N, 2); NaN without any."""
    labelled = labelled[..., None]
    return torch.where(labelled, points, 0).sum(dim=1) / labelled.sum(dim=1)


def _box_corners(instances):
    """Corners (N, 4, 2) of the annotated boxes, else of ``gt_boxes``."""
    if instances.has("gt_box_corners"):
        return instances.gt_box_corners
    return instances.gt_boxes.tensor[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]


def _edges(corners):
    """The upper and the left edge of boxes: (N, 2) each."""
    return corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]


def _areas(corners):
    """Areas of boxes: (N,)."""
    (across_x, across_y), (down_x, down_y) = (edge.unbind(dim=1) for edge in _edges(corners))
    return (across_x * down_y - across_y * down_x).abs()


def _first_of_each(keys, order):
    """Positions in ``order`` (N,) of the first element of each group of equal ``keys[order]``, in order."""
    _, group = keys[order].unique(return_inverse=True)
    position = torch.arange(len(order), device=order.device)
    first = torch.full_like(position, len(order)).scatter_reduce(0, group, position, "amin")
    return (first[group] == position).nonzero()[:, 0]
