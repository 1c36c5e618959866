"""Multi-scale and flip testing for any pose model, detectron2's Keypoint R-CNN included.

The model sees an image at several sizes, and each of these mirrored as well: these are the views (:mod:`.views`). Its
predictions are merged as poses, which every model gives (:mod:`.merging`), or averaged as maps, where a model offers
them (:mod:`.averaging`, :class:`SupportsMapTTA`).

Axes: V views, N poses, G people, K keypoints, C channels, H x W cells of a map.
Coordinates are continuous pixels (x, y), in which mirroring an image of width w takes x to w - x.
"""

from .averaging import SupportsMapTTA, ViewMaps, resample_map
from .merging import merge_poses, mirror_poses
from .pose_tta import PoseTTA

__all__ = ["PoseTTA", "SupportsMapTTA", "ViewMaps", "merge_poses", "mirror_poses", "resample_map"]
