"""Config keys of CID (CVPR 2022)."""

from detectron2.config import CfgNode as CN


def add_cid_config(cfg: CN) -> None:
    """Add the keys of MODEL.CID, in place."""
    # Where paper and release differ, the default is the paper, except for CHANNEL_WEIGHTS, which a trial decided.
    cfg.MODEL.CID = CN()
    # The single backbone output that all branches use, at the resolution of the heatmaps
    cfg.MODEL.CID.IN_FEATURES = ["concat"]
    # Initial probability of all heatmaps
    cfg.MODEL.CID.PRIOR_PROB = 0.01

    # Global feature decoupling (section 3.3): standard deviation of the initial weights, as in the release; 0 =
    # PyTorch's default, with which a small network initially learns much faster
    cfg.MODEL.CID.INIT_STD = 0.001
    # Channels of F-hat (Table 2)
    cfg.MODEL.CID.CHANNELS = 32
    # "spatial", "channel", or both (Table 1)
    cfg.MODEL.CID.RECALIBRATION = ["spatial", "channel"]
    # Channel weights of a person: "linear" (release) = two linear layers on the feature at the centre, one for Eq. 11
    # and one for Eq. 10; "feature" (paper) = that feature itself, read from F-hat, which has equally many channels
    cfg.MODEL.CID.CHANNEL_WEIGHTS = "linear"
    # Relative coordinates are divided by this many cells
    cfg.MODEL.CID.COORD_SCALE = 32.0
    # Cell coordinates are pixel indices of the network's input divided by the stride, as in the release. False =
    # continuous pixels, which are half a pixel larger. Weights fit one of the two: the authors' weights need True; with
    # False, their keypoints are half an input pixel too far left and up. Flip testing is symmetric with False only. In
    # training, True also moves centres and keypoints up to a cell beyond the left or upper edge into the first cell, as
    # the release truncates coordinates, and corners of boxes beyond the map to the index of its last cell.
    cfg.MODEL.CID.INDEX_COORDINATES = False

    # Targets: people whose annotated box is smaller than this, square pixels of the augmented image, are in the
    # multi-person maps but are not decoupled (release, COCO and OCHuman: 32^2; CrowdPose: 0)
    cfg.MODEL.CID.MIN_BOX_AREA = 1024.0
    # CornerNet's radius for this IoU determines the size of a person's Gaussians
    cfg.MODEL.CID.RADIUS_MIN_OVERLAP = 0.7
    # Maximum number of people decoupled in training, per process, sampled at random
    cfg.MODEL.CID.MAX_INSTANCES = 200
    # Maximum number of people whose heatmaps are in memory at once, in training and inference
    cfg.MODEL.CID.MAX_INSTANCES_PER_CHUNK = 32

    # Losses: the single-person heatmap loss is normalised, for each person, by the number of that person's keypoints
    # ("person", Eq. 16) or by that of all people ("pooled", release)
    cfg.MODEL.CID.HEATMAP_LOSS_NORM = "person"
    # tau of Eq. 8
    cfg.MODEL.CID.TEMPERATURE = 0.05
    cfg.MODEL.CID.MULTI_HEATMAP_LOSS_WEIGHT = 1.0
    # 0 = without (Table 1)
    cfg.MODEL.CID.CONTRASTIVE_LOSS_WEIGHT = 1.0
    # lambda of Eq. 5
    cfg.MODEL.CID.SINGLE_HEATMAP_LOSS_WEIGHT = 4.0

    # Inference: maximum number of people in an image, and the minimum centre score
    cfg.MODEL.CID.MAX_PROPOSALS = 30
    cfg.MODEL.CID.SCORE_THRESH = 0.01
    # Window side, cells, an odd number: the centre map and the single-person heatmaps are averaged with their
    # mean-filtered copies (release: 11 for OCHuman with COCO weights)
    cfg.MODEL.CID.SMOOTHING = 3
    # A centre is the maximum of 3 x 3 cells; of 5 x 5 or 7 x 7 if the mean of the image's height and width, in cells,
    # is above the first or the second threshold
    cfg.MODEL.CID.WINDOW_THRESHOLDS = [200, 300]
    # If two poses have a higher OKS than this, the one with the lower score is dropped
    cfg.MODEL.CID.OKS_NMS_THRESH = 0.8
