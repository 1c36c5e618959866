"""CID's figures, and the intermediate results that they are drawn from.

Axes: B images, P peaks of the centre maps, K keypoints, C channels of F-hat, H x W cells. Positions are pixels of the
network's input.

=====================  ============  ==============================================================================
name                   shape         value
=====================  ============  ==============================================================================
``centers``            (B, H, W)     centre map (Eq. 6), probabilities
``center_cells``       (P, 2)        int64, column and row of its peaks, by image and descending value
``masks``              (P, H, W)     foreground masks M (Eq. 10), in [0, 1]; absent without spatial recalibration
``channel_weights``    (P, C)        the factors of F-hat's channels (Eq. 11); absent without channel recalibration
``instance_features``  (P, C, H, W)  instance-aware feature maps (Eq. 12), at least 0
``heatmaps``           (P, K, H, W)  keypoint heatmaps (Eq. 1), probabilities before the decoder smooths them
``kept``               (N,)          int64, the peaks that OKS-NMS keeps as people, in the order of the detections
``grid``               (2,)          stride of the maps, and x and y of the first cell's centre
=====================  ============  ==============================================================================

People are computed in chunks: those with a first axis of P have one value for each chunk, but for ``center_cells``.
"""

from typing import Any

import numpy as np
from torch import Tensor

from dynpose.methods import Figure
from dynpose.modeling.figures import ORANGE, Panel, Scene, View, arrange, heatmap_rows, in_rows, panel_size, plot_panel

__all__ = ["FIGURES"]

# Panels in a row, and people in one figure
_COLUMNS, _MAX_PEOPLE, _MAX_WEIGHTS = 6, 4, 12
_SMALL, _LARGE = 134, 420


def of_people(scene: Scene, name: str) -> Tensor:
    """Values of the detected people, (N, ...), from those of all peaks."""
    return scene.value(name)[scene.value("kept")]


def draw_centers(scene: Scene) -> np.ndarray:
    """Draw the centre map with the centres of the people (Figure 3): (h, w, 3) uint8 RGB."""
    grid, centers = scene.values["grid"][0].tolist(), scene.values["centers"][0][0]
    view = View(scene, side=_LARGE).heat(centers, grid)
    cells, kept = scene.value("center_cells"), scene.value("kept")
    shown = {int(kept[row]) for row in scene.shown}
    for peak, cell in enumerate(cells * grid[0] + grid[1]):
        if peak in shown:
            view.cross(cell)
        else:
            view.dot(cell, ORANGE, radius=1.0)
    panels = [
        Panel("image" if not shown else "the people's poses", _poses(scene, scene.shown, _LARGE)),
        Panel(f"centre map, highest {float(centers.max()):.2g}", view.canvas),
    ]
    text = (
        f"The centre map: the probability of each cell of {grid[0]:g} pixels (of the network's input) to be a "
        f"person's centre. White crosses: the centres of the people drawn. {scene.selection(scene.shown)} Orange dots: "
        f"the other peaks, which are people of lower scores, or which OKS-NMS drops.{_of_smoothed(scene.model)}"
    )
    caption = scene.caption("CID, section 3.2 and Figure 3", text, of_person=False)
    return arrange([panels], caption, ("0", "highest value"))


def draw_recalibration(scene: Scene) -> np.ndarray:
    """Draw people's masks, instance-aware feature maps and heatmaps, a row for each (Figure 4): (h, w, 3) uint8 RGB."""
    grid, rows = scene.values["grid"][0].tolist(), scene.first(_MAX_PEOPLE)
    features, heatmaps = of_people(scene, "instance_features").mean(dim=1), of_people(scene, "heatmaps")
    masks = of_people(scene, "masks") if "masks" in scene.values else None
    side, _ = panel_size(scene, grid[0])
    lines = []
    for row in rows:
        score = float(scene.people.scores[row])
        panels = [Panel(f"person {row + 1}, score {score:.2f}", _poses(scene, [row], side))]
        if masks is not None:
            title = f"mask M, highest {float(masks[row].max()):.2g}"
            panels.append(Panel(title, View(scene, side=side).heat(masks[row], grid, highest=1).canvas))
        title = f"features, highest mean {float(features[row].max()):.2g}"
        panels.append(Panel(title, View(scene, side=side).heat(features[row], grid).canvas))
        highest = heatmaps[row].amax(dim=0)
        view = View(scene, side=side).heat(highest, grid)
        panels.append(Panel(f"heatmaps, highest {float(highest.max()):.2g}", view.canvas))
        lines.append(panels)
    spatial = "the foreground mask of the spatial recalibration (Eq. 10), from 0 to 1; " if masks is not None else ""
    text = (
        f"Instance decoupling, a row for each person: {spatial}the instance-aware feature map (Eq. 12), mean of its "
        f"channels; and the keypoint heatmaps, maximum over the keypoints, a probability. {scene.selection(rows)}"
    )
    caption = scene.caption("CID, section 3.3 and Figure 4", text, of_person=False)
    return arrange(lines, caption, ("0", "highest value of the panel; of a mask, 1"))


def draw_channels(scene: Scene) -> np.ndarray:
    """Draw people's channel weights (Eq. 11), a row for each: (h, w, 3) uint8 RGB."""
    from matplotlib.figure import Figure as Plot

    rows = scene.first(_MAX_WEIGHTS)
    weights = of_people(scene, "channel_weights")[rows].float().numpy()
    limit = float(np.abs(weights).max()) or 1.0
    plot = Plot(figsize=(8.6, 1.5 + 0.32 * len(rows)), dpi=100, layout="constrained")
    axes = plot.subplots()
    image = axes.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_yticks(range(len(rows)), [f"person {row + 1}" for row in rows])
    axes.set_xlabel("channel of F-hat")
    plot.colorbar(image, ax=axes, label="weight")
    text = (
        "Channel recalibration: the weights (without unit) that multiply the channels of the map F-hat for each person "
        f"(Eq. 11). Channels whose weights differ tell the people apart. {scene.selection(rows)}"
    )
    scores = [float(scene.people.scores[row]) for row in rows]
    people = [
        Panel(f"person {row + 1}, score {score:.2f}", _poses(scene, [row], _SMALL)) for row, score in zip(rows, scores)
    ]
    lines = [[plot_panel("channel weights", plot)], *in_rows(people, _COLUMNS)]
    return arrange(lines, scene.caption("CID, section 3.3", text, of_person=False))


def draw_heatmaps(scene: Scene) -> np.ndarray:
    """Draw the heatmaps of one person, a panel per keypoint (Figure 4): (h, w, 3) uint8 RGB."""
    grid, maps = scene.values["grid"][0].tolist(), of_people(scene, "heatmaps")[scene.person]
    text = (
        f"Keypoint heatmaps of one person: the probability of each cell of {grid[0]:g} pixels (of the network's "
        "input), in units of the panel's highest value, which is above it. Green: around the keypoint, a quarter "
        f"of a cell from the highest cell{' of the smoothed map' if scene.model.options.smoothing > 1 else ''}."
    )
    caption = scene.caption("CID, section 3.3 and Figure 4", text)
    return arrange(heatmap_rows(scene, maps, grid), caption, ("0", "highest value of the panel"))


def _of_smoothed(model):
    size = model.iia.smoothing
    return f" Peaks are those of the map averaged with its mean over {size} x {size} cells." if size > 1 else ""


def _poses(scene, rows, side):
    """The image with the poses of some people, in the size of a panel."""
    return View(scene, side=side, picture=scene.poses(rows) if rows else None).canvas


def _missing(part):
    def missing(model: Any) -> str:
        return "" if getattr(model.gfd, part) else f"MODEL.CID.RECALIBRATION does not contain {part!r}"

    return missing


FIGURES = (
    Figure(
        "centers",
        "the centre map and the centres of the people in it (Figure 3)",
        draw_centers,
        needs_person=False,
    ),
    Figure(
        "recalibration",
        "people's foreground masks (Eq. 10), instance-aware feature maps and heatmaps (Figure 4)",
        draw_recalibration,
    ),
    Figure("channels", "people's channel weights (Eq. 11)", draw_channels, _missing("channel")),
    Figure("heatmaps", "one person's heatmaps, a panel for each keypoint (Figure 4)", draw_heatmaps),
)
