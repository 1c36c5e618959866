"""`dynpose benchmark model --alternatives`: a part of a model beside what could take its place."""

import json
import pickle

import pytest
import torch
from commands import parse, read_tables
from small_models import small_config

from dynpose.benchmark import memory
from dynpose.benchmark.model import alternatives, plot, run
from dynpose.benchmark.model.alternatives import PartCase
from dynpose.benchmark.model.case import BuiltModels, PoseModel
from dynpose.benchmark.settings import Settings
from dynpose.methods import PartBenchmark, get_method
from dynpose.tools import benchmark
from dynpose.tools.cli import main

CPU = torch.device("cpu")
SIZE = (128, 192)
OPTS = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.CID.IN_FEATURES", ["p2"], "MODEL.CID.CHANNELS", 8),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS", 16),
]
NAMES = ["GFD", "RoIAlign+", "RoIAlign*", "RoIAlign+ of F-hat", "RoIAlign* of F-hat", "RoIAlign+ and keypoint head"]


@pytest.fixture(scope="module")
def config():
    return small_config("configs/CID/Base-CID.yaml", *OPTS)


@pytest.fixture
def config_file(config, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(config.dump())
    return str(file)


def command(*arguments):
    size = ("--size", *map(str, SIZE))
    return ["--no-peer", "--no-flops", "--device", "cpu", "--repeats", "1", *size, "--alternatives", *arguments]


def test_the_table(config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: case.num_people * 2**20)
    data = tmp_path / "figures.json"
    arguments = ("--config-file", config_file, "--people", "2", "1", "--markdown", "--json", str(data))
    assert benchmark.run(parse("model", *command(*arguments))) == 0
    captured = capsys.readouterr()
    tables = read_tables(captured.out)
    title = "Instance features of CID small and alternatives"
    assert [name for name in tables if "alternatives" in name] == [f"{title}, ms", f"{title}, memory, MiB"]
    times = tables[f"{title}, ms"]
    assert list(times[0]) == ["people", *NAMES, *(f"{name} / GFD" for name in NAMES[1:])]
    assert [row["people"] for row in times] == ["1", "2"]
    for row in times:
        for name in NAMES[1:]:
            assert float(row[f"{name} / GFD"]) == pytest.approx(float(row[name]) / float(row["GFD"]), rel=0.02)
    assert [[row[name] for name in NAMES] for row in tables[f"{title}, memory, MiB"]] == [["1.00"] * 6, ["2.00"] * 6]
    assert "instance features of 2 people: GFD" in captured.err
    (read,) = json.loads(data.read_text())["parts"]
    assert (read["model"], read["part"]) == ("CID small", "instance features")
    assert [case["people"] for case in read["cases"]] == [1, 2]
    assert all(figures["rounds"] == 1 for case in read["cases"] for figures in case["alternatives"].values())


def test_the_plot_has_a_line_for_each_alternative():
    def figures(**times):
        return {name: {"ms": ms} for name, ms in times.items()}

    report = {
        "models": [{"model": "CID a"}],
        "cases": [{"people": people, "models": {"CID a": {"ms": 20.0, "parts_ms": {}}}} for people in (1, 10)],
        "peer": None,
        "parts": [
            {
                "model": "CID a",
                "part": "instance features",
                "cases": [
                    {"people": 1, "alternatives": figures(own=2.0, slow=300.0)},
                    {"people": 10, "alternatives": figures(own=4.0, slow=None)},
                ],
            }
        ],
        "environment": {"device": "Some CPU"},
        "settings": {"image_size": [512, 512], "device": "cpu", "dtype": "float32"},
    }
    above, below = plot.draw(report).axes
    assert [list(line.get_ydata()) for line in above.lines] == [[20, 20]]
    assert below.get_title(loc="left") == "Instance features of CID a, and alternatives"
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in below.lines] == [
        ([1, 10], [2, 4]),
        ([1], [300]),
    ]
    assert below.get_yscale() == "log"
    assert 1 < below.get_ylim()[0] < 2
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["own", "slow"]


def test_without_the_option_nothing_is_compared(config_file, monkeypatch, capsys):
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: 0)
    arguments = [argument for argument in command("--people", "1") if argument != "--alternatives"]
    report = run.measure(parse("model", "--config-file", config_file, *arguments))
    assert report["parts"] == []


def test_methods_without_alternatives_are_told_before_anything_is_measured(small_run, monkeypatch, capsys):
    monkeypatch.setattr(run, "_model_row", None)
    assert main(["benchmark", "model", *command("--config-file", small_run.config)]) == 2
    error = capsys.readouterr().err
    assert "--alternatives: no part of FCPose config has alternatives" in error
    assert "part_benchmark" in error


def test_optimized_models_are_left_out(config):
    model = PoseModel("small", config)
    part = get_method("CID").part_benchmark
    assert alternatives.compared_parts([model, model.optimized("float32", False)]) == {"small": part}


def test_results_are_taken_one_by_one_and_a_copy_builds_its_own_model(config):
    built = BuiltModels([PoseModel("small", config)], CPU, SIZE)
    case = PartCase(built, "small", get_method("CID").part_benchmark, 2, SIZE)
    first = case.make_inputs(CPU, 1)
    assert case.names() == NAMES
    copy = pickle.loads(pickle.dumps(case))
    assert (copy._calls, copy.models._built) == ({}, {})
    second = copy.make_inputs(CPU, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert not torch.equal(first[0], case.make_inputs(CPU, 2)[0])

    held = []

    def results(tensor):
        for value in range(3):
            held.append((value, torch.is_grad_enabled()))
            yield tensor + value

    counted = PartBenchmark("part", lambda model, boxes, size, generator: (boxes,), lambda model: {"own": results})
    PartCase(built, "small", counted, 2, SIZE).run("own", (torch.zeros(1),))
    assert held == [(0, False), (1, False), (2, False)]


def test_every_alternative_is_timed_once_a_round(config, monkeypatch):
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: 0)
    calls = []

    def call(name):
        return lambda boxes: calls.append(name) or [boxes]

    own = PartBenchmark(
        "part", lambda model, boxes, size, generator: (boxes,), lambda model: {name: call(name) for name in ("a", "b")}
    )
    built = BuiltModels([PoseModel("small", config)], CPU, SIZE)
    (row,) = alternatives.compare_parts({"small": own}, built, [2], SIZE, Settings(CPU, rounds=3))
    # once before the rounds, and two to warm up
    assert calls == ["a", "b"] * 6
    assert row["cases"][0]["alternatives"]["b"]["rounds"] == 3
