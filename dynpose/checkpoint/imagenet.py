"""ImageNet weights of the backbones that detectron2 lacks: the files of the original releases, and timm's.

They are recognised by their keys, renamed to the adapters of :mod:`dynpose.modeling.backbone`, and must fill the whole
network; the classifier's weights are skipped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

_TABLE = "relative_position_bias_table"


@dataclass(frozen=True)
class ImageNetFormat:
    """A published format of backbone weights.

    Attributes:
        name (str): origin of the weights.
        backbone (str): class name of the backbone.
        signature (tuple[str]): keys that must all occur.
        renames (tuple[tuple[str, str]]): (pattern, replacement) pairs for keys with another name in timm.
        names (dict[str, str]): key -> name in the network, for keys that follow no rule.
        unused (tuple[tuple[str, str]]): (pattern, meaning) of keys that a backbone does not use.
        may_lack (tuple[tuple[str, str]]): (pattern, reason) of timm's keys that the file may lack; they keep their
            initial values.
    """

    name: str
    backbone: str
    signature: tuple[str, ...]
    renames: tuple[tuple[str, str], ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    unused: tuple[tuple[str, str], ...] = ()
    may_lack: tuple[tuple[str, str], ...] = ()


_SWIN_UNUSED = (
    (r"head\..+", "classifier"),
    (r"norm\..+", "norm before the classifier"),
    (r".+\.(relative_position_index|attn_mask)", "recomputed"),
)

# the first match is used
IMAGENET_FORMATS = (
    ImageNetFormat(
        name="HRNet's (the original release or timm's)",
        backbone="HRNet",
        signature=("transition1.1.0.0.weight", "stage4.0.fuse_layers.0.1.0.weight"),
        unused=(
            (r"(incre_modules|downsamp_modules|classifier)\..+", "classifier"),
            # in a pose network it outputs the heatmaps
            (r"final_layer\..+", "classifier"),
        ),
        may_lack=(
            # HRNet's pose networks (pose_hrnet_w32_384x288.pth) use the finest output alone
            (r"stage4\.2\.fuse_layers\.[123]\..+", "a pose network fuses its branches into the finest alone"),
        ),
    ),
    ImageNetFormat(
        name="DLA's (the original release or timm's)",
        backbone="DLA",
        signature=("base_layer.0.weight", "level5.root.conv.weight"),
        unused=(
            (r"fc\..+", "classifier"),
            (r"level[345](\.tree\d)*\.project\..+", "output discarded by the release"),
        ),
    ),
    ImageNetFormat(
        name="Microsoft's Swin",
        backbone="Swin",
        signature=("patch_embed.proj.weight", "layers.0.downsample.reduction.weight"),
        # in Swin's code a stage ends with the patch merging, in timm the next stage begins with it
        renames=tuple((rf"layers\.{i}\.downsample\.(.+)", rf"layers.{i + 1}.downsample.\1") for i in range(3)),
        unused=_SWIN_UNUSED,
    ),
    ImageNetFormat(
        name="timm's Swin",
        backbone="Swin",
        signature=("patch_embed.proj.weight", "layers.3.downsample.reduction.weight"),
        unused=_SWIN_UNUSED,
    ),
)

# Class names of the timm networks
_BACKBONES = (*(imagenet.backbone for imagenet in IMAGENET_FORMATS), "Timm")


@dataclass
class ImageNetReport:
    """The result of converting the weights of a file.

    Attributes:
        converted (dict[str, Tensor]): by the names in the whole model.
        unused (dict[str, list[str]]): meaning -> keys of the file that the backbone does not use.
        unknown (list[str]): unrecognised keys of the file.
        missing (list[str]): parameters that the file should have.
        lacking (dict[str, list[str]]): reason -> parameters that the file may lack.
        misfits (list[str]): parameters of another shape, with both shapes.
        resized (list[str]): relative-position tables of another window, interpolated.
    """

    converted: dict[str, Tensor]
    unused: dict[str, list[str]]
    unknown: list[str]
    missing: list[str]
    lacking: dict[str, list[str]]
    misfits: list[str]
    resized: list[str]

    @property
    def fits(self) -> bool:
        """Whether the weights fill the whole backbone and all of them are recognised."""
        return not (self.unknown or self.missing or self.misfits)


def detect_imagenet(state_dict: Mapping[str, Tensor], model: nn.Module | None = None) -> ImageNetFormat | None:
    """Recognise a backbone's ImageNet weights.

    Args:
        state_dict (dict[str, Tensor]): its parameters.
        model (nn.Module | None): the model to load them into. If it has a timm network selected by name, weights with
            at least half of that network's keys are recognised as timm's.

    Returns:
        ImageNetFormat | None: None for anything else.
    """
    keys = {key.removeprefix("module.") for key in state_dict}
    named = model and _timm_format(model)
    if named and 2 * len(keys & named.names.keys()) >= len(named.names):
        return named
    for imagenet in IMAGENET_FORMATS:
        if all(key in keys for key in imagenet.signature):
            return imagenet
    return None


def _timm_format(model):
    """The format of timm's weights for a model's timm network selected by name; None without such a network."""
    backbone = next((module for module in model.modules() if hasattr(module, "timm_keys")), None)
    if backbone is None:
        return None
    keys = backbone.timm_keys()
    names = {key: ours for key, ours in keys.items() if ours is not None}
    after = "|".join(re.escape(key) for key, ours in keys.items() if ours is None)
    return ImageNetFormat(
        name=f"timm's {backbone.name}",
        backbone=type(backbone).__name__,
        signature=(),
        names=names,
        unused=((after, "after the feature maps"),),
    )


def find_backbone(model: nn.Module, names: Sequence[str] = _BACKBONES) -> tuple[str, nn.Module] | None:
    """Find the timm network inside a model.

    Args:
        model (nn.Module): a model, or the backbone itself.
        names (Sequence[str]): class names of backbones.

    Returns:
        tuple[str, nn.Module] | None: prefix of its parameter names (ending in ``body.``) and the network.
    """
    for name, module in model.named_modules():
        if type(module).__name__ in names and hasattr(module, "body"):
            return f"{name}.body.".removeprefix("."), module.body
    return None


def convert_imagenet(
    state_dict: Mapping[str, Tensor], imagenet: ImageNetFormat, prefix: str, body: nn.Module
) -> ImageNetReport:
    """Rename a backbone's ImageNet weights, and check that they fit.

    Relative-position tables of another window size are interpolated (bicubic, as in Swin's code).

    Args:
        state_dict (dict[str, Tensor]): the file's parameters.
        imagenet (ImageNetFormat): from :func:`detect_imagenet`.
        prefix (str): prefix of the network's parameters in the whole model.
        body (nn.Module): the network.

    Returns:
        ImageNetReport: the renamed parameters, and lists of all others.
    """
    state = body.state_dict()
    report = ImageNetReport({}, {}, [], [], {}, [], [])
    for released_key, value in state_dict.items():
        released_key = released_key.removeprefix("module.")
        key = _rename(released_key, imagenet)
        if key not in state:
            _file_leftover(released_key, imagenet, report)
            continue
        if key.endswith(_TABLE) and value.shape != state[key].shape and value.shape[1:] == state[key].shape[1:]:
            value = resize_position_table(value, len(state[key]))
            report.resized.append(key)
        if value.shape != state[key].shape:
            report.misfits.append(f"{key} {tuple(value.shape)} instead of {tuple(state[key].shape)}")
        report.converted[prefix + key] = value
    for key in state:
        if prefix + key not in report.converted and not key.endswith("num_batches_tracked"):
            reason = _first_match(key, imagenet.may_lack)
            report.lacking.setdefault(reason, []).append(key) if reason else report.missing.append(key)
    return report


def resize_position_table(table: Tensor, rows: int) -> Tensor:
    """Interpolate a relative-position table to another window size.

    Args:
        table (Tensor): (R, heads), R = (2 w - 1)^2 offsets of a window of w x w patches, row-major.
        rows (int): R of the other window.

    Returns:
        Tensor: (rows, heads).
    """
    old, new = round(len(table) ** 0.5), round(rows**0.5)
    maps = table.t().reshape(1, -1, old, old).float()
    resized = F.interpolate(maps, size=(new, new), mode="bicubic", align_corners=False)
    return resized.reshape(-1, rows).t().to(table.dtype).contiguous()


def _rename(key, imagenet):
    if key in imagenet.names:
        return imagenet.names[key]
    for pattern, replacement in imagenet.renames:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def _first_match(key, patterns):
    return next((meaning for pattern, meaning in patterns if re.fullmatch(pattern, key)), None)


def _file_leftover(key, imagenet, report):
    meaning = _first_match(key, imagenet.unused)
    if meaning:
        report.unused.setdefault(meaning, []).append(key)
    # files from before torch 0.4.1 have no such counters, nor do networks with constant norms
    elif not key.endswith("num_batches_tracked"):
        report.unknown.append(key)
