"""The images of tar archives as inputs of a prediction, read in sequence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from dynpose.data import DatasetError
from dynpose.data.archives import images_of_archive
from dynpose.data.sources import Source

from .file_prediction import ImageInput
from .prediction_record import PredictionRecord

__all__ = ["ArchiveImages"]


class ArchiveImages:
    """Reads the images of archives, and keeps their names.

    Args:
        archives (list[Source]): of the kind "archive".
        record (PredictionRecord): takes archives and images that are skipped: a damaged archive, whose images before
            the fault are read, and second images of a name. They are reported too.
        taken (set[str]): names of other images.
        limit (int | None): number of images after which reading ends.

    Attributes:
        names (dict[str, list[str]]): the names of the images read so far, by the name of the archive.
    """

    def __init__(self, archives: Sequence[Source], record: PredictionRecord, taken: set[str], limit: int | None = None):
        self.archives = archives
        self.record = record
        self.limit = limit
        self.names: dict[str, list[str]] = {archive.name: [] for archive in archives}
        self._taken = set(taken)

    def __iter__(self) -> Iterator[ImageInput]:
        for archive in self.archives:
            try:
                yield from self._images_of(archive)
            except DatasetError as error:
                self._skip(archive.name, str(error), is_failure=True)

    def _images_of(self, archive):
        names = self.names[archive.name]
        for content in images_of_archive(archive.location):
            if self.limit is not None and sum(map(len, self.names.values())) >= self.limit:
                return
            if content.name in self._taken:
                self._skip(content.name, "another image has this name", is_failure=True)
                continue
            self._taken.add(content.name)
            names.append(content.name)
            yield ImageInput(content.name, Path(archive.location), content)

    def _skip(self, name, reason, is_failure):
        self.record.add_skipped(name, reason, is_failure=is_failure)
        tqdm.write(f"skipped {name}: {reason}", file=sys.stderr)
