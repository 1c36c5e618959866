"""CID, Contextual Instance Decoupling (Wang and Zhang, CVPR 2022)."""

from . import method  # noqa: F401  registers the method
from .abstraction import InstanceAbstraction, People
from .cid import CID
from .decoupling import FeatureDecoupling

__all__ = ["CID", "FeatureDecoupling", "InstanceAbstraction", "People"]
