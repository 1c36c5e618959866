"""Multi-scale and flip testing for any pose model, detectron2's Keypoint R-CNN included.

The model runs on several views of an image: copies of several sizes, and optionally their mirror images
(:mod:`.views`). Its predictions are merged as poses, for any model (:mod:`.merging`), or averaged as maps, for models
that provide them (:mod:`.averaging`, :class:`SupportsMapTTA`).

Axes: V views, N poses, G people, K keypoints, C channels, H x W cells of a map.
Coordinates are continuous pixels (x, y); mirroring an image of width w maps x to w - x.
"""

from .averaging import SupportsMapTTA, ViewMaps, resample_map
from .merging import merge_poses, mirror_poses
from .pose_tta import PoseTTA

__all__ = ["PoseTTA", "SupportsMapTTA", "ViewMaps", "merge_poses", "mirror_poses", "resample_map"]
