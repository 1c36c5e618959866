"""Config keys of CID (CVPR 2022)."""

from detectron2.config import CfgNode as CN


def add_cid_config(cfg):
    """Add the keys of MODEL.CID, in place."""
    # Where paper and release differ, the default is the release's, but for INDEX_COORDINATES.
    cfg.MODEL.CID = CN()
    # The one output of the backbone that everything is read from, at the resolution of the heatmaps
    cfg.MODEL.CID.IN_FEATURES = ["concat"]
    # Probability that all heatmaps start with
    cfg.MODEL.CID.PRIOR_PROB = 0.01

    # Global feature decoupling (section 3.3): standard deviation of the weights that its layers start from, the
    # release's; 0 = PyTorch's own, with which a small network learns much faster at first
    cfg.MODEL.CID.INIT_STD = 0.001
    # Channels of F-hat (Table 2)
    cfg.MODEL.CID.CHANNELS = 32
    # "spatial", "channel", or both (Table 1)
    cfg.MODEL.CID.RECALIBRATION = ["spatial", "channel"]
    # A person's weights of these channels: "linear" (release) = linear layers of the feature at the centre, one for
    # Eq. 11 and one for Eq. 10; "feature" (paper) = that feature itself, read from F-hat, which has as many channels
    cfg.MODEL.CID.CHANNEL_WEIGHTS = "linear"
    # Relative coordinates are divided by this many cells
    cfg.MODEL.CID.COORD_SCALE = 32.0
    # Cells divide the pixel indices of the network's input, as in the release. False = its continuous pixels, which are
    # half a pixel larger. Weights are of the one or of the other: those of the authors need True, with False their
    # keypoints are half a pixel of the network's input too far left and up. Flip testing is symmetric with False only.
    cfg.MODEL.CID.INDEX_COORDINATES = False

    # Targets: people whose annotated box is smaller, square pixels of the augmented image, are in the multi-person maps
    # but are not decoupled (release, COCO and OCHuman: 32^2; CrowdPose: 0)
    cfg.MODEL.CID.MIN_BOX_AREA = 1024.0
    # CornerNet's radius for this IoU sizes a person's Gaussians
    cfg.MODEL.CID.RADIUS_MIN_OVERLAP = 0.7
    # People decoupled in training, per process; others are left out at random
    cfg.MODEL.CID.MAX_INSTANCES = 200
    # Most people whose heatmaps exist at once, in training and inference
    cfg.MODEL.CID.MAX_INSTANCES_PER_CHUNK = 32

    # Losses: the people's own heatmaps are normalised by the keypoints of all people together ("pooled", release), or
    # for each person by that person's ("person", Eq. 16)
    cfg.MODEL.CID.HEATMAP_LOSS_NORM = "pooled"
    # tau of Eq. 8
    cfg.MODEL.CID.TEMPERATURE = 0.05
    cfg.MODEL.CID.MULTI_HEATMAP_LOSS_WEIGHT = 1.0
    # 0 = without (Table 1)
    cfg.MODEL.CID.CONTRASTIVE_LOSS_WEIGHT = 1.0
    # lambda of Eq. 5
    cfg.MODEL.CID.SINGLE_HEATMAP_LOSS_WEIGHT = 4.0

    # Inference: most people in an image, and the least centre score
    cfg.MODEL.CID.MAX_PROPOSALS = 30
    cfg.MODEL.CID.SCORE_THRESH = 0.01
    # The centre map and the people's heatmaps are averaged with their own mean over so many cells a side, an odd number
    # (release: 11 for people of OCHuman by the weights of COCO)
    cfg.MODEL.CID.SMOOTHING = 3
    # A centre is the largest of 3 x 3 cells; of 5 x 5 or 7 x 7 where the mean of the image's height and width, in
    # cells, is above the first or the second of these
    cfg.MODEL.CID.WINDOW_THRESHOLDS = [200, 300]
    # The worse of two poses with a higher OKS is dropped
    cfg.MODEL.CID.OKS_NMS_THRESH = 0.8
