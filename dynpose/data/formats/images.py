"""Finding the images that an annotation project names, and extracting those that are inside other files."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from dynpose.utils.atomic import atomic_open

from ..faults import Fault
from ..image_check import displayed_sizes
from ..image_reading import size_fault
from .project import Notes, PoseImage

__all__ = ["ImageFinder", "check_sizes", "common_folder", "extract_images", "image_root", "read_sizes"]


class ImageFinder:
    """Finds image files by the names in a project.

    A name is searched for in each folder with its subfolders, then with fewer and fewer of them: projects name images
    by paths of the machine that they were made on.

    Args:
        folders: searched in this order.

    Example::

        >>> ImageFinder([Path("street")]).find("/data/upload/7/a.png")
        PosixPath('street/a.png')
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders))

    def find(self, name: str) -> Path | None:
        """The file of an image, absolute; None if there is none.

        Args:
            name: a path in the style of any operating system, absolute or relative.
        """
        name = name.replace("\\", "/")
        if os.path.isabs(name) and os.path.isfile(name):
            return Path(os.path.abspath(name))
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
        for start in range(len(parts)):
            for folder in self.folders:
                path = os.path.abspath(folder.joinpath(*parts[start:]))
                if os.path.isfile(path):
                    return Path(path)
        return None

    def locate(self, source: str | Path, name: str, notes: Notes) -> Path | None:
        """:meth:`find`, with a fault if there is no file.

        Args:
            source: the annotation file, for the message.
            name: see :meth:`find`.
            notes: receives the fault.
        """
        path = self.find(name)
        if path is None:
            where = ", ".join(map(str, self.folders))
            notes.fault(source, "missing images", f"image {name!r} is not in {where}", "give its folder by --image-dir")
        elif not _is_absolute(name) and not path.as_posix().endswith(name.replace("\\", "/").removeprefix("./")):
            notes.change("images found by the end of their name alone", f"{name} at {path}")
        return path


def _is_absolute(name: str) -> bool:
    return PureWindowsPath(name).is_absolute() or PurePosixPath(name).is_absolute()


def read_sizes(images: Sequence[PoseImage], notes: Notes) -> None:
    """Read the displayed sizes of image files, with a fault for each that can't be read.

    Args:
        images: their ``size`` is set, where it is None and they have a file.
        notes: receives the faults.
    """
    unread = [image for image in images if image.size is None and image.path is not None]
    for image, (size, problem) in zip(unread, displayed_sizes([str(image.path) for image in unread]), strict=True):
        image.size = size
        if problem is not None:
            notes.fault(str(image.path), "images", problem, "copy it again, or take it out of the project")


def check_sizes(images: Iterable[PoseImage], notes: Notes) -> None:
    """Compare sizes of files with those that the project states, with a fault for each difference."""
    for image in images:
        if image.size is None or image.stated_size is None:
            continue
        width, height = image.stated_size
        problem = size_fault(image.size, {"width": width, "height": height})
        if problem is not None:
            what, _, remedy = problem.partition("; ")
            notes.fault(str(image.path or image.name), "image sizes", what, remedy)


def extract_images(images: Sequence[PoseImage], folder: Path, *, copy: bool = False) -> int:
    """Write images that are inside other files as PNG files and, with ``copy``, copy all others beside them.

    Args:
        images: their ``path`` is set to the new file.
        folder: the folder to write to; made if an image is written.
        copy: copy image files unchanged.

    Returns:
        int: number of written files.

    Raises:
        DatasetError: an image can't be extracted.
    """
    taken: set[str] = set()
    root = common_folder([image.path for image in images if image.path is not None]) if copy else None
    written = 0
    for image in images:
        if image.path is not None and root is not None:
            target = _unused(image.path.relative_to(root), taken)
            _write(folder / target, image.path.read_bytes())
        elif image.content is not None:
            target = _unused(Path(*_safe_parts(image.name)).with_suffix(".png"), taken)
            _extract(image, folder / target)
        else:
            continue
        image.path = Path(os.path.abspath(folder / target))
        written += 1
    return written


def common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all files.

    Raises:
        DatasetError: the files are on several drives.
    """
    if not paths:
        return Path.cwd()
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:
        raise Fault(
            "", "images", f"{paths[0]} and other images have no folder in common", "give --copy-images"
        ).error() from None


def image_root(images: Sequence[PoseImage], folder: Path) -> Path:
    """The folder that file names start from: ``folder`` if it holds all images, else the deepest that does.

    If an image is a link that leads out of this folder, which dynpose's reader refuses, the paths of all images are
    replaced by those that they lead to.

    Raises:
        DatasetError: see :func:`common_folder`.
    """
    folder = Path(os.path.abspath(folder))
    root = _holding([image.path for image in images if image.path is not None], folder)
    real = {image.path: Path(os.path.realpath(image.path)) for image in images if image.path is not None}
    if all(path.is_relative_to(os.path.realpath(root)) for path in real.values()):
        return root
    for image in images:
        if image.path is not None:
            image.path = real[image.path]
    return _holding(list(real.values()), folder)


def _holding(paths: Sequence[Path], folder: Path) -> Path:
    return folder if all(path.is_relative_to(folder) for path in paths) else common_folder(paths)


def _safe_parts(name: str) -> list[str]:
    """The folders and the name of a file to extract to, without those that lead out of the folder."""
    parts = PurePosixPath(name.replace("\\", "/").replace(":", "_")).parts
    return [part for part in parts if part not in ("/", "..", ".")] or ["image"]


def _unused(path: Path, taken: set[str]) -> Path:
    """The path, with a number if it is taken: a file system may ignore case."""
    candidate, number = path, 1
    while str(candidate).casefold() in taken:
        candidate, number = path.with_stem(f"{path.stem}_{number}"), number + 1
    taken.add(str(candidate).casefold())
    return candidate


def _extract(image: PoseImage, target: Path) -> None:
    assert image.content is not None
    try:
        content = image.content()
    except Exception as error:  # decoders of images and videos raise any exception
        problem = f"the image can't be extracted ({type(error).__name__}: {error})"
        raise Fault(image.name, "images", problem, "copy the file that holds it again").error() from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(target, "wb") as file:
        content.save(file, format="PNG")
    image.size = content.size


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(target, "wb") as file:
        file.write(content)
