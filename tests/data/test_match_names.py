import pytest

from dynpose.data.known_schemas import KNOWN_SCHEMAS, known_schema
from dynpose.data.match_names import match_keypoints

HALPE_README = (
    "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee Rknee LAnkle RAnkle Head "
    "Neck Hip LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel"
)
MMPOSE_AP10K = (
    "L_Eye,R_Eye,Nose,Neck,Root of tail,L_Shoulder,L_Elbow,L_F_Paw,R_Shoulder,R_Elbow,R_F_Paw,L_Hip,L_Knee,L_B_Paw,"
    "R_Hip,R_Knee,R_B_Paw"
)
# ultralytics' hand-keypoints.yaml, in the order of MediaPipe's hand landmarks
MEDIAPIPE_HAND = ["wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"] + [
    f"{finger}_{joint}" for finger in ("index", "middle", "ring", "pinky") for joint in ("mcp", "pip", "dip", "tip")
]


@pytest.mark.parametrize("name", KNOWN_SCHEMAS)
def test_a_schema_is_itself(name):
    names = known_schema(name).names
    assert match_keypoints(names, names) == tuple(range(len(names)))
    assert match_keypoints(names, names[::-1]) == tuple(range(len(names)))[::-1]


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("halpe26", HALPE_README.split()), ("ap10k", MMPOSE_AP10K.split(",")), ("hand21", MEDIAPIPE_HAND)],
)
def test_another_spelling_of_a_schema(name, spelling):
    names = known_schema(name).names
    assert match_keypoints(names, spelling) == tuple(range(len(names)))
    assert match_keypoints(spelling, names) == tuple(range(len(names)))


def test_coco_and_crowdpose():
    """CrowdPose's first twelve are COCO's last twelve; it has no nose, eyes and ears, COCO no head and neck."""
    coco, crowdpose = known_schema("coco").names, known_schema("crowdpose").names
    assert match_keypoints(coco, crowdpose) == (None,) * 5 + tuple(range(12))
    assert match_keypoints(crowdpose, coco) == (*range(5, 17), None, None)


def test_mpii_and_aic():
    """Ankles, knees, hips, (pelvis, thorax, upper neck), head top, wrists, elbows, shoulders, by their two lists."""
    assert match_keypoints(known_schema("mpii").names, known_schema("aic").names) == (
        8, 7, 6, 9, 10, 11, None, None, None, 12, 2, 1, 0, 3, 4, 5,
    )  # fmt: skip


def test_faces():
    """300-W's landmarks are the face of COCO-WholeBody, from keypoint 23, and of Halpe, from 26."""
    face = known_schema("300w").names
    assert match_keypoints(face, known_schema("coco_wholebody").names) == tuple(range(23, 91))
    assert match_keypoints(face, known_schema("halpe136").names) == tuple(range(26, 94))
    assert match_keypoints(face, known_schema("wflw").names) == (None,) * 68


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        ("left_eye right_eye", "REye LEye", (1, 0)),
        ("left_eye right_eye", "rightEye Left-Eye", (1, 0)),
        ("left_eye right_eye", "eye.L eye.R", (0, 1)),
        ("lknee rknee lhip rhip", "right_hip left_hip right_knee left_knee", (3, 2, 1, 0)),
        ("ojo_izq ojo_der", "ojo_derecho ojo_izquierdo", (1, 0)),
        ("head_top", "top_head", (0,)),
        ("earBase", "ear_base earbase2", (0,)),
        ("left_hind_paw right_hind_paw", "right_back_paw left_back_paw left_front_paw", (1, 0)),
        ("left_fore_hoof right_fore_hoof", "LF_hoof RF_hoof LH_hoof RH_hoof", (0, 1)),
        ("FL_paw FR_paw BL_paw BR_paw", "left_back_paw right_back_paw left_front_paw right_front_paw", (2, 3, 0, 1)),
        ("left_index_finger_2 right_index_finger_2", "left_forefinger2 right_forefinger2", (0, 1)),
        ("little_finger_tip", "pinky4", (0,)),
        ("a_01", "a1", (0,)),
        # the same numbers
        ("kpt-0 kpt-1", "1 0", (1, 0)),
        # other numbers: of another list
        ("kpt-0 kpt-1", "kpt-0 kpt-1 kpt-2", (None, None)),
        ("kpt-0 kpt-1", "kpt-1 kpt-2", (None, None)),
        # not the same
        ("head", "head_top", (None,)),
        ("hip", "pelvis left_hip", (None,)),
        ("left_eye", "left_ear right_ear", (None,)),
        ("left_eye", "right_eye", (None,)),
        ("front rear", "fore back", (None, None)),
        ("left_wrist left_hand_root", "left_wrist", (0, None)),
        # two of the other have the name: it is unknown which of them is meant, unless one is spelled the same
        ("Head", "head HEAD", (None,)),
        ("head", "head HEAD", (0,)),
        ("nose", "", (None,)),
        ("", "nose", ()),
    ],
)  # fmt: skip
def test_names(names, others, expected):
    assert match_keypoints(names.split(), others.split()) == expected
