"""The parameter names of InsPose, its ResNet and its FPN in opera (and so in mmdetection)."""

from dynpose.methods import ReleasedFormat

# matches both a whole model and the head alone
_HEAD = r"(?:bbox_head\.)?"
_END = r"\.(\w+)"


def _tower(released, name):
    yield _HEAD + rf"{released}\.(\d+)\.conv{_END}", rf"{name}.\1.\2"
    yield _HEAD + rf"{released}\.(\d+)\.gn{_END}", rf"{name}.\1.norm.\2"


def _last(released, name):
    yield _HEAD + rf"{released}\.conv{_END}", rf"{name}.\1"
    yield _HEAD + rf"{released}\.gn{_END}", rf"{name}.norm.\1"


def _star(released, name):
    yield _HEAD + rf"{released}_conv{_END}", rf"{name}.\1"
    yield _HEAD + rf"{released}_gn{_END}", rf"{name}.norm.\1"


def _resnet():
    """Like torchvision, mmdetection counts stages from 1 (C2); detectron2 names them res2, ..."""
    yield r"backbone\.conv1" + _END, r"backbone.bottom_up.stem.conv1.\1"
    yield r"backbone\.bn1" + _END, r"backbone.bottom_up.stem.conv1.norm.\1"
    for stage in range(1, 5):
        block = rf"backbone\.layer{stage}\.(\d+)\."
        ours = rf"backbone.bottom_up.res{stage + 1}.\1."
        yield block + r"conv(\d)" + _END, ours + r"conv\2.\3"
        yield block + r"bn(\d)" + _END, ours + r"conv\2.norm.\3"
        yield block + r"downsample\.0" + _END, ours + r"shortcut.\2"
        yield block + r"downsample\.1" + _END, ours + r"shortcut.norm.\2"


def _fpn():
    """P3-P5 from C3-C5; P6 and P7 are further convolutions of the same list."""
    for index in range(3):
        yield rf"neck\.lateral_convs\.{index}\.conv" + _END, rf"backbone.fpn_lateral{index + 3}.\1"
        yield rf"neck\.fpn_convs\.{index}\.conv" + _END, rf"backbone.fpn_output{index + 3}.\1"
    for index in (3, 4):
        yield rf"neck\.fpn_convs\.{index}\.conv" + _END, rf"backbone.top_block.p{index + 3}.\1"


_RENAMES = (
    *_tower("cls_convs", "head.cls_tower"),
    *_tower("ctrl_convs", "head.controller_tower"),
    *_tower("kpt_convs", "head.regression_tower"),
    *_star("cls_star", "head.cls_star"),
    *_star("ctr_star", "head.controller_star"),
    (_HEAD + "conv_cls" + _END, r"head.cls_logits.\1"),
    (_HEAD + "kpt_offset" + _END, r"head.keypoint_offsets.\1"),
    (_HEAD + "controller" + _END, r"controller.linear.\1"),
    # the release has one list for the convolutions of a branch
    *_last(r"shared_convs\.4", "keypoint_features.project"),
    *_tower("shared_convs", "keypoint_features.tower"),
    *_last(r"hm_convs\.2", "aux_branch.fine_tower.0"),
    *_tower("hm_convs", "aux_branch.tower"),
    (_HEAD + "hm_pred" + _END, r"aux_branch.heatmaps.\1"),
    (_HEAD + "ae_pred" + _END, r"aux_branch.tags.\1"),
    (_HEAD + "hm_offset" + _END, r"aux_branch.disk_offsets.\1"),
    *_resnet(),
    *_fpn(),
)

# counts of training steps, unused with the usual momentum
_UNUSED = (r".+\.num_batches_tracked",)

# the release evaluates a convolution densely, dynpose a linear layer on the neighbourhoods of selected locations
_LINEAR = ("controller.linear.weight",)

RELEASED_FORMATS = (
    ReleasedFormat(
        name="opera's InsPose",
        method="InsPoseReleased",
        signature=("cls_star_conv.weight", "hm_offset.weight"),
        renames=_RENAMES,
        rows_per_keypoint=("aux_branch.heatmaps.bias", 1),
        unused=_UNUSED,
        linear=_LINEAR,
        config="configs/InsPose/R_50_3x_release.yaml",
    ),
)
