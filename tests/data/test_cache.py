"""Cached arrays are returned unchanged, and no fault of the cache is an error."""

import hashlib
import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from dynpose.data import cache
from dynpose.data.cache import cache_folder, load_arrays, store_arrays


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DYNPOSE_CACHE", str(folder))
    return folder


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DYNPOSE_CACHE": "/a/b", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/a/b"),
        ({"DYNPOSE_CACHE": "~/b", "HOME": "/h"}, "/h/b"),
        ({"DYNPOSE_CACHE": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, None),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/dynpose"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/dynpose"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/dynpose"),
        ({"HOME": "/h"}, "/h/.cache/dynpose"),
    ],
)
def test_folder(environment, expected, monkeypatch):
    for name in ("DYNPOSE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("DYNPOSE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache_folder() is None
    assert store_arrays("sizes", "a", {"x": np.zeros(1)}) is False
    assert load_arrays("sizes", "a") is None


def test_arrays_come_back_as_they_were(folder):
    arrays = {
        "file": np.arange(6, dtype=np.int64).reshape(2, 3),
        "key": np.array(["ä", "name"]),
        "a/b": np.array([1.5, np.nan], np.float32),
        "empty": np.zeros((0, 4), bool),
        "scalar": np.int32(7),
    }
    key = "images/\udcff.jpg\n" * 100_000
    assert load_arrays("sizes", key) is None
    assert store_arrays("sizes", key, arrays) is True
    found = load_arrays("sizes", key)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(found[name], array)
    assert load_arrays("sizes", key[:-1]) is load_arrays("other", key) is None
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    assert [file.name for file in folder.iterdir()] == [f"sizes-{digest}.npz"]
    store_arrays("sizes", key, {"x": np.ones(2)})
    assert list(load_arrays("sizes", key)) == ["x"]


def test_an_empty_variable_turns_it_off(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNPOSE_CACHE", "")
    monkeypatch.chdir(tmp_path)
    assert store_arrays("sizes", "a", {"x": np.zeros(1)}) is False
    assert load_arrays("sizes", "a") is None
    assert not list(tmp_path.iterdir())


def _damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one byte":
        at = content.rindex(bytes(range(64)))
        path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    elif how == "text":
        path.write_text("no archive")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif how == "no key":
        np.savez(path, _x=np.zeros(3))
    elif how == "pickle":
        np.savez(path, key=np.frombuffer(b"a", np.uint8), _x=np.array([{}], object))
    elif how == "another key":
        np.savez(path, key=np.frombuffer(b"b", np.uint8), _x=np.zeros(3))
    else:
        path.unlink()
        path.mkdir() if how == "folder" else os.mkfifo(path)


@pytest.mark.parametrize(
    ("how", "is_logged"),
    [
        *((how, True) for how in ("truncated", "one byte", "text", "empty", "one array", "no key")),
        *((how, True) for how in ("pickle", "another key")),
        *((how, False) for how in ("folder", "pipe")),
    ],
)
def test_damaged_and_foreign_entries_are_passed_over(folder, caplog, how, is_logged):
    store_arrays("sizes", "a", {"x": np.arange(64, dtype=np.uint8)})
    (path,) = folder.iterdir()
    _damage(path, how)
    with caplog.at_level(logging.INFO, logger="dynpose"):
        assert load_arrays("sizes", "a") is None
    assert (f"Ignoring the cache entry {path}" in caplog.text) is is_logged
    if how != "folder":  # rewritten
        assert store_arrays("sizes", "a", {"x": np.ones(2)}) is True
        np.testing.assert_array_equal(load_arrays("sizes", "a")["x"], 1)


def test_a_folder_that_can_not_be_written_is_logged(folder, caplog, monkeypatch):
    folder.write_text("a file")
    with caplog.at_level(logging.INFO, logger="dynpose"):
        assert store_arrays("sizes", "a", {"x": np.zeros(1)}) is False
    assert "Can't cache sizes in " in caplog.text
    assert load_arrays("sizes", "a") is None


def test_a_full_disk_leaves_the_earlier_entry_and_no_rest(folder, monkeypatch):
    store_arrays("sizes", "a", {"x": np.zeros(1)})

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    assert store_arrays("sizes", "a", {"x": np.ones(1)}) is False
    np.testing.assert_array_equal(load_arrays("sizes", "a")["x"], 0)
    assert len(list(folder.iterdir())) == 1


def test_objects_and_odd_kinds_are_refused():
    with pytest.raises(TypeError, match="'x' holds Python objects"):
        store_arrays("sizes", "a", {"x": np.array([{}], object)})
    with pytest.raises(ValueError, match="lower-case"):
        load_arrays("../sizes", "a")


def test_the_entries_not_used_for_longest_are_removed(folder, monkeypatch):
    for i, key in enumerate("abcd"):
        store_arrays("sizes", key, {"x": np.zeros(1000, np.uint8)})
        path = cache._path("sizes", key)
        os.utime(path, (1000 + i, 1000 + i))
    size = os.path.getsize(path)
    (folder / "mine.npz").write_bytes(b"0" * 9000)
    old, new = (folder / f"{os.path.basename(path)}.{name}.tmp" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (1000, 1000))
    assert load_arrays("sizes", "a")  # used now, so that b is the oldest
    monkeypatch.setattr(cache, "_MAX_BYTES", 3 * size + 10)
    assert store_arrays("sizes", "e", {"x": np.zeros(1000, np.uint8)})
    assert [key for key in "abcde" if load_arrays("sizes", key)] == ["a", "d", "e"]
    assert (folder / "mine.npz").exists()
    assert new.exists()
    assert not old.exists()
    assert store_arrays("sizes", "f", {"x": np.zeros(3 * size + 11, np.uint8)}) is False
    assert load_arrays("sizes", "f") is None
    assert load_arrays("sizes", "e")


# The file alone: its package imports torch
_WRITER = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
import numpy as np
spec = spec_from_file_location("cache", sys.argv[2])
cache = module_from_spec(spec)
spec.loader.exec_module(cache)
for i in range(60):
    assert cache.store_arrays("sizes", "a", {"x": np.full(50_000, int(sys.argv[1]))})
    x = cache.load_arrays("sizes", "a")["x"]
    assert len(x) == 50_000 and (x == x[0]).all()
"""


def test_two_processes_at_once(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(i), cache.__file__], stderr=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    deadline = time.time() + 300
    assert [(writer.communicate(timeout=deadline - time.time())[1], writer.returncode) for writer in writers] == [
        ("", 0)
    ] * 3
    assert len(list(folder.iterdir())) == 1
