"""InsPose (Shi et al., ACM MM 2021)."""

from .inspose import InsPose
from .released import InsPoseReleased

__all__ = ["InsPose", "InsPoseReleased"]
