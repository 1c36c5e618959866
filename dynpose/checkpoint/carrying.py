"""Carrying rows of parameters over from a network of other keypoints or classes.

Which rows are whose is told by the model, as in :mod:`dynpose.modeling.parameter_rows`: "groups" and "owners" here are
those of that module. No method is known here.
"""

from typing import NamedTuple

import torch


class CarriedRows(NamedTuple):
    """What :func:`carry_rows` has done.

    Attributes:
        changed (list[str]): parameters of the model with rows that were carried over.
        unknown (list[str]): those that were left as they are, since the weights have no such parameters as described.
        exact (bool): whether every row of the model was carried over, each from an owner that is the same.
    """

    changed: list
    unknown: list
    exact: bool


def carry_rows(weights, state, ours, theirs, match):
    """Rearrange weights of other keypoints or classes for a model, in place.

    A row takes over that of the same owner. One that serves several keypoints, such as a part's, takes over that of the
    owner with most of them. Where there is none, a row keeps the model's value.

    Args:
        weights (dict[str, Tensor]): of the checkpoint, under the model's names.
        state (dict[str, Tensor]): of the model.
        ours, theirs (list[dict]): the same groups of the model and of the checkpoint.
        match (Sequence[int | None]): of each of the model's keypoints or classes, the one of the checkpoint.

    Returns:
        CarriedRows
    """
    changed, unknown, exact = [], [], True
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


def fits(weights, group):
    """Whether weights have all parameters of a group, with as many rows as it says."""
    return all(name in weights and weights[name].shape[:1] == (len(owners),) for name, owners in group.items())


def _owners(group):
    return [owner for owners in group.values() for owner in owners]


def _pair_rows(ours, theirs, match):
    """The rows that are taken over, those that they are taken from, and whether that makes the same network."""
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
    """Each of our owners -> that of theirs with most of its keypoints, or None."""
    counterparts = {}
    for owner in ours:
        shared = [len(_matched(owner, match) & set(other)) for other in theirs]
        best = max(range(len(theirs)), key=shared.__getitem__)
        same = () if not owner and () in theirs else None
        counterparts[owner] = theirs[best] if shared[best] else same
    if len(ours) == len(theirs):
        # a part without any keypoint of theirs, such as a head of others, goes on from the part at its place
        for owner, other in zip(ours, theirs):
            if counterparts[owner] is None and min(len(owner), len(other)) > 1 and other not in counterparts.values():
                counterparts[owner] = other
    return counterparts
