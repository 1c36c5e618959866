"""The authors' released checkpoints: recognised by their keys, renamed to dynpose's."""

import re
from dataclasses import dataclass

from .cid import CID_RENAMES, CID_UNUSED
from .fcpose import FCPOSE_RENAMES, FCPOSE_UNUSED
from .inspose import INSPOSE_LINEAR, INSPOSE_RENAMES, INSPOSE_UNUSED
from .querypose import QUERYPOSE_RENAMES, QUERYPOSE_UNUSED


@dataclass(frozen=True)
class ReleasedFormat:
    """One published kind of checkpoint.

    Attributes:
        name (str): where it comes from.
        method (str): the meta-architecture that it belongs to.
        signature (tuple[str]): key endings; the first of RELEASED_FORMATS whose endings all occur is the format.
        renames (tuple[tuple[str, str]]): (pattern, replacement) pairs, the first that matches a whole key is used.
        unused (tuple[str]): patterns of keys that hold nothing learned.
        linear (tuple[str]): dynpose's names of weights that are convolutions' there and linear layers' here.
        config (str): the configs that it loads into.
        expects (tuple[tuple[str, object, str]]): attributes that a model must have for the weights to mean what they
            meant to their authors: name, value, and the config key that gives it.
    """

    name: str
    method: str
    signature: tuple
    renames: tuple
    unused: tuple = ()
    linear: tuple = ()
    config: str = ""
    expects: tuple = ()


RELEASED_FORMATS = (
    ReleasedFormat(
        name="AdelaiDet's FCPose",
        method="FCPose",
        signature=("fcpose_head.atten_producer.weight", "basis_module.tower.4.weight"),
        renames=FCPOSE_RENAMES,
        unused=FCPOSE_UNUSED,
        config="configs/FCPose/R_50_3x_release.yaml (or R_101_3x_release.yaml)",
    ),
    ReleasedFormat(
        name="opera's InsPose",
        method="InsPoseReleased",
        signature=("cls_star_conv.weight", "hm_offset.weight"),
        renames=INSPOSE_RENAMES,
        unused=INSPOSE_UNUSED,
        linear=INSPOSE_LINEAR,
        config="configs/InsPose/R_50_3x_release.yaml",
    ),
    ReleasedFormat(
        name="the released CID",
        method="CID",
        signature=("gfd.heatmap_conv.weight", "gfd.conv_down.weight"),
        renames=CID_RENAMES,
        unused=CID_UNUSED,
        config="configs/CID/HRNet_W32_140e_release.yaml, or for CrowdPose's 14 keypoints "
        "HRNet_W32_300e_crowdpose_release.yaml (for HRNet-W48, its config with MODEL.CID.INDEX_COORDINATES True)",
        expects=(("origin", 0.5, "MODEL.CID.INDEX_COORDINATES True"),),
    ),
    # before the light version, all of whose keys it has
    ReleasedFormat(
        name="the released full QueryPose",
        method="QueryPose",
        signature=("part_query.weight", "pose_decoder_inst_interact.out_layer.weight"),
        renames=QUERYPOSE_RENAMES,
        unused=QUERYPOSE_UNUSED,
        config="configs/QueryPose/HRNet_W32_2x.yaml, or another config with MODEL.QUERYPOSE.DYNAMIC_MLP True",
    ),
    ReleasedFormat(
        name="the released light QueryPose",
        method="QueryPose",
        signature=("part_query.weight", "init_proposal_boxes.weight"),
        renames=QUERYPOSE_RENAMES,
        unused=QUERYPOSE_UNUSED,
        config="configs/QueryPose/HRNet_W32_2x_light.yaml, or another config with MODEL.QUERYPOSE.DYNAMIC_MLP False",
    ),
)


def detect_released(state_dict):
    """Recognise a released checkpoint.

    Args:
        state_dict (dict[str, Tensor]): its parameters.

    Returns:
        ReleasedFormat | None: None for anything else, such as a dynpose checkpoint or a backbone's weights.
    """
    for released in RELEASED_FORMATS:
        if all(any(key.endswith(ending) for key in state_dict) for ending in released.signature):
            return released
    return None


def convert_released(state_dict, released):
    """Rename the parameters of a released checkpoint to dynpose's.

    Args:
        state_dict (dict[str, Tensor]): its parameters.
        released (ReleasedFormat): from :func:`detect_released`.

    Returns:
        tuple[dict[str, Tensor], list[str]]: the renamed parameters, and the keys that none of the names is known for.
    """
    converted, unknown = {}, []
    for key, value in state_dict.items():
        key = key.removeprefix("module.")
        if any(re.fullmatch(pattern, key) for pattern in released.unused):
            continue
        for pattern, replacement in released.renames:
            new_key, hits = re.subn(f"^(?:{pattern})$", replacement, key)
            if hits:
                converted[new_key] = value.flatten(1) if new_key in released.linear and value.dim() > 2 else value
                break
        else:
            unknown.append(key)
    return converted, unknown
