"""Single-stage multi-person pose estimation with instance-aware networks, for detectron2."""

__version__ = "0.1.0"
