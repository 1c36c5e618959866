"""The checkpoints of QueryPose that its authors published (README of their repository): the light version."""

from dynpose.methods import PublishedWeights


def _weights(width, drive_id, ap):
    return PublishedWeights(
        name=f"querypose_light_hrnet_w{width}",
        title=f"QueryPose, light version, HRNet-W{width}, COCO",
        file=f"querypose_light_hrnet_w{width}.pth",
        link=f"https://drive.google.com/file/d/{drive_id}/view",
        drive_id=drive_id,
        configs=(f"QueryPose/HRNet_W{width}_2x_light.yaml",),
        ap=f"{ap} val2017",
        licence="QueryPose's: MIT",
    )


PUBLISHED_WEIGHTS = (
    _weights(32, "1NWdntVoKFz7KjcDjTGwmAHyEEcS2PWC5", "69.8"),
    _weights(48, "1SFECnDV97D_W9Ij4WjcX3BfbiNbGue67", "71.0"),
)
