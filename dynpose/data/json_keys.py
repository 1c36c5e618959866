"""Keys that a JSON object has twice, which parsers pass over: the last one wins, the other's content is lost."""

import json
import re

import msgspec
import numpy as np

__all__ = ["repeated_item_key", "repeated_key"]

_KEY = rb'\s*[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*'
_BEFORE_A_VALUE = re.compile(_KEY)


def repeated_key(content):
    """Find a key that the outermost object of a JSON text has more than once.

    msgspec gives the extent of each key's last value without parsing it; where more than one key stands between two of
    these values, a value has been replaced. That takes a tenth of the time of parsing. What msgspec refuses, such as
    UTF-16 and NaN, is parsed by the standard library.

    Args:
        content (bytes): JSON.

    Returns:
        str | None: the first such key; None where there is none, and where ``content`` is no such object.
    """
    try:
        values = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).values()
    except (ValueError, RecursionError):
        return _by_standard_library(content)
    start, end = _address(content), 0
    for first, length in sorted((_address(value) - start, len(memoryview(value))) for value in values):
        # of a value that has been replaced, the key is the first of several
        key = _BEFORE_A_VALUE.match(content, end, first)
        if key is None or key.end() < first:
            return json.loads(key[1]) if key else None
        end = first + length
    key = _BEFORE_A_VALUE.match(content, end)
    return json.loads(key[1]) if key else None


def repeated_item_key(content, lists, keys):
    """Find an object of some lists that has a key more than once.

    A file in which each key stands as often as the parsed objects have it is not looked at any further; that takes a
    tenth of the time of parsing it. Otherwise, as where attributes have keys of the same names, it is parsed once more.

    Args:
        content (bytes): JSON, an object.
        lists (dict[str, list[dict]]): what was parsed of it: values of the outermost object, by their keys.
        keys (Sequence[str]): those that matter, ASCII.

    Returns:
        tuple[str, int, str] | None: the first such object's list and index, and the key; None where there is none.
    """
    counts = {key: sum(key in item for items in lists.values() for item in items) for key in keys}
    # In another encoding none is counted, which is a difference too. A key in escaped characters beside the plain one
    # is missed.
    if all(content.count(f'"{key}"'.encode()) == count for key, count in counts.items()):
        return None
    data = json.loads(content, object_pairs_hook=_Object)
    for name in lists:
        for index, item in enumerate(data[name]):
            for key in item.repeated.intersection(keys):
                return name, index, key
    return None


class _Object(dict):
    """A JSON object that knows which of its keys it had more than once."""

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
        # the outermost object comes last; what is inside it is not needed
        pairs[:] = found

    try:
        is_object = json.loads(content, object_pairs_hook=keep) is None
    except (ValueError, RecursionError):
        return None
    keys = [key for key, _ in pairs] if is_object else []
    return next((key for i, key in enumerate(keys) if key in keys[:i]), None)
