"""The checkpoints of FCPose that AdelaiDet published (configs/FCPose/README.md of its repository)."""

from dynpose.methods import PublishedWeights

_FOLDER = "https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/"
_LICENCE = "AdelaiDet's: BSD 2-Clause, for non-commercial purposes"

PUBLISHED_WEIGHTS = (
    PublishedWeights(
        name="fcpose_r50",
        title="FCPose, ResNet-50, 3x, COCO",
        file="fcpose50.pth",
        link=_FOLDER + "fcpose50.pth",
        configs=("FCPose/R_50_3x_release.yaml",),
        ap="65.2 val2017",
        licence=_LICENCE,
    ),
    PublishedWeights(
        name="fcpose_r101",
        title="FCPose, ResNet-101, 3x, COCO",
        file="fcpose101.pth",
        link=_FOLDER + "fcpose101.pth",
        configs=("FCPose/R_101_3x_release.yaml",),
        ap="67.0 val2017",
        licence=_LICENCE,
    ),
)
