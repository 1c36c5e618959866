"""`dynpose benchmark gpu-report` and `import`: order, budgets and files with a stub clock, and the filled page."""

import importlib
import json
import shutil
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import parse, read_tables

from dynpose.benchmark.gpu_report import (
    correctness,
    device,
    gpu_tests,
    prepare,
    quick_training,
    run,
    slowest_kernel,
)
from dynpose.benchmark.gpu_report.figures import combined_kp_net, growth, largest_errors
from dynpose.benchmark.gpu_report.plan import Part, read_plan
from dynpose.benchmark.gpu_report.runner import (
    DONE,
    FAILED,
    INTERRUPTED,
    NOT_STARTED,
    OUT_OF_TIME,
    RUNNING,
    run_parts,
    run_process,
)
from dynpose.benchmark.import_report.blocks import BLOCKS, replace_blocks
from dynpose.benchmark.kp_net.case import FUSED, GROUPED, KPNetCase
from dynpose.benchmark.kp_net.run import kp_net_benchmarks
from dynpose.benchmark.model import report as model_report
from dynpose.config import ConfigError, find_config_file
from dynpose.tools import benchmark
from dynpose.tools.cli import main
from dynpose.utils.environment import commit_of

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


# --- the plan ---


def test_plan_fits_into_ten_minutes_in_the_order_of_worth():
    parts = read_plan()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert sum(part.seconds for part in parts) <= 570
    order = (
        *("preparation", "device", "correctness", "kp_net", "first_call", "models_tf32", "training", "tests"),
        *("tests_long", "quick_training", "memory"),
    )
    assert [name for name in names if name in order] == list(order)
    assert [part.name for part in read_plan(rehearse=True)] == names
    assert next(part for part in parts if part.name == "quick_training").max_seconds == 300


@pytest.mark.parametrize("rehearse", [False, True])
def test_every_command_of_the_plan_is_valid(rehearse, tmp_path):
    for part in read_plan(rehearse):
        module, *words = part.command(tmp_path, tmp_path, 10)
        assert not [word for word in words if "{" in word or "}" in word]
        configs = [value for key, value in zip(words, words[1:]) if key == "--config-file"]
        assert all(Path(find_config_file(config)).exists() for config in configs)
        if module == "dynpose":
            assert words[0] == "benchmark"
            args = parse(*words[1:])
            assert args.json == tmp_path / f"{part.name}.json"
            assert args.device == ("cpu" if rehearse else "cuda")
            assert args.markdown
        else:
            assert callable(importlib.import_module(module).main)
            if "--json" in words:
                assert words[words.index("--json") + 1] == str(tmp_path / f"{part.name}.json")


def test_every_file_with_gpu_tests_is_run():
    parts = {part.name: part.words for part in read_plan()}
    paths = [word for name in ("tests", "tests_long") for word in parts[name][5:]]
    assert all((ROOT / "tests" / path).exists() for path in paths)
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    assert len(marked) >= 6
    relative = [str(path.relative_to(ROOT / "tests")) for path in marked if path != Path(__file__)]
    assert [path for path in relative if not path.startswith(tuple(paths))] == []


# --- the runner ---


class Machine:
    """A clock, and processes that take given seconds on it and end with given exit codes."""

    def __init__(self, seconds, codes=()):
        self.now, self.seconds, self.codes = 100.0, seconds, dict(codes)
        self.limits = {}

    def clock(self):
        return self.now

    def start(self, words, tables, log, seconds):
        name = words[0]
        self.limits[name] = seconds
        tables.write_text("| a |\n" if name != "empty" else "")
        log.write_text(f"line 1\n{name} says why\n\n")
        taken = self.seconds[name]
        self.now += min(taken, seconds)
        return None if taken > seconds else self.codes.get(name, 0)


def run_on(machine, tmp_path, budgets, **options):
    parts = [Part(name, name.title(), seconds, (name, "{seconds}")) for name, seconds in budgets.items()]
    seen = []
    rows = run_parts(
        parts, tmp_path, tmp_path, lambda rows: seen.append([row["status"] for row in rows]),
        start=machine.start, clock=machine.clock, **options,
    )  # fmt: skip
    return {row["name"]: row for row in rows}, seen


def test_what_a_part_leaves_over_passes_on(tmp_path):
    machine = Machine({"a": 10, "b": 85, "c": 1000, "d": 5})
    rows, seen = run_on(machine, tmp_path, {"a": 60, "b": 40, "c": 20, "d": 30})
    # b: 60 - 10 left over and its own 40; c: 5 and 20
    assert machine.limits == {"a": 60, "b": 90, "c": 25, "d": 30}
    assert [row["status"] for row in rows.values()] == [DONE, DONE, OUT_OF_TIME, DONE]
    assert [row["seconds"] for row in rows.values()] == [10, 85, 25, 5]
    assert machine.now - 100 <= 150
    assert seen[0] == [RUNNING, *[NOT_STARTED] * 3]
    assert seen[1] == [DONE, *[NOT_STARTED] * 3]
    assert seen[-1] == [DONE, DONE, OUT_OF_TIME, DONE]


def test_a_part_that_hangs_or_fails_takes_nothing_from_the_next(tmp_path):
    machine = Machine({"a": 1e9, "b": 3, "empty": 1}, codes={"b": 1})
    rows, _ = run_on(machine, tmp_path, {"a": 20, "b": 10, "empty": 10})
    assert machine.limits == {"a": 20, "b": 10, "empty": 17}
    assert [row["status"] for row in rows.values()] == [OUT_OF_TIME, FAILED, DONE]
    assert rows["b"]["reason"] == "exit code 1: b says why"
    assert rows["a"]["files"] == ["a.log", "a.md"]
    assert rows["empty"]["files"] == ["empty.log"]
    assert not (tmp_path / "empty.md").exists()


def test_a_budget_can_be_scaled_and_limited(tmp_path):
    machine = Machine({"a": 1, "b": 1e9, "c": 1})
    parts = [Part("a", "A", 300, ("a",)), Part("b", "B", 60, ("b",), max_seconds=90), Part("c", "C", 60, ("c",))]
    rows = run_parts(parts, tmp_path, tmp_path, lambda rows: None, start=machine.start, clock=machine.clock, scale=0.5)
    assert [row["budget"] for row in rows] == [150, 30, 30]
    assert machine.limits == {"a": 150, "b": 90, "c": 119}


def test_a_process_that_outstays_its_budget_leaves_no_time_for_a_late_part(tmp_path):
    machine = Machine({"a": 1, "b": 1})
    late = machine.start

    def start(words, *others):
        machine.now += 28
        return late(words, *others)

    machine.start = start
    rows, _ = run_on(machine, tmp_path, {"a": 20, "b": 10})
    assert "b" not in machine.limits
    assert rows["b"]["status"] == NOT_STARTED
    assert rows["b"]["reason"] == "only 1 s were left"


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def is_running(status_file):
    try:
        # a zombie until whoever inherits it reads its exit code
        return "State:\tZ" not in status_file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_is_stopped_with_its_child_processes(tmp_path):
    script = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    begin = time.monotonic()
    tables, log = tmp_path / "a.md", tmp_path / "a.log"
    assert run_process(["timeit", "-n1", "-r1", script], tables, log, 2.0) is None
    assert time.monotonic() - begin < 30
    child = Path("/proc", tables.read_text().split()[0], "status")
    assert wait_until(lambda: not is_running(child))
    assert run_process(["timeit", "-n1", "-r1", "import os; os._exit(3)"], tables, log, 60.0) == 3
    environment = {"PART": "yes", "PATH": ""}
    script = "import os; print(os.environ['PART'])"
    assert run_process(["timeit", "-n1", "-r1", script], tables, log, 60.0, environment) == 0
    assert tables.read_text().startswith("yes\n")


# --- the command ---


def stub_start(contents, failing=()):
    """Processes that write the given JSON files instead of measuring."""

    def start(words, tables, log, seconds):
        name = tables.stem
        log.write_text("")
        tables.write_text(f"{name}\n")
        if name in contents:
            tables.with_suffix(".json").write_text(json.dumps(contents[name]))
        return int(name in failing)

    return start


def report_args(folder, **others):
    return Namespace(**{"output": folder, "minutes": 10.0, "commit": None, "rehearse": True, **others})


def test_without_a_gpu_there_is_one_clear_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", "gpu-report", "--output", str(tmp_path / "report")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "finds no CUDA GPU here" in line
    assert "--rehearse" in line
    assert not (tmp_path / "report").exists()


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path):
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(ConfigError, match=r"is not empty and holds no report\.json"):
        run.measure(report_args(tmp_path), start=stub_start({}))
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "models_tf32.json").write_text("old")
    run.measure(report_args(tmp_path), start=stub_start({}))
    assert (tmp_path / "photo.jpg").exists()
    assert not (tmp_path / "models_tf32.json").exists()


def test_index_says_what_ran_and_what_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
    result = run.measure(report_args(tmp_path), start=stub_start(made_up(), failing=["kp_net"]))
    assert result["failures"] == ["kp_net"]
    text = (tmp_path / "report.md").read_text()
    assert "(a rehearsal on a CPU)" in text
    assert "Test GPU, " in text
    assert "(0123456789ab)" in text
    tables = read_tables(text)
    parts = {row["name"]: row for row in tables["## Parts, in the order in which they ran"]}
    assert list(parts) == [part.name for part in read_plan()]
    assert parts["kp_net"]["status"] == "failed"
    assert "[device.json](device.json) [device.md](device.md)" in parts["device"]["files"]
    assert "- **kp_net**: exit code 1: no log" in text
    (row,) = tables["## Time over the number of people"]
    assert (row["model"], row["precision"], row["growth"]) == ("Small", "tf32", "+25.0 %")
    assert (tmp_path / "kp_net_all.png").read_bytes()[:4] == b"\x89PNG"
    printed = importlib.import_module("dynpose.benchmark.gpu_report.report").tables(result, "simple")
    assert "kp_net" in printed
    assert printed.endswith(f"The report is {tmp_path / 'report.md'}.")


def test_a_killed_run_keeps_what_it_has(tmp_path):
    start = stub_start(made_up())

    def killed(words, tables, log, seconds):
        if tables.stem == "kp_net_others":
            raise KeyboardInterrupt
        return start(words, tables, log, seconds)

    with pytest.raises(KeyboardInterrupt):
        run.measure(report_args(tmp_path), start=killed)
    index = json.loads((tmp_path / "report.json").read_text())
    statuses = {row["name"]: row["status"] for row in index["parts"]}
    assert index["device"] == "Test GPU"
    assert statuses["kp_net"] == DONE
    assert statuses["kp_net_others"] == INTERRUPTED
    assert statuses["memory"] == NOT_STARTED
    assert "| interrupted" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "kp_net_all.png").exists()


def test_device_is_named_although_its_part_was_stopped(tmp_path):
    figures = made_up()
    del figures["device"]
    assert run.measure(report_args(tmp_path), start=stub_start(figures))["device"] == "Test GPU"


def test_command_prints_the_parts_and_its_exit_code_tells_of_failures(tmp_path, monkeypatch, capsys):
    for failing, code in ((["tests"], 1), ([], 0)):
        start = stub_start({}, failing)
        monkeypatch.setattr(run, "run_process", lambda *args, environment, start=start: start(*args))
        arguments = ("gpu-report", "--rehearse", "--output", str(tmp_path / "report"), "--commit", "abc")
        assert benchmark.run(parse(*arguments)) == code
        captured = capsys.readouterr()
        assert "Tests marked gpu, the short ones" in captured.out
        assert "(abc)" in captured.out
        assert "tests: failed" in captured.err or code == 0


def test_parts_of_a_rehearsal_interpret_the_kernels(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("PYTHONPATH", ".gpu:.")
    assert run._environment(rehearse=True)["TRITON_INTERPRET"] == "1"
    assert run._environment(rehearse=True)["PYTHONPATH"] == ".gpu:."
    on_gpu = run._environment(rehearse=False)
    assert "TRITON_INTERPRET" not in on_gpu
    assert on_gpu["PYTHONPATH"] == ".gpu:."


# --- made-up figures ---


def figures_of(ms, mib, part=None, status=""):
    return {
        "status": status, "note": status, "rounds": 5, "ms": ms, "ms_quartiles": [ms, ms], "mib": mib, "host_ms": 0.1,
        "tflops": 1.0, "part_of_floor": part,
    }  # fmt: skip


def operator_row(case, n, grouped, fused, **others):
    method, mode = case.split()
    return {
        "case": case, "method": method, "mode": mode, "instances": n, "map_size": [5, 7], "flops": 10**9,
        "bytes": 10**6, "floor_ms": 0.01, "floor_is": "matrix rate",
        "implementations": {GROUPED: grouped, FUSED: fused}, **others,
    }  # fmt: skip


ENVIRONMENT = {
    "date": "2026-11-28", "dynpose": "0.1.0", "python": "3.12", "torch": "2.11.0", "triton": "3.6.0", "commit": None,
    "cuda": "13.0", "cudnn": 1, "device": "Test GPU", "cpu_threads": 8,
}  # fmt: skip
SETTINGS = {
    "device": "cuda", "dtype": "float32", "tf32": True, "cudnn_benchmark": False, "deterministic": False, "rounds": 20,
}  # fmt: skip


def operator_report(*rows, **extras):
    empty = {"all_positives": [], "released_loss": [], "first_call": [], "notes": [], "disagreements": []}
    rates = {"tflops": 400.0, "gigabytes_per_second": 2000.0}
    return {"environment": ENVIRONMENT, "settings": SETTINGS, "rates": rates, "cases": list(rows), **empty, **extras}


def made_up():
    """Files of a report whose figures can be checked by hand."""
    one, two = ({"models": {"Small": figures_of(ms, 50.0)}, "people": n} for n, ms in ((1, 8.0), (100, 10.0)))
    for row in (one, two):
        row["models"]["Small"]["parts_ms"] = {}
    training = {
        "meta_architecture": "M", "optimizer": "SGD", "precision": "float32", "trainable": 10, "loss": 1.0,
        "constant_mib": {}, "parts_ms": {}, "status": "", "note": "", "ms": 50.0, "mib": 900.0,
        "iterations_per_second": 20.0, "images_per_second": 40.0,
    }  # fmt: skip
    checkpointed = "MODEL.QUERYPOSE.ACTIVATION_CHECKPOINT True"
    released = {"case": "cross-entropy", "method": "released FCPose", "instances": 70, "implementations": {}}
    first_call = {
        "case": "FCPose inference", "instances": 100, "empty_cache_s": 5.0, "filled_cache_s": 0.5, "new_size_s": 0.01,
        "new_size_empty_cache_s": 0.02, "later_s": 0.0001,
    }  # fmt: skip
    return {
        "device": {"environment": ENVIRONMENT},
        "correctness": {
            "cases": [
                {"precision": "tf32", "status": "", "value_error": 4e-4, "gradient_error": None},
                {"precision": "tf32", "status": "", "value_error": 1e-4, "gradient_error": 2e-3},
                {"precision": "bfloat16", "status": "too large", "value_error": 0.5, "gradient_error": None},
            ]
        },
        "kp_net": operator_report(
            operator_row("FCPose inference", 100, figures_of(3.0, 600.0), figures_of(0.125, 4.0, part=0.303)),
            operator_row("FCPose training", 50, figures_of(9.0, 600.0), figures_of(1.0, 20.0, part=0.1)),
            operator_row(
                "FCPose training", 500, figures_of(None, None, status="out of memory"), figures_of(8.0, 90.0, part=0.2)
            ),
        ),
        "kp_net_others": operator_report(
            operator_row("FCPose inference", 1, figures_of(0.5, 6.0), figures_of(0.05, 2.0, part=0.02)),
        ),
        "first_call": operator_report(first_call=[first_call]),
        "memory": operator_report(
            all_positives=[
                operator_row("FCPose training", 50, figures_of(9.0, 570.0), {}, implementations={
                    GROUPED: figures_of(9.0, 570.0)
                }),
                operator_row("FCPose training", 2000, {}, {}, implementations={FUSED: figures_of(9.0, 52.0)}),
            ],
            released_loss=[{**released, "implementations": {FUSED: figures_of(1.5, 12.0)}}],
        ),
        "models_tf32": {
            "environment": ENVIRONMENT,
            "settings": {**SETTINGS, "image_size": [800, 1333], "opts": []},
            "models": [
                {"model": "Small", "meta_architecture": "M", "weights": "random", "precision": "as trained",
                 "parameters": 5, "weights_mib": 1.0,
                 "gflops": {"0": 1.0, "1": 1.1, "100": 2.0}}
            ],
            "cases": [one, two],
            "peer": None,
            "optimized": {},
            "notes": [],
        },
        "training": {
            "environment": ENVIRONMENT,
            "settings": {**SETTINGS, "batch": 2, "image_size": [800, 1333], "people": 5, "opts": []},
            "configs": [{"config": "M small", "variant": "", **training}],
            "notes": [],
        },
        "checkpointing": {
            "configs": [
                {"config": "Q", "variant": "", **training},
                {"config": "Q, AC", "variant": checkpointed, **training, "ms": 80.0, "iterations_per_second": 12.5},
            ]
        },
        "tests": {"outcomes": {"a": "passed", "b": "passed", "c": "failed"}, "seconds": {}, "messages": {}},
        "quick_training": {
            "config": "quick/small.yaml", "iterations": 2000, "seconds": 280.4, "seconds_per_iteration": 0.1,
            "results": {"keypoints": {"AP": 71.25, "AP50": 99.0}, "bbox": {"AP": 60.0}},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "gpu_report"
    run.measure(report_args(folder, commit="0123456789ab"), start=stub_start(made_up()))
    change(folder, rehearsal=False)
    return folder


@pytest.fixture
def report_folder(finished_report, tmp_path):
    """A finished report, and beside it a copy of the page as it is before any import."""
    shutil.copy(PAGE, tmp_path / "benchmarks.md")
    return Path(shutil.copytree(finished_report, tmp_path / "gpu_report"))


def change(folder, **values):
    path = folder / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def import_report(folder, *more):
    return main(["benchmark", "import", str(folder), "--docs", str(folder.parent / "benchmarks.md"), *more])


def test_figures_of_several_parts(report_folder):
    combined = combined_kp_net(report_folder)
    assert [(row["case"], row["instances"]) for row in combined["cases"]] == [
        ("FCPose inference", 1), ("FCPose inference", 100), ("FCPose training", 50), ("FCPose training", 500)
    ]  # fmt: skip
    (row,) = growth(report_folder)
    assert row["people"] == "1 to 100"
    models = made_up()["models_tf32"]
    for case in models["cases"]:
        case["models"]["Small, bfloat16"] = figures_of(2.0, 50.0)
    models["optimized"] = {"Small, bfloat16": "Small"}
    (report_folder / "models_bfloat16.json").write_text(json.dumps(models))
    _, row = growth(report_folder)
    assert (row["model"], row["growth"]) == ("Small, bfloat16", "+0.0 %")
    assert largest_errors(report_folder) == [
        {
            "precision": "tf32", "cases": "2", "within the tolerance": "2", "largest error of values": "4.0e-04",
            "of gradients": "2.0e-03",
        },
        {
            "precision": "bfloat16", "cases": "1", "within the tolerance": "0", "largest error of values": "5.0e-01",
            "of gradients": "",
        },
    ]  # fmt: skip
    assert commit_of(None) is None
    assert commit_of({"commit": "0123456789abcdef", "dirty": True}) == "0123456789ab+"


def test_models_whose_flops_were_not_counted():
    models = made_up()["models_tf32"]
    assert "GFLOPs of one image" in model_report.tables(models, "github")
    models["models"][0]["gflops"] = {}
    assert "GFLOPs" not in model_report.tables(models, "github")


# --- import ---


def filled_cells(text):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


def test_import_fills_the_open_cells(report_folder, capsys):
    assert import_report(report_folder) == 0
    assert "unchanged" not in capsys.readouterr().out
    text = (report_folder.parent / "benchmarks.md").read_text()
    cells = filled_cells(text)
    assert cells["FCPose inference, N = 100: grouped / fused, time"] == ["at least 20", "24.0"]
    assert cells["FCPose inference, N = 100: grouped / fused, memory"] == ["at least 100", "150"]
    assert cells["FCPose inference, N = 100: floor / fused"] == ["at least 25 %", "30.3 %"]
    assert cells["FCPose training, N = 50: grouped / fused, time"][-1] == "9.00"
    assert cells["FCPose training, N = 500: grouped / fused, time"][-1] == "grouped: out of memory"
    assert cells["InsPose inference, N = 500: grouped / fused, time"][-1] == "not measured yet"
    positives = "FCPose training with all positive locations, fused with N = 2000: memory"
    assert cells[positives][-1] == "52.0 MiB, grouped with N = 50 570 MiB"
    first = "first call of the fused kernels: empty cache, filled cache, new map size"
    assert cells[first][-1] == "FCPose inference 5.00 s, 0.5 s, 0.01 s"
    assert cells["losses of the released FCPose, fused: time, memory"][-1] == "cross-entropy 1.50 ms, 12.0 MiB"
    assert cells["all activations kept"] == ["20.0", "40.0", "50.0", "900"]
    assert cells["`ACTIVATION_CHECKPOINT True`"] == ["12.5", "40.0", "80.0", "900"]
    assert "2000 iterations in 280 s, evaluation included: keypoints AP 71.2, bbox AP 60.0." in text
    source = "Measured on Test GPU, commit 0123456789ab, "
    assert text.count(source) == len(BLOCKS)
    assert (report_folder.parent / "images" / "kp_net_gpu.png").exists()
    assert "![Time over the number of instances on Test GPU](images/kp_net_gpu.png)" in text
    # All else is as it was.
    kept = PAGE.read_text()
    outside = [replace_blocks(page, PAGE, lambda name, content: "")[0] for page in (kept, text)]
    assert outside[0] == outside[1]


def test_import_again_changes_nothing(report_folder):
    page = report_folder.parent / "benchmarks.md"
    import_report(report_folder)
    first = page.read_text()
    import_report(report_folder)
    assert page.read_text() == first


def test_a_second_report_keeps_what_it_has_not(report_folder, capsys):
    page = report_folder.parent / "benchmarks.md"
    import_report(report_folder)
    for name in ("first_call", "models_tf32", "quick_training"):
        (report_folder / f"{name}.json").unlink()
    change(report_folder, device="Other GPU")
    capsys.readouterr()
    import_report(report_folder)
    assert "unchanged, the report has no figures: models, quick_training" in capsys.readouterr().out
    text = page.read_text()
    assert "keypoints AP 71.2" in text
    first = filled_cells(text)["first call of the fused kernels: empty cache, filled cache, new map size"]
    assert first[-1] == "FCPose inference 5.00 s, 0.5 s, 0.01 s"
    assert "Cells without a figure there: Measured on Test GPU" in text
    import_report(report_folder)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 0}, "format is 0, but this version reads 1; run dynpose benchmark gpu-report again"),
        ({"format": None}, "format is None"),
        ({"device": None}, "device is missing"),
        ({"commit": None}, "commit is missing; give the one that was measured with --commit"),
        ({"rehearsal": True}, "this is a rehearsal on a CPU"),
    ],
)
def test_reports_that_are_refused(report_folder, values, message, capsys):
    change(report_folder, **values)
    assert import_report(report_folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(report_folder / "report.json") in line
    assert (report_folder.parent / "benchmarks.md").read_text() == PAGE.read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report", {"format": 1, "device": "Test GPU", "commit": "0123456789ab"}, "not a report of dynpose"),
        ("kp_net", {"title": "another file"}, "block targets are damaged or of another command (KeyError: 'cases')"),
        ("models_tf32", {"cases": [{"people": 1}]}, "block models are damaged"),
    ],
)
def test_damaged_figures_are_named_and_the_page_stays(report_folder, name, content, message, capsys):
    (report_folder / f"{name}.json").write_text(json.dumps(content))
    assert import_report(report_folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(report_folder) in line
    assert (report_folder.parent / "benchmarks.md").read_text() == PAGE.read_text()


def test_the_commit_may_be_given(report_folder):
    change(report_folder, commit=None)
    assert import_report(report_folder, "--commit", "feedbeef") == 0
    assert "Test GPU, commit feedbeef" in (report_folder.parent / "benchmarks.md").read_text()


def test_a_folder_without_a_report_and_a_page_without_markers(report_folder, tmp_path, capsys):
    assert import_report(tmp_path / "nothing") == 2
    assert "not a report of dynpose benchmark gpu-report" in capsys.readouterr().err
    page = tmp_path / "benchmarks.md"
    for text, message in (
        ("# Figures\n", "are missing or not in pairs"),
        (PAGE.read_text().replace("<!-- /gpu-report -->", "", 1), "are missing or not in pairs"),
        (PAGE.read_text().replace("gpu-report: models", "gpu-report: model"), "model: unknown block"),
    ):
        page.write_text(text)
        assert import_report(report_folder) == 2
        assert message in capsys.readouterr().err
        assert page.read_text() == text
    page.unlink()
    assert import_report(report_folder) == 2
    assert "No such file" in capsys.readouterr().err


def test_page_of_the_project_has_every_block():
    names = []
    replace_blocks(PAGE.read_text(), PAGE, lambda name, content: names.append(name))
    assert sorted(names) == sorted(BLOCKS)


# --- the parts ---


def test_device_on_a_cpu(tmp_path, capsys):
    device.main(["--device", "cpu", "--json", str(tmp_path / "device.json")])
    found = json.loads((tmp_path / "device.json").read_text())
    assert found["environment"]["torch"] == torch.__version__
    assert found["properties"] == found["driver"] == {}
    assert f"- torch: {torch.__version__}" in capsys.readouterr().out


CORRECTNESS = ("--device", "cpu", "--map-size", "2", "3", "--instances", "1", "--training-instances", "1")


def test_kernels_agree_with_float64(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(correctness, "PRECISIONS", correctness.PRECISIONS[1:2])
    benchmarks = {"FCPose": replace(kp_net_benchmarks()["FCPose"], channels=4)}
    monkeypatch.setattr(correctness, "kp_net_benchmarks", lambda: benchmarks)
    path = tmp_path / "correctness.json"
    assert correctness.main([*CORRECTNESS, "--positives", "2", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["cases"]
    assert all(row["value_error"] < 1e-6 for row in rows)
    assert all(row["gradient_error"] < 1e-5 for row in rows if "inference" not in row["case"])
    assert [row["instances"] for row in rows if row["case"] == "FCPose training"] == [1, 2]
    assert len(rows) == len(capsys.readouterr().out.splitlines()) - 2


def test_a_wrong_kernel_is_found(monkeypatch):
    honest = KPNetCase.run
    case = KPNetCase("Small", channels=4, num_instances=2, training=True, map_size=(2, 3))

    def wrong(self, name, inputs):
        result = honest(self, name, inputs)
        if name == FUSED:
            result.values["losses"][0, 0] *= 1.1
        return result

    monkeypatch.setattr(KPNetCase, "run", wrong)
    row = correctness.compare(case, correctness.PRECISIONS[0], CPU)
    assert row["status"].startswith("losses: relative difference")
    assert row["value_error"] > 0.02

    def broken(self, name, inputs):
        raise RuntimeError("CUDA error: an illegal address\nmore")

    monkeypatch.setattr(KPNetCase, "run", broken)
    row = correctness.compare(case, correctness.PRECISIONS[0], CPU)
    assert row["status"] == "error: CUDA error: an illegal address"
    assert row["value_error"] is None


def test_the_slowest_kernel_is_profiled(report_folder, monkeypatch, capsys):
    case = slowest_kernel.slowest_case(report_folder)
    assert (case.name, case.num_instances, case.map_size) == ("FCPose inference", 1, (5, 7))
    slowest_kernel.main(["--device", "cpu", "--output", str(report_folder)])
    report = json.loads((report_folder / "slowest_kernel.json").read_text())
    times = [row["us"] for row in report["kernels"]]
    assert times == sorted(times, reverse=True)
    assert times[-1] > 0
    assert (report_folder / "slowest_kernel.trace.json.gz").stat().st_size > 100
    assert "FCPose inference, N = 1, reference: time of one call" in capsys.readouterr().out
    for name in ("kp_net", "kp_net_others"):
        (report_folder / f"{name}.json").unlink()
    assert slowest_kernel.slowest_case(report_folder).num_instances == 100


def test_outcomes_of_tests_are_written_one_by_one(tmp_path):
    recorder = gpu_tests.Recorder(tmp_path / "tests.json")

    def ended(name, when, outcome, text=None):
        flags = {"passed": outcome == "passed", "failed": outcome == "failed"}
        longrepr = SimpleNamespace(reprcrash=text)
        report = SimpleNamespace(nodeid=name, when=when, outcome=outcome, duration=1.5, longrepr=longrepr, **flags)
        recorder.pytest_runtest_logreport(report)

    ended("a", "setup", "passed")
    assert not (tmp_path / "tests.json").exists()
    ended("a", "call", "passed")
    ended("b", "setup", "skipped")
    ended("c", "call", "passed")
    ended("c", "teardown", "failed", "file.py:3: leaked | memory")
    found = json.loads((tmp_path / "tests.json").read_text())
    assert found["outcomes"] == {"a": "passed", "b": "skipped", "c": "failed"}
    tables = gpu_tests._tables(found)
    assert tables.startswith("1 passed, 1 skipped, 1 failed.")
    assert "leaked \\| memory" in tables


def test_missing_tests_are_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_tests, "_TESTS", tmp_path / "tests")
    assert gpu_tests.main(["--json", str(tmp_path / "a.json"), "layers"]) == 2
    assert "run the report in a checkout" in capsys.readouterr().err


def test_iterations_that_fit():
    # 85 % of (100 - 20) s at 0.1 s
    assert quick_training.fitting_iterations(100, 20, 0.1, most=5000) == 680
    assert quick_training.fitting_iterations(1000, 20, 0.1, most=5000) == 5000
    assert quick_training.fitting_iterations(10, 20, 0.1, most=5000) == 1


def test_training_follows_its_trial(tmp_path, monkeypatch, capsys):
    runs = []

    def train(config_file, opts):
        options = dict(zip(opts[::2], opts[1::2]))
        runs.append((Path(options["OUTPUT_DIR"]).name, options["SOLVER.MAX_ITER"]))
        assert options["DATASETS.SYNTHETIC.ROOT"] == prepare.synthetic_root(str(tmp_path))
        return {"keypoints": {"AP": 50.0, "AP50": 80.0, "AP75": 40.0}}, 0.1

    monkeypatch.setattr(quick_training, "train", train)
    path = tmp_path / "quick_training.json"
    quick_training.main([
        *("--device", "cpu", "--seconds", "100", "--work", str(tmp_path), "--config-file", "quick/fcpose_small.yaml"),
        *("--json", str(path)),
    ])  # fmt: skip
    assert runs[0] == ("trial", 60)
    assert runs[1][0] == "training"
    assert 840 <= runs[1][1] <= 850
    report = json.loads(path.read_text())
    assert report["results"]["keypoints"]["AP"] == 50
    out = capsys.readouterr().out
    assert "quick/fcpose_small.yaml: " in out
    assert "iterations, 0.100 s each" in out
    assert "| keypoints |" in out


def test_preparation_draws_the_images(tmp_path, monkeypatch, catalogs):
    monkeypatch.setattr(prepare, "_PACKAGES", ("dynpose_is_not_here",))
    prepare.main([
        *("--work", str(tmp_path), "--config-file", "quick/fcpose_synthetic.yaml"),
        *("DATASETS.SYNTHETIC.NUM_TRAIN", "3", "DATASETS.SYNTHETIC.NUM_VAL", "2"),
    ])  # fmt: skip
    folder = Path(prepare.synthetic_root(str(tmp_path)))
    assert [len(list((folder / split).iterdir())) for split in ("train", "val")] == [3, 2]
