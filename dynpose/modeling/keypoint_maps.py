"""Keypoints on feature maps: their cells, and targets of maps that all people of an image share.

Axes: B images, K keypoints, H x W cells of stride s, G people of the batch.
Coordinates are continuous input pixels (x, y), as in detectron2.
"""

import torch
from detectron2.structures import Instances
from torch import Tensor

from dynpose.layers.cells import cell_centers

# People whose Gaussians are drawn at once
_DRAWN_AT_ONCE = 16


def gather_keypoints(gt_instances: list[Instances], num_keypoints: int) -> tuple[Tensor, Tensor]:
    """Collect the keypoints of all people of a batch, in order.

    Args:
        gt_instances (list[Instances]): B; those without ``gt_keypoints`` have none labelled.
        num_keypoints (int): K.

    Returns:
        tuple[Tensor, Tensor]: keypoints (G, K, 3) and the image of each person (G,) int64.
    """
    keypoints, images = [], []
    for image, instances in enumerate(gt_instances):
        boxes = instances.gt_boxes.tensor
        if instances.has("gt_keypoints"):
            keypoints.append(instances.gt_keypoints.tensor.float())
        else:
            keypoints.append(boxes.new_zeros(len(boxes), num_keypoints, 3))
        images.append(torch.full((len(boxes),), image, device=boxes.device))
    return torch.cat(keypoints), torch.cat(images)


def enclosing_boxes(points: Tensor, included: Tensor | None = None, min_size: float = 0.0) -> Tensor:
    """Minimum enclosing rectangles of keypoints (InsPose section 3.1: the pseudo-boxes).

    Args:
        points (Tensor): (N, K, 2) x and y; points that are not included may be anything, even NaN.
        included (Tensor): (N, K) bool, the points that count, at least one per instance; None = all.
        min_size (float): shorter sides are extended symmetrically to this length; in the points' unit.

    Returns:
        Tensor: (N, 4) XYXY; degenerate around a single point if ``min_size`` is 0.
    """
    included = torch.ones_like(points[..., 0], dtype=torch.bool) if included is None else included
    low = torch.where(included[..., None], points, float("inf")).amin(dim=1)
    high = torch.where(included[..., None], points, -float("inf")).amax(dim=1)
    missing = (min_size - (high - low)).clamp(min=0) / 2
    return torch.cat([low - missing, high + missing], dim=1)


def keypoint_cells(keypoints: Tensor, stride: int, size: tuple[int, int], rule: str = "nearest") -> Tensor:
    """Compute the cell of each keypoint on a map.

    Args:
        keypoints (Tensor): (..., 3) x, y in input pixels, visibility 0/1/2.
        stride (int): s of the map, pixels.
        size (tuple[int, int]): (H, W) of the map.
        rule (str): "nearest", floor(x / s): the cell with the nearest centre; or "paper", floor((x - s // 2) / s) as in
            section 3.3 (a cell further left and up for half of all keypoints; clamped to the map).

    Returns:
        Tensor: (...,) int64 flat index v * W + u; -1 if the keypoint is unlabelled or not on the map.
    """
    height, width = size
    position = keypoints[..., :2] / stride
    x, y = position.unbind(dim=-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (keypoints[..., 2] > 0)
    if rule == "paper":
        position = (position - (stride // 2) / stride).clamp(min=0)
    elif rule != "nearest":
        raise ValueError(f"keypoint_cells: rule must be 'nearest' or 'paper', got {rule!r}")
    # NaN and far-away coordinates of unlabelled keypoints must not reach the conversion to integers
    u, v = torch.where(inside[..., None], position, 0).long().unbind(dim=-1)
    return torch.where(inside, v * width + u, -1)


def offset_targets(
    keypoints: Tensor,
    image_index: Tensor,
    *,
    num_images: int,
    size: tuple[int, int],
    stride: int,
    radius: float,
    rule: str = "nearest",
    disk_around: str = "cell",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the cells that supervise an offset map, each with the nearest keypoint of its kind.

    FCPose section 3.2 and InsPose section 3.3 (the disk D_R, with ``disk_around="keypoint"``).

    Args:
        keypoints (Tensor): (G, K, 3).
        image_index (Tensor): (G,) int64, the image of each person.
        num_images (int): B.
        size (tuple[int, int]): (H, W) of the map.
        stride (int): of the map, pixels.
        radius (float): radius of the disk of cells that a keypoint supervises, in cells.
        rule (str): rule for the keypoint's cell, see :func:`keypoint_cells`; it is always supervised.
        disk_around (str): centre of the disk, which contains the centres of the cells: the centre of the keypoint's
            "cell", or the "keypoint" itself.

    Returns:
        tuple: image (S,), kind (S,), cell (S,) flat index, all int64; and target (S, 2): the offset from the cell's
        centre to the keypoint, pixels.
    """
    height, width = size
    num_keypoints = keypoints.shape[1]
    own = keypoint_cells(keypoints, stride, size, rule)
    # with the rule "paper", a keypoint is up to a cell away from the centre of its cell
    reach = int(radius) if disk_around == "cell" else int(radius) + 1
    steps = torch.arange(-reach, reach + 1, device=own.device)
    disk = torch.cartesian_prod(steps, steps)
    if disk_around == "cell":
        disk = disk[disk.square().sum(dim=1) <= radius**2]
    elif disk_around != "keypoint":
        raise ValueError(f"offset_targets: disk_around must be 'cell' or 'keypoint', got {disk_around!r}")
    u = (own % width)[..., None] + disk[:, 0]
    v = torch.div(own, width, rounding_mode="floor")[..., None] + disk[:, 1]
    cell = v * width + u
    supervised = (own >= 0)[..., None] & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    target = keypoints[:, :, None, :2] - cell_centers(cell, stride, width)
    if disk_around == "keypoint":
        supervised &= (target.square().sum(dim=3) <= (radius * stride) ** 2) | (cell == own[..., None])
    # one selection, because each waits for a GPU
    person, kind, member = supervised.nonzero(as_tuple=True)
    cell, target = cell[person, kind, member], target[person, kind, member]

    image = image_index[person]
    slot = (image * num_keypoints + kind) * (height * width) + cell
    distance = target.square().sum(dim=1)
    nearest = distance.new_full((num_images * num_keypoints * height * width,), float("inf"))
    nearest.scatter_reduce_(0, slot, distance, "amin")
    kept = distance == nearest[slot]
    return image[kept], kind[kept], cell[kept], target[kept]


def gaussian_heatmaps(
    keypoints: Tensor, image_index: Tensor, *, num_images: int, size: tuple[int, int], stride: int, sigma: float
) -> Tensor:
    """Multi-person Gaussian targets: one map per keypoint kind, people merged by the maximum.

    FCPose's release, InsPose section 3.4.

    A keypoint's Gaussian is centred on its cell and cropped to a square of round(3 sigma) + 1 cells in each direction.

    Args:
        keypoints (Tensor): (G, K, 3).
        image_index (Tensor): (G,) int64.
        num_images (int): B.
        size (tuple[int, int]): (H, W).
        stride (int): pixels.
        sigma (float): cells.

    Returns:
        Tensor: (B, K, H, W) in [0, 1].
    """
    height, width = size
    maps = keypoints.new_zeros(num_images, keypoints.shape[1], height * width)
    own = keypoint_cells(keypoints, stride, size)
    reach = round(3 * sigma) + 1
    around = torch.arange(-reach, reach + 1, device=own.device)
    dv, du = torch.meshgrid(around, around, indexing="ij")
    gaussian = torch.exp(-(du.square() + dv.square()) / (2 * sigma**2)).flatten().to(maps.dtype)
    u = (own % width)[..., None] + du.flatten()
    v = torch.div(own, width, rounding_mode="floor")[..., None] + dv.flatten()
    # values outside of the maps become zeros in cell 0: a selection would wait for a GPU
    drawn = (own >= 0)[..., None] & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    kind = torch.arange(keypoints.shape[1], device=own.device)
    first = (image_index[:, None] * keypoints.shape[1] + kind) * (height * width)
    slot = torch.where(drawn, first[..., None] + v * width + u, 0)
    maps.view(-1).scatter_reduce_(0, slot.flatten(), (gaussian * drawn).flatten(), "amax")
    return maps.view(num_images, -1, height, width)


def corner_radii(sides: Tensor, min_overlap: float) -> Tensor:
    """CornerNet's radius: the distance that the corners of a box may move while it contains the ground-truth box.

    As in the code of CornerNet and CenterNet, the root of the quadratic is not divided by its leading coefficient.

    Args:
        sides (Tensor): (G, 2) width and height in cells, non-negative.
        min_overlap (float): o, the minimum IoU.

    Returns:
        Tensor: (G,) int64 whole cells.
    """
    reach = min_overlap * sides.sum(dim=1)
    root = (reach.square() + 4 * min_overlap * (1 - min_overlap) * sides.prod(dim=1)).sqrt()
    return (root - reach).long()


def gaussians(cells: Tensor, labelled: Tensor, radii: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw Gaussians around cells (CID Eq. 13), cropped to squares of 2 r + 1 cells, with sigma = (2 r + 1) / 6.

    Args:
        cells (Tensor): (N, K, 2) int64 (u, v), on the map.
        labelled (Tensor): (N, K) bool; maps of unlabelled keypoints are zero.
        radii (Tensor): (N,) int64, r of each person.
        size (tuple[int, int]): (H, W).

    Returns:
        Tensor: (N, K, H, W) float32 in [0, 1], one in the given cells and below one elsewhere.
    """
    radii = radii[:, None, None]
    sigmas = (2 * radii + 1) / 6
    across, down = (
        torch.exp(-distance.square() / (2 * sigmas.square())) * (distance.abs() <= radii)
        for distance in (
            torch.arange(length, device=cells.device) - cells[..., axis, None]
            for axis, length in enumerate((size[1], size[0]))
        )
    )
    return (across * labelled[..., None])[:, :, None] * down[..., None]


def multi_person_heatmaps(
    cells: Tensor, labelled: Tensor, radii: Tensor, image_index: Tensor, *, num_images: int, size: tuple[int, int]
) -> Tensor:
    """Draw the Gaussians of all people of an image into the same maps, merged by the maximum.

    Args:
        cells (Tensor): (G, K, 2) int64.
        labelled (Tensor): (G, K) bool.
        radii (Tensor): (G,) int64.
        image_index (Tensor): (G,) int64.
        num_images (int): B.
        size (tuple[int, int]): (H, W).

    Returns:
        Tensor: (B, K, H, W) float32.
    """
    maps = torch.zeros(num_images, cells.shape[1], *size, device=cells.device)
    for image, merged in enumerate(maps):
        for people in (image_index == image).nonzero()[:, 0].split(_DRAWN_AT_ONCE):
            # split of an empty tensor returns one empty part
            if len(people):
                drawn = gaussians(cells[people], labelled[people], radii[people], size)
                torch.maximum(merged, drawn.amax(dim=0), out=merged)
    return maps


def offsets_at(offsets: Tensor, image_index: Tensor, cells: Tensor) -> Tensor:
    """Gather offsets at the cells of keypoints.

    Args:
        offsets (Tensor): (B, 2 K, H, W).
        image_index (Tensor): (N,) int64.
        cells (Tensor): (N, K) int64 flat index.

    Returns:
        Tensor: (N, K, 2).
    """
    maps = offsets.unflatten(1, (-1, 2)).flatten(3)
    kind = torch.arange(cells.shape[1], device=cells.device)
    return maps[image_index[:, None], kind, :, cells]
