"""Prediction with an exported file: PosePredictor's calls without PyTorch and detectron2.

Axes: B images, P people at most, N people.
"""

from __future__ import annotations

import math
import os
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from dynpose.checkpoint.errors import CheckpointError
from dynpose.data.any_image import to_bgr
from dynpose.utils.padding import padded_size

from .people import People, shifted, to_original_size
from .predicting import ImagePredictor
from .resizing import AffineCanvas
from .sessions import is_installed, open_session

if TYPE_CHECKING:
    from dynpose.data.any_image import ImageLike
    from dynpose.data.schema import KeypointSchema

    from .metadata import ExportMetadata

__all__ = ["Pose"]


class Pose(ImagePredictor[People]):
    """Predicts the people in images with a file of ``dynpose export``.

    The calls and their results are those of :class:`~dynpose.engine.PosePredictor`, with arrays in place of tensors.
    The file says all that is needed: keypoints, classes, channel order and resizing.

    Args:
        file (str | PathLike): .onnx, or the .xml of OpenVINO with its .bin beside it.
        device (str): "cpu"; "cuda" or "cuda:1" with onnxruntime-gpu; the name of another provider of onnxruntime, or of
            a device of OpenVINO.
        threads (int | None): of the CPU; None = OMP_NUM_THREADS, or the cores that this process may use.
        runtime (str | None): "onnxruntime" or "openvino"; None = the first of them that is installed and reads the
            file.
        score_threshold (float | None): people with a lower score are left out; None = all that the model finds.

    Attributes:
        metadata (ExportMetadata): what the file says about its model.
        schema (KeypointSchema): the keypoints.
        class_names (tuple[str, ...]): in the order of ``pred_classes``; () if unknown.
        runtime (str): the one in use.
        max_batch_size (int | None): number of images of a run that the file fixes; None = any number.

    Raises:
        CheckpointError: the file is missing, damaged or no dynpose export, its runtime or the package that resizes its
            images is not installed, or the device is not available.
        ValueError: an argument is out of range.
        TypeError: an argument is of another type.

    Example::

        >>> pose = Pose("pose.onnx")
        >>> people = pose(cv2.imread("street.jpg"))
        >>> people.pred_keypoints.shape
        (4, 17, 3)
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        device: str = "cpu",
        threads: int | None = None,
        runtime: str | None = None,
        score_threshold: float | None = None,
    ):
        if score_threshold is not None and not isinstance(score_threshold, Real):
            raise TypeError(f"score_threshold must be a number or None, got {score_threshold!r}")
        if score_threshold is not None and math.isnan(score_threshold):
            raise ValueError("score_threshold must be a number or None, got nan")
        self._arguments = (os.path.abspath(os.path.expanduser(os.fspath(file))), device, threads, runtime)
        self.file = os.fspath(file)
        self._session = open_session(file, device, threads, runtime)
        self.metadata: ExportMetadata = self._session.metadata
        if isinstance(self.metadata.resize, AffineCanvas) and not is_installed("cv2"):
            raise CheckpointError(
                f"{self.file}: it resizes images by an affine warp, which needs OpenCV; pip install "
                "opencv-python-headless"
            )
        self.schema: KeypointSchema = self.metadata.schema
        self.class_names: tuple[str, ...] = self.metadata.class_names
        self.runtime: str = self._session.runtime
        self.score_threshold = score_threshold
        self._size_divisibility = self.metadata.size_divisibility
        self._max_batch_size = self.max_batch_size = self._session.input_shape[0]

    def __reduce__(self):
        # the runtimes' sessions can't be copied: a copy, in another process or in this one, loads the file again
        return type(self), (*self._arguments, self.score_threshold)

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Read, check and resize an image.

        Args:
            image: see :meth:`__call__`.

        Returns:
            dict: ``image`` (3, h, w) uint8 in the file's channel order, and the original ``height`` and ``width``; of a
            file with an affine resize also ``to_original``, see
            :meth:`~dynpose.runtime.predicting.ImagePredictor.prepare`.

        Raises:
            DatasetError, ValueError, TypeError: see :meth:`__call__`.
        """
        array = to_bgr(image)
        if self.metadata.channels == "RGB":
            array = array[:, :, ::-1]
        resized, to_original = self.metadata.resize(array)
        pixels = np.ascontiguousarray(resized.transpose(2, 0, 1))
        inputs = {"image": pixels, "height": array.shape[0], "width": array.shape[1]}
        return inputs if to_original is None else {**inputs, "to_original": to_original}

    def infer(self, inputs: list[dict[str, Any]]) -> list[People]:
        """Predict the people in a batch of prepared images; those of one padded size share a run of the network.

        Args:
            inputs (list[dict]): B, from :meth:`prepare`.

        Returns:
            list[People]: B, see :meth:`__call__`.

        Raises:
            ValueError: the file fixes the input size, and an image is larger.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for index, one in enumerate(inputs):
            groups.setdefault(self._padded_size(one["image"]), []).append(index)
        results: dict[int, People] = {}
        for size, indices in groups.items():
            step = self.max_batch_size or len(indices)
            for start in range(0, len(indices), step):
                batch = indices[start : start + step]
                results.update(zip(batch, self._infer_batch([inputs[index] for index in batch], size)))
        return [results[index] for index in range(len(inputs))]

    def _padded_size(self, image):
        size = padded_size(*image.shape[1:], self._size_divisibility)
        fixed = self._session.input_shape[2:]
        if any(given is not None and needed > given for given, needed in zip(fixed, size)):
            height, width = (given or "any" for given in fixed)
            raise ValueError(
                f"{self.file}: its input is fixed to {height} x {width} pixels (height x width), and the resized image "
                f"has {image.shape[1]} x {image.shape[2]}; export it with dynamic sizes"
            )
        return tuple(given or needed for given, needed in zip(fixed, size))

    def _infer_batch(self, inputs, size):
        # a file of a fixed batch size gets empty images after those of the last batch
        number = self.max_batch_size or len(inputs)
        images = np.zeros((number, 3, *size), dtype=np.float32)
        sizes = np.full((number, 2), size, dtype=np.int64)
        for index, one in enumerate(inputs):
            height, width = one["image"].shape[1:]
            images[index, :, :height, :width] = one["image"]
            sizes[index] = height, width
        outputs = self._session.run(images, sizes)
        return [self._people(one, *(output[index] for output in outputs)) for index, one in enumerate(inputs)]

    def _people(self, one, boxes, scores, classes, keypoints, count):
        """The people of an image, from the outputs for it: (P, 4), (P,), (P,), (P, K, 3) and a number."""
        count = int(count)
        found = People(
            one["image"].shape[1:],
            boxes[:count],
            scores[:count].copy(),
            classes[:count].astype(np.int64),
            keypoints[:count],
        )
        if self.score_threshold is not None:
            found = found[found.scores >= self.score_threshold]
        people = to_original_size(found, one["height"], one["width"], one.get("to_original"))
        return shifted(people, self.metadata.original_shift)
