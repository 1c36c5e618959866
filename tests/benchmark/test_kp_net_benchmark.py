"""`dynpose benchmark kp-net`: its measurements, by numbers worked out by hand and with implementations that fail."""

import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import parse, read_tables

from dynpose.benchmark import clocks, measure, memory, report, settings
from dynpose.benchmark.agreement import Disagreement, Result, Tolerance, check_values
from dynpose.benchmark.clocks import Rates
from dynpose.benchmark.kp_net import case as kp_net
from dynpose.benchmark.kp_net import first_call, plot, run
from dynpose.benchmark.kp_net import report as kp_net_report
from dynpose.benchmark.kp_net.case import FUSED, GROUPED, NATIVE, REFERENCE, KPNetCase, LossCase
from dynpose.benchmark.measure import Measurement
from dynpose.benchmark.settings import Settings
from dynpose.methods import KPNetBenchmark
from dynpose.tools import benchmark

CPU = torch.device("cpu")
EXACT = Tolerance.of(torch.float32, tf32=False)
SMALL = KPNetCase("Small", channels=4, num_instances=3, map_size=(5, 7))
LOSSES = {
    loss.name: replace(loss, num_instances=3, map_size=(4, 5), num_keypoints=2)
    for loss in run.kp_net_benchmarks()["FCPose"].losses
}
CROSS_ENTROPY, DISTANCE = (LossCase(loss) for loss in LOSSES.values())
COMMAND = ("kp-net", "--device", "cpu", "--map-size", "5", "7", "--repeats", "2", "--instances", "1", "3")


@pytest.fixture
def quick(monkeypatch):
    """No processes for the memory, no large product and copy for the rates."""
    mebibytes = {GROUPED: 12.0, REFERENCE: 3.0, NATIVE: 2.0}
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: int(mebibytes[name] * 2**20))
    monkeypatch.setattr(run, "native_unavailable_reason", lambda *arguments: None)
    monkeypatch.setattr(run, "measure_rates", lambda *args: Rates(flops=1e12, bandwidth=1e10))


# --- the command ---


def test_tables_have_a_row_for_every_case_and_columns_for_all_implementations(quick, capsys):
    assert benchmark.run(parse(*COMMAND, "--training-instances", "2", "--markdown")) == 0
    out = capsys.readouterr().out
    tables = read_tables(out)
    cases = [(name, n) for method in ("FCPose", "InsPose") for name, n in rows_of(method)]
    assert len(tables) == 3
    for table in tables.values():
        assert [(row["case"], row["N"]) for row in table] == cases

    time, memory, rate = tables.values()
    columns = [
        "grouped",
        "reference",
        "native",
        "fused",
        *(f"grouped / {name}" for name in ("reference", "native", "fused")),
    ]
    assert list(time[0]) == ["case", "N", "floor", *columns]
    assert list(memory[0]) == ["case", "N", *columns]
    assert all(float(row["grouped"]) > float(row["floor"]) > 0 for row in time)
    assert all(row["fused"] == row["grouped / fused"] == "" for row in time + memory)
    figures = [(row["grouped"], row["reference"], row["grouped / reference"], row["native"]) for row in memory]
    assert set(figures) == {("12.0", "3.00", "4.00", "2.00")}
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
    assert kp_net_report.tables(read, "simple") + "\n" == printed
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
        "cpu_time": False,
    }
    first = read["cases"][0]["implementations"]["grouped"]
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
        args = parse("kp-net", "--device", kind)
        chosen = Settings(torch.device(kind))
        grids[kind] = [(case.name, case.num_instances) for case in run.Run(args, chosen).grid()]
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
    assert CROSS_ENTROPY.num_bytes == 2 * 3 * 2 * 20 * 4
    assert DISTANCE.num_bytes == 2 * (3 + 4) * 2 * 20 * 4


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
        REFERENCE: Measurement(status=memory.OUT_OF_MEMORY),
    }
    row = run.make_row(TINY, measurements, rates)
    assert row["case"] == "Tiny inference"
    assert (row["instances"], row["map_size"], row["floor_is"]) == (5, [2, 2], "matrix rate")
    assert row["floor_ms"] == pytest.approx(2.08)
    grouped, fused = row["implementations"][GROUPED], row["implementations"][FUSED]
    assert grouped["ms"] == pytest.approx(20)
    assert grouped["ms_quartiles"] == pytest.approx([15, 30])
    assert grouped["tflops"] == pytest.approx(2080 / 0.02 / 1e12)
    assert grouped["part_of_floor"] == pytest.approx(0.104)
    assert (grouped["mib"], grouped["host_ms"]) == (2.0, None)
    assert fused["part_of_floor"] == pytest.approx(0.52)
    assert fused["host_ms"] == pytest.approx(0.5)
    assert kp_net_report.speedup(row, "ms", FUSED) == pytest.approx(5)
    assert kp_net_report.speedup(row, "mib", FUSED) == 4
    assert kp_net_report.speedup(row, "ms", REFERENCE) is None
    assert set(row["implementations"][REFERENCE].values()) == {None, memory.OUT_OF_MEMORY}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (1325.3, "1325"), (64.93, "64.9"), (3.104, "3.10"), (0.01234, "0.0123"), (0.0, "0")]
)
def test_figures_in_tables(value, text):
    assert report.figure(value) == text


# --- implementations ---


@pytest.mark.parametrize("name", [GROUPED, NATIVE, FUSED])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_instances", [1, 3])
def test_implementations_agree_with_the_reference(name, training, num_instances):
    """The fused kernels run in Triton's interpreter here, and "torch" in place of native code that was not built."""
    case = replace(SMALL, training=training, num_instances=num_instances)
    inputs = case.make_inputs(CPU, 1)
    expected = case.run(REFERENCE, inputs)
    case.check(expected, case.run(name, inputs), inputs, EXACT)
    assert all(values.shape == (num_instances, 17) for values in expected.values.values())
    assert set(expected.gradients) == ({"gradient of features", "gradient of params"} if training else set())


@pytest.mark.parametrize("offset_loss", [False, True])
def test_implementations_of_the_released_losses_agree(offset_loss):
    case = DISTANCE if offset_loss else CROSS_ENTROPY
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
    monkeypatch.setattr(kp_net.triton_support, "interprets", lambda: True)
    assert "interprets" in kp_net.fused_unavailable_reason(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(kp_net.triton_support, "interprets", lambda: False)
    assert "cpu" in kp_net.fused_unavailable_reason(CPU, torch.float32)


def test_inputs_depend_on_the_seed_alone():
    first, same, other = (SMALL.make_inputs(CPU, seed) for seed in (3, 3, 4))
    assert torch.equal(first.features, same.features)
    assert torch.equal(first.params, same.params)
    assert not torch.equal(first.features, other.features)
    assert not torch.equal(first.params, other.params)


# --- measuring ---


class FakeCase:
    """Inputs are one tensor of 16 bytes; each implementation is a given action, and the calls are recorded."""

    reference = REFERENCE

    def __init__(self, **actions):
        self.actions = actions
        self.calls = []

    def make_inputs(self, device, seed):
        return (torch.full((4,), float(seed)),)

    def run(self, name, inputs):
        self.calls.append((name, int(inputs[0][0])))
        action = self.actions.get(name)
        if isinstance(action, Exception):
            raise action
        return Result({"values": inputs[0] if action is None else action(inputs[0])}, {})

    def check(self, expected, actual, inputs, tolerance):
        check_values("values", expected.values["values"], actual.values["values"], tolerance.values)


@pytest.fixture
def no_memory_measured(monkeypatch):
    monkeypatch.setattr(memory, "extra_memory", lambda case, name, device: 1)


def fake_measure(case, names=(GROUPED, REFERENCE), rounds=5):
    return measure.measure(case, names, CPU, clocks.make_clock(CPU), rounds, EXACT)


def test_every_call_reads_other_inputs_than_the_cache_holds(no_memory_measured, monkeypatch):
    monkeypatch.setattr(measure, "cache_bytes", lambda device: 3 * 16 + 1)
    case = FakeCase()
    measurements = fake_measure(case)
    # five sets, so that the four between two uses of one are larger than the cache
    timed = case.calls[2:]
    assert [name for name, _ in timed] == [GROUPED, REFERENCE] * 7
    assert [seed for _, seed in timed] == [i % 5 for i in range(14)]
    assert {seed for name, seed in timed if name == GROUPED} == set(range(5))
    assert [len(measurement.seconds) for measurement in measurements.values()] == [5, 5]


def test_no_more_inputs_than_calls_and_at_least_two(monkeypatch):
    monkeypatch.setattr(measure, "cache_bytes", lambda device: 10**9)
    assert len(measure.make_input_sets(FakeCase(), CPU, calls=6)) == 6
    monkeypatch.setattr(measure, "_MAX_INPUT_BYTES", 3 * 16)
    assert len(measure.make_input_sets(FakeCase(), CPU, calls=6)) == 3
    monkeypatch.setattr(measure, "_MAX_INPUT_BYTES", 1)
    sets = measure.make_input_sets(FakeCase(), CPU, calls=6)
    assert len(sets) == 2
    assert not torch.equal(sets[0][0], sets[1][0])


def test_a_slow_implementation_is_timed_less_often(no_memory_measured):
    def clock(call):
        seconds = 4.5 if call().values["values"][0] < 0 else 0.1
        return seconds, None

    case = FakeCase(slow=lambda values: -values - 1, fast=None)
    case.check = lambda *args: None
    measurements = measure.measure(case, ("slow", "fast"), CPU, clock, 8, EXACT)
    # five times 4.5 s are more than 20 s
    assert [len(measurement.seconds) for measurement in measurements.values()] == [5, 8]


OUT_OF_MEMORY_ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
    memory.ProcessDied(-9),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY_ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_is_a_cell_and_no_end(no_memory_measured, error):
    measurements = fake_measure(FakeCase(grouped=error))
    assert measurements[GROUPED].status == "out of memory"
    assert len(measurements[REFERENCE].seconds) == 5


def test_out_of_memory_while_the_memory_is_measured(monkeypatch):
    def extra_memory(case, name, device):
        if name == GROUPED:
            raise OUT_OF_MEMORY_ERRORS[0]
        return 2**20

    monkeypatch.setattr(memory, "extra_memory", extra_memory)
    case = FakeCase()
    measurements = fake_measure(case)
    assert measurements[GROUPED].status == "out of memory"
    assert {name for name, _ in case.calls} == {REFERENCE}

    row = run.make_row(TINY, measurements, Rates(1e12, 1e12))
    line = kp_net_report._compared(row, "ms")
    assert line["grouped"] == "out of memory"
    assert line["grouped / reference"] == ""


def test_other_errors_are_not_taken_for_want_of_memory(no_memory_measured):
    with pytest.raises(RuntimeError, match="shapes"):
        fake_measure(FakeCase(grouped=RuntimeError("shapes do not match")))


def test_an_implementation_that_disagrees_is_not_timed(no_memory_measured):
    measurements = fake_measure(FakeCase(grouped=lambda values: values + 1))
    assert measurements[GROUPED].status == "disagrees"
    assert measurements[GROUPED].detail.startswith("values")
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
        monkeypatch.setattr(clocks.time, "perf_counter", lambda: self.host)

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
    clock = clocks.DeviceClock(CPU)
    # with one or two seconds of other work the device would wait for the host, and the time be the host's
    assert clock(device.call) == (0.5, 3.5)
    assert clock._fills == 4


def test_device_clock_gives_up_where_the_call_itself_waits(monkeypatch):
    device = FakeDevice(monkeypatch, waits=True)
    clock = clocks.DeviceClock(CPU)
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
    assert memory.extra_memory(case, FUSED, torch.device("cuda")) == 50
    assert len(case.calls) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_grouped_convolution():
    # 64 x (4 + 2, 4, 4, 17) channels x 100 x 100 cells in float32: input, two hidden maps, heatmaps. The input and
    # the second hidden map, or the second hidden map and the heatmaps, are held at least.
    case = replace(SMALL, num_instances=64, map_size=(100, 100))
    bytes_per_channel = 64 * 100 * 100 * 4
    measured = memory.extra_memory(case, GROUPED, CPU)
    assert (4 + 17) * bytes_per_channel < measured < 3 * (6 + 4 + 4 + 17) * bytes_per_channel


def test_a_fresh_process_has_its_own_environment(monkeypatch):
    monkeypatch.delenv("DYNPOSE_TEST_VARIABLE", raising=False)
    environment_ = {"DYNPOSE_TEST_VARIABLE": "1"}
    assert memory.in_fresh_process(os.getenv, "DYNPOSE_TEST_VARIABLE", environment=environment_) == "1"
    assert "DYNPOSE_TEST_VARIABLE" not in os.environ


def test_a_fresh_process_that_fails():
    with pytest.raises(ZeroDivisionError) as failure:
        memory.in_fresh_process(divmod, 1, 0, environment={})
    assert "in a fresh process" in str(failure.value.__cause__)
    if os.name == "posix":
        with pytest.raises(memory.ProcessDied, match="ended by signal SIGABRT"):
            memory.in_fresh_process(os.abort, environment={})
    with pytest.raises(memory.ProcessDied, match="ended with exit code 3"):
        memory.in_fresh_process(os._exit, 3, environment={})


def test_a_crash_is_a_cell_and_no_end(monkeypatch):
    """It is not out of memory: that is told by the kernel's SIGKILL."""

    def extra_memory(case, name, device):
        if name == GROUPED:
            raise memory.ProcessDied(-6)
        return 2**20

    monkeypatch.setattr(memory, "extra_memory", extra_memory)
    measurements = fake_measure(FakeCase())
    figures = measurements[GROUPED].figures()
    assert (figures["note"], figures["ms"]) == ("crashed: its process ended by signal SIGABRT", None)
    assert len(measurements[REFERENCE].seconds) == 5


def test_rates_from_the_times_of_a_product_and_a_copy(monkeypatch):
    """Each call takes two seconds: 1024^3 multiply-adds, 256 MiB read and written."""

    def clock(call):
        call()
        return 2.0, None

    rates = clocks.measure_rates(CPU, torch.float32, clock, repeats=1)
    assert rates == Rates(flops=2 * 1024**3 / 2, bandwidth=2 * 2**28 / 2)


def settings_of_torch():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, deterministic, torch.get_num_threads()


def test_settings_hold_within_and_are_set_back():
    before = settings_of_torch()
    threads = before[-1] + 1
    for on in (True, False):
        with Settings(CPU, torch.float32, on, on, on, threads).applied():
            assert settings_of_torch() == (on, on, on, on, threads)
        assert settings_of_torch() == before


def test_settings_are_named_in_the_header():
    data = made_up_report()
    data["settings"].update(tf32=False, deterministic=True)
    assert report.subtitle(data) == "Some GPU, float32 without TF32, deterministic"


def test_cache_of_this_machine():
    assert 2**16 <= measure.cache_bytes(CPU) <= 2**32


# --- first calls, extras ---


def test_first_calls_run_every_size_in_both_modes(monkeypatch):
    """With the reference, as there is nothing to compile here."""
    seen, call = [], KPNetCase.run

    def watched(case, name, inputs):
        seen.append((case.mode, case.num_instances, case.map_size, name))
        return call(case, name, inputs)

    monkeypatch.setattr(KPNetCase, "run", watched)
    modes, map_sizes = ((False, 3), (True, 2)), ((5, 7), (4, 6), (6, 5))
    cases = [
        [replace(SMALL, training=training, num_instances=n, map_size=size) for size in map_sizes]
        for training, n in modes
    ]
    times = first_call.time_calls(cases, Settings(CPU), implementation=REFERENCE)
    sizes = [(5, 7)] * 6 + [(4, 6), (6, 5)]
    assert seen == [(*mode, size, REFERENCE) for mode in (("inference", 3), ("training", 2)) for size in sizes]
    for of_mode in times:
        assert set(of_mode) == {"first", "later", "new_size"}
        assert all(seconds > 0 for seconds in of_mode.values())


def test_first_calls_share_one_cache_that_is_empty_at_first(monkeypatch):
    folders = []

    def in_fresh_process(function, cases, *arguments, environment):
        folder = Path(environment["TRITON_CACHE_DIR"])
        folders.append((folder, [file.name for file in folder.iterdir()]))
        (folder / "kernel").touch()
        return [{"first": float(len(folders)), "later": 0.001, "new_size": 0.5} for _ in cases]

    monkeypatch.setattr(first_call, "in_fresh_process", in_fresh_process)
    benchmark_ = KPNetBenchmark(channels=32, cpu_instances=(1,), num_sampled=50, num_positives=60)
    rows = first_call.first_calls("FCPose", benchmark_, Settings(CPU))
    assert [names for _, names in folders] == [[], ["kernel"]]
    assert folders[0][0] == folders[1][0]
    assert not folders[0][0].exists()
    assert [(row["case"], row["instances"]) for row in rows] == [("FCPose inference", 100), ("FCPose training", 50)]
    assert (rows[0]["empty_cache_s"], rows[0]["filled_cache_s"]) == (1.0, 2.0)


def test_first_calls_are_of_the_methods_that_sample_where_the_kernels_run(monkeypatch):
    monkeypatch.setattr(run, "first_calls", lambda method, *arguments: [method])
    args = parse("kp-net", "--device", "cpu")
    chosen = Settings(CPU)
    assert run.Run(args, chosen).first_calls() == []
    monkeypatch.setattr(run, "fused_unavailable_reason", lambda *arguments: None)
    assert run.Run(args, chosen).first_calls() == ["FCPose"]


def test_extras_have_tables_of_their_own(quick, monkeypatch, capsys):
    benchmarks = {
        "FCPose": KPNetBenchmark(4, (1,), num_sampled=2, num_positives=4, losses=tuple(LOSSES.values())),
        "InsPose": KPNetBenchmark(4, (1,)),
    }
    monkeypatch.setattr(run, "kp_net_benchmarks", lambda: benchmarks)
    made_up = {"empty_cache_s": 20.0, "filled_cache_s": 1.5, "new_size_s": 0.004, "new_size_empty_cache_s": 0.01}
    first = {"case": "FCPose inference", "instances": 100, **made_up, "later_s": 0.0002}
    monkeypatch.setattr(run.Run, "first_calls", lambda self: [first])
    extras = ("--extras", "first-call", "released-loss", "all-positives")
    benchmark.run(parse(*COMMAND, "--training-instances", "2", "--markdown", *extras))
    tables = read_tables(capsys.readouterr().out)
    positives = tables["Training with all positive locations"]
    assert [(row["N"], row["implementation"]) for row in positives] == [("2", "grouped"), ("4", "reference")]
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
    channels = {"FCPose": 32, "InsPose": 8}
    for method, training, n in itertools.product(channels, (False, True), (1, 10, 100)):
        case = KPNetCase(method, channels[method], n, training)
        floor, _ = rates.floor(case.flops, case.num_bytes)
        times = {GROUPED: 400 * floor, REFERENCE: 100 * floor, FUSED: 10 * floor}
        measurements = {name: Measurement(seconds=[seconds], num_bytes=n) for name, seconds in times.items()}
        if training and n == 100:
            measurements[GROUPED] = Measurement(status=memory.OUT_OF_MEMORY)
        rows.append(run.make_row(case, measurements, rates))
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
        row["implementations"][FUSED] = {"status": "not run", "note": "not run: no kernel", "ms": None}
    image = plot.draw(data)
    assert len(image.axes) == 2
    assert [line.get_label() for line in image.axes[0].lines] == ["floor", "grouped convolution", "reference (PyTorch)"]


# --- environment ---


def test_a_changed_working_tree_is_marked(monkeypatch):
    for state, commit in (
        (None, None),
        ({"commit": "0123456789abcdef", "dirty": False}, "0123456789ab"),
        ({"commit": "0123456789abcdef", "dirty": True}, "0123456789ab+"),
    ):
        monkeypatch.setattr(settings, "git_state", lambda state=state: state)
        assert settings.environment(CPU)["commit"] == commit


@pytest.mark.gpu
def test_on_a_gpu(capsys, tmp_path):
    """All implementations and extras but the first calls, which need minutes."""
    data = tmp_path / "figures.json"
    arguments = ("kp-net", "--device", "cuda", "--instances", "1", "20", "--training-instances", "20", "--repeats", "3")
    assert benchmark.run(parse(*arguments, "--extras", "--json", str(data))) == 0, capsys.readouterr().out
    for row in json.loads(data.read_text())["cases"]:
        for figures in row["implementations"].values():
            assert figures["ms"] > 0
            assert figures["mib"] > 0
            assert 0 < figures["part_of_floor"] < 1.5
            assert figures["host_ms"] > 0
