"""Selecting the categories of a file for training, and grouping them into classes."""

from dataclasses import dataclass, replace
from typing import Any

from .faults import Fault, short
from .people import whole_number

__all__ = ["ALL_AS_ONE", "WHOLE_FILE", "PoseClass", "Selection", "categories_by_id", "select_classes"]

ALL_AS_ONE = "all as one"
"""Value of ``category`` that selects every category with keypoints, as one class."""

_MERGED_NAME = "object"


@dataclass(frozen=True)
class Selection:
    """The part of a file to read.

    Args:
        category (str | tuple[str] | None): the name of one category; names that are learned as one class;
            :data:`ALL_AS_ONE`; None = every category with keypoints is a separate class.
        classes (tuple[str] | None): names of the classes in the order of their indices, such as a model's. Categories
            of other names are skipped, and a class that the file lacks has no annotations. None = the order of the
            category ids.
        keypoints (tuple[str] | None): K names that replace those of the file.
        class_name (str | None): name of a single class; None = the name described in :class:`PoseClass`.
    """

    category: str | tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    keypoints: tuple[str, ...] | None = None
    class_name: str | None = None


WHOLE_FILE = Selection()
"""Every category with keypoints."""


@dataclass(frozen=True)
class PoseClass:
    """A class.

    Args:
        name (str): name of its category or, for several categories, their common ``supercategory``, else "object".
        category_ids (tuple[int]): ids of its categories in the file; () = the file has none.
        keypoints (tuple[str]): the keypoint names.
        category (dict): the first of its categories, with ``keypoints`` and, if the file has it, ``skeleton``.
    """

    name: str
    category_ids: tuple[int, ...]
    keypoints: tuple[str, ...]
    category: dict[str, Any]


def categories_by_id(data: dict[str, Any], json_file: str) -> dict[int, dict[str, Any]]:
    """Read the categories of a file.

    Args:
        data (dict): content of the file.
        json_file (str): the file, for messages.

    Returns:
        dict[int, dict]: by id, in the order of the file.

    Raises:
        DatasetError: a category lacks an id or a name, repeats an id, or has keypoints that are not a list of names.
    """
    by_id = {}
    for item in data["categories"]:
        category_id = whole_number(item.get("id"))
        if category_id is None or not isinstance(item.get("name"), str):
            raise _fault(
                json_file, f"category {short(item.get('name', item.get('id')))} lacks 'id' or 'name'", "add it"
            )
        if category_id in by_id:
            raise _fault(json_file, f"category id {category_id} occurs more than once", "give each category its own id")
        keypoints = item.get("keypoints")
        if keypoints and not (isinstance(keypoints, list) and all(isinstance(name, str) for name in keypoints)):
            raise _fault(
                json_file,
                f"category {item['name']!r}: keypoints is {short(keypoints)}",
                "write a list of names, or take it out",
            )
        by_id[category_id] = {**item, "id": category_id}
    return by_id


def select_classes(data: dict[str, Any], json_file: str, selection: Selection = WHOLE_FILE) -> list[PoseClass]:
    """Select the classes to learn.

    Categories of the same name and keypoints are one class.

    Args:
        data (dict): content of the file.
        json_file (str): the file, for messages.
        selection (Selection): the requested categories, classes and keypoints.

    Returns:
        list[PoseClass]: class ``i`` is the ``i``-th; ordered by the category ids, or by ``selection.classes`` if given.
        All have the same keypoints.

    Raises:
        DatasetError: a category or class does not exist or has no keypoints; categories of one class, or the classes,
            have different keypoints; ``class_name`` is given for several classes.
    """
    by_id = categories_by_id(data, json_file)
    selected = _select(by_id, data, json_file, selection)
    if selection.keypoints is not None:
        selected = [{**item, "keypoints": list(selection.keypoints)} for item in selected]
    for item in selected[1:]:
        _check_same_keypoints(selected[0], item, json_file)
    if selection.category is not None and not _names_one(selection.category):
        classes = [_as_class(_common_name(selected), selected)]
    else:
        grouped: dict[str, list[dict[str, Any]]] = {}
        for item in selected:
            grouped.setdefault(item["name"], []).append(item)
        classes = [_as_class(name, items) for name, items in grouped.items()]
    if selection.classes is not None:
        classes = _ordered(classes, selection.classes, json_file)
    if selection.class_name is None:
        return classes
    if len(classes) > 1:
        names = ", ".join(repr(item.name) for item in classes[:5])
        problem = f"class_name {selection.class_name!r} is given for {len(classes)} classes ({names})"
        raise _fault(json_file, problem, "choose one category, several as one, or omit class_name")
    return [replace(classes[0], name=selection.class_name)]


def _select(by_id, data, json_file, selection):
    """The requested categories with keypoints, in the order of their ids."""
    known = ", ".join(sorted({repr(item["name"]) for item in by_id.values()})) or "none"
    candidates = [by_id[category_id] for category_id in sorted(by_id)]
    wanted = selection.category
    if wanted is None or wanted == ALL_AS_ONE:
        wanted = selection.classes if wanted is None else None
        if wanted is not None:
            candidates = [item for item in candidates if item["name"] in wanted]
            if not candidates:
                raise _fault(
                    json_file, f"it has none of the classes {', '.join(wanted)} (it has: {known})", "correct classes"
                )
        selected = [item for item in candidates if item.get("keypoints")]
        if not selected and selection.keypoints is not None:
            selected = _with_annotated_keypoints(candidates, data)
        if not selected:
            raise _fault(
                json_file,
                f"none of its categories has keypoints (it has: {known})",
                "give the category a list 'keypoints' of names in the file, or give their names, or a known schema, "
                "where the data set is registered (keypoints: or schema: in DATASETS.POSE; to check-data with "
                "--keypoints or --schema)",
            )
        _check_twins(selected, by_id, json_file)
        return selected
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name in wanted:
        found = [item for item in candidates if item["name"] == name]
        if not found:
            raise _fault(json_file, f"it has no category {name!r} (it has: {known})", "correct category")
        if selection.keypoints is None and not any(item.get("keypoints") for item in found):
            raise _fault(
                json_file,
                f"category {name!r} has no keypoints",
                "give it a list 'keypoints' of names, or choose another",
            )
    selected = [item for item in candidates if item["name"] in wanted]
    _check_twins(selected, by_id, json_file)
    return [item for item in selected if item.get("keypoints") or selection.keypoints is not None]


def _check_twins(selected, by_id, json_file):
    """Refuse a category without keypoints if another of the same name has them: the file is ambiguous."""
    named = {item["name"]: item for item in selected if item.get("keypoints")}
    for item in by_id.values():
        twin = named.get(item["name"])
        if twin is not None and not item.get("keypoints"):
            raise _fault(
                json_file,
                f"two categories are called {item['name']!r}, id {twin['id']} with keypoints and id {item['id']} "
                "without",
                "give the second the same keypoints, or another name",
            )


def _check_same_keypoints(first, second, json_file):
    if first["keypoints"] == second["keypoints"]:
        return
    differ = f"different keypoints ({len(first['keypoints'])} and {len(second['keypoints'])})"
    if first["name"] == second["name"]:
        problem = f"two categories are called {first['name']!r}, ids {first['id']} and {second['id']}, with {differ}"
        raise _fault(json_file, problem, "give them the same keypoints, or other names")
    problem = f"categories {first['name']!r} and {second['name']!r} have {differ}"
    raise _fault(json_file, problem, "choose one of them with category=")


def _with_annotated_keypoints(candidates, data):
    """Categories to use with given keypoint names: the only one, or those whose annotations have keypoints."""
    if len(candidates) < 2:
        return candidates
    used = {item.get("category_id") for item in data.get("annotations", ()) if item.get("keypoints")}
    return [item for item in candidates if item["id"] in used]


def _names_one(category):
    return isinstance(category, str) and category != ALL_AS_ONE


def _common_name(categories):
    names = {item["name"] for item in categories}
    if len(names) == 1:
        return names.pop()
    groups = {item.get("supercategory") for item in categories}
    group = groups.pop() if len(groups) == 1 else None
    return group if isinstance(group, str) and group else _MERGED_NAME


def _as_class(name, categories):
    keypoints = tuple(categories[0]["keypoints"])
    return PoseClass(name, tuple(item["id"] for item in categories), keypoints, categories[0])


def _ordered(classes, names, json_file):
    """The classes with these names, in this order; classes that the file lacks have no category."""
    by_name = {item.name: item for item in classes}
    if not set(names) & set(by_name):
        found = ", ".join(map(repr, by_name))
        raise _fault(json_file, f"it has none of the classes {', '.join(names)} (it has: {found})", "correct classes")
    keypoints, category = classes[0].keypoints, classes[0].category
    return [by_name.get(name, PoseClass(name, (), keypoints, category)) for name in names]


def _fault(json_file, problem, remedy):
    return Fault(json_file, "categories", problem, remedy).error()
