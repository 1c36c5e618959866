"""A part of the report: the fused kernels against float64, on the shapes that are timed.

The reference computes in float64 from the same inputs, after they were rounded to the dtype. Each row is written as
soon as it is known; TF32, which the benchmarks time, comes first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from dynpose.benchmark.agreement import Disagreement, Result, Tolerance
from dynpose.benchmark.kp_net.case import FUSED, REFERENCE, Inputs, KPNetCase, LossCase, LossInputs
from dynpose.benchmark.kp_net.run import OneCase, kp_net_benchmarks
from dynpose.benchmark.settings import Settings, choose_device, environment
from dynpose.layers import triton_support
from dynpose.utils.atomic import atomic_open

OneInputs = TypeVar("OneInputs", Inputs, LossInputs)

_MAP_SIZE = (100, 167)
_INFERENCE, _TRAINING = (1, 10, 50, 100, 500), (10, 50, 100, 500)


class Precision(NamedTuple):
    """A precision of the kernels."""

    name: str
    dtype: torch.dtype
    tf32: bool


PRECISIONS = (
    Precision("tf32", torch.float32, True),
    Precision("float32", torch.float32, False),
    Precision("bfloat16", torch.bfloat16, False),
)


def compare(case: OneCase, precision: Precision, device: torch.device) -> dict[str, Any]:
    """Compare the fused kernels with the reference in float64.

    Args:
        case: of the precision's dtype.
        precision: applied by the caller.
        device: to run on.

    Returns:
        The row of the report: ``case``, ``instances``, ``precision``; ``value_error``, the largest difference relative
        to the largest value; ``gradient_error``, the norm of the difference relative to the norm, None without
        gradients; ``status``, "" if both are within the tolerance of the benchmark.
    """
    row = {"case": case.name, "instances": case.num_instances, "precision": precision.name}
    try:
        inputs = case.make_inputs(device, 0)
        exact = in_float64(inputs)
        expected, actual = case.run(REFERENCE, exact), case.run(FUSED, inputs)
    except RuntimeError as error:
        return {**row, "value_error": None, "gradient_error": None, "status": f"error: {str(error).splitlines()[0]}"}
    # TF32 only affects matrix products
    tolerance = Tolerance.of(precision.dtype, precision.tf32 and case.flops > 0)
    try:
        case.check(expected, actual, exact, tolerance)
        status = ""
    except Disagreement as disagreement:
        status = str(disagreement)
    return {**row, **errors(expected, actual), "status": status}


def in_float64(inputs: OneInputs) -> OneInputs:
    """Convert the tensors that a kernel reads in its dtype to float64."""

    def convert(tensor):
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    if isinstance(inputs, LossInputs):
        return LossInputs({key: convert(x) if x.is_floating_point() else x for key, x in inputs.tensors.items()})
    return inputs._replace(features=convert(inputs.features), params=convert(inputs.params))


def errors(expected: Result, actual: Result) -> dict[str, float | None]:
    """Compute the largest relative errors of values and of gradients; confidences count as absolute errors."""
    values = [
        ((actual.values[name].double() - x).abs().max() / (1 if name == "confidence" else x.abs().max())).item()
        for name, x in expected.values.items()
    ]
    gradients = [
        ((actual.gradients[name].double() - x).norm() / x.norm()).item() for name, x in expected.gradients.items()
    ]
    return {"value_error": max(values), "gradient_error": max(gradients, default=None)}


def cases(args: argparse.Namespace, dtype: torch.dtype) -> Iterator[KPNetCase | LossCase]:
    """Yield the cases that the benchmarks time."""
    size = tuple(args.map_size or _MAP_SIZE)
    for method, benchmark in kp_net_benchmarks().items():
        # Some methods also train with all positive locations.
        positives = [args.positives or benchmark.num_positives] if benchmark.num_positives else []
        for training, numbers in ((False, args.instances), (True, [*args.training_instances, *positives])):
            for number in numbers:
                yield KPNetCase(method, benchmark.channels, number, training, size, dtype)
        if dtype == torch.float32:  # that of the logits, whatever the features' is
            small = {"map_size": size, "num_instances": args.instances[0]} if args.map_size else {}
            yield from (LossCase(dataclasses.replace(loss, **small)) for loss in benchmark.losses)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the part; 1 = a kernel disagrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--map-size", type=int, nargs=2, help="of the losses too; default: as in the benchmark")
    parser.add_argument("--instances", type=int, nargs="+", default=_INFERENCE)
    parser.add_argument("--training-instances", type=int, nargs="+", default=_TRAINING)
    parser.add_argument("--positives", type=int, help="instances of training with all positive locations")
    args = parser.parse_args(argv)
    if triton_support.interprets():
        from dynpose.layers import triton_interpreter  # noqa: F401  corrects its faults

    device = choose_device(args.device)
    report: dict[str, Any] = {"environment": environment(device), "cases": []}
    print("| precision | case | N | error of values | of gradients | |\n|---|---|---|---|---|---|", flush=True)
    for precision in PRECISIONS:
        with Settings(device, precision.dtype, precision.tf32).applied():
            for case in cases(args, precision.dtype):
                row = compare(case, precision, device)  # type: ignore[type-var]
                report["cases"].append(row)
                print(_line(row), flush=True)
                with atomic_open(args.json) as file:
                    file.write(json.dumps(report, indent=2) + "\n")
    return int(any(row["status"] for row in report["cases"]))


def _line(row):
    numbers = ("" if row[key] is None else f"{row[key]:.1e}" for key in ("value_error", "gradient_error"))
    return f"| {' | '.join([row['precision'], row['case'], str(row['instances']), *numbers, row['status']])} |"


if __name__ == "__main__":
    sys.exit(main())
