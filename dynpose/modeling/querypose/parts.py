"""Division of keypoints into the parts of part-level queries (section 4.2, Figure 4).

Axes: M parts, K keypoints.
"""

from collections.abc import Sequence

from dynpose.data.schema import COCO_PERSON, CROWDPOSE_PERSON, KeypointSchema

_COCO_HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_CROWDPOSE_HEAD = ("head", "neck")

# The parts below the head, which both datasets share
_LIMBS = {
    "b": tuple(
        (f"{side}_{joint}",)
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
    "c": (
        ("left_shoulder", "right_shoulder"),
        ("left_elbow", "left_wrist"),
        ("right_elbow", "right_wrist"),
        ("left_hip", "right_hip"),
        ("left_knee", "left_ankle"),
        ("right_knee", "right_ankle"),
    ),
    "d": (
        ("left_shoulder", "left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow", "right_wrist"),
        ("left_hip", "left_knee", "left_ankle"),
        ("right_hip", "right_knee", "right_ankle"),
    ),
}


def divide_into_parts(
    schema: KeypointSchema, division: str | Sequence[Sequence[str]] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Divide the keypoints of a schema into parts.

    The schemes of Figure 4, for schemas with the keypoint names of COCO (17) or CrowdPose (14), in any order:

    =======  ==========  ===============  ==========================================================
    scheme   M for COCO  M for CrowdPose  parts
    =======  ==========  ===============  ==========================================================
    ``"a"``  17          14               each keypoint
    ``"b"``  13          13               the head; each other keypoint
    ``"c"``  7           7                rigid ones: the head; the shoulders; left elbow and wrist;
                                          right elbow and wrist; the hips; left knee and ankle;
                                          right knee and ankle
    ``"d"``  5           5                the head; each arm with its shoulder; each leg with its hip
    =======  ==========  ===============  ==========================================================

    The head is COCO's nose, eyes and ears, or CrowdPose's head and neck. The order of the parts of ``"c"``, and of the
    keypoints in them, is that of the released weights.

    Args:
        schema (KeypointSchema): K keypoints.
        division (str | Sequence[Sequence[str]] | None): a scheme; ``"keypoints"``, one part per keypoint of any schema,
            equivalent to ``"a"``; the names of each part's keypoints; or None or ``"auto"`` = ``"c"`` if the names are
            COCO's or CrowdPose's, else ``"keypoints"``.

    Returns:
        tuple[tuple[int]]: the keypoint indices of each of the M parts.

    Raises:
        ValueError: if the scheme is unknown or does not fit the schema, or a keypoint is in no part, in two or unknown.

    Example::

        >>> divide_into_parts(KeypointSchema(names=("nose", "left_hoof", "right_hoof")),
        ...                   [["nose"], ["left_hoof", "right_hoof"]])
        ((0,), (1, 2))
    """
    if division is None or division == "auto":
        division = "c" if _head_of(schema) else "keypoints"
    if not isinstance(division, str):
        return _explicit(schema, division)
    if division in ("a", "keypoints"):
        return tuple((index,) for index in range(schema.num_keypoints))
    if division not in _LIMBS:
        raise ValueError(
            "division: expected 'auto', 'a', 'b', 'c', 'd', 'keypoints' or a list of lists of keypoint names, got "
            f"{division!r}"
        )
    head = _head_of(schema)
    if head is None:
        raise ValueError(
            f"division: scheme {division!r} needs the keypoints of COCO or CrowdPose, but the schema has "
            f"{', '.join(schema.names)}; give the parts as a list of lists of these names, or 'keypoints'"
        )
    return _explicit(schema, (head, *_LIMBS[division]))


def _head_of(schema):
    """Keypoints of the head, or None if the schema is neither COCO's nor CrowdPose's."""
    for known, head in ((COCO_PERSON, _COCO_HEAD), (CROWDPOSE_PERSON, _CROWDPOSE_HEAD)):
        if set(schema.names) == set(known.names):
            return head
    return None


def _explicit(schema, names_of_parts):
    """Check the names of each part's keypoints and convert them to indices."""
    part_of = {}
    for index, names in enumerate(names_of_parts):
        if isinstance(names, str) or not names:
            raise ValueError(f"division: part {index}: expected a list of at least one keypoint name, got {names!r}")
        for name in names:
            if name not in schema.names:
                raise ValueError(
                    f"division: part {index} names an unknown keypoint {name!r}; known are {', '.join(schema.names)}"
                )
            if name in part_of:
                raise ValueError(
                    f"division: keypoint {name!r} is in part {part_of[name]} and again in part {index}; keep one"
                )
            part_of[name] = index
    missing = [name for name in schema.names if name not in part_of]
    if missing:
        raise ValueError(f"division: keypoints in no part: {', '.join(missing)}; put each keypoint into exactly one")
    return tuple(tuple(schema.names.index(name) for name in names) for names in names_of_parts)
