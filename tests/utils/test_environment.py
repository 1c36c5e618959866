"""The commit of the source, and versions."""

import shutil
import subprocess

import pytest
import torch

from dynpose.utils.environment import git_state, versions


def git(folder, *words):
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_state_of_the_code(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) is None
    git(tmp_path, "init", "--quiet")
    # an installed package within something else's working tree
    assert git_state(package) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "m")
    state = {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(package) == state
    (package / "new.py").write_text("")
    assert git_state(package) == {**state, "dirty": True}


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


def test_versions():
    found = versions(["torchvision", "no-such-package"])
    assert found["torch"] == torch.__version__
    assert found["torchvision"]
    assert found["no-such-package"] is None
