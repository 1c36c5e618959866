"""Config keys of dynpose on top of detectron2's."""

from .checks import (
    blame,
    check_at_least_one,
    check_at_most_1,
    check_between_0_and_1,
    check_choice,
    check_choices,
    check_focal_alpha,
    check_from_0_to_1,
    check_image_format,
    check_increasing,
    check_length,
    check_norm,
    check_not_negative,
    check_odd,
    check_positive,
    read_key,
)
from .defaults import add_dynpose_config
from .errors import ConfigError
from .files import config_names, find_config_file
from .lazy import get_attribute, set_plain
from .loading import load_config, read_yaml

__all__ = [
    "ConfigError",
    "add_dynpose_config",
    "blame",
    "check_at_least_one",
    "check_at_most_1",
    "check_between_0_and_1",
    "check_choice",
    "check_choices",
    "check_focal_alpha",
    "check_from_0_to_1",
    "check_image_format",
    "check_increasing",
    "check_length",
    "check_norm",
    "check_not_negative",
    "check_odd",
    "check_positive",
    "config_names",
    "find_config_file",
    "get_attribute",
    "load_config",
    "read_key",
    "read_yaml",
    "set_plain",
]
