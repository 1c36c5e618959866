"""The formats that annotation projects are read from and written to, and how a file's format is detected."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..faults import Fault
from . import coco, cvat, deeplabcut, label_studio, labelme, sleap, yolo
from .json_files import load_json, syntax_error
from .project import CORNER, INDEX, Origin, PoseProject, ReadOptions

__all__ = ["FORMATS", "Format", "detect_format", "format_by_name", "project_files"]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as an argument of the command.
        title: for people.
        patterns: globs of its files in a folder.
        matches: whether a file is of this format.
        read: reads files of it.
        origin: of its keypoints.
        is_joint: several files of a folder are one project.
    """

    name: str
    title: str
    patterns: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[[list[Path], ReadOptions], PoseProject]
    origin: Origin
    is_joint: bool = True


_YAML = ("*.yaml", "*.yml")

FORMATS = (
    Format("yolo-pose", "YOLO-pose", _YAML, yolo.matches, yolo.read, CORNER, is_joint=False),
    Format("cvat", "CVAT for images 1.1", ("*.xml",), cvat.matches, cvat.read, CORNER),
    Format("label-studio", "Label Studio JSON", ("*.json",), label_studio.matches, label_studio.read, CORNER),
    Format("labelme", "labelme", ("**/*.json",), labelme.matches, labelme.read, CORNER),
    Format("x-anylabeling", "X-AnyLabeling", ("**/*.json",), labelme.matches_x_anylabeling, labelme.read, CORNER),
    Format("sleap", "SLEAP", ("*.slp",), sleap.matches, sleap.read, INDEX),
    Format("deeplabcut", "DeepLabCut", ("config.yaml", "CollectedData*"), deeplabcut.matches, deeplabcut.read, INDEX),
    Format("coco", "COCO keypoints", ("*.json",), coco.matches, coco.read, INDEX, is_joint=False),
)
"""All formats, in the order of the documentation."""

_REFUSED: tuple[tuple[str, str], ...] = (
    (".zip", "it is an archive; unpack it, and give the folder"),
    (".nwb", "NWB is not read: its readers give one individual, or its keypoints in alphabetical order; convert the "
             "project that it was written from"),
)  # fmt: skip


def format_by_name(name: str) -> Format:
    """The format of a name.

    Raises:
        DatasetError: no format has it; the message lists all.
    """
    for item in FORMATS:
        if item.name == name:
            return item
    raise Fault("", "formats", f"no format {name!r}; known are {_listed()}").error()


def detect_format(path: Path) -> Format:
    """The format of a file or folder.

    Raises:
        DatasetError: it is missing, or of no format or several; the message lists the formats.
    """
    if not path.exists():
        raise Fault(str(path), "files", "no such file or folder", "correct INPUT").error()
    found = [item for item in FORMATS if _files_of(path, item)]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"it may be {' or '.join(f'{item.title} ({item.name})' for item in found)}"
        raise Fault(str(path), "formats", problem, "choose one by --from").error()
    _refuse_damaged(path)
    reason = next((reason for suffix, reason in _REFUSED if path.suffix.lower() == suffix), None) or _refused_json(path)
    problem = reason or f"it is of no known format; known are {_listed()}"
    raise Fault(str(path), "formats", problem, "" if reason else "see docs/converting_data.md").error()


def _refuse_damaged(path: Path) -> None:
    """Refuse a file that no reader takes since its text is invalid."""
    problem = syntax_error(path) if path.is_file() else None
    if problem is not None:
        raise Fault(str(path), "files", problem, "it may be incomplete: export or copy it again").error()


def _refused_json(path: Path) -> str | None:
    """Why the annotation of a known tool is not read."""
    data = load_json(path) if path.is_file() else None
    if not isinstance(data, dict):
        return None
    objects, instances = data.get("objects"), data.get("instances")
    if isinstance(objects, list) and any(isinstance(item, dict) and "geometryType" in item for item in objects):
        return "Supervisely's annotation is not read; export the project as COCO keypoints (docs/annotation_tools.md)"
    if isinstance(instances, list) and isinstance(data.get("metadata"), dict):
        return "SuperAnnotate's annotation is not read: its exports omit absent points, so that later ones move up"
    return None


def project_files(path: Path, item: Format) -> list[Path]:
    """The files of a project: the file itself, or those of the format in a folder.

    Raises:
        DatasetError: it has none, or several that are separate projects.
    """
    files = _files_of(path, item)
    if not files:
        _refuse_damaged(path)
        raise Fault(str(path), "formats", f"it has no file of {item.title}", "choose another format by --from").error()
    if len(files) > 1 and not item.is_joint:
        names = ", ".join(file.name for file in files[:4])
        raise Fault(str(path), "files", f"it has several projects: {names}", "give one of these files").error()
    return files


def _files_of(path: Path, item: Format) -> list[Path]:
    if path.is_file():
        return [Path(os.path.abspath(path))] if item.matches(path) else []
    files = [file for pattern in item.patterns for file in sorted(path.glob(pattern)) if item.matches(file)]
    if item.name == "deeplabcut" and files and files[0].name == "config.yaml":
        files = files[:1]  # it leads to the tables
    return [Path(os.path.abspath(file)) for file in files]


def _listed() -> str:
    return ", ".join(f"{item.name} ({item.title})" for item in FORMATS)
