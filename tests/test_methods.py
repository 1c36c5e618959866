"""The registry of methods: every slot is filled, and nothing outside a method's folder names a method."""

import ast
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY

from dynpose.config import load_config, read_key
from dynpose.methods import (
    KPNetBenchmark,
    Method,
    PartBenchmark,
    PublishedWeights,
    ReleasedFormat,
    get_method,
    register_method,
    register_weights,
    registered_methods,
    registered_weights,
)

ROOT = Path(__file__).parents[1]
MODELING = ROOT / "dynpose" / "modeling"
FOLDERS = sorted(path.parent.name for path in MODELING.glob("*/method.py"))
NAMES = [method.name for method in registered_methods()]


def test_every_folder_of_a_method_registers_it():
    assert FOLDERS == ["cid", "fcpose", "inspose", "querypose"]
    assert set(NAMES) >= {"CID", "FCPose", "InsPose", "InsPoseReleased", "QueryPose"}


@pytest.mark.parametrize("name", NAMES)
def test_every_slot_is_filled(name):
    method, cfg = get_method(name), load_config()
    assert META_ARCH_REGISTRY.get(name).__name__ == name
    for key in filter(None, (method.num_classes_key, method.detection_limit_key)):
        assert isinstance(read_key(cfg, key), int)
    for released in method.released_formats:
        assert isinstance(released, ReleasedFormat)
        assert all((released.signature, released.renames, released.config))
        pattern, rows = released.rows_per_keypoint
        assert len(pattern) * rows > 0
    for weights in method.published_weights:
        assert isinstance(weights, PublishedWeights)
        assert all((weights.name, weights.title, weights.file, weights.link, weights.licence))
        assert {load_config(config).MODEL.META_ARCHITECTURE for config in weights.configs} == {name}
    assert isinstance(method.parts, Mapping)
    assert method.parts
    assert all(
        not part.startswith("_") for paths in method.parts.values() for path in paths for part in path.split(".")
    )
    assert callable(method.inject_detections)
    assert method.count_network_flops is None or callable(method.count_network_flops)
    assert method.kp_net_benchmark is None or isinstance(method.kp_net_benchmark, KPNetBenchmark)
    assert method.part_benchmark is None or isinstance(method.part_benchmark, PartBenchmark)
    figures = [figure.name for figure in method.figures]
    assert len(set(figures)) == len(figures)
    # a name beside them, and a part of a file's name
    assert all(re.fullmatch("[a-z_]+", figure) and figure != "all" for figure in figures)
    assert all(figure.shows and callable(figure.draw) for figure in method.figures)
    own = get_cfg()
    method.add_config(own)
    if name != "GeneralizedRCNN":
        assert own.MODEL.keys() > get_cfg().MODEL.keys()


def test_a_slot_can_not_be_left_out():
    slots = {field.name: None for field in fields(Method)}
    for name in slots:
        with pytest.raises(TypeError, match=name):
            Method(**{slot: value for slot, value in slots.items() if slot != name})


def test_a_name_is_registered_once():
    method = registered_methods()[0]
    with pytest.raises(ValueError, match="is already registered"):
        register_method(method)
    released = ReleasedFormat("theirs", "Other", ("a",), (("a", "b"),), ("b", 1))
    with pytest.raises(ValueError, match="theirs: the format belongs to 'Other', not to 'NewPose'"):
        register_method(replace(method, name="NewPose", released_formats=(released,)))
    weights = PublishedWeights(name="new", title="New", file="new.pth", link="https://example.org/new.pth")
    with pytest.raises(ValueError, match="new: weights of a method need a config"):
        register_method(replace(method, name="NewPose", released_formats=(), published_weights=(weights,)))
    with pytest.raises(ValueError, match="are already registered"):
        register_weights(replace(weights, name=registered_weights()[-1].name))


def generic_files():
    for path in (ROOT / "train_net.py", *sorted((ROOT / "dynpose").rglob("*.py"))):
        inside = any(folder == path.relative_to(ROOT).parts[2] for folder in FOLDERS if MODELING in path.parents)
        if not inside and path != MODELING / "__init__.py":
            yield path


def named_in(path):
    """Lines of a file whose code names a method; docstrings are free."""
    pattern = re.compile(rf"(?<![a-z])({'|'.join(FOLDERS)})(?![a-z])", re.I)
    text = path.read_text()
    if not pattern.search(text):
        return
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            docstrings.add(id(getattr(node.body[0], "value", None)))
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        values = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        yield from (f"{path.relative_to(ROOT)}:{node.lineno}: {value}" for value in values if pattern.search(value))


def test_no_generic_code_names_a_method():
    named = {str(path.relative_to(ROOT)): list(named_in(path)) for path in generic_files()}
    assert {name: lines for name, lines in named.items() if lines} == {}


def test_a_name_is_found_in_code_but_not_in_a_docstring(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        '"""FCPose section 3."""\nfrom .cid import CID\ncfg.MODEL.INSPOSE.NORM\n'
        'PROCID = "SLURM_PROCID"\nx = f"{y} QueryPose"\n'
    )
    found = [line.split(": ") for line in named_in(tmp_path / "a.py")]
    assert sorted(found) == [["a.py:2", "CID"], ["a.py:2", "cid"], ["a.py:3", "INSPOSE"], ["a.py:5", " QueryPose"]]
