"""Config keys of QueryPose (NeurIPS 2022)."""

from detectron2.config import CfgNode as CN


def add_querypose_config(cfg):
    """Add the keys of MODEL.QUERYPOSE, in place."""
    # Queries and boxes, as in Sparse R-CNN
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

    # Training: which queries' keypoints are decoded. "matched" = those of queries that are matched with a person in any
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

    # The keypoint decoder. The parts of the body (Figure 4; Table 2d): "a", "b", "c" or "d", of which the last
    # three need the keypoints of COCO or CrowdPose; "keypoints" = one part a keypoint, which is "a"; or a list of lists
    # of keypoint names, every keypoint in one of them. None or "auto" = "c" where the keypoints are COCO's or
    # CrowdPose's, else "keypoints".
    cfg.MODEL.QUERYPOSE.PARTS = None
    # Channels of part-level queries (Table 2c: 32 to 256), a multiple of NUM_HEADS
    cfg.MODEL.QUERYPOSE.PART_DIM = 128
    # Hidden channels of their feed-forward layers
    cfg.MODEL.QUERYPOSE.PART_FEEDFORWARD_DIM = 2048
    # The keypoint decoder has its own dynamic MLP to update instance-level queries. False = the released light
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
