"""QueryPose's figures, and the intermediate results that they are drawn from.

Axes: B images, Q = B N queries, n people of an image, M parts, K keypoints, r x r cells of a RoI of the keypoint
decoder. Positions are pixels of the network's input.

=================  ================  ==========================================================================
name               shape             value
=================  ================  ==========================================================================
``initial_boxes``  (Q, 4)            the learned boxes, XYXY
``boxes``          (Q, 4)            XYXY, after each stage (Eq. 1)
``keypoints``      (Q, K, 2)         x and y, of each stage
``sigmas``         (Q, K, 2)         their uncertainty, relative to width and height of the box, of each stage
``attention``      (Q, M, 2 r, 2 r)  spatial attention A of SPEGM over each stage's box (section 3.2), sums to 1; M =
                                     1 with "spatial_attention"; absent with other interactions
``queries``        (B, n)            int64, the queries of the detections in their order, numbered in an image
=================  ================  ==========================================================================

The values of stages are S in number, in order.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynpose.methods import Figure
from dynpose.modeling.figures import COLOR_MAP_NAME, Panel, Scene, View, arrange, in_rows, plot_panel

from .flow import RealNVP, residual_log_likelihood
from .interactions import SpatialAttention
from .losses import to_relative

__all__ = ["FIGURES", "flow_densities"]

_SIDE, _MIN_SIDE, _STAGE_SIDE, _DENSITY_SIDE, _PAGE_WIDTH = 300, 120, 350, 420, 1500
_ALL_PARTS = "all parts"
# Panels in a row of the stages
_COLUMNS = 4
# Cells along each side of the drawn densities; the largest drawn error, in units of sigma, or less if that leaves out
# at most this part of the flow's density
_CELLS, _LIMIT, _LEFT_OUT = 96, 4.0, 0.01


def draw_attention(scene: Scene) -> np.ndarray:
    """Draw one person's attention maps, a row for each stage, a column for each part: (h, w, 3) uint8 RGB."""
    query = _queries(scene)[scene.person]
    boxes, maps = _stages(scene, "boxes", query), _stages(scene, "attention", query)
    names = _part_names(scene.model, len(maps[0]))
    areas = [scene.around(box.reshape(2, 2), least_ratio=0.6) for box in boxes]
    sizes = np.array([area[2:] - area[:2] for area in areas])
    # as wide as the page allows
    widest = (sizes[:, 0] / sizes.max(axis=1)).max()
    side = int(np.clip(_PAGE_WIDTH / (len(names) + 1) / widest, _MIN_SIDE, _SIDE))
    lines = []
    for stage, (box, area, of_stage) in enumerate(zip(boxes, areas, maps)):
        picture = _poses(scene, [scene.person], stage)
        line = [Panel(f"stage {stage + 1}", View(scene, area, side, picture).canvas)]
        for name, values in zip(names, of_stage):
            line.append(Panel(name, View(scene, area, side).heat_in_box(values, box).box(box).canvas))
        lines.append(line)
    if names != [_ALL_PARTS]:
        source, maps_are = "QueryPose, section 3.2 and Figure 5", "Spatial attention maps A of SPEGM"
        columns, embedding = ", and a column for each part", "the embedding of the part"
    else:
        source, maps_are = "QueryPose, Table 1", "Spatial attention of all parts together"
        columns, embedding = "", "one embedding"
    text = (
        f"{maps_are} for one person, a row for each stage, with its pose{columns}: the weights (they sum to 1) with "
        f"which the features within the RoI, white, are added up to {embedding}. A map has {maps[0].shape[1]} x "
        f"{maps[0].shape[2]} cells. Each panel is in units of its highest weight."
    )
    return arrange(lines, scene.caption(source, text), ("0", "highest weight of the panel"))


def draw_stages(scene: Scene) -> np.ndarray:
    """Draw the boxes and poses of the people after each stage: (h, w, 3) uint8 RGB."""
    rows = scene.shown
    queries = _queries(scene)[rows]
    initial = View(scene, side=_STAGE_SIDE)
    for box in scene.value("initial_boxes")[queries]:
        initial.box(box)
    panels = [Panel("learned boxes", initial.canvas)]
    for stage in range(len(scene.values["boxes"])):
        view = View(scene, side=_STAGE_SIDE, picture=_poses(scene, rows, stage))
        panels.append(Panel(f"stage {stage + 1}", view.canvas))
    text = (
        "Boxes and poses stage by stage: the queries of the people begin with learned boxes. Each stage refines the "
        "box, from whose features it regresses the keypoints anew. The scores are those of the last stage. "
        f"{scene.selection(rows)}"
    )
    caption = scene.caption("QueryPose, section 3.1 and Figure 2", text, of_person=False)
    return arrange(in_rows(panels, _COLUMNS), caption)


def flow_densities(flow: RealNVP, limit: float = _LIMIT, cells: int = _CELLS) -> dict[str, Tensor]:
    """Densities of a keypoint's error e = prediction - annotation, in units of sigma.

    Args:
        flow: of a model.
        limit: of e_x and e_y.
        cells: of the densities along each axis.

    Returns:
        ``flow``, G(e), a density per sigma^2; and ``likelihood``, what the loss of both coordinates (Eq. 4) says that
        an error's density is, up to a factor: it is in units of its highest value. Both (cells, cells), rows of equal
        e_y.
    """
    steps = (torch.arange(cells, device=flow.mask.device) + 0.5) / cells * 2 * limit - limit
    errors = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=2)
    with torch.no_grad():
        density = flow.log_prob(errors).exp()
        at = errors.reshape(-1, 1, 2)
        learnt = torch.ones_like(at[..., 0], dtype=torch.bool)
        losses = residual_log_likelihood(flow, at, torch.ones_like(at), torch.zeros_like(at), learnt)
    logarithm = -losses.sum(dim=(1, 2)).view(cells, cells)
    return {"flow": density.cpu(), "likelihood": (logarithm - logarithm.max()).exp().cpu()}


def draw_density(scene: Scene) -> np.ndarray:
    """Draw the flow's density, and the density of one person's keypoints in the image: (h, w, 3) uint8 RGB."""
    from matplotlib.figure import Figure as Plot

    panels = []
    titles = ("density of the flow, per sigma^2", "likelihood of the loss, highest = 1")
    limit = _limit(scene.model.flow)
    for title, values in zip(titles, flow_densities(scene.model.flow, limit).values()):
        plot = Plot(figsize=(_DENSITY_SIDE / 100, _DENSITY_SIDE / 115), dpi=100, layout="constrained")
        axes = plot.subplots()
        extent = (-limit, limit, -limit, limit)
        image = axes.imshow(
            values.numpy(), origin="lower", extent=extent, cmap=COLOR_MAP_NAME, vmin=0, interpolation="bilinear"
        )
        # y points down, as in images
        axes.invert_yaxis()
        axes.set_xlabel("error in x, sigma")
        axes.set_ylabel("error in y, sigma")
        plot.colorbar(image, ax=axes)
        panels.append(plot_panel(title, plot))
    around = scene.around_person(scene.person)
    view = View(scene, around, _DENSITY_SIDE)
    view.heat_in_box(_density_in_image(scene, around), _box_on_input(scene, around))
    for keypoint in scene.people.keypoints[scene.person]:
        view.dot(keypoint[:2], radius=2.0)
    pose = View(scene, around, _DENSITY_SIDE, scene.poses([scene.person])).canvas
    panels += [Panel("the person's pose", pose), Panel("likelihood of the keypoints", view.canvas)]
    text = (
        "Residual log-likelihood estimation: the flow, shared by all keypoints and stages, learns the density of the "
        "error (prediction minus annotation, in units of the predicted sigma). Top left: that density. Top right: the "
        "likelihood by the loss, which multiplies it by a Laplace distribution. Bottom right: the same likelihood in "
        "the image, of each keypoint around the prediction of the last stage (green) and with its sigma: "
        "wide where the model is uncertain."
    )
    caption = scene.caption("QueryPose, section 3.4 and Eq. 4", text)
    return arrange(in_rows(panels, 2), caption, ("0", "bottom right: highest value of a keypoint"))


def _limit(flow):
    """The largest error to draw, in units of sigma: halved while nearly all of the density is within the half."""
    limit = _LIMIT
    while limit > _LIMIT / 64:
        density = flow_densities(flow, limit)["flow"]
        quarter = _CELLS // 4
        inside = density[quarter:-quarter, quarter:-quarter].sum()
        if not inside >= (1 - _LEFT_OUT) * density.sum():
            break
        limit /= 2
    return limit


def _density_in_image(scene, around):
    """Likelihoods (cells, cells) of one person's keypoints over a box (4,) of the image, maximum over the keypoints."""
    query = _queries(scene)[scene.person]
    flow = scene.model.flow
    box, points, sigmas = (_stages(scene, name, query)[-1] for name in ("boxes", "keypoints", "sigmas"))
    low_x, low_y, high_x, high_y = _box_on_input(scene, around)
    steps = (torch.arange(_CELLS) + 0.5) / _CELLS
    x, y = low_x + steps * (high_x - low_x), low_y + steps * (high_y - low_y)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2).reshape(-1, 1, 2).float()
    number = len(points)
    targets = to_relative(places, box).expand(-1, number, -1)
    predicted = to_relative(points, box).expand(len(targets), -1, -1)
    device = flow.mask.device
    inputs = [value.to(device) for value in (predicted, sigmas.expand(len(targets), -1, -1), targets)]
    learnt = torch.ones(targets.shape[:2], dtype=torch.bool, device=device)
    with torch.no_grad():
        logarithm = -residual_log_likelihood(flow, *inputs, learnt).sum(dim=2).cpu()
    return (logarithm - logarithm.amax(dim=0)).exp().amax(dim=1).view(_CELLS, _CELLS)


def _box_on_input(scene, box):
    """A box (4,) of the image in pixels of the network's input."""
    inverse = np.linalg.inv(np.vstack([scene.to_image, [0, 0, 1]]))[:2]
    return (box.reshape(2, 2) @ inverse[:, :2].T + inverse[:, 2]).ravel()


def _queries(scene):
    """(n,) int64, the query of each of the image's people."""
    return scene.values["queries"][0][0]


def _poses(scene, rows, stage):
    """The image with the boxes and poses of people after a stage."""
    queries = _queries(scene)[rows]
    boxes, points, sigmas = (scene.values[name][stage][queries] for name in ("boxes", "keypoints", "sigmas"))
    return scene.poses(rows, boxes, torch.cat([points, 1 - sigmas.mean(dim=2, keepdim=True)], dim=2))


def _stages(scene, name, query):
    """A query's value of each stage."""
    return [value[query] for value in scene.values[name]]


def _part_names(model, number):
    """A title for each of the attention maps."""
    names = [" ".join(part) for part in model.part_names]
    return names if len(names) == number else [_ALL_PARTS]


def _missing_attention(model: Any) -> str:
    if isinstance(getattr(model.keypoint_stages[0], "interaction", None), SpatialAttention):
        return ""
    return "MODEL.QUERYPOSE.INTERACTION has no attention maps; 'spegm' and 'spatial_attention' have"


FIGURES = (
    Figure(
        "attention",
        "one person's spatial attention maps of SPEGM, for each part and stage (Figure 5)",
        draw_attention,
        _missing_attention,
    ),
    Figure("stages", "the people's boxes and poses stage by stage (section 3.1)", draw_stages),
    Figure(
        "density", "the flow's density of the keypoints' errors, and it around one person's keypoints", draw_density
    ),
)
