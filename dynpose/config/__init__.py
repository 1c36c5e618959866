"""Config keys of dynpose on top of detectron2's."""

from .defaults import add_dynpose_config
from .loading import ConfigError, load_config

__all__ = ["ConfigError", "add_dynpose_config", "load_config"]
