"""FCPose's figures, and the intermediate results that they are drawn from.

Axes: N people of the batch after NMS, K keypoints, H x W cells of F (with MODEL.FCPOSE.REFINEMENT "deconv", of the
up-sampled map), D = 25 cells around a peak. Positions are pixels of the network's input.

=================  ============  ==================================================================================
name               shape         value
=================  ============  ==================================================================================
``heatmaps``       (N, K, H, W)  softmax probabilities of the generated networks' heatmaps (section 3.1)
``peaks``          (N, K)        int64, flat index of the highest cell
``grid``           (2,)          stride of the heatmaps, and x and y of the first cell's centre
``offset_starts``  (N, K, D, 2)  centres of the cells around a peak; NaN outside the map
``offset_ends``    (N, K, D, 2)  where the offsets at these cells lead (section 3.2)
``offset_radius``  ()            distance from a keypoint within which offsets are supervised; NaN = no fixed one
=================  ============  ==================================================================================

The ``offset_*`` are absent with "deconv", and lead nowhere with "none". With "instance" they are a person's own.
"""

from typing import Any

from dynpose.methods import Figure
from dynpose.modeling.kp_net.figures import draw_heatmaps, draw_offsets, draw_people

from .refinement import InstanceOffsets, SharedOffsets

__all__ = ["FIGURES"]


def _missing_offsets(model: Any) -> str:
    if isinstance(model.refinement, (SharedOffsets, InstanceOffsets)):
        return ""
    return "MODEL.FCPOSE.REFINEMENT has no offsets; 'shared' and 'instance' have"


FIGURES = (
    Figure(
        "heatmaps",
        "one person's heatmaps from the generated network, a panel for each keypoint (Figure 3)",
        lambda scene: draw_heatmaps(scene, "FCPose, section 3.1 and Figure 3"),
    ),
    Figure(
        "people",
        "the heatmaps of all people together and of each one (Figure 3)",
        lambda scene: draw_people(scene, "FCPose, section 3.1 and Figure 3"),
    ),
    Figure(
        "offsets",
        "the offsets around the peaks of one person's heatmaps (section 3.2)",
        lambda scene: draw_offsets(scene, "FCPose, section 3.2"),
        _missing_offsets,
    ),
)
