"""DeepLabCut projects: config.yaml, and CollectedData as CSV or HDF5 in each folder of labeled-data.

The table has three header rows, scorer, bodyparts and coords, or four with individuals, and one or three index columns
for the image. Coordinates are pixels from the centre of the first one; there is no visibility: an empty cell is not
labelled, and (0, 0) is a labelled point. The order of the body parts is the header's.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..faults import Fault, short
from .images import ImageFinder
from .json_files import load_yaml
from .project import INDEX, Notes, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions

__all__ = ["matches", "read"]

_SINGLE = "single"
"""The individual that holds the points of no animal: corners of the arena and the like."""
_CATEGORY = "animal"
_KEYS = ("bodyparts", "multianimalbodyparts")


class _Column(NamedTuple):
    individual: str
    bodypart: str
    coordinate: str


class _Table(NamedTuple):
    """CollectedData: its file, its columns, and for each image the name and the values, NaN for an empty cell."""

    path: Path
    columns: list[_Column]
    rows: list[tuple[str, np.ndarray]]


def matches(path: Path) -> bool:
    """Whether a file is the config.yaml of a project, or its CollectedData."""
    if path.name.startswith("CollectedData") and path.suffix in (".csv", ".h5"):
        return True
    return path.name == "config.yaml" and _config(path) is not None


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read a project.

    Args:
        paths: its config.yaml, or files of CollectedData.
        options: ``image_dirs`` are searched for images before the project.

    Returns:
        PoseProject: with the index origin; individuals are tracks, and limbs are those of config.yaml.

    Raises:
        DatasetError: a table is no CollectedData, tables have different body parts, or images are missing.
    """
    notes = Notes()
    tables = [(path, _read_table(file, notes)) for path in paths for file in _table_files(path)]
    config_file, config = _project_config(paths)
    keypoints = _bodyparts([table for _, table in tables])
    limbs = _limbs(config, keypoints, notes, config_file)
    category = PoseCategory(_CATEGORY, keypoints, limbs, limbs_from="config.yaml")
    images = [image for path, table in tables for image in _images(table, category, path, options, notes)]
    notes.raise_faults()
    return PoseProject([category], images, INDEX, notes)


def _config(path: Path) -> dict[str, Any] | None:
    data = load_yaml(path)
    return data if isinstance(data, dict) and any(key in data for key in _KEYS) and "scorer" in data else None


def _project_config(paths: list[Path]) -> tuple[Path | None, dict[str, Any]]:
    """The config.yaml of a project, if it is there: given, or two folders above a table."""
    path = paths[0] if paths[0].name == "config.yaml" else paths[0].parent.parent.parent / "config.yaml"
    config = _config(path) if path.is_file() else None
    return (None, {}) if config is None else (path, config)


def _table_files(path: Path) -> list[Path]:
    """The tables of a project; of a table in both formats, the CSV."""
    if path.name != "config.yaml":
        return [path]
    folder = path.parent / "labeled-data"
    scorer = (_config(path) or {}).get("scorer")
    # a pattern with the name would give its characters * and ? a meaning
    found = [
        file
        for ending in (".csv", ".h5")
        for file in sorted(folder.glob(f"*/CollectedData*{ending}"))
        if file.name == f"CollectedData_{scorer}{ending}"
    ]
    tables = {file.parent: file for file in reversed(found)}
    if not tables:
        problem = f"its scorer is {short(scorer)}, and no table is labeled-data/*/CollectedData_<scorer>.csv or .h5"
        raise Fault(str(path), "files", problem, "label frames first, or correct scorer").error()
    return [tables[parent] for parent in sorted(tables)]


def _read_table(path: Path, notes: Notes) -> _Table:
    columns, rows = _read_csv(path) if path.suffix == ".csv" else _read_hdf5(path)
    coordinates = {column.coordinate for column in columns}
    if "likelihood" in coordinates:
        remedy = "convert CollectedData, or refine the labels in DeepLabCut first"
        raise Fault(str(path), "files", "it holds predictions (likelihood), not labels", remedy).error()
    points = {(column.individual, column.bodypart) for column in columns}
    if not columns or coordinates != {"x", "y"} or not len(set(columns)) == len(columns) == 2 * len(points):
        problem = "its header is not scorer, (individuals,) bodyparts, coords with x and y for each body part"
        raise Fault(str(path), "files", problem, "export it again from DeepLabCut").error()
    single = list(dict.fromkeys(column.bodypart for column in columns if column.individual == _SINGLE))
    if single:
        notes.lose("points of no individual ('single')", f"{path}: {', '.join(single)}", len(single))
    return _Table(path, columns, rows)


def _read_csv(path: Path) -> tuple[list[_Column], list[tuple[str, np.ndarray]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Fault(str(path), "files", f"it can't be read ({error})", "export it again").error() from error
    header = {}
    while lines and lines[0][0] in ("scorer", "individuals", "bodyparts", "coords"):
        line = lines.pop(0)
        header[line[0]] = line[1:]
    if not {"scorer", "bodyparts", "coords"} <= header.keys():
        return [], []
    # with three index columns, the first two cells of each header row after its name are empty
    indices = 0
    while indices < len(header["coords"]) and not header["coords"][indices]:
        indices += 1
    individuals = header.get("individuals", [""] * len(header["coords"]))
    columns = [_Column(*cells) for cells in list(zip(individuals, header["bodyparts"], header["coords"]))[indices:]]
    rows = []
    for line in lines:
        name = "/".join(part for part in line[: indices + 1] if part)
        cells = line[indices + 1 :]
        if len(cells) != len(columns):
            problem = f"row {name!r} has {len(cells)} values for {len(columns)} columns"
            raise Fault(str(path), "rows", problem, "export it again from DeepLabCut").error()
        rows.append((name, np.array([_number(cell, path, name) for cell in cells])))
    return columns, rows


def _number(cell: str, path: Path, name: str) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise Fault(str(path), "rows", f"row {name!r}: {cell!r} is no number", "correct it").error() from None


def _read_hdf5(path: Path) -> tuple[list[_Column], list[tuple[str, np.ndarray]]]:
    """Read pandas' fixed format with h5py: pandas would unpickle, that is run code of, a file with other contents."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        remedy = "pip install 'dynpose[sleap]', or export the table as CSV"
        raise Fault(str(path), "files", "HDF5 is read through h5py", remedy).error() from None
    try:
        with h5py.File(path, "r") as file:
            frame = file["df_with_missing"] if "df_with_missing" in file else file[next(iter(file))]
            columns = list(_index(frame, "axis0"))
            names = ["/".join(filter(None, parts)) for parts in _index(frame, "axis1")]
            values = np.full((len(names), len(columns)), np.nan)
            places = {column: i for i, column in enumerate(columns)}
            for block in range(int(frame.attrs["nblocks"])):
                items = [places[item] for item in _index(frame, f"block{block}_items")]
                values[:, items] = frame[f"block{block}_values"][()]
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, StopIteration) as error:
        remedy = "export it again from DeepLabCut, or as CSV"
        raise Fault(str(path), "files", f"it is no table of DeepLabCut ({error})", remedy).error() from error
    # scorer, (individuals,) bodyparts, coords
    described = [_Column(*(("",) * (4 - len(column)) + column)[1:]) for column in columns]
    return described, list(zip(names, values))


def _index(frame: Any, name: str) -> Iterator[tuple[str, ...]]:
    """An index of pandas' fixed format: one array of text, or levels with the number of each entry."""
    if name in frame:
        yield from ((_text(value),) for value in frame[name][()])
        return
    levels, labels, number = [], [], 0
    while f"{name}_level{number}" in frame:
        levels.append([_text(value) for value in frame[f"{name}_level{number}"][()]])
        labels.append(frame[f"{name}_label{number}"][()].tolist())
        number += 1
    if not levels:
        raise KeyError(name)
    for entry in zip(*labels):
        yield tuple("" if i < 0 else level[i] for level, i in zip(levels, entry))


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise TypeError("an index is not text")
    return value.decode()


def _bodyparts(tables: list[_Table]) -> tuple[str, ...]:
    """The body parts in the order of the header, the same for each individual and each table."""
    found: tuple[str, ...] | None = None
    for table in tables:
        for individual in _individuals(table):
            parts = tuple(dict.fromkeys(item.bodypart for item in table.columns if item.individual == individual))
            if found is not None and parts != found:
                who = f" of {individual!r}" if individual else ""
                problem = f"the body parts{who} are {', '.join(parts)}, and those before {', '.join(found)}"
                raise Fault(str(table.path), "keypoints", problem, "give all the same, in one order").error()
            found = parts
    if not found:
        raise Fault(str(tables[0].path), "keypoints", "it has no body parts", "label frames first").error()
    return found


def _individuals(table: _Table) -> Iterable[str]:
    return dict.fromkeys(column.individual for column in table.columns if column.individual != _SINGLE)


def _limbs(
    config: dict[str, Any], keypoints: tuple[str, ...], notes: Notes, path: Path | None
) -> tuple[tuple[int, int], ...]:
    limbs = []
    skeleton = config.get("skeleton")
    for limb in skeleton if isinstance(skeleton, list) else ():
        # a limb of several body parts is a chain
        ends = [str(end) for end in limb] if isinstance(limb, list) else []
        if len(ends) < 2 or not set(ends) <= set(keypoints):
            notes.lose("limbs of other than its body parts", f"{path}: {limb}")
            continue
        limbs += [(keypoints.index(a), keypoints.index(b)) for a, b in zip(ends, ends[1:])]
    return tuple(limbs)


def _images(
    table: _Table, category: PoseCategory, source: Path, options: ReadOptions, notes: Notes
) -> Iterator[PoseImage]:
    project = table.path.parent.parent.parent
    finder = ImageFinder([*options.image_dirs, project, table.path.parent])
    for name, values in table.rows:
        short = PurePosixPath(name.replace("\\", "/")).name
        image = PoseImage(short, finder.locate(table.path, name, notes), source=source)
        for individual in _individuals(table):
            keypoints = _keypoints(table, values, individual, category.keypoints, name, notes)
            if (keypoints[:, 2] > 0).any():
                image.people.append(PosePerson(category.name, keypoints, track=individual or None))
        if not image.people:
            notes.remark("images without a labelled point", name)
        yield image


def _keypoints(
    table: _Table, values: np.ndarray, individual: str, names: tuple[str, ...], image: str, notes: Notes
) -> np.ndarray:
    """(K, 3) of an individual; both coordinates are there or neither."""
    keypoints = np.zeros((len(names), 3))
    place = {column: i for i, column in enumerate(table.columns)}
    for i, name in enumerate(names):
        x, y = (values[place[_Column(individual, name, coordinate)]] for coordinate in ("x", "y"))
        if math.isfinite(x) and math.isfinite(y):
            keypoints[i] = x, y, 2
        elif not (math.isnan(x) and math.isnan(y)):
            problem = f"row {image!r}: {name} is at {x}, {y}"
            notes.fault(table.path, "rows", problem, "give both coordinates or neither")
    return keypoints
