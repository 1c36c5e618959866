"""Transferring rows of parameters from a network with other keypoints or classes.

The model assigns rows to keypoints or classes, as in :mod:`dynpose.modeling.parameter_rows`, which also defines
"groups" and "owners". This module is independent of the methods.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Owners of the rows of each parameter of a group, by the parameter's name
RowGroup = Mapping[str, Sequence[tuple[int, ...]]]


class CarriedRows(NamedTuple):
    """The result of :func:`carry_rows`.

    Attributes:
        changed (list[str]): parameters of the model with transferred rows.
        unknown (list[str]): unchanged parameters, since those of the weights do not have the described form.
        exact (bool): whether every row of the model was transferred, each from the same owner.
    """

    changed: list[str]
    unknown: list[str]
    exact: bool


def carry_rows(
    weights: dict[str, Tensor],
    state: Mapping[str, Tensor],
    ours: Sequence[RowGroup],
    theirs: Sequence[RowGroup],
    match: Sequence[int | None],
) -> CarriedRows:
    """Rearrange weights of other keypoints or classes for a model, in place.

    A row receives the values of the row with the same owner. A row of several keypoints, such as that of a part,
    receives the values of the owner that shares most of them. Without such an owner, a row keeps the model's values.

    Args:
        weights (dict[str, Tensor]): weights of the checkpoint, under the model's names.
        state (dict[str, Tensor]): state dict of the model.
        ours, theirs (list[dict]): the same groups of the model and of the checkpoint.
        match (Sequence[int | None]): for each keypoint or class of the model, that of the checkpoint.

    Returns:
        CarriedRows
    """
    changed: list[str] = []
    unknown: list[str] = []
    exact = True
    for our_group, their_group in zip(ours, theirs, strict=True):
        old = [torch.as_tensor(weights[name]) for name in their_group if name in weights]
        new = [state[name] for name in our_group]
        all_fit = fits(weights, their_group) and fits(state, our_group)
        if not all_fit or {value.shape[1:] for value in old} != {value.shape[1:] for value in new}:
            unknown += our_group
            exact = False
            continue
        values = torch.cat([value.detach().cpu() for value in new])
        rows, sources, is_exact = _pair_rows(_owners(our_group), _owners(their_group), match)
        values[rows] = torch.cat(old)[sources].to(values.dtype)
        for name in their_group:
            del weights[name]
        weights.update(zip(our_group, values.split([len(owners) for owners in our_group.values()])))
        changed += our_group
        exact = exact and is_exact
    return CarriedRows(changed, unknown, exact)


def fits(weights: Mapping[str, Tensor], group: RowGroup) -> bool:
    """Whether weights have all parameters of a group, with its numbers of rows."""
    return all(name in weights and weights[name].shape[:1] == (len(owners),) for name, owners in group.items())


def _owners(group):
    return [owner for owners in group.values() for owner in owners]


def _pair_rows(ours, theirs, match):
    """The target rows, their source rows, and whether the result is the same network."""
    our_rows, their_rows = _rows_of(ours), _rows_of(theirs)
    counterparts = _counterparts(list(our_rows), list(their_rows), match)
    rows, sources, exact = [], [], True
    for owner, its_rows in our_rows.items():
        counterpart = counterparts[owner]
        if counterpart is None or len(their_rows[counterpart]) != len(its_rows):
            exact = False
            continue
        rows += its_rows
        sources += their_rows[counterpart]
        exact = exact and set(counterpart) == {match[index] for index in owner}
    return rows, sources, exact


def _rows_of(owners):
    """Owner -> its rows, in order."""
    rows = {}
    for row, owner in enumerate(owners):
        rows.setdefault(owner, []).append(row)
    return rows


def _matched(owner, match):
    return {match[index] for index in owner} - {None}


def _counterparts(ours, theirs, match):
    """Each of our owners -> the one of theirs that shares most keypoints, or None."""
    counterparts = {}
    for owner in ours:
        shared = [len(_matched(owner, match) & set(other)) for other in theirs]
        best = max(range(len(theirs)), key=shared.__getitem__)
        same = () if not owner and () in theirs else None
        counterparts[owner] = theirs[best] if shared[best] else same
    if len(ours) == len(theirs):
        # a part that shares no keypoint, such as a head with other keypoints, starts from the part at its position
        for owner, other in zip(ours, theirs):
            if counterparts[owner] is None and min(len(owner), len(other)) > 1 and other not in counterparts.values():
                counterparts[owner] = other
    return counterparts
