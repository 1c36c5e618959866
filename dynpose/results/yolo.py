"""A YOLO-pose data set for Ultralytics: data.yaml, images, and a text file of one row per person for each image.

A row is ``class x_center y_center width height`` and ``x y visibility`` per keypoint, as fractions of the image's width
and height from its corner (https://docs.ultralytics.com/datasets/pose). Ultralytics finds the labels of
``.../images/a.png`` in ``.../labels/a.txt``, and drops an image whose labels have a number outside [0, 1].
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from dynpose.config import ConfigError

from .results import Results, Tally, clipped_box, text_file

__all__ = ["check", "write"]

_FOLDER = "yolo-pose"
_MARK = "# written by dynpose predict"
# Digits after the point of a fraction: 1e-9 of 3840 pixels is 4e-6 pixels
_DIGITS = 9
# The endings that Ultralytics 8.4 looks for; it recognises the format by the content
_ENDINGS = (".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_OTHER_ENDINGS = {".jfif": ".jpg"}


def check(results: Results, folder: Path) -> None:
    """Check that an existing data set may be replaced.

    Raises:
        ConfigError: it is not an earlier result.
    """
    target = folder / _FOLDER
    if target.exists() and not _is_own(target):
        raise ConfigError(
            f"--format yolo-pose: {target} exists and was not written by dynpose predict; rename it, or give another "
            "--output"
        )


def _is_own(target: Path) -> bool:
    try:
        with open(target / "data.yaml", encoding="utf-8") as file:
            return file.readline().strip() == _MARK
    except (OSError, UnicodeDecodeError):
        return False


def write(results: Results, folder: Path) -> list[str]:
    """Write ``yolo-pose/``, replacing that of an earlier run.

    People whose score reaches the threshold get a row with the visible part of their box. Keypoints of low confidence
    and those outside the image have visibility 0, all others 2. Images are links to the inputs, or copies where the
    file system has no links.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: lines for the user.

    Raises:
        OSError: a file can't be written; an earlier data set is unchanged.
    """
    target, temporary = folder / _FOLDER, folder / f"{_FOLDER}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        writer = _Writer(results, temporary)
        for entry in results.entries():
            writer.add(entry)
        _write_yaml(results, temporary / "data.yaml")
        check(results, folder)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return [f"{target / 'data.yaml'}: {writer.images} images, {writer.people} people", *writer.left_out()]


class _Writer:
    def __init__(self, results: Results, folder: Path):
        self.results = results
        self.folder = folder
        self.images = self.people = 0
        self._taken: set[Path] = set()
        self._frames = Tally("frames of videos have no image file and are omitted")
        self._endings = Tally("images of a format that Ultralytics does not read are omitted")
        self._gone = Tally("images that are URLs or gone are omitted")
        self._outside = Tally("people whose box is outside the image are omitted")

    def left_out(self) -> list[str]:
        tallies = self._frames, self._endings, self._gone, self._outside
        return [line for tally in tallies for line in tally.lines()]

    def add(self, entry: dict[str, Any]) -> None:
        """Add an image and its rows."""
        name = entry["file_name"]
        if "frame" in entry:
            self._frames.add(f"{name}#{entry['frame']}")
            return
        source = self.results.find_image(name)
        place = self._place(name)
        if place is None:
            self._endings.add(name)
        elif not isinstance(source, Path) or not source.is_file():
            self._gone.add(name)
        else:
            self._taken.add(place.with_suffix(""))
            self._write(entry, source, place)

    def _place(self, name: str) -> Path | None:
        """The unique path of an image without its ending; None = Ultralytics does not read the image."""
        path = Path(name)
        ending = path.suffix.lower()
        ending = _OTHER_ENDINGS.get(ending, ending)
        if ending not in _ENDINGS:
            return None
        # Ultralytics replaces the last folder "images" of a path by "labels"
        folders = [f"{part}_" if part == "images" else part for part in path.parent.parts]
        place = Path(*folders, path.stem + ending)
        while place.with_suffix("") in self._taken:  # a.jpg and a.png would share a.txt
            place = place.with_name(f"{place.stem}_{ending[1:]}{ending}")
        return place

    def _write(self, entry: dict[str, Any], source: Path, place: Path) -> None:
        image, label = self.folder / "images" / place, (self.folder / "labels" / place).with_suffix(".txt")
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.symlink(source, image)
        except OSError:
            shutil.copyfile(source, image)
        rows = [self._row(entry, person) for person in self.results.shown_people(entry)]
        with open(label, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(row for row in rows if row is not None)
        self.images += 1
        self.people += sum(row is not None for row in rows)

    def _row(self, entry: dict[str, Any], person: dict[str, Any]) -> str | None:
        width, height = entry["width"], entry["height"]
        x0, y0, x1, y1 = clipped_box(entry, person)
        if x0 >= x1 or y0 >= y1:
            self._outside.add(entry["file_name"])
            return None
        box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
        words = [str(person["category"]), *(f"{value:.{_DIGITS}f}" for value in box)]
        for point in self.results.keypoints_from_corner(entry, person):
            if point.is_shown:
                words += [f"{point.x / width:.{_DIGITS}f}", f"{point.y / height:.{_DIGITS}f}", "2"]
            else:
                words += ["0", "0", "0"]
        return " ".join(words) + "\n"


def _write_yaml(results: Results, path: Path) -> None:
    """Without ``path``, the data set can be moved. ``train`` and ``val``, which Ultralytics needs, are all images."""
    index = {name: i for i, name in enumerate(results.keypoint_names)}
    partner = {a: b for pair in results.flip_pairs for a, b in (pair, pair[::-1])}
    names = results.class_names()
    data = {
        "train": "images",
        "val": "images",
        "kpt_shape": [len(index), 3],
        "flip_idx": [index[partner.get(name, name)] for name in index],
        "names": dict(enumerate(names)),
        "kpt_names": {i: list(index) for i in range(len(names))},
        "skeleton": [[results.keypoint_names[end] for end in limb] for limb in results.skeleton],
    }
    with text_file(path) as file:
        file.write(f"{_MARK}\n")
        yaml.safe_dump(data, file, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
