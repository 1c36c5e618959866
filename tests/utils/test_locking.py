"""Lock files against other processes, which are killed, forked from or refused by the file system."""

import errno
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import portalocker
import pytest

from dynpose.utils.locking import LockedError, locked, share, stop_sharing


@pytest.fixture
def hold():
    """Start another process that holds a lock until it is killed: its number."""
    started = []

    def start(path, with_child=False):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with locked(path):
                if with_child and os.fork() == 0:
                    time.sleep(10)
                    os._exit(0)
                os.write(writer, b"held")
                time.sleep(60)
            os._exit(0)
        started.append(pid)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            assert file.read(4) == b"held"
        return pid

    yield start
    for pid in started:
        kill(pid)


def kill(pid):
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_other_process_is_named_and_its_end_releases(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "OUTPUT_DIR", "my run"])
    path = str(tmp_path / "run.lock")
    holder = hold(path)
    owner = rf"process {holder} on .+, started \d{{4}}-\d\d-\d\d [\d:]+: train_net.py OUTPUT_DIR 'my run'"
    with pytest.raises(LockedError, match=owner), locked(path):
        pytest.fail("two hold it")
    kill(holder)
    assert os.path.exists(path)
    with locked(path):
        assert f"process {os.getpid()} on " in Path(path).read_text()
    assert not os.path.exists(path)


def test_a_forked_child_does_not_keep_it(tmp_path, hold):
    """Data workers outlive a killed run by seconds."""
    path = str(tmp_path / "run.lock")
    holder = hold(path, with_child=True)
    kill(holder)
    with locked(path):
        pass


def test_waiting_for_the_other(tmp_path, hold, caplog):
    path = str(tmp_path / "run.lock")
    holder = hold(path)
    os.kill(holder, signal.SIGSTOP)  # it is alive, and holds it still
    caplog.set_level(logging.INFO)
    child = os.fork()
    if child == 0:
        time.sleep(0.5)
        os.kill(holder, signal.SIGKILL)
        os._exit(0)
    start = time.monotonic()
    with locked(path, waits=True):
        assert time.monotonic() - start > 0.4
    os.waitpid(child, 0)
    assert [f"waiting for process {holder}" in line for line in caplog.messages] == [True]


def test_within_one_process(tmp_path):
    path = str(tmp_path / "run.lock")
    with locked(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} "), locked(path):
            pass
        # the failed one has not freed it
        with pytest.raises(LockedError), locked(path):
            pass
    with locked(path):
        pass


def test_a_file_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """The holder has removed it between this process's opening and locking it."""
    path, lock = str(tmp_path / "run.lock"), portalocker.lock
    removed = []

    def late(file, flags):
        if not removed:
            os.remove(path)
            removed.append(file)
        lock(file, flags)

    monkeypatch.setattr(portalocker, "lock", late)
    with locked(path):
        assert os.path.exists(path)
        monkeypatch.undo()
        with pytest.raises(LockedError), locked(path):
            pass


def test_the_file_of_another_is_not_removed(tmp_path, hold):
    """The first one's file was removed, so that a second could start: the end of the first leaves the second one's."""
    path = str(tmp_path / "run.lock")
    with locked(path):
        os.remove(path)
        hold(path)
    with pytest.raises(LockedError), locked(path):
        pass


def test_shared_locks(tmp_path):
    path, (reader, writer) = str(tmp_path / "users"), os.pipe()
    assert not stop_sharing(path)
    share(path)
    share(path)
    pid = os.fork()
    if pid == 0:
        share(path)
        os.write(writer, b"1" if stop_sharing(path) else b"0")
        share(path)
        os.write(writer, b"!")
        time.sleep(60)
    try:
        # the child saw this process's share, and this process sees the child's
        assert os.read(reader, 1) == b"1"
        assert os.read(reader, 1) == b"!"
        assert stop_sharing(path)
    finally:
        kill(pid)
    assert not stop_sharing(path)
    # without a folder, no process can
    share(str(tmp_path / "missing" / "users"))
    assert not stop_sharing(str(tmp_path / "missing" / "users"))


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file, flags):
        raise portalocker.LockException(OSError(errno.ENOLCK, "No locks available"))

    monkeypatch.setattr(portalocker, "lock", refuse)
    with locked(str(tmp_path / "run.lock")):
        pass
    assert ["has no locks" in line and "No locks available" in line for line in caplog.messages] == [True]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError), locked(str(tmp_path / "no" / "run.lock")):
        pass
