"""CID, Contextual Instance Decoupling (Wang and Zhang, CVPR 2022)."""

from . import method  # noqa: F401  registers the method
from .abstraction import InstanceAbstraction, People
from .cid import CID, CIDOptions
from .decoupling import FeatureDecoupling

__all__ = ["CID", "CIDOptions", "FeatureDecoupling", "InstanceAbstraction", "People"]
