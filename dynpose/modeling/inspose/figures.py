"""InsPose's figures, and the intermediate results that they are drawn from; of the paper's model and the released one.

Axes: N people of the batch after NMS, K keypoints, H x W cells of the maps (MODEL.INSPOSE.MAP_STRIDE; in the release,
twice P3's resolution), D = 25 cells around a peak. Positions are pixels of the network's input; in the released model
with INDEX_COORDINATES, pixel indices of it.

=================  ============  ==================================================================================
name               shape         value
=================  ============  ==================================================================================
``heatmaps``       (N, K, H, W)  softmax probabilities of the keypoint maps M (section 3.2, Eq. 2)
``peaks``          (N, K)        int64, flat index of the highest cell
``grid``           (2,)          stride of the maps, and x and y of the first cell's centre
``offset_starts``  (N, K, D, 2)  centres of the cells around a peak; NaN outside the map
``offset_ends``    (N, K, D, 2)  where the disk offsets at these cells lead (section 3.3, Eq. 3)
``offset_radius``  ()            radius R of the disk; NaN in the released model, whose radius grows with the person
=================  ============  ==================================================================================

The ``offset_*`` are absent with MODEL.INSPOSE.DISK_OFFSET False.
"""

from typing import Any

from dynpose.methods import Figure
from dynpose.modeling.kp_net.figures import draw_heatmaps, draw_offsets, draw_people

__all__ = ["FIGURES", "RELEASED_FIGURES"]


def _missing_offsets(model: Any) -> str:
    return "" if model.disk_offsets is not None else "MODEL.INSPOSE.DISK_OFFSET is False"


def _figures(name, missing_offsets):
    return (
        Figure(
            "heatmaps",
            "one person's keypoint maps from the generated network, a panel for each keypoint (Figure 1)",
            lambda scene: draw_heatmaps(scene, f"{name}, section 3.2 and Figure 1"),
        ),
        Figure(
            "people",
            "the keypoint maps of all people together and of each one (Figure 1)",
            lambda scene: draw_people(scene, f"{name}, section 3.2 and Figure 1"),
        ),
        Figure(
            "disk_offsets",
            "the disk offsets around the peaks of one person's keypoint maps (Figure 4)",
            lambda scene: draw_offsets(scene, f"{name}, section 3.3 and Figure 4"),
            missing_offsets,
        ),
    )


FIGURES = _figures("InsPose", _missing_offsets)
RELEASED_FIGURES = _figures("InsPose (release)", lambda model: "")
