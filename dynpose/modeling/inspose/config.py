"""Config keys of InsPose and of its release. Both also read MODEL.FCOS and MODEL.KP_NET."""

from detectron2.config import CfgNode as CN


def add_inspose_config(cfg: CN) -> None:
    """Add the keys of MODEL.INSPOSE, the paper (ACM MM 2021), in place."""
    cfg.MODEL.INSPOSE = CN()
    # Standard deviation of the normal initialisation of new convolutions (section 4: as RetinaNet); 0 = He
    # initialisation of the towers
    cfg.MODEL.INSPOSE.INIT_STD = 0.01
    # Normalisation of the branches on P3 (not given; that of the towers is MODEL.FCOS.NORM)
    cfg.MODEL.INSPOSE.NORM = "GN"
    # Kernel size of the controller, the convolution that generates the KP-Nets (not given)
    cfg.MODEL.INSPOSE.CONTROLLER_KERNEL = 3
    # Relative coordinates are divided by this many strides of the location's level (not given)
    cfg.MODEL.INSPOSE.COORD_SCALE = 8.0
    # Positive locations lie within MODEL.FCOS.CENTER_SAMPLING_RADIUS strides of the pseudo-box's centre (section 3.1).
    # True = also inside the pseudo-box, as in FCOS; a person with one keypoint, or with all of them on a line, then has
    # no positives
    cfg.MODEL.INSPOSE.CENTER_INSIDE_BOX = False

    # The keypoint feature branch on P3 (section 3.2): 3x3 convolutions, then a 1x1 one to KP_NET.IN_CHANNELS
    cfg.MODEL.INSPOSE.FEATURE_CONVS_DIM = 128
    cfg.MODEL.INSPOSE.NUM_FEATURE_CONVS = 4
    # Stride of the keypoint maps and of the disk offsets, pixels: P3's 8, or resampled to 16, 4 or 2 (Table 3)
    cfg.MODEL.INSPOSE.MAP_STRIDE = 8
    # Loss weights (Eq. 5 has none)
    cfg.MODEL.INSPOSE.KEYPOINT_LOSS_WEIGHT = 1.0

    # The disk offset branch on P3 (section 3.3; Table 1): 3x3 convolutions, the last with 2 K outputs
    cfg.MODEL.INSPOSE.DISK_OFFSET = True
    cfg.MODEL.INSPOSE.NUM_OFFSET_CONVS = 3
    # Channels of the others (not given)
    cfg.MODEL.INSPOSE.OFFSET_CONVS_DIM = 256
    # R, in cells of MAP_STRIDE, around the keypoint (not given); the keypoint's cell itself is always included
    cfg.MODEL.INSPOSE.DISK_RADIUS = 2.0
    cfg.MODEL.INSPOSE.OFFSET_LOSS_WEIGHT = 1.0

    # The auxiliary multi-person heatmap on P3, in training only (section 3.4; Table 1): 3x3 convolutions, then one to K
    cfg.MODEL.INSPOSE.HEATMAP = True
    cfg.MODEL.INSPOSE.NUM_HEATMAP_CONVS = 2
    cfg.MODEL.INSPOSE.HEATMAP_CONVS_DIM = 256
    # Standard deviation of its Gaussians, in cells of P3 (not given)
    cfg.MODEL.INSPOSE.HEATMAP_SIGMA = 1.0
    cfg.MODEL.INSPOSE.HEATMAP_LOSS_WEIGHT = 1.0

    # Regress bounding boxes from the parameter-generating tower (end of section 3; Table 4). The annotated boxes
    # instead of the pseudo-boxes then define the positive locations, and NMS uses the predicted boxes.
    cfg.MODEL.INSPOSE.BOX_HEAD = False
    # With BOX_HEAD, also learn FCOS's centre-ness: it weights the box loss and enters the score (not in the paper)
    cfg.MODEL.INSPOSE.CENTERNESS = False


def add_inspose_released_config(cfg: CN) -> None:
    """Add the keys of MODEL.INSPOSE_RELEASED, the release in opera, in place."""
    cfg.MODEL.INSPOSE_RELEASED = CN()
    # The keypoints that a star-shaped convolution samples in place of a 3x3 neighbourhood: nine 0-based indices, which
    # may repeat. These are COCO's nose, shoulders, wrists, hips and ankles; change them for another schema.
    cfg.MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS = [0, 5, 6, 9, 10, 11, 12, 15, 16]
    # Fraction of the star convolutions' gradient that reaches the regressed keypoints
    cfg.MODEL.INSPOSE_RELEASED.STAR_GRADIENT = 0.1
    # 3x3 convolutions of the branch that regresses the keypoints, and their channels
    cfg.MODEL.INSPOSE_RELEASED.NUM_REGRESSION_CONVS = 4
    cfg.MODEL.INSPOSE_RELEASED.REGRESSION_CONVS_DIM = 512
    # The keypoint feature branch on P3: hidden 3x3 convolutions, then one to KP_NET.IN_CHANNELS
    cfg.MODEL.INSPOSE_RELEASED.NUM_FEATURE_CONVS = 4
    cfg.MODEL.INSPOSE_RELEASED.FEATURE_CONVS_DIM = 128
    # The branch for heatmaps, tags and disk offsets at stride 4: 3x3 convolutions, the last after the up-sampling
    cfg.MODEL.INSPOSE_RELEASED.NUM_AUX_CONVS = 3
    cfg.MODEL.INSPOSE_RELEASED.AUX_CONVS_DIM = 512
    # Relative coordinates are divided by this many strides of the location's level
    cfg.MODEL.INSPOSE_RELEASED.COORD_SCALE = 8.0
    # The network's keypoints are pixel indices, as in COCO files and opera; False = detectron2's continuous
    # coordinates, half a pixel of the original image further right and down. With True, neither INPUT.CROP nor
    # INPUT.AFFINE can be enabled.
    cfg.MODEL.INSPOSE_RELEASED.INDEX_COORDINATES = True

    # Varifocal loss of the classification
    cfg.MODEL.INSPOSE_RELEASED.VARIFOCAL_ALPHA = 0.75
    cfg.MODEL.INSPOSE_RELEASED.VARIFOCAL_GAMMA = 2.0
    # Its target, the OKS of the current peaks: "released" = distances in cells against areas in square pixels, which is
    # far too lenient; "oks" = distances in pixels
    cfg.MODEL.INSPOSE_RELEASED.QUALITY = "released"
    # Its target for people without labelled keypoints
    cfg.MODEL.INSPOSE_RELEASED.UNLABELLED_QUALITY = 0.1
    # Area of a person for the OKS as a fraction of the box area, used if the dataset mapper gives no gt_areas
    cfg.MODEL.INSPOSE_RELEASED.AREA_OF_BOX = 0.53
    # Cell at which the tag of a keypoint is read in training: "released" = one cell left of and above the keypoint's
    # cell, wrapping around at the edge of the map; "cell" = the keypoint's cell
    cfg.MODEL.INSPOSE_RELEASED.TAG_CELL = "released"
    # Squares of heatmap and offset targets around a keypoint: CornerNet's radius for this IoU, at most MAX_RADIUS cells
    cfg.MODEL.INSPOSE_RELEASED.RADIUS_MIN_OVERLAP = 0.9
    cfg.MODEL.INSPOSE_RELEASED.MAX_RADIUS = 3
    cfg.MODEL.INSPOSE_RELEASED.KEYPOINT_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.REGRESSION_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.HEATMAP_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.TAG_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.OFFSET_LOSS_WEIGHT = 1.0

    # Soft-NMS: "linear" above the IoU MODEL.FCOS.NMS_THRESH_TEST, or "gaussian" with NMS_SIGMA; predictions with a
    # score below NMS_MIN_SCORE are dropped
    cfg.MODEL.INSPOSE_RELEASED.NMS_METHOD = "linear"
    cfg.MODEL.INSPOSE_RELEASED.NMS_SIGMA = 0.5
    cfg.MODEL.INSPOSE_RELEASED.NMS_MIN_SCORE = 0.001
