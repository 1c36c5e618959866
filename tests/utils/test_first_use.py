"""Actions that wait for the import of a module."""

import importlib
import sys

import pytest

from dynpose.utils.first_use import after_import


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module that says how often it was executed."""
    (tmp_path / "awaited").mkdir()
    (tmp_path / "awaited" / "__init__.py").write_text("")
    (tmp_path / "awaited" / "part.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path / "awaited"
    for name in ("awaited", "awaited.part"):
        sys.modules.pop(name, None)


def test_the_action_follows_the_import_once(package):
    values = []
    finders = list(sys.meta_path)
    after_import("awaited.part", lambda: values.append(sys.modules["awaited.part"].VALUE))
    import awaited

    assert values == []
    importlib.import_module("awaited.part")
    assert values == [3]
    assert sys.meta_path == finders
    # as Python sets it
    assert type(awaited.part.__loader__) is type(awaited.__loader__)
    assert awaited.part.__spec__.loader is awaited.part.__loader__
    importlib.reload(awaited.part)
    assert values == [3]
    after_import("awaited.part", lambda: values.append(4))
    assert values == [3, 4]


def test_a_failed_import_is_none(package):
    done = []
    after_import("awaited.part", lambda: done.append(1))
    (package / "part.py").write_text("raise OSError('not yet')")
    with pytest.raises(OSError, match="not yet"):
        importlib.import_module("awaited.part")
    assert done == []
    (package / "part.py").write_text("VALUE = 12345\n")
    importlib.import_module("awaited.part")
    assert done == [1]
