"""Images in tar archives, read in sequence: local files, and whatever webdataset opens (http, pipe:...).

webdataset is the optional extra ``archives``. An archive is read once from beginning to end, as its storage needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dynpose.config import ConfigError

from .any_image import EncodedImage
from .image_files import image_endings
from .schema import DatasetError

__all__ = ["archive_name", "find_archives", "images_of_archive", "is_archive"]

ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz")
# tar ends with two blocks of zeros
_END_OF_TAR = bytes(1024)


def is_archive(item: str) -> bool:
    """Whether an input is a tar archive, or a pattern of several, by its ending."""
    return item.lower().endswith(ARCHIVE_ENDINGS)


def find_archives(inputs: Sequence[str]) -> list[str]:
    """Expand the braces and globs of archive names.

    Args:
        inputs (Sequence[str]): file names, globs, and URLs of webdataset, such as
            ``pipe:aws s3 cp s3://bucket/images-{00000..00099}.tar -``, with braces.

    Returns:
        list[str]: absolute paths and URLs, each once, in the order of the inputs.

    Raises:
        ConfigError: webdataset is not installed, or two archives have the same name.
        FileNotFoundError: a file does not exist.
    """
    _webdataset()
    import glob

    import braceexpand

    archives = []
    for item in inputs:
        for name in braceexpand.braceexpand(item):
            if _is_url(name):
                archives.append(name)
                continue
            found = sorted(glob.glob(name)) if glob.has_magic(name) and not os.path.exists(name) else [name]
            if not found or not os.path.isfile(found[0]):
                raise FileNotFoundError(f"{name}: no such archive")
            archives += [os.path.abspath(path) for path in found]
    archives = list(dict.fromkeys(archives))
    named: dict[str, str] = {}
    for archive in archives:
        other = named.setdefault(archive_name(archive), archive)
        if other != archive:
            raise ConfigError(
                f"--input: {other} and {archive} have the same name, and so would their images: rename one of them"
            )
    return archives


def images_of_archive(archive: str) -> Iterator[EncodedImage]:
    """Read the images of an archive in sequence.

    Args:
        archive (str): from :func:`find_archives`.

    Yields:
        EncodedImage: of each file with the ending of an image; others, such as labels, are ignored. Its name is that of
        the archive without ending, and the path in the archive.

    Raises:
        DatasetError: the archive is damaged or incomplete; raised after the images before the fault.
    """
    from webdataset.tariterators import tar_file_expander

    stem, endings = archive_name(archive), image_endings()
    try:
        with _opened(archive) as stream:
            sources = iter([{"url": archive, "stream": stream}])
            for member in tar_file_expander(sources, select_files=_ends_with(endings), eof_value=None):
                # a path in an archive may lead out of it
                path = os.path.normpath("/" + member["fname"]).lstrip("/")
                yield EncodedImage(f"{stem}/{path}", member["data"])
    except Exception as error:  # tarfile, zlib, sockets and commands raise errors of many kinds
        # webdataset adds the stream and the address to the arguments and, after an @, to the text
        reason = str(error.args[0] if error.args else error).partition(" @ ")[0]
        raise DatasetError(f"{archive}: the archive can't be read to its end ({reason}): copy it again") from error
    if not _ends_completely(archive):
        raise DatasetError(
            f"{archive}: the archive ends without the blocks that mark the end of a tar file: it may be incomplete; "
            "copy it again"
        )


def archive_name(archive: str) -> str:
    """Name of an archive, without folder and ending, of which the names of its images begin."""
    # pipe:cat a.tar | ...; s3://bucket/a.tar
    words = [word for word in archive.replace("?", " ").split() if word.lower().endswith(ARCHIVE_ENDINGS)]
    name = os.path.basename(words[0] if words else archive)
    ending = next((ending for ending in (".tar.gz", ".tgz", ".tar") if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _opened(archive):
    if not _is_url(archive):
        return open(archive, "rb")
    from webdataset.gopen import gopen

    return gopen(archive)


def _is_url(name):
    return "://" in name or name.startswith("pipe:")


def _ends_with(endings):
    return lambda name: name.lower().endswith(endings)


def _ends_completely(archive):
    """Whether a local, uncompressed archive has its end: tarfile takes a cut between two files for the end."""
    if _is_url(archive) or not archive.lower().endswith(".tar"):
        return True
    with Path(archive).open("rb") as file:
        file.seek(-min(len(_END_OF_TAR), os.path.getsize(archive)), os.SEEK_END)
        return file.read() == _END_OF_TAR


def _webdataset():
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ConfigError("tar archives need webdataset: pip install 'dynpose[archives]'") from None
