"""The published keypoint schemas by name: ``known_schema("coco_wholebody")``."""

from collections.abc import Sequence

from .known_schema_data import KNOWN_TABLES, table_by_keypoints
from .schema import DatasetError, KeypointSchema

__all__ = ["KNOWN_SCHEMAS", "keypoint_groups", "known_schema", "schema_by_keypoints"]

KNOWN_SCHEMAS = tuple(KNOWN_TABLES)
"""The names that :func:`known_schema` accepts."""


def known_schema(name: str) -> KeypointSchema:
    """Get a published schema: names in the order of its annotation, flip pairs, limbs, and sigmas if published.

    Args:
        name (str): one of :data:`KNOWN_SCHEMAS`; case, ``-``, ``_`` and blanks are ignored.

    Returns:
        KeypointSchema: K keypoints; its sigmas are the default if the authors publish none.

    Raises:
        DatasetError: no schema has this name.

    Example::

        >>> known_schema("AP-10K").num_keypoints
        17
    """
    for known, table in KNOWN_TABLES.items():
        if _plain(known) == _plain(name):
            return _schema(table)
    raise DatasetError(f"keypoint schema {name!r} is not known; known are {', '.join(KNOWN_SCHEMAS)}")


def schema_by_keypoints(names: Sequence[str]) -> KeypointSchema | None:
    """The published schema with exactly these keypoint names in this order.

    Args:
        names (Sequence[str]): K names.

    Returns:
        KeypointSchema | None
    """
    table = table_by_keypoints(names)
    return None if table is None else _schema(table)


def keypoint_groups(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The parts of a whole-body schema, which are evaluated separately.

    Args:
        names (Sequence[str]): K names, those of COCO-WholeBody or Halpe's 136 in any order.

    Returns:
        dict[str, tuple[int, ...]]: ``body``, ``feet``, ``face``, ``left_hand`` and ``right_hand``, each with the
        0-based indices of its keypoints in ``names``, in the order of the published schema; {} for other names.

    Example::

        >>> keypoint_groups(known_schema("coco_wholebody").names)["feet"]
        (17, 18, 19, 20, 21, 22)
    """
    index = {name: i for i, name in enumerate(names)}
    for table in KNOWN_TABLES.values():
        if table.groups and len(names) == len(table.names) and index.keys() == set(table.names):
            return {
                group: tuple(index[name] for name in table.names[start:stop]) for group, start, stop in table.groups
            }
    return {}


def _schema(table):
    return KeypointSchema(table.names, table.flip_pairs, table.skeleton, table.sigmas)


def _plain(name):
    return "".join(character for character in str(name).casefold() if character not in "-_ ")
