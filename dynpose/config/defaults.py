"""Every dynpose config key, declared once: its meaning, its unit and where it comes from.

Keys of detectron2 that dynpose reads keep their detectron2 meaning and are not repeated here.
"""

from detectron2.config import CfgNode as CN


def add_dynpose_config(cfg):
    """Add dynpose's keys to a detectron2 config, in place.

    Args:
        cfg (CfgNode): from ``detectron2.config.get_cfg()``.

    Example::

        >>> from detectron2.config import get_cfg
        >>> from dynpose.config import add_dynpose_config
        >>> cfg = get_cfg()
        >>> add_dynpose_config(cfg)
        >>> cfg.merge_from_file("configs/FCPose/R_50_3x.yaml")
    """
    _add_data(cfg)
    _add_solver(cfg)
    _add_kp_net(cfg)
    _add_fcos(cfg)
    _add_fcpose(cfg)


def _add_data(cfg):
    # The user's own data sets: a list of mappings with the arguments of dynpose.data.register_pose_dataset (name,
    # json_file, image_root; optional category, flip_pairs, sigmas). They are registered when a config is set up, and
    # are then named in DATASETS.TRAIN / DATASETS.TEST like any other.
    cfg.DATASETS.POSE = []
    # Look for missing and truncated images before a run starts
    cfg.DATASETS.CHECK_IMAGES = True

    # The procedural data set "synthetic_pose_train" / "synthetic_pose_val" (dynpose.data.synthetic)
    cfg.DATASETS.SYNTHETIC = CN()
    # Folder it is written to at first use; "" = <OUTPUT_DIR>/synthetic
    cfg.DATASETS.SYNTHETIC.ROOT = ""
    cfg.DATASETS.SYNTHETIC.NUM_TRAIN = 1000
    cfg.DATASETS.SYNTHETIC.NUM_VAL = 100
    # Height and width of the images, pixels
    cfg.DATASETS.SYNTHETIC.IMAGE_SIZE = [256, 256]
    # Fewest and most people in an image
    cfg.DATASETS.SYNTHETIC.PEOPLE = [1, 3]
    # 0: people keep apart where there is room; 1: they all stand around one spot
    cfg.DATASETS.SYNTHETIC.CROWDING = 0.3
    # Height of a standing person as a fraction of the image's height, range
    cfg.DATASETS.SYNTHETIC.SCALE = [0.4, 0.9]
    # Share of the people who may stand partly outside the image
    cfg.DATASETS.SYNTHETIC.TRUNCATION = 0.2
    cfg.DATASETS.SYNTHETIC.SEED = 0

    # The keypoints that the model predicts. Left empty, they come from the metadata of DATASETS.TRAIN (or TEST) and are
    # written into the config that a run saves, so that prediction needs no data set.
    cfg.MODEL.KEYPOINT_SCHEMA = CN()
    # Keypoint names in order: their number is K
    cfg.MODEL.KEYPOINT_SCHEMA.NAMES = []
    # Pairs of names that change places in a mirrored image
    cfg.MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS = []
    # Pairs of 0-based keypoint indices, drawn as limbs
    cfg.MODEL.KEYPOINT_SCHEMA.SKELETON = []
    # One OKS sigma per keypoint; a COCO-style k_i = 2 sigma_i
    cfg.MODEL.KEYPOINT_SCHEMA.SIGMAS = []

    # OKS sigmas for evaluation, one per keypoint; [] = those of the data set's schema
    # (cfg.TEST.KEYPOINT_OKS_SIGMAS is detectron2's own key, with the same meaning.)


def _add_solver(cfg):
    # "SGD" (FCPose section 4) or "ADAMW"
    cfg.SOLVER.OPTIMIZER = "SGD"


def _add_kp_net(cfg):
    # The network that is generated for each person (FCPose section 3.1), run by dynpose.layers.kp_net
    cfg.MODEL.KP_NET = CN()
    # Channels of the feature map F that it reads, without the two relative coordinates (FCPose Table 1)
    cfg.MODEL.KP_NET.IN_CHANNELS = 32
    # Channels of its hidden layers (FCPose Table 3)
    cfg.MODEL.KP_NET.WIDTH = 32
    # Number of 1x1 convolutions, the one that gives the K heatmaps included (FCPose Table 2)
    cfg.MODEL.KP_NET.DEPTH = 3
    # Where the relative coordinates stand among the input channels: "first" or "last"
    cfg.MODEL.KP_NET.COORDS_POSITION = "first"
    # 1: cell minus location; -1: location minus cell
    cfg.MODEL.KP_NET.COORDS_SIGN = -1
    # "torch", "triton" (fused kernels for CUDA), or "auto", the best for the device
    cfg.MODEL.KP_NET.BACKEND = "auto"


def _add_fcos(cfg):
    # The one-stage detector underneath FCPose and InsPose (FCOS, ICCV 2019)
    cfg.MODEL.FCOS = CN()
    cfg.MODEL.FCOS.NUM_CLASSES = 1
    # Feature maps of the backbone that it runs on, finest first; their strides are asked of the backbone
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    # Upper end of the size (largest side distance, pixels) that each level but the last regresses: the last has none
    cfg.MODEL.FCOS.SIZES_OF_INTEREST = [64, 128, 256, 512]
    cfg.MODEL.FCOS.NUM_CLS_CONVS = 4
    cfg.MODEL.FCOS.NUM_BOX_CONVS = 4
    # Normalisation of the towers
    cfg.MODEL.FCOS.NORM = "GN"
    # One learned factor per level on the regressed distances
    cfg.MODEL.FCOS.USE_SCALE = True
    # Classification prior that the bias starts from
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    # Positives lie within this many strides of the box centre; 0 = anywhere in the box
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    cfg.MODEL.FCOS.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.FCOS.FOCAL_LOSS_GAMMA = 2.0
    # Added to the intersection and the union of the box loss, square strides: 0 = GIoU as published, 1 = AdelaiDet
    cfg.MODEL.FCOS.GIOU_SMOOTH = 0.0
    # Inference: threshold on the classification score (FCPose section 3.4), candidates per level, NMS IoU, people kept
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.05
    # Apply the threshold to score x centre-ness instead
    cfg.MODEL.FCOS.SCORE_THRESH_WITH_CENTERNESS = False
    cfg.MODEL.FCOS.PRE_NMS_TOPK_TEST = 1000
    cfg.MODEL.FCOS.NMS_THRESH_TEST = 0.6
    cfg.MODEL.FCOS.POST_NMS_TOPK_TEST = 100


def _add_fcpose(cfg):
    cfg.MODEL.FCPOSE = CN()
    # Kernel of the controller on the box tower: 1 (paper, section 3.1) or 3 (release)
    cfg.MODEL.FCPOSE.CONTROLLER_KERNEL = 1
    # Positive locations that get a KP-Net in training, per batch and process (section 3.3): 50 (paper), 70 (release);
    # 0 = all
    cfg.MODEL.FCPOSE.MAX_SAMPLES = 50
    # Relative coordinates are divided by the level's size of interest; for the last level, which has none, by this,
    # pixels
    cfg.MODEL.FCPOSE.LAST_SIZE_OF_INTEREST = 1333

    # The branch that makes F out of P3..P5
    cfg.MODEL.FCPOSE.BASIS = CN()
    cfg.MODEL.FCPOSE.BASIS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.FCPOSE.BASIS.CONVS_DIM = 128
    cfg.MODEL.FCPOSE.BASIS.NUM_CONVS = 4
    cfg.MODEL.FCPOSE.BASIS.NORM = "SyncBN"

    # Softmax cross-entropy of the heatmaps: "cell" (paper, Eq. 3: one-hot at stride 8) or "upsampled" (release: on the
    # logits up-sampled by 4, one-hot at stride 2)
    cfg.MODEL.FCPOSE.HEATMAP_LOSS = "cell"
    # For "cell", where the one is: "nearest" = floor(x / 8), the cell whose centre is nearest; "paper" =
    # floor((x - 4) / 8), as section 3.3 prints it
    cfg.MODEL.FCPOSE.HEATMAP_TARGET = "nearest"
    # alpha of Eq. 4
    cfg.MODEL.FCPOSE.HEATMAP_LOSS_WEIGHT = 2.5

    # Keypoint refinement (Tables 4 and 5): "none", "deconv" (heatmaps up-sampled by a transposed convolution), "shared"
    # (one offset map for all people) or "instance" (a generated 1x1 convolution per person)
    cfg.MODEL.FCPOSE.REFINEMENT = "shared"
    # What the shared offset map is computed from: "p3" (paper: one convolution on P3) or "basis" (release: F's last
    # layer)
    cfg.MODEL.FCPOSE.OFFSET_SOURCE = "p3"
    # Kernel of that one convolution on P3 (not given in the paper)
    cfg.MODEL.FCPOSE.OFFSET_KERNEL = 3
    # Pixels that an output of 1 stands for: 0 = the map's stride (paper variant), else that many (release: 1)
    cfg.MODEL.FCPOSE.OFFSET_SCALE = 0.0
    # "mse" (paper) or "expected_distance" (release)
    cfg.MODEL.FCPOSE.OFFSET_LOSS = "mse"
    # For "mse": cells whose centre is within this many cells of a keypoint's cell are supervised, with the nearest
    # keypoint of that kind; 0 = that cell alone
    cfg.MODEL.FCPOSE.OFFSET_RADIUS = 1
    # beta of Eq. 4
    cfg.MODEL.FCPOSE.OFFSET_LOSS_WEIGHT = 5.0
    # For "expected_distance": the distance is measured in half (w + h) of the person's box, times this, and squashed
    cfg.MODEL.FCPOSE.DISTANCE_NORM = 12.0
    # For "deconv": up-sampling factor
    cfg.MODEL.FCPOSE.DECONV_FACTOR = 4

    # Release: auxiliary multi-person heatmaps at stride 8 and 2 in training, and their weight
    cfg.MODEL.FCPOSE.AUX_HEATMAPS = False
    cfg.MODEL.FCPOSE.AUX_HEATMAP_LOSS_WEIGHT = 0.2
    # Standard deviation of their Gaussians in cells at stride 2 and at stride 8
    cfg.MODEL.FCPOSE.AUX_HEATMAP_SIGMAS = [1.8, 0.9]
