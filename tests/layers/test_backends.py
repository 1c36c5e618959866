"""The registry of backends: which implementation runs, and the warning if the requested one cannot."""

import logging

import pytest
import torch

from dynpose.layers import Implementation, backends, register_backend

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Two operators, each on "torch", in a registry of the test's own."""
    monkeypatch.setattr(backends, "_IMPLEMENTATIONS", {})
    register_backend("torch", {name: implementation(f"torch {name}", devices=None) for name in ("first", "second")})
    backends._warn.cache_clear()


def implementation(result, **options):
    return Implementation(lambda *arguments: (result, *arguments), **options)


def run(operator, backend, *arguments, device=CPU):
    return backends.select_backend(operator, backend, device, *arguments)(*arguments)


def test_auto_prefers_the_last_registered_for_the_device():
    register_backend("fast", {"first": implementation("fast", devices=("cuda", "cpu"))})
    register_backend("elsewhere", {"first": implementation("elsewhere", devices=("cuda",))})
    register_backend("by name", {"first": implementation("by name")})
    assert backends.backend_names() == ("auto", "by name", "elsewhere", "fast", "torch")
    assert run("first", "auto", 1, 2) == ("fast", 1, 2)
    assert run("first", "auto", device=torch.device("cuda")) == ("elsewhere",)
    assert run("first", "auto", device=torch.device("meta")) == ("torch first",)
    assert run("first", "elsewhere") == ("elsewhere",)
    assert run("first", "by name") == ("by name",)
    assert run("first", "torch") == ("torch first",)


@pytest.mark.parametrize("backend", ["auto", "broken"])
def test_another_runs_where_one_cannot_with_one_warning(backend, caplog):
    reason = "{} is too large".format
    broken = implementation("broken", unavailable_reason=lambda size: reason(size) if size > 5 else None, devices=None)
    register_backend("broken", {"first": broken})
    with caplog.at_level(logging.WARNING):
        assert run("first", backend, 5) == ("broken", 5)
        assert run("first", backend, 6) == run("first", backend, 6) == ("torch first", 6)
    assert caplog.messages == ["first does not run on backend 'broken': 6 is too large"]


def test_torch_runs_missing_operators_with_one_warning(caplog):
    register_backend("half", {"first": implementation("half")})
    register_backend("other", {"second": implementation("other", devices=None)})
    with caplog.at_level(logging.WARNING):
        assert run("first", "half") == ("half",)
        assert run("second", "half") == run("second", "half") == ("torch second",)
    assert caplog.messages == ["second does not run on backend 'half': the backend does not implement it"]


@pytest.mark.parametrize(
    ("name", "operator", "message"),
    [
        ("auto", "first", "name: 'auto' selects a backend"),
        ("mine", "third", "expected operators of first, second, got 'third'"),
        ("torch", "first", "name: backend 'torch' already implements 'first'"),
    ],
)
def test_register_refuses(name, operator, message):
    with pytest.raises(ValueError, match=message):
        register_backend(name, {operator: implementation("mine")})


def test_unknown_backend():
    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'torch', got 'slow'"):
        run("first", "slow")
