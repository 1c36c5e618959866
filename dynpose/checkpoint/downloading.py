"""Files of published weights: in the cache, in a mirror, or downloaded once and checked.

The cache is iopath's, which detectron2 uses too: the folder of the environment variable FVCORE_CACHE, or
``~/.torch/iopath_cache``. timm's weights on the Hugging Face Hub are in the Hub's cache, where timm itself looks.
"""

import errno
import hashlib
import html
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from iopath.common.file_io import get_cache_dir

from dynpose.methods import PublishedWeights
from dynpose.utils.locking import locked

from .errors import CheckpointError

__all__ = ["MIRROR_VARIABLE", "OFFLINE_VARIABLE", "fetch_weights", "find_downloaded", "is_offline"]

logger = logging.getLogger(__name__)

OFFLINE_VARIABLE = "DYNPOSE_OFFLINE"
"""Environment variable: with "1" or "true" nothing is downloaded."""
MIRROR_VARIABLE = "DYNPOSE_WEIGHTS_MIRROR"
"""Environment variable: a folder or the URL of one with the files of published weights."""

_TIMEOUT_SECONDS = 60
_RETRIES = 2
_HUB_FILE = "model.safetensors"
# Error codes of the file system, not of the network
_FILE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)


def is_offline() -> bool:
    """Whether :data:`OFFLINE_VARIABLE` forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "0").lower() in ("1", "y", "yes", "true")


def find_downloaded(weights: PublishedWeights) -> str | None:
    """Find the file of published weights on this machine, without a download.

    Args:
        weights (PublishedWeights)

    Returns:
        str | None: its path in the cache, in a mirror folder or in the cache of the Hugging Face Hub; None = nowhere.
    """
    folders = [*_cache_folders(weights), *filter(None, [_mirror_folder()])]
    found = [path for folder in folders if os.path.isfile(path := os.path.join(folder, weights.file))]
    if found or not weights.hub_id:
        return found[0] if found else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(weights.hub_id, _HUB_FILE)
    return cached if isinstance(cached, str) else None


def fetch_weights(weights: PublishedWeights, check: Callable[[str], None]) -> str:
    """Return the file of published weights; download it if it is not on this machine.

    An interrupted download continues in the next call. Of several processes, one downloads and the others wait for it.

    Args:
        weights (PublishedWeights)
        check (Callable[[str], None]): raises CheckpointError for a downloaded file that holds other weights, which then
            does not enter the cache.

    Returns:
        str: path of the file.

    Raises:
        CheckpointError: the file can't be downloaded or stored, or is not the published one. The message has the link,
            and the path for a file that is fetched in another way.
    """
    if path := find_downloaded(weights):
        return path
    urls = _urls(weights)
    if is_offline() or not (urls or weights.hub_id):
        raise CheckpointError(_how_to_get(weights))
    reasons = []
    if urls:
        path, reasons = _download_once(weights, urls, check)
        if path:
            return path
    if weights.hub_id:
        try:
            return _download_from_hub(weights)
        except Exception as error:  # of the network, the Hub and the file system
            reasons.append(f"{weights.link}: {_reason(error)}")
            raise CheckpointError(_how_to_get(weights, reasons)) from error
    raise CheckpointError(_how_to_get(weights, reasons))


def _mirror():
    return os.environ.get(MIRROR_VARIABLE, "")


def _mirror_folder():
    return "" if "://" in _mirror() else os.path.expanduser(_mirror())


def _cache_folders(weights):
    """Folders that may hold the file. iopath ignores a cache that it can't write to, even if the file is in it."""
    configured = os.path.expanduser(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache"))
    fallback = os.path.join(tempfile.gettempdir(), "iopath_cache")
    return [_subfolder(weights, folder) for folder in (configured, fallback)]


def _subfolder(weights, cache):
    """dynpose's folder of the cache; a file with folders is where iopath puts it for its URL."""
    return cache if "/" in weights.file else os.path.join(cache, "dynpose")


def _urls(weights):
    """Addresses to download from, in order. That of Google Drive is for people; its download is separate."""
    mirror = _mirror()
    urls = [f"{mirror.rstrip('/')}/{quote(weights.file)}"] if "://" in mirror else []
    return urls if weights.by_hand or weights.hub_id else [*urls, weights.link]


def _how_to_get(weights, reasons=()):
    """The error message for a file that is not here: how to get it, and where to put it."""
    path = os.path.join(_cache_folders(weights)[0], weights.file)
    put = f"as {path}, or as {weights.file} in a folder that the environment variable {MIRROR_VARIABLE} names"
    if weights.by_hand and not reasons:
        return (
            f"{weights.name}: {weights.title}: can't be downloaded by a program. Open {weights.link}, download "
            f"{weights.by_hand}, and put it {put}"
        )
    offline = f"{OFFLINE_VARIABLE} is set, and the file is not on this machine"
    if folder := _mirror_folder():
        offline += f" (not in {folder}, the folder of {MIRROR_VARIABLE}, either)"
    reason = offline if is_offline() else "; ".join(reasons)
    remedy = f"Unset {OFFLINE_VARIABLE}" if is_offline() else "Check the network"
    fetch = weights.by_hand or (_HUB_FILE if weights.hub_id else "the file")
    return (
        f"{weights.name}: {weights.title}: can't be downloaded ({reason}). {remedy}, or get {fetch} from "
        f"{weights.link} on another machine and put it {put}"
    )


def _download_once(weights, urls, check):
    """Download from the first address that has the file, while other processes wait.

    Returns:
        tuple[str | None, list[str]]: the path, or None and what went wrong at each address.
    """
    path = os.path.join(_subfolder(weights, get_cache_dir()), weights.file)
    reasons: list[str] = []
    with _explain_file_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked(f"{path}.lock", waits=True):
            for url in urls if not os.path.isfile(path) else ():
                try:
                    _download(weights, url, path, check)
                except Exception as error:  # gdown's, and those of the libraries that it uses
                    if getattr(error, "errno", None) in _FILE_ERRORS:
                        raise
                    reasons.append(f"{url}: {_reason(error)}")
                    if url != urls[-1] or weights.hub_id:
                        logger.warning("%s: can't be downloaded from %s", weights.name, reasons[-1])
                else:
                    break
    return (path if os.path.isfile(path) else None), reasons


def _download(weights, url, path, check):
    """Download from one address and check the file, which then gets its name.

    A download that continues an earlier one may be a mixture of two files of the server; it starts again if the check
    fails.
    """
    # separate for each address, so that no download continues that of another
    folder, file = os.path.split(path)
    pending = os.path.join(folder, f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{file}")
    continues = bool(_parts(pending))
    try:
        _transfer(weights, url, pending)
        _verify(weights, pending, check)
    except CheckpointError as error:
        _discard(pending)
        if not continues:
            raise
        logger.warning("%s: %s: %s; it is downloaded again from the start", weights.name, url, error)
        _download(weights, url, path, check)
        return
    os.replace(pending, path)
    logger.info("%s: stored as %s", weights.name, path)


def _transfer(weights, url, pending):
    """Download with gdown, which continues a partial file, repeats after a lost connection and checks the size."""
    import gdown
    from tqdm import tqdm

    logger.info("%s: downloading %s", weights.name, url)
    source = {"id": weights.drive_id} if weights.drive_id and url == weights.link else {"url": url}
    # a line now and then in a log file
    seconds = 0.1 if sys.stderr.isatty() else 30
    with tqdm(desc=weights.name, unit="B", unit_scale=True, mininterval=seconds) as bar:

        def report(received, total):
            bar.total = total
            bar.update(received - bar.n)

        options = {**source, "output": pending, "quiet": True, "use_cookies": False, "progress": report, "resume": True}
        options.update(timeout=_TIMEOUT_SECONDS, retries=_RETRIES)
        try:
            gdown.download(**options)
        except gdown.DownloadError as error:
            if "byte range" not in str(error):
                raise
            # the server can't continue, or has another file now
            _discard(pending)
            bar.reset()
            gdown.download(**options)


def _parts(pending):
    """Partial files of gdown."""
    folder, file = os.path.split(pending)
    names = [name for name in os.listdir(folder) if re.fullmatch(rf"{re.escape(file)}.{{8}}\.part", name)]
    return [os.path.join(folder, name) for name in names]


def _discard(pending):
    for path in (pending, *_parts(pending)):
        with suppress(FileNotFoundError):
            os.remove(path)


def _verify(weights, path, check):
    """Refuse a download that is complete, but not the published file."""
    if title := _web_page(path):
        raise CheckpointError(f"it sent a web page ({title}) instead of the file")
    digest = _sha256(path) if weights.sha256 else ""
    if not digest.startswith(weights.sha256):
        raise CheckpointError(
            f"it sent another file than the published one, with the SHA-256 {digest} instead of {weights.sha256}..."
        )
    try:
        check(path)
    except CheckpointError as error:
        raise CheckpointError(f"it sent another file than the published one: {error}") from error


def _web_page(path):
    """The title of a web page; "" for any other file."""
    with open(path, "rb") as file:
        start = file.read(4096).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not re.match(r"<(!doctype html|html|head|body)\b", start, re.IGNORECASE):
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", start, re.IGNORECASE | re.DOTALL)
    return html.unescape(" ".join(title[1].split())) if title else "without a title"


def _sha256(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _download_from_hub(weights):
    """Download as timm does, into the Hub's cache; the Hub's library has its own locks, progress and checks."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # fails at once without a network, where hf_hub_download tries for half a minute
    get_hf_file_metadata(hf_hub_url(weights.hub_id, _HUB_FILE), timeout=_TIMEOUT_SECONDS)
    logger.info("%s: downloading %s from %s", weights.name, _HUB_FILE, weights.link)
    return hf_hub_download(weights.hub_id, _HUB_FILE, library_name="timm")


@contextmanager
def _explain_file_errors(path) -> Iterator[None]:
    """Turn an error of the file system into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path}: can't be written ({error.strerror or error}). Make room there, or set the environment variable "
            "FVCORE_CACHE to another folder for downloads"
        ) from error


def _reason(error):
    """One line for an error of the network."""
    response = getattr(error, "response", None)
    if response is not None and getattr(response, "status_code", None):
        return f"HTTP status {response.status_code} {getattr(response, 'reason', '') or ''}".strip()
    text = " ".join(str(error).split()) or type(error).__name__
    # gdown's advice about its command line
    text = text.partition(". The received bytes are kept in")[0].rstrip(".")
    # the operating system's words are at the end of a chain of library names
    inner = re.search(r"\[Errno -?\d+\] ([\w ,.'-]+?)(?=['\")]|$)", text)
    return inner[1] if inner else text[:300]
