"""Config keys of dynpose on top of detectron2's."""

from .defaults import add_dynpose_config

__all__ = ["add_dynpose_config"]
