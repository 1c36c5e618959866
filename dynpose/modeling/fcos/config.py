"""Config keys of FCOS, which several methods share."""

from detectron2.config import CfgNode as CN


def add_fcos_config(cfg: CN) -> None:
    """Add the keys of MODEL.FCOS, in place."""
    # The one-stage detector of FCPose and InsPose (FCOS, ICCV 2019)
    cfg.MODEL.FCOS = CN()
    cfg.MODEL.FCOS.NUM_CLASSES = 1
    # Input feature maps, finest first; the backbone determines their strides
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    # Upper limit of the size (largest side distance, pixels) that each level regresses; the last level has no limit
    cfg.MODEL.FCOS.SIZES_OF_INTEREST = [64, 128, 256, 512]
    cfg.MODEL.FCOS.NUM_CLS_CONVS = 4
    cfg.MODEL.FCOS.NUM_BOX_CONVS = 4
    # Normalisation in the towers
    cfg.MODEL.FCOS.NORM = "GN"
    # Multiply the regressed distances of each level by a learned factor
    cfg.MODEL.FCOS.USE_SCALE = True
    # Prior probability that initialises the bias of the classification layer
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    # Positive locations lie within this many strides of the box centre; 0 = anywhere in the box
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    cfg.MODEL.FCOS.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.FCOS.FOCAL_LOSS_GAMMA = 2.0
    # Added to the intersection and the union in the box loss, square strides: 0 = GIoU as published, 1 = AdelaiDet
    cfg.MODEL.FCOS.GIOU_SMOOTH = 0.0
    # Inference: threshold on the classification score (FCPose section 3.4)
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.05
    # Apply the threshold to score x centre-ness instead
    cfg.MODEL.FCOS.SCORE_THRESH_WITH_CENTERNESS = False
    # Candidates kept before NMS
    cfg.MODEL.FCOS.PRE_NMS_TOPK_TEST = 1000
    # Count them per level and image (FCOS) or, if False, per image (InsPose section 3.4)
    cfg.MODEL.FCOS.PRE_NMS_TOPK_PER_LEVEL = True
    # IoU threshold of NMS, and the maximum number of people after it
    cfg.MODEL.FCOS.NMS_THRESH_TEST = 0.6
    cfg.MODEL.FCOS.POST_NMS_TOPK_TEST = 100
