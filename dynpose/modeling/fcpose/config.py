"""Config keys of FCPose. It also reads MODEL.FCOS and MODEL.KP_NET."""

from detectron2.config import CfgNode as CN


def add_fcpose_config(cfg: CN) -> None:
    """Add the keys of MODEL.FCPOSE, in place."""
    cfg.MODEL.FCPOSE = CN()
    # Kernel size of the controller on the box tower: 1 (paper, section 3.1) or 3 (release)
    cfg.MODEL.FCPOSE.CONTROLLER_KERNEL = 1
    # Positive locations that get a KP-Net in training, per batch and process (section 3.3): 50 (paper), 70 (release);
    # 0 = all
    cfg.MODEL.FCPOSE.MAX_SAMPLES = 50
    # Relative coordinates are divided by the level's size of interest; for the last level, which has none, by this
    # value, pixels
    cfg.MODEL.FCPOSE.LAST_SIZE_OF_INTEREST = 1333

    # The branch that computes F from P3..P5
    cfg.MODEL.FCPOSE.BASIS = CN()
    cfg.MODEL.FCPOSE.BASIS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.FCPOSE.BASIS.CONVS_DIM = 128
    cfg.MODEL.FCPOSE.BASIS.NUM_CONVS = 4
    cfg.MODEL.FCPOSE.BASIS.NORM = "SyncBN"

    # Softmax cross-entropy on the heatmaps: "cell" (paper, Eq. 3: one-hot at stride 8) or "upsampled" (release: on the
    # logits up-sampled by 4, one-hot at stride 2)
    cfg.MODEL.FCPOSE.HEATMAP_LOSS = "cell"
    # Target cell of "cell": "nearest" = floor(x / 8), the cell with the nearest centre; "paper" = floor((x - 4) / 8),
    # as printed in section 3.3
    cfg.MODEL.FCPOSE.HEATMAP_TARGET = "nearest"
    # alpha of Eq. 4
    cfg.MODEL.FCPOSE.HEATMAP_LOSS_WEIGHT = 2.5

    # Keypoint refinement (Tables 4 and 5): "none", "deconv" (heatmaps up-sampled by a transposed convolution), "shared"
    # (one offset map for all people) or "instance" (a generated 1x1 convolution per person)
    cfg.MODEL.FCPOSE.REFINEMENT = "shared"
    # Input of the shared offset map: "p3" (paper: one convolution on P3) or "basis" (release: F's last layer)
    cfg.MODEL.FCPOSE.OFFSET_SOURCE = "p3"
    # Kernel size of that convolution on P3 (not given in the paper)
    cfg.MODEL.FCPOSE.OFFSET_KERNEL = 3
    # Pixels per unit of the offset map: 0 = the map's stride (paper variant), else this value (release: 1)
    cfg.MODEL.FCPOSE.OFFSET_SCALE = 0.0
    # "mse" (paper) or "expected_distance" (release)
    cfg.MODEL.FCPOSE.OFFSET_LOSS = "mse"
    # For "mse": cells whose centre is within this many cells of a keypoint's cell are supervised, with the nearest
    # keypoint of that type; 0 = that cell alone
    cfg.MODEL.FCPOSE.OFFSET_RADIUS = 0
    # beta of Eq. 4
    cfg.MODEL.FCPOSE.OFFSET_LOSS_WEIGHT = 5.0
    # For "expected_distance": the distance in units of half (w + h) of the person's box is multiplied by this, then
    # squashed
    cfg.MODEL.FCPOSE.DISTANCE_NORM = 12.0
    # For "deconv": up-sampling factor
    cfg.MODEL.FCPOSE.DECONV_FACTOR = 4

    # Release: auxiliary multi-person heatmaps at stride 8 and 2 in training, and their weight
    cfg.MODEL.FCPOSE.AUX_HEATMAPS = False
    cfg.MODEL.FCPOSE.AUX_HEATMAP_LOSS_WEIGHT = 0.2
    # Standard deviation of their Gaussians in cells at stride 2 and at stride 8
    cfg.MODEL.FCPOSE.AUX_HEATMAP_SIGMAS = [1.8, 0.9]
