"""One run of `dynpose benchmark kp-net`."""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch

from dynpose.benchmark.agreement import Tolerance
from dynpose.benchmark.clocks import Clock, Rates, make_clock, measure_rates
from dynpose.benchmark.measure import DISAGREES, NOT_RUN, Measurement, progress
from dynpose.benchmark.measure import measure as measure_case
from dynpose.benchmark.settings import Settings, environment
from dynpose.methods import KPNetBenchmark, registered_methods

from .case import (
    FUSED,
    GROUPED,
    NATIVE,
    REFERENCE,
    KPNetCase,
    LossCase,
    fused_unavailable_reason,
    native_unavailable_reason,
)
from .first_call import first_calls

# KPNetCase or LossCase
OneCase = TypeVar("OneCase", KPNetCase, LossCase)

_IMPLEMENTATIONS = {"cpu": (GROUPED, REFERENCE, NATIVE, FUSED), "cuda": (GROUPED, REFERENCE, FUSED)}

# Default numbers of instances; for inference on a CPU the method sets them
_INFERENCE = (1, 10, 50, 100, 500)
_TRAINING = {"cuda": (10, 50, 100, 500), "cpu": (10, 50)}

_EXTRAS = ("first-call", "released-loss", "all-positives")


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``rates``, ``cases`` (a row each of the grid), ``all_positives`` and
        ``released_loss`` (such rows), ``first_call``, ``notes`` and ``disagreements``.
    """
    settings = Settings.from_args(args, getattr(torch, args.dtype))
    with settings.applied():
        return Run(args, settings).report()


def kp_net_benchmarks() -> dict[str, KPNetBenchmark]:
    """Return the measured KP-Nets by the name of their method."""
    benchmarks = {method.name: method.kp_net_benchmark for method in registered_methods()}
    return {name: benchmark for name, benchmark in benchmarks.items() if benchmark}


class Run:
    """The measurements of one run, under settings that are applied.

    Args:
        args: of the command.
        settings: of the run.
    """

    def __init__(self, args: Namespace, settings: Settings):
        self.args, self.settings, self.device = args, settings, settings.device
        self.on_gpu = self.device.type == "cuda"
        self.benchmarks = kp_net_benchmarks()

    @cached_property
    def clock(self) -> Clock:
        """The clock of the device."""
        return make_clock(self.device)

    @cached_property
    def rates(self) -> Rates:
        """The peak rates of the machine."""
        return measure_rates(self.device, self.settings.dtype, self.clock)

    @cached_property
    def not_run(self) -> dict[str, str]:
        """The implementations that can't be run, with reasons."""
        reasons = {FUSED: fused_unavailable_reason(self.device, self.settings.dtype)}
        if not self.on_gpu:
            reasons[NATIVE] = native_unavailable_reason(self.device, self.settings.dtype)
        return {name: reason for name, reason in reasons.items() if reason}

    def report(self) -> dict[str, Any]:
        """Measure everything."""
        extras = self.args.extras
        if extras is None:
            extras = _EXTRAS if self.on_gpu else ()
        report: dict[str, Any] = {
            "environment": environment(self.device),
            "settings": self.settings.report(),
            "rates": {"tflops": self.rates.flops / 1e12, "gigabytes_per_second": self.rates.bandwidth / 1e9},
            "notes": [f"{name}: {NOT_RUN}: {reason}" for name, reason in self.not_run.items()],
            "cases": [self.row(case, _IMPLEMENTATIONS[self.device.type]) for case in self.grid()],
            "all_positives": self.all_positives() if "all-positives" in extras else [],
            "released_loss": self.losses() if "released-loss" in extras else [],
            "first_call": self.first_calls() if "first-call" in extras else [],
        }
        report["disagreements"] = [
            f"{row['case']}, N = {row['instances']}: {name} {figures['note']}"
            for part in ("cases", "all_positives", "released_loss")
            for row in report[part]
            for name, figures in row["implementations"].items()
            if figures["status"] == DISAGREES
        ]
        return report

    def grid(self) -> Iterator[KPNetCase]:
        """Yield the cases measured with all implementations."""
        training = self.args.training_instances
        if training is None:
            training = _TRAINING["cuda" if self.on_gpu else "cpu"]
        for method, benchmark in self.benchmarks.items():
            inference = self.args.instances or (_INFERENCE if self.on_gpu else benchmark.cpu_instances)
            yield from (self.case(method, number) for number in inference)
            yield from (self.case(method, number, training=True) for number in training)

    def case(self, method: str, num_instances: int, training: bool = False) -> KPNetCase:
        """Return the case of a method and a number of instances."""
        channels, size = self.benchmarks[method].channels, tuple(self.args.map_size)
        return KPNetCase(method, channels, num_instances, training, size, self.settings.dtype)

    def all_positives(self) -> list[dict[str, Any]]:
        """Train with all positive locations, against the grouped convolution with the number that is sampled."""
        return [
            self.row(self.case(method, number, training=True), names)
            for method, benchmark in self.benchmarks.items()
            if benchmark.num_sampled
            for number, names in (
                (benchmark.num_sampled, (GROUPED,)),
                (benchmark.num_positives, (REFERENCE, FUSED)),
            )
        ]

    def losses(self) -> list[dict[str, Any]]:
        """Measure the methods' losses over heatmaps; logits are float32, whatever the dtype of the features."""
        losses = (loss for benchmark in self.benchmarks.values() for loss in benchmark.losses)
        return [self.row(LossCase(loss), (REFERENCE, FUSED)) for loss in losses]

    def first_calls(self) -> list[dict[str, Any]]:
        """Time the first calls of the fused kernels, if they run."""
        return [
            row
            for method, benchmark in self.benchmarks.items()
            if benchmark.num_sampled and FUSED not in self.not_run
            for row in first_calls(method, benchmark, self.settings)
        ]

    def row(self, case: OneCase, names: Sequence[str]) -> dict[str, Any]:
        """Measure a case."""
        # TF32 only affects matrix products
        tolerance = Tolerance.of(case.dtype, self.settings.tf32 and case.flops > 0)
        measurements = measure_case(
            case, names, self.device, self.clock, self.settings.rounds, tolerance, not_run=self.not_run
        )
        row = make_row(case, measurements, self.rates)
        found = [progress(*each) for each in row["implementations"].items() if each[1]["status"] != NOT_RUN]
        print(f"{row['case']}, N = {row['instances']}: {', '.join(found)}", file=sys.stderr, flush=True)
        return row


def make_row(case: KPNetCase | LossCase, measurements: dict[str, Measurement], rates: Rates) -> dict[str, Any]:
    """Compute the figures of a case.

    Args:
        case: with ``name``, ``method``, ``mode``, ``num_instances``, ``map_size``, ``flops`` and ``num_bytes``.
        measurements: by implementation.
        rates: of the machine.

    Returns:
        The row of the report. Figures that were not measured are None.
    """
    num_bytes = case.num_bytes
    floor, bound = rates.floor(case.flops, num_bytes)
    implementations = {}
    for name, measurement in measurements.items():
        seconds = measurement.median
        queued = [each for each in measurement.host_seconds if each is not None]
        implementations[name] = {
            **measurement.figures(),
            "host_ms": 1000 * statistics.median(queued) if seconds and queued else None,
            "tflops": case.flops / seconds / 1e12 if seconds and case.flops else None,
            "part_of_floor": seconds and floor / seconds,
        }
    return {
        "case": case.name,
        "method": case.method,
        "mode": case.mode,
        "instances": case.num_instances,
        "map_size": list(case.map_size),
        "flops": case.flops,
        "bytes": num_bytes,
        "floor_ms": 1000 * floor,
        "floor_is": bound,
        "implementations": implementations,
    }
