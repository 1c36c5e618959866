"""Mapping of a model's parameter rows to keypoints and classes.

When a checkpoint has other keypoints or classes than a model, the mapping transfers the rows of those in common. A
model provides it by two methods, both optional:

- ``keypoint_rows(note)``: for this network with the keypoints of ``note``, the metadata of a checkpoint:
  ``note["keypoints"]`` are K names, in order.
- ``class_rows(number)``: for this network with ``number`` classes.

Both return groups, a list of dicts: name of a parameter -> owners of its rows (entries along its first axis). An owner
is a tuple of indices, those of the row's keypoints or class, or () for a row that all share. The rows of a group's
parameters form one sequence: in the other network, a keypoint's rows may be in another parameter of the group. The
i-th row of an owner corresponds to the i-th row of the same owner in the other network.
"""

from collections.abc import Mapping

from dynpose.layers import KPNetSpec

# owners of a parameter's rows
Owners = list[tuple[int, ...]]


def layer_rows(owners_of_layers: Mapping[str, Owners]) -> list[dict[str, Owners]]:
    """Make the groups of layers, one of weights and one of biases.

    Args:
        owners_of_layers (dict[str, list[tuple[int]]]): name of a layer -> owners of its output channels.

    Returns:
        list[dict[str, list[tuple[int]]]]: two groups.

    Example::

        >>> layer_rows({"head.cls_logits": [(0,), (1,)]})
        [{'head.cls_logits.weight': [(0,), (1,)]}, {'head.cls_logits.bias': [(0,), (1,)]}]
    """
    return [
        {f"{name}.{parameter}": owners for name, owners in owners_of_layers.items()} for parameter in ("weight", "bias")
    ]


def of_all(number: int) -> Owners:
    """Owners of ``number`` rows that all keypoints share."""
    return [()] * number


def of_each(number: int, rows: int = 1) -> Owners:
    """Owners of ``rows`` successive rows for each of ``number`` keypoints or classes."""
    return [(index,) for index in range(number) for _ in range(rows)]


def of_generated(spec: KPNetSpec) -> Owners:
    """Owners of the parameters of a generated network.

    Args:
        spec (KPNetSpec): shape of the network; K keypoints, P parameters.

    Returns:
        list[tuple[int]]: P.
    """
    return [() if keypoint is None else (keypoint,) for keypoint in spec.param_keypoints]
