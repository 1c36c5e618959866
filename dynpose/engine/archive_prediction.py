"""Prediction on the images of tar archives, which are read in sequence."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import Instances
from tqdm import tqdm

from dynpose.data import DatasetError
from dynpose.data.archives import ArchiveImage, images_of_archive
from dynpose.data.image_files import frames_note

from .file_prediction import FilePredictor, PictureFolder, image_entry
from .prediction_record import PredictionRecord

__all__ = ["ArchivePredictor"]


class ArchivePredictor(FilePredictor):
    """Predicts the people in the images of tar archives and records them.

    Args:
        cfg (CfgNode): see :class:`~dynpose.engine.PosePredictor`.
    """

    _archive_run: _Run | None = None

    def predict_archives(
        self,
        archives: Sequence[str],
        record: PredictionRecord,
        names: list[str],
        *,
        batch_size: int = 1,
        pictures: PictureFolder | None = None,
        limit: int | None = None,
    ) -> None:
        """Predict the images that are not yet in a record, and add them.

        An archive whose size or time has changed is predicted again. A damaged one is added as skipped and reported;
        the images before the fault are kept. Results are added as soon as they are computed.

        Args:
            archives (list[str]): see :func:`~dynpose.data.archives.find_archives`.
            record (PredictionRecord): takes the results.
            names (list[str]): the names of all images are appended as they are read.
            batch_size (int): maximum number of images in a forward pass.
            pictures (PictureFolder | None): None = no pictures.
            limit (int | None): number of images after which reading ends.

        Raises:
            OSError: the record can't be written.
        """
        with (
            tqdm(unit="image", desc="predict", disable=None) as progress,
            tempfile.TemporaryDirectory(prefix="dynpose-") as folder,
        ):
            run = _Run(self, record, pictures, progress, Path(folder))
            self._archive_run = run
            try:
                for _ in self.infer_all(run.prepared(run.images(archives, names, limit)), batch_size):
                    pass
            finally:
                self._archive_run = None

    def infer(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Predict the people in a batch of prepared images, and record those of :meth:`predict_archives`."""
        results = super().infer(inputs)
        if self._archive_run is not None:
            for one, instances in zip(inputs, results):
                self._archive_run.add(one, instances.to("cpu"))
        return results


class _Run:
    """The state of one call of predict_archives."""

    def __init__(self, predictor, record, pictures, progress, folder):
        self.folder = folder
        self.prepare = predictor.prepare
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.record = record
        self.pictures = pictures
        self.progress = progress

    def images(self, archives, names: list[str], limit) -> Iterator[tuple[ArchiveImage, Path]]:
        """Read archives; yield images and the path of their archive, and list their names."""
        seen = set()
        for archive in archives:
            try:
                for image in images_of_archive(archive):
                    if limit is not None and len(names) >= limit:
                        return
                    if image.name in seen:
                        self.skip(image.name, "a second file of this name in the archive", is_failure=False)
                        continue
                    seen.add(image.name)
                    names.append(image.name)
                    yield image, Path(archive)
            except DatasetError as error:
                self.skip(archive, str(error).removeprefix(f"{archive}: "), is_failure=True)

    def prepared(self, images) -> Iterator[dict[str, Any]]:
        """Decode images; yield model inputs with ``name``, ``path`` (the archive's), ``note`` and ``source``."""
        for image, archive in images:
            if self.record.has(image.name, archive):
                self.draw_missing(image)
                self.progress.update()
                continue
            try:
                file = self.extracted(image)
                inputs = {**self.prepare(file), "note": frames_note(file)}
            except Exception as error:
                # Pillow raises OSError, SyntaxError, ValueError and more for corrupt images
                self.skip(image.name, _in_a_line(error), is_failure=True)
                self.progress.update()
            else:
                # the compressed image is small enough to wait for its batch
                yield {**inputs, "name": image.name, "path": archive, "source": image if self.pictures else None}

    def add(self, inputs, instances):
        """Draw and record an image's predictions."""
        entry = image_entry(inputs, instances, self.category_names)
        self.record.add_image(self.with_picture(entry, inputs["source"]), inputs["path"])
        self.progress.update()

    def draw_missing(self, image):
        """Draw a recorded image that has no picture."""
        if self.pictures and (self.record.lacks_picture(image.name) or not self.pictures.has(image.name)):
            (entry,) = self.record.entries([image.name])
            entry.pop("picture_error", None)
            self.with_picture(entry, image)

    def with_picture(self, entry, image):
        """Draw an image's picture; return the entry, with the reason if drawing fails."""
        if self.pictures is None:
            return entry
        try:
            self.pictures.draw(entry, self.extracted(image))
        except Exception as error:  # encoders raise various errors too
            reason = _in_a_line(error)
            self.progress.write(f"no picture of {image.name}: {reason}", file=sys.stderr)
            return {**entry, "picture_error": reason}
        return entry

    def extracted(self, image):
        """Write an image to a temporary file, which is read as every other image is."""
        path = self.folder / f"image{Path(image.name).suffix}"
        path.write_bytes(image.data)
        return path

    def skip(self, name, reason, is_failure):
        """Record and report a file that is not predicted."""
        self.record.add_skipped(name, reason, is_failure=is_failure)
        self.progress.write(f"skipped {name}: {reason}", file=sys.stderr)


def _in_a_line(error):
    """The reason of an error without the name of the temporary file."""
    fault = getattr(error, "fault", None)
    return " ".join((fault.reason if fault else str(error) or type(error).__name__).split())
