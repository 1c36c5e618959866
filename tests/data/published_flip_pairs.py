"""Keypoint names and swap tables of the data sets in MMPose 1.3.2 (configs/_base_/datasets/*.py), to test against.

Left out are lists that another one here has too, lists of numbered landmarks, and those of 100 names or more.
"""

# Name of the file -> (names, pairs of 0-based indices that change places)
PUBLISHED = {
    "aic": (
        (
            "right_shoulder, right_elbow, right_wrist, left_shoulder, left_elbow, left_wrist, right_hip, right_knee, "
            "right_ankle, left_hip, left_knee, left_ankle, head_top, neck"
        ),
        "0-3 1-4 2-5 6-9 7-10 8-11",
    ),
    "ak": (
        (
            "Head_Mid_Top, Eye_Left, Eye_Right, Mouth_Front_Top, Mouth_Back_Left, Mouth_Back_Right, "
            "Mouth_Front_Bottom, Shoulder_Left, Shoulder_Right, Elbow_Left, Elbow_Right, Wrist_Left, Wrist_Right, "
            "Torso_Mid_Back, Hip_Left, Hip_Right, Knee_Left, Knee_Right, Ankle_Left, Ankle_Right, Tail_Top_Back, "
            "Tail_Mid_Back, Tail_End_Back"
        ),
        "1-2 4-5 7-8 9-10 11-12 14-15 16-17 18-19",
    ),
    "animalpose": (
        (
            "L_Eye, R_Eye, L_EarBase, R_EarBase, Nose, Throat, TailBase, Withers, L_F_Elbow, R_F_Elbow, L_B_Elbow, "
            "R_B_Elbow, L_F_Knee, R_F_Knee, L_B_Knee, R_B_Knee, L_F_Paw, R_F_Paw, L_B_Paw, R_B_Paw"
        ),
        "0-1 2-3 8-9 10-11 12-13 14-15 16-17 18-19",
    ),
    "ap10k": (
        (
            "L_Eye, R_Eye, Nose, Neck, Root of tail, L_Shoulder, L_Elbow, L_F_Paw, R_Shoulder, R_Elbow, R_F_Paw, "
            "L_Hip, L_Knee, L_B_Paw, R_Hip, R_Knee, R_B_Paw"
        ),
        "0-1 5-8 6-9 7-10 11-14 12-15 13-16",
    ),
    "atrw": (
        (
            "left_ear, right_ear, nose, right_shoulder, right_front_paw, left_shoulder, left_front_paw, right_hip, "
            "right_knee, right_back_paw, left_hip, left_knee, left_back_paw, tail, center"
        ),
        "0-1 3-5 4-6 7-10 8-11 9-12",
    ),
    "campus": (
        (
            "right_ankle, right_knee, right_hip, left_hip, left_knee, left_ankle, right_wrist, right_elbow, "
            "right_shoulder, left_shoulder, left_elbow, left_wrist, bottom_head, top_head"
        ),
        "0-5 1-4 2-3 6-11 7-10 8-9",
    ),
    "coco": (
        (
            "nose, left_eye, right_eye, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, right_elbow, "
            "left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle"
        ),
        "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16",
    ),
    "coco_aic": (
        (
            "nose, left_eye, right_eye, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, right_elbow, "
            "left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle, head_top, "
            "neck"
        ),
        "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16",
    ),
    "coco_openpose": (
        (
            "nose, neck, right_shoulder, right_elbow, right_wrist, left_shoulder, left_elbow, left_wrist, right_hip, "
            "right_knee, right_ankle, left_hip, left_knee, left_ankle, right_eye, left_eye, right_ear, left_ear"
        ),
        "2-5 3-6 4-7 8-11 9-12 10-13 14-15 16-17",
    ),
    "coco_wholebody_hand": (
        (
            "wrist, thumb1, thumb2, thumb3, thumb4, forefinger1, forefinger2, forefinger3, forefinger4, "
            "middle_finger1, middle_finger2, middle_finger3, middle_finger4, ring_finger1, ring_finger2, "
            "ring_finger3, ring_finger4, pinky_finger1, pinky_finger2, pinky_finger3, pinky_finger4"
        ),
        "",
    ),
    "crowdpose": (
        (
            "left_shoulder, right_shoulder, left_elbow, right_elbow, left_wrist, right_wrist, left_hip, right_hip, "
            "left_knee, right_knee, left_ankle, right_ankle, top_head, neck"
        ),
        "0-1 2-3 4-5 6-7 8-9 10-11",
    ),
    "deepfashion_full": (
        ("left collar, left waistline, right collar, right waistline, left sleeve, left hem, right sleeve, right hem"),
        "0-2 1-3 4-6 5-7",
    ),
    "deepfashion_lower": (
        "left waistline, right waistline, left hem, right hem",
        "0-1 2-3",
    ),
    "deepfashion_upper": (
        "left collar, right collar, left sleeve, right sleeve, left hem, right hem",
        "0-1 2-3 4-5",
    ),
    "exlpose": (
        (
            "left_shoulder, right_shoulder, left_elbow, right_elbow, left_wrist, right_wrist, left_hip, right_hip, "
            "left_knee, right_knee, left_ankle, right_ankle, head, neck"
        ),
        "0-1 2-3 4-5 6-7 8-9 10-11",
    ),
    "fly": (
        (
            "head, eyeL, eyeR, neck, thorax, abdomen, forelegR1, forelegR2, forelegR3, forelegR4, midlegR1, midlegR2, "
            "midlegR3, midlegR4, hindlegR1, hindlegR2, hindlegR3, hindlegR4, forelegL1, forelegL2, forelegL3, "
            "forelegL4, midlegL1, midlegL2, midlegL3, midlegL4, hindlegL1, hindlegL2, hindlegL3, hindlegL4, wingL, "
            "wingR"
        ),
        "1-2 6-18 7-19 8-20 9-21 10-22 11-23 12-24 13-25 14-26 15-27 16-28 17-29 30-31",
    ),
    "h36m": (
        (
            "root, right_hip, right_knee, right_foot, left_hip, left_knee, left_foot, spine, thorax, neck_base, head, "
            "left_shoulder, left_elbow, left_wrist, right_shoulder, right_elbow, right_wrist"
        ),
        "1-4 2-5 3-6 11-14 12-15 13-16",
    ),
    "halpe26": (
        (
            "nose, left_eye, right_eye, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, right_elbow, "
            "left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle, head, "
            "neck, hip, left_big_toe, right_big_toe, left_small_toe, right_small_toe, left_heel, right_heel"
        ),
        "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16 20-21 22-23 24-25",
    ),
    "horse10": (
        (
            "Nose, Eye, Nearknee, Nearfrontfetlock, Nearfrontfoot, Offknee, Offfrontfetlock, Offfrontfoot, Shoulder, "
            "Midshoulder, Elbow, Girth, Wither, Nearhindhock, Nearhindfetlock, Nearhindfoot, Hip, Stifle, "
            "Offhindhock, Offhindfetlock, Offhindfoot, Ischium"
        ),
        "",
    ),
    "humanart21": (
        (
            "nose, left_eye, right_eye, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, right_elbow, "
            "left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle, "
            "left_finger, right_finger, left_toe, right_toe"
        ),
        "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16 17-18 19-20",
    ),
    "interhand2d": (
        (
            "thumb4, thumb3, thumb2, thumb1, forefinger4, forefinger3, forefinger2, forefinger1, middle_finger4, "
            "middle_finger3, middle_finger2, middle_finger1, ring_finger4, ring_finger3, ring_finger2, ring_finger1, "
            "pinky_finger4, pinky_finger3, pinky_finger2, pinky_finger1, wrist"
        ),
        "",
    ),
    "jhmdb": (
        (
            "neck, belly, head, right_shoulder, left_shoulder, right_hip, left_hip, right_elbow, left_elbow, "
            "right_knee, left_knee, right_wrist, left_wrist, right_ankle, left_ankle"
        ),
        "3-4 5-6 7-8 9-10 11-12 13-14",
    ),
    "locust": (
        (
            "head, neck, thorax, abdomen1, abdomen2, anttipL, antbaseL, eyeL, forelegL1, forelegL2, forelegL3, "
            "forelegL4, midlegL1, midlegL2, midlegL3, midlegL4, hindlegL1, hindlegL2, hindlegL3, hindlegL4, anttipR, "
            "antbaseR, eyeR, forelegR1, forelegR2, forelegR3, forelegR4, midlegR1, midlegR2, midlegR3, midlegR4, "
            "hindlegR1, hindlegR2, hindlegR3, hindlegR4"
        ),
        "5-20 6-21 7-22 8-23 9-24 10-25 11-26 12-27 13-28 14-29 15-30 16-31 17-32 18-33 19-34",
    ),
    "mhp": (
        (
            "right_ankle, right_knee, right_hip, left_hip, left_knee, left_ankle, pelvis, thorax, upper_neck, "
            "head_top, right_wrist, right_elbow, right_shoulder, left_shoulder, left_elbow, left_wrist"
        ),
        "0-5 1-4 2-3 10-15 11-14 12-13",
    ),
    "mpi_inf_3dhp": (
        (
            "head_top, neck, right_shoulder, right_elbow, right_wrist, left_shoulder, left_elbow, left_wrist, "
            "right_hip, right_knee, right_ankle, left_hip, left_knee, left_ankle, root, spine, head"
        ),
        "2-5 3-6 4-7 8-11 9-12 10-13",
    ),
    "panoptic_body3d": (
        (
            "neck, nose, mid_hip, left_shoulder, left_elbow, left_wrist, left_hip, left_knee, left_ankle, "
            "right_shoulder, right_elbow, right_wrist, right_hip, right_knee, right_ankle, left_eye, left_ear, "
            "right_eye, right_ear"
        ),
        "3-9 4-10 5-11 6-12 7-13 8-14 15-17 16-18",
    ),
    "posetrack18": (
        (
            "nose, head_bottom, head_top, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, "
            "right_elbow, left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, "
            "right_ankle"
        ),
        "3-4 5-6 7-8 9-10 11-12 13-14 15-16",
    ),
    "rhd2d": (
        (
            "wrist, thumb4, thumb3, thumb2, thumb1, forefinger4, forefinger3, forefinger2, forefinger1, "
            "middle_finger4, middle_finger3, middle_finger2, middle_finger1, ring_finger4, ring_finger3, "
            "ring_finger2, ring_finger1, pinky_finger4, pinky_finger3, pinky_finger2, pinky_finger1"
        ),
        "",
    ),
    "zebra": (
        "snout, head, neck, forelegL1, forelegR1, hindlegL1, hindlegR1, tailbase, tailtip",
        "3-4 5-6",
    ),
}
