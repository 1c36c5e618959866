"""Reading JSON and YAML files whose format is not known yet."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import yaml

__all__ = ["load_json", "load_yaml", "syntax_error"]

_YAML = (".yaml", ".yml")


def load_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8, UTF-16 or UTF-32; None for any other file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        pass  # a byte-order mark, another encoding or a NaN, which the standard library reads
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; None for any other file."""
    if path.suffix not in _YAML:
        return None
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError, OSError):  # a date may be invalid
        return None


def syntax_error(path: Path) -> str | None:
    """What makes a file no JSON, YAML or XML, whichever its name says; None if nothing does."""
    suffix = path.suffix.lower()
    try:
        content = path.read_bytes()
        if suffix == ".json":
            json.loads(content)
        elif suffix in _YAML:
            yaml.safe_load(content)
        elif suffix == ".xml":
            ElementTree.fromstring(content)
    except OSError as error:
        return f"it can't be read ({error.strerror or error})"
    except (yaml.YAMLError, ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace(' in "<byte string>",', " at").split())
        return f"it is not valid {suffix[1:].upper()} ({reason})"
    return None
