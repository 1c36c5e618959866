"""Prediction on image files and URLs: records results as they are computed, draws pictures and lists failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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

__all__ = ["FilePredictor", "PictureFolder", "image_entry", "in_a_line"]


class FilePredictor(PosePredictor):
    """Predicts the people in image files and records them.

    Args:
        cfg (CfgNode): see :class:`~dynpose.engine.PosePredictor`.
    """

    _run: _Run | None = None

    def predict_files(
        self,
        images: Sequence[tuple[str, Path | str]],
        record: PredictionRecord,
        *,
        batch_size: int = 1,
        pictures: PictureFolder | None = None,
        window: Window | None = None,
    ) -> None:
        """Predict the images that are not yet in a record, and add them.

        An image's results are added as soon as they are computed, after its picture is written. Unreadable files are
        added as skipped and reported; a picture that can't be written is reported and noted in the results.

        Args:
            images (list[tuple[str, Path | str]]): names, and files or URLs, see
                :func:`~dynpose.data.sources.find_sources`.
            record (PredictionRecord): takes the results.
            batch_size (int): maximum number of images in a forward pass.
            pictures (PictureFolder | None): None = no pictures. Missing pictures of recorded images are drawn.
            window (Window | None): shows the pictures.

        Raises:
            OSError: the record can't be written.
        """
        done = [image for image in images if record.has(*image)]
        names = {name for name, _ in done}
        left = [image for image in images if image[0] not in names]
        with tqdm(total=len(images), unit="image", desc="predict", disable=None) as progress:
            self._run = _Run(self, record, pictures, window, progress)
            try:
                self._run.draw_missing(done)
                for _ in self.infer_all(self._run.prepared(left), batch_size):
                    pass
            finally:
                self._run = None

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Predict the people in a batch of prepared images, and record those of :meth:`predict_files`.

        infer_all may call this before the batch of older images of other shapes, so results are recorded at once.
        """
        results = super().infer(inputs)
        if self._run is not None:
            for one, instances in zip(inputs, results):
                self._run.add(one, instances.to("cpu"))
        return results


class _Run:
    """The state of one call of predict_files."""

    def __init__(self, predictor, record, pictures, window, progress):
        self.prepare = predictor.prepare
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.record = record
        self.pictures = pictures
        self.window = window
        self.progress = progress

    def prepared(self, images):
        """Read images; yield model inputs with ``name``, ``path``, ``image_file`` and ``note``."""
        for name, path in images:
            try:
                # a URL is downloaded once, for the model and for the picture
                file = _read(path)
                note = None if isinstance(file, EncodedImage) else frames_note(file)
                inputs = {**self.prepare(file), "name": name, "path": path, "image_file": file, "note": note}
            except Exception as error:
                # Pillow raises OSError, SyntaxError, ValueError and more for corrupt images
                reason = in_a_line(error)
                self.record.add_skipped(name, reason, is_failure=True)
                self.report(f"skipped {path}: {reason}")
                self.progress.update()
            else:
                yield inputs

    def add(self, inputs, instances):
        """Draw and record an image's predictions."""
        entry = image_entry(inputs, instances, self.category_names)
        self.record.add_image(self.with_picture(entry, inputs["image_file"]), inputs["path"])
        self.progress.update()

    def draw_missing(self, images):
        """Draw recorded images that have no picture."""
        for name, path in images:
            if self.pictures and (self.record.lacks_picture(name) or not self.pictures.has(name)):
                (entry,) = self.record.entries([name])
                error = entry.pop("picture_error", None)
                drawn = self.with_picture(entry, path)  # a URL is downloaded again
                if drawn.get("picture_error") != error:
                    self.record.add_image(drawn, path)
            self.progress.update()

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


def image_entry(inputs: dict[str, Any], instances: Instances, category_names: Sequence[str]) -> dict[str, Any]:
    """The results of an image for :meth:`~dynpose.engine.prediction_record.PredictionRecord.add_image`.

    Args:
        inputs (dict): ``name``, ``width``, ``height`` and ``note`` (None = without).
        instances (Instances): N people on the CPU; those that are not finite are counted and omitted.
        category_names (Sequence[str]): see :func:`~dynpose.engine.prediction_record.to_records`.
    """
    finite = finite_instances(instances)
    return {
        "file_name": inputs["name"],
        "width": inputs["width"],
        "height": inputs["height"],
        "instances": to_records(instances[finite], category_names),
        "not_finite": int((~finite).sum()),
        **({"note": inputs["note"]} if inputs["note"] else {}),
    }


def _read(location):
    return fetch_image(location) if is_url(location) else location


def in_a_line(error: BaseException) -> str:
    """The reason for skipping an image, in one line, without its name if the error separates the two."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    fault = getattr(error, "fault", None)
    text = " ".join((fault.reason if fault else str(error)).split())
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"
