"""The configs that come with dynpose, and their models, by name. The interface is that of detectron2's model zoo."""

from .model_zoo import get, get_config, get_config_file

__all__ = ["get", "get_config", "get_config_file"]
