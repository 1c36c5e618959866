"""The checkpoints of CID that its authors published (README of their repository): one folder for all of them."""

from dynpose.methods import PublishedWeights


def _weights(data, title, configs, ap):
    return PublishedWeights(
        name=f"cid_hrnet_w32_{data}",
        title=f"CID, HRNet-W32, {title}",
        file=f"cid_hrnet_w32_{data}.pth",
        link="https://1drv.ms/u/s!AhpKYLhXKpH7gv8RepyMU_iU5uhxhg",
        by_hand=f"the checkpoint of {title} (in the authors' commands model/{data}/checkpoint.pth.tar)",
        configs=configs,
        ap=ap,
        licence="CID's: MIT",
    )


PUBLISHED_WEIGHTS = (
    _weights(
        "coco",
        "COCO",
        ("CID/HRNet_W32_140e_release.yaml", "CID/HRNet_W32_140e_coco_to_ochuman_release.yaml"),
        "69.8 val2017, 69.1 test-dev; 45.7 OCHuman val, 44.6 test",
    ),
    _weights("crowdpose", "CrowdPose", ("CID/HRNet_W32_300e_crowdpose_release.yaml",), "71.2 CrowdPose test"),
    _weights("ochuman", "OCHuman", ("CID/HRNet_W32_140e_ochuman_release.yaml",), "57.7 OCHuman test"),
)
