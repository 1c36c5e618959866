"""Profiling of models: injecting a fixed number of detections, and counting FLOPs."""

from . import keypoint_rcnn  # noqa: F401  registers the peer of the methods
