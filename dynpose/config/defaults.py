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
    _add_input(cfg)
    _add_evaluation(cfg)
    _add_test_time_augmentation(cfg)
    _add_solver(cfg)
    _add_distributed(cfg)
    _add_backbones(cfg)
    _add_kp_net(cfg)
    _add_fcos(cfg)
    _add_fcpose(cfg)
    _add_inspose(cfg)
    _add_inspose_released(cfg)
    _add_cid(cfg)
    _add_querypose(cfg)
    _add_querypose_keypoints(cfg)


def _add_data(cfg):
    # The user's own data sets: a list of mappings with the arguments of dynpose.data.register_pose_dataset (name,
    # json_file, image_root; optional category, classes, class_name, schema, keypoints, skeleton, flip_pairs, sigmas,
    # protocol). They are registered when a config is set up, and are then named in DATASETS.TRAIN / DATASETS.TEST like
    # any other.
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

    # Names of the classes in the order of their indices. Left empty, they come from DATASETS.TRAIN (or TEST) and are
    # written into the config that a run saves. Data sets and weights are compared with them by name.
    cfg.MODEL.CLASS_NAMES = []

    # OKS sigmas for evaluation, one per keypoint; [] = those of the data set's schema
    # (cfg.TEST.KEYPOINT_OKS_SIGMAS is detectron2's own key, with the same meaning.)


def _add_input(cfg):
    # Where the crop is in training. False: first of all, and always. True: as DETR, Sparse R-CNN and QueryPose
    # (section 4.1) have it, after a resize of its own, in some of the images, and before INPUT.MIN_SIZE_TRAIN. Their
    # crop is INPUT.CROP.TYPE "absolute_range" with INPUT.CROP.SIZE [384, 600].
    cfg.INPUT.CROP_AFTER_RESIZE = False
    # For True: the probability of that resize and crop, and the lengths of the shorter side, pixels, one of which it is
    # resized to
    cfg.INPUT.CROP_PROBABILITY = 0.5
    cfg.INPUT.CROP_MIN_SIZES = [400, 500, 600]

    # The random affine warp of CID (section 4.2; dynpose.data.RandomAffine), for any method. In training it takes the
    # place of INPUT.CROP and of INPUT.MIN_SIZE_TRAIN; INPUT.RANDOM_FLIP comes after it.
    cfg.INPUT.AFFINE = CN()
    cfg.INPUT.AFFINE.ENABLED = False
    # Width and height of the result, pixels; a list of one number is a square
    cfg.INPUT.AFFINE.SIZE = [512, 512]
    # At most so many degrees to either side
    cfg.INPUT.AFFINE.ROTATION = 30.0
    # Range of the size of what is shown, relative to all of it
    cfg.INPUT.AFFINE.SCALE = [0.75, 1.5]
    # The middle is moved at most so far in x and in y, in 200ths of the side that is shown
    cfg.INPUT.AFFINE.TRANSLATION = 40.0
    # At scale 1 the result's shorter side shows the "short" or the "long" side of the image
    cfg.INPUT.AFFINE.SCALE_TYPE = "short"
    # Inference: resize by an affine warp onto sides that are multiples of 64, with equal margins (the released CID;
    # dynpose.data.AffineResize). The shorter side is INPUT.MIN_SIZE_TEST, the longer at most INPUT.MAX_SIZE_TEST. The
    # views of TEST.AUG are made so, too, of its sizes.
    cfg.INPUT.AFFINE_RESIZE_TEST = False
    # In training, give the model the masks of crowds and of people without labelled keypoints, for it to leave out
    cfg.INPUT.IGNORE_MASKS = False


def _add_evaluation(cfg):
    # What dynpose.evaluation.PoseEvaluator computes (docs/evaluation.md): some of "keypoints" (AP by OKS), "bbox" (box
    # AP) and "pck" (PCK, AUC and NME of each keypoint); [] = keypoints, and bbox where the predictions have boxes
    cfg.TEST.TASKS = []
    # Predictions of each class in an image that count, highest scores first: COCO's numbers
    cfg.TEST.MAX_DETS = CN()
    cfg.TEST.MAX_DETS.KEYPOINTS = 20
    cfg.TEST.MAX_DETS.BOXES = 100
    # Match the keypoints of the model (MODEL.KEYPOINT_SCHEMA) with those of a data set by name, for a data set that has
    # others; what the model does not have counts as not labelled
    cfg.TEST.MAP_KEYPOINTS = False


def _add_test_time_augmentation(cfg):
    # Multi-scale and flip testing (dynpose.modeling.test_time_augmentation) of any pose model, under detectron2's keys:
    # TEST.AUG.ENABLED, MIN_SIZES and MAX_SIZE (pixels) of the views, FLIP for the mirrored twin of each.
    # What is brought together: "poses", or "maps" where the model offers maps to average
    cfg.TEST.AUG.MERGE = "poses"
    # For "poses": two views' predictions are the same person from this OKS on (docs/evaluation.md: how it was chosen)
    cfg.TEST.AUG.MATCH_OKS = 0.7


def _add_solver(cfg):
    # "SGD" (FCPose section 4), "ADAM" (CID section 4.2) or "ADAMW" (QueryPose section 4.1). CLIP_GRADIENTS.CLIP_TYPE
    # has one more choice, "full_model": the norm of all gradients together
    cfg.SOLVER.OPTIMIZER = "SGD"
    # The total batch that BASE_LR is for: with another IMS_PER_BATCH, a run scales BASE_LR in proportion when it is set
    # up. 0 = BASE_LR counts as it is.
    cfg.SOLVER.REFERENCE_BATCH = 0
    # [pattern, factor] pairs: parameters that have the regular expression in their name learn at that many times the
    # rate; the first pair that fits counts
    cfg.SOLVER.LR_FACTORS = []
    # A schedule in epochs (InsPose section 4: 36, or 100): a run turns it into MAX_ITER and STEPS when it is set up,
    # from the number of training images that are left after filtering and IMS_PER_BATCH. 0 = MAX_ITER and STEPS count.
    cfg.SOLVER.MAX_EPOCHS = 0
    # Epochs at which the learning rate drops; they take the place of STEPS
    cfg.SOLVER.STEPS_EPOCHS = []
    # Most images that a process takes at once: a larger share of IMS_PER_BATCH is cut into micro-batches, and their
    # gradients are added up (docs/clusters.md: what is the same and what is not). 0 = the whole share at once.
    cfg.SOLVER.IMS_PER_PROCESS = 0
    # What autocast computes in where SOLVER.AMP.ENABLED is True: "float16" (with scaled gradients) or "bfloat16"
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Evaluate under autocast too, training's or not
    cfg.TEST.AMP = False
    # An exponential moving average of the weights: it is evaluated beside the weights themselves (results named _EMA)
    # and saved to <OUTPUT_DIR>/ema when training ends
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    # Share of the old average at each iteration
    cfg.SOLVER.EMA.DECAY = 0.9998
    # Several processes: look for parameters that a step does not use. For models that have some, such as the levels of
    # an FPN that nothing reads; without, DistributedDataParallel refuses them.
    cfg.SOLVER.FIND_UNUSED_PARAMETERS = False
    # Steps in a row that may be left out because a loss or a gradient is not finite; one more ends the training
    cfg.SOLVER.MAX_NONFINITE_STEPS = 10
    # torch.compile the backbone, in training and evaluation; checkpoints fit models with and without
    cfg.MODEL.COMPILE_BACKBONE = False

    # Numbered checkpoints that a run keeps, the newest; 0 = all. model_final.pth and model_best.pth do not count.
    cfg.SOLVER.CHECKPOINTS_KEPT = 5
    # The metric by which the best weights are kept in model_best.pth, as metrics.json names it: "keypoints/AP", with
    # SOLVER.EMA "keypoints_EMA/AP" for the averaged ones, with several DATASETS.TEST "<data set>/keypoints/AP". It is
    # compared at each evaluation (TEST.EVAL_PERIOD, and the last one). "" = none are kept.
    cfg.SOLVER.BEST_METRIC = ""
    # Evaluations in a row without a better BEST_METRIC after which the run ends; 0 = never
    cfg.SOLVER.EARLY_STOPPING_PATIENCE = 0


def _add_distributed(cfg):
    cfg.DISTRIBUTED = CN()
    # Minutes that an exchange between the processes of a run may take, before the run ends
    cfg.DISTRIBUTED.TIMEOUT_MINUTES = 30
    # Seconds without an iteration after which each process logs what it waits for, again and again; 0 = never
    cfg.DISTRIBUTED.REPORT_SECONDS = 60


def _add_backbones(cfg):
    # The backbones of dynpose.modeling.backbone; MODEL.BACKBONE.FREEZE_AT and MODEL.FPN mean what they do for ResNet
    cfg.MODEL.HRNET = CN()
    # Channels of the finest branch: 32 or 48 in the papers; timm also has 18, 30, 40, 44 and 64
    cfg.MODEL.HRNET.WIDTH = 32
    # "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.HRNET.NORM = "BN"
    # For build_hrnet_hrfpn_backbone: the branches are added to the levels of their strides: False in QueryPose's
    # HRNet-W32, True in its HRNet-W48
    cfg.MODEL.HRNET.HRFPN_LATERALS = False

    cfg.MODEL.DLA = CN()
    # 34 or 60 in FCPose Table 7; timm also has 102 and 169
    cfg.MODEL.DLA.DEPTH = 34
    # "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.DLA.NORM = "BN"

    cfg.MODEL.SWIN = CN()
    # "tiny", "small", "base" or "large"
    cfg.MODEL.SWIN.SIZE = "large"
    # Side of the attention windows, patches of 4 pixels: 7, or 12 for weights that were trained at 384 pixels
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth, the rate of the last block
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.2

    # Any other network of timm
    cfg.MODEL.TIMM = CN()
    # Of timm.list_models(); it needs feature maps of strides 4, 8, 16 and 32
    cfg.MODEL.TIMM.NAME = "convnext_tiny"
    # Of its batch norms, if it has any: "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.TIMM.NORM = "BN"
    # Stochastic depth, the rate of the last block; networks without it need 0
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0


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
    # Those candidates are counted per level and image (FCOS) or per image (InsPose section 3.4)
    cfg.MODEL.FCOS.PRE_NMS_TOPK_PER_LEVEL = True
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


def _add_inspose(cfg):
    # InsPose as its paper has it (ACM MM 2021). It also reads MODEL.FCOS and MODEL.KP_NET.
    cfg.MODEL.INSPOSE = CN()
    # Standard deviation of the normal distribution that new convolutions start from (section 4: as RetinaNet); 0 = He
    # initialisation of the towers
    cfg.MODEL.INSPOSE.INIT_STD = 0.01
    # Normalisation of the branches on P3 (not given; that of the towers is MODEL.FCOS.NORM)
    cfg.MODEL.INSPOSE.NORM = "GN"
    # Kernel of the convolution that generates the KP-Nets (not given)
    cfg.MODEL.INSPOSE.CONTROLLER_KERNEL = 3
    # Relative coordinates are divided by this many strides of the location's level (not given)
    cfg.MODEL.INSPOSE.COORD_SCALE = 8.0
    # Positives lie within MODEL.FCOS.CENTER_SAMPLING_RADIUS strides of the pseudo-box's centre (section 3.1); True =
    # and inside the pseudo-box, as in FCOS, where a person with one keypoint, or with all on a line, has no positives
    cfg.MODEL.INSPOSE.CENTER_INSIDE_BOX = False

    # The keypoint feature branch on P3 (section 3.2): 3x3 convolutions, then a 1x1 one to KP_NET.IN_CHANNELS
    cfg.MODEL.INSPOSE.FEATURE_CONVS_DIM = 128
    cfg.MODEL.INSPOSE.NUM_FEATURE_CONVS = 4
    # Stride of the keypoint maps and of the disk offsets, pixels: P3's 8, or re-sampled to 16, 4 or 2 (Table 3)
    cfg.MODEL.INSPOSE.MAP_STRIDE = 8
    # Weights of the losses (Eq. 5 has none)
    cfg.MODEL.INSPOSE.KEYPOINT_LOSS_WEIGHT = 1.0

    # The disk offset branch on P3 (section 3.3; Table 1): 3x3 convolutions, the last of which has 2 K outputs
    cfg.MODEL.INSPOSE.DISK_OFFSET = True
    cfg.MODEL.INSPOSE.NUM_OFFSET_CONVS = 3
    # Channels of the others (not given)
    cfg.MODEL.INSPOSE.OFFSET_CONVS_DIM = 256
    # R, in cells of MAP_STRIDE, around the keypoint (not given); the keypoint's own cell always counts
    cfg.MODEL.INSPOSE.DISK_RADIUS = 2.0
    cfg.MODEL.INSPOSE.OFFSET_LOSS_WEIGHT = 1.0

    # The auxiliary multi-person heatmap on P3, in training only (section 3.4; Table 1): 3x3 convolutions, then one to K
    cfg.MODEL.INSPOSE.HEATMAP = True
    cfg.MODEL.INSPOSE.NUM_HEATMAP_CONVS = 2
    cfg.MODEL.INSPOSE.HEATMAP_CONVS_DIM = 256
    # Standard deviation of its Gaussians, in cells of P3 (not given)
    cfg.MODEL.INSPOSE.HEATMAP_SIGMA = 1.0
    cfg.MODEL.INSPOSE.HEATMAP_LOSS_WEIGHT = 1.0

    # Regress bounding boxes from the parameter-generating tower (end of section 3; Table 4). The annotated boxes, and
    # not the pseudo-boxes, then say which locations are positive, and NMS looks at the predicted ones.
    cfg.MODEL.INSPOSE.BOX_HEAD = False
    # With them, learn FCOS's centre-ness too: it weights the box loss and joins the score (not in the paper)
    cfg.MODEL.INSPOSE.CENTERNESS = False


def _add_inspose_released(cfg):
    # InsPose as released in opera. It also reads MODEL.FCOS and MODEL.KP_NET.
    cfg.MODEL.INSPOSE_RELEASED = CN()
    # The keypoints that a star-shaped convolution samples in place of a 3x3 neighbourhood: nine 0-based indices, which
    # may repeat. These are COCO's nose, shoulders, wrists, hips and ankles; other keypoints need their own.
    cfg.MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS = [0, 5, 6, 9, 10, 11, 12, 15, 16]
    # Share of the gradient that the stars hand on to the regressed keypoints
    cfg.MODEL.INSPOSE_RELEASED.STAR_GRADIENT = 0.1
    # 3x3 convolutions of the branch that regresses the keypoints, and their channels
    cfg.MODEL.INSPOSE_RELEASED.NUM_REGRESSION_CONVS = 4
    cfg.MODEL.INSPOSE_RELEASED.REGRESSION_CONVS_DIM = 512
    # The keypoint feature branch on P3: hidden 3x3 convolutions, then one to KP_NET.IN_CHANNELS
    cfg.MODEL.INSPOSE_RELEASED.NUM_FEATURE_CONVS = 4
    cfg.MODEL.INSPOSE_RELEASED.FEATURE_CONVS_DIM = 128
    # The branch of heatmaps, tags and disk offsets at stride 4: 3x3 convolutions, the last after the up-sampling
    cfg.MODEL.INSPOSE_RELEASED.NUM_AUX_CONVS = 3
    cfg.MODEL.INSPOSE_RELEASED.AUX_CONVS_DIM = 512
    # Relative coordinates are divided by this many strides of the location's level
    cfg.MODEL.INSPOSE_RELEASED.COORD_SCALE = 8.0
    # The network's keypoints are pixel indices, as COCO writes them and opera takes them; False = detectron2's
    # continuous coordinates, half a pixel of the original image further right and down. With True, neither INPUT.CROP
    # nor INPUT.AFFINE can be enabled.
    cfg.MODEL.INSPOSE_RELEASED.INDEX_COORDINATES = True

    # Varifocal loss of the classification
    cfg.MODEL.INSPOSE_RELEASED.VARIFOCAL_ALPHA = 0.75
    cfg.MODEL.INSPOSE_RELEASED.VARIFOCAL_GAMMA = 2.0
    # Its target, the OKS of the network's current peaks: "released" = distances in cells against areas in pixels, far
    # too generous; "oks" = distances in pixels
    cfg.MODEL.INSPOSE_RELEASED.QUALITY = "released"
    # Its target for people without labelled keypoints
    cfg.MODEL.INSPOSE_RELEASED.UNLABELLED_QUALITY = 0.1
    # Area of a person for the OKS as a fraction of the box's, where the dataset mapper gives no gt_areas
    cfg.MODEL.INSPOSE_RELEASED.AREA_OF_BOX = 0.53
    # Where the tag of a keypoint is read in training: "released" = one cell left of and above its own, from the far
    # side of the map where there is none; "cell" = its own
    cfg.MODEL.INSPOSE_RELEASED.TAG_CELL = "released"
    # Squares of heatmap and offset targets around a keypoint: CornerNet's radius for this IoU, at most so many cells
    cfg.MODEL.INSPOSE_RELEASED.RADIUS_MIN_OVERLAP = 0.9
    cfg.MODEL.INSPOSE_RELEASED.MAX_RADIUS = 3
    cfg.MODEL.INSPOSE_RELEASED.KEYPOINT_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.REGRESSION_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.HEATMAP_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.TAG_LOSS_WEIGHT = 1.0
    cfg.MODEL.INSPOSE_RELEASED.OFFSET_LOSS_WEIGHT = 1.0

    # Soft-NMS: "linear" above the IoU MODEL.FCOS.NMS_THRESH_TEST, or "gaussian" with sigma; scores below the last
    # number are dropped
    cfg.MODEL.INSPOSE_RELEASED.NMS_METHOD = "linear"
    cfg.MODEL.INSPOSE_RELEASED.NMS_SIGMA = 0.5
    cfg.MODEL.INSPOSE_RELEASED.NMS_MIN_SCORE = 0.001


def _add_cid(cfg):
    # CID (CVPR 2022). Where paper and release differ, the default is the release's, but for INDEX_COORDINATES.
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
    # for each person by his or her own ("person", Eq. 16)
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


def _add_querypose(cfg):
    # QueryPose (NeurIPS 2022): its queries and boxes, which are Sparse R-CNN's
    cfg.MODEL.QUERYPOSE = CN()
    cfg.MODEL.QUERYPOSE.NUM_CLASSES = 1
    # N, instance-level queries and learned boxes: the most people that an image can have (section 4.1: 100, or 50)
    cfg.MODEL.QUERYPOSE.NUM_QUERIES = 100
    # S, pairs of a box and a keypoint decoder
    cfg.MODEL.QUERYPOSE.NUM_STAGES = 6
    # The order of the two in the life of an instance-level query (Figure 3; Table 3): "keypoint_decoder" = (b), the
    # next box decoder gets the query that the keypoint decoder has updated; "box_decoder" = (a), the query as it was
    # before. Without DYNAMIC_MLP the keypoint decoder does not update it, and both are the same.
    cfg.MODEL.QUERYPOSE.PIPELINE = "keypoint_decoder"
    # Channels of instance-level queries, and of IN_FEATURES
    cfg.MODEL.QUERYPOSE.HIDDEN_DIM = 256
    # Pyramid levels that boxes are pooled from, finest first, and the one for keypoints
    cfg.MODEL.QUERYPOSE.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.QUERYPOSE.KEYPOINT_IN_FEATURE = "p2"
    # Side of the pooled maps in cells, of boxes and of keypoints, and samples per cell along each axis (RoIAlign)
    cfg.MODEL.QUERYPOSE.POOLER_RESOLUTION = 7
    cfg.MODEL.QUERYPOSE.KEYPOINT_POOLER_RESOLUTION = 14
    cfg.MODEL.QUERYPOSE.POOLER_SAMPLING_RATIO = 2

    # Attention and feed-forward layers of instance-level queries
    cfg.MODEL.QUERYPOSE.NUM_HEADS = 8
    cfg.MODEL.QUERYPOSE.FEEDFORWARD_DIM = 2048
    cfg.MODEL.QUERYPOSE.DROPOUT = 0.0
    # Channels between the two layers of the dynamic MLP
    cfg.MODEL.QUERYPOSE.DYNAMIC_DIM = 64
    # Linear layers before that of the class and that of the box
    cfg.MODEL.QUERYPOSE.NUM_CLS_LAYERS = 1
    cfg.MODEL.QUERYPOSE.NUM_REG_LAYERS = 3
    # Classification prior that the bias starts from
    cfg.MODEL.QUERYPOSE.PRIOR_PROB = 0.01

    # Training: which queries' keypoints are decoded. "matched" = those of queries that are matched with somebody in any
    # stage; "all" = the first release, whose batch normalisation sees the background too.
    cfg.MODEL.QUERYPOSE.DECODE_IN_TRAINING = "matched"
    # Training: keep what goes into the stages only, and compute the rest again for the gradient: less memory, more time
    cfg.MODEL.QUERYPOSE.ACTIVATION_CHECKPOINT = False
    # Weights of the losses of every stage (section 3.4); the first three are those of the matching too
    cfg.MODEL.QUERYPOSE.CLASS_LOSS_WEIGHT = 2.0
    cfg.MODEL.QUERYPOSE.L1_LOSS_WEIGHT = 5.0
    cfg.MODEL.QUERYPOSE.GIOU_LOSS_WEIGHT = 2.0
    cfg.MODEL.QUERYPOSE.KEYPOINT_LOSS_WEIGHT = 1.0
    cfg.MODEL.QUERYPOSE.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.QUERYPOSE.FOCAL_LOSS_GAMMA = 2.0


def _add_querypose_keypoints(cfg):
    # QueryPose's keypoint decoder. The parts of the body (Figure 4; Table 2d): "a", "b", "c" or "d", of which the last
    # three need the keypoints of COCO or CrowdPose; "keypoints" = one part a keypoint, which is "a"; or a list of lists
    # of keypoint names, every keypoint in one of them. None or "auto" = "c" where the keypoints are COCO's or
    # CrowdPose's, else "keypoints".
    cfg.MODEL.QUERYPOSE.PARTS = None
    # Channels of part-level queries (Table 2c: 32 to 256), a multiple of NUM_HEADS
    cfg.MODEL.QUERYPOSE.PART_DIM = 128
    # Hidden channels of their feed-forward layers
    cfg.MODEL.QUERYPOSE.PART_FEEDFORWARD_DIM = 2048
    # The keypoint decoder updates instance-level queries by a dynamic MLP of its own. False = the released light
    # version
    cfg.MODEL.QUERYPOSE.DYNAMIC_MLP = True
    # 3x3 convolutions of the pooled maps before everything else, and their channels but for the last, which has
    # HIDDEN_DIM
    cfg.MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS = 6
    cfg.MODEL.QUERYPOSE.KEYPOINT_CONV_DIM = 512
    # Normalisation of the deconvolution behind them: "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.QUERYPOSE.KEYPOINT_NORM = "BN"
    # What keypoints are regressed from (Table 1): "part" = part-level queries; "instance" = the instance-level one
    cfg.MODEL.QUERYPOSE.QUERY = "part"
    # How they learn from the pooled maps (Table 1): "spegm", "mhsa", "dynamic_channel", "dynamic_spatial" or
    # "spatial_attention"; "pool" = the maps' mean in the place of queries, the baseline of Table 2b, which needs QUERY
    # "instance", ITERATION "none" and DYNAMIC_MLP False
    cfg.MODEL.QUERYPOSE.INTERACTION = "spegm"
    # How part-level queries of a stage come from those of the last (Table 2a): "none" (with QUERY "instance" the only
    # one), "sum", "concat" or "selective" = SIM
    cfg.MODEL.QUERYPOSE.ITERATION = "selective"
