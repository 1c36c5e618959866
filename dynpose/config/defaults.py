"""The config keys of dynpose that all methods share, each with its meaning, unit and source.

Each method declares its own keys, in dynpose/modeling/<method>/config.py, and registers them with
:mod:`dynpose.methods`. Keys of detectron2 that dynpose reads keep their meaning and are not repeated here.
"""

from detectron2.config import CfgNode as CN

from dynpose.methods import add_registered_config


def add_dynpose_config(cfg):
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
