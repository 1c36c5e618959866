"""The entries of InsPose and of its release in the registry of methods."""

import contextlib
from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from dynpose.methods import KPNetBenchmark, Method, register_method
from dynpose.modeling.fcos.injection import inject_fcos_detections
from dynpose.modeling.injection import substitute
from dynpose.modeling.kp_net import FLOPS_BILINEAR, count_cells, count_kp_net_flops

from .config import add_inspose_config, add_inspose_released_config
from .figures import FIGURES, RELEASED_FIGURES
from .inspose import InsPose
from .published_weights import PUBLISHED_WEIGHTS
from .released_weights import RELEASED_FORMATS


@contextlib.contextmanager
def inject_detections(model: nn.Module, boxes: Tensor) -> Iterator[None]:
    """Replace the predictions of the FCOS head: see :class:`~dynpose.methods.Method`.

    InsPose runs the KP-Nets of all candidates, nine per person, and removes duplicates afterwards. Without a box head,
    NMS compares the rectangles around the keypoints, which are random in an untrained model, so it gets the injected
    boxes instead.
    """
    with inject_fcos_detections(model, boxes) as injected:
        inspose = cast(InsPose, model)
        if inspose.has_boxes:
            yield
            return
        decoder = inspose.detector.decoder
        select, detections = decoder.select, decoder.detections

        def select_injected(candidates, rectangles, num_images):
            return select(candidates, substitute(rectangles, injected.boxes_at(candidates.index)), num_images)

        def detections_injected(candidates, rectangles, *others):
            return detections(candidates, substitute(rectangles, injected.boxes_at(candidates.index)), *others)

        vars(decoder).update(select=select_injected, detections=detections_injected)
        try:
            yield
        finally:
            del vars(decoder)["select"], vars(decoder)["detections"]


def count_network_flops(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Count the FLOPs of one generated network, including the up-sampling of its maps (Table 3).

    See :class:`~dynpose.methods.Method`.
    """
    flops = count_kp_net_flops(model, size)
    inspose = cast(InsPose, model)
    stride = inspose.kp_net_head.stride
    factor = stride // inspose.map_stride
    if factor > 1:
        values = inspose.spec.num_keypoints * count_cells(size, stride) * factor**2
        flops["up-sampling"] = FLOPS_BILINEAR * values
    return flops


_PARTS = {"backbone": ["backbone"], "FCOS head": ["head"], "KP-Nets' features": ["keypoint_features"]}

register_method(
    Method(
        name="InsPose",
        add_config=add_inspose_config,
        num_classes_key="MODEL.FCOS.NUM_CLASSES",
        detection_limit_key="MODEL.FCOS.POST_NMS_TOPK_TEST",
        released_formats=(),
        published_weights=(),
        parts=_PARTS,
        inject_detections=inject_detections,
        count_network_flops=count_network_flops,
        # section 3.2
        kp_net_benchmark=KPNetBenchmark(channels=8, cpu_instances=(1, 10, 50, 100, 500)),
        part_benchmark=None,
        figures=FIGURES,
    )
)
register_method(
    Method(
        name="InsPoseReleased",
        add_config=add_inspose_released_config,
        num_classes_key="MODEL.FCOS.NUM_CLASSES",
        detection_limit_key="MODEL.FCOS.POST_NMS_TOPK_TEST",
        released_formats=RELEASED_FORMATS,
        published_weights=PUBLISHED_WEIGHTS,
        parts=_PARTS,
        inject_detections=inject_fcos_detections,
        count_network_flops=count_kp_net_flops,
        kp_net_benchmark=None,
        part_benchmark=None,
        figures=RELEASED_FIGURES,
    )
)
