"""Annotation projects of other tools: reading them, and writing COCO keypoints and YOLO-pose."""

from .convert import Conversion, Request, convert
from .project import CORNER, INDEX, Notes, Origin, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions
from .registry import FORMATS, Format, detect_format

__all__ = [
    "CORNER",
    "FORMATS",
    "INDEX",
    "Conversion",
    "Format",
    "Notes",
    "Origin",
    "PoseCategory",
    "PoseImage",
    "PosePerson",
    "PoseProject",
    "ReadOptions",
    "Request",
    "convert",
    "detect_format",
]
