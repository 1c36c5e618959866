"""Config keys of QueryPose (NeurIPS 2022)."""

from detectron2.config import CfgNode as CN


def add_querypose_config(cfg: CN) -> None:
    """Add the keys of MODEL.QUERYPOSE, in place."""
    # Queries and boxes, as in Sparse R-CNN
    cfg.MODEL.QUERYPOSE = CN()
    cfg.MODEL.QUERYPOSE.NUM_CLASSES = 1
    # N, instance-level queries and learned boxes: the maximum number of people per image (section 4.1: 100, or 50)
    cfg.MODEL.QUERYPOSE.NUM_QUERIES = 100
    # S, stages, each a box decoder and a keypoint decoder
    cfg.MODEL.QUERYPOSE.NUM_STAGES = 6
    # Source of the next stage's instance-level query (Figure 3; Table 3): "keypoint_decoder" = (b), the query after the
    # update by the keypoint decoder; "box_decoder" = (a), the query before it. Without DYNAMIC_MLP the keypoint decoder
    # does not update the query, and both are the same.
    cfg.MODEL.QUERYPOSE.PIPELINE = "keypoint_decoder"
    # Channels of instance-level queries, and of IN_FEATURES
    cfg.MODEL.QUERYPOSE.HIDDEN_DIM = 256
    # Pyramid levels from which boxes are pooled, finest first, and the level for keypoints
    cfg.MODEL.QUERYPOSE.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.QUERYPOSE.KEYPOINT_IN_FEATURE = "p2"
    # Side of the pooled maps, cells, for boxes and for keypoints, and samples per cell along each axis (RoIAlign)
    cfg.MODEL.QUERYPOSE.POOLER_RESOLUTION = 7
    cfg.MODEL.QUERYPOSE.KEYPOINT_POOLER_RESOLUTION = 14
    cfg.MODEL.QUERYPOSE.POOLER_SAMPLING_RATIO = 2

    # Attention and feed-forward layers for instance-level queries
    cfg.MODEL.QUERYPOSE.NUM_HEADS = 8
    cfg.MODEL.QUERYPOSE.FEEDFORWARD_DIM = 2048
    cfg.MODEL.QUERYPOSE.DROPOUT = 0.0
    # Channels between the two layers of the dynamic MLP
    cfg.MODEL.QUERYPOSE.DYNAMIC_DIM = 64
    # Linear layers before the class layer and before the box layer
    cfg.MODEL.QUERYPOSE.NUM_CLS_LAYERS = 1
    cfg.MODEL.QUERYPOSE.NUM_REG_LAYERS = 3
    # Prior probability that initialises the bias of the classification layer
    cfg.MODEL.QUERYPOSE.PRIOR_PROB = 0.01

    # Training: queries whose keypoints are decoded. "all" = section 3.1, and the first release: batch normalisation
    # includes the background. "matched" = those matched with a person in any stage: less time and memory
    cfg.MODEL.QUERYPOSE.DECODE_IN_TRAINING = "all"
    # Training: keep only the inputs of the stages, and recompute the rest for the gradient: less memory, more time
    cfg.MODEL.QUERYPOSE.ACTIVATION_CHECKPOINT = False
    # Loss weights of every stage (section 3.4); the first three also weight the matching costs
    cfg.MODEL.QUERYPOSE.CLASS_LOSS_WEIGHT = 2.0
    cfg.MODEL.QUERYPOSE.L1_LOSS_WEIGHT = 5.0
    cfg.MODEL.QUERYPOSE.GIOU_LOSS_WEIGHT = 2.0
    cfg.MODEL.QUERYPOSE.KEYPOINT_LOSS_WEIGHT = 1.0
    cfg.MODEL.QUERYPOSE.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.QUERYPOSE.FOCAL_LOSS_GAMMA = 2.0

    # Training: multi-person heatmaps on KEYPOINT_IN_FEATURE as an auxiliary task, which section 4.3 found useless, and
    # the weight of their loss; layers, targets and weight as released
    cfg.MODEL.QUERYPOSE.AUX_HEATMAP = False
    cfg.MODEL.QUERYPOSE.AUX_HEATMAP_LOSS_WEIGHT = 0.5
    # an earlier key; config files of old runs have it
    cfg.__dict__[CN.DEPRECATED_KEYS].add("MODEL.QUERYPOSE.AUX_HEATMAP_SIGMA")

    # The keypoint decoder. The parts of the body (Figure 4; Table 2d): "a", "b", "c" or "d", of which the last
    # three need the keypoints of COCO or CrowdPose; "keypoints" = one part per keypoint, the same as "a"; or a list of
    # lists of keypoint names, with every keypoint in one of them. None or "auto" = "c" for the keypoints of COCO or
    # CrowdPose, else "keypoints".
    cfg.MODEL.QUERYPOSE.PARTS = None
    # Channels of part-level queries (Table 2c: 32 to 256), a multiple of NUM_HEADS
    cfg.MODEL.QUERYPOSE.PART_DIM = 128
    # Hidden channels of their feed-forward layers
    cfg.MODEL.QUERYPOSE.PART_FEEDFORWARD_DIM = 2048
    # A dynamic MLP in the keypoint decoder updates the instance-level queries. False = the released light version
    cfg.MODEL.QUERYPOSE.DYNAMIC_MLP = True
    # 3x3 convolutions on the pooled maps before all other layers, and their channels, except for the last, which has
    # HIDDEN_DIM
    cfg.MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS = 6
    cfg.MODEL.QUERYPOSE.KEYPOINT_CONV_DIM = 512
    # Normalisation of the deconvolution after them: "BN", "SyncBN" or "FrozenBN"
    cfg.MODEL.QUERYPOSE.KEYPOINT_NORM = "BN"
    # Queries from which keypoints are regressed (Table 1): "part" = part-level; "instance" = instance-level
    cfg.MODEL.QUERYPOSE.QUERY = "part"
    # Interaction of these queries with the pooled maps (Table 1): "spegm", "mhsa", "dynamic_channel", "dynamic_spatial"
    # or "spatial_attention"; "pool" = the mean of the maps in place of queries, the baseline of Table 2b, which needs
    # QUERY "instance" and ITERATION "none"
    cfg.MODEL.QUERYPOSE.INTERACTION = "spegm"
    # Update of the part-level queries from one stage to the next (Table 2a): "none" (the only choice with QUERY
    # "instance"), "sum", "concat" or "selective" = SIM
    cfg.MODEL.QUERYPOSE.ITERATION = "selective"
