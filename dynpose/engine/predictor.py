"""Prediction on single images, batches and streams: from config and weights to people in image pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.config import check_choice, load_config
from dynpose.data import build_pose_augmentation, schema_from_cfg
from dynpose.data.affine import matrix_to_original
from dynpose.data.any_image import ImageLike, to_bgr
from dynpose.modeling.build import build_model, check_affine_resize, check_meta_architecture
from dynpose.modeling.test_time_augmentation import PoseTTA
from dynpose.runtime.predicting import ImagePredictor

from .devices import check_device, missing_device
from .fast_inference import optimize_for_inference, resolve_precision

if TYPE_CHECKING:
    from typing_extensions import Self

    from dynpose.tracking import PoseTracker

# A config may name one that this machine lacks: the CPU replaces it
_ACCELERATORS = ("cuda", "mps", "xpu")


class PosePredictor(ImagePredictor[Instances]):
    """Predicts the people in images. detectron2's DefaultPredictor works with these models too.

    Beyond it, this class checks that the weights are complete and belong to the model, accepts images in any form,
    batches of them and videos, and provides the keypoint schema. People are detectron2's ``Instances``, on the model's
    device; :func:`~dynpose.utils.finite.finite_instances` tells those of a diverged model.

    Args:
        cfg (CfgNode): the model's. MODEL.WEIGHTS may be dynpose's or released ones; "" leaves the model untrained.
            Images are resized by INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST; with TEST.AUG.ENABLED, to TEST.AUG's views.
        precision, compile: see :func:`~dynpose.engine.optimize_for_inference`.

    Attributes:
        cfg (CfgNode): a copy.
        model (nn.Module): optimized for inference; a
            :class:`~dynpose.modeling.test_time_augmentation.PoseTTA` with TEST.AUG.ENABLED.
        precision (str): "float32", "bfloat16" or "float16".
        schema (KeypointSchema): the keypoints.
        metadata (Metadata): the schema for detectron2's Visualizer, and ``thing_classes``, MODEL.CLASS_NAMES or, where
            these are empty, those of a registered data set of the config; absent if neither is known.

    Raises:
        ConfigError, DatasetError: the config does not describe a model or its keypoints.
        CheckpointError: the weights are missing, incomplete, or of another model or other keypoints.

    Example::

        >>> predictor = PosePredictor.from_files("configs/FCPose/R_50_3x_release.yaml", "R_50_3X.pth")
        >>> people = predictor(cv2.imread("street.jpg"))
        >>> people.pred_keypoints.shape
        torch.Size([4, 17, 3])
    """

    def __init__(self, cfg: CfgNode, precision: str = "auto", compile: bool = False):
        self.cfg = cfg.clone()
        check_choice(cfg, "INPUT.FORMAT", ("BGR", "RGB"))
        self.schema = schema_from_cfg(self.cfg)
        self.metadata = _metadata(self.cfg, self.schema)
        check_meta_architecture(self.cfg)
        check_affine_resize(self.cfg)
        self.model = build_model(self.cfg).eval()
        PoseCheckpointer(self.model, complete=True, class_names=cfg.MODEL.CLASS_NAMES).load(self.cfg.MODEL.WEIGHTS)
        self.precision = resolve_precision(precision, self.cfg.MODEL.DEVICE, type(self.model))
        optimize_for_inference(self.model, self.precision, compile, inplace=True)
        self._size_divisibility = self.model.backbone.size_divisibility
        self._augmentations = T.AugmentationList(build_pose_augmentation(self.cfg, is_train=False))
        if cfg.TEST.AUG.ENABLED:
            self.model = PoseTTA(self.cfg, self.model)
            # its views are of different sizes
            self._max_batch_size = 1

    @classmethod
    def from_files(
        cls,
        config_file: str | os.PathLike[str],
        weights: str | os.PathLike[str],
        opts: Sequence[str] = (),
        device: str | None = None,
        precision: str = "auto",
        compile: bool = False,
    ) -> Self:
        """Build from file names.

        Args:
            config_file (str): a config of ``configs/``, or the config.yaml of a run.
            weights (str | PathLike): overrides MODEL.WEIGHTS.
            opts (Sequence[str]): overrides of the config, KEY VALUE KEY VALUE ...
            device (str | None): such as "cpu", "cuda" or "cuda:1"; None = MODEL.DEVICE, or the CPU if there is no GPU.
            precision, compile: see :func:`~dynpose.engine.optimize_for_inference`.
        """
        if not weights:
            raise CheckpointError("no weights given: an untrained model predicts noise")
        cfg = load_config(config_file, opts)
        cfg.MODEL.WEIGHTS = os.fspath(weights)
        cfg.MODEL.DEVICE = _choose_device(device, cfg.MODEL.DEVICE)
        return cls(cfg, precision, compile)

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Read, check and resize an image.

        Args:
            image: see :meth:`__call__`.

        Returns:
            dict: detectron2's model input, as from :class:`~dynpose.data.PoseDatasetMapper`: ``image`` (3, h, w) uint8
            in the order of INPUT.FORMAT, and the original ``height`` and ``width``; with INPUT.AFFINE_RESIZE_TEST also
            ``to_original``. With TEST.AUG.ENABLED the image keeps its original size.
        """
        array = to_bgr(image)
        height, width = array.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            array = array[:, :, ::-1]
        if isinstance(self.model, PoseTTA):
            # PoseTTA resizes the image itself; report sizes that it refuses here
            self.model.view_sizes(height, width)
            pixels = torch.as_tensor(np.ascontiguousarray(array.transpose(2, 0, 1)))
            return {"image": pixels, "height": height, "width": width}
        aug_input = T.AugInput(array)
        transforms = self._augmentations(aug_input)
        pixels = torch.as_tensor(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        inputs = {"image": pixels, "height": height, "width": width}
        to_original = matrix_to_original(transforms)
        return inputs if to_original is None else {**inputs, "to_original": to_original}

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Predict the people in a batch of prepared images.

        Args:
            inputs (list[dict]): B, from :meth:`prepare`.

        Returns:
            list[Instances]: B, see :meth:`__call__`.
        """
        if not inputs:
            return []
        with torch.no_grad():
            return [output["instances"] for output in self.model(inputs)]

    def _track(self, tracker: PoseTracker, people: Instances, time: float) -> None:
        people.track_ids = tracker.update(people, time).to(people.scores.device)


def _metadata(cfg, schema):
    metadata = Metadata()
    schema.to_metadata(metadata)
    data_sets = [name for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN) if name in DatasetCatalog]
    of_data_sets = (MetadataCatalog.get(name).get("thing_classes") for name in data_sets)
    classes = list(cfg.MODEL.CLASS_NAMES) or next(filter(None, of_data_sets), None)
    if classes:
        metadata.set(thing_classes=classes)
    return metadata


def _choose_device(device, configured):
    source = "device"
    if device is None:
        kind = configured.partition(":")[0]
        if kind in _ACCELERATORS and missing_device(kind):
            return "cpu"
        device, source = configured, "MODEL.DEVICE"
    check_device(device, source, "give cpu")
    return device
