"""Memory that glibc keeps: counted in page faults of a process that allocates and frees in turn."""

import platform
import subprocess
import sys

import pytest

from dynpose.utils import freed_memory

_ALLOCATE = """
import resource, sys
import numpy
from dynpose.utils import freed_memory
if sys.argv[1] == "keep, early glibc":
    freed_memory._M_MMAP_THRESHOLD = -99  # refused
    mallopt = freed_memory.ctypes.CDLL(None).mallopt
    early = lambda option, value: 0 if option == -99 else mallopt(option, value)
    freed_memory.ctypes.CDLL = lambda name: type("Library", (), {"mallopt": staticmethod(early)})
is_kept = freed_memory.keep_freed_memory() if sys.argv[1] != "default" else None
numpy.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    numpy.ones(2**24)
print(is_kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode):
    command = [sys.executable, "-c", _ALLOCATE, mode]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return output[0], int(output[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults(monkeypatch):
    # NumPy asks for huge pages, of which there may be few faults in both cases
    monkeypatch.setenv("NUMPY_MADVISE_HUGEPAGE", "0")
    for name in freed_memory._USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)

    _, by_default = _faults("default")
    assert by_default > 1000
    for mode in ("keep", "keep, early glibc"):
        is_kept, kept = _faults(mode)
        assert is_kept == "True"
        assert kept < by_default / 100


@pytest.mark.parametrize("name", freed_memory._USER_SETTINGS)
def test_the_users_settings_stay(monkeypatch, name):
    monkeypatch.setenv(name, "131072")

    assert not freed_memory.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())

    assert not freed_memory.keep_freed_memory()
