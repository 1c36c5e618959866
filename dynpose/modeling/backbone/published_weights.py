"""Published weights of backbones: those that the configs start from, and any of timm by its name there."""

import re
from dataclasses import replace

from dynpose.methods import PublishedWeights, register_weights, register_weights_library

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_HRNET_LICENCE = "HRNet's: MIT"


def find_timm_weights(name: str) -> PublishedWeights | None:
    """Find weights of timm.

    Args:
        name (str): of ``timm.list_pretrained()``, such as "convnext_tiny.in12k_ft_in1k", with its tag.

    Returns:
        PublishedWeights | None: None if timm has no such weights, or does not say where they are.
    """
    if "." not in name:
        return None
    # half a second
    import timm

    if not timm.is_model_pretrained(name):
        return None
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return None
    weights = PublishedWeights(
        name=name, title=f"timm's {name}", file=f"{name}.safetensors", link="", licence=cfg.license or ""
    )
    if cfg.hf_hub_id and not cfg.hf_hub_filename:
        return replace(weights, link=f"https://huggingface.co/{cfg.hf_hub_id}", hub_id=cfg.hf_hub_id)
    if not cfg.url:
        return None
    # timm has some addresses with the file name that they are stored under
    url, file = cfg.url if isinstance(cfg.url, tuple) else (cfg.url, cfg.url.rsplit("/", 1)[1])
    # the beginning of the SHA-256, as in torch.hub
    digest = re.search(r"-([0-9a-f]{8,})\.", file)
    return replace(weights, link=url, file=file, sha256=digest[1] if digest else "")


def _of_detectron2(path, title, licence):
    """Weights that detectron2 provides, in the file in which it caches them itself."""
    return PublishedWeights(
        name=f"detectron2://{path}", title=title, file=f"detectron2/{path}", link=_DETECTRON2 + path, licence=licence
    )


def _of_timm(name, title, backbone, licence):
    return PublishedWeights(
        name=name,
        title=title,
        file=f"{name}.safetensors",
        link=f"https://huggingface.co/timm/{name}",
        hub_id=f"timm/{name}",
        backbone=backbone,
        licence=licence,
    )


def _hrnet_for_pose(width):
    """HRNet's single-person pose model, in the folder that QueryPose's README links."""
    file = f"pose_hrnet_w{width}_384x288.pth"
    return PublishedWeights(
        name=file.removesuffix(".pth"),
        title=f"HRNet-W{width}, single-person pose, COCO",
        file=file,
        link="https://drive.google.com/drive/folders/17DVq-pwqx40ELmbBjYEYVQc1UC9ofgsq",
        by_hand=f"{file}, the weights of HRNet-W{width} in that folder",
        backbone="HRNet",
        licence=_HRNET_LICENCE,
    )


def _hrnet_original(width, link):
    file = f"hrnetv2_w{width}_imagenet_pretrained.pth"
    return PublishedWeights(
        name=file.removesuffix(".pth"),
        title=f"HRNet-W{width}, ImageNet-1k, the authors' file",
        file=file,
        link=link,
        by_hand=f"{file}; timm has the same network's weights as hrnet_w{width}.ms_in1k, which are downloaded",
        backbone="HRNet",
        licence=_HRNET_LICENCE,
    )


def _hrnet_of_mmpose(width, digest):
    """The ImageNet weights of HRNet's pose code, which CID's and DEKR's code start from, as MMPose serves them."""
    file = f"hrnet_w{width}-{digest}.pth"
    return PublishedWeights(
        name=file.removesuffix(".pth"),
        title=f"HRNet-W{width}, ImageNet-1k, of HRNet's pose code",
        file=file,
        link=f"https://download.openmmlab.com/mmpose/pretrain_models/{file}",
        backbone="HRNet",
        sha256=digest,
        licence=_HRNET_LICENCE,
    )


BACKBONE_WEIGHTS = (
    _of_detectron2("ImageNetPretrained/MSRA/R-50.pkl", "ResNet-50, ImageNet-1k, MSRA", "MIT"),
    _of_detectron2("ImageNetPretrained/MSRA/R-101.pkl", "ResNet-101, ImageNet-1k, MSRA", "MIT"),
    _of_detectron2(
        "ImageNetPretrained/torchvision/R-50.pkl", "ResNet-50, ImageNet-1k, torchvision", "torchvision's: BSD 3-Clause"
    ),
    _of_timm("hrnet_w32.ms_in1k", "HRNet-W32, ImageNet-1k", "HRNet", _HRNET_LICENCE),
    _of_timm("hrnet_w48.ms_in1k", "HRNet-W48, ImageNet-1k", "HRNet", _HRNET_LICENCE),
    _of_timm("dla34.in1k", "DLA-34, ImageNet-1k", "DLA", "BSD 3-Clause"),
    _of_timm("dla60.in1k", "DLA-60, ImageNet-1k", "DLA", "BSD 3-Clause"),
    _of_timm("swin_large_patch4_window7_224.ms_in22k", "Swin-L, ImageNet-22k", "Swin", "Swin's: MIT"),
    PublishedWeights(
        name="swin_large_patch4_window7_224_22k",
        title="Swin-L, ImageNet-22k, the authors' file",
        file="swin_large_patch4_window7_224_22k.pth",
        link="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window7_224_22k.pth",
        backbone="Swin",
        licence="Swin's: MIT",
    ),
    _hrnet_for_pose(32),
    _hrnet_for_pose(48),
    _hrnet_of_mmpose(32, "36af842e"),
    _hrnet_of_mmpose(48, "8ef0771d"),
    _hrnet_original(32, "https://1drv.ms/u/s!Aus8VCZ_C_33dYBMemi9xOUFR0w"),
    _hrnet_original(48, "https://1drv.ms/u/s!Aus8VCZ_C_33dKvqI6pBZlifgJk"),
)

register_weights(*BACKBONE_WEIGHTS)
register_weights_library(find_timm_weights)
