"""Prediction on single images, batches and streams: from config and weights to people in image pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, overload

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
from dynpose.modeling.batching import padded_size
from dynpose.modeling.build import build_model, check_affine_resize, check_meta_architecture
from dynpose.modeling.test_time_augmentation import PoseTTA

from .devices import check_device, missing_device
from .fast_inference import optimize_for_inference, resolve_precision
from .look_ahead import in_batches

if TYPE_CHECKING:
    from typing_extensions import Self

    from dynpose.tracking import PoseTracker
    from dynpose.video import Frame, FrameSource

# A config may name one that this machine lacks: the CPU replaces it
_ACCELERATORS = ("cuda", "mps", "xpu")
# Prepared images of 800 x 1333 pixels are 3.2 MB each
_BATCHES_AHEAD = 8


class PosePredictor:
    """Predicts the people in images. detectron2's DefaultPredictor works with these models too.

    Beyond it, this class checks that the weights are complete and belong to the model, accepts images in any form,
    batches of them and videos, and provides the keypoint schema.

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

    @overload
    def __call__(self, image: ImageLike) -> Instances: ...

    @overload
    def __call__(self, image: list[ImageLike]) -> list[Instances]: ...

    def __call__(self, image: ImageLike | list[ImageLike]) -> Instances | list[Instances]:
        """Predict the people in an image, or in each image of a list.

        Args:
            image: a uint8 array, (H, W) or (H, W, 1) grey, (H, W, 3) BGR or (H, W, 4) BGRA; a PIL image with up to 8
                bits per channel; a file name; or an http(s) URL. Transparency is ignored. A list of such images is
                predicted as by :meth:`predict_all`, one by one.

        Returns:
            Instances: N people by descending score, at the original image size and on the model's device:
            ``pred_boxes``, ``scores``, ``pred_classes``, and ``pred_keypoints`` (N, K, 3) with x and y in continuous
            pixels and a confidence in [0, 1]. NaN and infinite predictions of a diverged model are included, see
            :func:`~dynpose.utils.finite.finite_instances`. For a list, the list of these.

        Raises:
            DatasetError: the file or URL is missing, or not an image of 8 bits per channel.
            ValueError: the array is not such an image.
            TypeError: the image is of another type.
        """
        if isinstance(image, list):
            return list(self.predict_all(image, batch_size=1))
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Iterable[ImageLike]) -> list[Instances]:
        """Predict the people in a batch of images.

        Images of the same padded size share a forward pass. The predictions for an image equal those for the image
        alone up to float32 rounding, which docs/evaluation.md quantifies.

        Args:
            images (Iterable): B images, see :meth:`__call__`.

        Returns:
            list[Instances]: B, see :meth:`__call__`.
        """
        return self.infer([self.prepare(image) for image in images])

    def predict_all(
        self, images: Iterable[ImageLike], batch_size: int = 8, look_ahead: int | None = None
    ) -> Iterator[Instances]:
        """Predict the people in many images of any size, in full batches and with bounded memory.

        Args:
            images (Iterable): read lazily, see :meth:`__call__`.
            batch_size, look_ahead (int): see :meth:`infer_all`.

        Yields:
            Instances: one per image, in order, see :meth:`__call__`. The error for an unreadable image is raised in its
            place, after the predictions for all earlier images.

        Example::

            >>> for path, people in zip(paths, predictor.predict_all(paths)):
            ...     print(path, len(people))
        """
        for _, people in self.infer_all(map(self.prepare, images), batch_size, look_ahead):
            yield people

    def predict_video(
        self,
        video: str | os.PathLike[str] | FrameSource,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        batch_size: int = 1,
        tracker: PoseTracker | None = None,
    ) -> Iterator[tuple[Frame, Instances]]:
        """Predict the people in the frames of a video, which are decoded while the model runs.

        Args:
            video (str | PathLike | FrameSource): a file or URL; or another source, such as
                :class:`~dynpose.video.CameraReader` or :class:`~dynpose.video.AnimationReader`, with its own stride.
            stride, max_frames: see :class:`~dynpose.video.FrameSource`.
            batch_size (int): maximum number of frames in a forward pass.
            tracker (PoseTracker | None): gives the people ``track_ids``.

        Yields:
            tuple[Frame, Instances]: each frame, with its index, time and image, and its people, see :meth:`__call__`.
            Frames that can't be decoded are left out.

        Raises:
            DatasetError: the video can't be opened.

        Example::

            >>> tracker = PoseTracker(predictor.schema.sigmas)
            >>> for frame, people in predictor.predict_video("street.mp4", tracker=tracker):
            ...     print(f"{frame.time:.2f} s: {people.track_ids.tolist()}")
        """
        from dynpose.video import Frame, FrameSource, VideoReader, in_background

        source = video if isinstance(video, FrameSource) else VideoReader(os.fspath(video), stride, max_frames)
        # a live source has a thread already, and being ahead of it is a delay
        frames = iter(source) if source.is_live else in_background(source, ahead=2 * batch_size)
        whole = (frame for frame in frames if isinstance(frame, Frame))
        inputs = ({**self.prepare(frame.image), "frame": frame} for frame in whole)
        with closing(frames):
            for one, people in self.infer_all(inputs, batch_size, look_ahead=batch_size):
                if tracker is not None:
                    people.track_ids = tracker.update(people, one["frame"].time).to(people.scores.device)
                yield one["frame"], people

    def infer_all(
        self, inputs: Iterable[dict[str, Any]], batch_size: int = 8, look_ahead: int | None = None
    ) -> Iterator[tuple[dict[str, Any], Instances]]:
        """Predict the people in many prepared images: :meth:`predict_all` for inputs of :meth:`prepare`.

        Args:
            inputs (Iterable[dict]): from :meth:`prepare`, read lazily; additional keys are kept.
            batch_size (int): maximum number of images in a forward pass. With TEST.AUG.ENABLED each image is run
                separately.
            look_ahead (int | None): maximum number of images held at once, among which those of the same padded size
                are batched; None = 8 batches.

        Yields:
            tuple[dict, Instances]: each input, in order, and its people, see :meth:`__call__`.

        Raises:
            ValueError: ``batch_size`` or ``look_ahead`` is less than 1.
        """
        if batch_size < 1 or (look_ahead is not None and look_ahead < 1):
            raise ValueError(f"batch_size and look_ahead must be at least 1, got {batch_size} and {look_ahead}")
        if isinstance(self.model, PoseTTA):
            batch_size = look_ahead = 1
        return in_batches(
            inputs,
            lambda one: padded_size(one["image"], self._size_divisibility),
            self.infer,
            batch_size=batch_size,
            look_ahead=look_ahead or _BATCHES_AHEAD * batch_size,
        )

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
