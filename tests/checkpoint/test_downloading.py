"""Files of published weights: downloaded once, from a local server with the faults of real ones, or found."""

import errno
import hashlib
import multiprocessing
import os
import random
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import gdown
import pytest
import requests
from huggingface_hub import constants
from weights_server import serving

from dynpose.checkpoint import CheckpointError, downloading
from dynpose.checkpoint.downloading import fetch_weights, find_downloaded
from dynpose.methods import PublishedWeights

CONTENT = bytes(range(256)) * 8000


def accept(path):
    """A check that every file passes."""


@pytest.fixture
def server():
    with serving() as server:
        server.files["/w.pth"] = CONTENT
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of dynpose's weights in an empty cache."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(downloading, "_RETRIES", 0)
    for variable in (downloading.OFFLINE_VARIABLE, downloading.MIRROR_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "dynpose"


@pytest.fixture
def weights(server, cache):
    return PublishedWeights(name="toy", title="Toy, COCO", file="toy.pth", link=f"{server.url}/w.pth")


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_it_is_downloaded_once(weights, server, cache, capsys):
    assert find_downloaded(weights) is None
    path = fetch_weights(weights, accept)
    assert re.search(r"toy: 100%.* 2\.05M/2\.05M", capsys.readouterr().err)
    assert path == str(cache / "toy.pth") == find_downloaded(weights)
    assert (cache / "toy.pth").read_bytes() == CONTENT
    assert files(cache) == ["toy.pth"]
    server.files.clear()
    assert fetch_weights(weights, pytest.fail) == path
    assert server.requests == [("/w.pth", None)]


def test_offline(weights, server, cache, monkeypatch):
    monkeypatch.setenv("DYNPOSE_OFFLINE", "1")
    message = (
        f"toy: Toy, COCO: can't be downloaded (DYNPOSE_OFFLINE is set, and the file is not on this machine). Unset "
        f"DYNPOSE_OFFLINE, or get the file from {server.url}/w.pth on another machine and put it as {cache}/toy.pth, "
        "or as toy.pth in a folder that the environment variable DYNPOSE_WEIGHTS_MIRROR names"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        fetch_weights(weights, accept)
    monkeypatch.setenv("DYNPOSE_WEIGHTS_MIRROR", "/gone")
    with pytest.raises(CheckpointError, match=r"not on this machine \(not in /gone, the folder of DYNPOSE_WEIGHTS_MI"):
        fetch_weights(weights, accept)
    cache.mkdir(parents=True)
    (cache / "toy.pth").write_bytes(b"put here")
    assert fetch_weights(weights, pytest.fail) == str(cache / "toy.pth")
    assert server.requests == []


class TestInterrupted:
    @pytest.fixture(autouse=True)
    def _half(self, weights, server, cache):
        server.cut = 1_000_000
        with pytest.raises(CheckpointError, match="Download is incomplete: received 524288 bytes but the server annou"):
            fetch_weights(weights, accept)
        assert find_downloaded(weights) is None
        server.cut = None

    def test_it_continues(self, weights, server, cache):
        assert Path(fetch_weights(weights, accept)).read_bytes() == CONTENT
        assert server.requests[-1] == ("/w.pth", "bytes=524288-")
        assert files(cache) == ["toy.pth"]

    def test_a_server_without_ranges_starts_again(self, weights, server, cache):
        server.ranges = False
        assert Path(fetch_weights(weights, accept)).read_bytes() == CONTENT
        assert files(cache) == ["toy.pth"]

    def test_another_file_of_the_server_is_not_appended(self, weights, server, cache):
        server.files["/w.pth"] = other = CONTENT[::-1]
        digest = hashlib.sha256(other).hexdigest()
        assert Path(fetch_weights(replace(weights, sha256=digest[:8]), accept)).read_bytes() == other
        assert files(cache) == ["toy.pth"]


def test_a_lost_connection_is_tried_again(weights, server, cache, monkeypatch):
    monkeypatch.setattr(downloading, "_RETRIES", 1)
    monkeypatch.setattr(random, "uniform", lambda low, high: 0)
    server.cut = 1_500_000
    assert Path(fetch_weights(weights, accept)).read_bytes() == CONTENT
    assert [part for _, part in server.requests] == [None, "bytes=1048576-"]


def test_the_wrong_hash(weights, server, cache):
    with pytest.raises(
        CheckpointError, match=r"another file than the published one, with the SHA-256 [0-9a-f]{64} instead of 0123"
    ):
        fetch_weights(replace(weights, sha256="0123abcd"), accept)
    assert files(cache) == []


def test_a_web_page_is_no_checkpoint(weights, server, cache):
    server.files["/w.pth"] = b"<!DOCTYPE html><html><head><title>Quota\nexceeded</title></head></html>"
    message = (
        rf"toy: .*{server.url}/w\.pth: it sent a web page \(Quota exceeded\) instead .* put it as {cache}/toy\.pth"
    )
    with pytest.raises(CheckpointError, match=message):
        fetch_weights(weights, accept)
    assert files(cache) == []


def test_other_content(weights, cache):
    def check(path):
        assert path.endswith("toy.pth")
        raise CheckpointError("its parameters have other names")

    with pytest.raises(
        CheckpointError, match=r"w\.pth: it sent another file than the published one: its parameters ha"
    ):
        fetch_weights(weights, check)
    assert files(cache) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [("/none.pth", "HTTP status 404 Not Found"), ("http://127.0.0.1:9/w.pth", "Connection refused")],
)
def test_a_server_that_does_not_have_it(weights, server, cache, link, reason):
    weights = replace(weights, link=link if "://" in link else server.url + link)
    message = (
        rf"toy: .*: can't be downloaded \({weights.link}: {reason}\)\. Check .* {weights.link} .* put it as {cache}/"
    )
    with pytest.raises(CheckpointError, match=message):
        fetch_weights(weights, accept)


def test_a_mirror_folder_is_used_in_place(weights, server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPOSE_WEIGHTS_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "toy.pth").write_bytes(b"a copy")
    assert fetch_weights(weights, pytest.fail) == str(tmp_path / "mirror" / "toy.pth")
    assert server.requests == []
    # what the mirror lacks is downloaded
    assert fetch_weights(replace(weights, file="other.pth"), accept) == str(cache / "other.pth")


def test_a_mirror_server_comes_first(weights, server, cache, monkeypatch):
    monkeypatch.setenv("DYNPOSE_WEIGHTS_MIRROR", f"{server.url}/mirror/")
    by_hand = replace(weights, name="hand", file="hand.pth", by_hand="hand.pth", link="https://example.org/")
    server.files["/mirror/hand.pth"] = CONTENT
    assert Path(fetch_weights(by_hand, accept)).read_bytes() == CONTENT
    fetch_weights(weights, accept)
    assert [path for path, _ in server.requests] == ["/mirror/hand.pth", "/mirror/toy.pth", "/w.pth"]


def test_a_wrong_file_of_a_mirror_is_skipped(weights, server, cache, monkeypatch):
    monkeypatch.setenv("DYNPOSE_WEIGHTS_MIRROR", server.url)
    server.files["/toy.pth"] = b"<html><title>Log in</title>"
    assert Path(fetch_weights(weights, accept)).read_bytes() == CONTENT
    assert files(cache) == ["toy.pth"]


def test_by_hand(weights, server, cache):
    weights = replace(weights, by_hand="the file coco.pth of that folder")
    message = (
        f"toy: Toy, COCO: can't be downloaded by a program. Open {weights.link}, download the file coco.pth of that "
        f"folder, and put it as {cache}/toy.pth, or as toy.pth in a folder"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        fetch_weights(weights, accept)
    assert server.requests == []


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_several_processes_download_once(weights, server, cache):
    processes = [
        multiprocessing.get_context("fork").Process(target=fetch_weights, args=(weights, accept)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.requests) == 1
    assert files(cache) == ["toy.pth"]


def test_a_cache_that_can_not_be_written(weights, cache, tmp_path, monkeypatch):
    """iopath then has its cache in the folder of temporary files."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "file" / "cache"))
    path = fetch_weights(weights, accept)
    assert path == str(tmp_path / "iopath_cache" / "dynpose" / "toy.pth") == find_downloaded(weights)


def test_a_file_in_a_read_only_cache_is_used(weights, cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / "toy.pth").touch()
    # as for a user without the right, which tests may run with
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert fetch_weights(weights, pytest.fail) == str(cache / "toy.pth")


def test_a_full_disk(weights, cache, monkeypatch):
    def download(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(
        CheckpointError, match=r"toy\.pth: can't be written \(No space left on device\)\. Make room there"
    ):
        fetch_weights(weights, accept)


class TestGoogleDrive:
    """gdown itself, with the address of Google Drive replaced by the local server's."""

    @pytest.fixture
    def weights(self, server, cache, monkeypatch):
        send = requests.Session.get

        def get(session, url, **options):
            local = re.sub(r"https://drive(\.usercontent)?\.google\.com", server.url, url)
            return send(session, local, **options)

        monkeypatch.setattr(requests.Session, "get", get)
        link = "https://drive.google.com/file/d/abc123/view"
        return PublishedWeights(name="toy", title="Toy", file="toy.pth", link=link, drive_id="abc123")

    def test_the_warning_of_large_files_is_confirmed(self, weights, server, cache):
        form = '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
        fields = '<input type="hidden" name="id" value="abc123"><input type="hidden" name="confirm" value="t"></form>'
        server.files |= {"/uc": f"<html>{form}{fields}</html>".encode(), "/download": CONTENT}
        server.headers["/uc"] = {"Content-Type": "text/html; charset=utf-8"}
        server.headers["/download"] = {"Content-Disposition": 'attachment; filename="model_final.pth"'}
        assert fetch_weights(weights, accept) == str(cache / "toy.pth")
        assert (cache / "toy.pth").read_bytes() == CONTENT
        assert [path for path, _ in server.requests] == ["/uc?id=abc123", "/download?id=abc123&confirm=t"]

    def test_the_page_of_an_exceeded_quota_is_quoted(self, weights, server, cache):
        page = '<html><p class="uc-error-subcaption">Too many users have viewed this file recently.</p></html>'
        server.files["/uc"] = page.encode()
        server.headers["/uc"] = {"Content-Type": "text/html; charset=utf-8"}
        message = rf"can't be downloaded \({weights.link}: .*Too many users have viewed .* put it as {cache}/toy\.pth"
        with pytest.raises(CheckpointError, match=message):
            fetch_weights(weights, accept)
        assert files(cache) == []


class TestHub:
    """The Hugging Face Hub's library itself, with a local server as the Hub."""

    @pytest.fixture
    def weights(self, server, cache, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        path = "/timm/net.in1k/resolve/main/model.safetensors"
        server.files[path] = CONTENT
        server.headers[path] = {"X-Repo-Commit": "0" * 40}
        link = "https://huggingface.co/timm/net.in1k"
        return PublishedWeights(
            name="net.in1k", title="N", file="net.in1k.safetensors", link=link, hub_id="timm/net.in1k"
        )

    def test_it_is_downloaded_once(self, weights, server, cache, tmp_path):
        path = fetch_weights(weights, accept)
        assert path.startswith(str(tmp_path / "hub"))
        assert path.endswith("model.safetensors")
        assert Path(path).read_bytes() == CONTENT
        server.files.clear()
        assert fetch_weights(weights, accept) == path == find_downloaded(weights)

    def test_without_a_network(self, weights, server, cache):
        server.files.clear()
        message = (
            r"net\.in1k: N: can't be downloaded \(https://hug.*\)\. Check the network, or get model\.safetensors from "
        )
        with pytest.raises(
            CheckpointError, match=message + rf"{weights.link} .* put it as {cache}/net.in1k.safetensors"
        ):
            fetch_weights(weights, accept)
        cache.mkdir(parents=True)
        (cache / "net.in1k.safetensors").touch()
        assert fetch_weights(weights, accept) == str(cache / "net.in1k.safetensors")
