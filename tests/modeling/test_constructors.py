"""The signatures of the meta-architectures."""

import inspect

import pytest
from detectron2.modeling import META_ARCH_REGISTRY

from dynpose import modeling  # noqa: F401  registers the meta-architectures

META_ARCHITECTURES = [cls for _, cls in META_ARCH_REGISTRY if cls.__module__.startswith("dynpose.")]


def test_there_are_some():
    assert len(META_ARCHITECTURES) >= 5


@pytest.mark.parametrize("cls", META_ARCHITECTURES)
def test_no_constructor_takes_more_than_12_arguments(cls):
    names = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    assert 0 < len(names) <= 12
    assert not {"args", "kwargs"} & set(names)
