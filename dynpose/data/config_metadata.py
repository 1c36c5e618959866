"""detectron2's metadata of data sets that a config names, but that are not registered.

A model's config has the keypoints and the classes, but prediction needs no data set. detectron2's DefaultPredictor and
demo read the metadata of ``DATASETS.TEST[0]`` all the same, and its Visualizer draws limbs only if they are there.
"""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from .schema import KeypointSchema

__all__ = ["fill_metadata"]


def fill_metadata(cfg: CfgNode, schema: KeypointSchema) -> None:
    """Give the unregistered data sets of a config the model's keypoints and classes as metadata.

    Registered data sets keep theirs. A data set that is registered later replaces these values, which detectron2's
    Metadata would refuse.

    Args:
        cfg (CfgNode): names the data sets in DATASETS.TEST and DATASETS.TRAIN, and the classes in MODEL.CLASS_NAMES.
        schema (KeypointSchema): of the model.
    """
    values = Metadata()
    schema.to_metadata(values)
    if cfg.MODEL.CLASS_NAMES:
        values.set(thing_classes=list(cfg.MODEL.CLASS_NAMES))
    for name in dict.fromkeys([*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]):
        metadata = MetadataCatalog.get(name)
        if name in DatasetCatalog or not (isinstance(metadata, _ConfigMetadata) or _is_empty(metadata)):
            continue
        _clear(metadata)
        # detectron2's demo may hold the object already, so that it can't be replaced by another
        _set_class(metadata, _ConfigMetadata)
        metadata.__dict__.update({key: value for key, value in values.as_dict().items() if key in _KEYS})


_KEYS = (
    "keypoint_connection_rules",
    "keypoint_flip_map",
    "keypoint_names",
    "keypoint_sigmas",
    "keypoint_sigmas_are_default",
    "thing_classes",
)
# What a registration sets, in detectron2 and here
_OF_REGISTRATION = ("evaluator_type", "image_root", "json_file")


def _is_empty(metadata: Metadata) -> bool:
    return set(metadata.as_dict()) <= {"name"}


def _clear(metadata: Metadata) -> None:
    for key in _KEYS:
        metadata.__dict__.pop(key, None)


def _set_class(metadata: Metadata, class_: type[Metadata]) -> None:
    # Metadata refuses to change what is set
    object.__setattr__(metadata, "__class__", class_)


class _ConfigMetadata(Metadata):
    """Metadata from a config, which are dropped when those of a data set are set."""

    def __setattr__(self, key, value):
        if key in _KEYS or key in _OF_REGISTRATION:
            _clear(self)
            _set_class(self, Metadata)
        Metadata.__setattr__(self, key, value)
