"""The parameter names of the released CID."""

from dynpose.methods import ReleasedFormat

_END = r"\.(\w+)"

_RENAMES = (
    # the original HRNet's names, the same as timm's
    (r"backbone\.(.+)", r"backbone.bottom_up.body.\1"),
    (r"iia\.keypoint_center_conv" + _END, r"iia.heatmaps.\1"),
    (r"gfd\.conv_down" + _END, r"gfd.reduce.\1"),
    (r"gfd\.c_attn\.atn" + _END, r"gfd.channel_weights.\1"),
    (r"gfd\.s_attn\.atn" + _END, r"gfd.similarity_weights.\1"),
    (r"gfd\.s_attn\.conv" + _END, r"gfd.mask.\1"),
    (r"gfd\.fuse_attn" + _END, r"gfd.fuse.\1"),
    (r"gfd\.heatmap_conv" + _END, r"gfd.heatmaps.\1"),
)

# counts of training steps, unused with the usual momentum
_UNUSED = (r".+\.num_batches_tracked",)

RELEASED_FORMATS = (
    ReleasedFormat(
        name="the released CID",
        method="CID",
        signature=("gfd.heatmap_conv.weight", "gfd.conv_down.weight"),
        renames=_RENAMES,
        rows_per_keypoint=("gfd.heatmaps.bias", 1),
        unused=_UNUSED,
        config="configs/CID/HRNet_W32_140e_release.yaml, or for CrowdPose's 14 keypoints "
        "HRNet_W32_300e_crowdpose_release.yaml (for HRNet-W48, its config with MODEL.CID.INDEX_COORDINATES True)",
        expects=(("origin", 0.5, "MODEL.CID.INDEX_COORDINATES True"),),
    ),
)
