"""SLEAP's .slp files, through sleap-io's Labels, which is exact; its COCO writer is not.

Coordinates are pixels from the centre of the first one. A point is occluded if it has coordinates and ``visible`` is
off. Videos of image files refer to these files; frames of other videos are extracted.
"""

import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..faults import Fault
from ..flip_names import infer_flip_pairs
from .images import ImageFinder
from .project import INDEX, Notes, PoseCategory, PoseImage, PosePerson, PoseProject, ReadOptions

__all__ = ["matches", "read", "read_labels"]


def matches(path: Path) -> bool:
    """Whether a file is SLEAP's."""
    return path.suffix == ".slp"


def read(paths: list[Path], options: ReadOptions) -> PoseProject:
    """Read files of labels.

    Args:
        paths: the .slp files.
        options: ``image_dirs`` are searched for videos and images that are not where the file says.

    Returns:
        PoseProject: with the index origin; see :func:`read_labels`.

    Raises:
        DatasetError: sleap-io is not installed, a file is invalid, or a video is missing.
    """
    try:
        import sleap_io
    except ModuleNotFoundError as error:
        if error.name != "sleap_io":
            raise
        remedy = "pip install 'dynpose[sleap]'"
        raise Fault(str(paths[0]), "files", "SLEAP's files are read through sleap-io", remedy).error() from None
    projects = []
    for path in paths:
        try:
            labels = sleap_io.load_slp(str(path), open_videos=False)
        except Exception as error:  # of HDF5, JSON or sleap-io
            problem = f"it can't be read ({type(error).__name__}: {error})"
            raise Fault(str(path), "files", problem, "copy it again").error() from error
        projects.append(read_labels(labels, path, options))
    return _merge(projects, paths)


def read_labels(labels: Any, path: Path, options: ReadOptions) -> PoseProject:
    """Convert Labels of sleap-io.

    Args:
        labels (sleap_io.Labels): instances of users become people, predicted ones are skipped.
        path: the file, for messages and for images beside it.
        options: see :func:`read`.

    Returns:
        PoseProject: with the index origin; each skeleton is a category, symmetries are its flip pairs.

    Raises:
        DatasetError: a video is missing, or two skeletons with the same name differ.
    """
    notes = Notes()
    categories = _categories(labels.skeletons, path)
    frames = _frame_reader(path, options, notes)
    images = []
    for frame in labels.labeled_frames:
        name = f"{path.stem}: frame {frame.frame_idx} of {_video_name(frame.video)}"
        notes.lose("predicted instances", name, len(frame.predicted_instances))
        if not frame.user_instances and not getattr(frame, "is_negative", False):
            notes.lose("frames without instances of a user", name)
            continue
        image = frames(frame.video, int(frame.frame_idx))
        for instance in frame.user_instances:
            person = _person(instance)
            if not (person.keypoints[:, 2] > 0).any():
                notes.lose("instances without a point", name)
                continue
            image.people.append(person)
        images.append(image)
    notes.raise_faults()
    used = {person.category for image in images for person in image.people}
    categories = [item for item in categories if item.name in used] or categories
    return PoseProject(categories, images, INDEX, notes)


def _categories(skeletons: Any, path: Path) -> list[PoseCategory]:
    found: dict[str, PoseCategory] = {}
    for skeleton in skeletons:
        pairs = _pairs(skeleton)
        limbs = tuple((int(a), int(b)) for a, b in skeleton.edge_inds)
        category = PoseCategory(
            _name(skeleton), tuple(skeleton.node_names), limbs, pairs or None, pairs_from="symmetries"
        )
        if found.setdefault(category.name, category) != category:
            problem = f"it has two skeletons {category.name!r} with different nodes, edges or symmetries"
            raise Fault(str(path), "skeletons", problem, "rename one of them in SLEAP").error()
    return list(found.values())


def _name(skeleton: Any) -> str:
    return skeleton.name or "object"


def _pairs(skeleton: Any) -> tuple[tuple[str, str], ...]:
    """The symmetries, which have no order, in the order of the nodes with the left one first if its name says so."""
    names = list(skeleton.node_names)
    pairs = [tuple(sorted(pair, key=names.index)) for pair in skeleton.symmetry_names]
    named = set(infer_flip_pairs(names))
    ordered = [(b, a) if (b, a) in named else (a, b) for a, b in pairs]
    return tuple(sorted(dict.fromkeys(ordered), key=lambda pair: min(map(names.index, pair))))


def _person(instance: Any) -> PosePerson:
    points = instance.points
    xy = np.asarray(points["xy"], dtype=float)
    labelled = np.isfinite(xy).all(axis=1)
    visibility = np.where(labelled, np.where(points["visible"], 2.0, 1.0), 0.0)
    keypoints = np.column_stack([np.where(labelled[:, None], xy, 0.0), visibility])
    track = None if instance.track is None else instance.track.name
    return PosePerson(_name(instance.skeleton), keypoints, track=track)


def _video_name(video: Any) -> str:
    name = video.filename[0] if isinstance(video.filename, list) else video.filename
    return PurePosixPath(str(name).replace("\\", "/")).name


def _frame_reader(path: Path, options: ReadOptions, notes: Notes) -> Callable[[Any, int], PoseImage]:
    """A function that returns the image of a frame of a video."""
    finder = ImageFinder([*options.image_dirs, path.parent])
    missing: set[str] = set()
    numbers: dict[int, int] = {}

    def read_frame(video: Any, index: int) -> PoseImage:
        if isinstance(video.filename, list):
            if index >= len(video.filename):
                problem = f"frame {index} of a video of {len(video.filename)} images"
                raise Fault(str(path), "frames", problem, "correct it in SLEAP").error()
            name = str(video.filename[index])
            return PoseImage(PurePosixPath(name.replace("\\", "/")).name, finder.locate(path, name, notes), source=path)
        name = str(video.filename)
        file = finder.find(name)
        if file is None and name.endswith(".slp"):
            file = path  # its frames are in the file of labels, which has another name by now
        if file is not None and str(file) != name:
            video.replace_filename(str(file), open=False)
        elif file is None and name not in missing:
            missing.add(name)
            finder.locate(path, name, notes)
        number = numbers.setdefault(id(video), len(numbers))
        folder = PurePosixPath(name.replace("\\", "/")).stem
        extracted = f"{path.stem}/{folder}_{number}/{index:06d}.png"
        return PoseImage(extracted, content=functools.partial(_frame, video, index), source=path)

    return read_frame


def _frame(video: Any, index: int) -> Image.Image:
    video.open_backend = True
    pixels = np.asarray(video[index])
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _merge(projects: list[PoseProject], paths: list[Path]) -> PoseProject:
    """One project of several files, whose skeletons of the same name must be equal."""
    first, *others = projects
    for path, project in zip(paths[1:], others):
        for category in project.categories:
            known = next((item for item in first.categories if item.name == category.name), None)
            if known is None:
                first.categories.append(category)
            elif known != category:
                problem = f"its skeleton {category.name!r} differs from that of {paths[0]}"
                raise Fault(str(path), "skeletons", problem, "convert the files one by one").error()
        first.images += project.images
        first.notes.merge(project.notes)
    return first
