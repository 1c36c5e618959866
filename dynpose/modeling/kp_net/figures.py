"""Figures of generated keypoint networks: heatmaps of one person and of all, and the offsets at the heatmaps' peaks.

They read the results of :mod:`dynpose.modeling.kp_net.intermediates`: ``heatmaps``, ``grid`` and, where the model has
offsets, ``offset_starts``, ``offset_ends`` and ``offset_radius``.
"""

import numpy as np
import torch

from dynpose.modeling.figures import GREEN, ORANGE, Panel, Scene, View, arrange, heatmap_rows, in_rows, panel_size

__all__ = ["draw_heatmaps", "draw_offsets", "draw_people"]

# Panels in a row, and people in one figure
_COLUMNS, _MAX_PEOPLE = 6, 11
# Half the side of what is seen around a keypoint, cells
_WINDOW = 3.5


def draw_heatmaps(scene: Scene, source: str) -> np.ndarray:
    """Draw the heatmaps of one person, a panel per keypoint, over the whole image.

    Args:
        scene: of a model with KP-Nets.
        source: method and section for the caption.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    maps, grid = scene.value("heatmaps")[scene.person], scene.values["grid"][0].tolist()
    text = (
        "Heatmaps of one person: the network that is generated for this person runs over the whole image. A panel for "
        f"each keypoint shows the softmax probability of each cell of {grid[0]:g} pixels (of the network's input), in "
        "units of the panel's highest value, which is above it. Green: around the keypoint."
    )
    rows = heatmap_rows(scene, maps, grid)
    return arrange(rows, scene.caption(source, text), ("0", "highest value of the panel"))


def draw_people(scene: Scene, source: str) -> np.ndarray:
    """Draw the heatmaps of several people: together, and each one's.

    Args:
        scene: of a model with KP-Nets.
        source: method and section for the caption.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    rows, grid = scene.shown, scene.values["grid"][0].tolist()
    # each heatmap in units of its highest value, then the maximum over the keypoints
    maps = scene.value("heatmaps")[rows]
    of_people = (maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)).amax(dim=1)
    side, columns = panel_size(scene, grid[0])
    panels = [
        Panel("the people's poses", View(scene, side=side, picture=scene.poses(rows)).canvas),
        Panel("together", View(scene, side=side).heat(of_people.amax(dim=0), grid, highest=1).canvas),
    ]
    with_panel = scene.first(_MAX_PEOPLE)
    for row, values in zip(rows, of_people):
        if row not in with_panel:
            continue
        view = View(scene, side=side).heat(values, grid, highest=1).box(scene.people.boxes[row])
        panels.append(Panel(f"person {row + 1}, score {float(scene.people.scores[row]):.2f}", view.canvas))
    left_out = f" {len(with_panel)} of them have a panel." if len(rows) > len(with_panel) else ""
    text = (
        "Heatmaps of people: each person has a generated network, trained to respond to that person's keypoints "
        "only. A panel shows the maximum over the keypoints, each in units of its highest softmax probability; white: "
        f"the person's box. {scene.selection(rows)}{left_out}"
    )
    caption = scene.caption(source, text, of_person=False)
    return arrange(in_rows(panels, columns), caption, ("0", "a keypoint's highest value"))


def draw_offsets(scene: Scene, source: str) -> np.ndarray:
    """Draw the offsets of the cells around each peak, a panel per keypoint.

    Args:
        scene: of a model with KP-Nets and offsets.
        source: method and section for the caption.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    starts, ends = (scene.value(name)[scene.person] for name in ("offset_starts", "offset_ends"))
    (stride, _), radius = scene.values["grid"][0].tolist(), float(scene.values["offset_radius"][0])
    picture = scene.poses([scene.person])
    panels = [Panel("the person's pose", View(scene, scene.around_person(scene.person), picture=picture).canvas)]
    for name, start, end, keypoint in zip(scene.schema.names, starts, ends, scene.people.keypoints[scene.person]):
        # the middle of the cells around it
        peak = start[len(start) // 2]
        window = peak + stride * _WINDOW * torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
        view = View(scene, scene.around(window, margin=0.0, least_side=1.0))
        for tail, head in zip(start, end):
            if bool(tail.isfinite().all() & head.isfinite().all()):
                view.dot(tail, ORANGE, radius=1.5).arrow(tail, head)
        if radius > 0:
            view.circle(keypoint[:2], radius)
        panels.append(Panel(name, view.cross(peak).dot(keypoint[:2], GREEN, radius=2.5).canvas))
    supervised = ""
    if radius > 0:
        supervised = f" Dotted circle: the {radius:g} pixels around it in which training supervises offsets."
    elif radius == 0:
        supervised = " Training supervises the offset of the keypoint's cell alone."
    text = (
        f"Offsets around the peaks of one person: orange dots are the centres of cells of {stride:g} pixels (of the "
        "network's input), green arrows the offsets that are predicted there. White cross: centre of "
        f"the highest cell; its arrow ends at the keypoint, the green dot.{supervised}"
    )
    return arrange(in_rows(panels, _COLUMNS), scene.caption(source, text))
