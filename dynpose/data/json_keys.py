"""Finding repeated keys of a JSON object, which parsers ignore: the last one wins, the content of the other is lost."""

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

__all__ = ["repeated_item_key", "repeated_key"]

_KEY = rb'\s*[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*'
_BEFORE_A_VALUE = re.compile(_KEY)


def repeated_key(content: bytes) -> str | None:
    """Find a key that the outermost object of a JSON text has more than once.

    msgspec gives the extent of each key's last value without parsing it; if more than one key stands between two of
    these values, a value has been replaced. This takes a tenth of the time of parsing. Content that msgspec refuses,
    such as UTF-16 and NaN, is parsed by the standard library.

    Args:
        content (bytes): JSON.

    Returns:
        str | None: the first repeated key; None if there is none, or if ``content`` is not an object.
    """
    try:
        values = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).values()
    except (ValueError, RecursionError):
        return _by_standard_library(content)
    start, end = _address(content), 0
    for first, length in sorted((_address(value) - start, len(memoryview(value))) for value in values):
        # the key of a replaced value is the first of several
        key = _BEFORE_A_VALUE.match(content, end, first)
        if key is None or key.end() < first:
            return json.loads(key[1]) if key else None
        end = first + length
    key = _BEFORE_A_VALUE.match(content, end)
    return json.loads(key[1]) if key else None


def repeated_item_key(
    content: bytes, lists: dict[str, list[dict[str, Any]]], keys: Sequence[str]
) -> tuple[str, int, str] | None:
    """Find an object in some lists that has a key more than once.

    If each key occurs as often in the file as in the parsed objects, no further check is needed; this takes a tenth of
    the time of parsing. Otherwise, for example if nested objects have keys of the same names, the file is parsed again.

    Args:
        content (bytes): JSON, an object.
        lists (dict[str, list[dict]]): parsed values of the outermost object, by their keys.
        keys (Sequence[str]): the keys to check, ASCII.

    Returns:
        tuple[str, int, str] | None: list and index of the first such object, and the key; None if there is none.
    """
    counts = {key: sum(key in item for items in lists.values() for item in items) for key in keys}
    # In another encoding the count is 0, which is a difference too. A key repeated in escaped characters is missed.
    if all(content.count(f'"{key}"'.encode()) == count for key, count in counts.items()):
        return None
    data = json.loads(content, object_pairs_hook=_Object)
    for name in lists:
        for index, item in enumerate(data[name]):
            for key in item.repeated.intersection(keys):
                return name, index, key
    return None


class _Object(dict):
    """A JSON object that records its repeated keys."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.repeated = set()
        if len(self) < len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated = {key for key in keys if keys.count(key) > 1}


def _address(buffer):
    return np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]


def _by_standard_library(content):
    pairs = []

    def keep(found):
        # the outermost object comes last; nested objects are not needed
        pairs[:] = found

    try:
        is_object = json.loads(content, object_pairs_hook=keep) is None
    except (ValueError, RecursionError):
        return None
    keys = [key for key, _ in pairs] if is_object else []
    return next((key for i, key in enumerate(keys) if key in keys[:i]), None)
