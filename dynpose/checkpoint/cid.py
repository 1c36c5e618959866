"""How the release of CID names its parameters."""

_END = r"\.(\w+)"

CID_RENAMES = (
    # the original HRNet's names, which are timm's
    (r"backbone\.(.+)", r"backbone.bottom_up.body.\1"),
    (r"iia\.keypoint_center_conv" + _END, r"iia.heatmaps.\1"),
    (r"gfd\.conv_down" + _END, r"gfd.reduce.\1"),
    (r"gfd\.c_attn\.atn" + _END, r"gfd.channel_weights.\1"),
    (r"gfd\.s_attn\.atn" + _END, r"gfd.similarity_weights.\1"),
    (r"gfd\.s_attn\.conv" + _END, r"gfd.mask.\1"),
    (r"gfd\.fuse_attn" + _END, r"gfd.fuse.\1"),
    (r"gfd\.heatmap_conv" + _END, r"gfd.heatmaps.\1"),
)

# counts of training steps, of no use with the usual momentum
CID_UNUSED = (r".+\.num_batches_tracked",)
