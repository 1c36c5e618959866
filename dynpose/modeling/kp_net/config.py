"""Config keys of the generated keypoint network (KP-Net), which several methods share."""

from detectron2.config import CfgNode as CN


def add_kp_net_config(cfg: CN) -> None:
    """Add the keys of MODEL.KP_NET, in place."""
    # The network generated for each person (FCPose section 3.1), run by dynpose.layers.kp_net
    cfg.MODEL.KP_NET = CN()
    # Channels of the input feature map F, without the two relative coordinates (FCPose Table 1)
    cfg.MODEL.KP_NET.IN_CHANNELS = 32
    # Channels of the hidden layers (FCPose Table 3)
    cfg.MODEL.KP_NET.WIDTH = 32
    # Number of 1x1 convolutions, including the last, which outputs the K heatmaps (FCPose Table 2)
    cfg.MODEL.KP_NET.DEPTH = 3
    # Position of the relative coordinates among the input channels: "first" or "last"
    cfg.MODEL.KP_NET.COORDS_POSITION = "first"
    # 1: cell minus location; -1: location minus cell
    cfg.MODEL.KP_NET.COORDS_SIGN = -1
    # "torch", "triton" (fused kernels for CUDA), or "auto": the best one for the device
    cfg.MODEL.KP_NET.BACKEND = "auto"
