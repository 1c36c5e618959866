"""InsPose (Shi et al., ACM MM 2021)."""

from .inspose import InsPose, InsPoseOptions
from .released import InsPoseReleased, ReleasedOptions

__all__ = ["InsPose", "InsPoseOptions", "InsPoseReleased", "ReleasedOptions"]
