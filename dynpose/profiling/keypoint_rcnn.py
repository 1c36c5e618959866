"""detectron2's Keypoint R-CNN, the peer of the methods in benchmarks, as an entry in the registry of methods."""

import contextlib
from collections.abc import Iterator

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from dynpose.config import ConfigError
from dynpose.methods import Method, register_method
from dynpose.modeling.injection import replaced, substitute


@contextlib.contextmanager
def inject_detections(model: GeneralizedRCNN, boxes: Tensor) -> Iterator[None]:
    """Replace the RPN's predictions, and the boxes for the keypoint head.

    See :class:`~dynpose.methods.Method`. An untrained RPN proposes almost nothing, a trained one up to its limit (1000
    boxes by default), all of which go through the box head. Here the proposals are anchors with random objectness. The
    box head's predictions are decoded and then replaced.
    """
    if not hasattr(model.proposal_generator, "rpn_head"):
        raise ConfigError(
            f"MODEL.PROPOSAL_GENERATOR.NAME {type(model.proposal_generator).__name__}: detections can be injected "
            "into R-CNNs with an RPN only; for another, register a subclass as a method (docs/adding_a_method.md)"
        )
    roi_heads = model.roi_heads
    with_given_boxes = roi_heads.forward_with_given_boxes

    def injected_boxes(features, instances):
        return with_given_boxes(features, [_rcnn_instances(boxes, each) for each in instances])

    handle = model.proposal_generator.rpn_head.register_forward_hook(_RandomProposals())
    try:
        with replaced(roi_heads, forward_with_given_boxes=injected_boxes):
            yield
    finally:
        handle.remove()


def _rcnn_instances(boxes, found):
    people = Instances(found.image_size)
    people.pred_boxes = Boxes(substitute(found.pred_boxes.tensor, boxes.clone()))  # detectron2 scales them in place
    people.scores = boxes.new_ones(len(boxes))
    people.pred_classes = boxes.new_zeros(len(boxes), dtype=torch.int64)
    return people


class _RandomProposals:
    """Forward hook of an RPN head that replaces its predictions: random objectness, and the anchors as boxes."""

    def __init__(self):
        self._injected = {}

    def __call__(self, head, inputs, predictions):
        shapes = tuple(tuple(int(size) for size in level.shape) for part in predictions for level in part)
        if shapes not in self._injected:
            generator = torch.Generator().manual_seed(0)
            objectness, deltas = predictions
            self._injected[shapes] = (
                [torch.randn(level.shape, generator=generator).to(level) for level in objectness],
                [torch.zeros_like(level) for level in deltas],
            )
        parts = zip(predictions, self._injected[shapes])
        return tuple([substitute(*pair) for pair in zip(*levels)] for levels in parts)


def _add_no_config(cfg):
    """All keys are detectron2's."""


register_method(
    Method(
        name="GeneralizedRCNN",
        add_config=_add_no_config,
        num_classes_key="MODEL.ROI_HEADS.NUM_CLASSES",
        detection_limit_key="TEST.DETECTIONS_PER_IMAGE",
        released_formats=(),
        published_weights=(),
        parts={"backbone": ["backbone"], "RPN": ["proposal_generator"], "RoI heads": ["roi_heads"]},
        inject_detections=inject_detections,
        count_network_flops=None,
        kp_net_benchmark=None,
        part_benchmark=None,
        figures=(),
    )
)
