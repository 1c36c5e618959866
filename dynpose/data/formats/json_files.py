"""Reading JSON files whose format is not known yet."""

import json
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["load_json"]


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
