"""dynpose's configs and their models by name, with the interface of detectron2's model zoo."""

from .model_zoo import get, get_checkpoint_url, get_config, get_config_file

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]
