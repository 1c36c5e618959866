"""The dynpose config keys that all methods share, each with its meaning, unit and source.

Each method declares its keys in dynpose/modeling/<method>/config.py and registers them with
:mod:`dynpose.methods`. Keys of detectron2 that dynpose reads keep their meaning and are not repeated here.
"""

from detectron2.config import CfgNode as CN

from dynpose.methods import add_registered_config


def add_dynpose_config(cfg: CN) -> None:
    """Add dynpose's keys and those of all registered methods to a detectron2 config, in place.

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
    add_registered_config(cfg)


def _add_data(cfg):
    # Custom data sets: a list of mappings with the arguments of dynpose.data.register_pose_dataset (name, json_file,
    # image_root; optional category, classes, class_name, schema, keypoints, skeleton, flip_pairs, sigmas, protocol).
    # They are registered during config set-up and can then be named in DATASETS.TRAIN / DATASETS.TEST.
    cfg.DATASETS.POSE = []
    # Check for missing and truncated images before a run starts
    cfg.DATASETS.CHECK_IMAGES = True

    # The procedural data set "synthetic_pose_train" / "synthetic_pose_val" (dynpose.data.synthetic)
    cfg.DATASETS.SYNTHETIC = CN()
    # Output folder, written at first use; "" = <OUTPUT_DIR>/synthetic
    cfg.DATASETS.SYNTHETIC.ROOT = ""
    cfg.DATASETS.SYNTHETIC.NUM_TRAIN = 1000
    cfg.DATASETS.SYNTHETIC.NUM_VAL = 100
    # Height and width of the images, pixels
    cfg.DATASETS.SYNTHETIC.IMAGE_SIZE = [256, 256]
    # Minimum and maximum number of people per image
    cfg.DATASETS.SYNTHETIC.PEOPLE = [1, 3]
    # 0: people keep apart where there is room; 1: they all gather around one point
    cfg.DATASETS.SYNTHETIC.CROWDING = 0.3
    # Range of a standing person's height, as a fraction of the image height
    cfg.DATASETS.SYNTHETIC.SCALE = [0.4, 0.9]
    # Fraction of the people who may stand partly outside the image
    cfg.DATASETS.SYNTHETIC.TRUNCATION = 0.2
    cfg.DATASETS.SYNTHETIC.SEED = 0

    # The keypoints that the model predicts. If empty, they are read from the metadata of DATASETS.TRAIN (or TEST) and
    # written to the config that a run saves, so that prediction needs no data set.
    cfg.MODEL.KEYPOINT_SCHEMA = CN()
    # The K keypoint names, in order
    cfg.MODEL.KEYPOINT_SCHEMA.NAMES = []
    # Pairs of names that are swapped in a mirrored image
    cfg.MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS = []
    # Pairs of 0-based keypoint indices, drawn as limbs
    cfg.MODEL.KEYPOINT_SCHEMA.SKELETON = []
    # One OKS sigma per keypoint; a COCO-style k_i = 2 sigma_i
    cfg.MODEL.KEYPOINT_SCHEMA.SIGMAS = []

    # Class names in the order of their indices. If empty, they are read from DATASETS.TRAIN (or TEST) and written to
    # the config that a run saves. Data sets and weights are compared with them by name.
    cfg.MODEL.CLASS_NAMES = []

    # OKS sigmas for evaluation are detectron2's key TEST.KEYPOINT_OKS_SIGMAS: one per keypoint; [] = those of the data
    # set's schema


def _add_input(cfg):
    # Position of the crop in training. False: before every other augmentation, for every image. True: as in DETR,
    # Sparse R-CNN and QueryPose (section 4.1), after a separate resize, for some of the images, and before
    # INPUT.MIN_SIZE_TRAIN. Their crop is INPUT.CROP.TYPE "absolute_range" with INPUT.CROP.SIZE [384, 600].
    cfg.INPUT.CROP_AFTER_RESIZE = False
    # For True: the probability of that resize and crop, and the lengths, pixels, from which the shorter side is drawn
    cfg.INPUT.CROP_PROBABILITY = 0.5
    cfg.INPUT.CROP_MIN_SIZES = [400, 500, 600]

    # The random affine warp of CID (section 4.2; dynpose.data.RandomAffine), for any method. In training it replaces
    # INPUT.CROP and INPUT.MIN_SIZE_TRAIN; INPUT.RANDOM_FLIP follows it.
    cfg.INPUT.AFFINE = CN()
    cfg.INPUT.AFFINE.ENABLED = False
    # Width and height of the output, pixels; a list of one number is a square
    cfg.INPUT.AFFINE.SIZE = [512, 512]
    # Maximum rotation in either direction, degrees
    cfg.INPUT.AFFINE.ROTATION = 30.0
    # Range of the size of the visible region, relative to the image side of SCALE_TYPE
    cfg.INPUT.AFFINE.SCALE = [0.75, 1.5]
    # Maximum shift of the centre in x and in y, in 200ths of the visible side
    cfg.INPUT.AFFINE.TRANSLATION = 40.0
    # At scale 1 the output's shorter side shows the "short" or the "long" side of the image
    cfg.INPUT.AFFINE.SCALE_TYPE = "short"
    # Inference: resize by an affine warp to sides that are multiples of 64, with equal margins (the released CID;
    # dynpose.data.AffineResize). The shorter side is INPUT.MIN_SIZE_TEST, the longer at most INPUT.MAX_SIZE_TEST. The
    # views of TEST.AUG are resized in the same way, to its sizes.
    cfg.INPUT.AFFINE_RESIZE_TEST = False
    # In training, pass the model the masks of crowds and of people without labelled keypoints, which its losses ignore
    cfg.INPUT.IGNORE_MASKS = False
    _add_augmentation(cfg)


def _add_augmentation(cfg):
    # Augmentations that no paper uses, each off by a probability of 0 (docs/training.md). With or without INPUT.AFFINE.

    # Training images that show the region around one person, drawn among those with labelled keypoints. With
    # INPUT.AFFINE the warp shows the region, without it the image is cropped to it.
    # Box jitter (dynpose.data.PersonRegion): the probability of a person's box, scaled and shifted at random
    cfg.INPUT.BOX_JITTER = CN()
    cfg.INPUT.BOX_JITTER.PROBABILITY = 0.0
    # Range of the size of the region, relative to the box
    cfg.INPUT.BOX_JITTER.SCALE = [1.0, 2.0]
    # Maximum shift in x and in y, as a fraction of the box's width and height (0.16 in MMPose)
    cfg.INPUT.BOX_JITTER.SHIFT = 0.16
    # Half bodies (dynpose.data.HalfBody): the probability of the upper or the lower half of a person
    cfg.INPUT.HALF_BODY = CN()
    cfg.INPUT.HALF_BODY.PROBABILITY = 0.0
    # Names of the keypoints of the upper half; [] = all but hips, pelvis, knees, ankles and feet
    cfg.INPUT.HALF_BODY.UPPER = []
    # Share of the upper halves
    cfg.INPUT.HALF_BODY.UPPER_PROBABILITY = 0.7
    # Number of labelled keypoints that either half of a person must have
    cfg.INPUT.HALF_BODY.MIN_KEYPOINTS = 3
    # The region is the box around the labelled keypoints of the half, enlarged by this factor (1.5 in MMPose)
    cfg.INPUT.HALF_BODY.MARGIN = 1.5

    # Photometric distortion of the resized training image (SSD; dynpose.data.RandomColor), in random order: factors
    # between 1 - BRIGHTNESS and 1 + BRIGHTNESS and so on, and a shift of the hue by up to HUE of the colour circle
    cfg.INPUT.COLOR = CN()
    cfg.INPUT.COLOR.PROBABILITY = 0.0
    cfg.INPUT.COLOR.BRIGHTNESS = 0.25
    cfg.INPUT.COLOR.CONTRAST = 0.5
    cfg.INPUT.COLOR.SATURATION = 0.5
    cfg.INPUT.COLOR.HUE = 0.05
    # Gaussian blur: range of its standard deviation, pixels
    cfg.INPUT.BLUR = CN()
    cfg.INPUT.BLUR.PROBABILITY = 0.0
    cfg.INPUT.BLUR.SIGMA = [0.1, 2.0]
    # Gaussian noise: range of its standard deviation, grey levels of 0 to 255
    cfg.INPUT.NOISE = CN()
    cfg.INPUT.NOISE.PROBABILITY = 0.0
    cfg.INPUT.NOISE.STD = [2.0, 10.0]
    # JPEG compression: range of the quality, 1 to 100
    cfg.INPUT.JPEG = CN()
    cfg.INPUT.JPEG.PROBABILITY = 0.0
    cfg.INPUT.JPEG.QUALITY = [30, 95]


def _add_evaluation(cfg):
    # Metrics of dynpose.evaluation.PoseEvaluator (docs/evaluation.md): any of "keypoints" (AP by OKS), "bbox" (box AP)
    # and "pck" (PCK, AUC and NME of each keypoint); [] = keypoints, and bbox if the predictions have boxes
    cfg.TEST.TASKS = []
    # Maximum number of predictions that count per class and image, highest scores first: COCO's values
    cfg.TEST.MAX_DETS = CN()
    cfg.TEST.MAX_DETS.KEYPOINTS = 20
    cfg.TEST.MAX_DETS.BOXES = 100
    # Match the keypoints of the model (MODEL.KEYPOINT_SCHEMA) by name with those of a data set that has other
    # keypoints; keypoints that the model lacks count as not labelled
    cfg.TEST.MAP_KEYPOINTS = False


def _add_test_time_augmentation(cfg):
    # Multi-scale and flip testing (dynpose.modeling.test_time_augmentation) of any pose model, under detectron2's keys:
    # TEST.AUG.ENABLED, MIN_SIZES and MAX_SIZE (pixels) of the views, FLIP for a mirrored copy of each.
    # Merge "poses", or average "maps" if the model supports it
    cfg.TEST.AUG.MERGE = "poses"
    # For "poses": predictions of two views with at least this OKS are the same person (chosen as in docs/evaluation.md)
    cfg.TEST.AUG.MATCH_OKS = 0.7

    # Soft OKS-NMS (dynpose.modeling.soft_oks_nms): lower the scores of poses that are similar to higher-scored ones.
    # "linear": by 1 - OKS above THRESHOLD; "gaussian": by exp(-OKS^2 / SIGMA); "" = off. It replaces an NMS that
    # compares keypoints, and follows one that compares predicted boxes (docs/evaluation.md).
    cfg.TEST.SOFT_OKS_NMS = CN()
    cfg.TEST.SOFT_OKS_NMS.METHOD = ""
    cfg.TEST.SOFT_OKS_NMS.THRESHOLD = 0.5
    cfg.TEST.SOFT_OKS_NMS.SIGMA = 0.5
    # Poses with a lower score are dropped
    cfg.TEST.SOFT_OKS_NMS.MIN_SCORE = 0.001


def _add_solver(cfg):
    # "SGD" (FCPose section 4), "ADAM" (CID section 4.2) or "ADAMW" (QueryPose section 4.1). CLIP_GRADIENTS.CLIP_TYPE
    # has one more choice, "full_model": the norm of all gradients together
    cfg.SOLVER.OPTIMIZER = "SGD"
    # The total batch size that BASE_LR is tuned for: with another IMS_PER_BATCH, BASE_LR is scaled linearly during
    # config set-up. 0 = BASE_LR is used unchanged.
    cfg.SOLVER.REFERENCE_BATCH = 0
    # [pattern, factor] pairs: the learning rate of parameters whose name contains the regular expression is multiplied
    # by the factor; the first match applies
    cfg.SOLVER.LR_FACTORS = []
    # A schedule in epochs (InsPose section 4: 36, or 100): config set-up converts it to MAX_ITER and STEPS, from
    # IMS_PER_BATCH and the number of training images left after filtering. 0 = MAX_ITER and STEPS are used.
    cfg.SOLVER.MAX_EPOCHS = 0
    # Epochs at which the learning rate drops; they replace STEPS
    cfg.SOLVER.STEPS_EPOCHS = []
    # Maximum number of images per process and forward pass: a larger share of IMS_PER_BATCH is split into micro-batches
    # whose gradients are accumulated (docs/clusters.md: equivalence and limits). 0 = the whole share at once.
    cfg.SOLVER.IMS_PER_PROCESS = 0
    # dtype of autocast if SOLVER.AMP.ENABLED is True: "float16" (with gradient scaling) or "bfloat16"
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Evaluate under autocast, whether or not training uses it
    cfg.TEST.AMP = False
    # An exponential moving average of the weights: it is evaluated in addition to the weights (results named _EMA) and
    # saved to <OUTPUT_DIR>/ema when training ends
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    # Weight of the old average at each iteration
    cfg.SOLVER.EMA.DECAY = 0.9998
    # Several processes: find parameters that a step does not use. DistributedDataParallel otherwise refuses models with
    # unused parameters, such as unread FPN levels.
    cfg.SOLVER.FIND_UNUSED_PARAMETERS = False
    # Consecutive steps that may be skipped because a loss or a gradient is not finite; one more ends the training
    cfg.SOLVER.MAX_NONFINITE_STEPS = 10
    # PyTorch's channels-last memory layout in training and evaluation: faster with SOLVER.AMP on GPUs and on CPUs that
    # multiply in bfloat16. Checkpoints are the same with and without it.
    cfg.SOLVER.CHANNELS_LAST = False
    # torch.compile the dense parts of a model (those that it names, or else its backbone) for images of any size, in
    # training and evaluation; checkpoints load with or without it
    cfg.SOLVER.COMPILE = False
    # the earlier key for the backbone alone; config files of old runs have it
    cfg.__dict__[CN.DEPRECATED_KEYS].add("MODEL.COMPILE_BACKBONE")

    # Number of numbered checkpoints to keep, the newest; 0 = all. model_final.pth and model_best.pth do not count.
    cfg.SOLVER.CHECKPOINTS_KEPT = 5
    # The metric that selects the best weights, saved to model_best.pth; named as in metrics.json: "keypoints/AP", with
    # SOLVER.EMA "keypoints_EMA/AP" for the averaged weights, with several DATASETS.TEST "<data set>/keypoints/AP". It
    # is compared at each evaluation (TEST.EVAL_PERIOD, and the last one). "" = no best weights are saved.
    cfg.SOLVER.BEST_METRIC = ""
    # Consecutive evaluations without a better BEST_METRIC after which the run ends; 0 = never
    cfg.SOLVER.EARLY_STOPPING_PATIENCE = 0

    # Experiment trackers beside the log, metrics.json and TensorBoard: dotted names of classes or functions that are
    # called with the config and return a detectron2 EventWriter (docs/training.md)
    cfg.EVENT_WRITERS = []


def _add_distributed(cfg):
    cfg.DISTRIBUTED = CN()
    # Timeout of a collective operation between the processes, minutes; the run then ends
    cfg.DISTRIBUTED.TIMEOUT_MINUTES = 30
    # Seconds without an iteration after which each process repeatedly logs which processes it waits for; 0 = never
    cfg.DISTRIBUTED.REPORT_SECONDS = 60


def _add_backbones(cfg):
    # The backbones of dynpose.modeling.backbone; MODEL.BACKBONE.FREEZE_AT and MODEL.FPN apply as they do to ResNet
    cfg.MODEL.HRNET = CN()
    # Channels of the finest branch: 32 or 48 in the papers; timm also has 18, 30, 40, 44 and 64
    cfg.MODEL.HRNET.WIDTH = 32
    # "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.HRNET.NORM = "BN"
    # For build_hrnet_hrfpn_backbone: add each branch to the level of its stride: False in QueryPose's HRNet-W32, True
    # in its HRNet-W48
    cfg.MODEL.HRNET.HRFPN_LATERALS = False

    cfg.MODEL.DLA = CN()
    # 34 or 60 in FCPose Table 7; timm also has 102 and 169
    cfg.MODEL.DLA.DEPTH = 34
    # "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.DLA.NORM = "BN"

    cfg.MODEL.SWIN = CN()
    # "tiny", "small", "base" or "large"
    cfg.MODEL.SWIN.SIZE = "large"
    # Side of the attention windows, in patches of 4 pixels: 7, or 12 for weights trained at 384 pixels
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth rate of the last block
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.2

    # Any other network of timm
    cfg.MODEL.TIMM = CN()
    # A name of timm.list_models(); the network needs feature maps of strides 4, 8, 16 and 32
    cfg.MODEL.TIMM.NAME = "convnext_tiny"
    # Replacement of its batch norms, if it has any: "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.TIMM.NORM = "BN"
    # Stochastic depth rate of the last block; networks without stochastic depth need 0
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0
