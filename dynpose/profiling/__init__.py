"""What measuring a model needs: a fixed number of detections in an image, and counted FLOPs."""

from . import keypoint_rcnn  # noqa: F401  registers the peer that the methods are compared with
