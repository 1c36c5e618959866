"""FCPose's entry in the registry of methods."""

from typing import cast

from torch import nn

from dynpose.methods import Method, register_method
from dynpose.modeling.fcos.injection import inject_fcos_detections
from dynpose.modeling.kp_net import count_cells, count_kp_net_flops

from .benchmark import KP_NET_BENCHMARK
from .config import add_fcpose_config
from .fcpose import FCPose
from .figures import FIGURES
from .published_weights import PUBLISHED_WEIGHTS
from .released_weights import RELEASED_FORMATS


def count_network_flops(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Count the FLOPs of one generated network: see :class:`~dynpose.methods.Method`."""
    fcpose = cast(FCPose, model)
    flops = count_kp_net_flops(model, size)
    deconvs = [module for module in fcpose.refinement.modules() if isinstance(module, nn.ConvTranspose2d)]
    if deconvs:
        # each value of the map is multiplied by every weight of its channel's filter
        weights = sum(module.weight.numel() for module in deconvs)
        flops["deconvolution"] = count_cells(size, fcpose.kp_net_head.stride) * weights
    return flops


register_method(
    Method(
        name="FCPose",
        add_config=add_fcpose_config,
        num_classes_key="MODEL.FCOS.NUM_CLASSES",
        detection_limit_key="MODEL.FCOS.POST_NMS_TOPK_TEST",
        released_formats=RELEASED_FORMATS,
        published_weights=PUBLISHED_WEIGHTS,
        parts={"backbone": ["backbone"], "FCOS head": ["head"], "KP-Nets' features": ["basis"]},
        inject_detections=inject_fcos_detections,
        count_network_flops=count_network_flops,
        kp_net_benchmark=KP_NET_BENCHMARK,
        part_benchmark=None,
        figures=FIGURES,
    )
)
