"""One run of the benchmark: what is measured for given arguments, and the report that it ends in.

The report is a dict of plain values that JSON holds as they are. The tables, the plot and the file are made from it.
"""

from __future__ import annotations

import statistics
import sys

import torch

from . import first_call
from .contestants import FUSED, GROUPED, REFERENCE, Tolerance, why_not
from .environment import describe
from .kp_net import CHANNELS, KPNetCase
from .measuring import ROUNDS, Rates, choose_device, make_clock, measure, measure_rates, quartiles, torch_settings
from .released_loss import ReleasedLossCase

_CONTESTANTS = (GROUPED, REFERENCE, FUSED)

# On a CPU without what takes gigabytes with the grouped convolution.
_INFERENCE = {
    "cuda": dict.fromkeys(CHANNELS, (1, 10, 50, 100, 500)),
    "cpu": {"FCPose": (1, 10, 50, 100), "InsPose": (1, 10, 50, 100, 500)},
}
_TRAINING = {"cuda": (10, 50, 100, 500), "cpu": (10, 50)}

# FCPose samples at most 50 positive locations of a batch (its section 3.3); all of them are about so many.
_NUM_SAMPLED, _NUM_POSITIVES = 50, 2000


def measure_all(args) -> dict:
    """Measure what the arguments ask for.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``rates``, ``cases`` (a row each of the grid), ``all_positives`` and
        ``released_loss`` (such rows), ``first_call``, ``notes`` and ``disagreements``.
    """
    device = choose_device(args.device)
    dtype = getattr(torch, args.dtype)
    tf32 = args.tf32 and device.type == "cuda" and dtype == torch.float32
    with torch_settings(
        device,
        threads=args.threads,
        tf32=tf32,
        cudnn_benchmark=args.cudnn_benchmark,
        deterministic=args.deterministic,
    ):
        return _Run(args, device, dtype, tf32).report()


class _Run:
    """The measurements of one run, under settings that hold."""

    def __init__(self, args, device, dtype, tf32):
        self.args, self.device, self.dtype, self.tf32 = args, device, dtype, tf32
        self.kind = "cuda" if device.type == "cuda" else "cpu"
        self.rounds = args.repeats or ROUNDS[self.kind]
        self.clock = make_clock(device)
        self.rates = measure_rates(device, dtype, self.clock)

    def report(self):
        args = self.args
        extras = args.extras
        if extras is None:
            extras = ("first-call", "released-loss", "all-positives") if self.kind == "cuda" else ()
        why_not_fused = why_not(FUSED, self.device, self.dtype)
        report = {
            "environment": describe(self.device),
            "settings": {
                "device": self.device.type,
                "dtype": args.dtype,
                "tf32": self.tf32,
                "cudnn_benchmark": args.cudnn_benchmark,
                "deterministic": args.deterministic,
                "rounds": self.rounds,
            },
            "rates": {"tflops": self.rates.flops / 1e12, "gigabytes_per_second": self.rates.bandwidth / 1e9},
            "notes": [f"{FUSED}: {why_not_fused}"] if why_not_fused else [],
            "cases": [self.row(case, _CONTESTANTS) for case in self.grid()],
            "all_positives": self.all_positives() if "all-positives" in extras else [],
            "released_loss": self.released_loss() if "released-loss" in extras else [],
            "first_call": [],
        }
        if "first-call" in extras and not why_not_fused:
            report["first_call"] = first_call.measure(self.device, self.dtype, self.tf32)
        report["disagreements"] = [
            f"{row['case']}, N = {row['instances']}: {name} {contestant['note']}"
            for part in ("cases", "all_positives", "released_loss")
            for row in report[part]
            for name, contestant in row["contestants"].items()
            if contestant["note"].startswith("disagrees")
        ]
        return report

    def grid(self):
        args = self.args
        training = _TRAINING[self.kind] if args.training_instances is None else args.training_instances
        for method in CHANNELS:
            inference = args.instances or _INFERENCE[self.kind][method]
            yield from (self.case(method, n) for n in inference)
            yield from (self.case(method, n, training=True) for n in training)

    def case(self, method, num_instances, training=False):
        return KPNetCase(
            method, CHANNELS[method], num_instances, training, map_size=tuple(self.args.map_size), dtype=self.dtype
        )

    def all_positives(self):
        """Training with every positive location, against the grouped convolution with as many as are sampled."""
        return [
            self.row(self.case("FCPose", _NUM_SAMPLED, training=True), (GROUPED,)),
            self.row(self.case("FCPose", _NUM_POSITIVES, training=True), (REFERENCE, FUSED)),
        ]

    def released_loss(self):
        # its logits are float32, whatever the dtype of the features
        return [self.row(ReleasedLossCase(offset_loss), (REFERENCE, FUSED)) for offset_loss in (False, True)]

    def row(self, case, names):
        # TF32 is of the matrix units
        tolerance = Tolerance.of(case.dtype, self.tf32 and case.flops > 0)
        measurements = measure(case, names, self.device, self.clock, self.rounds, tolerance)
        row = make_row(case, measurements, self.rates)
        print(_progress(row), file=sys.stderr, flush=True)
        return row


def make_row(case, measurements: dict, rates: Rates) -> dict:
    """Work out the figures of a case.

    Args:
        case: with ``name``, ``method``, ``mode``, ``num_instances``, ``map_size``, ``flops`` and ``num_bytes``.
        measurements: by contestant.
        rates: of the machine.

    Returns:
        The row of the report. Figures that were not measured are None.
    """
    floor, bound = rates.floor(case.flops, case.num_bytes)
    contestants = {}
    for name, measurement in measurements.items():
        seconds = statistics.median(measurement.seconds) if measurement.seconds and not measurement.note else None
        mebibytes = None if measurement.num_bytes is None or measurement.note else measurement.num_bytes / 2**20
        contestants[name] = {
            "note": measurement.note,
            "rounds": len(measurement.seconds) if seconds else None,
            "ms": seconds and 1000 * seconds,
            "ms_quartiles": seconds and [1000 * x for x in quartiles(measurement.seconds)],
            "host_ms": _host_ms(measurement) if seconds else None,
            "mib": mebibytes,
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
        "bytes": case.num_bytes,
        "floor_ms": 1000 * floor,
        "floor_is": bound,
        "contestants": contestants,
    }


def _host_ms(measurement):
    times = [seconds for seconds in measurement.host_seconds if seconds is not None]
    return 1000 * statistics.median(times) if times else None


def _progress(row):
    times = (
        f"{name} {contestant['note'] or '{:.3f} ms'.format(contestant['ms'])}"
        for name, contestant in row["contestants"].items()
        if not contestant["note"].startswith("not run")
    )
    return f"{row['case']}, N = {row['instances']}: {', '.join(times)}"
