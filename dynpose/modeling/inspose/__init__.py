"""InsPose (Shi et al., ACM MM 2021)."""

from . import method  # noqa: F401  registers the methods
from .branches import AuxHeatmap, DiskOffsets, KeypointFeatures
from .inspose import InsPose, InsPoseOptions
from .released import InsPoseReleased, ReleasedOptions

__all__ = [
    "AuxHeatmap",
    "DiskOffsets",
    "InsPose",
    "InsPoseOptions",
    "InsPoseReleased",
    "KeypointFeatures",
    "ReleasedOptions",
]
