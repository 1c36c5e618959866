"""QueryPose's entry in the registry of methods."""

import contextlib
from collections.abc import Iterator

from torch import Tensor

from dynpose.config import ConfigError
from dynpose.methods import Method, register_method
from dynpose.modeling.injection import replaced, substitute

from .config import add_querypose_config
from .figures import FIGURES
from .published_weights import PUBLISHED_WEIGHTS
from .querypose import QueryPose
from .released_weights import RELEASED_FORMATS


@contextlib.contextmanager
def inject_detections(model: QueryPose, boxes: Tensor) -> Iterator[None]:
    """Keep as many queries as there are boxes, and replace their boxes: see :class:`~dynpose.methods.Method`.

    QueryPose decodes all queries, for any number of people, and returns those with the highest scores. The last stage's
    predictions for the first N queries are kept, with the injected boxes; the others are dropped, as if their scores
    were too low.
    """
    select, num_people = model.select, len(boxes)
    if num_people > model.num_queries:
        raise ConfigError(
            f"{num_people} people exceed the {model.num_queries} queries of QueryPose, each of which detects at most "
            "one: use fewer --people, or a larger MODEL.QUERYPOSE.NUM_QUERIES"
        )

    def select_injected(logits, predicted, keypoints, sigmas, image_sizes):
        first = slice(num_people)
        injected = substitute(predicted[:, first], boxes.expand(len(predicted), -1, -1))
        # a single class: with several, a query could be selected once per class
        return select(logits[:, first, :1], injected, keypoints[:, first], sigmas[:, first], image_sizes)

    with replaced(model, select=select_injected):
        yield


register_method(
    Method(
        name="QueryPose",
        add_config=add_querypose_config,
        num_classes_key="MODEL.QUERYPOSE.NUM_CLASSES",
        detection_limit_key="TEST.DETECTIONS_PER_IMAGE",
        released_formats=RELEASED_FORMATS,
        published_weights=PUBLISHED_WEIGHTS,
        # each decoder includes its RoI pooling
        parts={
            "backbone": ["extract_features"],
            "box decoder": ["refine_boxes"],
            "keypoint decoder": ["update_queries", "locate"],
        },
        inject_detections=inject_detections,
        count_network_flops=None,
        kp_net_benchmark=None,
        part_benchmark=None,
        figures=FIGURES,
    )
)
