"""The parameter names of FCPose in AdelaiDet."""

from dynpose.methods import ReleasedFormat

_FCOS = r"proposal_generator\.fcos\.fcos_head\."
_BASIS = r"proposal_generator\.basis_module\."
_END = r"\.(\w+)"


def _tower(released, name):
    """A released tower is a flat list of convolution, GroupNorm, ReLU, convolution, ..."""
    for index in range(16):
        yield _FCOS + rf"{released}\.{3 * index}{_END}", rf"head.{name}.{index}.\1"
        yield _FCOS + rf"{released}\.{3 * index + 1}{_END}", rf"head.{name}.{index}.norm.\1"


_RENAMES = (
    (r"(backbone\..+)", r"\1"),
    *_tower("cls_tower", "cls_tower"),
    *_tower("bbox_tower", "box_tower"),
    (_FCOS + "cls_logits" + _END, r"head.cls_logits.\1"),
    (_FCOS + "bbox_pred" + _END, r"head.box_distances.\1"),
    (_FCOS + "ctrness" + _END, r"head.centerness.\1"),
    (_FCOS + r"scales\.(\d+)\.scale", r"head.scales.\1"),
    (_BASIS + r"refine\.(\d+)\.0" + _END, r"basis.lateral.\1.\2"),
    (_BASIS + r"refine\.(\d+)\.1" + _END, r"basis.lateral.\1.norm.\2"),
    (_BASIS + r"tower\.(\d+)\.0" + _END, r"basis.tower.\1.\2"),
    (_BASIS + r"tower\.(\d+)\.1" + _END, r"basis.tower.\1.norm.\2"),
    (_BASIS + r"tower\.\d+" + _END, r"basis.project.\1"),
    (_BASIS + r"seg_head\.(\d+)\.0" + _END, r"aux_heatmaps.tower.\1.\2"),
    (_BASIS + r"seg_head\.(\d+)\.1" + _END, r"aux_heatmaps.tower.\1.norm.\2"),
    (_BASIS + "p3_logits" + _END, r"aux_heatmaps.coarse.\1"),
    (_BASIS + r"upsampler\.0" + _END, r"aux_heatmaps.upsample.\1"),
    (_BASIS + "p1_logits" + _END, r"aux_heatmaps.fine.\1"),
    (r"proposal_generator\.fcpose_head\.atten_producer" + _END, r"controller.linear.\1"),
)

# a constant in the release, a config key in dynpose
_UNUSED = (r"proposal_generator\.fcpose_head\.sizes_of_interest", "pixel_mean", "pixel_std")

RELEASED_FORMATS = (
    ReleasedFormat(
        name="AdelaiDet's FCPose",
        method="FCPose",
        signature=("fcpose_head.atten_producer.weight", "basis_module.tower.4.weight"),
        renames=_RENAMES,
        rows_per_keypoint=("aux_heatmaps.coarse.bias", 1),
        unused=_UNUSED,
        config="configs/FCPose/R_50_3x_release.yaml (or R_101_3x_release.yaml)",
    ),
)
