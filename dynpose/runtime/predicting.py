"""The calls that every predictor offers: one image, a batch, many images, a video. It needs a way to prepare and infer.

:class:`~dynpose.engine.PosePredictor` runs a PyTorch model, :class:`~dynpose.runtime.Pose` an exported file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dynpose.utils.look_ahead import in_batches
from dynpose.utils.padding import padded_size

if TYPE_CHECKING:
    from dynpose.data.any_image import ImageLike
    from dynpose.tracking import PoseTracker
    from dynpose.video import Frame, FrameSource

__all__ = ["ImagePredictor"]

_People = TypeVar("_People")
# Prepared images of 800 x 1333 pixels are 3.2 MB each
_BATCHES_AHEAD = 8


class ImagePredictor(ABC, Generic[_People]):
    """Predicts the people in images, which a subclass prepares and infers; its results may be of any type."""

    # Images of one padded size share a batch
    _size_divisibility: int = 1
    # None = no limit
    _max_batch_size: int | None = None

    @overload
    def __call__(self, image: ImageLike) -> _People: ...

    @overload
    def __call__(self, image: list[ImageLike]) -> list[_People]: ...

    def __call__(self, image: ImageLike | list[ImageLike]) -> _People | list[_People]:
        """Predict the people in an image, or in each image of a list.

        Args:
            image: a uint8 array, (H, W) or (H, W, 1) grey, (H, W, 3) BGR or (H, W, 4) BGRA; a PIL image with up to 8
                bits per channel; a file name; or an http(s) URL. Transparency is ignored. A list of such images is
                predicted as by :meth:`predict_all`, one by one.

        Returns:
            N people by descending score, at the original image size: ``pred_boxes``, ``scores``, ``pred_classes``, and
            ``pred_keypoints`` (N, K, 3) with x and y in continuous pixels and a confidence in [0, 1]. NaN and infinite
            predictions of a diverged model are included. For a list, the list of these.

        Raises:
            DatasetError: the file or URL is missing, or not an image of 8 bits per channel.
            ValueError: the array is not such an image.
            TypeError: the image is of another type.
        """
        if isinstance(image, list):
            return list(self.predict_all(image, batch_size=1))
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Iterable[ImageLike]) -> list[_People]:
        """Predict the people in a batch of images.

        Images of the same padded size share a forward pass. The predictions for an image equal those for the image
        alone up to float32 rounding, which docs/evaluation.md quantifies.

        Args:
            images (Iterable): B images, see :meth:`__call__`.

        Returns:
            list: B, see :meth:`__call__`.
        """
        return self.infer([self.prepare(image) for image in images])

    def predict_all(
        self, images: Iterable[ImageLike], batch_size: int = 8, look_ahead: int | None = None
    ) -> Iterator[_People]:
        """Predict the people in many images of any size, in full batches and with bounded memory.

        Args:
            images (Iterable): read lazily, see :meth:`__call__`.
            batch_size, look_ahead (int): see :meth:`infer_all`.

        Yields:
            the people of one image after another, in order, see :meth:`__call__`. The error for an unreadable image is
            raised in its place, after the predictions for all earlier images.

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
    ) -> Iterator[tuple[Frame, _People]]:
        """Predict the people in the frames of a video, which are decoded while the model runs.

        Args:
            video (str | PathLike | FrameSource): a file or URL; or another source, such as
                :class:`~dynpose.video.CameraReader` or :class:`~dynpose.video.AnimationReader`, with its own stride.
            stride, max_frames: see :class:`~dynpose.video.FrameSource`.
            batch_size (int): maximum number of frames in a forward pass.
            tracker (PoseTracker | None): gives the people ``track_ids``.

        Yields:
            tuple[Frame, people]: each frame, with its index, time and image, and its people, see :meth:`__call__`.
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
                    self._track(tracker, people, one["frame"].time)
                yield one["frame"], people

    def infer_all(
        self, inputs: Iterable[dict[str, Any]], batch_size: int = 8, look_ahead: int | None = None
    ) -> Iterator[tuple[dict[str, Any], _People]]:
        """Predict the people in many prepared images: :meth:`predict_all` for inputs of :meth:`prepare`.

        Args:
            inputs (Iterable[dict]): from :meth:`prepare`, read lazily; additional keys are kept.
            batch_size (int): maximum number of images in a forward pass; lower if the model runs with fewer only.
            look_ahead (int | None): maximum number of images held at once, among which those of the same padded size
                are batched; None = 8 batches.

        Yields:
            tuple[dict, people]: each input, in order, and its people, see :meth:`__call__`.

        Raises:
            ValueError: ``batch_size`` or ``look_ahead`` is less than 1.
        """
        if batch_size < 1 or (look_ahead is not None and look_ahead < 1):
            raise ValueError(f"batch_size and look_ahead must be at least 1, got {batch_size} and {look_ahead}")
        batch_size = min(batch_size, self._max_batch_size or batch_size)
        divisibility = self._size_divisibility
        return in_batches(
            inputs,
            lambda one: padded_size(one["image"].shape[-2], one["image"].shape[-1], divisibility),
            self.infer,
            batch_size=batch_size,
            look_ahead=look_ahead or _BATCHES_AHEAD * batch_size,
        )

    @abstractmethod
    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Read, check and resize an image.

        Args:
            image: see :meth:`__call__`.

        Returns:
            dict: ``image`` (3, h, w) uint8, in the channel order and the size of the model's input, and the original
            ``height`` and ``width``; if the image was not only resized, also ``to_original``, the (2, 3) matrix from
            continuous pixels of the input to those of the original image.
        """

    @abstractmethod
    def infer(self, inputs: list[dict[str, Any]]) -> list[_People]:
        """Predict the people in a batch of prepared images.

        Args:
            inputs (list[dict]): B, from :meth:`prepare`.

        Returns:
            list: B, see :meth:`__call__`.
        """

    def _track(self, tracker: PoseTracker, people: Any, time: float) -> None:
        """Give the people of a frame their identities."""
        people.track_ids = tracker.update(people, time)
