"""The checkpoint of InsPose that opera published (configs/inspose/README.md of its repository)."""

from dynpose.methods import PublishedWeights

PUBLISHED_WEIGHTS = (
    PublishedWeights(
        name="inspose_r50",
        title="InsPose, ResNet-50, 3x, COCO",
        file="inspose_r50.pth",
        link="https://drive.google.com/file/d/1JC0NeNwVWMoEuuGBdlsj-ggRWTMOc2UF/view",
        drive_id="1JC0NeNwVWMoEuuGBdlsj-ggRWTMOc2UF",
        configs=("InsPose/R_50_3x_release.yaml",),
        ap="65.2 val2017",
        licence="opera's: Apache 2.0",
    ),
)
