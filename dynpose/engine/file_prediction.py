"""Prediction on images of files, URLs and archives: records and draws results as they are computed, lists failures."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import Instances
from PIL import Image
from tqdm import tqdm

from dynpose.data import KeypointSchema
from dynpose.data.any_image import EncodedImage, fetch_image, is_url, to_bgr
from dynpose.data.image_files import frames_note
from dynpose.utils import draw_poses
from dynpose.utils.finite import finite_instances

from .prediction_record import PredictionRecord, to_instances, to_records
from .predictor import PosePredictor
from .show import Window

__all__ = ["FilePredictor", "ImageInput", "PictureFolder", "in_a_line"]


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


class FilePredictor(PosePredictor):
    """Predicts the people in image files and records them.

    Args:
        cfg (CfgNode): see :class:`~dynpose.engine.PosePredictor`.
    """

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

        An image's results are added as soon as they are computed, after its picture is written. Unreadable files are
        added as skipped and reported; a picture that can't be written is reported and noted in the results.

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
            self._run = _Run(self, record, pictures, window, progress)
            try:
                for _ in self.infer_all(self._run.prepared(images), batch_size):
                    pass
            finally:
                self._run = None

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Predict the people in a batch of prepared images, and record those of :meth:`predict_images`.

        infer_all may call this before the batch of older images of other shapes, so results are recorded at once.
        """
        results = super().infer(inputs)
        if self._run is not None:
            for one, instances in zip(inputs, results):
                self._run.add(one, instances.to("cpu"))
        return results


class _Run:
    """The state of one call of predict_images."""

    def __init__(self, predictor, record, pictures, window, progress):
        self.prepare = predictor.prepare
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.record = record
        self.pictures = pictures
        self.window = window
        self.progress = progress

    def prepared(self, images):
        """Read images; yield model inputs with ``name``, ``location``, ``image_file`` and ``note``."""
        for image in images:
            if self.record.has(image.name, image.location):
                self.draw_missing(image)
                self.progress.update()
                continue
            try:
                # a URL is downloaded once, for the model and for the picture
                file = image.read()
                inputs = {**self.prepare(file), "note": _frames_note(file)}
            except Exception as error:
                # Pillow raises OSError, SyntaxError, ValueError and more for corrupt images
                reason = in_a_line(error)
                self.record.add_skipped(image.name, reason, is_failure=True)
                self.report(f"skipped {image.name if image.content else image.location}: {reason}")
                self.progress.update()
            else:
                # contents are compressed, small enough to wait for their batch
                yield {**inputs, "name": image.name, "location": image.location, "image_file": file}

    def add(self, inputs, instances):
        """Draw and record an image's predictions."""
        entry = _image_entry(inputs, instances, self.category_names)
        self.record.add_image(self.with_picture(entry, inputs["image_file"]), inputs["location"])
        self.progress.update()

    def draw_missing(self, image):
        """Draw a recorded image that has no picture."""
        if self.pictures is None or (self.pictures.has(image.name) and not self.record.lacks_picture(image.name)):
            return
        (entry,) = self.record.entries([image.name])
        error = entry.pop("picture_error", None)
        drawn = self.with_picture(entry, image.content or image.location)
        if drawn.get("picture_error") != error:
            self.record.add_image(drawn, image.location)

    def with_picture(self, entry, file):
        """Draw an image's picture; return the entry, with the reason if drawing fails."""
        if self.pictures is None:
            return entry
        try:
            drawn = self.pictures.draw(entry, file)
        except Exception as error:  # encoders raise various errors too
            reason = in_a_line(error)
            self.report(f"no picture of {file.name if isinstance(file, EncodedImage) else file}: {reason}")
            return {**entry, "picture_error": reason}
        if self.window is not None:
            self.window.show(drawn)
        return entry

    def report(self, line):
        """Print a line without disturbing the progress bar."""
        self.progress.write(line, file=sys.stderr)


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
        try:
            Image.fromarray(drawn).save(target, quality=92)
        except BaseException:
            with suppress(OSError):
                target.unlink()
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


def _frames_note(file):
    return frames_note(io.BytesIO(file.content) if isinstance(file, EncodedImage) else file)


def in_a_line(error: BaseException) -> str:
    """The reason for skipping an image, in one line, without its name if the error separates the two."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    fault = getattr(error, "fault", None)
    text = " ".join((fault.reason if fault else str(error)).split())
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"
