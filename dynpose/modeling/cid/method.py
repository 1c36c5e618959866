"""CID's entry in the registry of methods."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from dynpose.config import ConfigError
from dynpose.methods import Method, register_method
from dynpose.modeling.injection import corner_keypoints, replaced, substitute

from .benchmark import PART_BENCHMARK, center_cells
from .cid import CID
from .config import add_cid_config
from .figures import FIGURES
from .published_weights import PUBLISHED_WEIGHTS
from .released_weights import RELEASED_FORMATS

# Minimum distance of two peaks of the centre map in x or in y, exclusive, cells
_MIN_DISTANCE = 3


@contextlib.contextmanager
def inject_detections(model: CID, boxes: Tensor) -> Iterator[None]:
    """Replace the centre map and the keypoints: see :class:`~dynpose.methods.Method`.

    The heatmaps of all people are computed and decoded. Since random weights may produce the same heatmaps for every
    person, OKS-NMS compares the corners of the injected boxes instead.
    """
    predict_centers, locate = model.iia.centers, model.locate
    cells = center_cells(boxes, model.stride)
    _check_distances(cells)
    u, v = cells.unbind(dim=1)

    def injected_centers(features):
        predicted = predict_centers(features)
        injected = torch.zeros_like(predicted)
        injected[:, v, u] = 1
        return substitute(predicted, injected)

    def injected_keypoints(features, people, sizes):
        predicted = locate(features, people, sizes)
        person = torch.zeros(features.shape[-2:], dtype=torch.int64, device=features.device)
        person[v, u] = torch.arange(len(boxes), device=features.device)
        corners = corner_keypoints(boxes, predicted.shape[1])
        points = corners[person[people.cells[:, 1], people.cells[:, 0]]]
        return torch.cat([substitute(predicted[..., :2], points), predicted[..., 2:]], dim=2)

    with replaced(model.iia, centers=injected_centers), replaced(model, locate=injected_keypoints):
        yield


def _check_distances(cells):
    """Refuse people whose cells (N, 2) are too close to have separate peaks."""
    distances = (cells[:, None] - cells).abs().amax(dim=2)
    distances.fill_diagonal_(_MIN_DISTANCE + 1)
    if len(cells) and distances.min() <= _MIN_DISTANCE:
        raise ConfigError(
            f"{len(cells)} people are too close to each other for CID to tell their centres apart: use fewer --people "
            "or a larger image"
        )


register_method(
    Method(
        name="CID",
        add_config=add_cid_config,
        num_classes_key="",
        detection_limit_key="MODEL.CID.MAX_PROPOSALS",
        released_formats=RELEASED_FORMATS,
        published_weights=PUBLISHED_WEIGHTS,
        parts={"backbone": ["backbone"], "IIA": ["iia.find_people"], "GFD": ["gfd.prepare", "gfd.decouple"]},
        inject_detections=inject_detections,
        count_network_flops=None,
        kp_net_benchmark=None,
        part_benchmark=PART_BENCHMARK,
        figures=FIGURES,
    )
)
