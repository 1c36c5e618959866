"""InsPose (Shi et al., ACM MM 2021)."""

from . import method  # noqa: F401  registers the method
from .inspose import InsPose
from .released import InsPoseReleased

__all__ = ["InsPose", "InsPoseReleased"]
