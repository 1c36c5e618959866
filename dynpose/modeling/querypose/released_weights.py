"""The parameter names of the released QueryPose, in its light and full versions and in both revisions of its code.

The ResNet and the FPN have detectron2's names. The HRNet has the names of the original and of timm; the names of its
necks are known for HRNet-W32 and HRNet-W48. The names in the Swin checkpoints are not known.
"""

from dynpose.methods import ReleasedFormat

_END = r"\.(\w+)"
_BOX, _KEYPOINTS = r"head\.head_series\.(\d+)\.", r"head\.pose_head_series\.(\d+)\."
_OUR_BOX, _OUR_KEYPOINTS = r"box_stages.\1.", r"keypoint_stages.\1."


def _box_stages():
    yield _BOX + r"((?:self_attn|norm[12]|class_logits)\..+)", _OUR_BOX + r"\2"
    yield _BOX + r"(linear\d)" + _END, _OUR_BOX + r"ffn.\2.\3"
    yield _BOX + "norm3" + _END, _OUR_BOX + r"ffn.norm.\2"
    yield _BOX + r"inst_interact\.(.+)", _OUR_BOX + r"interaction.\2"
    yield _BOX + r"cls_module\.(.+)", _OUR_BOX + r"cls_layers.\2"
    yield _BOX + r"reg_module\.(.+)", _OUR_BOX + r"reg_layers.\2"
    yield _BOX + "bboxes_delta" + _END, _OUR_BOX + r"box_deltas.\2"


def _keypoint_stages():
    yield _KEYPOINTS + r"inst_convs\.(\d+)" + _END, _OUR_KEYPOINTS + r"convs.\2.\3"
    # of the instance query, in the full version
    yield _KEYPOINTS + r"pose_decoder_inst_interact\.(.+)", _OUR_KEYPOINTS + r"instance_interaction.\2"
    yield _KEYPOINTS + "inst_norm" + _END, _OUR_KEYPOINTS + r"instance_norm.\2"
    yield _KEYPOINTS + r"(linear\d)" + _END, _OUR_KEYPOINTS + r"instance_ffn.\2.\3"
    yield _KEYPOINTS + "norm2" + _END, _OUR_KEYPOINTS + r"instance_ffn.norm.\2"
    # SPEGM and SIM
    yield _KEYPOINTS + r"part_embed_generator\.upsample\.0" + _END, _OUR_KEYPOINTS + r"interaction.upsample.\2"
    yield _KEYPOINTS + r"part_embed_generator\.upsample\.1" + _END, _OUR_KEYPOINTS + r"interaction.norm.\2"
    yield _KEYPOINTS + r"part_embed_generator\.LSA_conv" + _END, _OUR_KEYPOINTS + r"interaction.attention.\2"
    yield _KEYPOINTS + r"part_embed_generator\.fc" + _END, _OUR_KEYPOINTS + r"interaction.project.\2"
    yield _KEYPOINTS + r"updater\.(fc[12])" + _END, _OUR_KEYPOINTS + r"iteration.\2.\3"
    yield _KEYPOINTS + r"updater\.norm_fc1" + _END, _OUR_KEYPOINTS + r"iteration.norm.\2"
    # of the part queries
    yield _KEYPOINTS + r"residual_filter\.(\d+)" + _END, _OUR_KEYPOINTS + r"instance_residuals.\2.\3"
    yield _KEYPOINTS + r"kps_self_attn\.(.+)", _OUR_KEYPOINTS + r"part_attention.\2"
    yield _KEYPOINTS + "self_attn_norm" + _END, _OUR_KEYPOINTS + r"part_norm.\2"
    yield _KEYPOINTS + r"(linear\d)_l" + _END, _OUR_KEYPOINTS + r"part_ffn.\2.\3"
    yield _KEYPOINTS + "norm2_l" + _END, _OUR_KEYPOINTS + r"part_ffn.norm.\2"
    yield _KEYPOINTS + r"fc_coord\.(\d+)\.linear" + _END, _OUR_KEYPOINTS + r"coord_heads.\2.\3"
    yield _KEYPOINTS + r"fc_sigma\.(\d+)\.linear" + _END, _OUR_KEYPOINTS + r"sigma_heads.\2.\3"


def _backbones():
    yield r"(backbone\.bottom_up\.(?:stem|res\d)\..+)", r"\1"
    yield r"(backbone\.fpn_(?:lateral|output)\d\..+)", r"\1"
    yield r"backbone\.bottom_up\.((?:conv|bn|layer|transition|stage)\d\..+)", r"backbone.bottom_up.body.\1"
    yield r"backbone\.reduction_conv\.0" + _END, r"backbone.reduction.\1"
    yield r"backbone\.fpn_conv\.([0-3])" + _END, r"backbone.outputs.\1.\2"
    # the finest branch's layer contributes to no output
    for index in (1, 2, 3):
        yield rf"backbone\.lateral_conv\.{index}" + _END, rf"backbone.laterals.{index - 1}.\1"


_RENAMES = (
    (r"init_proposal_features" + _END, r"instance_queries.\1"),
    (r"init_proposal_boxes" + _END, r"proposal_boxes.\1"),
    (r"part_query" + _END, r"part_queries.\1"),
    (r"criterion\.flow\.flow\.(.+)", r"flow.\1"),
    *_box_stages(),
    *_keypoint_stages(),
    *_backbones(),
)

_UNUSED = (
    # counts of training steps, unused with the usual momentum
    r".+\.num_batches_tracked",
    # layers that contribute to no output in the release, with their initial values
    r"head\.pose_head_series\.\d+\.updater\.(fc3|norm_fc3)\..+",
    r"backbone\.(fpn_conv\.4|lateral_conv\.0)\..+",
)

# one layer per body part: x and y of its keypoints
_ROWS_PER_KEYPOINT = ("keypoint_stages.0.coord_heads.*.bias", 2)

RELEASED_FORMATS = (
    # listed before the light version, because it has all of that version's keys
    ReleasedFormat(
        name="the released full QueryPose",
        method="QueryPose",
        signature=("part_query.weight", "pose_decoder_inst_interact.out_layer.weight"),
        renames=_RENAMES,
        rows_per_keypoint=_ROWS_PER_KEYPOINT,
        unused=_UNUSED,
        config="configs/QueryPose/HRNet_W32_2x.yaml, or another config with MODEL.QUERYPOSE.DYNAMIC_MLP True",
    ),
    ReleasedFormat(
        name="the released light QueryPose",
        method="QueryPose",
        signature=("part_query.weight", "init_proposal_boxes.weight"),
        renames=_RENAMES,
        rows_per_keypoint=_ROWS_PER_KEYPOINT,
        unused=_UNUSED,
        config="configs/QueryPose/HRNet_W32_2x_light.yaml, or another config with MODEL.QUERYPOSE.DYNAMIC_MLP False",
    ),
)
