"""Prediction on images of files, URLs and archives: records and draws results as they are computed, lists failures."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from PIL import Image
from tqdm import tqdm

from dynpose.data import KeypointSchema
from dynpose.data.any_image import EncodedImage, fetch_image, is_url, to_bgr
from dynpose.data.image_files import frames_note
from dynpose.runtime.predicting import ImagePredictor
from dynpose.utils import draw_poses
from dynpose.utils.ahead import map_ahead
from dynpose.utils.finite import finite_instances

from .prediction_record import PredictionRecord, run_fingerprint, to_instances, to_records
from .predictor import PosePredictor
from .show import Window

__all__ = ["FilePredictor", "ImageInput", "PictureFolder", "RecordingPredictor", "in_a_line"]

# Pictures that wait to be drawn; of a photo of 12 megapixels each takes a third of a second
_PICTURES_BEHIND = 4
# Characters of a picture's name in that of its temporary file, so that both fit into 255 bytes
_TEMPORARY = 60


class ImageInput(NamedTuple):
    """An image to predict."""

    name: str
    """Unique, the path of its picture in a folder of pictures."""
    location: Path | str
    """Its file or URL, or the archive that it is in: results are of this state of the file."""
    content: EncodedImage | None = None
    """Of an image in an archive."""

    def read(self) -> Path | EncodedImage:
        """The file, or the contents of one that is in an archive or downloaded now.

        Raises:
            DatasetError: see :func:`~dynpose.data.any_image.fetch_image`.
        """
        if self.content is not None:
            return self.content
        return fetch_image(str(self.location)) if is_url(self.location) else Path(self.location)


class RecordingPredictor(ImagePredictor[Instances]):
    """Predicts the people in image files and records them; another base class predicts.

    Attributes:
        schema (KeypointSchema): the keypoints.
        metadata (Metadata): ``thing_classes``, if the names of the classes are known.
    """

    schema: KeypointSchema
    metadata: Metadata
    _run: _Run | None = None

    def predict_images(
        self,
        images: Iterable[ImageInput],
        record: PredictionRecord,
        *,
        total: int | None = None,
        batch_size: int = 1,
        pictures: PictureFolder | None = None,
        window: Window | None = None,
    ) -> None:
        """Predict the images that are not yet in a record, and add them.

        Images are read and resized in a thread ahead of the model, and drawn and written in a thread behind it. An
        image's results are added as soon as they are computed. Unreadable files are added as skipped and reported; a
        picture that can't be written is reported, and noted in the results, which are then added again.

        Args:
            images (Iterable[ImageInput]): taken one after another, as they are needed.
            record (PredictionRecord): takes the results.
            total (int | None): number of images, for the progress bar; None = unknown.
            batch_size (int): maximum number of images in a forward pass.
            pictures (PictureFolder | None): None = no pictures. Missing pictures of recorded images are drawn.
            window (Window | None): shows the pictures.

        Raises:
            OSError: the record can't be written.
        """
        with tqdm(total=total, unit="image", desc="predict", disable=None) as progress:
            drawing = _Drawing(pictures, window, record, progress)
            self._run = _Run(self, record, drawing, progress)
            try:
                with closing(self._run.prepared(images, ahead=2 * batch_size)) as prepared:
                    for _ in self.infer_all(prepared, batch_size):
                        pass
                drawing.finish()
            except BaseException:
                drawing.stop()
                raise
            finally:
                self._run = None

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Predict the people in a batch of prepared images, and record those of :meth:`predict_images`.

        infer_all may call this before the batch of older images of other shapes, so results are recorded at once.
        """
        results = super().infer(inputs)  # type: ignore[safe-super]
        if self._run is not None:
            for one, instances in zip(inputs, results):
                self._run.add(one, instances.to("cpu"))
        return results


class FilePredictor(RecordingPredictor, PosePredictor):
    """Predicts the people in image files with a PyTorch model and records them.

    Args:
        cfg (CfgNode): see :class:`~dynpose.engine.PosePredictor`.
    """

    def fingerprint(self) -> dict[str, Any]:
        """What the predictions depend on, see :func:`~dynpose.engine.prediction_record.run_fingerprint`."""
        return run_fingerprint(self.cfg, self.precision)


class _Run:
    """The state of one call of predict_images. The record is used in the caller's thread only."""

    def __init__(self, predictor, record, drawing, progress):
        self.prepare = predictor.prepare
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.record = record
        self.drawing = drawing
        self.progress = progress

    def prepared(self, images, ahead):
        """Read images ahead; yield model inputs with ``name``, ``location``, ``image_file`` and ``note``."""
        with closing(map_ahead(self._read, self._not_recorded(images), ahead)) as reading:
            for image, future in reading:
                try:
                    inputs = future.result()
                except Exception as error:
                    # Pillow raises OSError, SyntaxError, ValueError and more for corrupt images
                    reason = in_a_line(error)
                    self.record.add_skipped(image.name, reason, is_failure=True)
                    where = image.name if image.content else image.location
                    self.progress.write(f"skipped {where}: {reason}", file=sys.stderr)
                    self.progress.update()
                else:
                    yield inputs

    def _not_recorded(self, images):
        for image in images:
            if self.record.has(image.name, image.location):
                self.draw_missing(image)
                self.progress.update()
            else:
                yield image

    def _read(self, image):
        # a URL is downloaded once, for the model and for the picture
        file = image.read()
        prepared = {**self.prepare(file), "note": _frames_note(file)}
        # contents are compressed, small enough to wait for their batch
        return {**prepared, "name": image.name, "location": image.location, "image_file": file}

    def add(self, inputs, instances):
        """Record an image's predictions, and draw them."""
        entry = _image_entry(inputs, instances, self.category_names)
        self.drawing.discard(inputs["name"])
        self.record.add_image(entry, inputs["location"])
        self.drawing.add(entry, inputs["image_file"], inputs["location"])
        self.progress.update()

    def draw_missing(self, image):
        """Draw a recorded image that has no picture."""
        if not self.drawing.has(image.name) or self.record.lacks_picture(image.name):
            (entry,) = self.record.entries([image.name])
            self.drawing.add(entry, image.content or image.location, image.location)


class _Drawing:
    """Draws pictures in a thread behind the model, and notes failures in the record.

    A result is recorded before its picture is drawn: a killed run has lost pictures, which a resumed one draws, but no
    result.
    """

    def __init__(self, pictures, window, record, progress):
        self.pictures = pictures
        self.window = window
        self.record = record
        self.progress = progress
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dynpose-behind")
        # (entry, error of an earlier run, file, location, future of the picture)
        self._pending = deque()

    def has(self, name):
        """Whether an image needs no picture, or has one."""
        return self.pictures is None or self.pictures.has(name)

    def discard(self, name):
        """Delete an earlier picture, which does not show what is about to be recorded."""
        if self.pictures is not None:
            self.pictures.discard(name)

    def add(self, entry, file, location):
        """Draw a recorded image; waits while too many are not drawn yet."""
        if self.pictures is None:
            return
        entry = dict(entry)
        error = entry.pop("picture_error", None)
        future = self._pool.submit(self.pictures.draw, entry, file)
        self._pending.append((entry, error, file, location, future))
        while len(self._pending) > _PICTURES_BEHIND or (self._pending and self._pending[0][-1].done()):
            self._finish_next(self.window)

    def finish(self):
        """Complete all pictures."""
        while self._pending:
            self._finish_next(self.window)
        self._pool.shutdown()

    def stop(self):
        """Complete the pictures of a run that has failed or is interrupted."""
        with suppress(OSError):  # the record may be the reason; --resume draws the missing pictures
            while self._pending:
                self._finish_next(window=None)
        self._pool.shutdown(cancel_futures=True)

    def _finish_next(self, window):
        entry, earlier_error, file, location, future = self._pending.popleft()
        error = None
        try:
            drawn = future.result()
        except Exception as failure:  # encoders raise various errors
            error = in_a_line(failure)
            name = file.name if isinstance(file, EncodedImage) else file
            self.progress.write(f"no picture of {name}: {error}", file=sys.stderr)
        if error != earlier_error:
            self.record.add_image({**entry, "picture_error": error} if error else entry, location)
        if window is not None and error is None:
            window.show(drawn)


class PictureFolder:
    """Pictures of images with their predicted people.

    Args:
        folder (Path | None): None = pictures are drawn, to be shown, but not written.
        schema (KeypointSchema)
        **style: the thresholds and switches of :func:`~dynpose.utils.draw_poses`.
    """

    def __init__(self, folder: Path | None, schema: KeypointSchema, **style: Any):
        self.folder = folder
        self.schema = schema
        self.style = style

    def has(self, name: str) -> bool:
        """Whether the picture of an image exists, where pictures are written."""
        return self.folder is None or (self.folder / name).is_file()

    def discard(self, name: str) -> None:
        """Delete an image's picture, if there is one."""
        if self.folder is not None:
            with suppress(OSError):
                (self.folder / name).unlink()

    def draw(self, entry: dict[str, Any], image: Path | str | EncodedImage) -> np.ndarray:
        """Write the picture of an image, in the image's format; a failure leaves no file.

        Args:
            entry (dict): results, see :meth:`~dynpose.engine.prediction_record.PredictionRecord.add_image`.
            image (Path | str | EncodedImage): a file or URL, which is read again, since holding a batch of full-size
                images takes memory; or the contents of the file.

        Returns:
            ndarray: (H', W', 3) uint8 RGB, the picture.

        Raises:
            Exception: the image can no longer be read, or the picture can't be written.
        """
        drawn = self.drawn(entry, to_bgr(image)[:, :, ::-1])
        if self.folder is None:
            return drawn
        target = self.folder / entry["file_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        # a killed run leaves no half picture under this name
        temporary = target.with_name(f"{target.name[:_TEMPORARY]}.tmp")
        try:
            Image.fromarray(drawn).save(temporary, _format_of(target), quality=92)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        return drawn

    def drawn(self, entry: dict[str, Any], image_rgb: np.ndarray) -> np.ndarray:
        """Draw the people of an image or a frame.

        Args:
            entry (dict): see :meth:`draw`.
            image_rgb (ndarray): (H, W, 3) uint8 RGB.

        Returns:
            ndarray: see :func:`~dynpose.utils.draw_poses`.
        """
        instances = to_instances(entry, self.schema.num_keypoints)
        return draw_poses(image_rgb, instances, self.schema, **self.style)


def _image_entry(inputs, instances, category_names):
    """The results of an image for PredictionRecord.add_image; people who are not finite are counted and omitted."""
    finite = finite_instances(instances)
    return {
        "file_name": inputs["name"],
        "width": inputs["width"],
        "height": inputs["height"],
        "instances": to_records(instances[finite], category_names),
        "not_finite": int((~finite).sum()),
        **({"note": inputs["note"]} if inputs["note"] else {}),
    }


def _format_of(picture):
    """Pillow's name of the format that the name of a picture stands for."""
    suffix = picture.suffix.lower()
    Image.preinit()
    if suffix not in Image.EXTENSION:
        Image.init()
    if suffix not in Image.EXTENSION:
        raise ValueError(f"unknown file extension: {suffix}")
    return Image.EXTENSION[suffix]


def _frames_note(file):
    return frames_note(io.BytesIO(file.content) if isinstance(file, EncodedImage) else file)


def in_a_line(error: BaseException) -> str:
    """The reason for skipping an image, in one line, without its name if the error separates the two."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    fault = getattr(error, "fault", None)
    text = " ".join((fault.reason if fault else str(error)).split())
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"
