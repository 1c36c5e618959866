"""`dynpose benchmark kp-net`: what it measures, by numbers worked out by hand and with contestants that fail."""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dynpose.tools import benchmark
from dynpose.tools.benchmark import contestants, environment, first_call, kp_net, measuring, plot, report, running
from dynpose.tools.benchmark.contestants import FUSED, GROUPED, REFERENCE, Disagreement, Result, Tolerance
from dynpose.tools.benchmark.kp_net import KPNetCase
from dynpose.tools.benchmark.measuring import Measurement, Rates
from dynpose.tools.benchmark.released_loss import ReleasedLossCase

CPU = torch.device("cpu")
EXACT = Tolerance.of(torch.float32, tf32=False)
SMALL = KPNetCase("Small", channels=4, num_instances=3, map_size=(5, 7))
SMALL_LOSS = ReleasedLossCase(False, num_instances=3, map_size=(4, 5), num_keypoints=2)
COMMAND = ("kp-net", "--device", "cpu", "--map-size", "5", "7", "--repeats", "2", "--instances", "1", "3")


def parse(*arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def quick(monkeypatch):
    """No processes for the memory, no large product and copy for the rates."""
    mebibytes = {GROUPED: 12.0, REFERENCE: 3.0}
    monkeypatch.setattr(measuring, "extra_memory", lambda case, name, device: int(mebibytes[name] * 2**20))
    monkeypatch.setattr(running, "measure_rates", lambda *args: Rates(flops=1e12, bandwidth=1e10))


def read_tables(text):
    """Tables in markdown by title: a list of dicts each."""
    tables, blocks = {}, text.strip().split("\n\n")
    for title, block in zip(blocks, blocks[1:]):
        if block.startswith("|"):
            titles, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            tables[title] = [dict(zip(titles, line)) for line in lines]
    return tables


# --- the command ---


def test_tables_have_a_row_for_every_case_and_columns_for_all_contestants(quick, capsys):
    assert benchmark.run(parse(*COMMAND, "--training-instances", "2", "--markdown")) == 0
    out = capsys.readouterr().out
    tables = read_tables(out)
    cases = [(name, n) for method in ("FCPose", "InsPose") for name, n in rows_of(method)]
    assert len(tables) == 3
    for table in tables.values():
        assert [(row["case"], row["N"]) for row in table] == cases

    time, memory, rate = tables.values()
    columns = ["grouped", "reference", "fused", "grouped / reference", "grouped / fused"]
    assert list(time[0]) == ["case", "N", "floor", *columns]
    assert list(memory[0]) == ["case", "N", *columns]
    assert all(float(row["grouped"]) > float(row["floor"]) > 0 for row in time)
    assert all(row["fused"] == row["grouped / fused"] == "" for row in time + memory)
    assert {(row["grouped"], row["reference"], row["grouped / reference"]) for row in memory} == {
        ("12.0", "3.00", "4.00")
    }
    assert all(row["floor / grouped"].endswith("%") and float(row["reference"]) > 0 for row in rate)

    header, *_, note = out.strip().split("\n\n")
    assert f"torch {torch.__version__}" in header
    assert f"float32, {torch.get_num_threads()} CPU threads, median of 2" in header
    assert "1.00 TFLOP/s in matrix products, 10.0 GB/s in copies" in header
    assert note.startswith("fused: not run: ")


def rows_of(method):
    return [(f"{method} inference", "1"), (f"{method} inference", "3"), (f"{method} training", "2")]


def test_file_and_plot_are_written_and_the_file_holds_no_path(quick, tmp_path, capsys):
    data, image = tmp_path / "figures.json", tmp_path / "figures.png"
    benchmark.run(parse(*COMMAND, "--training-instances", "2", "--json", str(data), "--plot", str(image)))
    printed = capsys.readouterr().out
    text = data.read_text()
    read = json.loads(text)
    assert report.tables(read, "simple") + "\n" == printed
    assert len(read["cases"]) == 6
    assert read["environment"]["torch"] == torch.__version__
    assert read["environment"]["cpu_threads"] == torch.get_num_threads()
    assert read["settings"] == {
        "device": "cpu",
        "dtype": "float32",
        "tf32": False,
        "cudnn_benchmark": False,
        "deterministic": False,
        "rounds": 2,
    }
    first = read["cases"][0]["contestants"]["grouped"]
    assert first["ms_quartiles"][0] <= first["ms"] <= first["ms_quartiles"][1]
    for path in (Path.home(), Path.cwd(), tmp_path, Path(sys.prefix)):
        assert str(path) not in text
    assert os.sep not in text.replace(read["environment"]["device"], "")

    content = image.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert width > 1000
    assert height > 800


def test_default_cases():
    grids = {}
    for kind in ("cpu", "cuda"):
        run = SimpleNamespace(args=parse("kp-net"), kind=kind, dtype=torch.float32)
        run.case = lambda *args, run=run, **kwargs: running._Run.case(run, *args, **kwargs)
        grids[kind] = [(case.name, case.num_instances) for case in running._Run.grid(run)]
    for method in ("FCPose", "InsPose"):
        inference, training = (f"{method} {mode}" for mode in ("inference", "training"))
        assert [n for name, n in grids["cuda"] if name == inference] == [1, 10, 50, 100, 500]
        assert {50, 500} <= {n for name, n in grids["cuda"] if name == training}
    assert ("FCPose inference", 500) not in grids["cpu"]
    assert all(case in grids["cuda"] for case in grids["cpu"])


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("something-else",),
        ("kp-net", "--plot", "figures.txt"),
        ("kp-net", "--plot", "no/such/folder/figures.png"),
        ("kp-net", "--json", "no/such/folder/figures.json"),
        ("kp-net", "--instances", "0"),
        ("kp-net", "--dtype", "float64"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(arguments):
    with pytest.raises(SystemExit):
        parse(*arguments)


def test_disagreement_is_named_and_gives_exit_code_1(quick, monkeypatch, capsys):
    right = kp_net._grouped_heatmaps
    monkeypatch.setattr(kp_net, "_grouped_heatmaps", lambda *args: right(*args) * 1.01)
    assert benchmark.run(parse(*COMMAND, "--training-instances", "--markdown")) == 1
    out = capsys.readouterr().out
    time = read_tables(out)["Time of one call, ms"]
    assert {row["grouped"] for row in time} == {"disagrees"}
    assert all(float(row["reference"]) > 0 for row in time)
    assert "FCPose inference, N = 1: grouped disagrees: values: relative difference 1.0e-02" in out


# --- figures ---

# 2 x 2 cells, C = width = 4, K = 3: layers 6 -> 4, 4 -> 4, 4 -> 3 are 24 + 16 + 12 = 52 products a cell and instance,
# 63 parameters with the biases
TINY = KPNetCase("Tiny", channels=4, num_instances=5, map_size=(2, 2), num_keypoints=3)


def test_flops_by_hand():
    assert TINY.flops == 2 * 5 * 4 * 52
    # three times as many, but for the gradients of the two coordinates: 2 x 4 products
    assert replace(TINY, training=True).flops == 2 * 5 * 4 * (3 * 52 - 8)
    # the figure of FCPose section 3.1: 8.9 GFLOP for 100 people at 800 x 1333
    assert KPNetCase("FCPose", 32, 100).flops == pytest.approx(8.9e9, rel=0.005)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_by_hand(dtype, size):
    case = replace(TINY, dtype=dtype)
    maps_and_params = (4 * 4 + 5 * 63) * size
    instances = 5 * (8 + 8 + 4)
    assert case.num_bytes == maps_and_params + instances + 5 * 3 * (4 + 8 + 4)
    assert replace(case, training=True).num_bytes == 2 * maps_and_params + instances + 5 * 3 * (8 + 4)


@pytest.mark.parametrize("training", [False, True])
def test_bytes_are_those_of_the_tensors(training):
    case = replace(SMALL, training=training)
    inputs = case.make_inputs(CPU, 0)
    result = case.run(REFERENCE, inputs)
    outputs = [*result.values.values(), *result.gradients.values(), *([] if training else [result.indices])]
    tensors = [tensor for tensor in (*inputs, *outputs) if tensor is not None]
    assert case.num_bytes == sum(tensor.nbytes for tensor in tensors)


def test_bytes_of_the_released_loss():
    # 3 instances, 2 keypoints, 4 x 5 cells in float32; two images have two offsets each; read, and gradients written
    assert SMALL_LOSS.num_bytes == 2 * 3 * 2 * 20 * 4
    assert replace(SMALL_LOSS, offset_loss=True).num_bytes == 2 * (3 + 4) * 2 * 20 * 4


def test_floor_is_the_larger_of_two_times():
    rates = Rates(flops=100.0, bandwidth=10.0)
    assert rates.floor(500, 20) == (5.0, "matrix rate")
    assert rates.floor(500, 80) == (8.0, "bandwidth")


def test_row_by_hand():
    # 2080 FLOP are 2.08 ms; 1664 bytes less
    rates = Rates(flops=1e6, bandwidth=1e9)
    measurements = {
        GROUPED: Measurement(seconds=[0.04, 0.01, 0.02], num_bytes=2**21),
        FUSED: Measurement(seconds=[0.004], host_seconds=[0.0005], num_bytes=2**19),
        REFERENCE: Measurement(note=measuring.OUT_OF_MEMORY),
    }
    row = running.make_row(TINY, measurements, rates)
    assert row["case"] == "Tiny inference"
    assert (row["instances"], row["map_size"], row["floor_is"]) == (5, [2, 2], "matrix rate")
    assert row["floor_ms"] == pytest.approx(2.08)
    grouped, fused = row["contestants"][GROUPED], row["contestants"][FUSED]
    assert grouped["ms"] == pytest.approx(20)
    assert grouped["ms_quartiles"] == pytest.approx([15, 30])
    assert grouped["tflops"] == pytest.approx(2080 / 0.02 / 1e12)
    assert grouped["part_of_floor"] == pytest.approx(0.104)
    assert (grouped["mib"], grouped["host_ms"]) == (2.0, None)
    assert fused["part_of_floor"] == pytest.approx(0.52)
    assert fused["host_ms"] == pytest.approx(0.5)
    assert report.ratio(row, "ms", FUSED) == pytest.approx(5)
    assert report.ratio(row, "mib", FUSED) == 4
    assert report.ratio(row, "ms", REFERENCE) is None
    assert set(row["contestants"][REFERENCE].values()) == {None, measuring.OUT_OF_MEMORY}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (1325.3, "1325"), (64.93, "64.9"), (3.104, "3.10"), (0.01234, "0.0123"), (0.0, "0")]
)
def test_figures_in_tables(value, text):
    assert report.figure(value) == text


# --- contestants ---


@pytest.mark.parametrize("name", [GROUPED, FUSED])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_instances", [1, 3])
def test_contestants_agree_with_the_reference(name, training, num_instances):
    """The kernels run in Triton's interpreter here."""
    case = replace(SMALL, training=training, num_instances=num_instances)
    inputs = case.make_inputs(CPU, 1)
    expected = case.run(REFERENCE, inputs)
    case.check(expected, case.run(name, inputs), inputs, EXACT)
    assert all(values.shape == (num_instances, 17) for values in expected.values.values())
    assert set(expected.gradients) == ({"gradient of features", "gradient of params"} if training else set())


@pytest.mark.parametrize("offset_loss", [False, True])
def test_contestants_of_the_released_loss_agree(offset_loss):
    case = replace(SMALL_LOSS, offset_loss=offset_loss)
    inputs = case.make_inputs(CPU, 1)
    expected = case.run(REFERENCE, inputs)
    case.check(expected, case.run(FUSED, inputs), inputs, EXACT)
    assert expected.values["losses"].shape == (3, 2)
    assert len(expected.gradients) == 1 + offset_loss
    assert all(gradient.abs().max() > 0 for gradient in expected.gradients.values())


def _changed(result, part, name, change):
    return result._replace(**{part: {**getattr(result, part), name: change(getattr(result, part)[name])}})


def _spoil(tensor, by):
    tensor = tensor.clone()
    tensor.view(-1)[0] += by
    return tensor


@pytest.mark.parametrize(
    ("training", "part", "name", "change"),
    [
        (False, "values", "values", lambda x: _spoil(x, 0.05)),
        (False, "values", "values", lambda x: _spoil(x, float("nan"))),
        (False, "values", "values", lambda x: x[:1]),
        (False, "values", "confidence", lambda x: x * 1.1),
        (True, "values", "losses", lambda x: _spoil(x, 0.05)),
        (True, "gradients", "gradient of features", lambda x: x * 1.01),
        (True, "gradients", "gradient of params", lambda x: _spoil(x, float("nan"))),
        (True, "gradients", "gradient of params", lambda x: x.roll(1, 0)),
    ],
)
def test_wrong_results_disagree(training, part, name, change):
    case = replace(SMALL, training=training)
    inputs = case.make_inputs(CPU, 0)
    expected = case.run(REFERENCE, inputs)
    with pytest.raises(Disagreement, match=name):
        case.check(expected, _changed(expected, part, name, change), inputs, EXACT)


def test_wrong_indices_disagree():
    inputs = SMALL.make_inputs(CPU, 0)
    expected = SMALL.run(REFERENCE, inputs)
    other = expected.indices.clone()
    other[2, 5] = (other[2, 5] + 1) % 35
    with pytest.raises(Disagreement, match="indices"):
        SMALL.check(expected, expected._replace(indices=other), inputs, EXACT)


def test_another_cell_that_is_as_high_agrees():
    """All parameters zero: every cell is the highest."""
    inputs = SMALL.make_inputs(CPU, 0)._replace(params=torch.zeros(3, SMALL.spec.num_params))
    expected = SMALL.run(REFERENCE, inputs)
    other = expected._replace(indices=expected.indices + 1)
    case = replace(SMALL)
    case._check_indices(expected, other, inputs, EXACT.values)


def test_tolerance_follows_the_precision():
    exact, tf32, half, brain = (
        Tolerance.of(*precision)
        for precision in (
            (torch.float32, False),
            (torch.float32, True),
            (torch.float16, False),
            (torch.bfloat16, False),
        )
    )
    assert exact.values == exact.gradients == 1e-3
    assert exact.values < tf32.values == half.values < brain.values < 0.05


def test_interpreted_kernels_are_not_timed(monkeypatch):
    monkeypatch.setattr(contestants.triton_support, "interprets", lambda: True)
    assert "interprets" in contestants.why_not(FUSED, torch.device("cuda"), torch.float32)
    monkeypatch.setattr(contestants.triton_support, "interprets", lambda: False)
    assert "cpu" in contestants.why_not(FUSED, CPU, torch.float32)
    assert contestants.why_not(GROUPED, CPU, torch.float32) == ""


def test_inputs_depend_on_the_seed_alone():
    first, same, other = (SMALL.make_inputs(CPU, seed) for seed in (3, 3, 4))
    assert torch.equal(first.features, same.features)
    assert torch.equal(first.params, same.params)
    assert not torch.equal(first.features, other.features)
    assert not torch.equal(first.params, other.params)


# --- measuring ---


class FakeCase:
    """Inputs are one tensor of 16 bytes; the contestants do as they are told, and their calls are written down."""

    dtype = torch.float32

    def __init__(self, **contestants):
        self.contestants = contestants
        self.calls = []

    def make_inputs(self, device, seed):
        return (torch.full((4,), float(seed)),)

    def run(self, name, inputs):
        self.calls.append((name, int(inputs[0][0])))
        action = self.contestants.get(name)
        if isinstance(action, Exception):
            raise action
        return Result({"values": inputs[0] if action is None else action(inputs[0])}, {})

    def check(self, expected, actual, inputs, tolerance):
        contestants.check_values("values", expected.values["values"], actual.values["values"], tolerance.values)


@pytest.fixture
def no_memory_measured(monkeypatch):
    monkeypatch.setattr(measuring, "extra_memory", lambda case, name, device: 1)


def fake_measure(case, names=(GROUPED, REFERENCE), rounds=5):
    return measuring.measure(case, names, CPU, measuring.make_clock(CPU), rounds, EXACT)


def test_every_call_reads_other_inputs_than_the_cache_holds(no_memory_measured, monkeypatch):
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 3 * 16 + 1)
    case = FakeCase()
    measurements = fake_measure(case)
    # five sets, so that the four between two uses of one are larger than the cache
    timed = case.calls[2:]
    assert [name for name, _ in timed] == [GROUPED, REFERENCE] * 7
    assert [seed for _, seed in timed] == [i % 5 for i in range(14)]
    assert {seed for name, seed in timed if name == GROUPED} == set(range(5))
    assert [len(measurement.seconds) for measurement in measurements.values()] == [5, 5]


def test_no_more_inputs_than_calls_and_at_least_two(monkeypatch):
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 10**9)
    assert len(measuring.make_input_sets(FakeCase(), CPU, calls=6)) == 6
    monkeypatch.setattr(measuring, "_MAX_INPUT_BYTES", 3 * 16)
    assert len(measuring.make_input_sets(FakeCase(), CPU, calls=6)) == 3
    monkeypatch.setattr(measuring, "_MAX_INPUT_BYTES", 1)
    sets = measuring.make_input_sets(FakeCase(), CPU, calls=6)
    assert len(sets) == 2
    assert not torch.equal(sets[0][0], sets[1][0])


def test_a_slow_contestant_is_timed_less_often(no_memory_measured):
    def clock(call):
        seconds = 4.5 if call().values["values"][0] < 0 else 0.1
        return seconds, None

    case = FakeCase(slow=lambda values: -values - 1, fast=None)
    case.check = lambda *args: None
    measurements = measuring.measure(case, ("slow", "fast"), CPU, clock, 8, EXACT)
    # five times 4.5 s are more than 20 s
    assert [len(measurement.seconds) for measurement in measurements.values()] == [5, 8]


OUT_OF_MEMORY_ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
    BrokenProcessPool(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY_ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_is_a_cell_and_no_end(no_memory_measured, error):
    measurements = fake_measure(FakeCase(grouped=error))
    assert measurements[GROUPED].note == "out of memory"
    assert len(measurements[REFERENCE].seconds) == 5


def test_out_of_memory_while_the_memory_is_measured(monkeypatch):
    def extra_memory(case, name, device):
        if name == GROUPED:
            raise OUT_OF_MEMORY_ERRORS[0]
        return 2**20

    monkeypatch.setattr(measuring, "extra_memory", extra_memory)
    case = FakeCase()
    measurements = fake_measure(case)
    assert measurements[GROUPED].note == "out of memory"
    assert {name for name, _ in case.calls} == {REFERENCE}

    row = running.make_row(TINY, measurements, Rates(1e12, 1e12))
    (line,) = report._compared([row], "ms")
    assert line["grouped"] == "out of memory"
    assert line["grouped / reference"] == ""


def test_other_errors_are_not_taken_for_want_of_memory(no_memory_measured):
    with pytest.raises(RuntimeError, match="shapes"):
        fake_measure(FakeCase(grouped=RuntimeError("shapes do not match")))


def test_a_contestant_that_disagrees_is_not_timed(no_memory_measured):
    measurements = fake_measure(FakeCase(grouped=lambda values: values + 1))
    assert measurements[GROUPED].note.startswith("disagrees: values")
    assert measurements[GROUPED].seconds == []
    assert len(measurements[REFERENCE].seconds) == 5


class FakeDevice:
    """A CUDA stream on which overwriting the buffer takes 1 s, and a call 0.5 s of its and 3.5 s of the host's time."""

    def __init__(self, monkeypatch, waits=False):
        self.host = self.device = 0.0
        self.waits = waits
        buffer = SimpleNamespace(zero_=lambda: self.queue(1.0))
        monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: buffer)
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: FakeEvent(self))
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.host)

    def queue(self, seconds):
        self.device = max(self.device, self.host) + seconds

    def call(self):
        self.host += 3.5
        if self.waits:
            self.host = max(self.host, self.device)
        self.queue(0.5)


class FakeEvent:
    def __init__(self, device):
        self.stream = device

    def record(self):
        self.at = max(self.stream.device, self.stream.host)

    def query(self):
        return self.stream.host >= self.at

    def synchronize(self):
        self.stream.host = max(self.stream.host, self.at)

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


def test_device_clock_keeps_the_device_busy_while_the_host_queues(monkeypatch):
    device = FakeDevice(monkeypatch)
    clock = measuring.DeviceClock(CPU)
    # with one or two seconds of other work the device would wait for the host, and the time be the host's
    assert clock(device.call) == (0.5, 3.5)
    assert clock._fills == 4


def test_device_clock_gives_up_where_the_call_itself_waits(monkeypatch):
    device = FakeDevice(monkeypatch, waits=True)
    clock = measuring.DeviceClock(CPU)
    seconds, _ = clock(device.call)
    assert clock._fills == 64
    assert seconds >= 0.5


def test_device_memory_is_the_rise_over_the_inputs(monkeypatch):
    allocated, peak = [100], [900]
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated[0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, allocated[0]))
    case = FakeCase(fused=lambda values: peak.__setitem__(0, max(peak[0], 150)))
    case.make_inputs = lambda device, seed: (torch.zeros(4),)
    assert measuring.extra_memory(case, FUSED, torch.device("cuda")) == 50
    assert len(case.calls) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_grouped_convolution():
    # 64 x (4 + 2, 4, 4, 17) channels x 100 x 100 cells in float32: input, two hidden maps, heatmaps. The input and
    # the second hidden map, or the second hidden map and the heatmaps, are held at least.
    case = replace(SMALL, num_instances=64, map_size=(100, 100))
    bytes_per_channel = 64 * 100 * 100 * 4
    measured = measuring.extra_memory(case, GROUPED, CPU)
    assert (4 + 17) * bytes_per_channel < measured < 3 * (6 + 4 + 4 + 17) * bytes_per_channel


def test_a_fresh_process_has_its_own_environment(monkeypatch):
    monkeypatch.delenv("DYNPOSE_TEST_VARIABLE", raising=False)
    environment_ = {"DYNPOSE_TEST_VARIABLE": "1"}
    assert measuring.in_fresh_process(os.getenv, "DYNPOSE_TEST_VARIABLE", environment=environment_) == "1"
    assert "DYNPOSE_TEST_VARIABLE" not in os.environ


def test_rates_from_the_times_of_a_product_and_a_copy(monkeypatch):
    """Each call takes two seconds: 1024^3 multiply-adds, 256 MiB read and written."""

    def clock(call):
        call()
        return 2.0, None

    rates = measuring.measure_rates(CPU, torch.float32, clock, repeats=1)
    assert rates == Rates(flops=2 * 1024**3 / 2, bandwidth=2 * 2**28 / 2)


def settings_of_torch():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, deterministic, torch.get_num_threads()


def test_settings_hold_within_and_are_set_back():
    before = settings_of_torch()
    threads = before[-1] + 1
    for on in (True, False):
        with measuring.torch_settings(CPU, threads=threads, tf32=on, cudnn_benchmark=on, deterministic=on):
            assert settings_of_torch() == (on, on, on, on, threads)
        assert settings_of_torch() == before


def test_settings_are_named_in_the_header():
    data = made_up_report()
    data["settings"].update(tf32=False, deterministic=True)
    assert report.subtitle(data) == "Some GPU, float32 without TF32, deterministic"


def test_cache_of_this_machine():
    assert 2**16 <= measuring.cache_bytes(CPU) <= 2**32


# --- first calls, extras ---


def test_first_calls_run_every_size_in_both_modes(monkeypatch):
    """With the reference, as there is nothing to compile here."""
    monkeypatch.setattr(first_call, "_INSTANCES", {"inference": 3, "training": 2})
    seen = []
    run = KPNetCase.run

    def watched(case, name, inputs):
        seen.append((case.mode, case.num_instances, case.map_size, name))
        return run(case, name, inputs)

    monkeypatch.setattr(KPNetCase, "run", watched)
    times = first_call.time_calls(CPU, torch.float32, False, map_sizes=((5, 7), (4, 6), (6, 5)), contestant=REFERENCE)
    sizes = [(5, 7)] * 6 + [(4, 6), (6, 5)]
    modes = (("inference", 3), ("training", 2))
    assert seen == [(*mode, size, REFERENCE) for mode in modes for size in sizes]
    for mode in ("inference", "training"):
        assert set(times[mode]) == {"first", "later", "new_size"}
        assert all(seconds > 0 for seconds in times[mode].values())


def test_first_calls_share_one_cache_that_is_empty_at_first(monkeypatch):
    folders = []

    def in_fresh_process(function, *arguments, environment):
        folder = Path(environment["TRITON_CACHE_DIR"])
        folders.append((folder, [file.name for file in folder.iterdir()]))
        (folder / "kernel").touch()
        seconds = float(len(folders))
        return {mode: {"first": seconds, "later": 0.001, "new_size": 0.5} for mode in ("inference", "training")}

    monkeypatch.setattr(first_call, "in_fresh_process", in_fresh_process)
    rows = first_call.measure(CPU, torch.float32, False)
    assert [names for _, names in folders] == [[], ["kernel"]]
    assert folders[0][0] == folders[1][0]
    assert not folders[0][0].exists()
    assert [(row["case"], row["instances"]) for row in rows] == [("FCPose inference", 100), ("FCPose training", 50)]
    assert (rows[0]["empty_cache_s"], rows[0]["filled_cache_s"]) == (1.0, 2.0)


def test_extras_have_tables_of_their_own(quick, monkeypatch, capsys):
    monkeypatch.setattr(running, "_NUM_SAMPLED", 2)
    monkeypatch.setattr(running, "_NUM_POSITIVES", 4)
    monkeypatch.setattr(running, "ReleasedLossCase", lambda offset_loss: replace(SMALL_LOSS, offset_loss=offset_loss))
    monkeypatch.setattr(running, "why_not", lambda *args: "")
    made_up = {"empty_cache_s": 20.0, "filled_cache_s": 1.5, "new_size_s": 0.004, "new_size_empty_cache_s": 0.01}
    first = {"case": "FCPose inference", "instances": 100, **made_up, "later_s": 0.0002}
    monkeypatch.setattr(first_call, "measure", lambda *args: [first])
    extras = ("--extras", "first-call", "released-loss", "all-positives")
    benchmark.run(parse(*COMMAND, "--training-instances", "2", "--markdown", *extras))
    tables = read_tables(capsys.readouterr().out)
    positives = tables["Training with all positive locations"]
    assert [(row["N"], row["contestant"]) for row in positives] == [("2", "grouped"), ("4", "reference")]
    losses = tables["Losses of the released FCPose, forward and backward"]
    assert [row["case"] for row in losses] == ["cross-entropy, up-sampled by 4", "expected distance"]
    assert all(float(row["time, ms"]) > 0 and row["memory, MiB"] == "3.00" for row in losses)
    (row,) = tables["First calls of the fused kernels"]
    assert list(row.values()) == ["FCPose inference", "100", "20.0", "1.50", "0.004", "0.01", "0.2"]


# --- plot ---


def made_up_report():
    """The fused kernel at ten times its floor; the grouped convolution out of memory at N = 100 in training."""
    rates = Rates(flops=1e14, bandwidth=1e12)
    rows = []
    for method, training, n in itertools.product(("FCPose", "InsPose"), (False, True), (1, 10, 100)):
        case = KPNetCase(method, kp_net.CHANNELS[method], n, training)
        floor, _ = rates.floor(case.flops, case.num_bytes)
        times = {GROUPED: 400 * floor, REFERENCE: 100 * floor, FUSED: 10 * floor}
        measurements = {name: Measurement(seconds=[seconds], num_bytes=n) for name, seconds in times.items()}
        if training and n == 100:
            measurements[GROUPED] = Measurement(note=measuring.OUT_OF_MEMORY)
        rows.append(running.make_row(case, measurements, rates))
    settings = {"device": "cuda", "dtype": "float32", "tf32": True, "cudnn_benchmark": False, "deterministic": False}
    return {"cases": rows, "environment": {"device": "Some GPU"}, "settings": settings}


def test_plot_has_a_panel_for_each_method_and_mode_with_all_lines():
    data = made_up_report()
    image = plot.draw(data)
    titles = [axes.get_title(loc="left") for axes in image.axes]
    assert titles == ["FCPose, inference", "FCPose, training", "InsPose, inference", "InsPose, training"]
    labels = ["floor", "grouped convolution", "reference (PyTorch)", "fused (Triton)"]
    assert [text.get_text() for text in image.legends[0].get_texts()] == labels
    assert image._suptitle.get_text() == "KP-Nets over 100 x 167 cells: Some GPU, float32 with TF32"
    for axes in image.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [line.get_label() for line in axes.lines] == labels
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10", "100"]
    assert [axes.get_xlabel() for axes in image.axes] == ["", "", "instances N", "instances N"]
    assert [axes.get_ylabel() for axes in image.axes[::2]] == ["time of one call, ms"] * 2

    floor, _, _, fused = image.axes[0].lines
    assert list(fused.get_xdata()) == [1, 10, 100]
    assert list(fused.get_ydata()) == pytest.approx([10 * y for y in floor.get_ydata()])
    rows = [row for row in data["cases"] if row["case"] == "FCPose inference"]
    assert list(floor.get_ydata()) == [row["floor_ms"] for row in rows]


def test_plot_writes_the_ratios_and_where_memory_ends():
    inference, training, *_ = plot.draw(made_up_report()).axes
    assert [text.get_text() for text in inference.texts] == ["4.0\N{MULTIPLICATION SIGN}", "40\N{MULTIPLICATION SIGN}"]
    assert [text.get_text() for text in training.texts] == ["out of memory"]
    grouped = training.lines[1]
    assert list(grouped.get_xdata()) == [1, 10]


def test_lines_differ_without_colour():
    lines = plot.draw(made_up_report()).axes[0].lines[1:]
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 3


def test_plot_without_the_fused_kernel_and_with_one_number():
    data = made_up_report()
    data["cases"] = [row for row in data["cases"] if row["instances"] == 10 and row["mode"] == "inference"]
    for row in data["cases"]:
        row["contestants"][FUSED] = {"note": "not run: no kernel", "ms": None}
    image = plot.draw(data)
    assert len(image.axes) == 2
    assert [line.get_label() for line in image.axes[0].lines] == ["floor", "grouped convolution", "reference (PyTorch)"]


# --- environment ---


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commit_is_that_of_the_package_and_of_nothing_else(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout

    package, installed = tmp_path / "package", tmp_path / "installed"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").touch()
    git("init")
    git("add", "package")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert environment.commit(package) == head[:12]
    (package / "__init__.py").write_text("changed = True\n")
    assert environment.commit(package) == head[:12] + "+"
    assert environment.commit(installed) is None


def test_commit_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit(Path(benchmark.__file__).parent) is None


@pytest.mark.gpu
def test_on_a_gpu(capsys, tmp_path):
    """All contestants and extras but the first calls, which need minutes."""
    data = tmp_path / "figures.json"
    arguments = ("kp-net", "--device", "cuda", "--instances", "1", "20", "--training-instances", "20", "--repeats", "3")
    assert benchmark.run(parse(*arguments, "--extras", "--json", str(data))) == 0, capsys.readouterr().out
    for row in json.loads(data.read_text())["cases"]:
        for contestant in row["contestants"].values():
            assert contestant["ms"] > 0
            assert contestant["mib"] > 0
            assert 0 < contestant["part_of_floor"] < 1.5
            assert contestant["host_ms"] > 0
