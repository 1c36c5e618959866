"""People from single labelled points: many tools mark keypoints one by one and join them by a group or a parent."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..known_schema_data import KNOWN_TABLES
from .project import Notes, PoseCategory, PoseImage, PosePerson, ReadOptions

__all__ = ["DEFAULT_CATEGORY", "BoxMark", "MarkedImage", "PointMark", "group_people"]

DEFAULT_CATEGORY = "object"
"""Name of the category of people without a labelled box."""


@dataclass
class PointMark:
    """A labelled point: name of the keypoint, x and y in pixels, visibility 0, 1 or 2, and its group or None."""

    label: str
    x: float
    y: float
    visibility: int
    group: Hashable | None


@dataclass
class BoxMark:
    """A labelled box: name of the category, x, y, width, height in pixels, and its group or None."""

    label: str
    box: tuple[float, float, float, float]
    group: Hashable | None


@dataclass
class MarkedImage:
    """The marks of an image; ``source`` is the annotation file."""

    image: PoseImage
    source: str
    points: list[PointMark] = field(default_factory=list)
    boxes: list[BoxMark] = field(default_factory=list)


@dataclass
class _Group:
    points: list[PointMark]
    box: BoxMark | None = None
    category: str | None = None


def group_people(
    marked: Sequence[MarkedImage], options: ReadOptions, notes: Notes, *, remedy: str
) -> list[PoseCategory]:
    """Join points and boxes of the same group to people.

    Marks without a group are one person if their image has no groups and no two points of one label. A box without
    points is a person without labelled keypoints if its label is that of a person's box in the project.

    Args:
        marked: the images; their ``people`` are set.
        options: ``keypoints`` gives the order of the names.
        notes: receives the faults: points of no person, or two points of one label in a group.
        remedy: for these faults, how the tool joins points.

    Returns:
        list[PoseCategory]: their keypoints in the order given, else that of the published schema with these names, else
        of the person with most points, followed by the others as they occur.
    """
    groups = [(item, group) for item in marked for group in _groups(item, notes, remedy)]
    labels = list(dict.fromkeys(group.box.label for _, group in groups if group.box is not None and group.points))
    default = labels[0] if len(labels) == 1 else DEFAULT_CATEGORY
    kept = []
    for item, group in groups:
        if group.box is not None and not group.points and group.box.label not in labels:
            notes.lose(f"boxes {group.box.label!r} without keypoints", item.image.name)
            continue
        group.category = default if group.box is None else group.box.label
        kept.append((item, group))
    orders = _orders(kept, options, notes)
    for item, group in kept:
        assert group.category is not None
        names = orders[group.category]
        keypoints = np.zeros((len(names), 3))
        for point in group.points:
            if point.label in names and point.visibility:
                keypoints[names.index(point.label)] = point.x, point.y, point.visibility
        box = None if group.box is None else group.box.box
        item.image.people.append(PosePerson(group.category, keypoints, box))
    return [PoseCategory(name, names) for name, names in orders.items()]


def _groups(item: MarkedImage, notes: Notes, remedy: str) -> list[_Group]:
    by_key: dict[Hashable, _Group] = defaultdict(lambda: _Group([]))
    loose_points = [point for point in item.points if point.group is None]
    loose_boxes = [box for box in item.boxes if box.group is None]
    for point in item.points:
        if point.group is not None:
            by_key[point.group].points.append(point)
    for box in item.boxes:
        if box.group is None:
            continue
        if by_key[box.group].box is None:
            by_key[box.group].box = box
        else:
            notes.lose("further boxes of a group", item.image.name)
    groups = list(by_key.values())
    if loose_points:
        repeated = [label for label, count in Counter(point.label for point in loose_points).items() if count > 1]
        if groups or repeated:
            what = f"points without a group: {len(loose_points)}, the first is {loose_points[0].label!r}"
            notes.fault(item.source, "groups", f"image {item.image.name!r}: {what}", remedy)
            return []
        # one person: its points are apart from those of others, if its box is the only one
        only = loose_boxes.pop() if len(loose_boxes) == 1 else None
        groups.append(_Group(loose_points, only))
    groups += [_Group([], box) for box in loose_boxes]
    for group in groups:
        repeated = [label for label, count in Counter(point.label for point in group.points).items() if count > 1]
        if repeated:
            what = f"two points {repeated[0]!r} in one group"
            notes.fault(item.source, "groups", f"image {item.image.name!r}: {what}", remedy)
    return groups


def _orders(
    kept: Iterable[tuple[MarkedImage, _Group]], options: ReadOptions, notes: Notes
) -> dict[str, tuple[str, ...]]:
    """Keypoint names by category. Categories that share a name have the same keypoints."""
    people: dict[str, list[list[str]]] = {}
    sources: dict[str, str] = {}
    for item, group in kept:
        assert group.category is not None
        labels = [point.label for point in group.points]
        people.setdefault(group.category, []).append(labels)
        for label in labels:
            sources.setdefault(label, f"{item.source}: image {item.image.name!r}")
    together = _joined(people)
    orders = {}
    for category in people:
        labels_of = [labels for other in together[category] for labels in people[other]]
        orders[category] = _order(labels_of, sources, options, notes)
    return orders


def _joined(people: dict[str, list[list[str]]]) -> dict[str, list[str]]:
    """Category -> the categories that share keypoint names with it, directly or through others."""
    names = {category: {label for labels in rows for label in labels} for category, rows in people.items()}
    joined = {}
    for category in people:
        members, seen = [category], set(names[category])
        while more := [other for other in people if other not in members and names[other] & seen]:
            members += more
            seen |= set().union(*(names[other] for other in more))
        joined[category] = [other for other in people if other in members]
    return joined


def _order(people: list[list[str]], sources: dict[str, str], options: ReadOptions, notes: Notes) -> tuple[str, ...]:
    found = list(dict.fromkeys(label for labels in people for label in labels))
    if options.keypoints is not None:
        for label in found:
            if label not in options.keypoints:
                remedy = "name it in --keypoints, or take it out of the project"
                notes.fault("--keypoints", "keypoints", f"no {label!r}, which is in {sources[label]}", remedy)
        return options.keypoints
    for table in KNOWN_TABLES.values():
        if set(table.names) == set(found):
            return table.names
    most = max(people, key=len, default=[])
    order = tuple(dict.fromkeys([*most, *found]))
    if len(order) > 1:
        notes.remark("keypoints in the order of drawing, since the project has none (--keypoints gives one)", order[0])
    return order
