"""Which rows of a model's parameters belong to which keypoint or class.

By this a checkpoint of other keypoints or classes keeps what it has learned of those that both have. A model says it by
two methods, both optional:

- ``keypoint_rows(note)``: of this network with the keypoints of ``note``, which is what a checkpoint says of itself:
  ``note["keypoints"]`` are K names, in order.
- ``class_rows(number)``: of this network with so many classes.

Both return groups, a list of dicts: name of a parameter -> owners of its rows (entries along its first axis). An owner
is a tuple of indices, of the keypoints or the class that the row is for, and () where it is for all. The rows of a
group's parameters are taken as one sequence: a keypoint's rows may be in another of them in the other network. The i-th
row of an owner stands for the i-th row of its counterpart.
"""


def layer_rows(owners_of_layers):
    """The groups of some layers, one of their weights and one of their biases.

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


def of_all(number):
    """Owners of ``number`` rows that all keypoints share."""
    return [()] * number


def of_each(number, rows=1):
    """Owners of so many successive rows for each of ``number`` keypoints or classes."""
    return [(index,) for index in range(number) for _ in range(rows)]


def of_generated(spec):
    """Owners of the parameters of a generated network.

    Args:
        spec (KPNetSpec): of the network; K keypoints, P parameters.

    Returns:
        list[tuple[int]]: P.
    """
    return [() if keypoint is None else (keypoint,) for keypoint in spec.param_keypoints]
