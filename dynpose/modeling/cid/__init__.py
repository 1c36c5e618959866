"""CID, Contextual Instance Decoupling (Wang and Zhang, CVPR 2022)."""

from .abstraction import InstanceAbstraction, People
from .cid import CID
from .decoupling import FeatureDecoupling

__all__ = ["CID", "FeatureDecoupling", "InstanceAbstraction", "People"]
