import logging
import re

import pytest
from published_flip_pairs import PUBLISHED

from dynpose.data.flip_names import flip_pairs_concern, infer_flip_pairs
from dynpose.data.known_schemas import KNOWN_SCHEMAS, known_schema
from dynpose.data.schema import KeypointSchema


@pytest.mark.parametrize("data_set", PUBLISHED)
def test_published_swap_tables(data_set, caplog):
    names, pairs = PUBLISHED[data_set]
    names = names.split(", ")
    expected = {frozenset(names[int(i)] for i in pair.split("-")) for pair in pairs.split()}
    assert set(map(frozenset, infer_flip_pairs(names))) == expected
    assert not caplog.records


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["nose", "left_eye", "right_eye"], [("left_eye", "right_eye")]),
        (["right_eye", "left_eye"], [("left_eye", "right_eye")]),
        (["eye_left", "eye_right"], [("eye_left", "eye_right")]),
        (["l_hip", "r_hip"], [("l_hip", "r_hip")]),
        (["L Eye", "R Eye"], [("L Eye", "R Eye")]),
        (["leftEye", "rightEye"], [("leftEye", "rightEye")]),
        (["LeftFrontPaw", "RightFrontPaw"], [("LeftFrontPaw", "RightFrontPaw")]),
        (["lefteye", "righteye"], [("lefteye", "righteye")]),
        (["LEFT-EAR", "RIGHT-EAR"], [("LEFT-EAR", "RIGHT-EAR")]),
        (["left_eye_1", "left_eye_2", "right_eye_2", "right_eye_1"],
         [("left_eye_1", "right_eye_1"), ("left_eye_2", "right_eye_2")]),
        # the left corner of the left eye is seen as the right corner of the right eye
        (["left_eye_left", "left_eye_right", "right_eye_left", "right_eye_right"],
         [("left_eye_left", "right_eye_right"), ("left_eye_right", "right_eye_left")]),
        # no pairs: what only looks like one
        (["upright", "leftover", "brightness", "label", "rabel", "lip", "rip"], []),
        (["L1", "L2", "T1"], []),
        (["left_eye", "right_ear"], []),
    ],
)  # fmt: skip
def test_flip_pairs_are_inferred_from_names(names, expected):
    assert infer_flip_pairs(names) == tuple(expected)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # a letter without a separator
        ("rknee lknee nose", "lknee-rknee"),
        ("Lsho Rsho", "Lsho-Rsho"),
        # FLIC's
        ("lsho lelb lwri rsho relb rwri lhip rhip leye reye lear rear nose msho",
         "lsho-rsho lelb-relb lwri-rwri lhip-rhip leye-reye lear-rear"),
        ("LS RS LE RE LW RW", "LS-RS LE-RE LW-RW"),
        ("lhip rhip lknee rknee root", "lhip-rhip lknee-rknee"),
        ("hipl hipr kneel kneer nose", "hipl-hipr kneel-kneer"),
        # as the authors of Halpe spell them
        ("LKnee Rknee LHip RHip Hip", "LKnee-Rknee LHip-RHip"),
        # side and position
        ("FL_paw FR_paw BL_paw BR_paw", "FL_paw-FR_paw BL_paw-BR_paw"),
        ("LFHoof RFHoof LHHoof RHHoof", "LFHoof-RFHoof LHHoof-RHHoof"),
        ("FL FR RL RR", "FL-FR RL-RR"),
        ("LF RF LR RR", "LF-RF LR-RR"),
        ("FLpaw FRpaw", "FLpaw-FRpaw"),
        ("tl tr bl br", "tl-tr bl-br"),
        # words
        ("handLft handRgt", "handLft-handRgt"),
        ("lf_arm rt_arm", "lf_arm-rt_arm"),
        ("knee_l knee_r", "knee_l-knee_r"),
        ("hand.L hand.R hand.L.001 hand.R.001", "hand.L-hand.R hand.L.001-hand.R.001"),
        ("eyeL1 eyeL2 eyeR1 eyeR2", "eyeL1-eyeR1 eyeL2-eyeR2"),
        ("whisker_l_1 whisker_r_1", "whisker_l_1-whisker_r_1"),
        ("frontleftpaw frontrightpaw", "frontleftpaw-frontrightpaw"),
        ("left_L1 right_L1 left_L2 right_L2", "left_L1-right_L1 left_L2-right_L2"),
        ("lefteye_l lefteye_r righteye_l righteye_r", "lefteye_l-righteye_r lefteye_r-righteye_l"),
        ("L1 L2 R1 R2", "L1-R1 L2-R2"),
        ("blinks_left blinks_right", "blinks_left-blinks_right"),
        # other languages
        ("mano_sx mano_dx", "mano_sx-mano_dx"),
        ("spalla_sinistra spalla_destra", "spalla_sinistra-spalla_destra"),
        ("ojo_izq ojo_der", "ojo_izq-ojo_der"),
        ("ojo_izquierdo ojo_derecho mano_izquierda mano_derecha",
         "ojo_izquierdo-ojo_derecho mano_izquierda-mano_derecha"),
        ("oeil_gauche oeil_droit main_gauche main_droite", "oeil_gauche-oeil_droit main_gauche-main_droite"),
        ("olho_esquerdo olho_direito", "olho_esquerdo-olho_direito"),
        ("auge_links auge_rechts linkesOhr rechtesOhr", "auge_links-auge_rechts linkesOhr-rechtesOhr"),
        ("linkeroog rechteroog", "linkeroog-rechteroog"),
        ("vänster_öga höger_öga", "vänster_öga-höger_öga"),
        ("øje_venstre øje_højre", "øje_venstre-øje_højre"),
        ("lewe_oko prawe_oko", "lewe_oko-prawe_oko"),
        ("levý_loket pravý_loket", "levý_loket-pravý_loket"),
        ("левый_глаз правый_глаз", "левый_глаз-правый_глаз"),
        ("лівий_лікоть правий_лікоть ліве_око праве_око", "лівий_лікоть-правий_лікоть ліве_око-праве_око"),
        ("cot_stânga cot_dreapta", "cot_stânga-cot_dreapta"),
        ("αριστερό_μάτι δεξί_μάτι", "αριστερό_μάτι-δεξί_μάτι"),
        ("左眼 右眼", "左眼-右眼"),
    ],
)  # fmt: skip
def test_spellings(names, expected, caplog):
    assert infer_flip_pairs(names.split()) == tuple(tuple(pair.split("-")) for pair in expected.split())
    assert not caplog.records


@pytest.mark.parametrize(
    "names",
    [
        "L1 L2 L3 L4 L5 R1",  # vertebrae and a rib
        "L1 L2 L3 L4 L5 T12",
        "ear lear",
        "rump leg nose",
        "lip rip",
        "leg reg lump",
        "label rabel lip rip",
        "lknee rknee rump",  # one for, one against
        "lknee rknee lhip rhip rump leg root",
        "towel tower",
        "shoulder finger ear tail",
        "kneel kneer collar",
        "LL LR RL RR",  # left lower, or lower left?
        "right_of_way",
        "left_eye R_eye",
        "left_eye droit_eye",
        "left_front right_back",
        "near_knee off_knee",
        "kpt-0 kpt-1 kpt-2 kpt-3",
        "face-0 face-16",
    ],
)
def test_names_that_only_look_like_a_pair(names):
    assert infer_flip_pairs(names.split()) == ()


def test_a_name_is_used_once():
    """Two ways to write the same name leave open whose partner the third is."""
    assert infer_flip_pairs(["left_eye", "leftEye", "right_eye"]) == ()
    assert infer_flip_pairs(["left_eye", "right_eye", "L_eye", "R_eye"]) == (
        ("left_eye", "right_eye"),
        ("L_eye", "R_eye"),
    )


def test_numbered_landmarks_of_a_published_table():
    """Corners of the mouth and of the eyes, and the tip of the nose, by the 68 landmarks' figure."""
    face = [f"face-{i}" for i in range(68)]
    twin = {a: b for pair in infer_flip_pairs([*face, "left_hip", "right_hip"]) for a, b in (pair, pair[::-1])}
    assert (twin["face-36"], twin["face-39"], twin["face-48"], twin["face-0"]) == (
        "face-45",
        "face-42",
        "face-54",
        "face-16",
    )
    assert "face-30" not in twin
    assert twin["left_hip"] == "right_hip"
    # Other tables: one landmark fewer, one more
    assert infer_flip_pairs(face[:-1]) == ()
    assert infer_flip_pairs([*face, "face-68"]) == ()


@pytest.mark.parametrize("name", ["left_eye", "lefteye", "ojo_izquierdo", "auge_links", "左眼"])
def test_a_side_without_its_other_is_warned_of(name, caplog):
    infer_flip_pairs(["nose", name], "category 'x'")
    assert repr(name) in caplog.text
    assert "category 'x'" in caplog.text


@pytest.mark.parametrize("names", ["L1 T1", "l_x", "brightness", "leg", "ear shoulder under"])
def test_no_warning_of_words_that_may_mean_something_else(names, caplog):
    with caplog.at_level(logging.INFO):
        infer_flip_pairs(names.split())
    assert not caplog.records


class TestConcern:
    @pytest.mark.parametrize("name", KNOWN_SCHEMAS)
    def test_none_of_published_schemas(self, name):
        assert flip_pairs_concern(known_schema(name)) is None

    @pytest.mark.parametrize("data_set", sorted(set(PUBLISHED) - {"horse10"}))
    def test_none_where_pairs_are_those_of_the_data_set(self, data_set):
        names = PUBLISHED[data_set][0].split(", ")
        assert flip_pairs_concern(KeypointSchema(names, flip_pairs=infer_flip_pairs(names))) is None

    @pytest.mark.parametrize(
        "names",
        [
            "kp1 kp2 kp3",
            "cap neck base handle",
            "head_top neck tail_base tail_tip",
            "wrist thumb_tip index_tip ring_tip",
        ],
    )
    def test_none_where_nothing_has_a_side(self, names):
        assert flip_pairs_concern(KeypointSchema(names.split())) is None

    @pytest.mark.parametrize(
        ("names", "pairs", "words"),
        [
            ("left_eye right_eye", (), "left_eye and right_eye: left and right of each other by name"),
            ("lknee rknee lhip rhip", (("lknee", "rknee"),), "lhip and rhip: left"),
            ("left_eye nose", (), "left_eye: in no flip pair although the name has a side"),
            ("kp1 kp2 kp3 kp4", (), r"no flip pairs among 4 keypoints \(kp1, kp2, kp3, kp4\)"),
            ("Nearknee Offknee Nearfoot Offfoot Nose", (), "Nearfoot, Offfoot and 1 more"),
            ("vase1 vase2 top bottom", (), "no flip pairs among 4"),
        ],
    )
    def test_names_the_missing_pair(self, names, pairs, words):
        concern = flip_pairs_concern(KeypointSchema(names.split(), flip_pairs=pairs))
        assert re.search(words, concern)
        assert "give flip_pairs" in concern
        assert "\n" not in concern

    def test_names_the_pair_that_contradicts_the_names(self):
        names = ["left_elbow", "right_elbow", "left_wrist", "right_wrist"]
        concern = flip_pairs_concern(KeypointSchema(names, flip_pairs=[names[::2], names[1::2]]))
        assert concern.startswith(
            "left_elbow / left_wrist is a flip pair, but by their names the pairs are left_elbow / right_elbow and "
            "left_wrist / right_wrist; correct flip_pairs"
        )

    def test_published_pairs_that_are_missing(self):
        """WFLW has 44 pairs: 16 of the jaw, 9 of the brows, 2 of the nose, 8 of the eyes, 8 of the lips, the pupils."""
        concern = flip_pairs_concern(KeypointSchema(known_schema("wflw").names))
        assert "wflw-0 and wflw-32" in concern
        assert "and 40 more" in concern
