"""The published keypoint schemas as plain tables; use them through :mod:`.known_schemas`.

A table holds the published data of a data set: names in the order of the annotation, left/right pairs, limbs, and OKS
sigmas if the authors' evaluation has them. If names are numbers, the pairs are those of a published mirror table. Every
table names its source.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["KNOWN_TABLES", "KnownTable", "numbered_flip_pairs", "table_by_keypoints"]


@dataclass(frozen=True)
class KnownTable:
    """The published data about the K keypoints of a data set.

    Args:
        names: K names.
        flip_pairs: ``(left, right)`` pairs of names, in the order of ``names``.
        skeleton: limbs, pairs of 0-based indices.
        sigmas: K OKS sigmas (COCO's ``k_i / 2``); () = not published.
        groups: parts of the body, ``(name, first index, one past the last)``.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    groups: tuple[tuple[str, int, int], ...] = ()


def table_by_keypoints(names: Iterable[str]) -> KnownTable | None:
    """The table with exactly these names in this order, or None."""
    return _BY_NAMES.get(tuple(names))


def numbered_flip_pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The published pairs of numbered landmarks (``face-0`` to ``face-67``), if a list holds all of a table's names."""
    names = frozenset(names)
    return tuple(
        pair
        for table in (_300W, _WFLW, _COFW, _AFLW, _LAPA)
        if names.issuperset(table.names) and f"{table.names[0][:-1]}{len(table.names)}" not in names
        for pair in table.flip_pairs
    )


def _both_sides(*chains):
    """Chains of left names, followed by the same chains of right names."""
    return (*chains, *(tuple(map(_other_side, chain)) for chain in chains))


def _other_side(name):
    for left, right in (("left", "right"), ("Left", "Right"), ("L_", "R_")):
        if left in name:
            return name.replace(left, right)
    return name


def _named(names, *chains, **fields):
    """A table whose names contain left and right; ``chains`` are runs of names, each joined to the next by a limb."""
    return KnownTable(
        names=names,
        flip_pairs=tuple((name, _other_side(name)) for name in names if _other_side(name) != name),
        skeleton=_limbs(names, *chains),
        **fields,
    )


def _limbs(names, *chains):
    index = {name: i for i, name in enumerate(names)}
    return tuple((index[a], index[b]) for chain in chains for a, b in zip(chain, chain[1:]))


def _numbered(prefix, num_keypoints, *mirrored, contours=(), outlines=()):
    """A table of numbered landmarks.

    Args:
        prefix (str): prefix of the names; the numbers are 0-based.
        num_keypoints (int): K.
        *mirrored: ``(first, last)`` runs that mirror onto themselves from both ends, such as the jaw line, or
            ``(a, b)``, two equally long sequences that mirror onto each other, index by index.
        contours: sequences of indices, joined one to the next.
        outlines: the same, with the last joined to the first.
    """
    names = tuple(f"{prefix}-{i}" for i in range(num_keypoints))
    pairs = []
    for a, b in mirrored:
        if isinstance(a, int):
            pairs += [(names[a + i], names[b - i]) for i in range((b - a + 1) // 2)]
        else:
            pairs += [(names[i], names[j]) for i, j in zip(a, b)]
    chains = (*contours, *((*outline, outline[0]) for outline in outlines))
    skeleton = tuple((a, b) for chain in chains for a, b in zip(chain, chain[1:]))
    return KnownTable(names=names, flip_pairs=tuple(pairs), skeleton=skeleton)


# fmt: off
# https://cocodataset.org/#keypoints-2020; names and limbs are those of its annotation files, sigmas those of
# https://cocodataset.org/#keypoints-eval
_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)
_COCO_LIMBS = (
    ("left_ankle", "left_knee", "left_hip"), ("right_ankle", "right_knee", "right_hip"), ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"), ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"), ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"),
    ("left_eye", "left_ear"), ("right_eye", "right_ear"), ("left_ear", "left_shoulder"),
    ("right_ear", "right_shoulder"),
)

# https://github.com/Jeff-sjtu/CrowdPose. Its sigmas are COCO's for the joints that COCO has, and its shoulders' for
# head and neck. The limbs are not those of its files, which are COCO's: some point outside the 14 keypoints, others
# join the wrong ones.
_CROWDPOSE_NAMES = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
)
_CROWDPOSE_SIGMAS = (
    0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079,
)
_CROWDPOSE_LIMBS = (
    ("head", "neck", "left_shoulder"), ("neck", "right_shoulder"),
    ("left_shoulder", "left_elbow", "left_wrist"), ("right_shoulder", "right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip"),
    ("left_hip", "left_knee", "left_ankle"), ("right_hip", "right_knee", "right_ankle"),
)

# The 21 points of a hand as OneHand10K, FreiHAND, the CMU Panoptic hands and COCO-WholeBody have them: the wrist, then
# four from root to tip of each finger. http://domedb.perception.cs.cmu.edu/handdb.html
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def _hand(prefix="", root="wrist"):
    return (f"{prefix}{root}", *(f"{prefix}{finger}{i}" for finger in _FINGERS for i in (1, 2, 3, 4)))


def _fingers(prefix="", root="wrist"):
    return tuple((f"{prefix}{root}", *(f"{prefix}{finger}{i}" for i in (1, 2, 3, 4))) for finger in _FINGERS)


# The 68 landmarks of 300-W, from the image's left to its right: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer
# lips 48-59, inner lips 60-67. https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/ numbers them from 1. The
# mirror table is that of https://github.com/HRNet/HRNet-Facial-Landmark-Detection (lib/utils/transforms.py). The names
# are those that the same 68 landmarks have in COCO-WholeBody and Halpe.
_300W = _numbered(
    "face", 68,
    (0, 16), (17, 26), (31, 35), ((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46)), (48, 54), (55, 59), (60, 64),
    (65, 67),
    contours=(range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)),
    outlines=(range(36, 42), range(42, 48), range(48, 60), range(60, 68)),
)

# WFLW's 98 landmarks: https://wywu.github.io/projects/LAB/WFLW.html. Jaw 0-32, brows 33-50, nose 51-59, eyes 60-75,
# outer lips 76-87, inner lips 88-95, pupils 96-97. The mirror table is again HRNet's.
_WFLW = _numbered(
    "wflw", 98,
    (0, 32), ((33, 34, 35, 36, 37, 38, 39, 40, 41), (46, 45, 44, 43, 42, 50, 49, 48, 47)), (55, 59),
    ((60, 61, 62, 63, 64, 65, 66, 67), (72, 71, 70, 69, 68, 75, 74, 73)), (76, 82), (83, 87), (88, 92), (93, 95),
    (96, 97),
    contours=(range(33), range(51, 55), range(55, 60)),
    outlines=(range(33, 42), (*range(42, 47), *range(47, 51)), range(60, 68), range(68, 76), range(76, 88),
              range(88, 96)),
)

# COFW's 29 landmarks (http://www.vision.caltech.edu/xpburgos/ICCV13/) and AFLW's 19; mirror tables from HRNet
_COFW = _numbered(
    "cofw", 29,
    ((0, 2, 4, 5, 8, 10, 12, 13, 16, 18, 22), (1, 3, 6, 7, 9, 11, 14, 15, 17, 19, 23)),
)
_AFLW = _numbered("aflw", 19, (0, 5), (6, 11), (12, 14), (15, 17))

# LaPa's 106 landmarks: https://github.com/JDAI-CV/lapa-dataset; the mirror table is MMPose's
# (configs/_base_/datasets/lapa.py)
_LAPA = _numbered(
    "lapa", 106,
    (0, 32), ((33, 34, 35, 36, 37, 38, 39, 40, 41), (46, 45, 44, 43, 42, 50, 49, 48, 47)), (55, 65),
    ((66, 67, 68, 69, 70, 71, 72, 73, 74), (79, 78, 77, 76, 75, 82, 81, 80, 83)), (84, 90), (91, 95), (96, 100),
    (101, 103), (104, 105),
)

# https://github.com/jin-s13/COCO-WholeBody: its fields in the order of its evaluation, keypoints, foot_kpts, face_kpts,
# lefthand_kpts, righthand_kpts; sigmas from evaluation/myeval_wholebody.py. The data set names the 17 of the body only;
# the other names are MMPose's (configs/_base_/datasets/coco_wholebody.py), which its users' files have.
_WHOLEBODY_NAMES = (
    *_COCO_NAMES,
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    *_300W.names, *_hand("left_", "hand_root"), *_hand("right_", "hand_root"),
)
_WHOLEBODY_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)
_WHOLEBODY_SIGMAS = (
    *_COCO_SIGMAS,
    0.068, 0.066, 0.066, 0.092, 0.094, 0.094,
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
    *_WHOLEBODY_HAND_SIGMAS, *_WHOLEBODY_HAND_SIGMAS,
)
_FOOT_LIMBS = _both_sides(
    ("left_ankle", "left_big_toe"), ("left_ankle", "left_small_toe"), ("left_ankle", "left_heel"),
)

# https://github.com/Fang-Haoshu/Halpe-FullBody; the sigmas are those of its HalpeCOCOAPI (halpecocotools/cocoeval.py).
# It names the body's keypoints only; the other names are those of COCO-WholeBody.
_HALPE_BODY_NAMES = (
    *_COCO_NAMES, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)
_HALPE_BODY_SIGMAS = (*_COCO_SIGMAS, *(0.08,) * 3, *(0.089,) * 6)
_HALPE_BODY_LIMBS = (
    ("head", "neck", "hip"), ("left_eye", "right_eye"),
    *_both_sides(
        ("left_ankle", "left_knee", "left_hip", "hip"), ("neck", "left_shoulder", "left_elbow", "left_wrist"),
        ("nose", "left_eye", "left_ear", "left_shoulder"),
    ),
    *_FOOT_LIMBS,
)

# http://human-pose.mpi-inf.mpg.de: evaluated by PCKh, so without sigmas. The limbs are those of the usual drawings.
_MPII = _named(
    ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
     "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ("pelvis", "thorax", "upper_neck", "head_top"),
    *_both_sides(
        ("pelvis", "left_hip", "left_knee", "left_ankle"), ("upper_neck", "left_shoulder", "left_elbow", "left_wrist"),
    ),
)

# https://github.com/AIChallenger/AI_Challenger_2017 (Evaluation/keypoint_eval/keypoint_eval.py): its delta is COCO's
# sigma times two.
_AIC = _named(
    ("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "right_hip",
     "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "head_top", "neck"),
    ("head_top", "neck"), ("left_hip", "right_hip"),
    *_both_sides(
        ("neck", "left_shoulder", "left_elbow", "left_wrist"), ("left_hip", "left_knee", "left_ankle"),
        ("left_shoulder", "left_hip"),
    ),
    sigmas=(0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642, 0.03686941, 0.01981803,
            0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173),
)

# https://posetrack.net (2018): evaluated by mAP of PCKh, so without sigmas
_POSETRACK18 = _named(
    ("nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
     "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
     "right_ankle"),
    ("head_top", "nose", "head_bottom"), ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
    *_both_sides(
        ("head_bottom", "left_shoulder", "left_elbow", "left_wrist"), ("left_shoulder", "left_hip"),
        ("left_hip", "left_knee", "left_ankle"),
    ),
)

# http://jhmdb.is.tue.mpg.de: evaluated by PCK, so without sigmas
_JHMDB = _named(
    ("neck", "belly", "head", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow", "left_elbow",
     "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle"),
    ("belly", "neck", "head"),
    *_both_sides(
        ("neck", "left_shoulder", "left_elbow", "left_wrist"), ("belly", "left_hip", "left_knee", "left_ankle"),
    ),
)

# https://github.com/AlexTheBad/AP-10K: names and limbs of its annotation files, sigmas of its evaluation
# (configs/_base_/datasets/ap10k.py), which are COCO's for the joints of a person that are nearest
_AP10K = _named(
    ("left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
     "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
     "right_knee", "right_back_paw"),
    ("left_eye", "right_eye"), ("nose", "neck", "root_of_tail"),
    *_both_sides(
        ("left_eye", "nose"), ("neck", "left_shoulder", "left_elbow", "left_front_paw"),
        ("root_of_tail", "left_hip", "left_knee", "left_back_paw"),
    ),
    sigmas=(0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107,
            0.087, 0.089),
)

# https://sites.google.com/view/animal-pose/: names of its XML files, in the order of MMPose's conversion; the authors
# publish no sigmas
_ANIMALPOSE = _named(
    ("L_Eye", "R_Eye", "L_EarBase", "R_EarBase", "Nose", "Throat", "TailBase", "Withers", "L_F_Elbow", "R_F_Elbow",
     "L_B_Elbow", "R_B_Elbow", "L_F_Knee", "R_F_Knee", "L_B_Knee", "R_B_Knee", "L_F_Paw", "R_F_Paw", "L_B_Paw",
     "R_B_Paw"),
    ("L_Eye", "R_Eye"), ("Nose", "Throat", "Withers", "TailBase"),
    *_both_sides(
        ("Nose", "L_Eye", "L_EarBase"), ("Throat", "L_F_Elbow", "L_F_Knee", "L_F_Paw"),
        ("TailBase", "L_B_Elbow", "L_B_Knee", "L_B_Paw"),
    ),
)

# https://sutdcv.github.io/Animal-Kingdom: evaluated by PCK, so without sigmas
_ANIMAL_KINGDOM = _named(
    ("Head_Mid_Top", "Eye_Left", "Eye_Right", "Mouth_Front_Top", "Mouth_Back_Left", "Mouth_Back_Right",
     "Mouth_Front_Bottom", "Shoulder_Left", "Shoulder_Right", "Elbow_Left", "Elbow_Right", "Wrist_Left", "Wrist_Right",
     "Torso_Mid_Back", "Hip_Left", "Hip_Right", "Knee_Left", "Knee_Right", "Ankle_Left", "Ankle_Right",
     "Tail_Top_Back", "Tail_Mid_Back", "Tail_End_Back"),
    ("Head_Mid_Top", "Torso_Mid_Back", "Tail_Top_Back", "Tail_Mid_Back", "Tail_End_Back"),
    *_both_sides(
        ("Eye_Left", "Head_Mid_Top", "Shoulder_Left", "Elbow_Left", "Wrist_Left"),
        ("Mouth_Front_Top", "Mouth_Back_Left", "Mouth_Front_Bottom"),
        ("Tail_Top_Back", "Hip_Left", "Knee_Left", "Ankle_Left"),
    ),
)

# https://github.com/cvwc2019/ATRWEvalScript: names and limbs of its annotation file (whose limbs are 0-based), and the
# squared sigmas, times 10,000, of atrwtool/pycocotools/cocoeval.py. MMPose's are 1.15 times as large.
_ATRW = _named(
    ("left_ear", "right_ear", "nose", "right_shoulder", "right_front_paw", "left_shoulder", "left_front_paw",
     "right_hip", "right_knee", "right_back_paw", "left_hip", "left_knee", "left_back_paw", "tail", "center"),
    ("nose", "center", "tail"),
    *_both_sides(
        ("left_ear", "nose"), ("center", "left_shoulder", "left_front_paw"),
        ("tail", "left_hip", "left_knee", "left_back_paw"),
    ),
    sigmas=tuple(
        math.sqrt(squared / 10_000)
        for squared in (5.8, 51.2, 52.2, 3.1, 38.8, 5.2, 31.5, 6.9, 14.7, 7.6, 8.4, 22.6, 5.2, 35.3, 21.9)
    ),
)
# fmt: on


def _wholebody(names, body_limbs, sigmas, groups):
    """COCO-WholeBody and Halpe: a named body, feet and hands, and the numbered face, which has no limbs."""
    table = _named(
        names,
        *body_limbs,
        *(chain for side in ("left_", "right_") for chain in _fingers(side, "hand_root")),
        sigmas=sigmas,
        groups=groups,
    )
    pairs = sorted((*table.flip_pairs, *_300W.flip_pairs), key=lambda pair: names.index(pair[0]))
    return KnownTable(table.names, tuple(pairs), table.skeleton, table.sigmas, table.groups)


_COCO_WHOLEBODY = _wholebody(
    _WHOLEBODY_NAMES,
    (*_COCO_LIMBS, *_FOOT_LIMBS),
    _WHOLEBODY_SIGMAS,
    (("body", 0, 17), ("feet", 17, 23), ("face", 23, 91), ("left_hand", 91, 112), ("right_hand", 112, 133)),
)
_HALPE136 = _wholebody(
    (*_HALPE_BODY_NAMES, *_300W.names, *_hand("left_", "hand_root"), *_hand("right_", "hand_root")),
    _HALPE_BODY_LIMBS,
    (*_HALPE_BODY_SIGMAS, *(0.015,) * 110),
    (("body", 0, 20), ("feet", 20, 26), ("face", 26, 94), ("left_hand", 94, 115), ("right_hand", 115, 136)),
)

KNOWN_TABLES = {
    "coco": _named(_COCO_NAMES, *_COCO_LIMBS, sigmas=_COCO_SIGMAS),
    "crowdpose": _named(_CROWDPOSE_NAMES, *_CROWDPOSE_LIMBS, sigmas=_CROWDPOSE_SIGMAS),
    "coco_wholebody": _COCO_WHOLEBODY,
    "halpe26": _named(_HALPE_BODY_NAMES, *_HALPE_BODY_LIMBS, sigmas=_HALPE_BODY_SIGMAS),
    "halpe136": _HALPE136,
    "mpii": _MPII,
    "aic": _AIC,
    "posetrack18": _POSETRACK18,
    "jhmdb": _JHMDB,
    "hand21": KnownTable(names=_hand(), skeleton=_limbs(_hand(), *_fingers())),
    "300w": _300W,
    "wflw": _WFLW,
    "cofw": _COFW,
    "aflw": _AFLW,
    "lapa": _LAPA,
    "ap10k": _AP10K,
    "animalpose": _ANIMALPOSE,
    "animal_kingdom": _ANIMAL_KINGDOM,
    "atrw": _ATRW,
}
"""Name of the schema -> its :class:`KnownTable`."""

_BY_NAMES = {table.names: table for table in KNOWN_TABLES.values()}
